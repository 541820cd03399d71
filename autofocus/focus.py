"""One live run: a search drives a microscope and a scorer, inside limits and budgets."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol

from autofocus.budget import Spent, refusal
from autofocus.config import Rig
from autofocus.findings import findings
from autofocus.optics import Optics
from autofocus.planning import FocusRequest, search_settings, strategy_of
from autofocus.readings import reading_of
from autofocus.search.protocol import (
    FocusCurve,
    Pass,
    Purpose,
    Reading,
    Search,
    SearchResult,
    SearchSettings,
    Verdict,
)
from devices import Acquisition, AcquisitionSettings, Frame, Halted, Microscope, Sweep
from models.scorer import Scorer


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
    """Where the time of a run went.

    Attributes
    ----------
    stage, camera, scoring, total : float
        In moves, exposures, scoring, and all.
    saved : float
        Of the scoring, what went on while the stage moved and the camera exposed.
    swept : float
        In sweeps, where stage and camera went on together; neither of them counts it.
    """

    stage: float
    camera: float
    scoring: float
    total: float
    saved: float = 0.0
    swept: float = 0.0


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
    calibrated: FocusCurve | None = None,
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
    calibrated : FocusCurve, optional
        The focus curve of this rig with this objective, channel and scorer; read by the strategies
        that predict.
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
    strategy = strategy_of(request)
    state = microscope.refresh()
    settings, notes = search_settings(rig, request, state=state, absolute=scorer.absolute)
    settings = replace(settings, calibrated=calibrated)
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
        outcome = driver.drive(strategy.search(settings), acquisition)
        if outcome.locked or request.on_failure == "stay":
            acquisition.keep_z()
    if acquisition.z_kept and acquisition.was_held:
        notes = (*notes, _LEFT_OFF)
    final_z_um = microscope.z_um()
    return driver.result(run_id, settings, outcome, final_z_um=final_z_um, notes=notes)


_LEFT_OFF = (
    "the hardware autofocus that held the stage before is left off: it would pull the stage to its "
    "own offset. Switch it on again to hold the stage here"
)


class _Stop(Exception):  # noqa: N818 - ends a run with a verdict, is not an error
    """The driver, not the search, ended the run."""

    def __init__(self, verdict: Verdict, reason: str) -> None:
        super().__init__(reason)
        self.verdict = verdict
        self.reason = reason


_Waiting = tuple[Frame, "Future[Reading]"]


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
        self._stage_s = self._camera_s = self._swept_s = self._scoring_s = self._waited_s = 0.0
        # One frame is scored while the stage goes on; a second thread would only share its cores.
        self._scoring = ThreadPoolExecutor(1, thread_name_prefix="scoring")
        self._spent = Spent()
        self._readings: list[Reading] = []
        self._curve: list[CurvePoint] = []
        self._notes: list[str] = []

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
            self._scoring.shutdown()

    def _converse(self, search: Search, acquisition: Acquisition) -> SearchResult:
        try:
            step = next(search)
            while True:
                take = self._sweep if step.swept else self._visit
                readings = take(step, acquisition)
                acquisition.verify_unchanged()
                step = search.send(readings)
        except StopIteration as finished:
            result: SearchResult = finished.value
            return result

    def _sweep(self, step: Pass, acquisition: Acquisition) -> tuple[Reading, ...]:
        """Take a pass as one burst; one by one where that cannot be done, or went wrong."""
        self._check_abort()
        obstacle = acquisition.why_no_sweep(step.z_um)
        if obstacle is None:
            self._check_budget(frames=len(step.z_um))
            sweep = self._burst(step, acquisition)
            self._check_abort()
            obstacle = sweep.fault
        if obstacle is not None:
            self._notes.append(f"not swept but visited one by one: {obstacle}")
            return self._visit(step, acquisition)
        scored = [(frame, self._scoring.submit(self._score, frame)) for frame in sweep.frames]
        return tuple(self._keep(waiting, step) for waiting in scored)

    def _burst(self, step: Pass, acquisition: Acquisition) -> Sweep:
        began_s = time.monotonic()
        try:
            sweep = acquisition.sweep(step.z_um, interrupted=self._abort.is_set)
        except Halted as halted:
            raise _Stop(Verdict.ABORTED, f"stopped before a sweep: {halted}") from halted
        self._swept_s += time.monotonic() - began_s
        self._spent = self._spent.after(sweep.exposure_ms, exposures=sweep.exposed)
        return sweep

    def _visit(self, step: Pass, acquisition: Acquisition) -> tuple[Reading, ...]:
        """Visit a pass; while a frame is scored the stage goes on to the next position."""
        readings: list[Reading] = []
        waiting: _Waiting | None = None
        try:
            for z_um in step.z_um:
                frame = self._expose(z_um, acquisition)
                if waiting is not None:
                    before, waiting = waiting, None
                    readings.append(self._keep(before, step))
                waiting = frame, self._scoring.submit(self._score, frame)
        finally:
            # Also when the run was stopped: what was exposed is reported.
            if waiting is not None:
                readings.append(self._keep(waiting, step))
        return tuple(readings)

    def _expose(self, z_um: float, acquisition: Acquisition) -> Frame:
        self._check_abort()
        self._check_budget()
        # Every time: the next position may be too near for an objective swung in meanwhile.
        acquisition.verify_unchanged()
        self._move(z_um)
        self._check_abort()
        frame = self._snap()
        # Checked again: a frame exposed while somebody pressed stop is not worth scoring.
        self._check_abort()
        return frame

    def _check_abort(self) -> None:
        if self._abort.is_set() or self._microscope.halted:
            raise _Stop(Verdict.ABORTED, f"aborted after {self._spent.exposures} exposures")

    @property
    def _exposure_ms(self) -> float:
        return self._request.exposure_ms or self._microscope.state.exposure_ms

    def _check_budget(self, frames: int = 1) -> None:
        reason = refusal(
            self._request,
            self._spent,
            next_ms=self._exposure_ms,
            frames=frames,
            elapsed_s=time.monotonic() - self._began_s,
        )
        if reason is not None:
            raise _Stop(Verdict.BUDGET, reason)

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
        self._spent = self._spent.after(frame.exposure_ms)
        return frame

    def _score(self, frame: Frame) -> Reading:
        """In the scoring thread; one frame at a time."""
        began_s = time.monotonic()
        reading = reading_of(frame, self._scorer, self._optics)
        self._scoring_s += time.monotonic() - began_s
        return reading

    def _keep(self, waiting: _Waiting, step: Pass) -> Reading:
        began_s = time.monotonic()
        frame, scored = waiting
        reading = scored.result()
        self._waited_s += time.monotonic() - began_s
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
        notes = (*notes, *self._notes)
        found = findings(self._readings, settings, outcome, referee=referee, notes=notes)
        outcome = found.outcome
        return FocusResult(
            run_id=run_id,
            locked=outcome.locked,
            verdict=outcome.verdict,
            reason=outcome.reason,
            z_um=outcome.z_um,
            z_uncertainty_um=outcome.z_uncertainty_um,
            score=outcome.score,
            confidence=outcome.confidence,
            exposures=self._spent.exposures,
            dose_ms=self._spent.dose_ms,
            start_z_um=settings.start_z_um,
            final_z_um=final_z_um,
            start_score=outcome.start_score,
            final_score=outcome.final_score,
            scorer=self._scorer.name,
            head=self._scorer.head,
            out_of_distribution=found.out_of_distribution,
            referee=referee,
            referee_z_um=found.referee_z_um,
            referee_agrees=found.referee_agrees,
            dof_um=settings.dof_um,
            notes=found.notes,
            curve=tuple(self._curve),
            seconds=Seconds(
                self._stage_s,
                self._camera_s,
                self._scoring_s,
                total_s,
                saved=max(0.0, self._scoring_s - self._waited_s),
                swept=self._swept_s,
            ),
        )
