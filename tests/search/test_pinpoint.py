"""The referee of a calibrated rig says where the peak is that the score has found."""

import numpy as np
import pytest
from driving import drive, settings_for
from hypothesis import given, settings
from hypothesis import strategies as st

from autofocus.search.pinpoint import Place, pinpointed
from autofocus.search.protocol import Expectation, FocusCurve, Reading, RefereeBell

BELL = RefereeBell(offset_um=0.1, width_um=0.8, exponent=1.4, scatter=0.05)


def measure(z_um, *, focus_um=0.0, stretch=1.0, height=3.0):
    off = (z_um - focus_um - BELL.offset_um) / (BELL.width_um * stretch)
    return height / (1 + off**2) ** BELL.exponent


def readings(positions, **how):
    return [Reading(z, 0.8, referee=measure(z, **how)) for z in positions]


@pytest.mark.parametrize("focus_um", [-0.3, 0.0, 0.25])
@pytest.mark.parametrize("stretch", [0.8, 1.0, 1.25])
def test_measures_on_both_flanks_tell_the_place_better_than_the_score(focus_um, stretch):
    found = Place(0.0, 0.3)
    seen = readings((-1.4, 1.1, 0.1), focus_um=focus_um, stretch=stretch)
    place = pinpointed(found, seen, BELL, dof_um=1.0)
    assert place.z_um == pytest.approx(focus_um, abs=0.08)
    assert place.sigma_um < found.sigma_um


def test_everything_is_in_units_of_the_depth_of_field():
    small = pinpointed(Place(0.0, 0.15), readings((-1.4, 1.1, 0.1)), BELL, dof_um=1.0)
    wide = RefereeBell(10 * BELL.offset_um, 10 * BELL.width_um, BELL.exponent, BELL.scatter)
    seen = [Reading(10 * r.z_um, r.score, referee=r.referee) for r in readings((-1.4, 1.1, 0.1))]
    large = pinpointed(Place(0.0, 1.5), seen, wide, dof_um=10.0)
    assert (large.z_um, large.sigma_um) == pytest.approx((10 * small.z_um, 10 * small.sigma_um))


@pytest.mark.parametrize(
    "seen",
    [
        pytest.param([Reading(z, 0.8) for z in (-1.0, 0.0, 1.0)], id="no referee"),
        pytest.param(readings((-1.0, 1.0)), id="too few"),
        pytest.param(
            [Reading(z, 0.8, referee=-0.1) for z in (-1.0, 0.0, 1.0)], id="nothing to see"
        ),
        pytest.param(readings((-6.0, -5.5, 5.5)), id="far away"),
        pytest.param(readings((-1.4, 0.1, 1.1), focus_um=0.9), id="another place"),
        pytest.param(
            [Reading(z, 0.8, saturated=True, referee=1.0) for z in (-1.0, 0.0, 1.0)], id="clipped"
        ),
    ],
)
def test_where_the_referee_does_not_see_the_same_peak_the_score_decides(seen):
    found = Place(0.0, 0.1)
    assert pinpointed(found, seen, BELL, dof_um=1.0) == found


@settings(max_examples=200, deadline=None)
@given(
    at=st.lists(st.floats(-8, 8), min_size=0, max_size=12),
    seen=st.lists(st.floats(-1e6, 1e6), min_size=12, max_size=12),
    sigma=st.floats(1e-3, 2.0),
)
def test_the_answer_never_leaves_the_peak_that_was_found(at, seen, sigma):
    curve = [Reading(z, 0.8, referee=value) for z, value in zip(at, seen, strict=False)]
    place = pinpointed(Place(0.0, sigma), curve, BELL, dof_um=1.0)
    assert abs(place.z_um) <= min(1.0, 3.0 * np.hypot(sigma, 1.0))
    assert 0 < place.sigma_um <= sigma


def test_a_calibrated_run_ends_nearer_to_focus_where_the_referee_was_calibrated_too():
    z = np.linspace(-10, 10, 81)
    score = 0.1 + 0.8 / (1 + (z / 2.2) ** 2)
    errors = {None: [], BELL: []}
    for bell, kept in errors.items():
        curve = FocusCurve(tuple(z), tuple(score), 0.02, 0.05, bell)
        for i, focus_um in enumerate(np.random.default_rng(3).uniform(-4, 4, 40)):
            rng = np.random.default_rng(i)

            def read(at, _, focus_um=focus_um, rng=rng):
                said = 0.1 + 0.8 / (1 + ((at - focus_um) / 2.2) ** 2) + rng.normal(0, 0.02)
                seen = measure(at, focus_um=focus_um) * np.exp(rng.normal(0, 0.05))
                return Reading(at, said, referee=seen)

            warm = settings_for(
                absolute=True, range_um=20.0, expected=Expectation(0.0, 2.5), calibrated=curve
            )
            result, _, _ = drive("predictive", warm, read)
            assert result.locked, result.reason
            kept.append(abs(result.z_um - focus_um))
    assert np.median(errors[BELL]) < 0.7 * np.median(errors[None])
