"""The next step of a search that somebody else carries out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autofocus.config import SearchDefaults
from autofocus.errors import RequestError
from autofocus.findings import DOUBT
from autofocus.planning import MOST_RANGE_DOF, FocusRequest, settings_within, strategy_of
from autofocus.remote import Move, RemoteResult, RemoteSearch, next_step
from autofocus.search.protocol import Purpose, Reading, SearchResult, Verdict
from autofocus.search.strategies import STRATEGIES
from devices import MicroscopeSettings
from models.classical import DEFAULT_MEASURE, ClassicalScorer

DOF_UM = 1.4
LIMITS = MicroscopeSettings(config=None, z_min_um=-40.0, z_max_um=40.0)
SCORER = ClassicalScorer(DEFAULT_MEASURE)


def search(*, start_z_um: float = 12.0, **request) -> RemoteSearch:
    bounds = {"z_min_um": LIMITS.z_min_um, "z_max_um": LIMITS.z_max_um}
    return RemoteSearch(FocusRequest(**{**bounds, **request}), LIMITS, start_z_um, DOF_UM)


class Specimen:
    """A focus curve with noise; the same position twice is never the same reading."""

    def __init__(self, focus_um: float = 3.0, noise: float = 0.01, height: float = 1.0) -> None:
        self.focus_um, self.noise, self.height = focus_um, noise, height
        self._rng = np.random.default_rng(0)

    def read(self, z_um: float) -> Reading:
        peak = self.height / (1 + ((z_um - self.focus_um) / (2 * DOF_UM)) ** 2)
        score = peak + self.noise * float(self._rng.standard_normal())
        return Reading(z_um, score, referee=score, fingerprint=f"{score}")


def carried_out(asked: RemoteSearch, specimen: Specimen) -> tuple[list[Reading], RemoteResult]:
    readings: list[Reading] = []
    while isinstance(step := next_step(asked, readings, SCORER), Move):
        assert step.z_um
        readings.extend(specimen.read(z_um) for z_um in step.z_um)
    return readings, step


def here(asked: RemoteSearch, specimen: Specimen) -> tuple[list[Reading], SearchResult]:
    """The same search, driven without a break."""
    settings_, _ = settings_within(
        asked.limits,
        SearchDefaults(range_um=None, range_dof=50.0, coarse_step_um=None, max_extensions=2),
        asked.request,
        start_z_um=asked.start_z_um,
        dof_um=asked.dof_um,
        absolute=SCORER.absolute,
    )
    running = strategy_of(asked.request).search(settings_)
    readings: list[Reading] = []
    try:
        step = next(running)
        while True:
            given_ = tuple(specimen.read(z_um) for z_um in step.z_um)
            readings.extend(given_)
            step = running.send(given_)
    except StopIteration as finished:
        return readings, finished.value


def test_a_run_asked_for_step_by_step_is_the_run_without_a_break() -> None:
    asked = search()
    readings, result = carried_out(asked, Specimen())
    at_once, outcome = here(asked, Specimen())

    assert readings == at_once
    assert result.verdict is Verdict.LOCKED
    assert (result.z_um, result.reason) == (outcome.z_um, outcome.reason)
    assert (result.start_score, result.final_score) == (outcome.start_score, outcome.final_score)
    assert result.final_z_um == result.z_um == pytest.approx(3.0, abs=DOF_UM / 2)
    assert result.exposures == len(readings) == len(result.curve)
    assert result.curve[0].purpose is Purpose.START
    assert result.curve[-1].purpose is Purpose.CONFIRM


@given(
    start_z_um=st.floats(-40, 40),
    focus_um=st.floats(-60, 60),
    noise=st.floats(0, 0.5),
    range_um=st.floats(0.5, 200) | st.none(),
    offset_um=st.floats(-5, 5),
    max_exposures=st.integers(1, 80) | st.none(),
    strategy=st.sampled_from(sorted(STRATEGIES)),
    on_failure=st.sampled_from(["return", "stay"]),
)
@settings(max_examples=40, deadline=None)
def test_never_beyond_the_limits_or_the_budget_and_the_same_at_every_question(
    start_z_um, focus_um, noise, range_um, offset_um, max_exposures, strategy, on_failure
) -> None:
    asked = search(
        start_z_um=start_z_um,
        range_um=range_um,
        channel_offset_um=offset_um,
        max_exposures=max_exposures,
        strategy=strategy,
        on_failure=on_failure,
    )
    readings, result = carried_out(asked, Specimen(focus_um, noise))
    at_once, outcome = here(asked, Specimen(focus_um, noise))

    for z_um in (*(reading.z_um for reading in readings), result.final_z_um):
        assert LIMITS.z_min_um <= z_um <= LIMITS.z_max_um
    if max_exposures is not None and len(at_once) > max_exposures:
        assert result.verdict is Verdict.BUDGET
        assert readings == at_once[:max_exposures]
    else:
        assert readings == at_once
        assert (result.verdict, result.z_um) == (outcome.verdict, outcome.z_um)
    if not result.locked and on_failure == "return":
        assert result.final_z_um == start_z_um


def test_the_dose_is_counted_as_in_a_run_here() -> None:
    readings, result = carried_out(search(exposure_ms=10.0, max_dose_ms=55.0), Specimen())

    assert result.verdict is Verdict.BUDGET
    assert len(readings) == 5
    assert result.dose_ms == 50.0
    assert "50 ms spent; 10 ms more would exceed max_dose_ms = 55" in result.reason


def test_a_budget_below_one_exposure_ends_before_the_first() -> None:
    result = next_step(search(exposure_ms=10.0, max_dose_ms=5.0), [], SCORER)
    assert isinstance(result, RemoteResult)
    assert (result.verdict, result.exposures) == (Verdict.BUDGET, 0)


def test_the_referee_is_heard_as_in_a_run_here() -> None:
    class Deceived(Specimen):
        def read(self, z_um: float) -> Reading:
            elsewhere = 1 / (1 + ((z_um + 8) / (2 * DOF_UM)) ** 2)
            return replace(super().read(z_um), referee=elsewhere)

    _, result = carried_out(search(), Deceived())
    _, agreed = carried_out(search(), Specimen())

    assert result.locked
    assert agreed.locked
    assert result.referee_z_um == pytest.approx(-8, abs=DOF_UM)
    assert result.referee_agrees is False
    assert result.confidence == pytest.approx(agreed.confidence * DOUBT)
    assert any("puts the peak at" in note for note in result.notes)


def history() -> tuple[RemoteSearch, list[Reading]]:
    asked = search()
    return asked, carried_out(asked, Specimen())[0]


@pytest.mark.parametrize(
    ("damaged", "why"),
    [
        (lambda readings: readings[:5], "needs .* readings"),
        (lambda readings: [*readings, readings[-1]], "was over after"),
        (lambda readings: readings[1:], "is at"),
        (lambda readings: [readings[0], readings[2], readings[1], *readings[3:]], "is at"),
        (
            lambda readings: [replace(readings[0], z_um=readings[0].z_um + 0.6), *readings[1:]],
            r"readings\[0\] is at 12.6 um, wanted was 12 um within 0.5 um",
        ),
    ],
    ids=["half a pass", "one too many", "without the start", "swapped", "not arrived"],
)
def test_readings_the_search_did_not_ask_for_are_refused(damaged, why) -> None:
    asked, readings = history()
    with pytest.raises(RequestError, match=why):
        next_step(asked, damaged(readings), SCORER)


def test_a_reading_may_be_as_far_off_as_the_stage_arrives() -> None:
    asked, readings = history()
    coarser = replace(asked, limits=replace(LIMITS, arrival_tolerance_um=1.0))
    near = [replace(readings[0], z_um=readings[0].z_um + 0.6)]
    assert isinstance(next_step(coarser, near, SCORER), Move)


def test_readings_beyond_the_budget_are_refused() -> None:
    asked, readings = history()
    thrifty = replace(asked, request=replace(asked.request, max_exposures=7))
    assert isinstance(next_step(thrifty, readings[:7], SCORER), RemoteResult)
    with pytest.raises(RequestError, match="was over after 7"):
        next_step(thrifty, readings[:8], SCORER)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"start_z_um": 40.5}, "start_z_um"),
        ({"warm_start": True}, "expected_z_um"),
        ({"max_seconds": 3.0}, "clock is yours"),
        ({"max_dose_ms": 30.0}, "needs exposure_ms"),
        ({"strategy": "hope"}, "unknown"),
        ({"center_um": 41.0}, "outside the permitted"),
        ({"range_um": 701.0}, "500 depths of field"),
        ({"range_um": 1e300}, f"more than {MOST_RANGE_DOF} depths of field"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_refused_before_the_first_move(wrong, why) -> None:
    with pytest.raises(RequestError, match=why):
        next_step(search(**wrong), [], SCORER)
