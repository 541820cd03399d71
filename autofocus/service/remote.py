"""What ``POST /autofocus/next`` takes and answers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from autofocus.optics import Optics
from autofocus.remote import Move, RemoteResult, RemoteSearch
from autofocus.search.protocol import Purpose, Reading, Verdict
from autofocus.service.answers import Answer
from autofocus.service.requests import Request, SearchBody
from devices import MicroscopeSettings

_MOVE = {"kind": "move", "z_um": [-40.0, -36.19, -32.38], "purpose": "coarse"}
_POINT = {"z_um": 0.02, "score": 0.874, "referee": 7.65, "purpose": "confirm"}
_RESULT = {
    "locked": True,
    "verdict": "locked",
    "reason": "peak at 0.02 um, 33 times the noise above background, measured again",
    "z_um": 0.02,
    "z_uncertainty_um": 0.06,
    "score": 0.874,
    "confidence": 0.87,
    "exposures": 36,
    "dose_ms": 360.0,
    "start_z_um": 33.7,
    "final_z_um": 0.02,
    "start_score": 0.171,
    "final_score": 0.874,
    "scorer": "reiqa-compact",
    "head": "default@56be8e88",
    "out_of_distribution": False,
    "referee": "vollath_f4, binned",
    "referee_z_um": 0.0,
    "referee_agrees": True,
    "dof_um": 1.376,
    "notes": [],
    "curve": [_POINT],
}


def _example(values: dict[str, Any]) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [values]})


class OpticsBody(Request):
    """The objective and the camera behind it, as in a rig file."""

    na: float = Field(gt=0)
    """Numerical aperture."""
    immersion_index: float = Field(default=1.0, gt=0)
    """Refractive index between objective and specimen: air 1.0, water 1.33, oil 1.515."""
    pixel_size_um: float = Field(gt=0)
    """Camera pixel in the specimen at binning 1, um."""
    wavelength_um: float = Field(default=0.55, gt=0)
    """Of emission, or the middle of the lamp's, um."""

    @model_validator(mode="after")
    def _check(self) -> OpticsBody:
        self.optics()
        return self

    def optics(self) -> Optics:
        """The same inside the service."""
        return Optics(self.na, self.immersion_index, self.pixel_size_um, self.wavelength_um)


class RemoteSearchBody(SearchBody):
    """What to focus on, on a microscope that the client owns; the same in every question of a run.

    The client takes the frames: `roi`, `channel` and `save_frames` are accepted and have no effect
    here, `binning` and `exposure_ms` say how frames are taken.
    """

    start_z_um: float
    """Where the stage stood when the run began, um."""
    z_min_um: float
    """Lowest z the stage may ever be sent to, um."""
    z_max_um: float
    """Highest z the stage may ever be sent to, um."""
    optics: OpticsBody | None = None
    """What the depth of field follows from; give this or `dof_um`."""
    dof_um: float | None = Field(default=None, gt=0)
    """Total depth of field, um, where the optics are not known."""
    towards_specimen: Literal["+", "-"] | None = None
    """Sign of the z motion that brings objective and specimen together: passes end nearer to the
    specimen than they began; by default `+`."""
    arrival_tolerance_um: float = Field(default=0.5, gt=0)
    """How far a reading may be from where it was wanted, um."""

    @model_validator(mode="after")
    def _check(self) -> RemoteSearchBody:
        if (self.optics is None) == (self.dof_um is None):
            raise ValueError("give either optics or dof_um")
        if self.z_min_um >= self.z_max_um:
            raise ValueError(f"z_min_um = {self.z_min_um} must be below z_max_um = {self.z_max_um}")
        return self

    @property
    def depth_of_field_um(self) -> float:
        """Total depth of field at the binning of the frames, um."""
        if self.optics is not None:
            return self.optics.optics().depth_of_field_um(self.binning or 1)
        assert self.dof_um is not None
        return self.dof_um

    @property
    def sampling(self) -> float | None:
        """What to send to `POST /score` with every frame; None where the optics are not known."""
        return self.optics.optics().sampling(self.binning or 1) if self.optics else None

    def remote_search(self) -> RemoteSearch:
        """The same inside the service."""
        limits = MicroscopeSettings(
            config=None,
            z_min_um=self.z_min_um,
            z_max_um=self.z_max_um,
            towards_specimen=self.towards_specimen,
            arrival_tolerance_um=self.arrival_tolerance_um,
        )
        return RemoteSearch(self.focus_request(), limits, self.start_z_um, self.depth_of_field_um)


class ReadingBody(Request):
    """One frame that was taken: its entry in the answer of `POST /score`, and its z."""

    z_um: float
    """Position as read back, um."""
    score: float
    """Focus score; higher is sharper."""
    referee: float | None = None
    """A classical measure of the same frame; without it places are less exact, fewer are locked."""
    defocus_dof: float | None = None
    """Estimated distance to the in-focus plane in depths of field, without sign."""
    defocus_sd_dof: float | None = Field(default=None, ge=0)
    """How far off that may be, root mean square; without it a search takes the score for sure."""
    coarse_contrast: float | None = Field(default=None, ge=0)
    """Of large structures; without it a specimen beyond the range may go unnoticed."""
    dark: bool = False
    """Nothing in the frame stands above its offset and noise."""
    saturated: bool = False
    """Too much of the frame sits at the camera's maximum."""
    out_of_distribution: bool = False
    """The frame is unlike what the scorer was fitted on."""
    fingerprint: str = Field(default="", max_length=1000)
    """Equal for frames with identical pixels."""

    def reading(self) -> Reading:
        """The same inside the service."""
        return Reading(**{name: getattr(self, name) for name in ReadingBody.model_fields})


class NextBody(Request):
    """A search and everything it has led to so far."""

    search: RemoteSearchBody
    """What to focus on; the same in every question of a run."""
    readings: list[ReadingBody] = Field(default=[], max_length=2000)
    """Every reading of the run, in the order in which they were asked for; none at the start."""


class MoveNextOut(Answer):
    """Where to take the next frames."""

    model_config = _example(_MOVE)

    kind: Literal["move"]
    z_um: list[float]
    """Positions, um, in this order: at each one move, take a frame, score it."""
    purpose: Purpose
    """Why."""

    @classmethod
    def of(cls, move: Move) -> MoveNextOut:
        """What the wire says of it."""
        return cls(kind="move", z_um=list(move.z_um), purpose=move.purpose)


class RemotePointOut(Answer):
    """One exposure of a remote run."""

    model_config = _example(_POINT)

    z_um: float
    """Position as read back, um."""
    score: float
    """Focus score; higher is sharper."""
    referee: float | None = None
    """A classical measure of the same frame."""
    purpose: Purpose
    """Why the exposure was wanted."""


class RemoteResultOut(Answer):
    """How a remote run ended, in the words of `POST /autofocus`."""

    model_config = _example(_RESULT)

    locked: bool
    """Focus is proven at `z_um`. This is the one to check."""
    verdict: Verdict
    """One word."""
    reason: str
    """One sentence with the numbers that decided."""
    z_um: float | None = None
    """Best estimate of the in-focus plane, um."""
    z_uncertainty_um: float | None = None
    """One standard deviation of `z_um`."""
    score: float | None = None
    """Score expected at `z_um`."""
    confidence: float
    """0 to 1: how well the evidence supports `z_um`."""
    exposures: int
    """Every exposure made, start and confirmation included."""
    dose_ms: float | None = None
    """Sum of all exposures, ms; null unless `exposure_ms` was given."""
    start_z_um: float
    """Where the run began, um."""
    final_z_um: float
    """Where to leave the stage, um: in focus when locked, else at the start, or, with
    `on_failure: "stay"`, where it is."""
    start_score: float | None = None
    final_score: float | None = None
    scorer: str
    """Who scored the frames."""
    head: str | None = None
    """Name and short hash of the fitted head."""
    out_of_distribution: bool
    """The frames are unlike what the scorer was fitted on."""
    referee: str | None = None
    """The classical measure that watched."""
    referee_z_um: float | None = None
    """Where the referee sees the peak, um."""
    referee_agrees: bool | None = None
    """Within a depth of field of `z_um`."""
    dof_um: float
    """Depth of field that steps derive from, um."""
    notes: list[str]
    """What else a person should know."""
    curve: list[RemotePointOut]
    """The readings, in the order they were made."""


class DoneOut(Answer):
    """The run is over."""

    model_config = _example({"kind": "done", "result": _RESULT})

    kind: Literal["done"]
    result: RemoteResultOut

    @classmethod
    def of(cls, result: RemoteResult) -> DoneOut:
        """What the wire says of it."""
        return cls(kind="done", result=RemoteResultOut.model_validate(result))


NextOut = Annotated[MoveNextOut | DoneOut, Field(discriminator="kind")]
