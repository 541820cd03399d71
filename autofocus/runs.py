"""A folder per run: what was asked, every reading as it came, and how it ended.

``report.json`` says ``running`` from the moment a run begins and is replaced, in one step, when
it ends; ``curve.csv`` grows by a line per exposure. So a run whose process died is still there,
with its readings, and is shown as interrupted.
"""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path

import tifffile
from pydantic import TypeAdapter

from autofocus import __version__
from autofocus.errors import RunNotFound
from autofocus.focus import CurvePoint, FocusResult
from autofocus.folders import is_timed, read_whole, storing, timed_names, write_whole
from autofocus.planning import FocusRequest
from devices import Frame

REPORT = "report.json"
CURVE = "curve.csv"
FRAMES = "frames"
_SETTING = "runs_dir"
_CURVE_FIELDS = ("z_um", "score", "t_s", "referee", "purpose")


class RunStatus(str, Enum):
    """Where a run is in its life; says nothing of whether it locked."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Place:
    """Where on the specimen a run was, and through what.

    Attributes
    ----------
    xy_um : tuple of float or None
        Position of the XY stage; None without one.
    objective, channel : str or None
        Labels; None without a turret or a channel group.
    """

    xy_um: tuple[float, float] | None
    objective: str | None
    channel: str | None


@dataclass(frozen=True)
class RunRecord:
    """All that is known of one run.

    Attributes
    ----------
    run_id : str
        Sortable by start time; also the name of the folder.
    started_at : datetime
        UTC.
    rig, scorer : str
        Names of the rig and of the scorer used.
    head : str or None
        Name and short hash of the fitted head, if the scorer has one.
    request : FocusRequest
        What was asked for.
    status : RunStatus
        INTERRUPTED when the process ended before the run did.
    readings : tuple of CurvePoint
        Exposures so far; equal to ``result.curve`` once there is a result.
    result : FocusResult or None
        The answer of a DONE run.
    error : str or None
        The fault of a FAILED run.
    version : str
        Version of this package that made the run.
    place : Place or None
        Where a DONE run was; None in records of before 2026-11.
    """

    run_id: str
    started_at: datetime
    rig: str
    scorer: str
    head: str | None
    request: FocusRequest
    status: RunStatus = RunStatus.RUNNING
    readings: tuple[CurvePoint, ...] = ()
    result: FocusResult | None = None
    error: str | None = None
    version: str = __version__
    place: Place | None = None


_RECORD = TypeAdapter(RunRecord)
_POINT = TypeAdapter(CurvePoint)


def new_run_id(started_at: datetime) -> str:
    """Name of a run that starts now: its UTC time to the microsecond."""
    return f"{started_at.astimezone(timezone.utc):%Y%m%d-%H%M%S-%f}"


class RunFolder:
    """The folder of one run while it is being written."""

    def __init__(self, folder: Path, record: RunRecord) -> None:
        self.folder = folder
        self._record = record

    def add(self, point: CurvePoint) -> None:
        """Append one reading to ``curve.csv``."""
        with (
            storing(self.folder, setting=_SETTING),
            (self.folder / CURVE).open("a", encoding="utf-8", newline="") as file,
        ):
            csv.writer(file).writerow(_curve_row(point))

    def add_frame(self, index: int, frame: Frame) -> None:
        """Save frame ``index`` of the run as ``frames/NNN_z<um>.tif``, raw counts."""
        settings = {"z_um": frame.z_um, "exposure_ms": frame.exposure_ms, "binning": frame.binning}
        frames = self.folder / FRAMES
        name = f"{index:03d}_z{frame.z_um:+.3f}.tif"
        with storing(frames, setting=_SETTING):
            frames.mkdir(exist_ok=True)
            tifffile.imwrite(frames / name, frame.image, description=json.dumps(settings))

    def finish(self, result: FocusResult, place: Place | None = None) -> RunRecord:
        """Write the answer of the run, and where it was."""
        done = replace(self._record, status=RunStatus.DONE, result=result, place=place)
        return self._close(done)

    def fail(self, error: str) -> RunRecord:
        """Write the fault that ended the run."""
        return self._close(replace(self._record, status=RunStatus.FAILED, error=error))

    def _close(self, record: RunRecord) -> RunRecord:
        _write_report(self.folder, record)
        return replace(record, readings=_read_curve(self.folder))


class RunStore:
    """Every run under one folder, newest first.

    Parameters
    ----------
    folder : Path
        Created when the first run begins.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(self, record: RunRecord) -> RunFolder:
        """Make the folder of a run that starts now.

        Raises
        ------
        StorageError
            When it cannot be written.
        """
        folder = self.folder / record.run_id
        with storing(folder, setting=_SETTING):
            folder.mkdir(parents=True)
            (folder / CURVE).write_bytes((",".join(_CURVE_FIELDS) + "\r\n").encode())
        _write_report(folder, record)
        return RunFolder(folder, record)

    def ids(self) -> tuple[str, ...]:
        """Names of all runs, newest first."""
        return timed_names(self.folder, REPORT)

    def read(self, run_id: str) -> RunRecord:
        """Return one run that is over.

        A report that still says ``running`` belongs to a process that is gone: it is returned as
        INTERRUPTED. Whoever drives a live run must not ask for it here.

        Raises
        ------
        RunNotFound
            When no folder of that name exists.
        StorageError
            When its report is not what was written.
        """
        folder = self.path(run_id)
        record = read_whole(folder / REPORT, _RECORD)
        if record.status is RunStatus.RUNNING:
            record = replace(record, status=RunStatus.INTERRUPTED)
        readings = record.result.curve if record.result else _read_curve(folder)
        return replace(record, readings=readings)

    def path(self, run_id: str) -> Path:
        """Folder of one run.

        Raises
        ------
        RunNotFound
            When no folder of that name exists.
        """
        folder = self.folder / run_id
        if not is_timed(run_id) or not (folder / REPORT).is_file():
            raise RunNotFound(f"no run {run_id!r}; GET /runs lists them")
        return folder


def record_json(record: RunRecord) -> bytes:
    """A run as the JSON of ``report.json``; the readings are in ``curve.csv`` or the result."""
    return _RECORD.dump_json(record, indent=2, exclude={"readings"})


def curve_csv(points: tuple[CurvePoint, ...]) -> str:
    """A focus curve as comma-separated text with a header."""
    rows = [",".join(_CURVE_FIELDS), *(",".join(map(str, _curve_row(p))) for p in points)]
    return "\r\n".join(rows) + "\r\n"


def _write_report(folder: Path, record: RunRecord) -> None:
    with storing(folder, setting=_SETTING):
        write_whole(folder / REPORT, record_json(record))


def _curve_row(point: CurvePoint) -> list[str]:
    values = asdict(point)
    return ["" if values[name] is None else _text(values[name]) for name in _CURVE_FIELDS]


def _text(value: object) -> str:
    return str(value.value) if isinstance(value, Enum) else str(value)


def _read_curve(folder: Path) -> tuple[CurvePoint, ...]:
    with (folder / CURVE).open(encoding="utf-8", newline="") as file:
        # A process killed in mid-write leaves half a line; it was never a reading.
        rows = [row for row in csv.DictReader(file) if None not in row.values()]
    return tuple(_POINT.validate_python({k: v or None for k, v in row.items()}) for row in rows)
