"""How a head does on stacks it has not seen: fitted on all stacks but one, tried on that one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import joblib
import numpy as np
from numpy.typing import NDArray
from scipy.stats import pearsonr, spearmanr
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import Pipeline

from autofocus.training.losses import Examples, Loss, fit_linear, predicted_scores
from autofocus.training.training_rows import LabelledPlanes, TrainingRows
from autofocus.training.workers import Workers

Float64 = NDArray[np.float64]

ALPHAS = (10.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0)
_INNER_FOLDS = 5
_RESAMPLES = 2000

# Beyond this many sigmas all frames look alike; their distance is not worth learning.
_FARTHEST_SIGMA = 6.0

Fit = Callable[[Examples], Pipeline]


@dataclass(frozen=True)
class LeftOut:
    """One stack, scored by a head that has not seen it.

    Attributes
    ----------
    stack : str
        Its name.
    z_um, labels, predicted : tuple of float
        Its curve; z is NaN where not known.
    srcc, plcc : float or None
        Rank and linear correlation of prediction and label; None where one of them is constant.
    z_in_focus_um, z_chosen_um : float or None
        Truth, and the plane with the best prediction; None where z is not known.
    at_edge : bool
        Whether the chosen plane is the first or last one.
    """

    stack: str
    z_um: tuple[float, ...]
    labels: tuple[float, ...]
    predicted: tuple[float, ...]
    srcc: float | None
    plcc: float | None
    z_in_focus_um: float | None
    z_chosen_um: float | None
    at_edge: bool

    @property
    def error_um(self) -> float | None:
        """Distance from the chosen plane to the truth, um."""
        if self.z_chosen_um is None or self.z_in_focus_um is None:
            return None
        return abs(self.z_chosen_um - self.z_in_focus_um)


@dataclass(frozen=True)
class Spread:
    """A quantity over stacks.

    Attributes
    ----------
    mean, median : float
    low, high : float
        95 % interval of the mean, by resampling stacks.
    """

    mean: float
    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Summary:
    """What the stacks say together; None where no stack says anything."""

    stacks: int
    srcc: Spread | None
    plcc: Spread | None
    error_um: Spread | None
    at_edge: int


def examples_of(rows: TrainingRows) -> Examples:
    """What is fitted on; the distance in um, cut where it says nothing any more."""
    distance_um = np.abs(rows.z_um - rows.z_in_focus_um)
    return Examples(
        rows.table.features.astype(np.float64),
        rows.scores,
        rows.stacks,
        np.minimum(distance_um, _FARTHEST_SIGMA * rows.sigma_um),
    )


def leave_one_stack_out(
    rows: TrainingRows, fit: Fit, *, workers: Workers | None = None
) -> tuple[LeftOut, ...]:
    """Predict every stack by a fit on the others.

    Raises
    ------
    DataError
        When ``fit`` refuses the rows.
    ClusterError
        See `autofocus.training.workers.Workers.parallel`.
    """
    examples = examples_of(rows)
    tests = [np.flatnonzero(rows.stacks == stack) for stack in np.unique(rows.stacks)]
    predicted = np.zeros(len(rows))
    with (workers or Workers()).parallel(examples) as parallel:
        folds = parallel(joblib.delayed(_predict_unseen)(examples, test, fit) for test in tests)
        for test, said in zip(tests, folds, strict=True):
            predicted[test] = said
    return judge(rows, predicted)


def _predict_unseen(examples: Examples, test: NDArray[np.intp], fit: Fit) -> Float64:
    fitted = fit(examples.only(np.delete(np.arange(len(examples.scores)), test)))
    return predicted_scores(fitted, examples.features[test])


def judge(rows: TrainingRows | LabelledPlanes, predicted: Float64) -> tuple[LeftOut, ...]:
    """Compare predictions with labels, stack by stack, in the order of the rows."""
    stacks = rows.stacks
    names = dict.fromkeys(stacks.tolist())
    return tuple(_judge_stack(name, rows, predicted, stacks == name) for name in names)


def fit_with(loss: Loss, alpha: float | None) -> Fit:
    """A fit with this loss; without alpha, each time with the best one inside what it is given."""

    def fit(examples: Examples) -> Pipeline:
        chosen = alpha if alpha is not None else choose_alpha(loss, examples)
        return fit_linear(loss, examples, alpha=chosen)

    return fit


def choose_alpha(loss: Loss, examples: Examples) -> float:
    """Strength of the ridge for stacks that are not among these, one of `ALPHAS`.

    The strongest whose mean correlation with the labels of left-out stacks is within a standard
    error of the best: the rule of L. Breiman et al., "Classification and Regression Trees", 1984.
    A few stacks tell the best from the second best only by chance, and a weak ridge fails badly on
    the next odd specimen. Fewer than two stacks leave nothing to choose by; 1000 then, as in the
    notes.
    """
    folds = min(_INNER_FOLDS, len(np.unique(examples.stacks)))
    if folds < 2:
        return 1000.0
    splits = list(GroupKFold(folds).split(examples.features, groups=examples.stacks))
    merits = {alpha: _merits(loss, alpha, examples, splits=splits) for alpha in ALPHAS}
    best = max(merits.values(), key=lambda found: float(found.mean()))
    enough = best.mean() - best.std(ddof=1) / math.sqrt(len(best))
    return max(alpha for alpha, found in merits.items() if found.mean() >= enough)


def _merits(
    loss: Loss,
    alpha: float,
    examples: Examples,
    *,
    splits: Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]],
) -> Float64:
    """Correlation with the labels of every stack when it is left out."""
    scores = examples.scores
    predicted = np.zeros(len(scores))
    for train, test in splits:
        fitted = fit_linear(loss, examples.only(train), alpha=alpha)
        predicted[test] = predicted_scores(fitted, examples.features[test])
    own = [examples.stacks == stack for stack in np.unique(examples.stacks)]
    return np.array([_correlation(pearsonr, predicted[r], scores[r]) or 0.0 for r in own])


def summarise(left_out: Sequence[LeftOut]) -> Summary:
    """Mean and median over stacks, each stack counting once."""
    return Summary(
        stacks=len(left_out),
        srcc=spread([each.srcc for each in left_out]),
        plcc=spread([each.plcc for each in left_out]),
        error_um=spread([each.error_um for each in left_out]),
        at_edge=sum(each.at_edge for each in left_out),
    )


def _judge_stack(
    name: str, rows: TrainingRows | LabelledPlanes, predicted: Float64, own: NDArray[np.bool_]
) -> LeftOut:
    z_um, labels, said = rows.z_um[own], rows.scores[own], predicted[own]
    if not np.isnan(z_um).any():
        order = np.argsort(z_um, kind="stable")
        z_um, labels, said = z_um[order], labels[order], said[order]
    best = int(np.argmax(said))
    return LeftOut(
        stack=name,
        z_um=tuple(z_um.tolist()),
        labels=tuple(labels.tolist()),
        predicted=tuple(said.tolist()),
        srcc=_correlation(spearmanr, said, labels),
        plcc=_correlation(pearsonr, said, labels),
        z_in_focus_um=_known(float(rows.z_in_focus_um[own][0])),
        z_chosen_um=_known(float(z_um[best])),
        at_edge=best in (0, len(said) - 1),
    )


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _correlation(kind: Callable[..., tuple[float, float]], a: Float64, b: Float64) -> float | None:
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(kind(a, b)[0])


def spread(values: Sequence[float | None]) -> Spread | None:
    """Mean and median over stacks, and how sure the mean is; None where no value is known."""
    known = np.array([value for value in values if value is not None])
    if len(known) == 0:
        return None
    draws = np.random.default_rng(0).choice(known, (_RESAMPLES, len(known))).mean(axis=1)
    low, high = np.percentile(draws, (2.5, 97.5))
    return Spread(float(known.mean()), float(np.median(known)), float(low), float(high))
