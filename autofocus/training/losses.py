"""Linear heads on standardised features, by three losses.

Whatever the loss, the result is a StandardScaler and a Ridge, since a head is its numbers:
`models.head` reads mean, scale, slope and offset and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

Float64 = NDArray[np.float64]
Loss = Literal["ridge", "huber", "ranking"]

# Labels lie in 0..1: an error beyond this counts by its size, not by its square.
_HUBER_DELTA = 0.1
_ITERATIONS = 300


def fit_linear(
    loss: Loss, features: Float64, scores: Float64, stacks: Sequence[str], *, alpha: float
) -> Pipeline:
    """Fit score = slope . standardised features + offset.

    Parameters
    ----------
    loss : {"ridge", "huber", "ranking"}
        Squared error; P. Huber, "Robust estimation of a location parameter", Ann. Math. Statist.
        35 (1964) 73-101; or the logistic loss on pairs within a stack of C. Burges et al.,
        "Learning to rank using gradient descent", ICML 2005 (RankNet), brought to the scale of the
        labels afterwards.
    features : ndarray of shape (n, D)
    scores : ndarray of shape (n,)
        Labels, higher is sharper.
    stacks : sequence of length n
        Stack of each row.
    alpha : float
        Weight of the squared length of the slope, as in `sklearn.linear_model.Ridge`.
    """
    if loss == "ridge":
        return make_pipeline(StandardScaler(), Ridge(alpha=alpha)).fit(features, scores)
    scaler = StandardScaler().fit(features)
    x = scaler.transform(features)
    if loss == "huber":
        slope, offset = _huber(x, scores, alpha)
    else:
        slope, offset = _ranking(x, scores, np.asarray(stacks), alpha)
    return make_pipeline(scaler, ridge_of(slope, offset))


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
