"""The specimen's mask and the normalisation before it."""

import numpy as np
import pytest

from models.errors import ImageError
from models.normalise import Normalisation, percentile_normalisation
from models.roi import specimen_mask


def disc(side: int, radius: int, *, center: tuple[int, int], value: int) -> np.ndarray:
    y, x = np.indices((side, side))
    inside = (y - center[0]) ** 2 + (x - center[1]) ** 2 <= radius**2
    return np.where(inside, value, 10).astype(np.uint8)


def test_mask_covers_the_specimen_and_leaves_out_the_background():
    frame = disc(512, 60, center=(200, 300), value=200)
    mask = specimen_mask(frame)
    assert set(np.unique(mask)) == {0, 1}
    assert np.mean(mask != (frame == 200)) < 0.001


def test_components_below_64_by_64_px_are_removed():
    large, small = (
        disc(512, r, center=c, value=200) for r, c in ((60, (150, 150)), (30, (400, 400)))
    )
    mask = specimen_mask(np.maximum(large, small))
    assert mask[150, 150] == 1
    assert mask[400, 400] == 0


@pytest.mark.parametrize(
    "frame", [np.zeros((300, 280), np.uint8), disc(512, 8, center=(9, 9), value=99)]
)
def test_the_whole_frame_counts_where_no_specimen_is_found(frame):
    assert specimen_mask(frame).all()


def test_the_area_limit_shrinks_with_small_frames():
    frame = disc(128, 20, center=(64, 64), value=200)  # 1257 px: below 4096, above 128^2 / 16
    assert 0.05 < specimen_mask(frame).mean() < 0.1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32])
def test_percentiles_are_numpys_for_every_dtype(dtype):
    image = np.random.default_rng(0).poisson(40, (61, 53)).astype(dtype)
    window = percentile_normalisation(image, p_low=1, p_high=99.8)
    assert (window.lo, window.hi) == pytest.approx(np.percentile(image, [1, 99.8]), rel=1e-6)


def test_gain_and_offset_of_the_camera_do_not_reach_the_patches():
    image = np.random.default_rng(1).poisson(40, (64, 64)).astype(np.uint16)
    brighter = image * 7 + 300
    one, other = (
        percentile_normalisation(frame, p_low=1, p_high=99.8).apply(frame)
        for frame in (image, brighter)
    )
    np.testing.assert_allclose(one, other, atol=1e-6)
    assert (one.min(), one.max(), one.dtype) == (0, 1, np.float32)


def test_sparse_puncta_use_the_full_range_where_the_percentiles_coincide():
    image = np.full((100, 100), 500, np.uint16)
    image[3, 4] = 900
    assert percentile_normalisation(image, p_low=1, p_high=99.8) == Normalisation(500, 900)


def test_a_constant_frame_becomes_zero():
    image = np.full((64, 64), 2**30, np.float32)
    assert not percentile_normalisation(image, p_low=1, p_high=99.8).apply(image).any()


@pytest.mark.parametrize("image", [np.full((9, 9), np.nan), np.zeros((2, 9, 9)), np.zeros((0, 9))])
def test_what_is_not_a_grey_frame_of_numbers_is_refused(image):
    with pytest.raises(ImageError):
        percentile_normalisation(image, p_low=1, p_high=99.8)
