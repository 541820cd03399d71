"""What ``/calibration`` answers."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import ConfigDict

from autofocus.calibration import CalibrationRecord
from autofocus.conductor import LiveCalibration
from autofocus.runs import RunStatus
from autofocus.service.answers import Answer

_ID = "20261123-101502-118204"
_CALIBRATION = {
    "calibration_id": _ID,
    "status": "done",
    "started_at": "2026-11-23T10:15:02.118204Z",
    "rig": "Simulated fluorescence microscope",
    "objective": "20x/0.75",
    "channel": None,
    "scorer": "reiqa-compact",
    "head": "default@75b98f04",
    "binning": 1,
    "exposure_ms": 10.0,
    "dof_um": 1.376,
    "start_z_um": -11.3,
    "z_um": -14.29,
    "width_um": 4.46,
    "noise": 0.015,
    "backlash_um": 3.1,
    "backlash_sigma_um": 0.12,
    "drift_um_s": 0.004,
    "settle_ms": 0.0,
    "repeatability_um": 0.06,
    "stale_frames": 0,
    "frame_ms": 35.1,
    "exposures": 163,
    "dose_ms": 1630.0,
    "defocus_um": [-2.06, -1.38, -0.69, 0.0, 0.69, 1.38, 2.06],
    "score": [0.64, 0.75, 0.89, 0.94, 0.82, 0.68, 0.57],
    "estimated_dof": [1.8, 1.3, 0.6, 0.3, 0.9, 1.6, 2.2],
    "notes": ["the drive has 3.10 um of play, the rig file takes up 0: set backlash_um = 4.7"],
    "report": f"/calibration/{_ID}/report.png",
}


def _example(values: dict[str, Any]) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [values]})


class CalibrationOut(Answer):
    """What was measured with one objective, channel and scorer."""

    model_config = _example(_CALIBRATION)

    calibration_id: str
    status: Literal["done"] = "done"
    started_at: datetime
    rig: str
    objective: str | None = None
    channel: str | None = None
    scorer: str
    head: str | None = None
    binning: int
    exposure_ms: float
    dof_um: float
    """Depth of field, um."""
    start_z_um: float
    """Where the stage was, and is again, um."""
    z_um: float
    """In-focus plane that was found, um."""
    width_um: float
    """Full width of the focus curve at half its height, um."""
    noise: float
    """Standard deviation of one score about the curve."""
    backlash_um: float
    """Play of the drive, um."""
    backlash_sigma_um: float
    """One standard deviation of it, um."""
    drift_um_s: float
    """How fast the in-focus plane moved meanwhile, um/s."""
    settle_ms: float | None = None
    """Rest after a move that was enough, ms; null when frames still changed at the end."""
    repeatability_um: float
    """Standard deviation of the stage's arrival at one position, um."""
    stale_frames: int
    """Frames after a move that still show the place before it."""
    frame_ms: float
    """What a frame takes, from the command to the image, ms."""
    exposures: int
    dose_ms: float
    """Sum of all exposures, ms."""
    defocus_um: list[float]
    """z - in-focus plane of the focus curve, um, rising."""
    score: list[float]
    """Mean score there."""
    estimated_dof: list[float] | None = None
    """|defocus| in depths of field there, as the scorer estimates it."""
    notes: list[str]
    """What the rig file should say, and what to distrust."""
    report: str
    """The same as a picture."""

    @classmethod
    def of(cls, record: CalibrationRecord) -> CalibrationOut:
        """What the wire says of a calibration; all readings are in its file."""
        parts = (record, record.shape, record.play, record.settling, record.repeatability)
        known = {name: value for part in parts for name, value in vars(part).items()}
        known |= {
            "backlash_sigma_um": record.play.sigma_um,
            "repeatability_um": record.repeatability.repeatability_um,
            "report": f"/calibration/{record.calibration_id}/report.png",
        }
        return cls.model_validate({n: v for n, v in known.items() if n in cls.model_fields})


class CalibrationProgress(Answer):
    """A calibration that has not ended, or ended without a result."""

    model_config = _example(
        {"calibration_id": _ID, "status": "running", "exposures": 41, "error": None}
    )

    calibration_id: str
    status: RunStatus
    """`running`; `done`; `failed`: see `error`."""
    exposures: int
    """Frames scored so far."""
    error: str | None = None
    """Why there is no result."""

    @classmethod
    def of(cls, live: LiveCalibration) -> CalibrationProgress:
        """What is known of it now."""
        over = live.done.done()
        error = live.done.exception() if over else None
        ended = RunStatus.FAILED if error else RunStatus.DONE
        return cls(
            calibration_id=live.calibration_id,
            status=ended if over else RunStatus.RUNNING,
            exposures=len(live.readings),
            error=str(error) if error else None,
        )


class CalibrationList(Answer):
    """The calibrations that are kept, newest first; the newest that fits a run counts."""

    model_config = _example({"calibrations": [_CALIBRATION], "total": 1, "last": None})

    calibrations: list[CalibrationOut]
    total: int
    """How many are kept."""
    last: CalibrationProgress | None = None
    """The last one begun since the service was started."""
