"""What the losses of `autofocus train` do on the same left-out stacks, and how sure that is."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from autofocus.training.leave_one_out import (
    LeftOut,
    Spread,
    fit_with,
    leave_one_stack_out,
    spread,
)
from autofocus.training.losses import LOSSES, Loss
from autofocus.training.training_rows import TrainingRows
from autofocus.training.workers import Workers

BASELINE: Loss = "ridge"

# By loss, the stacks in one order.
Found = Mapping[Loss, Sequence[LeftOut]]
_Quantity = Callable[[LeftOut], float | None]


def compare(rows: TrainingRows, *, alpha: float | None, workers: Workers | None = None) -> Found:
    """Leave out every stack in turn, with each of the losses.

    Parameters
    ----------
    alpha : float or None
        Strength of the ridge; None chooses for each loss and fold on the stacks that are left.

    Raises
    ------
    DataError
        When the z or the plane in focus of a frame is not known.
    """
    return {
        loss: leave_one_stack_out(rows, fit_with(loss, alpha), workers=workers) for loss in LOSSES
    }


def table(found: Found, *, dof_um: float | None = None) -> str:
    """Markdown: each loss on all stacks, then stack by stack against ridge."""
    quantities = _quantities(dof_um)
    against = [loss for loss in found if loss != BASELINE]
    return "\n".join(
        [
            f"{len(found[BASELINE])} stacks, each left out of the fit once; mean over stacks (95 % "
            "interval by resampling stacks).",
            "",
            _header([*quantities, "median error, um", "at the edge"]),
            *(_row(loss, found[loss], quantities) for loss in found),
            "",
            f"Difference to {BASELINE} on the same stack; an interval without 0 is in bold.",
            "",
            _header(quantities),
            *(_paired_row(loss, found[loss], found[BASELINE], quantities) for loss in against),
        ]
    )


def write_csv(found: Found, path: Path) -> None:
    """Every stack by every loss."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["loss", "stack", "srcc", "z_in_focus_um", "z_chosen_um", "error_um"])
        for loss, left_out in found.items():
            for each in left_out:
                numbers = (each.srcc, each.z_in_focus_um, each.z_chosen_um, each.error_um)
                writer.writerow([loss, each.stack, *numbers])


def _quantities(dof_um: float | None) -> dict[str, _Quantity]:
    quantities: dict[str, _Quantity] = {
        "SRCC": lambda each: each.srcc,
        "error, um": lambda each: each.error_um,
    }
    if dof_um is not None:
        quantities["error, DOF"] = lambda each: _over(each.error_um, dof_um)
    return quantities


def _over(value: float | None, unit: float) -> float | None:
    return None if value is None else value / unit


def _header(columns: Sequence[str] | Mapping[str, _Quantity]) -> str:
    return f"| loss | {' | '.join(columns)} |\n|{'---|' * (1 + len(columns))}"


def _row(loss: Loss, left_out: Sequence[LeftOut], quantities: Mapping[str, _Quantity]) -> str:
    spreads = [spread([value(each) for each in left_out]) for value in quantities.values()]
    error = spread([each.error_um for each in left_out])
    at_edge = sum(each.at_edge for each in left_out)
    cells = [*map(_cell, spreads), "-" if error is None else f"{error.median:.2f}", str(at_edge)]
    return f"| {loss} | {' | '.join(cells)} |"


def _paired_row(
    loss: Loss,
    left_out: Sequence[LeftOut],
    baseline: Sequence[LeftOut],
    quantities: Mapping[str, _Quantity],
) -> str:
    cells = []
    for value in quantities.values():
        pairs = [(value(a), value(b)) for a, b in zip(left_out, baseline, strict=True)]
        found = spread([None if a is None or b is None else a - b for a, b in pairs])
        clear = found is not None and not found.low <= 0 <= found.high
        cells.append(f"**{_cell(found)}**" if clear else _cell(found))
    return f"| {loss} | {' | '.join(cells)} |"


def _cell(found: Spread | None) -> str:
    return "-" if found is None else f"{found.mean:.3f} ({found.low:.3f} to {found.high:.3f})"
