"""Where the patches are: inside the specimen, repeatable, defined for every frame."""

import json

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import ImageError
from models.normalise import Normalisation
from models.patches import Anchor, cut, pad_to, sample_positions, sharpest

SIZE = 256


def positions_of(mask, *, count=32, min_cover=0.4, seed=0):
    return sample_positions(mask, size=SIZE, count=count, min_cover=min_cover, seed=seed)


def half_mask(side: int = 900) -> np.ndarray:
    mask = np.zeros((side, side), np.uint8)
    mask[:, : side // 2] = 1
    return mask


def test_every_patch_holds_enough_specimen():
    mask = half_mask()
    positions = positions_of(mask)
    assert len(positions) == 32
    assert cut(mask, positions, SIZE).mean(axis=(1, 2)).min() >= 0.4
    assert positions[:, 1].max() > 300  # up to the edge that the cover allows, not only deep inside


def test_the_same_mask_and_seed_give_the_same_patches_and_another_seed_others():
    mask = half_mask()
    np.testing.assert_array_equal(positions_of(mask), positions_of(mask.copy()))
    assert not np.array_equal(positions_of(mask), positions_of(mask, seed=1))


def test_a_slightly_different_mask_moves_few_patches():
    mask, wider = half_mask(), half_mask()
    wider[:, 450:454] = 1
    kept = {*map(tuple, positions_of(mask))} & {*map(tuple, positions_of(wider))}
    assert len(kept) >= 28


def test_a_specimen_too_small_for_the_cover_is_still_what_the_patches_hold():
    mask = np.zeros((1024, 1024), np.uint8)
    mask[700:780, 100:180] = 1
    positions = positions_of(mask)
    cover = cut(mask, positions, SIZE).mean(axis=(1, 2))
    assert 1 <= len(positions) <= 32
    assert cover.min() > 0
    assert cover[0] == pytest.approx(80 * 80 / SIZE**2)
    assert (np.diff(cover) <= 0).all()


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 400),
    width=st.integers(1, 400),
    corner=st.integers(0, 399),
    count=st.integers(1, 32),
)
def test_there_is_always_a_patch_and_all_are_distinct_and_inside(height, width, corner, count):
    mask = np.zeros((height, width), np.uint8)
    mask[: corner + 1, : corner + 1] = 1
    padded = pad_to(mask, SIZE)
    positions = positions_of(padded, count=count)
    assert 1 <= len(positions) <= count
    assert len({*map(tuple, positions)}) == len(positions)
    assert cut(padded, positions, SIZE).shape[1:] == (SIZE, SIZE)


def test_small_frames_are_continued_by_reflection_and_large_ones_left_alone():
    frame = np.arange(100 * 300, dtype=np.float32).reshape(100, 300)
    padded = pad_to(frame, SIZE)
    assert padded.shape == (256, 300)
    np.testing.assert_array_equal(padded[78:178], frame)
    np.testing.assert_array_equal(padded[:78], frame[77::-1])
    assert pad_to(padded, SIZE) is padded


def test_the_sharpest_patches_come_first():
    rng = np.random.default_rng(0)
    sharp = rng.integers(0, 255, (64, 64)).astype(np.uint8)
    blurred = [cv2.GaussianBlur(sharp, (0, 0), sigma) for sigma in (3, 1, 2)]
    assert sharpest(np.stack([*blurred, sharp]), 3).tolist() == [3, 1, 2]


@pytest.mark.parametrize("window", [None, Normalisation(99.50000000000001, 1234.1)])
def test_an_anchor_survives_json_exactly(window):
    anchor = Anchor((1024, 900), ((0, 7), (768, 3)), window)
    assert Anchor.from_dict(json.loads(json.dumps(anchor.to_dict()))) == anchor


@pytest.mark.parametrize(
    "change",
    [
        {"positions": []},
        {"positions": [[1, -2]]},
        {"positions": [[1, 2, 3]]},
        {"positions": [[1.5, 2]]},
        {"lo": 5.0, "hi": 5.0},
        {"lo": None},
        {"hi": float("nan")},
        {"hi": float("inf")},
        {"shape": [0, 10]},
        {"shape": "ab"},
        {"shape": None},
    ],
)
def test_a_forged_anchor_is_refused(change):
    values = Anchor((512, 512), ((1, 2),), Normalisation(0, 10)).to_dict()
    with pytest.raises(ImageError, match="anchor"):
        Anchor.from_dict(values | change)
