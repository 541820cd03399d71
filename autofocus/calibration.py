"""What was measured of one rig with one objective, channel and scorer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from autofocus import __version__
from autofocus.search.protocol import FocusCurve


@dataclass(frozen=True)
class Sample:
    """One exposure of a calibration.

    Attributes
    ----------
    z_um : float
        As read back, um.
    score : float
        Focus score.
    t_s : float
        In a pass: end of the exposure, s after the calibration began. In a response: begin of the
        exposure, s after the stage said it had arrived.
    defocus_dof : float or None
        The scorer's estimate of |z - z_in_focus| in depths of field, if it has one.
    """

    z_um: float
    score: float
    t_s: float
    defocus_dof: float | None = None


@dataclass(frozen=True)
class Shape:
    """The focus curve without its position.

    Attributes
    ----------
    defocus_um : tuple of float
        z - z_in_focus, um, rising.
    score : tuple of float
        Mean of the passes there.
    estimated_dof : tuple of float or None
        Mean |defocus| in depths of field as the scorer estimates it; None when it does not.
    noise : float
        Standard deviation of one score about the curve.
    level : float
        Score far from focus.
    width_um : float
        Full width at half the height above ``level``, um.
    """

    defocus_um: tuple[float, ...]
    score: tuple[float, ...]
    estimated_dof: tuple[float, ...] | None
    noise: float
    level: float
    width_um: float


@dataclass(frozen=True)
class StagePlay:
    """Play of the drive, and what the focus did meanwhile.

    Attributes
    ----------
    backlash_um : float
        How much further the drive reads at the peak when it travels up than when it travels down.
    sigma_um : float
        One standard deviation of it.
    drift_um_s : float
        How fast the in-focus plane moves; its share is taken out of ``backlash_um``.
    """

    backlash_um: float
    sigma_um: float
    drift_um_s: float


@dataclass(frozen=True)
class Settling:
    """When frames no longer change after a move.

    Attributes
    ----------
    settle_ms : float or None
        Rest after arrival that was enough, ms: 0 when the first frame was like all later ones,
        None when frames still changed at the end.
    resolution_ms : float
        How much shorter the rest might have been: the time since the frame before.
    threshold_um : float
        What the stage may still have swung without being seen in the scores, um.
    """

    settle_ms: float | None
    resolution_ms: float
    threshold_um: float


@dataclass(frozen=True)
class Repeatability:
    """Scatter of repeated arrivals at one position on the flank of the curve, from one side.

    Attributes
    ----------
    readback_um : float
        Standard deviation of the position read back, um.
    image_um : float or None
        Of the position seen in the image, um, the noise of the score taken out; None where the
        flank is too shallow to tell.
    resolution_um : float or None
        What the noise of the score amounts to on this flank, um; ``image_um`` well below it is 0.
    """

    readback_um: float
    image_um: float | None
    resolution_um: float | None

    @property
    def repeatability_um(self) -> float:
        """What the image says where it can; the drive's own word otherwise."""
        return self.readback_um if self.image_um is None else self.image_um


@dataclass(frozen=True)
class CalibrationRecord:
    """A calibration, complete: what was found, and every reading it was found in.

    Attributes
    ----------
    calibration_id : str
        Sortable by start time; also the name of the folder.
    started_at : datetime
        UTC.
    rig : str
        Name of the rig.
    objective, channel : str or None
        In the light path, where the rig has such.
    scorer : str
        Whose curve it is.
    head : str or None
        Its head, with hash.
    binning : int
        Of the camera.
    exposure_ms, frame_ms : float
        Exposure, and what a frame takes from the command to the image (median).
    dof_um : float
        Depth of field.
    direction : int
        +1 or -1: which way is towards the specimen.
    start_z_um : float
        Where the stage was, and is again.
    z_um, z_sigma_um : float
        In-focus plane of the first pass, um, and one standard deviation of it.
    shape, play, settling, repeatability
        What was measured.
    stale_frames : int
        Frames after a move that still show the place before it.
    exposures : int
        All of them.
    dose_ms : float
        Their sum.
    notes : tuple of str
        What the rig file should say, and what to distrust.
    towards, away, again : tuple of Sample
        The passes towards the specimen, back, and once more across the peak.
    responses : tuple of tuple of Sample
        Frames taken at rest after a move, for the settle time.
    arrivals : tuple of Sample
        Two frames at every arrival, for the repeatability.
    version : str
        Of this package.
    """

    calibration_id: str
    started_at: datetime
    rig: str
    objective: str | None
    channel: str | None
    scorer: str
    head: str | None
    binning: int
    exposure_ms: float
    frame_ms: float
    dof_um: float
    direction: int
    start_z_um: float
    z_um: float
    z_sigma_um: float
    shape: Shape
    play: StagePlay
    settling: Settling
    repeatability: Repeatability
    stale_frames: int
    exposures: int
    dose_ms: float
    notes: tuple[str, ...]
    towards: tuple[Sample, ...]
    away: tuple[Sample, ...]
    again: tuple[Sample, ...]
    responses: tuple[tuple[Sample, ...], ...]
    arrivals: tuple[Sample, ...]
    version: str = __version__


def focus_curve(record: CalibrationRecord) -> FocusCurve:
    """The part of a calibration that a search uses."""
    return FocusCurve(
        defocus_um=record.shape.defocus_um,
        score=record.shape.score,
        noise=record.shape.noise,
        repeatability_um=record.repeatability.repeatability_um,
    )
