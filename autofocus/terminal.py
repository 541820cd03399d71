"""A run as a person at a terminal sees it: the curve while it grows, then the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console, Group
from rich.text import Text

from autofocus.calibration import CalibrationRecord
from autofocus.focus import CurvePoint
from autofocus.planning import FocusPlan
from autofocus.runs import RunRecord

_DOT_ROWS, _DOT_COLUMNS = 4, 2
# Bit of each dot of a braille character, U+2800 block: rows from the top, columns from the left.
_DOT_BITS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])


def curve_text(
    points: Sequence[CurvePoint], *, width: int = 60, height: int = 8, unicode: bool = True
) -> str:
    """Draw score against z with one dot an exposure.

    Parameters
    ----------
    points : sequence of CurvePoint
        In any order; none gives "".
    width, height : int
        Characters of the drawing, its axes not counted.
    unicode : bool
        Braille dots, eight to a character; otherwise ``*``, for terminals that have no others.
    """
    if not points:
        return ""
    z_um = np.array([point.z_um for point in points])
    score = np.array([point.score for point in points])
    dots = np.zeros((height * _DOT_ROWS, width * _DOT_COLUMNS), dtype=bool)
    dots[-1 - _bins(score, dots.shape[0]), _bins(z_um, dots.shape[1])] = True
    blocks = dots.reshape(height, _DOT_ROWS, width, _DOT_COLUMNS)
    codes = np.einsum("irjc,rc->ij", blocks, _DOT_BITS)
    lines = ["".join(_character(code, unicode=unicode) for code in row) for row in codes]
    ends = f"{z_um.min():.2f}", f"{z_um.max():.2f} um"
    scale = ends[0] + ends[1].rjust(width + 1 - len(ends[0]))
    return "\n".join([*(f"|{line}" for line in lines), f"+{'-' * width}", scale])


def running(record: RunRecord, console: Console) -> Group:
    """Show the curve so far and the last exposure."""
    lines = [Text(f"{record.scorer} at {len(record.readings)} exposures")]
    if record.readings:
        last = record.readings[-1]
        lines = [
            Text(_curve(record, console)),
            Text(
                f"exposure {len(record.readings)}  {last.purpose.value}  z {last.z_um:.2f} um  "
                f"score {last.score:.4g}  {last.t_s:.1f} s"
            ),
        ]
    return Group(*lines)


def print_result(record: RunRecord, console: Console) -> None:
    """Print the curve, the verdict and what is needed to trust it."""
    result = record.result
    if result is None:
        return
    console.print(_curve(record, console), markup=False, highlight=False)
    colour = "green" if result.locked else "yellow"
    console.print(f"[bold {colour}]{result.verdict.value}[/]", end="  ")
    lines = [
        result.reason,
        f"z {result.start_z_um:.2f} -> {result.final_z_um:.2f} um, {result.exposures} exposures, "
        f"{result.dose_ms:g} ms, {result.seconds.total:.1f} s, scorer {result.scorer}, "
        f"head {result.head or 'none'}, confidence {result.confidence:.2f}",
        *(f"note: {note}" for note in result.notes),
    ]
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def print_plan(plan: FocusPlan, console: Console) -> None:
    """Print where a run would go."""
    positions = " ".join(f"{z_um:.2f}" for z_um in plan.z_um)
    lines = [
        f"first pass  {len(plan.z_um)} positions, um: {positions}",
        f"never below {plan.z_lowest_um:.2f} um, never above {plan.z_highest_um:.2f} um",
        f"at most     {plan.worst_case_exposures} exposures, {plan.worst_case_dose_ms:g} ms",
        f"depth of field {plan.dof_um:.2f} um, wanted within {plan.tolerance_um:.2f} um",
        *(f"note: {note}" for note in plan.notes),
    ]
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def print_calibration(record: CalibrationRecord, report: Path, console: Console) -> None:
    """Print what was measured, and where the picture of it is."""
    shape, play, repeated = record.shape, record.play, record.repeatability
    settle_ms = record.settling.settle_ms
    settled = "not settled at the end" if settle_ms is None else f"{settle_ms:.0f} ms"
    lines = [
        f"focus curve    peak at {record.z_um:.2f} um, {shape.width_um:.2f} um wide "
        f"({shape.width_um / record.dof_um:.1f} depths of field), noise {shape.noise:.2g}",
        f"backlash       {play.backlash_um:.2f} +- {play.sigma_um:.2f} um",
        f"settle time    {settled}",
        f"repeatability  {repeated.repeatability_um:.3f} um",
        f"old frames     {record.stale_frames} after a move",
        f"spent          {record.exposures} exposures, {record.dose_ms:g} ms",
        f"report         {report}",
        *(f"note: {note}" for note in record.notes),
    ]
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def _curve(record: RunRecord, console: Console) -> str:
    width = max(20, min(100, console.width - 2))
    unicode = console.encoding.lower().startswith("utf")
    return curve_text(record.readings, width=width, unicode=unicode)


def _bins(values: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    span = np.ptp(values)
    if span == 0:
        return np.full(values.shape, count // 2)
    return np.rint((values - values.min()) / span * (count - 1)).astype(np.int64)


def _character(code: int, *, unicode: bool) -> str:
    if unicode:
        return chr(0x2800 + code)
    return "*" if code else " "
