"""A photograph of one simulated run: what the camera saw, and the two curves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from autofocus.bench.locks import Case, Outcome, focus_simulated
from autofocus.focus import FocusResult
from devices import Frame
from models.scorer import Scorer


def portrait(case: Case, scorer: Scorer, path: Path) -> Outcome:
    """Run one case and draw frames at start, best plane and end over the curves.

    Returns
    -------
    Outcome
        The judgement of the run.
    """
    frames: list[Frame] = []
    outcome, result, best_um = focus_simulated(
        case, scorer.name, scorer, on_frame=lambda _, frame: frames.append(frame)
    )
    figure = Figure(figsize=(10, 7), layout="constrained")
    grid = figure.add_gridspec(2, 3, height_ratios=(1, 1))
    nearest = min(frames, key=lambda frame: abs(frame.z_um - best_um))
    shown = (("start", frames[0]), ("nearest to the true plane", nearest), ("end", frames[-1]))
    for column, (title, frame) in enumerate(shown):
        _show(
            figure.add_subplot(grid[0, column]), frame, f"{title}: {frame.z_um - best_um:+.2f} um"
        )
    _curves(figure.add_subplot(grid[1, :]), result, best_um)
    figure.suptitle(
        f"{case.kind}, seed {case.seed}, {outcome.photons:.0f} photons: {outcome.verdict}, "
        f"{result.exposures} exposures, error {outcome.error_dof:.2f} DOF"
    )
    figure.savefig(path, dpi=110)
    return outcome


def _show(axes: Axes, frame: Frame, title: str) -> None:
    low, high = np.percentile(frame.image.astype(np.float32), (1, 99.8))
    axes.imshow(frame.image, cmap="gray", vmin=low, vmax=max(high, low + 1))
    axes.set_title(title)
    axes.set_axis_off()


def _curves(axes: Axes, result: FocusResult, best_um: float) -> None:
    points = sorted(result.curve, key=lambda point: point.z_um)
    z_um = np.array([point.z_um for point in points])
    score = np.array([point.score for point in points])
    axes.plot(z_um, score, "o-", label=result.scorer)
    axes.set_xlabel("z (um)")
    axes.set_ylabel(f"score, {result.scorer}")
    if result.referee is not None:
        referee = np.array([point.referee for point in points], dtype=float)
        axes.plot(z_um, _to_range(referee, score), "s--", label=f"{result.referee} (scaled)")
    axes.axvline(best_um, color="k", lw=0.8, label="true best plane")
    axes.axvline(result.final_z_um, color="tab:red", lw=0.8, ls=":", label="end of the run")
    axes.legend()


def _to_range(values: NDArray[np.float64], like: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scale to the range of another curve, to compare shapes."""
    share = (values - values.min()) / max(float(np.ptp(values)), 1e-12)
    return like.min() + share * np.ptp(like)
