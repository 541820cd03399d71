"""Where focus may be, given the readings so far: a probability for every position.

A reading is taken for ``b + a S(z - z*)`` plus noise: ``S`` the shape of the focus curve, ``z*``
the in-focus plane. Level ``b`` and height ``a`` have normal priors and are integrated out
(Bayesian linear regression: C. Bishop, *Pattern Recognition and Machine Learning*, 2006, section
3.5), the width of the shape is summed over, and "there is nothing to focus on" is a hypothesis like
any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from autofocus.search.protocol import Reading, SearchSettings

Float64 = NDArray[np.float64]

STEP_DOF = 0.25
# Focus may lie beyond the bounds, where it cannot be visited but lifts the readings near them.
BEYOND_DOF = 12.0
# Share of the prior on "focus is somewhere the range does not cover", and on "there is none".
OUTSIDE = 0.1
NOTHING = 0.1
# Share of the greatest probability below which a hypothesis is not asked what it expects.
NEGLIGIBLE = 1e-4
EVERY = slice(None)


@dataclass(frozen=True)
class Expected:
    """What is expected of a score before any reading; see `absolute_score` for where it is from.

    Attributes
    ----------
    height, level : tuple of (float, float)
        Mean and standard deviation of ``a`` and of ``b``.
    nothing : tuple of (float, float)
        The same of a score where there is nothing to focus on.
    noise : ndarray of shape (shapes,)
        Standard deviation of a reading about the curve, departures from its shape included; it is
        not known either, so that every shape is there with several.
    shapes : ndarray of shape (shapes, positions)
        ``S`` over `defocus_dof`, highest 1.
    weight : ndarray of shape (shapes,)
        Prior probability of each.
    defocus_dof : ndarray of shape (positions,)
        Rising.
    """

    height: tuple[float, float]
    level: tuple[float, float]
    nothing: tuple[float, float]
    noise: Float64
    shapes: Float64
    weight: Float64
    defocus_dof: Float64


def absolute_score() -> Expected:
    """Of a score that means 1 in focus and 0 far away, on any specimen.

    The numbers are those of `reiqa-compact` over simulated specimens of nine kinds through five
    objectives (`docs/benchmarks/search.md`), with ``1 / (1 + (d / w)^2)`` as its shape.
    """
    defocus = np.linspace(-80.0, 80.0, 2561)
    widths = np.geomspace(0.8, 5.0, 6)
    weight = np.exp(-((np.log(widths / 2.0) / 0.6) ** 2) / 2)
    return _with_noises(
        height=(0.75, 0.25),
        level=(0.12, 0.08),
        nothing=(0.2, 0.15),
        noises=(0.02, 0.04, 0.08),
        shapes=1 / (1 + (defocus / widths[:, None]) ** 2),
        weight=weight,
        defocus_dof=defocus,
    )


def measured_score(settings: SearchSettings) -> Expected:
    """Of the score that this rig was calibrated with.

    The specimen may be brighter or thicker than the one of the calibration, so height and width
    may differ a little.
    """
    curve = settings.calibrated
    assert curve is not None
    defocus = np.linspace(-80.0, 80.0, 2561)
    at = np.array(curve.defocus_um) / settings.dof_um
    score = np.array(curve.score)
    low, height = float(score.min()), float(np.ptp(score))
    stretches = np.array([0.8, 0.9, 1.0, 1.1, 1.25])
    shapes = [np.interp(defocus / stretch, at, (score - low) / height) for stretch in stretches]
    noise = max(curve.noise, 0.02 * height)
    return _with_noises(
        height=(height, 0.2 * height),
        level=(low, 0.1 * height),
        nothing=(low, 0.2 * height),
        noises=(noise, 2 * noise),
        shapes=np.array(shapes),
        weight=np.array([0.1, 0.2, 0.4, 0.2, 0.1]),
        defocus_dof=defocus,
    )


def _with_noises(
    *,
    height: tuple[float, float],
    level: tuple[float, float],
    nothing: tuple[float, float],
    noises: tuple[float, ...],
    shapes: Float64,
    weight: Float64,
    defocus_dof: Float64,
) -> Expected:
    """Every shape with every noise."""
    return Expected(
        height=height,
        level=level,
        nothing=nothing,
        noise=np.repeat(noises, len(weight)),
        shapes=np.tile(shapes, (len(noises), 1)),
        weight=np.tile(weight, len(noises)) / (len(noises) * weight.sum()),
        defocus_dof=defocus_dof,
    )


@dataclass(frozen=True)
class Belief:
    """What is believed after some readings.

    Attributes
    ----------
    z_um : ndarray of shape (positions,)
        Candidates for the in-focus plane, um, rising; some lie beyond the bounds.
    chance : ndarray of shape (positions,)
        Probability of each; together with ``nothing`` they sum to 1.
    nothing : float
        Probability that there is nothing to focus on.
    misfit : float
        Root mean square of the residuals about the best hypothesis, in units of the largest noise.
    """

    z_um: Float64
    chance: Float64
    nothing: float
    misfit: float
    _by_shape: Float64
    _level: Float64
    _height: Float64
    _flat: float
    _expected: Expected
    _dof_um: float

    @property
    def best_um(self) -> float:
        """Mean of the position over its most probable neighbourhood, um."""
        near = self._near_the_top()
        return float(np.average(self.z_um[near], weights=self.chance[near]))

    @property
    def sigma_um(self) -> float:
        """Standard deviation there, um."""
        near = self._near_the_top()
        spread = (self.z_um[near] - self.best_um) ** 2
        grain_um = STEP_DOF * self._dof_um / 12**0.5
        return float(np.sqrt(np.average(spread, weights=self.chance[near]) + grain_um**2))

    def within(self, z_um: float, half_um: float) -> float:
        """Probability that focus lies within ``half_um`` of ``z_um``."""
        return float(self.chance[np.abs(self.z_um - z_um) <= half_um].sum())

    def beyond(self, low_um: float, high_um: float) -> tuple[float, float]:
        """Probabilities that focus lies below ``low_um`` and above ``high_um``."""
        below, above = self.z_um < low_um, self.z_um > high_um
        return float(self.chance[below].sum()), float(self.chance[above].sum())

    def disagreement(self, candidates_um: Float64) -> Float64:
        """Variance between the hypotheses of what a reading would be.

        With normal noise the information of a reading grows with it alone; so the most telling
        position is where the hypotheses differ most (D. MacKay, *Neural Computation* 4, 590, 1992).
        """
        # What is all but excluded does not count, and would take most of the time.
        shape, plane = np.nonzero(self._by_shape > NEGLIGIBLE * self._by_shape.max())
        defocus = (candidates_um[:, None] - self.z_um[plane]) / self._dof_um
        height, level = self._height[shape, plane], self._level[shape, plane]
        said = level + height * _shape_at(self._expected, defocus, shape)
        weight = np.append(self._by_shape[shape, plane], self.nothing)
        said = np.column_stack([said, np.full(len(said), self._flat)])
        weight = weight / weight.sum()
        mean = said @ weight
        variance: Float64 = (said - mean[:, None]) ** 2 @ weight
        return variance

    def _near_the_top(self) -> NDArray[np.bool_]:
        reach_um = 3.0 * self._dof_um
        # Summed over a depth of field, so that one narrow spike does not outweigh a broad hill.
        width = max(1, round(1 / STEP_DOF))
        summed = np.convolve(self.chance, np.ones(width), "same")
        return np.abs(self.z_um - self.z_um[int(np.argmax(summed))]) <= reach_um


def believe(curve: Sequence[Reading], settings: SearchSettings, expected: Expected) -> Belief:
    """Weigh every position against the readings.

    Parameters
    ----------
    curve : sequence of Reading
        All readings of the run; saturated and dark ones tell nothing and are left out.
    settings : SearchSettings
        Bounds, range, depth of field, and where focus is expected.
    expected : Expected
        What is known of the score.
    """
    used = [reading for reading in curve if not reading.saturated]
    at_um = np.array([reading.z_um for reading in used])
    score = np.array([reading.score for reading in used])
    z_um, prior = _prior(settings)
    shape = _shape_at(expected, (at_um[:, None] - z_um) / settings.dof_um)
    evidence, level, height = _regression(shape, score, expected)
    log_chance = evidence + np.log(expected.weight)[:, None] + np.log(prior)
    flat_evidence, flat = _flat(score, expected)
    every = np.append(log_chance.ravel(), flat_evidence + np.log(NOTHING))
    probability = np.exp(every - every.max())
    probability /= probability.sum()
    by_shape = probability[:-1].reshape(log_chance.shape)
    top = np.unravel_index(int(np.argmax(by_shape)), by_shape.shape)
    residual = score - level[top] - height[top] * shape[top[0], :, top[1]]
    misfit = float(np.sqrt(np.mean(residual**2))) if residual.size else 0.0
    return Belief(
        z_um=z_um,
        chance=by_shape.sum(axis=0),
        nothing=float(probability[-1]),
        misfit=misfit / float(expected.noise.max()),
        _by_shape=by_shape,
        _level=level,
        _height=height,
        _flat=flat,
        _expected=expected,
        _dof_um=settings.dof_um,
    )


def _prior(settings: SearchSettings) -> tuple[Float64, Float64]:
    """Candidates for the in-focus plane and what is thought of them before the first reading."""
    beyond_um = BEYOND_DOF * settings.dof_um
    low, high = settings.z_min_um - beyond_um, settings.z_max_um + beyond_um
    half_um = settings.range_um / 2
    reach_um = half_um * (1 + settings.max_extensions / 2) + beyond_um
    low = max(low, settings.center_um - reach_um)
    high = min(high, settings.center_um + reach_um)
    z_um = np.arange(low, high, STEP_DOF * settings.dof_um)
    inside = np.abs(z_um - settings.center_um) <= half_um
    prior = np.where(inside, 1.0, 0.0)
    if settings.expected is not None:
        off = (z_um - settings.expected.z_um) / settings.expected.sigma_um
        prior = np.exp(-(off**2) / 2)
    uniform = np.full(z_um.size, 1 / z_um.size)
    prior = (1 - OUTSIDE) * prior / max(prior.sum(), 1e-12) + OUTSIDE * uniform
    return z_um, prior * (1 - NOTHING)


def _shape_at(
    expected: Expected, defocus_dof: Float64, shape: NDArray[np.intp] | slice = EVERY
) -> Float64:
    """``S`` at distances, for the shapes chosen; for every shape: (shapes, *distances)."""
    grid = expected.defocus_dof
    step = grid[1] - grid[0]
    index = np.clip(np.rint((defocus_dof - grid[0]) / step).astype(np.intp), 0, grid.size - 1)
    return np.asarray(expected.shapes[shape, index])


def _regression(
    shape: Float64, score: Float64, expected: Expected
) -> tuple[Float64, Float64, Float64]:
    """Log evidence, level and height of every hypothesis: each (shapes, planes)."""
    (a0, a_sd), (b0, b_sd) = expected.height, expected.level
    noise2, count = expected.noise[:, None] ** 2, len(score)
    left = score[None, :, None] - b0 - a0 * shape
    # Posterior precision of (b, a) about their means, a 2 x 2 matrix a hypothesis.
    p_bb = 1 / b_sd**2 + count / noise2
    p_ba = shape.sum(axis=1) / noise2
    p_aa = 1 / a_sd**2 + (shape**2).sum(axis=1) / noise2
    v_b, v_a = left.sum(axis=1) / noise2, (left * shape).sum(axis=1) / noise2
    determinant = p_bb * p_aa - p_ba**2
    level = (p_aa * v_b - p_ba * v_a) / determinant
    height = (p_bb * v_a - p_ba * v_b) / determinant
    fit = (left**2).sum(axis=1) / noise2 - (level * v_b + height * v_a)
    spread = np.log(determinant * a_sd**2 * b_sd**2) + count * np.log(noise2)
    evidence = -0.5 * (fit + spread)
    return evidence, b0 + level, a0 + height


def _flat(score: Float64, expected: Expected) -> tuple[float, float]:
    """Log evidence of a level without a peak, and the level."""
    mean, spread = expected.nothing
    noise2, left = np.unique(expected.noise) ** 2, score - mean
    precision = 1 / spread**2 + len(score) / noise2
    level = left.sum() / noise2 / precision
    fit = (left**2).sum() / noise2 - precision * level**2
    evidence = -0.5 * (fit + np.log(precision * spread**2) + len(score) * np.log(noise2))
    return float(logsumexp(evidence) - np.log(noise2.size)), mean + float(level.mean())
