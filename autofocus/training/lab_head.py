"""A lab's own head: judged on stacks it has not seen, then fitted on all of them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autofocus.training.default_head import SIGMA_DOF
from autofocus.training.leave_one_out import (
    LeftOut,
    Spread,
    Summary,
    choose_alpha,
    examples_of,
    fit_with,
    judge,
    leave_one_stack_out,
    summarise,
)
from autofocus.training.losses import Examples, Loss, fit_linear, ridge_of
from autofocus.training.training_rows import TrainingRows
from autofocus.training.workers import Workers
from models.head import Head, Label, fit_head

Float64 = NDArray[np.float64]

TARGET = "focus_score"
# Further away all frames look alike; their distance is not worth learning.
_FARTHEST_DOF = 12.0


@dataclass(frozen=True)
class TrainingOptions:
    """How to fit.

    Attributes
    ----------
    name : str
        Of the head.
    target : str
        What the labels are called; only ``focus_score`` has a scale that is known.
    loss : {"ridge", "huber", "ranking", "multitask"}
        See `autofocus.training.losses.fit_linear`.
    alpha : float or None
        Strength of the ridge; None chooses on left-out stacks, inside each fold.
    dof_um : float or None
        Depth of field. With it the head also estimates the distance to focus, and scores compare
        between objectives if the label falls to 0.5 within two depths of field.
    """

    name: str
    target: str = TARGET
    loss: Loss = "ridge"
    alpha: float | None = 1000.0
    dof_um: float | None = None


@dataclass(frozen=True)
class Report:
    """How well stacks are scored by heads that have not seen them.

    Attributes
    ----------
    options : TrainingOptions
        ``alpha`` is that of the final fit.
    frames, features : int
        Size of the fit.
    sigma_um : float
        Of the labels.
    left_out : tuple of LeftOut
        By the new head.
    before : tuple of LeftOut or None
        The same stacks by the head that was in use.
    before_title : str
        Its name, or why there is no comparison.
    without_label, without_features : int
        Rows of one file that were not in the other.
    """

    options: TrainingOptions
    frames: int
    features: int
    sigma_um: float
    left_out: tuple[LeftOut, ...]
    before: tuple[LeftOut, ...] | None
    before_title: str
    without_label: int
    without_features: int

    @property
    def summary(self) -> Summary:
        """Of the new head."""
        return summarise(self.left_out)

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able values, with the curves; see `overview` without them."""
        per_stack = [{**asdict(each), "error_um": each.error_um} for each in self.left_out]
        return {**self.overview(), "per_stack": _finite(per_stack)}

    def overview(self) -> dict[str, Any]:
        """As JSON-able values, for the manifest of the head."""
        before = None if self.before is None else asdict(summarise(self.before))
        return {
            "options": asdict(self.options),
            "frames": self.frames,
            "features": self.features,
            "stacks": len(self.left_out),
            "sigma_um": self.sigma_um,
            "leave_one_stack_out": asdict(self.summary),
            "before": {"head": self.before_title, "leave_one_stack_out": before},
            "without_label": self.without_label,
            "without_features": self.without_features,
        }


def train(
    rows: TrainingRows,
    options: TrainingOptions,
    *,
    before: Head | None = None,
    why_not: str = "",
    workers: Workers | None = None,
) -> tuple[Head, Report]:
    """Judge by leaving one stack out, then fit on all rows.

    Parameters
    ----------
    before : Head, optional
        The head in use, for comparison; it must fit the features.
    why_not : str
        Why there is none.
    workers : Workers, optional
        Who fits without each stack; by default this process alone.

    Raises
    ------
    HeadError
        When there is too little to fit.
    DataError
        When the loss needs what is not known of the rows.
    ClusterError
        See `autofocus.training.workers.Workers.parallel`.
    """
    examples = examples_of(rows)
    fit = fit_with(options.loss, options.alpha)
    left_out = leave_one_stack_out(rows, fit, workers=workers)
    alpha = options.alpha
    if alpha is None:
        alpha = choose_alpha(options.loss, examples)
    report = Report(
        options=replace(options, alpha=alpha),
        frames=len(rows),
        features=examples.features.shape[1],
        sigma_um=rows.sigma_um,
        left_out=left_out,
        before=None if before is None else judge(rows, _predict(before, rows)),
        before_title=why_not if before is None else before.manifest.title,
        without_label=len(rows.without_label),
        without_features=len(rows.without_features),
    )
    return _fit(rows, examples, report), report


def report_json(report: Report) -> str:
    """Everything, as JSON."""
    return json.dumps(report.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)


def report_markdown(report: Report) -> str:
    """For people: what left-out stacks say, and the numbers of each."""
    options = report.options
    return "\n".join(
        [
            f"# Head {options.name}",
            "",
            f"{report.frames} frames of {len(report.left_out)} stacks, {report.features} features, "
            f"{options.loss}, alpha {options.alpha:g}, label {options.target} "
            f"(0.5 at {report.sigma_um:g} um).",
            f"Not used: {report.without_label} frames without a label, {report.without_features} "
            "labels without features.",
            "",
            "Every stack is scored by a head fitted on the other stacks.",
            "",
            *_overview_table(report),
            "",
            *_stack_table(report),
            "",
        ]
    )


def _fit(rows: TrainingRows, examples: Examples, report: Report) -> Head:
    options = report.options
    alpha = options.alpha if options.alpha is not None else math.nan
    head = fit_head(
        examples.features,
        rows.scores,
        _defocus_dof(rows, options.dof_um),
        extractor=rows.table,
        label=_label(rows, options),
        name=options.name,
        alpha=alpha,
        groups=rows.stacks.tolist(),
        report=report.overview(),
    )
    if options.loss == "ridge":
        return head
    scaler, ridge = (step for _, step in head.pipeline.steps)
    own = fit_linear(options.loss, examples, alpha=alpha)[-1]
    own_slope, own_offset = np.atleast_2d(own.coef_), np.atleast_1d(own.intercept_)
    slope, offset = np.atleast_2d(ridge.coef_).copy(), np.atleast_1d(ridge.intercept_).copy()
    slope[0], offset[0] = own_slope[0], own_offset[0]
    if len(own_slope) > 1 and options.dof_um is not None:
        slope[1:], offset[1:] = own_slope[1:] / options.dof_um, own_offset[1:] / options.dof_um
    pipeline = type(head.pipeline)([("scaler", scaler), ("linear", ridge_of(slope, offset))])
    return replace(head, pipeline=pipeline)


def _label(rows: TrainingRows, options: TrainingOptions) -> Label:
    if options.target != TARGET:
        return Label(rows.sigma_um, unit="um", kind=f"column {options.target}")
    if options.dof_um is None or not _absolute(options, rows.sigma_um / options.dof_um):
        return Label(rows.sigma_um, unit="um")
    return Label(rows.sigma_um / options.dof_um)


def _absolute(options: TrainingOptions, sigma_dof: float) -> bool:
    """Whether a search may take a low score for out of focus.

    It expects 0.5 at two depths of field at most; a wider label would let it lock farther away. A
    ranking puts planes of one stack in order, and 1 need not be sharp on the next specimen.
    """
    return options.loss != "ranking" and sigma_dof <= 1.001 * SIGMA_DOF


def _defocus_dof(rows: TrainingRows, dof_um: float | None) -> Float64 | None:
    distance_um = np.abs(rows.z_um - rows.z_in_focus_um)
    if dof_um is None or np.isnan(distance_um).any():
        return None
    return np.minimum(distance_um / dof_um, _FARTHEST_DOF)


def _predict(head: Head, rows: TrainingRows) -> Float64:
    return np.array([head.predict(row).score for row in rows.table.features])


def _overview_table(report: Report) -> list[str]:
    lines = [
        "| head | SRCC mean (95 %) | median | PLCC mean (95 %) | median "
        "| error, um, mean (95 %) | median | at the edge |",
        "|---|---|---|---|---|---|---|---|",
        _overview_row("this one", report.summary),
    ]
    if report.before is None:
        return [*lines, "", f"Not compared with the head in use: {report.before_title}."]
    return [*lines, _overview_row(report.before_title, summarise(report.before))]


def _overview_row(title: str, summary: Summary) -> str:
    cells = [_spread(summary.srcc), _spread(summary.plcc), _spread(summary.error_um)]
    return f"| {title} | {' | '.join(cells)} | {summary.at_edge} of {summary.stacks} |"


def _spread(spread: Spread | None) -> str:
    if spread is None:
        return "- | -"
    return f"{spread.mean:.3f} ({spread.low:.3f} to {spread.high:.3f}) | {spread.median:.3f}"


def _stack_table(report: Report) -> list[str]:
    dof_um = report.options.dof_um
    rows = [
        "| stack | SRCC | PLCC | in focus, um | chosen, um | error, um | error, DOF | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for each in report.left_out:
        in_dof = None if dof_um is None or each.error_um is None else each.error_um / dof_um
        numbers = (
            each.srcc,
            each.plcc,
            each.z_in_focus_um,
            each.z_chosen_um,
            each.error_um,
            in_dof,
        )
        cells = " | ".join(_number(value) for value in numbers)
        rows.append(f"| {each.stack} | {cells} | {'at the edge' if each.at_edge else ''} |")
    return rows


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _finite(value: Any) -> Any:
    """The same with None for NaN, which JSON has not."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value
