"""The fitted part of a head as plain arrays, which predict the same in every scikit-learn.

A ridge reads score and distance. A network says how likely each of a few dozen distances is; the
score is the mean of the label over them, the distance their median, and how far they are from it
tells how sure it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.neural_network import MLPClassifier

OUTPUTS = ("score", "defocus_dof", "defocus_sd_dof")

Float64 = NDArray[np.float64]
Affine = tuple[tuple[Float64, Float64], ...]


@dataclass(frozen=True)
class PlainRegressor:
    """Affine maps with a rectifier between one and the next.

    Attributes
    ----------
    affine : tuple of (slope, offset)
        First map first; slopes of shape (inputs, outputs).
    distances : ndarray of shape (k,) or None
        Distance to focus that each output of a network stands for, in depths of field, ascending;
        the last one stands for what is beyond, too. None for a ridge.
    sigma : float
        Distance at which the label is 0.5; of no use to a ridge.
    """

    affine: Affine
    distances: Float64 | None
    sigma: float

    def __post_init__(self) -> None:
        """Check that every map fits on the one before, and that distances grow.

        Raises
        ------
        ValueError
        """
        size = self.inputs
        for slope, offset in self.affine:
            if slope.shape != (size, len(offset)):
                raise ValueError(f"a map of {slope.shape} cannot follow {size} values")
            size = len(offset)
        if self.distances is not None and self.distances.shape != (size,):
            raise ValueError(f"{size} outputs cannot stand for {self.distances.shape} distances")
        if self.distances is not None and not (np.diff(self.distances) > 0).all():
            raise ValueError("the distances of a network must grow from one to the next")
        if not all(np.isfinite(part).all() for pair in self.affine for part in pair):
            raise ValueError("some weights are no numbers")

    @property
    def linear(self) -> bool:
        """Whether it is a ridge, which cannot multiply and is given products."""
        return self.distances is None

    @property
    def inputs(self) -> int:
        """Number of standardised inputs."""
        return len(self.affine[0][0])

    @property
    def outputs(self) -> int:
        """Number of columns of what it predicts."""
        return len(self.affine[-1][1]) if self.distances is None else len(OUTPUTS)

    def predict(self, standardised: Float64) -> Float64:
        """Standardised inputs (n, inputs) to the first ``outputs`` of `OUTPUTS`, (n, outputs)."""
        *hidden, (slope, offset) = self.affine
        for hidden_slope, hidden_offset in hidden:
            standardised = np.maximum(standardised @ hidden_slope + hidden_offset, 0)
        last = standardised @ slope + offset
        if self.distances is None:
            return last
        likely = softmax(last, axis=1)
        score = likely @ label_of(self.distances, self.sigma)
        middle = _medians(likely, self.distances)
        squares = (self.distances - middle[:, None]) ** 2
        return np.stack([score, middle, np.sqrt((likely * squares).sum(axis=1))], axis=1)


def label_of(distance: Float64, sigma: float) -> Float64:
    """What a head is fitted to say of planes: 1 in focus, 0.5 at ``sigma``, in its unit."""
    return 1 / (1 + (distance / sigma) ** 2)


def _medians(likely: Float64, distances: Float64) -> Float64:
    """Interpolated between distances; (n, k) and (k,) to (n,)."""
    below = np.cumsum(likely, axis=1) - likely / 2
    return np.array([np.interp(0.5, each, distances) for each in below])


def plain_regressor(fitted: Any, *, sigma: float) -> PlainRegressor:
    """Take the arrays out of a scikit-learn ``Ridge`` or ``MLPClassifier`` of distances.

    Raises
    ------
    AttributeError, TypeError, ValueError
        When it is neither, or not fitted.
    """
    if isinstance(fitted, MLPClassifier):
        if fitted.activation != "relu":
            raise ValueError(f"activation {fitted.activation!r} is not 'relu'")
        if fitted.out_activation_ != "softmax":
            raise ValueError("a network must tell three distances apart at least")
        pairs = zip(fitted.coefs_, fitted.intercepts_, strict=True)
        affine = tuple((slope.astype(np.float64), at.astype(np.float64)) for slope, at in pairs)
        return PlainRegressor(affine, np.asarray(fitted.classes_, np.float64), sigma)
    slope = np.atleast_2d(fitted.coef_).astype(np.float64).T
    offset = np.broadcast_to(np.float64(fitted.intercept_), slope.shape[1])
    return PlainRegressor(((slope, offset),), None, sigma)
