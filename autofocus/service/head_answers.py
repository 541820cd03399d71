"""What ``/heads`` answers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AliasChoices, ConfigDict, Field

from autofocus.heads import HeadRecord
from autofocus.service.answers import Answer

_SPREAD = {"mean": 0.41, "median": 0.34, "low": 0.17, "high": 0.69}
_SUMMARY = {
    "stacks": 8,
    "srcc": {"mean": 0.96, "median": 0.97, "low": 0.94, "high": 0.98},
    "plcc": {"mean": 0.95, "median": 0.96, "low": 0.93, "high": 0.97},
    "error_um": _SPREAD,
    "at_edge": 0,
}
_LEFT_OUT = {
    "stack": "20261123-101502-118204",
    "srcc": 0.97,
    "plcc": 0.96,
    "z_in_focus_um": 0.69,
    "z_chosen_um": 0.69,
    "error_um": 0.0,
    "at_edge": False,
}
_REPORT = {
    "frames": 328,
    "stacks": 8,
    "sigma_um": 2.752,
    "options": {"alpha": 1000.0, "loss": "ridge", "dof_um": 1.376},
    "leave_one_stack_out": _SUMMARY,
    "before": {"head": "default@56be8e88", "leave_one_stack_out": _SUMMARY},
    "per_stack": [_LEFT_OUT],
}
_STEP = {"what": "features", "done": 3, "total": 8}
_HEAD = {
    "name": "nuclei-20x",
    "status": "ready",
    "active": False,
    "title": "nuclei-20x@0c8f1a2b",
    "stacks": ["20261123-101502-118204"],
    "step": None,
    "report": _REPORT,
    "error": None,
}


def _example(values: dict[str, Any]) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [values]})


class SpreadOut(Answer):
    """A quantity over the left-out stacks."""

    model_config = _example(_SPREAD)

    mean: float
    median: float
    low: float
    """Lower end of the 95 % interval of the mean."""
    high: float
    """Upper end of it."""


class SummaryOut(Answer):
    """How stacks are scored, each counting once."""

    model_config = _example(_SUMMARY)

    stacks: int
    srcc: SpreadOut | None = None
    """Rank correlation of score and label."""
    plcc: SpreadOut | None = None
    """Linear correlation of score and label."""
    error_um: SpreadOut | None = None
    """Distance of the plane with the best score from the labelled one, um."""
    at_edge: int
    """Stacks whose best plane is the first or last one."""


class OptionsOut(Answer):
    """How it was fitted."""

    alpha: float | None = None
    """Strength of the ridge."""
    loss: str
    dof_um: float | None = None
    """Depth of field of the stacks, um."""


class BeforeOut(Answer):
    """The same stacks by the head that was in use."""

    head: str
    """Name and short hash, or why there is no comparison."""
    leave_one_stack_out: SummaryOut | None = None


class LeftOutOut(Answer):
    """One stack, scored by a head fitted on the others."""

    model_config = _example(_LEFT_OUT)

    stack: str
    srcc: float | None = None
    plcc: float | None = None
    z_in_focus_um: float | None = None
    """As labelled, um."""
    z_chosen_um: float | None = None
    """Plane with the best score, um."""
    error_um: float | None = None
    at_edge: bool
    """Whether the chosen plane is the first or last one."""


class HeadReportOut(Answer):
    """How well a head scores stacks it has not seen, beside the head that was in use."""

    model_config = _example(_REPORT)

    frames: int
    stacks: int
    sigma_um: float
    """Distance from focus at which the label is 0.5, um."""
    options: OptionsOut
    leave_one_stack_out: SummaryOut
    before: BeforeOut
    per_stack: list[LeftOutOut]


class StepOut(Answer):
    """How far a fit is."""

    model_config = _example(_STEP)

    what: Literal["features", "fitting"]
    done: int
    """Stacks that have their features."""
    total: int


class HeadOut(Answer):
    """A head: ready, being fitted, or failed."""

    model_config = _example(_HEAD)

    name: str
    status: Literal["fitting", "ready", "failed"]
    active: bool
    """Used where a request and the rig file name none."""
    title: str | None = None
    """Name and short hash, as runs carry it."""
    stacks: list[str] = Field(validation_alias=AliasChoices("stacks", "stack_ids"))
    """Ids of the z-stacks it was fitted on."""
    step: StepOut | None = None
    """How far the fit is."""
    report: HeadReportOut | None = None
    """Compare `leave_one_stack_out` with `before`; null for heads from elsewhere."""
    error: str | None = None
    """What is wrong with a failed one."""

    @classmethod
    def of(cls, record: HeadRecord) -> HeadOut:
        """What the wire says of a head."""
        return cls.model_validate(record)


class HeadList(Answer):
    """The heads, by name."""

    model_config = _example({"heads": [_HEAD], "active": "default", "previous": "default"})

    heads: list[HeadOut]
    active: str
    """The head in use."""
    previous: str
    """The one before; `PUT /heads/active` puts it back."""


class ActiveHeadOut(Answer):
    """The head in use."""

    model_config = _example(
        {"name": "nuclei-20x", "previous": "default", "used_by_next_run": True, "note": None}
    )

    name: str
    previous: str
    """The one before, to put back."""
    used_by_next_run: bool
    """Whether a run that names neither scorer nor head uses it."""
    note: str | None = None
    """Why not."""
