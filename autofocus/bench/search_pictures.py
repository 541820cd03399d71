"""The benchmark of the search as pictures: what all runs came to, and what single runs did."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BytesIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import norm

from autofocus.bench.search_outcome import Outcome
from autofocus.bench.search_report import (
    advised,
    answered,
    binned,
    entrants,
    locked_with_sigma,
    of_group,
)

SCORE, REFEREE, TRUTH, END = "tab:blue", "0.7", "tab:green", "tab:red"


def overview(outcomes: Sequence[Outcome]) -> bytes:
    """PNG: exposures against error, coverage of the uncertainty, reliability of the confidence."""
    figure = Figure(figsize=(15, 4.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    _draw_costs(left, [o for o in advised(of_group(outcomes, "cold")) if o.locked])
    _draw_coverage(middle, locked_with_sigma(advised(outcomes)))
    _draw_reliability(right, answered(advised(outcomes)))
    return _png(figure)


def _draw_costs(axes: Axes, cold: Sequence[Outcome]) -> None:
    """Beside one another, for exposures are whole numbers."""
    names = entrants(cold)
    for i, name in enumerate(names):
        runs = [o for o in cold if o.entrant == name]
        error = np.maximum([run.error_dof for run in runs], 0.005)
        exposures = np.array([run.exposures for run in runs]) + 0.5 * i / len(names)
        axes.scatter(exposures, error, s=8, alpha=0.5, label=name)
    axes.axhline(0.5, color="0.5", linewidth=1)
    axes.set(xlabel="exposures", ylabel="error, DOF", yscale="log", title="cold starts, locked")
    if names:
        axes.legend(fontsize=8)


def _draw_coverage(axes: Axes, locked: Sequence[Outcome]) -> None:
    ratio = np.sort([run.answer_error_dof / run.sigma_dof for run in locked])
    axes.plot(ratio, np.arange(1, ratio.size + 1) / max(1, ratio.size), label="measured")
    normal = np.linspace(0, 4, 100)
    axes.plot(normal, 2 * norm.cdf(normal) - 1, "--", color="0.5", label="normal distribution")
    axes.set(
        xlabel="|error| / uncertainty", ylabel="share of locked runs", xlim=(0, 4), title="coverage"
    )
    axes.legend(fontsize=8)


def _draw_reliability(axes: Axes, judged: Sequence[Outcome]) -> None:
    bins = [runs for runs in binned(judged) if runs]
    said = [float(np.mean([run.confidence for run in runs])) for runs in bins]
    held = [float(np.mean([run.answer_error_dof <= 0.5 for run in runs])) for runs in bins]
    axes.plot([0, 1], [0, 1], "--", color="0.5")
    axes.scatter(said, held, s=[8 + 4 * len(runs) ** 0.5 for runs in bins])
    for x, y, runs in zip(said, held, bins, strict=True):
        axes.annotate(
            f"{len(runs)}", (x, y), xytext=(6, -9), textcoords="offset points", fontsize=8
        )
    axes.set(
        xlabel="confidence", ylabel="within half a DOF", title="reliability, with numbers of runs"
    )


def single_runs(outcomes: Sequence[Outcome]) -> bytes:
    """PNG: the readings of typical and of the worst runs of the advised strategies, in order."""
    shown = list(_worth_showing(advised(outcomes)))
    rows = max(1, (len(shown) + 1) // 2)
    figure = Figure(figsize=(13, 3.9 * rows), layout="constrained")
    axes = figure.subplots(rows, 2, squeeze=False).ravel()
    for ax, (title, run) in zip(axes, shown, strict=False):
        _draw_run(ax, title, run)
    if shown:
        axes[0].legend(fontsize=7, framealpha=0.8)
    for ax in axes[len(shown) :]:
        ax.set_axis_off()
    return _png(figure)


def _worth_showing(outcomes: Sequence[Outcome]) -> Iterator[tuple[str, Outcome]]:
    cold = [o for o in of_group(outcomes, "cold") if o.success]
    for name in entrants(cold):
        runs = sorted((o for o in cold if o.entrant == name), key=lambda o: o.exposures)
        yield "typical success", runs[len(runs) // 2]
    judged = [o for o in outcomes if not np.isnan(o.error_dof)]
    for title, runs, worst in (
        ("largest error of a lock", [o for o in judged if o.locked], lambda o: o.error_dof),
        ("false lock", [o for o in outcomes if o.false_lock], lambda o: o.confidence),
        (
            "refused although right",
            [o for o in judged if o.refused_although_right],
            lambda o: o.exposures,
        ),
        (
            "ended blurrier than begun",
            [o for o in judged if o.blurrier],
            lambda o: o.error_dof - o.start_error_dof,
        ),
    ):
        if runs:
            yield title, max(runs, key=worst)


def _draw_run(axes: Axes, title: str, run: Outcome) -> None:
    z_dof = np.array([z for z, _, _ in run.curve])
    score = np.array([score for _, score, _ in run.curve])
    case = run.case
    for plane_dof in sorted(run.accepted_dof, key=abs):
        best = plane_dof == 0
        label = "in-focus plane; thin: other accepted ones" if best else None
        axes.axvline(plane_dof, color=TRUTH, linewidth=2 if best else 0.7, label=label)
    axes.axvline(run.end_dof, color=END, linestyle=":", label="where the stage was left")
    _draw_referee(axes, run)
    order = np.argsort(z_dof, kind="stable")
    axes.plot(z_dof[order], score[order], color=SCORE, linewidth=0.8, alpha=0.5)
    axes.plot(z_dof, score, "o", color=SCORE, markersize=4, label="score")
    axes.plot(z_dof[0], score[0], "s", color="black", markersize=7, label="start")
    for number, at in _numbered(z_dof, score):
        axes.annotate(number, at, xytext=(3, 4), textcoords="offset points", fontsize=7)
    axes.set_title(
        f"{title}: {run.entrant}, {case.scope}, {case.kind}, fault {case.fault}, "
        f"{case.photons:.0f} photons\n{run.verdict} after {run.exposures} exposures, "
        f"{_distance(run)}, seed {case.seed}",
        fontsize=9,
    )
    axes.set(xlabel="z from the in-focus plane, DOF", ylabel="score")
    axes.margins(y=0.15)


def _distance(run: Outcome) -> str:
    if np.isnan(run.error_dof):
        return "nothing to focus on"
    return f"{run.error_dof:.2f} DOF from focus"


def _draw_referee(axes: Axes, run: Outcome) -> None:
    """From 0 to 1 on an axis of its own: its scale means nothing."""
    heard = sorted((z, referee) for z, _, referee in run.curve if referee is not None)
    if not heard:
        return
    z_dof, referee = (np.array(values) for values in zip(*heard, strict=True))
    span = np.ptp(referee) or 1.0
    twin = axes.twinx()
    twin.plot(z_dof, (referee - referee.min()) / span, color=REFEREE, linewidth=0.9)
    twin.set_yticks([])
    twin.set_ylim(-0.05, 1.15)
    twin.set_zorder(axes.get_zorder() - 1)
    axes.patch.set_visible(False)
    axes.plot([], [], color=REFEREE, linewidth=0.9, label="referee, own scale")


def _numbered(z_dof: np.ndarray, score: np.ndarray) -> Iterator[tuple[str, tuple[float, float]]]:
    """Numbers of the readings; those that lie on one another share a label."""
    reach = np.array([np.ptp(z_dof) / 60 or 1.0, np.ptp(score) / 25 or 1.0])
    at = np.column_stack([z_dof, score])
    left = list(range(len(at)))
    while left:
        near = [i for i in left if (np.abs(at[i] - at[left[0]]) <= reach).all()]
        yield ",".join(str(i + 1) for i in near), (at[near[0]][0], at[near[0]][1])
        left = [i for i in left if i not in near]


def _png(figure: Figure) -> bytes:
    target = BytesIO()
    figure.savefig(target, format="png", dpi=110)
    return target.getvalue()
