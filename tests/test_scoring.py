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
    between = curve[low : high + 1]
    assert min(plane.score for plane in between) >= curve[best].score - INDISTINCT
    assert curve[chosen].referee >= curve[best].referee
