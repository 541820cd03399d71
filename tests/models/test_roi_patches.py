"""Where the patches are: inside the specimen, repeatable, defined for every frame."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import ImageError
from models.normalise import Normalisation
from models.patches import (
    Anchor,
    anchored_patches,
    apart,
    choose_anchor,
    covering_positions,
    cut,
    pad_to,
    sample_positions,
    sharpest_first,
    without_border,
)
from models.reiqa import ExtractorSettings

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


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 300), width=st.integers(1, 300))
def test_only_sides_that_are_continued_lose_their_border_and_something_is_left(height, width):
    frame = np.arange(height * width).reshape(height, width)
    kept = without_border(frame, CHOICE)
    above, left = (
        (side - inside) // 2 for side, inside in zip(frame.shape, kept.shape, strict=True)
    )

    for side, border in zip(frame.shape, (above, left), strict=True):
        assert border == (0 if side >= SIZE else min(2, (side - 1) // 2))
    np.testing.assert_array_equal(kept, frame[above : height - above, left : width - left])


@pytest.mark.parametrize("written", [60, 0, 65535])
def test_what_a_camera_writes_on_the_border_of_a_small_frame_is_not_seen(written):
    """One of the recorded stacks has a column of 20 counts more there: in focus, said the head."""
    frame = np.random.default_rng(0).poisson(40, (128, 200)).astype(np.uint16)
    bordered = np.full_like(frame, written)
    bordered[2:-2, 2:-2] = frame[2:-2, 2:-2]
    anchor = choose_anchor(bordered, CHOICE)

    assert anchor == choose_anchor(frame, CHOICE)
    np.testing.assert_array_equal(
        anchored_patches(bordered, replace(anchor, normalisation=None), CHOICE),
        anchored_patches(frame, anchor, CHOICE),
    )


def covering_of(mask):
    return covering_positions(mask, size=SIZE, min_cover=0.4)


def covered_by(positions, shape):
    covered = np.zeros(shape, bool)
    for y, x in positions:
        covered[y : y + SIZE, x : x + SIZE] = True
    return covered


def shares(others, position):
    """Of a patch, the share of it that it has in common with each of the others."""
    return (
        np.clip(SIZE - abs(np.reshape(others, (-1, 2)) - position), 0, None).prod(axis=1) / SIZE**2
    )


def best_of(patches, *, sigma_px=2.0):
    """Of patches of one size side by side, their numbers from the sharpest to the least sharp."""
    size = patches[0].shape[0]
    positions = np.array([(0, i * size) for i in range(len(patches))])
    frame = np.concatenate(patches, axis=1).astype(np.float32)
    found = sharpest_first(frame, positions, size=size, sigma_px=sigma_px)
    return (found[:, 1] // size).tolist()


def test_the_sharpest_patches_come_first():
    sharp = np.random.default_rng(0).random((64, 64))
    blurred = [cv2.GaussianBlur(sharp, (0, 0), sigma) for sigma in (3, 1, 2)]
    assert best_of([*blurred, sharp]) == [3, 1, 2, 0]


def test_a_blurred_bead_is_sharper_than_the_noise_of_pixels():
    rng = np.random.default_rng(0)
    noise, bead = rng.normal(0.5, 0.22, (128, 128)), rng.normal(0.5, 0.2, (128, 128))
    bead[60:67, 60:67] += cv2.getGaussianKernel(7, 1.5) @ cv2.getGaussianKernel(7, 1.5).T * 30
    assert best_of([noise, bead]) == [1, 0]
    assert best_of([noise, bead], sigma_px=0.01) == [0, 1]


def test_in_a_frame_of_an_odd_size_noise_is_as_sharp_at_the_border_as_in_the_middle():
    positions = np.array([(0, 0), (0, 769), (769, 0), (769, 769), (384, 384), (300, 500)])
    rng, first = np.random.default_rng(0), np.zeros(len(positions))
    for _ in range(60):
        frame = rng.random((1025, 1025)).astype(np.float32)
        found = sharpest_first(frame, positions, size=SIZE, sigma_px=2.0)
        first += (positions == found[0]).all(axis=1)
    assert first[:4].sum() < 52


CHOICE = ExtractorSettings()


def beads_frame(side: int, beads: list[tuple[int, int]], *, peak: float = 400.0, seed: int = 0):
    """Beads of 3 px standard deviation on a dim background, counts of a camera."""
    light = np.full((side, side), 10.0, np.float32)
    y, x = np.indices((25, 25)) - 12
    bead = peak * np.exp(-(y**2 + x**2) / (2 * 3.0**2))
    for row, column in beads:
        light[row - 12 : row + 13, column - 12 : column + 13] += bead
    rng = np.random.default_rng(seed)
    return np.clip(rng.poisson(light) + rng.normal(100, 2, light.shape), 0, 65535).astype(np.uint16)


def shows(anchor: Anchor, bead: tuple[int, int]) -> list[bool]:
    size = CHOICE.patch_size
    return [y <= bead[0] < y + size and x <= bead[1] < x + size for y, x in anchor.positions]


@pytest.mark.parametrize(
    ("side", "bead"),
    [(512, (13, 13)), (640, (13, 13)), (724, (20, 30)), (800, (787, 13)), (1100, (13, 600))]
    + [(2048, bead) for bead in [(500, 700), (20, 1500), (2034, 2034), (13, 2034)]],
)
def test_the_only_bead_of_a_frame_is_looked_at_in_every_exposure(side, bead):
    for seed in range(3):
        seen = shows(choose_anchor(beads_frame(side, [bead], seed=seed), CHOICE), bead)
        assert len(seen) == CHOICE.top_patches
        assert seen[0]


@pytest.mark.parametrize("side", [640, 700, 1000, 1024, 1080, 2044, 2160])
def test_a_bead_is_in_as_many_patches_in_a_camera_of_any_size(side):
    rng = np.random.default_rng(side)
    seen = []
    for _ in range(12):
        bead = tuple(rng.integers(40, side - 40, 2))
        seen.append(sum(shows(choose_anchor(beads_frame(side, [bead]), CHOICE), bead)))
    assert 2 <= np.mean(seen) <= 4.2


@pytest.mark.parametrize("side", [600, 1024, 1100])
def test_as_many_patches_whether_a_specimen_is_small_or_fills_the_frame(side):
    rng = np.random.default_rng(side)
    small = 100 + np.zeros((side, side), np.float32)
    small[200:350, 180:330] += 400
    for light in (small, 100 + 200 * rng.random((side, side))):
        frame = rng.poisson(light).astype(np.uint16)
        assert len(choose_anchor(frame, CHOICE).positions) == CHOICE.top_patches


@pytest.mark.parametrize("shape", [(256, 512), (256, 513), (1, 513), (300, 513), (600, 40)])
def test_a_strip_has_as_many_patches_on_either_side_of_what_counts_as_large(shape):
    frame = np.random.default_rng(0).poisson(300, shape).astype(np.uint16)
    assert len(choose_anchor(frame, CHOICE).positions) == CHOICE.top_patches


def test_hot_pixels_do_not_keep_the_patches_from_a_bead():
    bead, rng = (300, 800), np.random.default_rng(1)
    frame = beads_frame(1024, [bead])
    hot = rng.choice(frame.size, 100, replace=False)
    frame.ravel()[hot] = rng.integers(200, 3000, 100)
    assert shows(choose_anchor(frame, CHOICE), bead)[0]


@pytest.mark.parametrize("shape", [(300, 300), (512, 400), (513, 300), (640, 700), (2048, 2048)])
def test_no_point_of_a_specimen_that_fills_the_frame_is_left_out(shape):
    mask = np.ones(shape, np.uint8)
    found = np.concatenate([positions_of(mask), covering_of(mask)])
    assert covered_by(found, shape).all()


def test_what_covers_a_large_specimen_keeps_to_it():
    found = covering_of(half_mask())
    assert len(found) > 10
    assert not len(covering_of(half_mask(512)))
    assert cut(half_mask(), found, SIZE).mean(axis=(1, 2)).min() >= 0.4


def test_of_small_things_all_over_a_large_frame_none_is_left_out():
    mask = np.zeros((1300, 1300), np.uint8)
    for y, x in np.ndindex(4, 4):
        mask[50 + 320 * y : 90 + 320 * y, 50 + 320 * x : 90 + 320 * x] = 1
    assert covered_by(covering_of(mask), mask.shape)[mask == 1].all()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 99),
    side=st.integers(SIZE, 1400),
    most=st.floats(0, 1),
    candidates=st.integers(1, 60),
    count=st.integers(1, 9),
)
def test_the_best_patches_keep_apart_and_the_best_of_the_others_are_the_rest(
    seed, side, most, candidates, count
):
    best_first = np.random.default_rng(seed).integers(0, side - SIZE + 1, (candidates, 2))
    found = apart(best_first, size=SIZE, count=count, most_overlap=most)
    spread, crowded = [], []
    for position in best_first:
        near = spread and shares(spread, position).max() > most
        (crowded if near else spread).append(position)
    np.testing.assert_array_equal(found, [*spread, *crowded][:count])


def test_patches_do_not_crowd_on_the_sharpest_spot():
    light = np.full((1024, 1024), 100.0, np.float32)
    light += 100 * np.random.default_rng(1).random(light.shape)
    light[300:700, 300:700] += 400 * np.random.default_rng(2).random((400, 400))
    frame = cv2.GaussianBlur(light, (0, 0), 2).astype(np.uint16)
    crowding = choose_anchor(frame, replace(CHOICE, most_overlap=1.0)).positions
    spread = choose_anchor(frame, CHOICE).positions
    assert spread[0] == crowding[0]
    covers = [
        covered_by(positions, frame.shape).sum() / SIZE**2 for positions in (spread, crowding)
    ]
    assert covers[0] > 1.4 * covers[1]


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
        {"lo": -1e39, "hi": 1.0},
        {"lo": -1e300, "hi": 0.0},
        {"lo": 0.0, "hi": 1e-40},
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
