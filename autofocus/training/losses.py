"""Linear heads on standardised features, by four losses.

Whatever the loss, the result is a StandardScaler and a Ridge, since a head is its numbers:
`models.head` reads mean, scale, slope and offset and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from autofocus.errors import DataError

Float64 = NDArray[np.float64]
Loss = Literal["ridge", "huber", "ranking", "multitask"]
LOSSES: tuple[Loss, ...] = get_args(Loss)

# Labels lie in 0..1: an error beyond this counts by its size, not by its square.
_HUBER_DELTA = 0.1
_ITERATIONS = 300
# How much the two slopes of the multi-task loss are expected to correlate.
_TASKS_ALIKE = 0.5


@dataclass(frozen=True)
class Examples:
    """Frames to fit on.

    Attributes
    ----------
    features : ndarray of shape (n, D)
    scores : ndarray of shape (n,)
        Labels, higher is sharper.
    stacks : ndarray of shape (n,)
        Stack of each row.
    distance : ndarray of shape (n,)
        To the plane in focus, not negative, in any one unit; NaN where not known.
    """

    features: Float64
    scores: Float64
    stacks: NDArray[np.str_]
    distance: Float64

    def only(self, rows: NDArray[Any]) -> Examples:
        """Some of the rows, by number or as a mask."""
        return Examples(
            self.features[rows], self.scores[rows], self.stacks[rows], self.distance[rows]
        )


def fit_linear(loss: Loss, examples: Examples, *, alpha: float) -> Pipeline:
    """Fit score = slope . standardised features + offset.

    Parameters
    ----------
    loss : {"ridge", "huber", "ranking", "multitask"}
        Squared error; P. Huber, "Robust estimation of a location parameter", Ann. Math. Statist.
        35 (1964) 73-101; the logistic loss on pairs within a stack of C. Burges et al., "Learning
        to rank using gradient descent", ICML 2005 (RankNet), brought to the scale of the labels
        afterwards; or squared error of score and distance together, with slopes that are expected
        to be alike: T. Evgeniou and M. Pontil, "Regularized multi-task learning", KDD 2004.
    examples : Examples
        Only the multi-task loss looks at their distance.
    alpha : float
        Weight of the squared length of the slope, as in `sklearn.linear_model.Ridge`.

    Returns
    -------
    Pipeline
        Predicts the score; with the multi-task loss score and distance. See `predicted_scores`.

    Raises
    ------
    DataError
        When the multi-task loss is given frames whose distance is not known.
    """
    x, y = examples.features, examples.scores
    if loss == "ridge":
        return make_pipeline(StandardScaler(), Ridge(alpha=alpha)).fit(x, y)
    scaler = StandardScaler().fit(x)
    x = scaler.transform(x)
    if loss == "huber":
        fitted = ridge_of(*_huber(x, y, alpha))
    elif loss == "ranking":
        fitted = ridge_of(*_ranking(x, y, examples.stacks, alpha))
    else:
        fitted = ridge_of(*_multitask(x, y, examples.distance, alpha))
    return make_pipeline(scaler, fitted)


def predicted_scores(fitted: Pipeline, features: Float64) -> Float64:
    """First output of what `fit_linear` gave."""
    outputs: Float64 = fitted.predict(features)
    return outputs if outputs.ndim == 1 else outputs[:, 0]


def ridge_of(slope: Float64, offset: Float64 | float) -> Ridge:
    """Ridge with these numbers in it."""
    ridge = Ridge()
    ridge.coef_, ridge.intercept_ = slope, offset
    ridge.n_features_in_ = slope.shape[-1]
    return ridge


def _huber(x: Float64, y: Float64, alpha: float) -> tuple[Float64, float]:
    """Minimise sum of 2 h(r) + alpha |w|^2, h(r) = r^2/2 near 0: ridge, but for outliers."""

    def loss(parameters: Float64) -> tuple[float, Float64]:
        slope, offset = parameters[:-1], parameters[-1]
        residual = x @ slope + offset - y
        clipped = np.clip(residual, -_HUBER_DELTA, _HUBER_DELTA)
        value = np.sum(clipped * (2 * residual - clipped)) + alpha * slope @ slope
        gradient = 2 * np.append(x.T @ clipped + alpha * slope, clipped.sum())
        return float(value), gradient

    found = _minimum(loss, np.append(np.zeros(x.shape[1]), np.median(y)))
    return found[:-1], float(found[-1])


def _ranking(
    x: Float64, y: Float64, stacks: NDArray[np.str_], alpha: float
) -> tuple[Float64, float]:
    """Minimise n times the mean of log(1 + exp(f_worse - f_better)) + alpha |w|^2 / 4."""
    better, worse = _pairs(y, stacks)
    weight = len(y) / max(len(better), 1)

    def loss(slope: Float64) -> tuple[float, Float64]:
        f = x @ slope
        margin = f[better] - f[worse]
        value = weight * np.logaddexp(0, -margin).sum() + alpha / 4 * slope @ slope
        pull = -weight / (1 + np.exp(np.clip(margin, -500, 500)))
        on_frames = np.bincount(better, pull, len(f)) - np.bincount(worse, pull, len(f))
        return float(value), x.T @ on_frames + alpha / 2 * slope

    slope = _minimum(loss, np.zeros(x.shape[1]))
    f = x @ slope
    spread = float(f.var())
    # Ranks have no scale: a straight line brings them to the labels. It never turns them round.
    gain = max(float(np.cov(f, y, bias=True)[0, 1]) / spread, 1e-6) if spread > 0 else 1.0
    return gain * slope, float(y.mean() - gain * f.mean())


def _multitask(
    x: Float64, score: Float64, distance: Float64, alpha: float
) -> tuple[Float64, Float64]:
    """Minimise the squared errors of score and nearness, each of unit variance, together.

    The prior on the two slopes is that of ridge, variance 1 / alpha each, but they correlate. Then
    their sum and their difference are independent, and each is a ridge of its own.
    """
    if np.isnan(distance).any():
        raise DataError(
            f"the loss multitask needs the distance of every frame to focus; "
            f"{np.isnan(distance).sum()} of {len(distance)} have no z or no plane in focus"
        )
    targets = np.stack([score, -distance], axis=1)
    scaler = StandardScaler().fit(targets)
    y = scaler.transform(targets)
    sum_and_difference = np.stack([y[:, 0] + y[:, 1], y[:, 0] - y[:, 1]], axis=1)
    strengths = alpha / np.array([1 + _TASKS_ALIKE, 1 - _TASKS_ALIKE])
    total, rest = Ridge(alpha=strengths).fit(x, sum_and_difference).coef_
    score_slope, nearness_slope = (total + rest) / 2, (total - rest) / 2
    slopes = np.stack([scaler.scale_[0] * score_slope, -scaler.scale_[1] * nearness_slope])
    # Standardised features have mean 0, so the offsets are the means.
    return slopes, np.array([score.mean(), distance.mean()])


def _pairs(y: Float64, stacks: NDArray[np.str_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows (better, worse) of all pairs within a stack whose labels differ."""
    better, worse = [], []
    for stack in np.unique(stacks):
        rows = np.flatnonzero(stacks == stack)
        first, second = np.nonzero(y[rows][:, None] > y[rows][None, :])
        better.append(rows[first])
        worse.append(rows[second])
    return np.concatenate(better), np.concatenate(worse)


def _minimum(loss: Callable[[Float64], tuple[float, Float64]], start: Float64) -> Float64:
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": _ITERATIONS})
    return np.asarray(found.x, np.float64)
