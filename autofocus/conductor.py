"""One run at a time, on the one thread that may talk to the hardware.

Everything that moves goes through here: the service and the command line hand in what is wanted
and get a future or a `LiveRun` back at once. Nothing here waits for the hardware.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Literal, TypeVar

from autofocus.config import Rig
from autofocus.errors import BusyError, StorageError
from autofocus.focus import CurvePoint, FocusRequest, plan, run_focus
from autofocus.runs import RunFolder, RunRecord, RunStore, new_run_id
from autofocus.scorers import LoadScorer
from devices import AcquisitionSettings, Frame, Halted, HardwareThread, Microscope
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
    """Gives the microscope to one run or one command at a time.

    Parameters
    ----------
    rig : Rig
        What the microscope is and may do.
    microscope : Microscope
        Open; closed by `close`.
    load_scorer : callable of (scorer, head) -> Scorer
        Names as a request has them; None for the default.
    runs : RunStore
        Where runs are kept.
    """

    def __init__(
        self, rig: Rig, microscope: Microscope, load_scorer: LoadScorer, runs: RunStore
    ) -> None:
        self.rig = rig
        self.microscope = microscope
        self.load_scorer = load_scorer
        self.runs = runs
        self._hardware = HardwareThread()
        self._lock = threading.Lock()
        self._live: LiveRun | None = None
        self._stops = 0

    @property
    def live(self) -> LiveRun | None:
        """The run that has the microscope."""
        return self._live

    @property
    def running(self) -> str | None:
        """Id of the run that has the microscope."""
        live = self._live
        return live.run_id if live else None

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
        self._refuse_if_busy()
        plan(self.rig, request, state=self.microscope.state)
        scorer = self.scorer_for(request)
        run = LiveRun(self._opening(request, scorer))
        folder = self._claim(run, stops)
        self._hardware.submit(lambda: self._conduct(run, scorer, folder))
        return run

    def scorer_for(self, request: FocusRequest) -> Scorer:
        """Who scores the frames of a request.

        The head of the objective in the light path belongs to the rig's own scorer.

        Raises
        ------
        ConfigError
            When the rig file does not describe that objective.
        ModelError
            When there is no such scorer or head, or its files are not what they should be.
        """
        head = request.head
        if head is None and request.scorer in (None, self.rig.scorer):
            head = self.rig.objective_for(self.microscope.state.objective).head
        return self.load_scorer(request.scorer, head)

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

    def stop(self) -> Stop:
        """Forbid every further move, abort the run if there is one, halt the stage."""
        with self._lock:
            self._stops += 1
            live = self._live
            if live:
                live.abort.set()
        return Stop(self.microscope.halt(), live.run_id if live else None)

    def abort(self, run_id: str) -> Stop:
        """Stop, if this run has the microscope; a run that is over stays as it is.

        Raises
        ------
        RunNotFound
            When no run has this id.
        """
        live = self._live
        if live and live.run_id == run_id:
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
        live = self._live
        return live.record() if live and live.run_id == run_id else self.runs.read(run_id)

    def close(self) -> None:
        """Abort what runs, wait until it has put everything back, let go of the hardware."""
        if self._live:
            self.stop()
        self._hardware.close()
        self.microscope.close()

    def _opening(self, request: FocusRequest, scorer: Scorer) -> RunRecord:
        now = datetime.now(timezone.utc)
        return RunRecord(new_run_id(now), now, self.rig.name, scorer.name, scorer.head, request)

    def _refuse_if_busy(self) -> None:
        if live := self._live:
            raise BusyError(live.run_id)

    def _refuse_if_stopped(self, stops: int) -> None:
        if stops != self._stops:
            raise Halted("stopped before this command was begun; send it again if it is wanted")

    def _claim(self, run: LiveRun, stops: int) -> RunFolder:
        run.done.set_running_or_notify_cancel()  # a client that hangs up must not cancel it
        with self._lock:
            self._refuse_if_busy()
            self._refuse_if_stopped(stops)
            self._live = run
        try:
            return self.runs.begin(run.opening)
        except StorageError:
            self._live = None
            raise

    def _conduct(self, run: LiveRun, scorer: Scorer, folder: RunFolder) -> None:
        try:
            record = self._focus(run, scorer, folder)
        except BaseException as error:
            self._live = None
            run.done.set_exception(error)
            return
        # Released before it is announced: who waited for this run may start the next at once.
        self._live = None
        run.done.set_result(record)

    def _focus(self, run: LiveRun, scorer: Scorer, folder: RunFolder) -> RunRecord:
        def on_reading(point: CurvePoint) -> None:
            run.readings.append(point)
            folder.add(point)

        try:
            result = run_focus(
                self.rig,
                self.microscope,
                scorer,
                run.opening.request,
                run_id=run.run_id,
                on_reading=on_reading,
                abort=run.abort,
                on_frame=folder.add_frame if run.opening.request.save_frames else None,
            )
        except Exception as error:
            folder.fail(f"{type(error).__name__}: {error}")
            raise
        return folder.finish(result)

    def _snap(self, settings: AcquisitionSettings) -> Frame:
        with self.microscope.acquisition(settings):
            return self.microscope.snap()

    def _command(self, action: Callable[[], T]) -> Future[T]:
        with self._lock:
            self._refuse_if_busy()
            stops = self._stops
            return self._hardware.submit(lambda: self._unless_stopped(action, stops))

    def _unless_stopped(self, action: Callable[[], T], stops: int) -> T:
        with self._lock:
            self._refuse_if_stopped(stops)
            self.microscope.resume()
        return action()
