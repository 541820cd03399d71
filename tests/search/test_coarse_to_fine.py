import math
from dataclasses import replace

import driving
import numpy as np
import pytest
from driving import settings_for
from hypothesis import given, settings
from hypothesis import strategies as st

from autofocus.search.coarse_to_fine import worst_case_exposures
from autofocus.search.evidence import background, distinct
from autofocus.search.grid import coarse_positions, extension_positions, fine_positions
from autofocus.search.peak import fit_peak
from autofocus.search.protocol import Purpose, Reading, SearchResult, Verdict


def drive(search_settings, read):
    """Answer `coarse_to_fine`; give the result, all positions and all passes."""
    result, readings, passes = driving.drive("coarse_to_fine", search_settings, read)
    return result, [reading.z_um for reading in readings], passes


def curve(peak_um, *, width_um=2.0, noise=0.0, height=1.0, base=0.0, seed=0):
    """A Lorentzian focus curve with reproducible noise."""
    rng = np.random.default_rng(seed)
    draws = rng.normal(0, noise, 500) if noise else np.zeros(500)

    def read(z, i):
        score = base + height / (1 + ((z - peak_um) / width_um) ** 2)
        return Reading(z_um=z, score=score + draws[i], fingerprint=f"{z:.6f}")

    return read


@pytest.mark.parametrize("peak_um", [0.0, 3.3, -17.9, 24.0])
@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_locks_on_the_peak(peak_um, noise):
    result, _, _ = drive(settings_for(), curve(peak_um, noise=noise))
    assert result.verdict is Verdict.LOCKED, result.reason
    assert abs(result.z_um - peak_um) <= 0.5


def test_extends_beyond_the_range_when_the_best_is_at_its_end():
    result, visited, _ = drive(settings_for(), curve(31.0))
    assert result.locked, result.reason
    assert abs(result.z_um - 31.0) <= 0.25
    assert max(visited) > 25.0


def test_says_edge_when_the_range_may_not_grow():
    result, _, _ = drive(settings_for(max_extensions=0), curve(40.0, width_um=6.0))
    assert result.verdict is Verdict.EDGE


def test_says_edge_at_the_bound():
    result, visited, _ = drive(settings_for(z_max_um=27.0), curve(33.0, width_um=4.0))
    assert result.verdict is Verdict.EDGE
    assert max(visited) <= 27.0


def test_a_peak_that_turns_out_to_be_close_to_the_end_is_looked_at_from_beyond():
    # Steeper above: of the coarse readings at 22.06 and 25 um the lower one is the better.
    below, above = curve(23.7, width_um=1.5), curve(23.7, width_um=0.8)
    result, visited, passes = drive(
        settings_for(), lambda z, i: (below if z < 23.7 else above)(z, i)
    )
    assert result.locked, result.reason
    assert abs(result.z_um - 23.7) <= 0.3
    assert max(visited) > 25.0
    purposes = [each.purpose for each in passes]
    assert purposes.index(Purpose.EXTEND) > purposes.index(Purpose.FINE)


def watched(peak, referee):
    """Readings of one curve, watched by another."""

    def read(z, i):
        seen = referee(z, i).score
        return Reading(z, peak(z, i).score, fingerprint=f"{z} {i}", referee=seen)

    return read


@pytest.mark.parametrize(("strategy", "start_um"), [("coarse_to_fine", 9.0), ("predictive", 3.0)])
def test_the_run_ends_where_a_frame_nearby_was_sharper_by_score_and_referee(strategy, start_um):
    # Not symmetric: the middle of the bell is a micrometre beside the sharp plane. From these
    # starts it would be answered, 0.7 um and more beside, if no frame were read again.
    bell = curve(4.0, width_um=2.4, height=0.8, base=0.05)

    def score(z, i):
        return replace(bell(z, i), score=bell(z, i).score + 0.2 * math.exp(-(((z - 5) / 0.4) ** 2)))

    result, _, passes = driving.drive(
        strategy,
        settings_for(absolute=True, start_z_um=start_um),
        watched(score, curve(5.0, width_um=0.9)),
    )
    assert result.locked, result.reason
    assert abs(result.z_um - 5.0) <= 0.3
    assert [each.purpose for each in passes[-2:]] == [Purpose.CONFIRM] * 2


def test_a_frame_that_was_sharper_by_chance_is_left_again():
    bell = curve(3.7, width_um=2.4, height=0.8, base=0.05)
    plain, visited, _ = drive(settings_for(absolute=True), watched(bell, bell))
    beside = next(i for i, z in enumerate(visited) if 0.3 <= abs(z - plain.z_um) <= 1.0)

    def read(z, i):
        lucky = i == beside
        score = 0.9 if lucky else bell(z, i).score
        return Reading(z, score, fingerprint=f"{z} {i}", referee=1.2 if lucky else score)

    result, again, passes = drive(settings_for(absolute=True), read)
    assert result.locked, result.reason
    # It counts as a reading all the same, so the answer leans towards it.
    assert abs(result.z_um - 3.7) <= 0.5
    assert again[-2] == pytest.approx(visited[beside])
    assert [each.purpose for each in passes[-3:]] == [Purpose.CONFIRM] * 3


def test_a_belief_that_moves_after_its_confirmation_is_followed():
    bell = curve(4.0, width_um=2.4, height=0.8, base=0.05)

    def read(z, i):
        # The coarse reading at 4.41 um was too high, which the frame at the peak brings out.
        score = 0.9 if abs(z - 4.41) < 0.01 else bell(z, i).score
        return Reading(z, score, fingerprint=f"{z} {i}", referee=score)

    result, visited, passes = drive(settings_for(absolute=True), read)
    assert result.locked, result.reason
    assert [each.purpose for each in passes[-2:]] == [Purpose.CONFIRM] * 2
    assert 0.1 < abs(visited[-1] - visited[-2]) < settings_for().tolerance_um


def test_a_peak_that_the_fit_misses_is_read_again_where_it_was_best():
    hill, tip = curve(0.0, width_um=5.0, height=0.6), curve(2.0, width_um=0.5, height=0.4)

    def read(z, i):
        return Reading(z, hill(z, i).score + tip(z, i).score, fingerprint=str(z))

    result, _, _ = drive(settings_for(start_z_um=-20.0), read)
    assert result.locked, result.reason
    assert abs(result.z_um - 2.0) <= 0.35


@pytest.mark.parametrize("odd", range(1, 24))
def test_one_reading_that_was_too_high_does_not_draw_the_run_away(odd):
    peak = curve(3.3, width_um=2.3)

    def read(z, i):
        return Reading(z, 1.03 if i == odd else peak(z, i).score, fingerprint=f"{z} {i}")

    result, _, _ = drive(settings_for(start_z_um=-20.0), read)
    if result.locked:
        assert abs(result.z_um - 3.3) <= 0.75


@pytest.mark.parametrize("focus_um", [-11.0, -4.2, 0.7, 3.3, 8.8])
@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_light_that_bleaches_does_not_draw_the_run_to_an_early_reading(focus_um, noise):
    bell = curve(focus_um, width_um=2.3, noise=noise)

    def read(z, i):
        return Reading(z, (0.1 + bell(z, i).score) * 0.99**i, fingerprint=f"{z} {i}")

    result, _, _ = drive(settings_for(start_z_um=-20.0), read)
    assert result.locked, result.reason
    assert abs(result.z_um - focus_um) <= 0.5


@pytest.mark.parametrize("width_um", [3.0, 6.0])
@pytest.mark.parametrize("peak_um", [2.0, 15.0])
def test_a_start_outside_the_range_does_not_hide_its_edge(peak_um, width_um):
    outside = settings_for(z_min_um=20.0, z_max_um=60.0, center_um=40.0, range_um=40.0)
    result, visited, _ = drive(outside, curve(peak_um, width_um=width_um))
    assert result.verdict is Verdict.EDGE, result.reason
    assert min(visited[1:]) >= 20.0


@pytest.mark.parametrize("seed", range(200))
def test_never_locks_on_noise(seed):
    noise = curve(0.0, height=0.0, base=1.0, noise=0.1, seed=seed)
    result, _, _ = drive(settings_for(), noise)
    assert not result.locked, result.reason


@pytest.mark.parametrize("range_um", [4.0, 8.0, 12.0])
def test_short_ranges_lock_on_a_peak_and_not_on_noise(range_um):
    result, _, _ = drive(settings_for(range_um=range_um), curve(0.4, noise=0.01))
    assert result.locked, result.reason
    assert abs(result.z_um - 0.4) <= 0.25
    for seed in range(30):
        noise = curve(0.0, height=0.0, base=1.0, noise=0.1, seed=seed)
        assert not drive(settings_for(range_um=range_um), noise)[0].locked


@pytest.mark.parametrize("seed", range(20))
def test_one_odd_frame_is_not_a_peak(seed):
    noise = curve(0.0, height=0.0, base=1.0, noise=0.02, seed=seed)

    def read(z, i):
        reading = noise(z, i)
        return Reading(z, reading.score + (1.0 if i == 3 + seed % 12 else 0.0), fingerprint=str(i))

    assert not drive(settings_for(), read)[0].locked


def test_constant_score_is_flat():
    result, _, _ = drive(settings_for(), lambda z, i: Reading(z, 5.0, fingerprint=str(i)))
    assert result.verdict is Verdict.FLAT


def test_two_equal_peaks_are_ambiguous():
    one, two = curve(-12.0), curve(12.0)

    def read(z, i):
        return Reading(z, one(z, i).score + two(z, i).score, fingerprint=str(z))

    assert drive(settings_for(), read)[0].verdict is Verdict.AMBIGUOUS


def test_a_lower_second_peak_does_not_disturb():
    one, two = curve(-12.0), curve(12.0, height=0.5)

    def read(z, i):
        return Reading(z, one(z, i).score + two(z, i).score, fingerprint=str(z))

    result, _, _ = drive(settings_for(), read)
    assert result.locked
    assert abs(result.z_um + 12.0) <= 0.25


def test_identical_frames_are_stale():
    peak = curve(0.0)

    def read(z, i):
        return Reading(z, peak(z, i).score, fingerprint="same")

    assert drive(settings_for(), read)[0].verdict is Verdict.STALE


def test_dark_frames():
    noise = curve(0.0, height=0.0, noise=0.1)

    def read(z, i):
        return Reading(z, noise(z, i).score, dark=True, fingerprint=str(i))

    assert drive(settings_for(), read)[0].verdict is Verdict.DARK


def test_a_saturated_peak_is_not_believed():
    peak = curve(4.0)

    def read(z, i):
        return Reading(z, peak(z, i).score, saturated=abs(z - 4.0) < 3, fingerprint=str(z))

    assert drive(settings_for(), read)[0].verdict is Verdict.SATURATED


def test_a_clipped_peak_between_its_flanks_is_not_believed():
    peak = curve(4.0)

    def read(z, i):
        clipped = abs(z - 4.0) < 1
        return Reading(
            z, 0.3 if clipped else peak(z, i).score, saturated=clipped, fingerprint=str(z)
        )

    assert drive(settings_for(), read)[0].verdict is Verdict.SATURATED


def test_copies_of_a_frame_prove_nothing_twice():
    once = [Reading(float(z), float(z % 3), fingerprint=str(z)) for z in range(6)]
    assert distinct([*once, once[2], once[2]]) == once
    unknown = Reading(1.0, 2.0)
    assert len(distinct([unknown, unknown])) == 2


def test_a_peak_that_is_gone_when_measured_again_is_not_locked():
    peak = curve(4.0)
    final = len(drive(settings_for(), peak)[1]) - 1

    def read(z, i):
        return peak(z, i) if i < final else Reading(z, 0.02, fingerprint="last")

    result, _, _ = drive(settings_for(), read)
    assert not result.locked
    assert result.verdict in (Verdict.FLAT, Verdict.AMBIGUOUS, Verdict.WORSE_THAN_START)


def test_worse_than_start():
    peak = curve(10.0)

    def read(z, i):
        return Reading(z, 1.5, fingerprint="first") if i == 0 else peak(z, i)

    result, _, _ = drive(settings_for(), read)
    assert not result.locked


def test_absolute_score_too_low_is_flat():
    low = curve(3.0, height=0.2)
    assert drive(settings_for(absolute=True), low)[0].verdict is Verdict.FLAT
    assert drive(settings_for(), low)[0].locked


def test_passes_are_monotonic_in_the_direction_of_travel():
    for direction in (1, -1):
        _, _, passes = drive(settings_for(direction=direction), curve(7.0))
        for step in passes:
            steps = np.diff(step.z_um) * direction
            assert (steps > 0).all()


finite = st.floats(-1e3, 1e3)


@settings(max_examples=300, deadline=None)
@given(
    start=st.floats(-50, 50),
    low=st.floats(-60, -1),
    high=st.floats(1, 60),
    range_um=st.floats(0.5, 150),
    dof_um=st.floats(0.2, 10),
    direction=st.sampled_from([-1, 1]),
    extensions=st.integers(0, 4),
    scores=st.lists(finite, min_size=1, max_size=40),
    absolute=st.booleans(),
    watched=st.booleans(),
)
def test_stays_inside_the_bounds_and_the_promised_exposures_whatever_the_scores(
    start, low, high, range_um, dof_um, direction, extensions, scores, absolute, watched
):
    asked = settings_for(
        start_z_um=start,
        z_min_um=low,
        z_max_um=high,
        center_um=min(max(start, low), high),
        range_um=range_um,
        dof_um=dof_um,
        tolerance_um=dof_um / 4,
        direction=direction,
        max_extensions=extensions,
        absolute=absolute,
    )
    seen: list[Reading] = []

    def read(z, i):
        referee = scores[3 * i % len(scores)] if watched else None
        seen.append(Reading(z, scores[i % len(scores)], fingerprint=str(i), referee=referee))
        return seen[-1]

    result, visited, _ = drive(asked, read)
    assert all(low <= z <= high for z in visited[1:])
    assert visited[0] == start
    assert len(visited) <= worst_case_exposures(asked)
    assert isinstance(result, SearchResult)
    again, visited_again, _ = drive(asked, lambda z, i: seen[i])
    assert (again, visited_again) == (result, visited)
    if result.locked:
        assert math.isfinite(result.z_um)
        assert result.final_score >= result.start_score - abs(result.start_score)


def test_grid_covers_both_ends_and_leaves_out_the_start():
    positions = coarse_positions(settings_for())
    assert (positions[0], positions[-1]) == (-25.0, 25.0)
    assert 0.0 not in positions
    assert max(np.diff(sorted([*positions, 0.0]))) <= 3.0 + 1e-9


def test_extension_ends_on_the_bound():
    assert extension_positions(settings_for(z_max_um=30.0), 25.0, 1) == (28.0, 30.0)
    assert extension_positions(settings_for(z_max_um=26.0), 25.0, 1) == ()


def test_fine_positions_move_away_from_the_bound_instead_of_repeating_it():
    positions = fine_positions(settings_for(z_max_um=10.0), center_um=9.9, step_um=1.0)
    assert positions == pytest.approx((7.0, 8.0, 9.0, 10.0))


def test_fit_finds_a_gaussian_exactly():
    z = np.arange(-3, 4)
    readings = [Reading(float(v), float(2 * np.exp(-((v - 0.37) ** 2) / 4))) for v in z]
    peak = fit_peak(readings, baseline=0.0, noise=1e-6)
    assert peak.z_um == pytest.approx(0.37, abs=1e-6)
    assert peak.score == pytest.approx(2.0, abs=1e-6)
    assert peak.width_um == pytest.approx(2 * math.sqrt(4 * math.log(2)), rel=1e-6)


def test_a_fit_that_rises_far_above_every_reading_is_none():
    # Two lone readings beside the best one, which came back low: exp(6 000) by the parabola.
    at_um = (-0.38, -0.38, 0.0, 0.0, 2.4e-4)
    score = (0.123, 0.077, 0.95, 0.1, 0.136)
    readings = [Reading(a, b) for a, b in zip(at_um, score, strict=True)]
    assert fit_peak(readings, baseline=0.12, noise=0.02) is None


def test_readings_close_together_do_not_lift_the_background():
    """As in thick tissue, where most of a long run stands within a few layers of the best."""
    peak = curve(0.0, width_um=1.0, height=0.6, base=0.05)
    shoulder = np.linspace(-6.0, 6.0, 25)

    def score(z):
        return max(peak(z, 0).score, 0.45 if abs(z) <= 6 else 0.0)

    positions = [*np.linspace(-24.0, 24.0, 17), *shoulder]
    back = background([Reading(z, score(z)) for z in positions], settings_for())
    assert np.median([score(z) for z in positions if abs(z) > 3.0]) == 0.45
    assert back.level == pytest.approx(0.05, abs=0.01)


def test_fit_uncertainty_covers_the_scatter():
    rng = np.random.default_rng(1)
    z = np.arange(-3, 3.5, 0.5)
    errors, sigmas = [], []
    for _ in range(300):
        score = np.exp(-(z**2) / 4) + rng.normal(0, 0.03, z.size)
        peak = fit_peak(
            [Reading(float(a), float(b)) for a, b in zip(z, score, strict=True)],
            baseline=0.0,
            noise=0.03,
        )
        errors.append(peak.z_um)
        sigmas.append(peak.sigma_um)
    assert np.std(errors) == pytest.approx(np.median(sigmas), rel=0.4)
