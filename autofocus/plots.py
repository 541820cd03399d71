"""The focus curve as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from autofocus.focus import CurvePoint
from autofocus.runs import RunRecord

_SCORE_COLOUR = "#1f5fa8"
_REFEREE_COLOUR = "#b9770e"


def curve_png(record: RunRecord) -> bytes:
    """Draw the focus curve of a run, finished or not.

    Returns
    -------
    bytes
        A PNG of 960 x 600 pixels.
    """
    # A Figure of its own, without pyplot: no window toolkit, no state shared between requests.
    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlabel="z (um)", ylabel=f"focus score ({record.scorer})", title=_title(record))
    axes.grid(alpha=0.25)
    _draw_readings(axes, record.readings, record.scorer)
    _draw_positions(axes, record)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best", fontsize="small")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _title(record: RunRecord) -> str:
    if record.result is None:
        return f"{record.run_id}   {record.status.value}"
    return f"{record.run_id}   {record.result.verdict.value}"


def _draw_readings(axes: Axes, points: Sequence[CurvePoint], scorer: str) -> None:
    if not points:
        return
    ordered = sorted(points, key=lambda point: point.z_um)
    z_um = [point.z_um for point in ordered]
    axes.plot(z_um, [p.score for p in ordered], "o-", color=_SCORE_COLOUR, ms=4, lw=1, label=scorer)
    referee = [point.referee for point in ordered if point.referee is not None]
    if len(referee) < len(ordered):
        return
    right = axes.twinx()
    right.plot(z_um, referee, "s:", color=_REFEREE_COLOUR, ms=3, lw=1)
    axes.plot([], [], "s:", color=_REFEREE_COLOUR, ms=3, lw=1, label="referee (right)")
    right.set_ylabel("referee", color=_REFEREE_COLOUR)


def _draw_positions(axes: Axes, record: RunRecord) -> None:
    result = record.result
    if result is None:
        return
    axes.axvline(result.start_z_um, color="0.5", ls="--", lw=1, label="start")
    if result.z_um is not None:
        label = "locked" if result.locked else "best estimate, not locked"
        axes.axvline(result.z_um, color="#1b7f3b", lw=1, label=f"{label} {result.z_um:.2f} um")
