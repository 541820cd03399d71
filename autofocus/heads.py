"""The heads of this instrument: fitted in the background, listed, put in use."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from autofocus.conductor import Conductor
from autofocus.config import Rig
from autofocus.errors import DataError, FittingBusy, HeadNotFound, StorageError
from autofocus.fitting import PICTURE, REPORT, FittingJob, job_line
from autofocus.runs import RunStatus
from autofocus.scorers import DEFAULT_SCORER, Scorers
from autofocus.stack_store import StackRecord
from models.errors import HeadError
from models.head import read_head_manifest

_LAYOUT = "compact"  # of DEFAULT_SCORER
_LEAST_STACKS = 2
_ENOUGH_S = 5.0


@dataclass(frozen=True)
class HeadRequest:
    """What to fit.

    Attributes
    ----------
    name : str or None
        Of the head; None takes the time.
    stack_ids : tuple of str or None
        Labelled stacks; None takes all of them.
    alpha : float or None
        Strength of the ridge; None chooses on left-out stacks.
    """

    name: str | None = None
    stack_ids: tuple[str, ...] | None = None
    alpha: float | None = None


@dataclass(frozen=True)
class Step:
    """How far a fit is: ``done`` of ``total`` stacks have their features."""

    what: Literal["features", "fitting"]
    done: int
    total: int


@dataclass(frozen=True)
class Fitting:
    """A fit that goes on, or went wrong.

    Attributes
    ----------
    name : str
        Of the head.
    stack_ids : tuple of str
        It is fitted on.
    steps : list of Step
        Grows; only the thread that watches appends.
    done : Future of None
        Raises what went wrong.
    """

    name: str
    stack_ids: tuple[str, ...]
    steps: list[Step] = field(default_factory=list)
    done: Future[None] = field(default_factory=Future)


@dataclass(frozen=True)
class HeadRecord:
    """All that is known of one head.

    Attributes
    ----------
    name : str
        Of the head.
    status : {"fitting", "ready", "failed"}
        A ready one can be put in use.
    active : bool
        Whether it is in use.
    title : str or None
        Name and short hash, as runs carry it.
    stack_ids : tuple of str
        It was fitted on.
    step : Step or None
        How far the fit is.
    report : mapping or None
        See `autofocus.training.lab_head.Report.to_dict`.
    error : str or None
        What is wrong with a failed one.
    """

    name: str
    status: Literal["fitting", "ready", "failed"]
    active: bool
    title: str | None = None
    stack_ids: tuple[str, ...] = ()
    step: Step | None = None
    report: dict[str, Any] | None = None
    error: str | None = None


class Heads:
    """Fits one head at a time, in a process that yields to focus runs.

    Parameters
    ----------
    rig : Rig
        Where models and stacks are.
    conductor : Conductor
        Asked whether the microscope is free, and for the stacks.
    scorers : Scorers
        What loads a head, and knows the one in use.
    """

    def __init__(self, rig: Rig, conductor: Conductor, scorers: Scorers) -> None:
        self._rig = rig
        self._conductor = conductor
        self._scorers = scorers
        self._lock = threading.Lock()
        self._fitting: Fitting | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def fitting(self) -> Fitting | None:
        """The fit that goes on."""
        fitting = self._fitting
        return fitting if fitting and not fitting.done.done() else None

    def fit(self, request: HeadRequest) -> Fitting:
        """Begin to fit a head and return while it goes on.

        Raises
        ------
        BusyError
            When a run or a z-stack has the microscope: its scoring must not be slowed.
        FittingBusy
            When another head is being fitted.
        DataError, StackNotFound
            When the name is taken, or there are too few stacks, or they do not belong together.
        StorageError
            When the models folder cannot be written.
        """
        self._conductor.refuse_if_busy()
        now = datetime.now(timezone.utc)
        name = request.name or f"{now:lab-%Y%m%d-%H%M%S}"
        stack_ids = self._chosen(request.stack_ids)
        with self._lock:
            if going_on := self.fitting:
                raise FittingBusy(
                    f"head {going_on.name} is being fitted; wait for it: GET /heads/{going_on.name}"
                )
            if name in self._names() or name == "active":
                raise DataError(f"there is a head {name!r} already; choose another name")
            job = self._job(name, stack_ids, request.alpha)
            self._process = self._start(job)
            self._fitting = Fitting(name, stack_ids)
            fitting, process = self._fitting, self._process
        fitting.done.set_running_or_notify_cancel()  # a client that hangs up must not cancel it
        watch = threading.Thread(
            target=self._watch, args=(fitting, process, job.out), name="fitting", daemon=True
        )
        watch.start()
        return fitting

    def list(self) -> tuple[HeadRecord, ...]:
        """Every head, the one that came with the program included, and the last fit."""
        names = sorted(self._names())
        last = self._fitting
        if last and last.name not in names:
            names.append(last.name)
        return tuple(self.show(name) for name in names)

    def show(self, name: str) -> HeadRecord:
        """One head, ready or being fitted.

        Raises
        ------
        HeadNotFound
            When there is none of this name.
        """
        if name in self._names():
            return self._ready(name)
        last = self._fitting
        if last is None or last.name != name:
            raise HeadNotFound(f"no head {name!r}; GET /heads lists them")
        failed = last.done.done()
        return HeadRecord(
            name=name,
            status="failed" if failed else "fitting",
            active=False,
            stack_ids=last.stack_ids,
            step=last.steps[-1] if last.steps else None,
            error=str(last.done.exception()) if failed else None,
        )

    def picture(self, name: str) -> bytes:
        """Curves of the left-out stacks, as PNG.

        Raises
        ------
        HeadNotFound
            When the head has none.
        """
        path = self._folder(name) / PICTURE if name in self._names() else None
        if path is None or not path.is_file():
            raise HeadNotFound(f"no head {name!r} with a picture of its report")
        return path.read_bytes()

    @property
    def default_scorer(self) -> str:
        """Name of the scorer of runs that ask for none."""
        return self._scorers.default

    @property
    def active(self) -> str:
        """Name of the head in use."""
        return self._scorers.active.name

    @property
    def previous(self) -> str:
        """Name of the head that was in use before."""
        return self._scorers.active.previous

    def activate(self, name: str) -> None:
        """Use a head from the next run on, also after a restart.

        Raises
        ------
        HeadError
            When there is no such head, or it does not belong to the encoders, or its files are not
            those of its manifest; the head in use stays.
        StorageError
            When the choice cannot be written.
        """
        with self._lock:
            self._scorers.registry.load_scorer(DEFAULT_SCORER, name)
            self._scorers.active.put(name)

    def close(self) -> None:
        """End the fit that goes on."""
        process = self._process
        if process and process.poll() is None:
            process.terminate()
        if self._fitting:
            wait([self._fitting.done], timeout=_ENOUGH_S)

    def _chosen(self, stack_ids: tuple[str, ...] | None) -> tuple[str, ...]:
        stacks = self._conductor.stacks
        if stack_ids is None:
            known = [stacks.read(stack_id) for stack_id in stacks.ids()]
            records = [each for each in known if each.status is RunStatus.DONE and each.label]
        else:
            records = [stacks.complete(stack_id) for stack_id in dict.fromkeys(stack_ids)]
        _require_fittable(records)
        return tuple(sorted(record.stack_id for record in records))

    def _names(self) -> set[str]:
        entries = self._scorers.registry.list()
        return {head for each in entries if each.name == DEFAULT_SCORER for head in each.heads}

    def _folder(self, name: str) -> Path:
        return self._scorers.registry.head_folder(DEFAULT_SCORER, name)

    def _ready(self, name: str) -> HeadRecord:
        folder, active = self._folder(name), name == self.active
        try:
            manifest = read_head_manifest(folder)
            report = _report(folder / REPORT)
        except HeadError as error:
            return HeadRecord(name, "failed", active, error=str(error))
        return HeadRecord(
            name=name,
            status="ready",
            active=active,
            title=manifest.title,
            stack_ids=tuple(manifest.report.get("stack_ids", ())),
            report=report,
        )

    def _job(self, name: str, stack_ids: tuple[str, ...], alpha: float | None) -> FittingJob:
        return FittingJob(
            name=name,
            stack_ids=stack_ids,
            stacks_dir=self._rig.stacks_dir.resolve(),
            models_dir=self._rig.models_dir.resolve(),
            # Not among the heads before it is complete.
            out=self._rig.models_dir.resolve() / _LAYOUT / "fitting" / name,
            alpha=alpha,
            before=self.active,
            engine=self._rig.engine,
        )

    def _start(self, job: FittingJob) -> subprocess.Popen[bytes]:
        try:
            shutil.rmtree(job.out, ignore_errors=True)
            job.out.mkdir(parents=True)
        except OSError as error:
            raise StorageError(
                f"cannot write {job.out}: {error}; free the disk, or set models_dir in the rig file"
            ) from error
        process = subprocess.Popen(
            [sys.executable, "-m", "autofocus.fitting"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **_ONE_THREAD},
            # Where this program is, not where it was started: that folder may be anybody's.
            cwd=Path(__file__).parents[1],
            # Only Windows has it; elsewhere the process lowers its own priority.
            creationflags=getattr(subprocess, "BELOW_NORMAL_PRIORITY_CLASS", 0),
        )
        assert process.stdin is not None
        process.stdin.write(job_line(job))
        process.stdin.flush()  # and left open: it ends the process when this one dies
        return process

    def _watch(self, fitting: Fitting, process: subprocess.Popen[bytes], made: Path) -> None:
        error = "the process that fits it was ended"
        try:
            with process:
                for line in process.stdout or ():
                    message = json.loads(line)
                    if "error" in message:
                        error = message["error"]
                    else:
                        fitting.steps.append(Step(**message))
            if process.returncode != 0:
                raise HeadError(f"head {fitting.name} was not fitted: {error}")
            heads = made.parents[1] / "heads"
            heads.mkdir(exist_ok=True)
            made.replace(heads / fitting.name)
        except Exception as problem:
            shutil.rmtree(made, ignore_errors=True)
            fitting.done.set_exception(problem)
            return
        fitting.done.set_result(None)


# Read by the libraries of linear algebra when they are loaded, thus before the process can say so.
_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)


def _require_fittable(records: Sequence[StackRecord]) -> None:
    unlabelled = [record.stack_id for record in records if record.label is None]
    if unlabelled:
        raise DataError(f"not labelled: {', '.join(unlabelled)}; PUT /stacks/{{id}}/label first")
    if len(records) < _LEAST_STACKS:
        raise DataError(
            f"{len(records)} labelled z-stacks; a head is judged on stacks it has not seen, so "
            f"take and label {_LEAST_STACKS} or more (some eight make a good head)"
        )
    depths = sorted({round(record.dof_um, 6) for record in records})
    if len(depths) > 1:
        raise DataError(
            f"the z-stacks have different depths of field ({depths} um), so they are of several "
            "objectives or binnings; name those of one"
        )


def _report(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HeadError(f"{path} cannot be read: {error}") from error
    return report
