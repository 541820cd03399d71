"""Every body a client gets, with an example. Units are in the names; the names do not change."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from autofocus import __version__
from autofocus.config import Rig
from autofocus.errors import ConfigError
from autofocus.planning import FocusPlan
from autofocus.runs import RunRecord, RunStatus
from autofocus.search.protocol import Purpose, Verdict
from devices import MicroscopeState

_INITIALIZED = "InitializedSuccessfully"
_INTERRUPTED = (
    "the process that ran it ended before the run did; where the stage was left is not known"
)
_RUN_ID = "20261123-091502-118204"
_LINKS = {
    "self": f"/runs/{_RUN_ID}",
    "events": f"/runs/{_RUN_ID}/events",
    "curve_png": f"/runs/{_RUN_ID}/curve.png",
    "curve_csv": f"/runs/{_RUN_ID}/curve.csv",
    "report": f"/runs/{_RUN_ID}/report.json",
}
_POINT = {"z_um": 0.02, "score": 0.874, "t_s": 4.904, "referee": 7.65, "purpose": "confirm"}
_SECONDS = {
    "stage": 0.64,
    "camera": 0.93,
    "scoring": 3.31,
    "total": 4.06,
    "saved": 0.82,
    "swept": 0.0,
}
_DEVICE = {
    "label": "Z",
    "library": "DemoCamera",
    "name": "DStage",
    "initialization": _INITIALIZED,
}
_BRIEF = {
    "run_id": _RUN_ID,
    "status": "done",
    "started_at": "2026-11-23T09:15:02.118204Z",
    "locked": True,
    "verdict": "locked",
    "z_um": 0.02,
    "scorer": "reiqa-compact",
    "links": _LINKS,
}


def _example(values: dict[str, Any]) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [values]})


class Answer(BaseModel):
    """What every answer has in common."""

    model_config = ConfigDict(from_attributes=True, use_attribute_docstrings=True)


class CurvePointOut(Answer):
    """One exposure of a run."""

    model_config = _example(_POINT)

    z_um: float
    """Position as read back, um."""
    score: float
    """Focus score; higher is sharper."""
    t_s: float
    """Seconds since the run began."""
    referee: float | None = None
    """A classical measure of the same frame."""
    purpose: Purpose
    """Why the exposure was made."""


class SecondsOut(Answer):
    """Where the time of a run went, s."""

    model_config = _example(_SECONDS)

    stage: float
    camera: float
    scoring: float
    total: float
    saved: float = 0.0
    """Of the scoring, what went on while the stage moved and the camera exposed."""
    swept: float = 0.0
    """In sweeps, where stage and camera went on together; neither of them counts it."""


class RunLinks(Answer):
    """Where the rest of a run is."""

    model_config = _example(_LINKS)

    run: str = Field(serialization_alias="self", validation_alias="self")
    events: str
    """Readings as they come, server-sent events."""
    curve_png: str
    """The focus curve as a picture."""
    curve_csv: str
    """The focus curve as a table."""
    report: str
    """The whole record, the request included."""

    @classmethod
    def of(cls, run_id: str) -> RunLinks:
        """Where everything of one run is."""
        base = f"/runs/{run_id}"
        return cls.model_validate(
            {
                "self": base,
                "events": f"{base}/events",
                "curve_png": f"{base}/curve.png",
                "curve_csv": f"{base}/curve.csv",
                "report": f"{base}/report.json",
            }
        )


class RunOut(Answer):
    """A focus run: its answer once it is over, what is known so far before that."""

    model_config = _example(
        {
            **_BRIEF,
            "reason": "peak at 0.02 um, 33 times the noise above background, measured again",
            "z_uncertainty_um": 0.06,
            "score": 0.874,
            "confidence": 0.87,
            "exposures": 36,
            "dose_ms": 360.0,
            "start_z_um": 33.7,
            "final_z_um": 0.02,
            "start_score": 0.171,
            "final_score": 0.874,
            "head": "default@56be8e88",
            "out_of_distribution": False,
            "referee": "vollath_f4, binned",
            "referee_z_um": 0.0,
            "referee_agrees": True,
            "dof_um": 1.376,
            "notes": [],
            "curve": [_POINT],
            "seconds": _SECONDS,
            "error": None,
        }
    )

    run_id: str
    status: RunStatus
    """`running`; `done`: there is a verdict; `failed`: a fault, see `error`; `interrupted`: the
    service ended before the run did."""
    started_at: datetime
    locked: bool = False
    """The stage stands in proven focus. This is the one to check."""
    verdict: Verdict | None = None
    """One word; null while running, and when failed."""
    reason: str | None = None
    """One sentence with the numbers that decided."""
    z_um: float | None = None
    """Best estimate of the in-focus plane, um."""
    z_uncertainty_um: float | None = None
    """One standard deviation of `z_um`."""
    score: float | None = None
    """Score expected at `z_um`."""
    confidence: float | None = None
    """0 to 1: how well the evidence supports `z_um`."""
    exposures: int
    """Every exposure made, start and confirmation included."""
    dose_ms: float | None = None
    """Sum of all exposures, ms."""
    start_z_um: float | None = None
    """Where the run began, um."""
    final_z_um: float | None = None
    """Where the stage was left, um."""
    start_score: float | None = None
    final_score: float | None = None
    scorer: str
    """Who scored the frames."""
    head: str | None = None
    """Name and short hash of the fitted head."""
    out_of_distribution: bool | None = None
    """The frames are unlike what the scorer was fitted on."""
    referee: str | None = None
    """The classical measure that watched."""
    referee_z_um: float | None = None
    """Where the referee sees the peak, um."""
    referee_agrees: bool | None = None
    """Within a depth of field of `z_um`."""
    dof_um: float | None = None
    """Depth of field that steps derive from, um."""
    notes: list[str] = []
    """What else a person should know."""
    curve: list[CurvePointOut]
    """Readings in the order they were made."""
    seconds: SecondsOut | None = None
    error: str | None = None
    """The fault that ended a failed run."""
    links: RunLinks

    @classmethod
    def of(cls, record: RunRecord) -> RunOut:
        """What the wire says of a run."""
        known = {
            "run_id": record.run_id,
            "status": record.status,
            "started_at": record.started_at,
            "scorer": record.scorer,
            "head": record.head,
            "exposures": len(record.readings),
            "curve": record.readings,
            "error": record.error,
            "links": RunLinks.of(record.run_id),
        }
        if record.result:
            known |= {n: v for n, v in vars(record.result).items() if n in cls.model_fields}
        if record.status is RunStatus.INTERRUPTED:
            known |= {"verdict": Verdict.ABORTED, "reason": _INTERRUPTED}
        return cls.model_validate(known)


class RunBrief(Answer):
    """One line of the history."""

    model_config = _example(_BRIEF)

    run_id: str
    status: RunStatus
    started_at: datetime
    locked: bool
    verdict: Verdict | None = None
    z_um: float | None = None
    scorer: str
    links: RunLinks

    @classmethod
    def of(cls, record: RunRecord) -> RunBrief:
        """What the history says of a run."""
        whole = RunOut.of(record)
        return cls(**{name: getattr(whole, name) for name in cls.model_fields})


class RunList(Answer):
    """The history, newest first."""

    model_config = _example({"runs": [_BRIEF], "total": 1, "running": None})

    runs: list[RunBrief]
    total: int
    """How many runs are kept."""
    running: str | None = None
    """The run that has the microscope now."""


class PlanOut(Answer):
    """What a run would do. Nothing has moved."""

    model_config = _example(
        {
            "z_um": [round(-66.3 + 8 * i, 1) for i in range(26)],
            "z_lowest_um": -250.0,
            "z_highest_um": 183.7,
            "worst_case_exposures": 59,
            "worst_case_dose_ms": 590.0,
            "seconds": 0.59,
            "dof_um": 1.376,
            "tolerance_um": 0.344,
            "strategy": "coarse_to_fine",
            "notes": ["at most 150.0 um towards the specimen: to 183.70"],
        }
    )

    z_um: list[float]
    """Positions of the first pass, um, in this order."""
    z_lowest_um: float
    """The run never goes below, um."""
    z_highest_um: float
    """The run never goes above, um."""
    worst_case_exposures: int
    """Exposures if everything has to be tried."""
    worst_case_dose_ms: float
    """Sum of those exposures, ms."""
    seconds: float
    """At least this long in the worst case, s: exposures and settling, without travel."""
    dof_um: float
    """Depth of field that steps derive from, um."""
    tolerance_um: float
    """How closely the focus is wanted, um."""
    strategy: str
    notes: list[str]
    """What was cut or chosen on the caller's behalf."""

    @classmethod
    def of(cls, plan: FocusPlan, *, settle_ms: float) -> PlanOut:
        """What the wire says of a plan."""
        busy_ms = plan.worst_case_dose_ms + plan.worst_case_exposures * settle_ms
        return cls.model_validate({**vars(plan), "seconds": busy_ms / 1000})


class StageOut(Answer):
    """Where the focus drive is and how far it may go."""

    model_config = _example({"z_um": 33.7, "z_min_um": -250.0, "z_max_um": 250.0})

    z_um: float
    """Position last read, um."""
    z_min_um: float
    """Lowest position that is allowed, um."""
    z_max_um: float
    """Highest position that is allowed, um."""


class MovedOut(Answer):
    """The move is complete."""

    model_config = _example({"z_um": 33.7})

    z_um: float
    """Position as read back, um."""


class StopOut(Answer):
    """What became of a request to stop."""

    model_config = _example({"state": "pending", "run_id": _RUN_ID})

    state: Literal["stopped", "pending", "finished"]
    """`stopped`: the stage has taken the stop. `pending`: its adapter is busy, it is told as soon
    as that is free. Either way no further move is sent; a stage that cannot stop ends its present
    move, of `max_step_um` at most. `finished`: the run was over before."""
    run_id: str | None = None
    """The run that was aborted, if there was one."""


class RoiOut(Answer):
    """A rectangle of the frame, px after binning."""

    x: int
    y: int
    width: int
    height: int


class DeviceOut(Answer):
    """One device of the Micro-Manager configuration."""

    model_config = _example(_DEVICE)

    label: str
    library: str
    name: str
    initialization: str
    """`InitializedSuccessfully` when all is well."""


class MicroscopeOut(Answer):
    """The microscope as last seen."""

    model_config = _example(
        {
            "rig": "Micro-Manager demo",
            "running": None,
            "z_um": 33.7,
            "z_min_um": -250.0,
            "z_max_um": 250.0,
            "focus_device": "Z",
            "camera": "Camera",
            "exposure_ms": 10.0,
            "roi": {"x": 0, "y": 0, "width": 512, "height": 512},
            "binning": 1,
            "channel": "DAPI",
            "objective": "Nikon 20X Plan Fluor ELWD",
            "pixel_size_um": 0.5,
            "dof_um": 1.376,
            "busy": False,
            "halted": False,
            "devices": [_DEVICE],
        }
    )

    rig: str
    running: str | None = None
    """The run that has the microscope."""
    z_um: float
    """Position last read, um."""
    z_min_um: float
    """Lowest position that is allowed, um."""
    z_max_um: float
    """Highest position that is allowed, um."""
    focus_device: str
    camera: str
    exposure_ms: float
    roi: RoiOut
    binning: int
    channel: str | None = None
    """Preset of the channel group."""
    objective: str | None = None
    """Label of the turret position."""
    pixel_size_um: float
    """In the specimen, um, as the core knows it; 0 when it does not."""
    dof_um: float | None = None
    """Depth of field, um; null when the objective is not in the rig file."""
    busy: bool
    """Something is going on, and the rest may be a step behind."""
    halted: bool
    """Stopped, and no move was asked for since."""
    devices: list[DeviceOut]

    @classmethod
    def of(cls, rig: Rig, state: MicroscopeState, *, running: str | None) -> MicroscopeOut:
        """What the wire says of the microscope."""
        known = {name: value for name, value in vars(state).items() if name in cls.model_fields}
        return cls.model_validate(
            {**known, "rig": rig.name, "running": running, "dof_um": _dof_um(rig, state)}
        )


class HealthOut(Answer):
    """Alive, and ready or not."""

    model_config = _example(
        {
            "alive": True,
            "ready": True,
            "not_ready": [],
            "rig": "Micro-Manager demo",
            "running": None,
            "version": __version__,
        }
    )

    alive: Literal[True] = True
    ready: bool
    """Every device is initialized."""
    not_ready: list[str]
    """Labels of the devices that are not."""
    rig: str
    running: str | None = None
    """The run that has the microscope."""
    version: str

    @classmethod
    def of(cls, rig: Rig, state: MicroscopeState, *, running: str | None) -> HealthOut:
        """What the wire says of the service's health."""
        failed = [d.label for d in state.devices if d.initialization != _INITIALIZED]
        return cls(
            ready=not failed, not_ready=failed, rig=rig.name, running=running, version=__version__
        )


class Problem(Answer):
    """Why a request was not done (RFC 9457, `application/problem+json`)."""

    model_config = _example(
        {
            "type": "urn:reiqa-autofocus:problem:busy",
            "title": "Busy",
            "status": 409,
            "detail": f"run {_RUN_ID} has the microscope; wait for it or abort it with "
            f"DELETE /runs/{_RUN_ID}",
            "instance": "/autofocus",
            "run_id": _RUN_ID,
        }
    )

    type: str
    """Name of the kind of problem; branch on this one."""
    title: str
    status: int
    detail: str
    """What, with which values and units, and what to do."""
    instance: str | None = None
    """The path that was asked for."""
    run_id: str | None = None
    """The run that has the microscope."""
    stack_id: str | None = None
    """The z-stack that has the microscope."""
    calibration_id: str | None = None
    """The calibration that has the microscope."""
    errors: list[dict[str, str]] | None = None
    """For a malformed request: `where` and `what`, one entry a mistake."""


def _dof_um(rig: Rig, state: MicroscopeState) -> float | None:
    try:
        return rig.optics_for(state.objective).depth_of_field_um(state.binning)
    except ConfigError:
        return None  # an unknown objective is shown, not an error, until somebody wants to focus
