"""What ``/stacks`` answers."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import ConfigDict

from autofocus.runs import RunStatus
from autofocus.service.answers import Answer
from autofocus.stack_store import StackRecord
from autofocus.training.labels import Judgement

_STACK_ID = "20261123-101502-118204"
_LABEL = {
    "z_um": 0.69,
    "by": "teacher",
    "reason": "9 of 9 teachers within 1.38 um",
    "agreement": 1.0,
}
_STACK = {
    "stack_id": _STACK_ID,
    "status": "done",
    "started_at": "2026-11-23T10:15:02.118204Z",
    "rig": "Micro-Manager demo",
    "path": f"/data/stacks/{_STACK_ID}/stack.ome.tif",
    "planes": 3,
    "z_um": [-0.69, 0.0, 0.69],
    "exposures": 3,
    "exposure_ms": 10.0,
    "dose_ms": 30.0,
    "objective": None,
    "channel": "DAPI",
    "binning": 1,
    "dof_um": 1.376,
    "pixel_size_um": 0.325,
    "label": _LABEL,
    "error": None,
}


def _example(values: dict[str, Any]) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [values]})


class LabelOut(Answer):
    """Where a z-stack is in focus."""

    model_config = _example(_LABEL)

    z_um: float
    """In-focus plane, um."""
    by: Literal["person", "teacher"]
    """Who said so."""
    reason: str
    agreement: float | None = None
    """Share of the teachers that agree, 0 to 1."""


class StackOut(Answer):
    """A z-stack: whole, or what is known so far while it is taken."""

    model_config = _example(_STACK)

    stack_id: str
    status: RunStatus
    """`running`; `done`: all planes are in the file; `failed`: see `error`; `interrupted`: the
    service ended before. Only `done` has images."""
    started_at: datetime
    rig: str
    path: str | None = None
    """The OME-TIFF, on the machine of the service; null unless `done`."""
    planes: int
    """How many planes it has when it is complete."""
    z_um: list[float]
    """Position of every plane taken, as read back, um; ascending once `done`."""
    exposures: int
    """Planes taken so far."""
    exposure_ms: float | None = None
    dose_ms: float
    """Sum of all exposures, ms."""
    objective: str | None = None
    """Label of the turret position."""
    channel: str | None = None
    binning: int | None = None
    dof_um: float
    """Depth of field, um."""
    pixel_size_um: float
    """Of the frames, in the specimen, um."""
    label: LabelOut | None = None
    """Where it is in focus; null until somebody says."""
    error: str | None = None
    """What ended a failed one."""

    @classmethod
    def of(cls, record: StackRecord, path: object) -> StackOut:
        """What the wire says of a stack; ``path`` is where its images are once it is done."""
        done = record.status is RunStatus.DONE
        known = {n: v for n, v in vars(record).items() if n in cls.model_fields}
        known |= {"path": str(path) if done else None, "exposures": len(record.z_um)}
        return cls.model_validate(known)


class StackList(Answer):
    """The z-stacks, newest first."""

    model_config = _example({"stacks": [_STACK], "total": 1, "running": None})

    stacks: list[StackOut]
    total: int
    """How many are kept."""
    running: str | None = None
    """The z-stack that is being taken now."""


class JudgementOut(Answer):
    """What became of a request to label a z-stack."""

    model_config = _example(
        {
            "stack_id": _STACK_ID,
            "labelled": True,
            "reason": _LABEL["reason"],
            "agreement": 1.0,
            "votes": {"vollath_f4": 0.69, "tenengrad": 0.69},
            "label": _LABEL,
        }
    )

    stack_id: str
    labelled: bool
    """`false`: the teachers do not agree; the stack is left as it was, look at it yourself."""
    reason: str
    """Who said so, or why it is not labelled."""
    agreement: float | None = None
    """Share of the teachers whose peak is near the median of the peaks, 0 to 1."""
    votes: dict[str, float]
    """Peak of every teacher that found one, um."""
    label: LabelOut | None = None
    """The label the stack has now."""

    @classmethod
    def of(cls, record: StackRecord, judgement: Judgement) -> JudgementOut:
        """What the wire says of it."""
        return cls.model_validate(
            {
                "stack_id": record.stack_id,
                "labelled": judgement.z_um is not None,
                "reason": judgement.reason,
                "agreement": judgement.agreement,
                "votes": dict(judgement.votes),
                "label": record.label,
            }
        )
