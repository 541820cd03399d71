"""Every body a client sends.

Strict on purpose: an unknown key, a string for a number, NaN or an infinity is refused, because
what is misread here moves an objective. Units are in the names, and the names do not change.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from autofocus.calibrating import CalibrationRequest
from autofocus.heads import HeadRequest
from autofocus.planning import FocusRequest
from autofocus.stacks import StackRequest
from devices import AcquisitionSettings, Roi


class Request(BaseModel):
    """What every request body has in common."""

    model_config = ConfigDict(
        extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    @field_validator("*")
    @classmethod
    def _is_writable(cls, value: object) -> object:
        """Refuse half a character, which JSON may hold and no file or device can be given."""
        if isinstance(value, str) and any("\ud800" <= each <= "\udfff" for each in value):
            raise ValueError("is no text: it holds half of a surrogate pair")
        return value


class RoiBody(Request):
    """A rectangle of the frame, px after binning; `x`, `y` is its upper left corner."""

    x: int = Field(ge=0)
    y: int = Field(ge=0)
    width: int = Field(gt=0)
    height: int = Field(gt=0)

    def roi(self) -> Roi:
        """The same rectangle for the camera."""
        return Roi(self.x, self.y, self.width, self.height)


class CameraBody(Request):
    """How to take a frame; what is left out stays as the microscope has it."""

    roi: RoiBody | None = None
    """Part of the frame to expose and score."""
    exposure_ms: float | None = Field(default=None, gt=0, le=600_000)
    """Exposure, ms."""
    channel: str | None = None
    """Preset of the channel group, e.g. `DAPI`."""
    binning: int | None = Field(default=None, ge=1, le=16)
    """Camera binning."""

    def settings(self) -> AcquisitionSettings:
        """The same for the camera."""
        return AcquisitionSettings(
            exposure_ms=self.exposure_ms,
            roi=self.roi.roi() if self.roi else None,
            binning=self.binning,
            channel=self.channel,
        )


class SearchBody(CameraBody):
    """What to look for and how far to go; everything may be left out."""

    range_um: float | None = Field(default=None, gt=0)
    """Width of the first pass, um."""
    range_dof: float | None = Field(default=None, gt=0)
    """The same in depths of field; give one of the two."""
    center_um: float | None = None
    """Middle of the first pass, um; by default where the stage is."""
    z_min_um: float | None = None
    """Lowest z this run may visit, um."""
    z_max_um: float | None = None
    """Highest z this run may visit, um."""
    expected_z_um: float | None = None
    """Where focus is expected, um, from an earlier lock or a map."""
    expected_sigma_um: float | None = Field(default=None, gt=0)
    """How surely: one standard deviation, um."""
    warm_start: bool = False
    """Let earlier locks here or nearby say where focus is expected; a note says which."""
    strategy: str = "coarse_to_fine"
    """How to search: `coarse_to_fine`, `predictive` (fewest exposures), `sweep` (least time, where
    the stage takes sequences), `exhaustive`, `brent`, `golden` or `hill_climb`."""
    scorer: str | None = None
    """Who scores the frames; by default the rig's."""
    head: str | None = None
    """Fitted head of the scorer; by default the rig's."""
    channel_offset_um: float = 0.0
    """Added to the focus found, um: focus in one channel, image in another."""
    tolerance_um: float | None = Field(default=None, gt=0)
    """How closely the focus is wanted, um; by default a quarter of the depth of field."""
    max_exposures: int | None = Field(default=None, ge=1)
    """Give up beyond this many exposures."""
    max_dose_ms: float | None = Field(default=None, gt=0)
    """Give up beyond this sum of exposures, ms."""
    max_seconds: float | None = Field(default=None, gt=0)
    """Give up beyond this time, s."""
    max_extensions: int | None = Field(default=None, ge=0, le=10)
    """How often the range may grow past an end; 0 forbids it."""
    on_failure: Literal["return", "stay"] = "return"
    """Where the stage is left unless locked: `return` to the start, or `stay`."""
    save_frames: bool = False
    """Keep every frame as TIFF in the run's folder."""

    def focus_request(self) -> FocusRequest:
        """The same request inside the service."""
        values = {name: getattr(self, name) for name in SearchBody.model_fields}
        return FocusRequest(**{**values, "roi": self.roi.roi() if self.roi else None})


class AutofocusBody(SearchBody):
    """A focus run; everything may be left out."""

    wait: bool = True
    """`true`: answer when the run is over. `false`: answer 202 and where to look."""


class StackBody(CameraBody):
    """A z-stack around where the stage is; everything may be left out."""

    half_range_um: float | None = Field(default=None, gt=0)
    """How far to go to each side, um."""
    half_range_dof: float | None = Field(default=None, gt=0)
    """The same in depths of field, by default 20; give one of the two."""
    step_um: float | None = Field(default=None, gt=0)
    """Distance between planes, um."""
    step_dof: float | None = Field(default=None, gt=0)
    """The same in depths of field, by default 0.5; give one of the two."""
    wait: bool = True
    """`true`: answer when the stack is complete. `false`: answer 202 and where to look."""

    def stack_request(self) -> StackRequest:
        """The same request inside the service."""
        return StackRequest(
            half_range_um=self.half_range_um,
            half_range_dof=self.half_range_dof,
            step_um=self.step_um,
            step_dof=self.step_dof,
            camera=self.settings(),
        )


class CalibrationBody(CameraBody):
    """A calibration around where the stage is; everything may be left out."""

    half_range_um: float | None = Field(default=None, gt=0)
    """How far to go to each side, um."""
    half_range_dof: float | None = Field(default=None, gt=0)
    """The same in depths of field, by default 10; give one of the two."""
    step_um: float | None = Field(default=None, gt=0)
    """Distance between planes, um."""
    step_dof: float | None = Field(default=None, gt=0)
    """The same in depths of field, by default 0.5, at most 1; give one of the two."""
    scorer: str | None = None
    """Whose focus curve to measure; by default the rig's."""
    head: str | None = None
    """Fitted head of the scorer; by default the rig's."""
    wait: bool = True
    """`true`: answer when it is complete. `false`: answer 202 and where to look."""

    def calibration_request(self) -> CalibrationRequest:
        """The same request inside the service."""
        stack = StackRequest(
            half_range_um=self.half_range_um,
            half_range_dof=self.half_range_dof,
            step_um=self.step_um,
            step_dof=self.step_dof,
            camera=self.settings(),
        )
        return CalibrationRequest(stack, self.scorer, self.head)


class LabelBody(Request):
    """Where a z-stack is in focus: as a person sees it, or as the teachers find it."""

    z_um: float | None = None
    """In-focus plane as you see it, um, within the stack."""
    teacher: bool = False
    """`true`: ask the classical measures instead."""

    @model_validator(mode="after")
    def _check(self) -> LabelBody:
        if (self.z_um is None) != self.teacher:
            raise ValueError("give either z_um, or teacher: true")
        return self


class HeadBody(Request):
    """A head to fit on labelled z-stacks; everything may be left out."""

    name: str | None = Field(default=None, pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")
    """Of the new head, in small letters; by default `lab-` and the time."""
    stacks: list[str] | None = Field(default=None, max_length=1000)
    """Ids of the z-stacks; by default all that are labelled."""
    alpha: float | None = Field(default=None, gt=0)
    """Strength of the ridge; by default what does best on stacks left out of the fit."""
    wait: bool = False
    """`true`: answer when the head is fitted. `false`: answer 202 and where to look."""

    def head_request(self) -> HeadRequest:
        """The same request inside the service."""
        stacks = None if self.stacks is None else tuple(self.stacks)
        return HeadRequest(self.name, stacks, self.alpha)


class ActiveHeadBody(Request):
    """Which head to use where none is named."""

    name: str
    """Of the head: one of `GET /heads`; `default` came with the program."""


class MoveBody(Request):
    """An absolute position of the focus drive."""

    z_um: float
    """Where to go, um; outside the rig's limits is refused."""


class SnapBody(CameraBody):
    """One frame; everything may be left out."""
