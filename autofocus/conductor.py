"""One run, z-stack or calibration at a time, on the one thread that may talk to the hardware.

Everything that moves goes through here: the service and the command line hand in what is wanted
and get a future or a `LiveRun` back at once. Nothing here waits for the hardware.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import partial
from typing import Literal, TypeVar

from autofocus.calibrating import CalibrationRequest, calibrate, plan_calibration
from autofocus.calibration import CalibrationRecord, focus_curve
from autofocus.calibration_plot import calibration_png
from autofocus.calibration_store import Calibrations
from autofocus.config import Rig
from autofocus.errors import BusyError, StorageError
from autofocus.focus import CurvePoint, run_focus
from autofocus.planning import FocusPlan, FocusRequest, plan
from autofocus.runs import RunFolder, RunRecord, RunStore, new_run_id
from autofocus.scorers import HeadChoice, LoadScorer, choose_head
from autofocus.search.protocol import FocusCurve, Reading
from autofocus.stack_store import StackRecord, StackStore
from autofocus.stacks import StackPlan, StackRequest, acquire_stack, plan_stack
from autofocus.warm_start import place_of, warmed
from devices import (
    AcquisitionSettings,
    Frame,
    Halted,
    HardwareThread,
    Microscope,
    MicroscopeState,
)
from models.scorer import Scorer

T = TypeVar("T")


@dataclass(frozen=True)
class LiveRun:
    """A run that has the microscope, or had it.

    Attributes
    ----------
    opening : RunRecord
        The run as it began.
    readings : list of CurvePoint
        Grows by one per exposure; only the hardware thread appends.
    abort : threading.Event
        Set to end the run before its next move.
    done : Future of RunRecord
        The run when it is over; raises what went wrong with the hardware.
    """

    opening: RunRecord
    readings: list[CurvePoint] = field(default_factory=list)
    abort: threading.Event = field(default_factory=threading.Event)
    done: Future[RunRecord] = field(default_factory=Future)

    @property
    def run_id(self) -> str:
        """Name of the run."""
        return self.opening.run_id

    def record(self) -> RunRecord:
        """The run with the readings so far."""
        return replace(self.opening, readings=tuple(self.readings))


@dataclass(frozen=True)
class LiveStack:
    """A z-stack that has the microscope, or had it.

    Attributes
    ----------
    opening : StackRecord
        The stack as it began.
    frames : list of Frame
        Grows by one per plane; only the hardware thread appends.
    abort : threading.Event
        Set to end it before its next move.
    done : Future of StackRecord
        The stack when it is complete; raises what ended it before.
    """

    opening: StackRecord
    frames: list[Frame] = field(default_factory=list)
    abort: threading.Event = field(default_factory=threading.Event)
    done: Future[StackRecord] = field(default_factory=Future)

    @property
    def stack_id(self) -> str:
        """Name of the stack."""
        return self.opening.stack_id

    def record(self) -> StackRecord:
        """The stack with the planes so far."""
        return self.opening.with_frames(tuple(self.frames))


@dataclass(frozen=True)
class LiveCalibration:
    """A calibration that has the microscope, or had it.

    Attributes
    ----------
    calibration_id : str
        Sortable by start time.
    request : CalibrationRequest
        What was asked for.
    readings : list of Reading
        Grows by one per scored frame; only the hardware thread appends.
    abort : threading.Event
        Set to end it before its next move.
    done : Future of CalibrationRecord
        The calibration when it is kept; raises what ended it before.
    """

    calibration_id: str
    request: CalibrationRequest
    readings: list[Reading] = field(default_factory=list)
    abort: threading.Event = field(default_factory=threading.Event)
    done: Future[CalibrationRecord] = field(default_factory=Future)


Live = LiveRun | LiveStack | LiveCalibration


@dataclass(frozen=True)
class Stop:
    """What became of a request to stop.

    Attributes
    ----------
    state : {"stopped", "pending", "finished"}
        ``stopped``: the stage stands. ``pending``: it will as soon as its adapter is free; no
        further move is sent meanwhile. ``finished``: the run had ended before.
    run_id : str or None
        The run that was aborted, if one had the microscope.
    """

    state: Literal["stopped", "pending", "finished"]
    run_id: str | None


class Conductor:
    """Gives the microscope to one run, z-stack, calibration or command at a time.

    Parameters
    ----------
    rig : Rig
        What the microscope is and may do.
    microscope : Microscope
        Open; closed by `close`.
    load_scorer : callable of (scorer, head) -> Scorer
        Names as a request has them; None for the default.
    runs : RunStore
        Where runs are kept; z-stacks and calibrations are kept where the rig says.
    """

    def __init__(
        self, rig: Rig, microscope: Microscope, load_scorer: LoadScorer, runs: RunStore
    ) -> None:
        self.rig = rig
        self.microscope = microscope
        self.load_scorer = load_scorer
        self.runs = runs
        self.stacks = StackStore(rig.stacks_dir)
        self.calibrations = Calibrations(rig.calibrations_dir)
        self._hardware = HardwareThread()
        self._lock = threading.Lock()
        self._live: Live | None = None
        self._calibration: LiveCalibration | None = None
        self._stops = 0
        self._commanded = False

    @property
    def live(self) -> LiveRun | None:
        """The run that has the microscope."""
        live = self._live
        return live if isinstance(live, LiveRun) else None

    @property
    def running(self) -> str | None:
        """Id of the run that has the microscope."""
        live = self.live
        return live.run_id if live else None

    @property
    def live_stack(self) -> LiveStack | None:
        """The z-stack that has the microscope."""
        live = self._live
        return live if isinstance(live, LiveStack) else None

    @property
    def calibration(self) -> LiveCalibration | None:
        """The last calibration that was begun: it has the microscope until it is done."""
        return self._calibration

    @property
    def occupied(self) -> bool:
        """Whether a run, a z-stack or a calibration has the microscope."""
        return self._live is not None

    @property
    def busy(self) -> bool:
        """Whether anything has the microscope, a single move or frame included."""
        return self.occupied or self._commanded

    def start(self, request: FocusRequest) -> LiveRun:
        """Begin a run and return while it goes on.

        Raises
        ------
        BusyError
            When another run has the microscope.
        RequestError, ModelError, StorageError
            When the rig or the scorer must refuse, or nothing can be written; nothing has moved.
        Halted
            When a stop came before the run had the microscope, e.g. while its scorer was loaded.
        """
        stops = self._stops
        self.refuse_if_busy()
        # Refused before a scorer is loaded, if it must be.
        plan(self.rig, request, state=self.microscope.state, absolute=True)
        head = self._head_for(request, self.microscope.state)
        scorer = self.load_scorer(request.scorer, head.name)
        run = LiveRun(self._opening(request, scorer))
        self._claim(run, stops)
        with self._released_on_failure():
            folder = self.runs.begin(run.opening)
            focus = partial(self._focus, run, scorer, head, folder)
            self._hardware.submit(lambda: self._conduct(run.done, focus))
        return run

    def start_stack(self, request: StackRequest) -> LiveStack:
        """Begin to take a z-stack and return while it goes on.

        Raises
        ------
        BusyError
            When something else has the microscope.
        RequestError, StorageError
            When the rig must refuse, or nothing can be written; nothing has moved.
        """
        stops = self._stops
        self.refuse_if_busy()
        planned = plan_stack(self.rig, request, state=self.microscope.state)
        stack = LiveStack(self._opening_of_stack(request, planned))
        self._claim(stack, stops)
        with self._released_on_failure():
            self.stacks.begin(stack.opening)
            take = partial(self._take_stack, stack, request)
            self._hardware.submit(lambda: self._conduct(stack.done, take))
        return stack

    def start_calibration(self, request: CalibrationRequest) -> LiveCalibration:
        """Begin to calibrate and return while it goes on.

        Raises
        ------
        BusyError
            When something else has the microscope.
        RequestError, ModelError, StorageError
            When the rig or the scorer must refuse, or nothing can be written; nothing has moved.
        Halted
            When a stop came before it had the microscope.
        """
        stops = self._stops
        self.refuse_if_busy()
        plan_calibration(self.rig, request, state=self.microscope.state)
        self.scorer_for(request)
        self.calibrations.make_folder()
        live = LiveCalibration(new_run_id(datetime.now(timezone.utc)), request)
        self._claim(live, stops)
        with self._released_on_failure():
            self._hardware.submit(lambda: self._conduct(live.done, partial(self._calibrate, live)))
        self._calibration = live
        return live

    def scorer_for(self, request: FocusRequest | CalibrationRequest) -> Scorer:
        """Who scores the frames of a request.

        Where it names no head, the rig file may have one for the objective and channel.

        Raises
        ------
        ModelError
            When there is no such scorer or head, or its files are not what they should be.
        """
        return self._scorer_in(request, self.microscope.state)

    def _scorer_in(
        self, request: FocusRequest | CalibrationRequest, state: MicroscopeState
    ) -> Scorer:
        return self.load_scorer(request.scorer, self._head_for(request, state).name)

    def plan(self, request: FocusRequest, state: MicroscopeState) -> FocusPlan:
        """What a run would do in this state, warm starts included; moves nothing.

        Raises
        ------
        RequestError, ModelError
            When the rig or the scorer must refuse.
        """
        request, told = self.warmed(request, state)
        absolute = self._scorer_in(request, state).absolute
        planned = plan(self.rig, request, state=state, absolute=absolute)
        return replace(planned, notes=(*told, *planned.notes))

    def _head_for(
        self, request: FocusRequest | CalibrationRequest, state: MicroscopeState
    ) -> HeadChoice:
        wanted = request.stack.camera if isinstance(request, CalibrationRequest) else request
        channel = wanted.channel or state.channel
        return choose_head(
            self.rig, request.scorer, request.head, objective=state.objective, channel=channel
        )

    def warmed(
        self, request: FocusRequest, state: MicroscopeState
    ) -> tuple[FocusRequest, tuple[str, ...]]:
        """The request with what earlier runs tell, if it wants to know, and a note of it."""
        if not request.warm_start:
            return request, ()
        now = datetime.now(timezone.utc)
        request, told = warmed(request, self.runs, self.rig, state=state, now=now)
        return request, (told,)

    def move_to(self, z_um: float) -> Future[float]:
        """Move the stage; the future holds z as read back, um.

        Raises
        ------
        BusyError
            When a run has the microscope.
        """
        return self._command(lambda: self.microscope.move_to(z_um))

    def snap(self, settings: AcquisitionSettings) -> Future[Frame]:
        """Take one frame, with the camera set for it and restored afterwards.

        Raises
        ------
        BusyError
            When a run has the microscope.
        """
        return self._command(lambda: self._snap(settings))

    def refuse_if_busy(self) -> None:
        """Raise `BusyError` if a run, a z-stack or a calibration has the microscope."""
        live = self._live
        if isinstance(live, LiveCalibration):
            raise BusyError(calibration_id=live.calibration_id)
        if isinstance(live, LiveStack):
            raise BusyError(stack_id=live.stack_id)
        if live:
            raise BusyError(live.run_id)

    def stop(self) -> Stop:
        """Forbid every further move, abort what has the microscope, halt the stage."""
        with self._lock:
            self._stops += 1
            live = self._live
            if live:
                live.abort.set()
        return Stop(self.microscope.halt(), live.run_id if isinstance(live, LiveRun) else None)

    def abort(self, run_id: str) -> Stop:
        """Stop, if this run has the microscope; a run that is over stays as it is.

        Raises
        ------
        RunNotFound
            When no run has this id.
        """
        if self.running == run_id:
            return self.stop()
        self.runs.path(run_id)
        return Stop("finished", run_id)

    def record(self, run_id: str) -> RunRecord:
        """One run, live or over.

        Raises
        ------
        RunNotFound
            When no run has this id.
        """
        live = self.live
        return live.record() if live and live.run_id == run_id else self.runs.read(run_id)

    def stack(self, stack_id: str) -> StackRecord:
        """One z-stack, live or over.

        Raises
        ------
        StackNotFound
            When no stack has this id.
        """
        live = self.live_stack
        return live.record() if live and live.stack_id == stack_id else self.stacks.read(stack_id)

    def close(self) -> None:
        """Stop what runs or moves, wait until everything is put back, let go of the hardware."""
        with self._lock:
            self._stops += 1  # what waits for its turn is not begun
            live = self._live
            # Stopped once more, a run would not be put back.
            stopping = live.abort.is_set() if live else self.microscope.halted
            busy = self.busy
        if busy and not stopping:
            self.stop()
        self._hardware.close()
        self.microscope.close()

    def _opening(self, request: FocusRequest, scorer: Scorer) -> RunRecord:
        now = datetime.now(timezone.utc)
        return RunRecord(new_run_id(now), now, self.rig.name, scorer.name, scorer.head, request)

    def _opening_of_stack(self, request: StackRequest, planned: StackPlan) -> StackRecord:
        now, state = datetime.now(timezone.utc), self.microscope.state
        return StackRecord(
            stack_id=new_run_id(now),
            started_at=now,
            rig=self.rig.name,
            objective=state.objective,
            channel=request.camera.channel or state.channel,
            dof_um=planned.dof_um,
            pixel_size_um=planned.pixel_size_um,
            sampling=planned.sampling,
            planes=len(planned.z_um),
        )

    def _refuse_if_stopped(self, stops: int) -> None:
        if stops != self._stops:
            raise Halted("stopped before this command was begun; send it again if it is wanted")

    def _claim(self, live: Live, stops: int) -> None:
        live.done.set_running_or_notify_cancel()  # a client that hangs up must not cancel it
        with self._lock:
            self.refuse_if_busy()
            self._refuse_if_stopped(stops)
            self._live = live

    @contextmanager
    def _released_on_failure(self) -> Iterator[None]:
        """Whatever fails before the hardware thread has it: nobody else would let go of it."""
        try:
            yield
        except BaseException:
            if self._live:
                self._live.abort.set()
            self._live = None
            raise

    def _conduct(self, done: Future[T], work: Callable[[], T]) -> None:
        try:
            record = work()
        except BaseException as error:
            self._live = None
            done.set_exception(error)
            return
        # Released before it is announced: who waited for this may start the next at once.
        self._live = None
        done.set_result(record)

    def _focus(
        self, run: LiveRun, scorer: Scorer, head: HeadChoice, folder: RunFolder
    ) -> RunRecord:
        def on_reading(point: CurvePoint) -> None:
            run.readings.append(point)
            folder.add(point)

        try:
            # Read anew: XY stage and turret may have been moved by hand since.
            state = self.microscope.refresh()
            if head != (now := self._head_for(run.opening.request, state)):
                head, scorer = now, self.load_scorer(run.opening.request.scorer, now.name)
            request, told = self.warmed(run.opening.request, state)
            result = run_focus(
                self.rig,
                self.microscope,
                scorer,
                request,
                run_id=run.run_id,
                calibrated=self._curve_for(request, state, scorer),
                on_reading=on_reading,
                abort=run.abort,
                on_frame=folder.add_frame if run.opening.request.save_frames else None,
            )
        except Exception as error:
            with suppress(StorageError):  # what failed first is what must be told
                folder.fail(f"{type(error).__name__}: {error}")
            raise
        if scorer.head and head.why:
            told = (head.why, *told)
        result = replace(result, notes=(*told, *result.notes))
        try:
            return folder.finish(result, place_of(request, state))
        except StorageError as error:
            raise StorageError(
                f"{error}; the run ended as {result.verdict.value}, the stage is at "
                f"{result.final_z_um:.2f} um"
            ) from error

    def _curve_for(
        self, request: FocusRequest, state: MicroscopeState, scorer: Scorer
    ) -> FocusCurve | None:
        """The focus curve of this objective, channel and scorer, once it has been calibrated."""
        record = self.calibrations.find(
            state.objective,
            request.channel or state.channel,
            scorer.name,
            scorer.head,
            binning=request.binning or state.binning,
        )
        return focus_curve(record) if record else None

    def _take_stack(self, stack: LiveStack, request: StackRequest) -> StackRecord:
        try:
            frames = acquire_stack(
                self.rig,
                self.microscope,
                request,
                abort=stack.abort,
                on_frame=stack.frames.append,
            )
            return self.stacks.finish(stack.opening, frames)
        except Exception as error:
            with suppress(StorageError):  # as above
                self.stacks.fail(stack.record(), f"{type(error).__name__}: {error}")
            raise

    def _calibrate(self, live: LiveCalibration) -> CalibrationRecord:
        # Read anew: the turret may have been moved by hand since.
        self.microscope.refresh()
        scorer = self.scorer_for(live.request)
        record = calibrate(
            self.rig,
            self.microscope,
            scorer,
            live.request,
            calibration_id=live.calibration_id,
            abort=live.abort,
            on_reading=live.readings.append,
        )
        self.calibrations.add(record, calibration_png(record))
        return record

    def _snap(self, settings: AcquisitionSettings) -> Frame:
        with self.microscope.acquisition(settings):
            return self.microscope.snap()

    def _command(self, action: Callable[[], T]) -> Future[T]:
        with self._lock:
            self.refuse_if_busy()
            stops = self._stops
            return self._hardware.submit(lambda: self._unless_stopped(action, stops))

    def _unless_stopped(self, action: Callable[[], T], stops: int) -> T:
        with self._lock:
            self._refuse_if_stopped(stops)
            self.microscope.resume()
            self._commanded = True
        try:
            return action()
        finally:
            self._commanded = False
