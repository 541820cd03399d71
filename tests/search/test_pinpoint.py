"""The referee says where the peak is that the score has found, and not whether it is one."""

from dataclasses import replace

import numpy as np
import pytest
from driving import drive, settings_for
from hypothesis import given, settings
from hypothesis import strategies as st

from autofocus.search import pinpoint
from autofocus.search.belief import absolute_score, believe, measured_score
from autofocus.search.pinpoint import NO_BELL, told_by_referee
from autofocus.search.protocol import FocusCurve, Reading

ABOUT = np.arange(-1.5, 1.5, 0.05)


def measure(z_um, *, focus_um=0.0, width_um=0.9, exponent=1.5, height=3.0):
    return height / (1 + ((z_um - focus_um) / width_um) ** 2) ** exponent


def readings(positions, **how):
    return [Reading(z, 0.8, referee=measure(z, **how)) for z in positions]


def mean_um(told):
    return np.average(ABOUT, weights=told)


@pytest.mark.parametrize("focus_um", [-0.4, 0.0, 0.3])
@pytest.mark.parametrize("width_um", [0.5, 0.9, 1.6])
@pytest.mark.parametrize("exponent", [0.8, 1.5, 2.5])
def test_measures_on_both_flanks_tell_the_place_whatever_the_width(focus_um, width_um, exponent):
    seen = readings((-0.9, -0.2, 0.3, 0.8), focus_um=focus_um, width_um=width_um, exponent=exponent)
    told = told_by_referee(ABOUT, seen, near_um=0.0, dof_um=1.0)
    assert ABOUT[told.argmax()] == pytest.approx(focus_um, abs=0.1)
    # The share of "no bell" is spread over all of them.
    assert mean_um(told - NO_BELL) == pytest.approx(focus_um, abs=0.15)


def test_neither_gain_nor_units_of_length_matter():
    seen = readings((-1.4, 0.1, 1.1), focus_um=0.2)
    told = told_by_referee(ABOUT, seen, near_um=0.0, dof_um=1.0)
    large = [Reading(10 * r.z_um, r.score, referee=1e-6 * r.referee) for r in seen]
    assert told_by_referee(10 * ABOUT, large, near_um=0.0, dof_um=10.0) == pytest.approx(told)


def test_it_is_the_likelihood_with_every_height_width_exponent_and_scatter_summed_over():
    planes, at, near_um = np.array([-1.0, 0.0, 0.2, 1.3]), np.array([-1.2, 0.1, 0.9, 2.6]), 0.1
    log_measure = np.log(measure(at, focus_um=0.3)) + np.array([0.05, -0.1, 0.1, 0.4])
    heights = np.linspace(-4, 8, 1201)[:, None]
    likelihood = np.zeros(len(planes))
    for step in pinpoint.WIDTHS:
        width = pinpoint.WIDTH_DOF[0] * np.exp(pinpoint.WIDTH_DOF[1] * step)
        for exponent in pinpoint.EXPONENTS:
            for scatter in pinpoint.SCATTERS:
                sd = np.sqrt(scatter**2 + (pinpoint.SCATTER_A_DOF * (at - near_um)) ** 2)
                for k, plane in enumerate(planes):
                    bell = heights - exponent * np.log1p(((at - plane) / width) ** 2)
                    density = np.exp(-(((log_measure - bell) / sd) ** 2) / 2) / sd
                    likelihood[k] += np.exp(-(step**2) / 2) * density.prod(axis=1).sum()
    seen = [Reading(z, 0.5, referee=np.exp(m)) for z, m in zip(at, log_measure, strict=True)]
    told = told_by_referee(planes, seen, near_um=near_um, dof_um=1.0)
    assert told == pytest.approx(0.8 * likelihood / likelihood.mean() + 0.2, rel=1e-3)


def test_one_flank_says_less_than_two():
    both = told_by_referee(ABOUT, readings((-1.4, 0.1, 1.1)), near_um=0.0, dof_um=1.0)
    one = told_by_referee(ABOUT, readings((0.1, 1.1, 1.6)), near_um=0.0, dof_um=1.0)
    assert one.max() < both.max() / 2


def test_no_place_loses_more_than_four_fifths_of_a_mean_likelihood():
    seen = readings(np.arange(-2.0, 2.1, 0.5))
    told = told_by_referee(ABOUT, seen, near_um=0.0, dof_um=1.0)
    assert told.min() == pytest.approx(0.2, abs=0.02)
    assert told.max() > 5


def test_what_is_faint_or_not_finite_tells_nothing():
    seen = readings((-0.9, 0.1, 0.8))
    odd = [Reading(3.0, 0.3, referee=0.02), Reading(1.0, 0.5, referee=float("nan"))]
    told = told_by_referee(ABOUT, seen + odd, near_um=0.0, dof_um=1.0)
    assert told == pytest.approx(told_by_referee(ABOUT, seen, near_um=0.0, dof_um=1.0))


@pytest.mark.parametrize(
    "seen",
    [
        pytest.param([Reading(z, 0.8) for z in (-1.0, 0.0, 1.0)], id="no referee"),
        pytest.param(readings((-1.0, 1.0, -1.01)), id="two positions"),
        pytest.param([Reading(z, 0.8, referee=-0.1) for z in (-1.0, 0.0, 1.0)], id="no contrast"),
        pytest.param(readings((-6.0, -5.5, 5.5)), id="far away"),
        pytest.param([replace(r, saturated=True) for r in readings((-1, 0, 1))], id="clipped"),
    ],
)
def test_a_referee_that_did_not_see_the_peak_says_nothing(seen):
    assert told_by_referee(ABOUT, seen, near_um=0.0, dof_um=1.0) is None


@settings(max_examples=150, deadline=None)
@given(
    at=st.lists(st.floats(-8, 8), min_size=1, max_size=12),
    measures=st.lists(st.floats(-1e9, 1e9), min_size=12, max_size=12),
    focus_um=st.floats(-5, 5),
)
def test_the_referee_moves_a_peak_but_makes_and_ends_none(at, measures, focus_um):
    bare = [Reading(z, 0.1 + 0.8 / (1 + ((z - focus_um) / 2) ** 2)) for z in at]
    watched = [replace(r, referee=m) for r, m in zip(bare, measures, strict=False)]
    run = settings_for(absolute=True)
    before, after = (believe(curve, run, absolute_score()) for curve in (bare, watched))
    assert after.nothing == before.nothing
    assert after.chance.sum() + after.nothing == pytest.approx(1.0)
    assert (after.chance >= 0).all()
    assert after.within(before.best_um, 2.0) == pytest.approx(
        before.within(before.best_um, 2.0), abs=1e-6
    )


@pytest.mark.parametrize("start_um", [-6.0, -1.5, 2.0, 7.0])
def test_where_focus_is_a_minimum_of_contrast_the_score_decides(start_um):
    """As in transmitted light: the measure has two peaks, the score one between them."""

    def read(z, i):
        score = 0.1 + 0.8 / (1 + (z / 2) ** 2)
        dip = measure(z, focus_um=-1.2, width_um=0.6) + measure(z, focus_um=1.2, width_um=0.6)
        return Reading(z, score, fingerprint=f"{i}", referee=dip)

    result, _, _ = drive("predictive", settings_for(absolute=True, start_z_um=start_um), read)
    assert result.locked, result.reason
    assert abs(result.z_um) <= 0.5


def test_what_is_believed_is_nearer_to_focus_with_a_referee():
    rng, errors = np.random.default_rng(3), []
    for _ in range(60):
        focus_um, width_um = rng.uniform(-4, 4), rng.uniform(0.6, 1.4)
        at = focus_um + np.array([-6.0, *rng.uniform(-2, -1, 1), *rng.uniform(-0.5, 2, 2)])
        score = 0.1 + 0.75 / (1 + ((at - focus_um) / 2.2) ** 2) + rng.normal(0, 0.03, 4)
        seen = measure(at, focus_um=focus_um, width_um=width_um) * np.exp(rng.normal(0, 0.08, 4))
        watched = [Reading(*each) for each in zip(at, score, seen, strict=True)]
        bare = [replace(reading, referee=None) for reading in watched]
        run = settings_for(absolute=True)
        errors.append(
            [abs(believe(c, run, absolute_score()).best_um - focus_um) for c in (watched, bare)]
        )
    with_referee, without = np.median(errors, axis=0)
    assert with_referee < 0.7 * without


@settings(max_examples=60, deadline=None)
@given(
    level=st.sampled_from([0.1, 0.35]),
    height=st.sampled_from([0.0, 0.6]),
    beside_um=st.floats(-2.5, 2.5),
    seed=st.integers(0, 10_000),
)
def test_the_referee_never_locks_what_the_score_alone_does_not_hold(level, height, beside_um, seed):
    rng, draws = np.random.default_rng(seed), np.random.default_rng(seed + 1).normal(0, 0.06, 400)
    focus_um, width_um = rng.uniform(-15, 15), rng.uniform(1.5, 5.0)

    def read(z, i):
        score = level + height / (1 + ((z - focus_um) / width_um) ** 2) + draws[i]
        seen = measure(z, focus_um=focus_um + beside_um) + 0.01
        return Reading(z, score, fingerprint=f"{i}", referee=seen)

    asked = settings_for(absolute=True)
    result, seen, _ = drive("predictive", asked, read)
    if result.locked and "holds focus" in result.reason:
        alone = believe([replace(r, referee=None) for r in seen], asked, absolute_score())
        kept = seen[-1].z_um == seen[0].z_um
        assert alone.within(result.z_um, 0.5) >= (0.7 if kept else 0.85)


def test_a_score_without_absolute_meaning_is_not_pinpointed():
    z = np.linspace(-12, 12, 49)
    curve = FocusCurve(tuple(z), tuple(0.1 + 0.85 / (1 + (z / 2) ** 2)), 0.1, 0.05)
    seen = [
        Reading(at, 0.1 + 0.85 / (1 + (at / 2) ** 2), referee=measure(at, focus_um=0.5))
        for at in (-3.0, -0.5, 0.5, 1.5, 3.0)
    ]
    places = {}
    for absolute in (False, True):
        run = settings_for(absolute=absolute, calibrated=curve)
        places[absolute] = believe(seen, run, measured_score(run)).best_um
    assert places[False] == pytest.approx(0.0, abs=0.04)
    assert places[True] > 0.05


def test_copies_of_a_frame_are_believed_once():
    curve = [Reading(z, 0.1 + 0.8 / (1 + (z / 2) ** 2), fingerprint=f"{z}") for z in (-4, 0.5, 3)]
    run = settings_for(absolute=True)
    once, often = (believe(seen, run, absolute_score()) for seen in (curve, curve + 9 * curve[1:2]))
    assert often.best_um == once.best_um
    assert often.sigma_um == once.sigma_um
