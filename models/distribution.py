"""Where the training features lie, and how far from them is too far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.model_selection import GroupKFold

Float64 = NDArray[np.float64]

_COMPONENTS = 32
_FOLDS = 5
_FEWEST = 10
_PERCENTILE = 99.9


@dataclass(frozen=True)
class Distribution:
    """A Gaussian with full covariance in a few directions and one variance in all others.

    The model of M. Tipping and C. Bishop, "Probabilistic principal component analysis", J. R.
    Statist. Soc. B 61 (1999) 611-622. Unlike a distance among the principal components alone, it
    also notices features that leave the space they span.

    Attributes
    ----------
    center : ndarray of shape (D,)
    components : ndarray of shape (k, D)
        Orthonormal.
    variances : ndarray of shape (k,)
        Along the components, positive.
    rest_variance : float
        Along every other direction, positive.
    threshold : float
        Distance that 99.9 % of the training features stay below when left out of the fit.
    """

    center: Float64
    components: Float64
    variances: Float64
    rest_variance: float
    threshold: float

    def distance(self, features: Float64) -> Float64:
        """Mahalanobis distance of standardised features, (n, D) -> (n,)."""
        centered = features - self.center
        along = centered @ self.components.T
        rest = np.maximum((centered**2).sum(axis=1) - (along**2).sum(axis=1), 0)
        return np.sqrt((along**2 / self.variances).sum(axis=1) + rest / self.rest_variance)


def fit_distribution(features: Float64, groups: Sequence[object] | None = None) -> Distribution:
    """Fit the Gaussian and its threshold.

    Distances of features that were part of the fit are too small, the more so the fewer there are.
    The threshold therefore comes from five-fold cross-fitting.

    Parameters
    ----------
    features : ndarray of shape (n, D)
        Standardised; n >= 10.
    groups : sequence of length n, optional
        Stack of each row; a stack is left out as a whole. By default neighbouring rows are left
        out together.

    Raises
    ------
    ValueError
        For fewer than ten rows or one group.
    """
    rows = len(features)
    if rows < _FEWEST:
        raise ValueError(f"{rows} rows are too few to tell what is usual; give {_FEWEST} or more")
    groups = groups if groups is not None else [row * _FOLDS // rows for row in range(rows)]
    folds = GroupKFold(min(_FOLDS, len(set(groups))))
    left_out = [
        _gaussian(features[train]).distance(features[test])
        for train, test in folds.split(features, groups=groups)
    ]
    whole = _gaussian(features)
    threshold = float(np.percentile(np.concatenate(left_out), _PERCENTILE))
    return Distribution(
        whole.center, whole.components, whole.variances, whole.rest_variance, threshold
    )


def _gaussian(features: Float64) -> Distribution:
    rows, dimensions = features.shape
    components = max(1, min(_COMPONENTS, rows // 4, dimensions - 1))
    pca = PCA(components, random_state=0).fit(features)
    # Some features are constant or copies of others; no direction may be infinitely narrow.
    least = 1e-6 * max(float(features.var(axis=0).mean()), 1e-12)
    return Distribution(
        center=pca.mean_,
        components=pca.components_,
        variances=np.maximum(pca.explained_variance_, least),
        rest_variance=max(float(pca.noise_variance_), least),
        threshold=np.inf,
    )
