"""One live run: a search drives a microscope and a scorer, inside limits and budgets."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from autofocus.config import Rig
from autofocus.errors import RequestError
from autofocus.optics import Optics
from autofocus.search.coarse_to_fine import coarse_to_fine, worst_case_exposures
from autofocus.search.grid import coarse_positions
from autofocus.search.protocol import (
    Pass,
    Purpose,
    Reading,
    Search,
    SearchResult,
    SearchSettings,
    Strategy,
    Verdict,
)
from autofocus.search.referee import referee_peak
from devices import (
    Acquisition,
    AcquisitionSettings,
    Frame,
    Halted,
    Microscope,
    MicroscopeState,
    Roi,
)
from models.errors import ModelError
from models.scorer import Scorer

# A quarter of the depth of field cannot be seen by eye.
TOLERANCE_DOF = 0.25


@dataclass(frozen=True)
class FocusRequest:
    """What to focus on and how far to go; None leaves the choice to the rig file.

    Attributes
    ----------
    range_um, range_dof : float or None
        Full width of the first pass, um or depths of field; at most one of the two.
    center_um : float or None
        Middle of the first pass; None is the start position, or the middle of ``z_min_um`` and
        ``z_max_um`` when both are given.
    z_min_um, z_max_um : float or None
        Bounds of this run, inside those of the rig.
    strategy, scorer, head : str or None
        By name.
    roi : Roi or None
        Camera region for this run, px.
    exposure_ms, channel, binning : optional
        Camera settings for this run; put back afterwards.
    channel_offset_um : float
        Added to the in-focus position after a lock: focus in one channel, image in another.
    tolerance_um : float or None
        How closely the peak is wanted; None is a quarter of the depth of field.
    max_exposures, max_dose_ms, max_seconds : optional
        Budgets; a run that would exceed one ends with ``budget``.
    max_extensions : int or None
        How often the range may grow past an end that holds the best score.
    on_failure : {"return", "stay"}
        Where the stage is left unless the run locks.
    save_frames : bool
        Keep the frames in the run's folder.
    """

    range_um: float | None = None
    range_dof: float | None = None
    center_um: float | None = None
    z_min_um: float | None = None
    z_max_um: float | None = None
    strategy: str = "coarse_to_fine"
    scorer: str | None = None
    head: str | None = None
    roi: Roi | None = None
    exposure_ms: float | None = None
    channel: str | None = None
    channel_offset_um: float = 0.0
    binning: int | None = None
    tolerance_um: float | None = None
    max_exposures: int | None = None
    max_dose_ms: float | None = None
    max_seconds: float | None = None
    max_extensions: int | None = None
    on_failure: Literal["return", "stay"] = "return"
    save_frames: bool = False


@dataclass(frozen=True)
class CurvePoint:
    """One exposure of a run, as it is reported."""

    z_um: float
    score: float
    t_s: float
    referee: float | None
    purpose: Purpose


@dataclass(frozen=True)
class Seconds:
    """Where the time of a run went."""

    stage: float
    camera: float
    scoring: float
    total: float


@dataclass(frozen=True)
class FocusPlan:
    """What a run would do, without doing it.

    Attributes
    ----------
    z_um : tuple of float
        Positions of the first pass, um.
    z_lowest_um, z_highest_um : float
        The run never leaves these, whatever its channel offset and the rig's backlash.
    worst_case_exposures : int
        Largest number of exposures, the budget considered.
    worst_case_dose_ms : float
        Largest sum of exposure times.
    dof_um, tolerance_um : float
        Depth of field and tolerance in use.
    strategy : str
        Name of the search.
    notes : tuple of str
        What was cut or chosen on the caller's behalf.
    """

    z_um: tuple[float, ...]
    z_lowest_um: float
    z_highest_um: float
    worst_case_exposures: int
    worst_case_dose_ms: float
    dof_um: float
    tolerance_um: float
    strategy: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class FocusResult:
    """The answer of a run; names as on the wire (see `docs/architecture.md`)."""

    run_id: str
    locked: bool
    verdict: Verdict
    reason: str
    z_um: float | None
    z_uncertainty_um: float | None
    score: float | None
    confidence: float
    exposures: int
    dose_ms: float
    start_z_um: float
    final_z_um: float
    start_score: float | None
    final_score: float | None
    scorer: str
    head: str | None
    out_of_distribution: bool
    referee: str | None
    referee_z_um: float | None
    referee_agrees: bool | None
    dof_um: float
    notes: tuple[str, ...]
    curve: tuple[CurvePoint, ...]
    seconds: Seconds


def strategies() -> Mapping[str, Strategy]:
    """The searches by name."""
    return {"coarse_to_fine": coarse_to_fine}


# -- planning ---------------------------------------------------------------------------------


def plan(rig: Rig, request: FocusRequest, *, state: MicroscopeState) -> FocusPlan:
    """Say what a run would do; moves nothing.

    Raises
    ------
    RequestError
        When the request contradicts itself or the rig's limits.
    """
    _strategy(request)
    settings, notes = search_settings(rig, request, state=state)
    worst = worst_case_exposures(settings)
    if request.max_exposures is not None:
        worst = min(worst, request.max_exposures)
    dose_ms = worst * (request.exposure_ms or state.exposure_ms)
    if request.max_dose_ms is not None:
        dose_ms = min(dose_ms, request.max_dose_ms)
    lowest_um, highest_um = _reach_um(rig, request, settings)
    return FocusPlan(
        z_um=coarse_positions(settings),
        z_lowest_um=lowest_um,
        z_highest_um=highest_um,
        worst_case_exposures=worst,
        worst_case_dose_ms=dose_ms,
        dof_um=settings.dof_um,
        tolerance_um=settings.tolerance_um,
        strategy=request.strategy,
        notes=notes,
    )


def search_settings(
    rig: Rig, request: FocusRequest, *, state: MicroscopeState, absolute: bool = False
) -> tuple[SearchSettings, tuple[str, ...]]:
    """Turn a request into um, inside every limit, with a note for everything that was cut.

    Raises
    ------
    RequestError
        When the request contradicts itself or the rig's limits.
    """
    binning = request.binning or state.binning
    dof_um = rig.optics_for(state.objective).depth_of_field_um(binning)
    low, high, notes = _envelope(rig, request, start_z_um=state.z_um)
    range_um = _range_um(rig, request, dof_um)
    center_um = _center_um(request, start_z_um=state.z_um, low=low, high=high)
    if center_um - range_um / 2 < low or center_um + range_um / 2 > high:
        notes.append(
            f"range {center_um - range_um / 2:.2f}..{center_um + range_um / 2:.2f} um cut to the "
            f"permitted {low:.2f}..{high:.2f} um"
        )
    extensions = request.max_extensions
    settings = SearchSettings(
        start_z_um=state.z_um,
        z_min_um=low,
        z_max_um=high,
        center_um=center_um,
        range_um=range_um,
        dof_um=dof_um,
        tolerance_um=request.tolerance_um or TOLERANCE_DOF * dof_um,
        direction=-1 if rig.microscope.towards_specimen == "-" else 1,
        max_extensions=rig.search.max_extensions if extensions is None else extensions,
        coarse_step_um=rig.search.coarse_step_um,
        absolute=absolute,
    )
    return settings, tuple(notes)


def _envelope(
    rig: Rig, request: FocusRequest, *, start_z_um: float
) -> tuple[float, float, list[str]]:
    """Positions this run may visit: limits of the rig, of the request, and towards the specimen."""
    limits, notes = rig.microscope, []
    low, high = limits.z_min_um, limits.z_max_um
    for name, value in (("z_min_um", request.z_min_um), ("z_max_um", request.z_max_um)):
        if value is not None and not low <= value <= high:
            raise RequestError(f"{name} = {value} um is outside the rig's {low}..{high} um")
    low = low if request.z_min_um is None else request.z_min_um
    high = high if request.z_max_um is None else request.z_max_um
    permitted_low, permitted_high = limits.permitted_um(start_z_um)
    if permitted_low > low or permitted_high < high:
        low, high = max(low, permitted_low), min(high, permitted_high)
        end = low if limits.towards_specimen == "-" else high
        notes.append(f"at most {limits.max_towards_um} um towards the specimen: to {end:.2f}")
    # The channel offset is applied after the lock and must not leave the bounds either.
    low, high = (
        max(low, low - request.channel_offset_um),
        min(high, high - request.channel_offset_um),
    )
    if low >= high:
        raise RequestError(
            f"nothing is left to search between {low:.2f} and {high:.2f} um; "
            "check z_min_um, z_max_um, channel_offset_um and the rig's max_towards_um"
        )
    return low, high, notes


def _reach_um(rig: Rig, request: FocusRequest, settings: SearchSettings) -> tuple[float, float]:
    """Where a run can get in all: the start, the channel offset and the run-up included."""
    limits, offset_um = rig.microscope, request.channel_offset_um
    run_up_um = settings.direction * limits.backlash_um
    low = min(settings.z_min_um + min(offset_um, 0.0), settings.start_z_um) - max(run_up_um, 0.0)
    high = max(settings.z_max_um + max(offset_um, 0.0), settings.start_z_um) - min(run_up_um, 0.0)
    return max(low, limits.z_min_um), min(high, limits.z_max_um)


def _range_um(rig: Rig, request: FocusRequest, dof_um: float) -> float:
    if request.range_um is not None and request.range_dof is not None:
        raise RequestError("give range_um or range_dof, not both")
    if request.range_um is not None:
        return request.range_um
    if request.range_dof is not None:
        return request.range_dof * dof_um
    if request.z_min_um is not None and request.z_max_um is not None:
        return request.z_max_um - request.z_min_um
    return rig.search.range_um or rig.search.range_dof * dof_um


def _center_um(request: FocusRequest, *, start_z_um: float, low: float, high: float) -> float:
    if request.center_um is not None:
        if not low <= request.center_um <= high:
            raise RequestError(
                f"center_um = {request.center_um} um is outside the permitted "
                f"{low:.2f}..{high:.2f} um"
            )
        return request.center_um
    if request.z_min_um is not None and request.z_max_um is not None:
        return (low + high) / 2
    return min(max(start_z_um, low), high)


def _strategy(request: FocusRequest) -> Strategy:
    known = strategies()
    if request.strategy not in known:
        raise RequestError(
            f"strategy {request.strategy!r} is unknown; there are {', '.join(known)}"
        )
    return known[request.strategy]


# -- running ----------------------------------------------------------------------------------


class Abort(Protocol):
    """Anything that can be asked whether the run must stop; `threading.Event` is one."""

    def is_set(self) -> bool:
        """Whether to stop now."""


def run_focus(
    rig: Rig,
    microscope: Microscope,
    scorer: Scorer,
    request: FocusRequest,
    *,
    run_id: str,
    abort: Abort | None = None,
    on_reading: Callable[[CurvePoint], None] | None = None,
    on_frame: Callable[[int, Frame], None] | None = None,
) -> FocusResult:
    """Focus, and leave the microscope as it was found unless the verdict is ``locked``.

    Must be called from the hardware thread.

    Parameters
    ----------
    rig, microscope, scorer
        What to drive and how to judge.
    request : FocusRequest
        What the caller wants.
    run_id : str
        Copied into the result.
    abort : Abort, optional
        Watched before every move and every exposure.
    on_reading, on_frame : callable, optional
        Told of every exposure as it is made; called from this thread.

    Raises
    ------
    RequestError
        When the request cannot be carried out on this rig; nothing has moved.
    DeviceError, ModelError
        When hardware or the scorer fails; state and z have been put back as far as possible.
    """
    strategy = _strategy(request)
    state = microscope.refresh()
    settings, notes = search_settings(rig, request, state=state, absolute=scorer.absolute)
    camera = AcquisitionSettings(
        exposure_ms=request.exposure_ms,
        roi=request.roi,
        binning=request.binning,
        channel=request.channel,
    )
    optics = rig.optics_for(state.objective)
    abort = abort or threading.Event()
    driver = _Driver(microscope, scorer, optics, request, abort, on_reading, on_frame)
    microscope.resume()
    with microscope.acquisition(camera) as acquisition:
        outcome = driver.drive(strategy(settings), acquisition)
        if outcome.locked or request.on_failure == "stay":
            acquisition.keep_z()
    final_z_um = microscope.z_um()
    return driver.result(run_id, settings, outcome, final_z_um=final_z_um, notes=notes)


class _Stop(Exception):  # noqa: N818 - ends a run with a verdict, is not an error
    """The driver, not the search, ended the run."""

    def __init__(self, verdict: Verdict, reason: str) -> None:
        super().__init__(reason)
        self.verdict = verdict
        self.reason = reason


class _Driver:
    """Answers a search with readings from the microscope, and keeps the books."""

    def __init__(
        self,
        microscope: Microscope,
        scorer: Scorer,
        optics: Optics,
        request: FocusRequest,
        abort: Abort,
        on_reading: Callable[[CurvePoint], None] | None,
        on_frame: Callable[[int, Frame], None] | None,
    ) -> None:
        self._microscope = microscope
        self._scorer = scorer
        self._optics = optics
        self._request = request
        self._abort = abort
        self._on_reading = on_reading
        self._on_frame = on_frame
        self._began_s = time.monotonic()
        self._stage_s = self._camera_s = self._scoring_s = 0.0
        self._dose_ms = 0.0
        self._readings: list[Reading] = []
        self._curve: list[CurvePoint] = []

    def drive(self, search: Search, acquisition: Acquisition) -> SearchResult:
        """Run the search to its end, or to the verdict that ends it early."""
        try:
            outcome = self._converse(search, acquisition)
            # A stop that came while the last frame was scored.
            self._check_abort()
            if outcome.locked and outcome.z_um is not None and self._request.channel_offset_um:
                self._move(outcome.z_um + self._request.channel_offset_um)
            return outcome
        except _Stop as stop:
            return SearchResult(
                stop.verdict,
                stop.reason,
                start_score=self._readings[0].score if self._readings else None,
            )
        finally:
            search.close()

    def _converse(self, search: Search, acquisition: Acquisition) -> SearchResult:
        try:
            step = next(search)
            while True:
                readings = tuple(self._read(z_um, step) for z_um in step.z_um)
                acquisition.verify_unchanged()
                step = search.send(readings)
        except StopIteration as finished:
            result: SearchResult = finished.value
            return result

    def _read(self, z_um: float, step: Pass) -> Reading:
        self._check_abort()
        self._check_budget()
        self._move(z_um)
        self._check_abort()
        frame = self._snap()
        # Checked again: a frame exposed while somebody pressed stop is not worth scoring.
        self._check_abort()
        return self._score(frame, step)

    def _check_abort(self) -> None:
        if self._abort.is_set() or self._microscope.halted:
            raise _Stop(Verdict.ABORTED, f"aborted after {len(self._readings)} exposures")

    def _check_budget(self) -> None:
        request, taken = self._request, len(self._readings)
        if request.max_exposures is not None and taken >= request.max_exposures:
            raise _Stop(Verdict.BUDGET, f"max_exposures = {request.max_exposures} spent")
        next_ms = request.exposure_ms or self._microscope.state.exposure_ms
        if request.max_dose_ms is not None and self._dose_ms + next_ms > request.max_dose_ms:
            raise _Stop(
                Verdict.BUDGET,
                f"{self._dose_ms:g} ms spent; {next_ms:g} ms more would exceed "
                f"max_dose_ms = {request.max_dose_ms:g}",
            )
        elapsed_s = time.monotonic() - self._began_s
        if request.max_seconds is not None and elapsed_s + next_ms / 1000 > request.max_seconds:
            raise _Stop(
                Verdict.BUDGET,
                f"{elapsed_s:.1f} s spent of max_seconds = {request.max_seconds:g}",
            )

    def _move(self, z_um: float) -> None:
        began_s = time.monotonic()
        try:
            self._microscope.move_to(z_um)
        except Halted as halted:
            raise _Stop(Verdict.ABORTED, f"stopped while moving: {halted}") from halted
        self._stage_s += time.monotonic() - began_s

    def _snap(self) -> Frame:
        began_s = time.monotonic()
        frame = self._microscope.snap()
        self._camera_s += time.monotonic() - began_s
        self._dose_ms += frame.exposure_ms
        return frame

    def _score(self, frame: Frame, step: Pass) -> Reading:
        began_s = time.monotonic()
        scored = self._scorer.score(
            frame.image,
            bit_depth=frame.bit_depth,
            sampling=self._optics.sampling(frame.binning),
        )
        self._scoring_s += time.monotonic() - began_s
        if not math.isfinite(scored.score):
            # Compared with anything it is false, which every later check would take for consent.
            raise ModelError(
                f"{self._scorer.name} scored the frame at {frame.z_um:.2f} um as {scored.score}; "
                "choose another scorer"
            )
        reading = Reading(
            z_um=frame.z_um,
            score=scored.score,
            referee=scored.referee,
            defocus_dof=scored.defocus_dof,
            dark=scored.dark,
            saturated=scored.saturated,
            out_of_distribution=scored.out_of_distribution,
            fingerprint=scored.fingerprint,
        )
        point = CurvePoint(
            z_um=reading.z_um,
            score=reading.score,
            t_s=frame.t_s - self._began_s,
            referee=reading.referee,
            purpose=step.purpose,
        )
        self._readings.append(reading)
        self._curve.append(point)
        if self._on_frame is not None:
            self._on_frame(len(self._readings) - 1, frame)
        if self._on_reading is not None:
            self._on_reading(point)
        return reading

    def result(
        self,
        run_id: str,
        settings: SearchSettings,
        outcome: SearchResult,
        *,
        final_z_um: float,
        notes: tuple[str, ...],
    ) -> FocusResult:
        """Everything a caller wants to know, the referee's opinion included."""
        referee = self._scorer.watched_by
        total_s = time.monotonic() - self._began_s
        opinion = referee_peak(self._readings, settings, outcome)
        outcome, notes = _heard(outcome, notes, opinion.note(referee, settings))
        return FocusResult(
            run_id=run_id,
            locked=outcome.locked,
            verdict=outcome.verdict,
            reason=outcome.reason,
            z_um=outcome.z_um,
            z_uncertainty_um=outcome.z_uncertainty_um,
            score=outcome.score,
            confidence=outcome.confidence,
            exposures=len(self._readings),
            dose_ms=self._dose_ms,
            start_z_um=settings.start_z_um,
            final_z_um=final_z_um,
            start_score=outcome.start_score,
            final_score=outcome.final_score,
            scorer=self._scorer.name,
            head=self._scorer.head,
            out_of_distribution=_mostly_out_of_distribution(self._readings, outcome, settings),
            referee=referee,
            referee_z_um=opinion.z_um,
            referee_agrees=opinion.agrees,
            dof_um=settings.dof_um,
            notes=notes,
            curve=tuple(self._curve),
            seconds=Seconds(self._stage_s, self._camera_s, self._scoring_s, total_s),
        )


def _heard(
    outcome: SearchResult, notes: tuple[str, ...], objection: str | None
) -> tuple[SearchResult, tuple[str, ...]]:
    """A referee that disagrees halves the confidence and says so; it never moves the peak."""
    if objection is None:
        return outcome, notes
    return replace(outcome, confidence=outcome.confidence / 2), (*notes, objection)


def _mostly_out_of_distribution(
    readings: list[Reading], outcome: SearchResult, settings: SearchSettings
) -> bool:
    """Whether most frames near the peak (or of the run, without one) are foreign to the head."""
    near = [
        reading
        for reading in readings
        if outcome.z_um is None or abs(reading.z_um - outcome.z_um) <= 2 * settings.dof_um
    ]
    near = near or readings
    return bool(near) and 2 * sum(reading.out_of_distribution for reading in near) > len(near)
