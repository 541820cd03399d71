"""A calibration as a picture: what was measured, beside the readings it was measured in."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from autofocus.calibration import CalibrationRecord

_TOWARDS, _AWAY, _AGAIN = "#1f5fa8", "#b9770e", "#1b7f3b"
_QUIET = "0.45"
_TITLE = "medium"


def calibration_png(record: CalibrationRecord) -> bytes:
    """Draw a calibration.

    Returns
    -------
    bytes
        A PNG of 1440 x 1080 pixels.
    """
    figure = Figure(figsize=(12, 9), dpi=120, layout="constrained")
    figure.suptitle(_title(record))
    (passes, shape), (response, arrivals) = figure.subplots(2, 2)
    _draw_passes(passes, record)
    _draw_shape(shape, record)
    _draw_responses(response, record)
    _draw_arrivals(arrivals, record)
    if record.notes:
        figure.supxlabel("\n".join(record.notes), fontsize="small", color="#a01c1c")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _title(record: CalibrationRecord) -> str:
    path = ", ".join(part for part in (record.objective, record.channel) if part)
    scorer = f"{record.scorer} {record.head or ''}".strip()
    return (
        f"{record.rig}   {path or 'one light path'}   {scorer}\n"
        f"{record.calibration_id}   {record.exposures} exposures of {record.exposure_ms:g} ms, "
        f"depth of field {record.dof_um:.2f} um"
    )


def _draw_passes(axes: Axes, record: CalibrationRecord) -> None:
    passes = (
        (record.towards, "o-", _TOWARDS, "towards the specimen"),
        (record.away, "s-", _AWAY, "away from it"),
        (record.again, "x", _AGAIN, "towards it again"),
    )
    for samples, style, colour, label in passes:
        z_um, score = [s.z_um for s in samples], [s.score for s in samples]
        axes.plot(z_um, score, style, color=colour, ms=4, lw=1, label=label)
    play = record.play
    peaks_um = record.z_um, record.z_um - record.direction * play.backlash_um
    for peak_um, colour in zip(peaks_um, (_TOWARDS, _AWAY), strict=True):
        axes.axvline(peak_um, color=colour, lw=1, ls="--")
    axes.set(xlabel="z as read back (um)", ylabel="score")
    axes.set_title(
        f"backlash {play.backlash_um:.2f} +- {play.sigma_um:.2f} um, "
        f"drift {1000 * play.drift_um_s:.1f} nm/s",
        fontsize=_TITLE,
    )
    axes.legend(fontsize="small")
    axes.grid(alpha=0.25)


def _draw_shape(axes: Axes, record: CalibrationRecord) -> None:
    shape = record.shape
    defocus_um, score = np.array(shape.defocus_um), np.array(shape.score)
    band = (score - 2 * shape.noise, score + 2 * shape.noise)
    axes.fill_between(defocus_um, *band, color=_TOWARDS, alpha=0.2, label="+- 2 noise")
    axes.plot(defocus_um, score, "-", color=_TOWARDS, lw=1.5, label="mean score")
    half = shape.width_um / 2
    axes.axvspan(-half, half, color=_QUIET, alpha=0.12, label="width at half height")
    axes.set(xlabel="defocus (um)", ylabel="score")
    axes.set_title(
        f"width {shape.width_um:.2f} um = {shape.width_um / record.dof_um:.1f} depths of field, "
        f"noise {shape.noise:.2g}",
        fontsize=_TITLE,
    )
    if shape.estimated_dof is not None:
        right = axes.twinx()
        right.plot(defocus_um, shape.estimated_dof, ":", color=_AWAY, lw=1.5)
        right.plot(defocus_um, abs(defocus_um) / record.dof_um, color=_QUIET, lw=0.7)
        right.set_ylabel("|defocus| (depths of field)")
        axes.plot([], [], ":", color=_AWAY, label="estimated |defocus| (right)")
        axes.plot([], [], color=_QUIET, lw=0.7, label="true |defocus| (right)")
    axes.legend(fontsize="small", loc="upper right")
    axes.grid(alpha=0.25)


def _draw_responses(axes: Axes, record: CalibrationRecord) -> None:
    settling = record.settling
    for index, samples in enumerate(record.responses, 1):
        t_ms = [1000 * sample.t_s for sample in samples]
        score = [sample.score for sample in samples]
        axes.plot(t_ms, score, "o-", ms=3, lw=1, alpha=0.8, label=f"move {index}")
    if settling.settle_ms is None:
        found = "frames still change at the end"
    else:
        earlier_ms = settling.settle_ms - settling.resolution_ms
        found = f"settled after {settling.settle_ms:.0f} ms (not after {earlier_ms:.0f})"
        if settling.resolution_ms == 0:
            found = "settled in the first frame"
        axes.axvline(settling.settle_ms, color=_QUIET, ls="--", lw=1)
    axes.set(xlabel="begin of the exposure after arrival (ms)", ylabel="score on the flank")
    axes.set_title(
        f"{found}, to {settling.threshold_um:.2f} um\n"
        f"{record.stale_frames} old frames after a move; a frame takes {record.frame_ms:.0f} ms",
        fontsize=_TITLE,
    )
    axes.legend(fontsize="small")
    axes.grid(alpha=0.25)


def _draw_arrivals(axes: Axes, record: CalibrationRecord) -> None:
    found = record.repeatability
    score = np.array([sample.score for sample in record.arrivals]).reshape(-1, 2)
    number = np.arange(1, len(score) + 1)
    axes.plot(number, score, "o", color=_TOWARDS, ms=4)
    axes.plot(number, score.mean(axis=1), "-", color=_TOWARDS, lw=1)
    in_image = "flank too shallow to see"
    if found.image_um is not None:
        in_image = f"in the image {found.image_um:.3f} um (a frame tells {found.resolution_um:.3f})"
    axes.set(xlabel="arrival at the same z, two frames each", ylabel="score on the flank")
    axes.set_title(
        f"repeatability: {in_image}\nas read back {found.readback_um:.3f} um", fontsize=_TITLE
    )
    axes.grid(alpha=0.25)
