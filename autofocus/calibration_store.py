"""A folder per calibration: ``calibration.json`` and ``report.png``; the newest that fits counts.

The picture is written first, so that a calibration that is found is complete.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import TypeAdapter

from autofocus.calibration import CalibrationRecord
from autofocus.errors import CalibrationNotFound
from autofocus.folders import is_timed, read_whole, storing, timed_names, write_whole

RECORD = "calibration.json"
REPORT = "report.png"
_SETTING = "calibrations_dir"
_RECORD = TypeAdapter(CalibrationRecord)


class Calibrations:
    """Every calibration under one folder, newest first.

    Parameters
    ----------
    folder : Path
        Created when it is needed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make_folder(self) -> None:
        """Make sure there is a folder, before a specimen is exposed for what goes there.

        Raises
        ------
        StorageError
            When there is none.
        """
        with storing(self.folder, setting=_SETTING):
            self.folder.mkdir(parents=True, exist_ok=True)

    def add(self, record: CalibrationRecord, picture: bytes) -> None:
        """Keep a calibration and its report, a PNG.

        Raises
        ------
        StorageError
            When it cannot be written.
        """
        folder = self.folder / record.calibration_id
        with storing(folder, setting=_SETTING):
            folder.mkdir(parents=True)
            write_whole(folder / REPORT, picture)
            write_whole(folder / RECORD, _RECORD.dump_json(record, indent=2))

    def find(
        self,
        objective: str | None,
        channel: str | None,
        scorer: str,
        head: str | None,
        *,
        binning: int | None = None,
    ) -> CalibrationRecord | None:
        """Return the newest calibration of this objective, channel, scorer and head, if any.

        Parameters
        ----------
        binning : int, optional
            Of the camera; None takes any.

        Raises
        ------
        StorageError
            When a calibration cannot be read.
        """
        wanted = (objective, channel, scorer, head)
        for record in self:
            its = (record.objective, record.channel, record.scorer, record.head)
            if its == wanted and binning in (None, record.binning):
                return record
        return None

    def __iter__(self) -> Iterator[CalibrationRecord]:
        return map(self.read, self.ids())

    def ids(self) -> tuple[str, ...]:
        """Names of all calibrations, newest first."""
        return timed_names(self.folder, RECORD)

    def read(self, calibration_id: str) -> CalibrationRecord:
        """Return one calibration.

        Raises
        ------
        CalibrationNotFound
            When there is none of this id.
        StorageError
            When its file is not what was written.
        """
        return read_whole(self._folder(calibration_id) / RECORD, _RECORD)

    def report(self, calibration_id: str) -> Path:
        """The picture of one calibration, a PNG.

        Raises
        ------
        CalibrationNotFound
            When there is none of this id.
        """
        return self._folder(calibration_id) / REPORT

    def _folder(self, calibration_id: str) -> Path:
        folder = self.folder / calibration_id
        if not is_timed(calibration_id) or not (folder / RECORD).is_file():
            raise CalibrationNotFound(
                f"no calibration {calibration_id!r}; GET /calibration lists them"
            )
        return folder
