"""What ``POST /score`` takes and answers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field, FiniteFloat, Json, model_validator

from autofocus.scoring import ScoredPlanes
from autofocus.service.answers import Answer
from autofocus.service.requests import Request
from models.patches import Anchor
from models.scorer import FrameScore, Scorer

_ANCHOR = {"shape": [512, 512], "positions": [[0, 128], [96, 256]], "lo": None, "hi": None}
_SCORE = {
    "z_um": None,
    "score": 0.871,
    "referee": 0.0213,
    "defocus_dof": 0.31,
    "defocus_sd_dof": 0.22,
    "coarse_contrast": 0.118,
    "dark": False,
    "saturated": False,
    "out_of_distribution": False,
    "fingerprint": "9f86d081884c7d65",
}


def _example(values: dict[str, Any]) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [values]})


class ScoreForm(Request):
    """The fields beside ``file``; all but the last three may be left out for any file."""

    # Fields of a form are text, so numbers cannot be told from strings as in a JSON body.
    model_config = ConfigDict(strict=False)

    scorer: str | None = None
    """Who scores; by default the rig's."""
    head: str | None = None
    """Fitted head of the scorer; by default its own."""
    anchor: Json[dict[str, Any] | None] | None = None
    """The `anchor` of an earlier answer, as JSON: look at the same pixels again."""
    bit_depth: int | None = Field(default=None, ge=1, le=64)
    """Bits the camera really uses, to know what is saturated: 12 in a 16 bit file."""
    sampling: FiniteFloat | None = Field(default=None, gt=0)
    """Camera pixel in the specimen x NA / wavelength. With it, scores are those of a run with these
    optics, and the distance in depths of field is more exact."""
    width: int | None = Field(default=None, ge=1, le=65_535)
    """Raw counts only: px in a row."""
    height: int | None = Field(default=None, ge=1, le=65_535)
    """Raw counts only: rows in a frame."""
    dtype: Literal["uint8", "uint16", "float32"] | None = None
    """Raw counts only: type of a pixel, little-endian."""

    @model_validator(mode="after")
    def _check(self) -> ScoreForm:
        given = [name for name in ("width", "height", "dtype") if getattr(self, name) is not None]
        if 0 < len(given) < 3:
            raise ValueError(f"raw counts need width, height and dtype, got only {given}")
        return self

    def anchored(self) -> Anchor | None:
        """The anchor, checked.

        Raises
        ------
        ImageError
            When it is not one of ours.
        """
        return None if self.anchor is None else Anchor.from_dict(self.anchor)


class ScoreOut(Answer):
    """One plane. With its z, this is a reading for `POST /autofocus/next`."""

    model_config = _example(_SCORE)

    z_um: float | None = None
    """Position of the plane, um, where the file tells it."""
    score: float
    """Focus score; higher is sharper."""
    referee: float | None = None
    """A classical measure of the same frame."""
    defocus_dof: float | None = None
    """Estimated distance to focus in depths of field, without sign; from ten on, that and more."""
    defocus_sd_dof: float | None = None
    """How far off that may be, root mean square; null for heads that do not tell."""
    coarse_contrast: float | None = None
    """How much the frame varies, smoothed over ten wavelengths / NA; needs `sampling`."""
    dark: bool
    """Nothing in the frame stands above its offset and noise."""
    saturated: bool
    """Too much of the frame sits at the camera's maximum."""
    out_of_distribution: bool
    """The frame is unlike what the scorer was fitted on."""
    fingerprint: str
    """Equal for frames with identical pixels."""

    @classmethod
    def of(cls, scored: FrameScore, z_um: float | None) -> ScoreOut:
        """What the wire says of one plane."""
        return cls.model_validate({**vars(scored), "z_um": z_um})


class AnchorOut(Answer):
    """Which pixels were looked at, and how counts were scaled; send it back as it is."""

    model_config = _example(_ANCHOR)

    shape: list[int]
    """Height and width of the frames it is for, px."""
    positions: list[list[int]]
    """(y, x) of the patches, px."""
    lo: float | None = None
    """Count that becomes 0; null, as it is sent: every frame is normalised by itself."""
    hi: float | None = None
    """Count that becomes 1; null as `lo`."""


class ScoresOut(Answer):
    """Every plane of the file, in its order."""

    model_config = _example(
        {
            "scores": [_SCORE],
            "best": 0,
            "scorer": "reiqa-compact",
            "head": "default@1f0c9ab2",
            "referee": "vollath_f4, binned",
            "anchor": _ANCHOR,
        }
    )

    scores: list[ScoreOut]
    best: int
    """Index of the sharpest plane: of the highest score, or of those that score alike the one that
    the referee sees as sharpest."""
    scorer: str
    """Who scored."""
    head: str | None = None
    """Name and short hash of the fitted head."""
    referee: str | None = None
    """The classical measure behind each `referee`."""
    anchor: AnchorOut | None = None
    """For the next frame of the same run: the one you sent, else that of the sharpest plane; null
    for scorers that take none."""

    @classmethod
    def of(cls, scorer: Scorer, scored: ScoredPlanes, z_um: tuple[float, ...] | None) -> ScoresOut:
        """What the wire says of a file."""
        positions = z_um or (None,) * len(scored.scores)
        return cls(
            scores=[ScoreOut.of(s, z) for s, z in zip(scored.scores, positions, strict=True)],
            best=scored.best,
            scorer=scorer.name,
            head=scorer.head,
            referee=scorer.watched_by,
            anchor=AnchorOut(**scored.anchor.to_dict()) if scored.anchor else None,
        )
