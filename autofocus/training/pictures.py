"""Curves of stacks and sheets of their planes, as PNG."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from autofocus.training.leave_one_out import LeftOut

_PREDICTED, _LABEL, _CHOSEN = "#1f5fa8", "0.55", "#b9770e"
_IN_FOCUS = "#1b7f3b"
_TILE_PX = 96


def left_out_png(left_out: Sequence[LeftOut]) -> bytes:
    """One small curve a stack: label, prediction, truth and chosen plane."""
    columns = min(4, len(left_out))
    rows = math.ceil(len(left_out) / columns)
    figure = Figure(figsize=(3.2 * columns, 2.4 * rows + 0.4), dpi=100, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[len(left_out) :]:
        axes.set_axis_off()
    for axes, each in zip(panels, left_out, strict=False):
        _draw_left_out(axes, each)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return _png(figure)


def curve_png(
    z_um: Sequence[float | None],
    scores: Sequence[float],
    *,
    title: str,
    best: int,
    fitted_on: tuple[float, float],
) -> bytes:
    """Score of every plane against z, or against its number where z is not known."""
    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    known = [z for z in z_um if z is not None]
    along = known if len(known) == len(scores) else list(range(1, len(scores) + 1))
    axes.axhspan(*fitted_on, color="0.93", label="labels of the fit")
    axes.plot(along, scores, "o-", ms=4, lw=1, color=_PREDICTED, label="score")
    axes.axvline(along[best], color=_IN_FOCUS, lw=1, label="best plane")
    axes.set(title=title, ylabel="focus score", xlabel="z (um)" if along is known else "plane")
    axes.grid(alpha=0.25)
    axes.legend(loc="best", fontsize="small")
    return _png(figure)


def contact_sheet_png(
    frames: Sequence[NDArray[np.generic] | None],
    captions: Sequence[str],
    *,
    title: str,
    marked: int | None,
) -> bytes:
    """All planes of a stack side by side on one grey scale; the marked one is framed.

    Parameters
    ----------
    frames : sequence of ndarray of shape (height, width) or None
        None for a plane that cannot be read.
    """
    columns = min(8, len(frames))
    rows = math.ceil(len(frames) / columns)
    sheet = np.full((rows * _TILE_PX, columns * _TILE_PX), np.nan, np.float32)
    low, high = _grey_scale([frame for frame in frames if frame is not None])
    figure = Figure(figsize=(columns * 1.2, rows * 1.2 + 0.4), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    for number, (frame, caption) in enumerate(zip(frames, captions, strict=True)):
        y, x = (_TILE_PX * place for place in divmod(number, columns))
        if frame is not None:
            tile = _tile(frame)
            sheet[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
        axes.text(x + 3, y + 3, caption, color="yellow", fontsize=7, va="top", clip_on=True)
        if number == marked:
            corner, side = (x + 1, y + 1), _TILE_PX - 4
            axes.add_patch(Rectangle(corner, side, side, fill=False, color="lime", lw=2.5))
    axes.imshow(sheet, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(title, fontsize=9)
    return _png(figure)


def _draw_left_out(axes: Axes, each: LeftOut) -> None:
    known = not any(math.isnan(z) for z in each.z_um)
    along = each.z_um if known else tuple(range(1, len(each.z_um) + 1))
    axes.plot(along, each.labels, color=_LABEL, lw=1, label="label")
    axes.plot(along, each.predicted, ".-", color=_PREDICTED, lw=1, ms=3, label="predicted")
    if each.z_in_focus_um is not None:
        axes.axvline(each.z_in_focus_um, color=_IN_FOCUS, lw=1, label="in focus")
    if each.z_chosen_um is not None:
        axes.axvline(each.z_chosen_um, color=_CHOSEN, ls="--", lw=1, label="chosen")
    srcc = "-" if each.srcc is None else f"{each.srcc:.2f}"
    axes.set_title(f"{each.stack}   SRCC {srcc}", fontsize=8)
    axes.tick_params(labelsize=7)


def _tile(frame: NDArray[np.generic]) -> NDArray[np.float32]:
    scale = (_TILE_PX - 2) / max(frame.shape)
    height, width = (max(1, round(side * scale)) for side in frame.shape)
    small = cv2.resize(frame.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32)


def _grey_scale(frames: Sequence[NDArray[np.generic]]) -> tuple[float, float]:
    if not frames:
        return 0.0, 1.0
    sampled = np.concatenate([frame[::8, ::8].ravel() for frame in frames]).astype(np.float32)
    low, high = np.percentile(sampled, (1, 99.8))
    return float(low), float(max(high, low + 1e-6))


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
