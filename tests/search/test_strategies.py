"""Every strategy: bounds, budgets, repeatability, and no lock on what is not focus."""

import math
from dataclasses import replace

import numpy as np
import pytest
from driving import drive, settings_for
from hypothesis import given, settings
from hypothesis import strategies as st

from autofocus.search.protocol import (
    Expectation,
    FocusCurve,
    Purpose,
    Reading,
    Verdict,
)
from autofocus.search.run import Run
from autofocus.search.strategies import STRATEGIES

FEW = ("predictive", "coarse_to_fine", "sweep")


def known(**changes):
    """Settings of a run whose score has absolute meaning."""
    return settings_for(**{"absolute": True, **changes})


def absolute_curve(focus_um, *, width_um=2.0, height=0.85, level=0.1, noise=0.02, seed=0):
    """A score of absolute meaning with reproducible noise; 0 height is an empty field."""
    draws = np.random.default_rng(seed).normal(0, max(noise, 1e-12), 2000)

    def read(z, i):
        shape = 1 / (1 + ((z - focus_um) / width_um) ** 2)
        return Reading(z, level + height * shape + draws[i], fingerprint=f"{z}/{i}")

    return read


@pytest.mark.parametrize("name", [*FEW, "exhaustive"])
@pytest.mark.parametrize("focus_um", [-23.0, -7.3, 0.2, 14.9])
@pytest.mark.parametrize("width_um", [1.0, 4.0])
def test_finds_focus_anywhere_in_the_range(name, focus_um, width_um):
    result, _, _ = drive(name, known(), absolute_curve(focus_um, width_um=width_um))
    assert result.verdict is Verdict.LOCKED, result.reason
    assert abs(result.z_um - focus_um) <= 0.5


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("start_um", [-2.0, 5.0, 20.0])
def test_a_specimen_that_scores_high_everywhere_is_not_called_nothing(name, start_um):
    # As puncta at 10x did: 0.45 far away, 0.65 in focus.
    strange = absolute_curve(0.3, level=0.45, height=0.2, noise=0.01)
    result, _, _ = drive(name, known(start_z_um=start_um), strange)
    assert result.locked, result.reason
    assert abs(result.z_um - 0.3) <= 0.5


@pytest.mark.parametrize("name", ["coarse_to_fine", "predictive", "exhaustive"])
def test_a_range_of_coarse_planes_is_read_all_the_same(name):
    """A recorded stack has planes wherever it has them; 0.62 is enough once all were seen."""
    curve = absolute_curve(0.0, height=0.57, level=0.05, width_um=4.0, noise=0.002)

    def read(z, i):
        plane = 4.0 * round(z / 4.0)
        said = curve(plane, 0).score
        return Reading(plane, said, fingerprint=f"{plane}", referee=1 / (1 + (plane / 2) ** 4))

    result, _, _ = drive(name, known(start_z_um=12.0), read)
    assert result.locked, result.reason
    assert result.z_um == pytest.approx(0.0, abs=0.5)


@pytest.mark.parametrize("name", ["coarse_to_fine", "predictive"])
def test_a_score_that_means_focus_needs_no_background_to_stand_out_of(name):
    """Of eleven recorded planes, most of them near focus, no F test tells a peak from noise."""
    planes = np.array([-46.0, -40, -34, -20, -10, -7, -5, 0, 28, 40, 45])
    scores = np.array([0.21, 0.2, 0.19, 0.15, 0.13, 0.29, 0.37, 0.63, 0.16, 0.18, 0.15])
    dof_um = 11.8

    def read(z, i):
        nearest = int(np.argmin(np.abs(planes - z)))
        at_um, score = float(planes[nearest]), float(scores[nearest])
        return Reading(at_um, score, fingerprint=f"{at_um}", referee=score**2)

    for start_um in planes[[0, 5, 10]]:
        ends = {"z_min_um": -46.0, "z_max_um": 45.0, "center_um": -0.5, "range_um": 91.0}
        wanted = known(start_z_um=start_um, dof_um=dof_um, tolerance_um=dof_um / 4, **ends)
        result, _, _ = drive(name, wanted, read)
        assert result.locked, result.reason
        assert result.z_um == 0.0


@pytest.mark.parametrize("name", ["coarse_to_fine", "predictive"])
@pytest.mark.parametrize("start", range(6))
def test_a_score_that_means_focus_needs_no_fresh_readings_where_there_are_none(name, start):
    """Of six recorded planes a closer look gives the same ones again."""
    planes = np.array([-12.5, -7.5, -2.5, 2.5, 7.5, 12.5])
    scores = np.array([0.17, 0.25, 0.66, 0.40, 0.16, 0.14])

    def read(z, i):
        nearest = int(np.argmin(np.abs(planes - z)))
        at_um, score = float(planes[nearest]), float(scores[nearest])
        return Reading(at_um, score, fingerprint=f"{at_um}", referee=score**3)

    ends = {"z_min_um": -12.5, "z_max_um": 12.5, "range_um": 25.0}
    wanted = known(start_z_um=planes[start], dof_um=3.0, tolerance_um=0.75, **ends)
    result, _, _ = drive(name, wanted, read)
    assert result.locked, result.reason
    assert result.z_um == -2.5


@pytest.mark.parametrize("name", ["coarse_to_fine", "predictive"])
@pytest.mark.parametrize("seed", range(6))
def test_one_odd_plane_of_an_empty_recorded_stack_is_no_focus(name, seed):
    """Read again it is the same frame, so only the referee can speak against it."""
    rng = np.random.default_rng(seed)
    planes = np.arange(-12.0, 13.0, 3.0)
    scores, measures = rng.normal(0.13, 0.04, planes.size), rng.normal(1.0, 0.05, planes.size)
    scores[3], measures[5] = 0.68, 1.3

    def read(z, i):
        nearest = int(np.argmin(np.abs(planes - z)))
        at_um = float(planes[nearest])
        return Reading(
            at_um, float(scores[nearest]), fingerprint=f"{at_um}", referee=float(measures[nearest])
        )

    ends = {"z_min_um": -12.0, "z_max_um": 12.0, "range_um": 24.0}
    result, _, _ = drive(name, known(start_z_um=9.0, **ends), read)
    assert not result.locked, result.reason


@pytest.mark.parametrize("name", ["coarse_to_fine", "predictive"])
@pytest.mark.parametrize(("top", "whole"), [(0.77, True), (0.83, False)])
def test_only_a_score_of_focus_by_itself_is_locked_before_the_whole_range_is_read(name, top, whole):
    result, readings, _ = drive(
        name, known(), absolute_curve(6.0, height=top - 0.05, level=0.05, noise=0.005)
    )
    assert result.locked, result.reason
    assert abs(result.z_um - 6.0) <= 0.5
    read_um = [reading.z_um for reading in readings]
    assert (max(read_um) - min(read_um) > 45.0 and len(read_um) > 16) is whole


@pytest.mark.parametrize("name", sorted(STRATEGIES))
@pytest.mark.parametrize("expected", [None, Expectation(-5.0, 1.0)])
def test_a_few_sharp_things_on_another_plane_are_no_focus(name, expected):
    """As filaments in uneven light had them: 0.62 on a hump, 0.92 in focus, far away."""
    hump, peak = (
        absolute_curve(9.0, height=0.55, level=0.07, width_um=1.5, noise=0.005),
        absolute_curve(-18.0, height=0.85, level=0.0, width_um=1.5, noise=0.005),
    )

    def read(z, i):
        score = hump(z, i).score + peak(z, i).score
        return Reading(z, score, fingerprint=f"{z}/{i}", referee=score)

    result, _, _ = drive(name, known(start_z_um=8.0, expected=expected), read)
    assert not result.locked or abs(result.z_um + 18.0) <= 0.5


@pytest.mark.parametrize("name", ["brent", "golden", "hill_climb"])
def test_finds_a_focus_that_the_start_already_feels(name):
    result, _, _ = drive(name, known(range_um=10.0), absolute_curve(1.3))
    assert result.locked, result.reason
    assert abs(result.z_um - 1.3) <= 0.5


@pytest.mark.parametrize(("name", "most"), [("predictive", 9), ("coarse_to_fine", 14)])
def test_few_exposures_on_a_plain_curve(name, most):
    starts = np.random.default_rng(5).uniform(-24, 24, 30)
    taken = [
        len(drive(name, known(), absolute_curve(focus, seed=i))[1])
        for i, focus in enumerate(starts)
    ]
    assert np.median(taken) <= most


def test_an_expectation_and_a_calibration_need_fewer_still():
    z = np.linspace(-12, 12, 49)
    calibrated = FocusCurve(tuple(z), tuple(0.1 + 0.85 / (1 + (z / 2) ** 2)), 0.02, 0.05)
    taken = []
    for i, focus in enumerate(np.random.default_rng(6).uniform(-4, 4, 30)):
        expecting = known(range_um=20.0, expected=Expectation(0.0, 2.0), calibrated=calibrated)
        result, readings, _ = drive("predictive", expecting, absolute_curve(focus, seed=i))
        assert result.locked, result.reason
        assert abs(result.z_um - focus) <= 0.5
        taken.append(len(readings))
    assert np.median(taken) <= 5


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("seed", range(15))
def test_never_locks_on_an_empty_field(name, seed):
    empty = absolute_curve(0.0, height=0.0, level=0.2, noise=0.06, seed=seed)
    result, _, _ = drive(name, known(), empty)
    assert not result.locked, result.reason


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("beyond_um", [3.0, 8.0, 20.0])
def test_never_locks_on_a_focus_beyond_the_limits(name, side, beyond_um):
    inside = known(z_min_um=-25.0, z_max_um=25.0)
    result, _, _ = drive(name, inside, absolute_curve(side * (25.0 + beyond_um), width_um=3.0))
    assert not result.locked, result.reason


@pytest.mark.parametrize("name", FEW)
def test_a_hump_far_from_focus_is_not_taken_for_focus(name):
    """A score as low as this stands out, and no referee says that it is focus."""

    def read(z, i):
        plain = absolute_curve(-11.0, height=0.4, level=0.1, seed=3)(z, i)
        return Reading(z, plain.score, referee=1.0 + 0.01 * (i % 3), fingerprint=plain.fingerprint)

    result, _, _ = drive(name, known(), read)
    assert not result.locked, result.reason


@pytest.mark.parametrize("name", FEW)
def test_a_low_score_locks_where_the_referee_agrees(name):
    def read(z, i):
        plain = absolute_curve(-11.0, height=0.35, level=0.08, noise=0.01, seed=3)(z, i)
        return Reading(z, plain.score, referee=plain.score**2, fingerprint=plain.fingerprint)

    result, _, _ = drive(name, known(), read)
    assert result.locked, result.reason
    assert abs(result.z_um + 11.0) <= 0.5


@pytest.mark.parametrize("focus_um", np.linspace(-19.0, 19.0, 20))
@pytest.mark.parametrize("noise", [0.03, 0.09])
def test_the_score_hears_what_the_referee_found_unless_that_is_beyond_doubt(focus_um, noise):
    """In the 18 readings over the range the score sees nothing."""
    empty, narrow = absolute_curve(0.0, height=0.0), absolute_curve(focus_um, width_um=1.0)
    referee = absolute_curve(focus_um, width_um=1.5, height=1.0, level=0.5, noise=noise, seed=1)

    def read(z, i):
        reading = (empty if i < 18 else narrow)(z, i)
        return Reading(z, reading.score, referee(z, i).score, fingerprint=reading.fingerprint)

    result, _, _ = drive("coarse_to_fine", known(), read)
    assert result.locked, result.reason
    assert abs(result.z_um - focus_um) <= 0.25
    by_referee = result.reason.endswith("by the referee: no frame of the range had scored 0.6")
    assert by_referee == (noise < 0.05)


def test_of_a_range_that_was_read_the_referee_says_where_the_peak_is():
    """The score is low and restless, as in thick tissue, and the referee clear."""
    errors = []
    for seed in range(20):
        score = absolute_curve(4.0, width_um=2.5, height=0.45, level=0.08, noise=0.02, seed=seed)
        referee = absolute_curve(4.2, width_um=1.0, height=1.0, level=0.0, noise=0.005, seed=seed)

        def read(z, i, score=score, referee=referee):
            return Reading(z, score(z, i).score, referee(z, i).score, fingerprint=f"{z}/{i}")

        result, _, _ = drive("coarse_to_fine", known(), read)
        assert result.locked, result.reason
        errors.append(abs(result.z_um - 4.2))
    assert np.median(errors) < 0.03


@pytest.mark.parametrize("start_um", [-22.0, -12.0, -8.0])
def test_two_planes_that_compare_are_not_told_apart_by_the_referee(start_um):
    """Dust on the lower one is ten times as sharp as the specimen."""
    one, other = absolute_curve(-8.0, height=0.8), absolute_curve(7.0, height=0.75, level=0.0)
    dust = absolute_curve(7.0, width_um=1.0, height=1.0, level=0.0, noise=0.001)
    thin = absolute_curve(-8.0, width_um=1.0, height=0.1, level=0.0, noise=0.001, seed=1)

    def read(z, i):
        score, seen = one(z, i).score + other(z, i).score, dust(z, i).score + thin(z, i).score
        return Reading(z, score, referee=seen, fingerprint=f"{z}/{i}")

    for name in ("coarse_to_fine", "predictive"):
        result, _, _ = drive(name, known(start_z_um=start_um), read)
        assert not result.locked or abs(result.z_um + 8.0) <= 0.5, result


@pytest.mark.parametrize("name", ["coarse_to_fine", "exhaustive"])
@pytest.mark.parametrize("seed", range(4))
def test_two_planes_in_focus_by_themselves_are_not_ambiguous(name, seed):
    """Two layers of a thick section: each would be locked if the other were not there."""

    def layers(height, *, lower):
        one = absolute_curve(-12.0, height=height, level=0.3, noise=0.01, seed=seed)
        other = absolute_curve(-5.0, height=height - lower, level=0.0, noise=0.01, seed=seed + 9)

        def read(z, i):
            return Reading(z, max(one(z, i).score, other(z, i).score + 0.3), fingerprint=f"{z}/{i}")

        return read

    result, readings, _ = drive(name, known(), layers(0.6, lower=0.03))
    assert result.locked, result.reason
    assert min(abs(result.z_um + 12.0), abs(result.z_um + 5.0)) <= 0.5
    if any(abs(reading.z_um + 12.0) < 1.0 for reading in readings):
        assert abs(result.z_um + 12.0) <= 0.5
    # `coarse_to_fine` reads the lower one some way beside its top, where 0.03 is more.
    lower = 0.03 if name == "exhaustive" else 0.01
    low, _, _ = drive(name, known(), layers(0.35, lower=lower))
    assert low.verdict is Verdict.AMBIGUOUS, low.reason


@pytest.mark.parametrize("dip_um", [1.5, 2.5, 3.5])
@pytest.mark.parametrize("floor", [0.0, -0.1])
def test_least_contrast_in_focus_contradicts_no_lock_there(dip_um, floor):
    """Unstained cells: the referee is highest on both sides of focus, and may see nothing there."""
    score = absolute_curve(0.0, width_um=4.0, height=0.85, noise=0.01)

    def read(z, i):
        lobes = [1 / (1 + ((z - side * dip_um) / (dip_um / 2)) ** 2) ** 2 for side in (-1, 1)]
        return Reading(z, score(z, i).score, referee=floor + sum(lobes), fingerprint=f"{z}/{i}")

    for name in ("coarse_to_fine", "predictive"):
        result, _, _ = drive(name, known(start_z_um=7.0), read)
        assert result.locked, result.reason
        assert abs(result.z_um) <= 1.0


@pytest.mark.parametrize("start_um", [-12.0, 0.0, 9.0])
def test_a_referee_is_not_heard_where_the_score_sees_nothing(start_um):
    """Two planes compare; on a third the referee has a peak beyond doubt."""
    one, other = absolute_curve(-8.0, height=0.75), absolute_curve(6.0, height=0.72, level=0.0)
    referee = absolute_curve(15.0, width_um=1.0, height=1.0, level=0.1, noise=0.01)

    def read(z, i):
        score = one(z, i).score + other(z, i).score
        return Reading(z, score, referee(z, i).score, fingerprint=f"{z}/{i}")

    result, _, _ = drive("coarse_to_fine", known(start_z_um=start_um), read)
    assert not result.locked or abs(result.z_um - 15.0) > 4.0, result


@pytest.mark.parametrize("name", ["coarse_to_fine", "predictive"])
def test_an_end_of_what_may_be_visited_is_not_confirmed_again_and_again(name):
    beyond = absolute_curve(10.3, width_um=2.4, noise=0.005)
    result, _, passes = drive(name, known(start_z_um=5.0, z_max_um=10.0), beyond)
    assert result.verdict is Verdict.EDGE, result.reason
    confirmed = [step.z_um for step in passes if step.purpose is Purpose.CONFIRM]
    # Once when it is clear enough and once when it is sure enough.
    assert confirmed == [(10.0,)] * 2


def test_a_referee_that_sees_another_plane_is_no_witness_of_a_low_score():
    """The sharp plane is a depth of field beside the top of a low hump."""
    hump, sharp = absolute_curve(5.3, width_um=1.5, height=0.3), absolute_curve(4.4, width_um=0.3)

    def read(z, i):
        return Reading(z, hump(z, i).score, sharp(z, i).score ** 2, fingerprint=f"{z}/{i}")

    result, readings, _ = drive("coarse_to_fine", known(), read)
    assert max(reading.score for reading in readings) < 0.6
    assert result.z_um is None or not result.locked or abs(result.z_um - 4.4) <= 0.5


@pytest.mark.parametrize("start_um", np.linspace(-24.0, 24.0, 25))
def test_a_flat_top_is_not_focus_where_the_referee_sees_far_more_elsewhere(start_um):
    """A bead: the edge of its defocused disc is crisp, and scores as high as the bead itself."""

    def read(z, i):
        disc = 1 / (1 + abs((z + 3.5) / 5.5) ** 6)
        noise = absolute_curve(0.0, height=0.0, level=0.0, noise=0.005)(z, i).score
        sharp = 0.02 / (1 + ((z - 1.2) / 0.5) ** 2) ** 1.5
        return Reading(z, 0.1 + 0.66 * disc + noise, referee=sharp, fingerprint=f"{z}/{i}")

    for name in ("predictive", "coarse_to_fine"):
        result, _, _ = drive(name, known(start_z_um=start_um), read)
        assert not result.locked or abs(result.z_um - 1.2) <= 1.0, (name, result)


@pytest.mark.parametrize(
    ("referee", "contradicts"),
    [
        pytest.param((2.0, -1.0, 1.0, -1.0, 40.0, 90.0, 2.0), 4.0, id="noise beside a disc"),
        pytest.param((2.0, 50.0, 70.0, 2.0, 60.0, 90.0, 2.0), None, id="a dip in focus"),
        pytest.param((90.0, 2.0, 3.0, 2.0, 1.0, 3.0, 90.0), None, id="where little scores"),
        pytest.param((2.0, 9.0, 20.0, 32.0, 60.0, 90.0, 2.0), None, id="not far sharper"),
        pytest.param((None,) * 7, None, id="no referee"),
    ],
)
def test_what_contradicts_a_lock(referee, contradicts):
    run = Run(known())
    planes = (-9.0, -6.0, -3.0, 0.0, 3.0, 4.0, 9.0)
    scores = (0.2, 0.8, 0.8, 0.8, 0.8, 0.8, 0.2)
    run.curve = [Reading(*each) for each in zip(planes, scores, referee, strict=True)]
    run.final = run.curve[3]
    found = run.far_sharper_elsewhere()
    assert (found.z_um if found else None) == contradicts


@pytest.mark.parametrize(
    ("changes", "alike"),
    [
        pytest.param({}, 5.0, id="unsure"),
        pytest.param({"sd_dof": 0.4}, None, id="sure of both"),
        pytest.param({"sd_dof": None}, None, id="does not tell"),
        pytest.param({"rest": {"defocus_dof": None}}, None, id="tells a deviation alone"),
        pytest.param({"steepness": 0.5}, None, id="far planes are far"),
        pytest.param({"share": 0.7}, None, id="far planes score less"),
        pytest.param({"rest": {"saturated": True}}, None, id="clipped"),
    ],
)
def test_planes_that_the_score_itself_cannot_tell_apart(changes, alike):
    """What is as near as the last frame by half a deviation, two depths of field away and more."""
    told = {"sd_dof": 1.2, "steepness": 0.11, "share": 1.0, "rest": {}} | changes
    # Read again in the end, and by chance farther off; the frame before counts, too.
    planes = np.append(np.linspace(-6.0, 9.0, 16), 0.0)
    estimated = np.append(0.5 + told["steepness"] * np.abs(planes[:-1]), 0.7)
    scores = np.where(planes == 0, 0.9, told["share"] * 0.9)
    run = Run(known())
    run.curve = [
        replace(Reading(z, score, 1.0, each, told["sd_dof"]), **told["rest"])
        for z, score, each in zip(planes, scores, estimated, strict=True)
    ]
    run.final = run.curve[-1]
    found = run.alike_elsewhere()
    assert (abs(found.z_um) if found else None) == alike


@pytest.mark.parametrize("name", ["coarse_to_fine", "predictive"])
@pytest.mark.parametrize(("sharp_um", "sd_dof"), [(3.0, 0.9), (3.0, 0.05), (-5.0, 0.9)])
def test_a_hill_of_alike_planes_needs_the_referee(name, sharp_um, sd_dof):
    """All planes score much, those at -5 um most, and the head is as sure of it as ``sd_dof``."""
    curve = absolute_curve(-5.0, width_um=6.0, height=0.25, level=0.65, noise=0.004)

    def read(z, i):
        score = curve(z, i).score
        distance = 2 * np.sqrt(1 / score - 1)
        sharp = 0.005 + 0.005 / (1 + ((z - sharp_um) / 4.0) ** 2)
        return Reading(z, score, sharp, distance, sd_dof, fingerprint=f"{z}/{i}")

    result, _, _ = drive(name, known(start_z_um=8.0, z_min_um=-12.0, z_max_um=12.0), read)
    if sharp_um > 0 and sd_dof > 0.5:
        assert not result.locked, result.reason
    else:
        assert result.locked, result.reason
        assert abs(result.z_um + 5.0) <= 0.5


@pytest.mark.parametrize(
    ("referee", "seen"),
    [
        pytest.param((0.1, 0.9, 0.2), True, id="most there"),
        pytest.param((0.9, 0.1, 0.2), False, id="most elsewhere"),
        pytest.param((0.0, 0.0, 0.0), False, id="nothing anywhere"),
        pytest.param((-0.2, -0.1, -0.3), False, id="less than nothing"),
        pytest.param((None, None, None), False, id="no referee"),
    ],
)
def test_three_readings_are_no_peak_unless_the_referee_saw_most_where_they_mean_focus(
    referee, seen
):
    run = Run(known())
    readings = zip((0.0, 3.0, 6.0), (0.2, 0.9, 0.2), referee, strict=True)
    run.curve = run.fresh = [Reading(*each) for each in readings]
    assert (run.flat_or_edge() is None) is seen
    run.curve[1] = replace(run.curve[1], saturated=True)
    assert run.flat_or_edge().verdict is Verdict.FLAT


@pytest.mark.parametrize("name", ["coarse_to_fine", "predictive"])
@pytest.mark.parametrize("start_um", [-3.0, 0.0, 12.0])
@pytest.mark.parametrize("height", [0.7, 0.9])
@pytest.mark.parametrize("floor", [-0.004, 0.0, 0.0008])
def test_hot_pixels_far_from_focus_are_no_focus(name, start_um, height, floor):
    """Crisp to the score wherever the light is even; the referee sees only the specimen."""
    even = absolute_curve(-17.0, width_um=4.0, height=height - 0.1, level=0.1, noise=0.04)
    specimen = absolute_curve(1.2, width_um=2.0, height=0.015, level=0.0, noise=0.0003, seed=1)

    def read(z, i):
        seen = specimen(z, i).score + floor
        return replace(even(z, i), score=max(even(z, i).score, 20 * seen), referee=seen)

    result, readings, _ = drive(name, known(start_z_um=start_um), read)
    assert min(reading.z_um for reading in readings) < -12.0
    assert not result.locked, result.reason
    assert result.verdict is Verdict.AMBIGUOUS
    assert "referee" in result.reason


def faint(specimen_um, *, score=0.45):
    """A plane at 4 um that scores little; large structures have most contrast somewhere else."""
    plane = absolute_curve(4.0, width_um=2.0, height=score - 0.05, level=0.05, noise=0.015)
    referee = absolute_curve(4.0, width_um=1.0, height=1.0, level=0.0, noise=0.004, seed=1)

    def read(z, i):
        coarse = 0.1 / (1 + ((z - specimen_um) / 10) ** 2) if specimen_um is not None else None
        return replace(
            Reading(z, plane(z, i).score, referee(z, i).score, fingerprint=f"{z}/{i}"),
            coarse_contrast=coarse,
        )

    return read


@pytest.mark.parametrize("name", ["coarse_to_fine", "predictive"])
@pytest.mark.parametrize("beyond_um", [-45.0, -34.0, 38.0, 60.0])
def test_a_faint_plane_is_no_focus_while_the_specimen_is_seen_beyond_the_range(name, beyond_um):
    result, _, _ = drive(name, known(), faint(beyond_um))
    assert result.verdict is Verdict.EDGE, result.reason
    assert abs(result.z_um - math.copysign(25.0, beyond_um)) < 2.0
    assert "large structures" in result.reason
    assert ("above" if beyond_um > 0 else "below") in result.reason


@pytest.mark.parametrize(
    ("contrast", "end"),
    [
        pytest.param((5.0, 4, 3, 2, 2, 3, 2, 2, 1, 1, 1), (-25.0, -1), id="rises to one end"),
        pytest.param((1.0, 1, 1, 2, 2, 3, 2, 2, 3, 4, 5), (25.0, 1), id="or to the other"),
        pytest.param((5.0, 4, 3, 2, 2, 2, 2, 2, 3, 3, 4), None, id="least where the lock is"),
        pytest.param((3.2, 3, 2, 2, 2, 3, 2, 2, 1, 1, 1), None, id="hardly more"),
        pytest.param((4.0, 5, 4, 2, 2, 3, 2, 2, 1, 1, 1), None, id="highest inside"),
        pytest.param((None, None, 5, 4, 2, 3, 2, 1, 1, 1, 1), None, id="too few are told"),
        pytest.param((5.0, 4, 3, 2, 2, None, 2, 1, 1, 1, 1), None, id="not of the last frame"),
    ],
)
def test_where_large_structures_say_that_the_specimen_is(contrast, end):
    run = Run(known())
    planes = np.linspace(-25.0, 25.0, 11)
    run.curve = [Reading(0.0, 0.3)]
    run.curve += [Reading(z, 0.3, coarse_contrast=c) for z, c in zip(planes, contrast, strict=True)]
    run.final = run.curve[6]
    assert run.specimen_beyond() == end


START, FIRST = Reading(0.0, 0.3), Reading(-25.0, 0.3, coarse_contrast=5.0)


@pytest.mark.parametrize(
    ("start", "first", "tells"),
    [
        pytest.param(START, FIRST, True, id="of good frames"),
        pytest.param(START, replace(FIRST, dark=True), False, id="dark"),
        pytest.param(START, replace(FIRST, saturated=True), False, id="saturated"),
        pytest.param(
            replace(FIRST, z_um=-80.0),
            replace(FIRST, coarse_contrast=3.0),
            False,
            id="a start far outside the range",
        ),
    ],
)
def test_which_frames_tell_of_a_specimen_beyond(start, first, tells):
    run = Run(known())
    contrast = (3.0, 2, 2, 2, 3, 2, 1, 1, 1, 1)
    planes = np.linspace(-20.0, 25.0, 10)
    others = [Reading(z, 0.3, coarse_contrast=c) for z, c in zip(planes, contrast, strict=True)]
    run.curve = [start, first, *others]
    run.final = others[4]
    assert (run.specimen_beyond() is not None) is tells


@pytest.mark.parametrize("name", ["coarse_to_fine", "predictive"])
def test_large_structures_do_not_keep_the_referee_from_being_heard(name):
    """A low hump without a witness; the referee knows better, and the specimen is at its place."""
    hump = absolute_curve(10.0, width_um=2.0, height=0.28, level=0.05, noise=0.01)
    referee = absolute_curve(-18.0, width_um=1.5, height=1.0, level=0.0, noise=0.004, seed=1)

    def read(z, i):
        coarse = 0.1 / (1 + ((z + 18.0) / 12) ** 2)
        said = Reading(z, hump(z, i).score, referee(z, i).score, fingerprint=f"{z}/{i}")
        return replace(said, coarse_contrast=coarse)

    result, _, _ = drive(name, known(), read)
    assert result.locked, result.reason
    assert abs(result.z_um + 18.0) <= 0.5


@pytest.mark.parametrize("name", ["coarse_to_fine", "predictive"])
@pytest.mark.parametrize("around_um", [None, 4.0, 1.0, 10.0])
def test_a_faint_plane_locks_where_large_structures_do_not_deny_it(name, around_um):
    result, _, _ = drive(name, known(), faint(around_um))
    assert result.locked, result.reason
    assert abs(result.z_um - 4.0) <= 0.25


def test_a_referee_beyond_doubt_is_denied_by_a_specimen_beyond_the_range():
    """The score sees nothing at all, so the referee would decide."""
    decided, _, _ = drive("coarse_to_fine", known(), faint(4.0, score=0.15))
    assert decided.locked
    assert "by the referee" in decided.reason
    denied, _, _ = drive("coarse_to_fine", known(), faint(-45.0, score=0.15))
    assert not denied.locked, denied.reason


def test_few_readings_never_say_that_there_is_nothing():
    """Beads 8 um from where they were expected score what empty fields can score, too."""
    expecting = known(expected=Expectation(0.0, 2.5))
    for seed in range(8):
        beads = absolute_curve(8.0, width_um=1.0, height=0.75, level=0.25, seed=seed)
        result, _, _ = drive("predictive", expecting, beads)
        assert result.locked, result.reason
        assert abs(result.z_um - 8.0) <= 0.5


@pytest.mark.parametrize("seed", range(20))
def test_a_referee_whose_curve_dips_is_no_witness(seed):
    """As far from focus, where nuclei are a haze: the highest of noise beside a dip is no peak."""
    haze = absolute_curve(-9.0, width_um=6.0, height=0.22, level=0.05, noise=0.03, seed=seed)
    noise = absolute_curve(0.0, height=0.0, level=0.0, noise=0.05, seed=seed + 100)

    def read(z, i):
        dip = 0.6 / (1 + ((z - 21.0) / 3.0) ** 4)
        return Reading(z, haze(z, i).score, noise(z, i).score - dip, fingerprint=f"{z}/{i}")

    for name in ("predictive", "coarse_to_fine"):
        result, _, _ = drive(name, known(), read)
        assert not result.locked, result.reason


@pytest.mark.parametrize("name", FEW)
def test_a_sharper_start_is_not_given_up(name):
    """The start scores what the peak found later does not reach."""

    def read(z, i):
        plain = absolute_curve(15.0, height=0.6, seed=1)(z, i)
        score = 0.95 if i == 0 else plain.score
        return Reading(z, score, fingerprint=plain.fingerprint)

    result, _, _ = drive(name, known(), read)
    assert not result.locked, result.reason


curves = st.fixed_dictionaries(
    {
        "focus_um": st.floats(-60, 60),
        "width_um": st.floats(0.2, 15),
        "height": st.floats(-0.5, 1.2),
        "level": st.floats(-0.3, 1.0),
        "noise": st.sampled_from([0.0, 0.01, 0.1, 0.5]),
        "seed": st.integers(0, 1000),
    }
)
limits = st.fixed_dictionaries(
    {
        "start_z_um": st.floats(-20, 20),
        "z_min_um": st.floats(-60, -20),
        "z_max_um": st.floats(20, 60),
        "center_um": st.floats(-20, 20),
        "range_um": st.floats(0.5, 120),
        "dof_um": st.floats(0.3, 5),
        "direction": st.sampled_from([-1, 1]),
        "max_extensions": st.integers(0, 3),
        "absolute": st.booleans(),
        "expected": st.none() | st.builds(Expectation, st.floats(-30, 30), st.floats(0.1, 20)),
    }
)


@pytest.mark.parametrize("name", STRATEGIES)
@settings(max_examples=25, deadline=None)
@given(curve=curves, limited=limits, beside_um=st.none() | st.floats(-3, 3))
def test_stays_inside_is_bounded_and_repeats(name, curve, limited, beside_um):
    wanted = known(**limited, tolerance_um=limited["dof_um"] / 4)
    score = absolute_curve(**curve)

    def read(z, i):
        if beside_um is None:
            return score(z, i)
        watched = absolute_curve(curve["focus_um"] + beside_um, level=0.0, noise=0.01, seed=1)
        return replace(score(z, i), referee=watched(z, i).score)

    result, readings, _ = drive(name, wanted, read)
    low, high = wanted.z_min_um, wanted.z_max_um
    assert all(low <= reading.z_um <= high for reading in readings)
    assert len(readings) <= STRATEGIES[name].worst_case_exposures(wanted)
    assert all(low <= z <= high for z in STRATEGIES[name].first_positions(wanted))
    assert 0 <= result.confidence <= 1
    replayed, again, _ = drive(name, wanted, lambda _z, i: readings[i])
    assert replayed == result
    assert again == readings


@settings(max_examples=200, deadline=None)
@given(
    strategy=st.sampled_from(sorted(STRATEGIES)),
    start=st.floats(-30, 30),
    off=st.floats(-0.3, 0.3),
    scores=st.lists(st.floats(-0.5, 1.5), min_size=1, max_size=40),
    referees=st.lists(st.floats(-0.1, 1.0), min_size=1, max_size=40),
)
def test_no_strategy_leaves_the_bounds_where_the_stage_reads_back_something_else(
    strategy, start, off, scores, referees
):
    asked = known(start_z_um=start, z_min_um=-20.0, z_max_um=20.0)

    def read(z, i):
        referee = referees[i % len(referees)]
        seen_um = z + off * (-1) ** i
        return Reading(seen_um, scores[i % len(scores)], fingerprint=str(i), referee=referee)

    _, readings, passes = drive(strategy, asked, read)
    assert all(-20.0 <= z <= 20.0 for each in passes[1:] for z in each.z_um)
    assert len(readings) <= STRATEGIES[strategy].worst_case_exposures(asked)


@pytest.mark.parametrize("name", FEW)
def test_a_camera_that_is_saturated_everywhere_is_refused(name):
    plain = absolute_curve(3.0)

    def read(z, i):
        reading = plain(z, i)
        return Reading(z, reading.score, saturated=True, fingerprint=reading.fingerprint)

    result, _, _ = drive(name, known(), read)
    assert result.verdict is Verdict.SATURATED, result.reason


@pytest.mark.parametrize("focus_um", np.linspace(-20, 20, 9))
def test_a_plain_curve_never_needs_the_whole_range(focus_um):
    """The proof wants lower readings on both sides, and the search takes them itself."""
    result, readings, _ = drive("predictive", known(), absolute_curve(focus_um, noise=0.01))
    assert result.locked, result.reason
    assert len(readings) <= 14
    assert min(r.z_um for r in readings) < result.z_um < max(r.z_um for r in readings)
