"""What a result says of itself: confidence, uncertainty, and a start that was good enough."""

import math

import numpy as np
import pytest
from driving import drive, settings_for

from autofocus.search import trust
from autofocus.search.belief import absolute_score, believe
from autofocus.search.conclusion import CLEAR, SURE, conclude
from autofocus.search.protocol import Expectation, FocusCurve, Purpose, Reading, Verdict
from autofocus.search.run import Run

FEW = ("predictive", "coarse_to_fine")


def known(**changes):
    return settings_for(**{"absolute": True, **changes})


def specimen(seed, *, focus_um=None):
    """A curve such as the score's are: unknown height, width and roundness, noise; and its peak."""
    rng = np.random.default_rng(seed)
    focus_um = float(rng.uniform(-20, 20)) if focus_um is None else focus_um
    height, level = rng.uniform(0.55, 0.9), rng.uniform(0.05, 0.2)
    width, exponent = 2.2 * math.exp(rng.normal(0, 0.35)), rng.uniform(1.4, 2.8)
    draws = rng.normal(0, 0.015, 500)

    def read(z, i):
        bell = 1 / (1 + abs((z - focus_um) / width) ** exponent)
        return Reading(z, level + height * bell + draws[i], fingerprint=f"{seed}/{i}")

    return read, focus_um


@pytest.mark.parametrize("name", FEW)
def test_confidence_and_uncertainty_come_true(name):
    said, right, ratio = [], [], []
    for seed in range(60):
        read, focus_um = specimen(seed)
        result, _, _ = drive(name, known(), read)
        if result.locked:
            said.append(result.confidence)
            right.append(abs(result.z_um - focus_um) <= 0.5)
            ratio.append(abs(result.z_um - focus_um) / result.z_uncertainty_um)
    assert len(said) >= 50
    assert np.mean(said) == pytest.approx(np.mean(right), abs=0.06)
    # Less than these simple curves allow: real ones have more ways to depart from a bell.
    assert np.mean(np.array(ratio) <= 1) >= 0.55
    assert np.mean(np.array(ratio) <= 1.96) >= 0.88


def test_a_calibrated_rig_is_surer():
    alone, told = [], []
    for seed in range(8):
        read, focus_um = specimen(seed, focus_um=4.0)
        defocus = tuple(np.linspace(-15, 15, 61))
        score = tuple(read(focus_um + z, i).score for i, z in enumerate(defocus))
        curve = FocusCurve(defocus, score, noise=0.015, repeatability_um=0.05)
        for found, changes in ((alone, {}), (told, {"calibrated": curve})):
            result, _, _ = drive("predictive", known(**changes), read)
            if result.locked:
                found.append(result.z_uncertainty_um)
    assert len(alone) >= 6
    assert len(told) >= 6
    # In the middle: one of the others reads the whole range, and is the surest of all by that.
    assert np.median(told) < np.median(alone)


def concluded(seed, wanted):
    """What is concluded from four readings about a peak that is narrower or wider than usual."""
    read, _ = specimen(seed, focus_um=0.0)
    run = Run(known(start_z_um=-2.0))
    count = 0

    def answer(asking):
        nonlocal count
        step = next(asking)
        while True:
            group = tuple(read(z, count + i) for i, z in enumerate(step.z_um))
            count += len(group)
            try:
                step = asking.send(group)
            except StopIteration as done:
                return done.value

    answer(run.ask((-2.0, 1.7, 4.0), Purpose.COARSE))
    return answer(conclude(run, absolute_score(), wanted=wanted))


def test_what_is_not_clear_enough_at_first_may_still_be_sure_enough_in_the_end():
    clear, sure = (
        [bool(found and found.locked) for found in (concluded(s, wanted) for s in range(30))]
        for wanted in (CLEAR, SURE)
    )
    assert 0 < sum(clear) < sum(sure)
    assert all(late or not early for early, late in zip(clear, sure, strict=True))


def test_one_sided_readings_are_trusted_less():
    def sigma(*z_um):
        curve = [Reading(z, 0.1 + 0.8 / (1 + (z / 2) ** 2)) for z in z_um]
        return believe(curve, known(), absolute_score()).sigma_um

    assert sigma(-2.0, 0.1, 2.0) < sigma(0.1, 2.0, 4.0)


def test_a_peak_that_is_nowhere_sharp_as_a_whole_is_known_less_well():
    def sigma(score, shares):
        return trust.sigma_um(shares, score=score, own_um=0.1, moved_um=0.0, dof_um=2.0)

    for shares in (trust.UNCALIBRATED, trust.FITTED):
        sharp, tilted = sigma(0.97, shares), sigma(0.65, shares)
        assert tilted == pytest.approx(math.hypot(sharp, shares.unsharp * 0.3 * 2.0))
        assert tilted > 1.5 * sharp
    # Where the score has another scale on every specimen, or a calibration knows what is sharp.
    for shares in (trust.CALIBRATED, trust.FITTED_ANYHOW):
        assert sigma(0.97, shares) == sigma(0.65, shares)


def test_confidence_is_the_share_of_a_normal_distribution_within_half_a_depth_of_field():
    assert trust.confidence(0.25, share=1.0, dof_um=1.0) == pytest.approx(0.9545, abs=1e-4)
    assert trust.confidence(1e-9, share=0.97, dof_um=1.0) == pytest.approx(0.97)


@pytest.mark.parametrize("name", FEW)
def test_a_refused_candidate_has_a_confidence(name):
    """Too low for the score alone, and no referee: refused, although it may well be focus."""
    rng = np.random.default_rng(1)

    def read(z, i):
        return Reading(z, 0.1 + 0.4 / (1 + (z / 2 - 4) ** 2) + rng.normal(0, 0.01))

    result, _, _ = drive(name, known(), read)
    assert result.verdict is Verdict.AMBIGUOUS, result.reason
    assert result.z_um == pytest.approx(8.0, abs=0.5)
    assert 0.3 < result.confidence < 0.95


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("start_um", [-0.6, -0.3, 0.0, 0.4])
def test_never_ends_blurrier_than_it_began(name, start_um):
    """The score's peak lies beside focus; the referee, whose peak is right, is heard."""

    def read(z, i):
        score = 0.1 + 0.85 / (1 + ((z - 0.35) / 2) ** 2)
        return Reading(z, score, referee=math.exp(-(z**2)), fingerprint=f"{i}")

    result, readings, _ = drive(name, known(start_z_um=start_um, center_um=start_um), read)
    ended = result.z_um if result.locked else start_um
    assert abs(ended) <= abs(start_um) + 0.25
    if result.locked:
        assert readings[-1].z_um == result.z_um


@pytest.mark.parametrize("name", FEW)
def test_identical_saturated_frames_are_saturated_not_stale(name):
    def read(z, i):
        return Reading(z, 0.2, saturated=True, dark=True, fingerprint="clipped")

    result, _, _ = drive(name, known(), read)
    assert result.verdict is Verdict.SATURATED, result.reason


@pytest.mark.parametrize("name", FEW)
def test_identical_frames_are_stale_when_only_some_are_saturated(name):
    def read(z, i):
        return Reading(z, 0.2, saturated=z > 5, fingerprint="clipped" if z > 5 else "the same")

    result, _, _ = drive(name, known(), read)
    assert result.verdict is Verdict.STALE, result.reason


def test_a_weak_specimen_is_judged_as_if_the_rig_were_not_calibrated():
    """Its height is far from that of the calibration, yet it is found without the whole range."""
    z = np.linspace(-10, 10, 41)
    calibrated = FocusCurve(tuple(z), tuple(0.1 + 0.9 / (1 + (z / 2) ** 2)), 0.01, 0.05)
    taken = []
    for i, focus_um in enumerate(np.random.default_rng(3).uniform(-4, 4, 20)):
        rng = np.random.default_rng(i)

        def read(at, i, focus_um=focus_um, rng=rng):
            return Reading(at, 0.1 + 0.6 / (1 + ((at - focus_um) / 3) ** 2) + rng.normal(0, 0.015))

        warm = known(range_um=20.0, expected=Expectation(0.0, 2.5), calibrated=calibrated)
        result, readings, _ = drive("predictive", warm, read)
        assert result.locked, result.reason
        assert abs(result.z_um - focus_um) <= 0.5
        taken.append(len(readings))
    assert np.median(taken) <= 8


@pytest.mark.parametrize("width_um", [8.0, 12.0])
def test_a_curve_many_times_wider_than_the_depth_of_field_needs_no_whole_range(width_um):
    def read(z, i):
        return Reading(z, 0.05 + 0.9 / (1 + ((z - 6.3) / width_um) ** 2), fingerprint=f"{i}")

    result, readings, _ = drive("predictive", known(), read)
    assert result.locked, result.reason
    assert abs(result.z_um - 6.3) <= 0.5
    assert len(readings) <= 20


def test_the_peak_is_found_between_the_planes_that_are_compared():
    """A tenth of the distance between coarse candidates, from three exact readings."""
    settings = known(range_um=20.0)
    readings = [Reading(z, 0.1 + 0.8 / (1 + ((z - 0.13) / 2.2) ** 2)) for z in (-1.7, 0.4, 2.1)]
    assert believe(readings, settings, absolute_score()).best_um == pytest.approx(0.13, abs=0.05)
