"""Which of some planes is the sharpest."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autofocus.scoring import INDISTINCT, is_in_order, sharpest
from models.scorer import FrameScore


def planes(*said):
    return [FrameScore(score, referee=referee) for score, referee in said]


def test_the_referee_chooses_among_planes_that_the_score_cannot_tell_apart():
    curve = planes((0.2, 1.0), (0.78, 2.0), (0.80, 5.0), (0.82, 4.0), (0.70, 6.0))
    assert sharpest(curve, refereed=True) == 2


def test_a_plane_beyond_a_valley_is_none_of_them():
    curve = planes((0.80, 9.0), (0.5, 3.0), (0.82, 4.0), (0.80, 3.0))
    assert sharpest(curve, refereed=True) == 2


def test_one_noisy_frame_does_not_divide_planes_that_score_alike():
    curve = planes((0.78, 9.0), (0.79, 8.0), (0.72, 7.0), (0.80, 4.0), (0.78, 3.0))
    assert sharpest(curve, refereed=True) == 0
    two = [*curve[:2], curve[2], curve[2], *curve[3:]]
    assert sharpest(two, refereed=True) == 4
    assert sharpest(curve[1:3], refereed=True) == 0


@pytest.mark.parametrize("refereed", [False, True])
def test_without_a_referee_or_where_it_cannot_compare_the_score_alone_decides(refereed):
    referee = None if refereed else 9.0
    curve = planes((0.81, referee), (0.82, 1.0), (0.80, referee))
    assert sharpest(curve, refereed=refereed) == 1


def test_a_clipped_plane_is_never_the_referees_choice():
    curve = planes((0.81, 9.0), (0.82, 1.0))
    clipped = replace(curve[0], saturated=True)
    assert sharpest(curve, refereed=True) == 0
    assert sharpest([clipped, curve[1]], refereed=True) == 1
    assert sharpest([clipped], refereed=True) == 0


@pytest.mark.parametrize(
    ("z_um", "expected"),
    [
        ((), True),
        ((None, None), True),
        ((0.0, 0.5, 2.0), True),
        ((3.0, 1.0), True),
        ((0.0, 2.0, 1.0), False),
    ],
)
def test_planes_in_order_of_z(z_um, expected):
    assert is_in_order(z_um) is expected


unit = st.floats(0, 1)


@given(st.lists(st.tuples(unit, unit), min_size=1, max_size=30))
def test_never_lower_than_what_cannot_be_told_apart_nor_beyond_it(said):
    curve = planes(*said)
    chosen = sharpest(curve, refereed=True)
    best = max(range(len(curve)), key=lambda plane: curve[plane].score)
    low, high = sorted((chosen, best))
    floor = curve[best].score - INDISTINCT
    below = [plane for plane in range(low, high + 1) if curve[plane].score < floor]
    for plane in below:  # one by itself, and not far
        assert curve[plane].score >= floor - INDISTINCT - 1e-9
        assert 0 < plane < len(curve) - 1
        assert min(curve[plane - 1].score, curve[plane + 1].score) >= floor
    assert curve[chosen].referee >= curve[best].referee
