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


def test_frames_that_score_low_by_chance_do_not_divide_planes_that_score_alike():
    curve = planes((0.78, 9.0), (0.79, 8.0), (0.72, 11.0), (0.71, 12.0), (0.80, 4.0), (0.78, 3.0))
    assert sharpest(curve, refereed=True) == 0
    assert sharpest(curve[1:], refereed=True) == 0
    assert sharpest(curve[2:], refereed=True) == 2


def estimated(*said):
    """Distance and its deviation; the referee sees the more, the lower the score is."""
    return [
        FrameScore(1 / (1 + (distance / 2) ** 2), 5 + distance, distance, deviation)
        for distance, deviation in said
    ]


def test_a_plane_may_be_half_a_deviation_nearer_than_it_is_estimated():
    sure = estimated((2.0, 0.5), (0.3, 0.2), (0.5, 0.3))
    unsure = estimated((2.0, 0.5), (0.3, 0.2), (1.2, 2.0))
    assert sharpest(sure, refereed=True) == 1
    assert sharpest(unsure, refereed=True) == 2
    assert sharpest(unsure, refereed=False) == 1


@given(st.lists(st.tuples(st.floats(0, 12), st.floats(0, 6)), min_size=1, max_size=30))
def test_no_plane_is_chosen_that_is_surely_blurrier_than_the_best(said):
    curve = estimated(*said)
    best = max(curve, key=lambda plane: plane.score)
    chosen = curve[sharpest(curve, refereed=True)]
    alike = [p for p in curve if p.defocus_dof - p.defocus_sd_dof / 2 <= best.defocus_dof]
    assert chosen in alike
    assert chosen.referee == max(each.referee for each in alike)


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
def test_the_most_that_the_referee_sees_of_what_cannot_be_told_apart(said):
    curve = planes(*said)
    chosen = sharpest(curve, refereed=True)
    best = max(range(len(curve)), key=lambda plane: curve[plane].score)
    alike = [each for each in curve if each.score >= curve[best].score - INDISTINCT]
    assert curve[chosen] in alike
    assert curve[chosen].referee == max(each.referee for each in alike)
