import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autofocus.training.crops import half_swap, overlap_offset, overlapping_crops


@given(side=st.integers(8, 256), seed=st.integers(0, 2**32 - 1))
def test_the_overlap_lies_between_10_and_30_percent(side, seed):
    dy, dx = overlap_offset(side, np.random.default_rng(seed))

    share = (side - abs(dy)) * (side - abs(dx)) / side**2

    assert 0.10 <= share <= 0.30


def test_the_second_crop_may_lie_in_any_direction():
    rng = np.random.default_rng(0)
    offsets = np.array([overlap_offset(96, rng) for _ in range(400)])

    for sign_y in (-1, 1):
        for sign_x in (-1, 1):
            assert (np.sign(offsets) == (sign_y, sign_x)).all(axis=1).sum() > 50


def test_both_crops_show_the_same_two_places_of_every_tile():
    ramp = np.arange(80 * 90, dtype=np.float32).reshape(80, 90)
    tiles = np.stack([ramp, ramp + 0.5])

    first, second = overlapping_crops(tiles, 40, np.random.default_rng(3))

    assert first.shape == second.shape == (2, 40, 40)
    np.testing.assert_array_equal(first[1], first[0] + 0.5)
    np.testing.assert_array_equal(second[1], second[0] + 0.5)
    share = np.isin(first[0], second[0]).mean()
    assert 0.10 <= share <= 0.30


def test_too_small_tiles_are_refused_instead_of_padded():
    with pytest.raises(ValueError, match="too small"):
        overlapping_crops(np.zeros((1, 60, 60), np.float32), 40, np.random.default_rng(0))


def test_the_half_swap_exchanges_whole_crops_where_they_overlap():
    """The original swaps in place on views of one tensor and corrupts the shared pixels."""
    tiles = np.random.default_rng(0).random((4, 80, 80)).astype(np.float32)
    first, second = overlapping_crops(tiles, 40, np.random.default_rng(1))
    wanted_first = np.concatenate([second[:2], first[2:]])
    wanted_second = np.concatenate([first[:2], second[2:]])

    swapped = half_swap(first, second, slice(0, 2))

    np.testing.assert_array_equal(swapped[0], wanted_first)
    np.testing.assert_array_equal(swapped[1], wanted_second)


def test_the_half_swap_is_right_even_for_views_of_one_image():
    image = np.arange(36, dtype=np.float32).reshape(1, 6, 6)
    first, second = image[:, :4, :4], image[:, 2:, 1:5]
    before = image.copy()

    swapped_first, swapped_second = half_swap(first, second, slice(None))

    np.testing.assert_array_equal(swapped_first, before[:, 2:, 1:5])
    np.testing.assert_array_equal(swapped_second, before[:, :4, :4])
    np.testing.assert_array_equal(image, before)
