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

from autofocus.search import known_score
from autofocus.search.protocol import Reading, SearchSettings

Float64 = NDArray[np.float64]

STEP_DOF = 0.25
# Around the most probable plane, which is wanted more closely than the others.
FINE_STEP_DOF = 0.05
FINE_REACH_DOF = 1.5
# Focus may lie beyond the bounds, where it cannot be visited but lifts the readings near them.
BEYOND_DOF = 12.0
# Share of the prior on "focus is somewhere the range does not cover", and on "there is none".
OUTSIDE = 0.1
NOTHING = 0.1
# So many hypotheses, the most probable ones, are asked what they expect: more take long and tell
# the same.
MOST_ASKED = 4000
# Half widths of the bells, in standard deviations of their logarithm about the median: a specimen
# far thicker than the depth of field makes one ten times as wide as usual.
WIDTHS = np.linspace(-1.6, 3.2, 9)
SKEWS = np.array([-1.2, 0.0, 1.2])
# A calibration speaks of another specimen of the same kind: how much wider the curve of this one
# may be, and the probability that it is of no such kind and must be judged like any specimen.
STRETCHES = np.array([0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.4])
STRETCH_SD = 0.2
OTHER_KIND = 0.2
REACH_DOF = 80.0
EVERY = slice(None)

MeanAndSd = tuple[float, float]


@dataclass(frozen=True)
class Expected:
    """What is expected of a score before any reading: many curves, each with a probability.

    Attributes
    ----------
    shapes : ndarray of shape (curves, positions)
        ``S`` over `defocus_dof`, highest 1.
    height, level : ndarray of shape (curves, 2)
        Mean and standard deviation of ``a`` and of ``b``.
    noise : ndarray of shape (curves,)
        Standard deviation of a reading about the curve, departures from its shape included; it is
        not known either, so that every shape is there with several.
    weight : ndarray of shape (curves,)
        Prior probability of each; they sum to 1.
    nothing : tuple of (float, float)
        Mean and standard deviation of a score where there is nothing to focus on.
    defocus_dof : ndarray of shape (positions,)
        Rising, evenly.
    """

    shapes: Float64
    height: Float64
    level: Float64
    noise: Float64
    weight: Float64
    nothing: MeanAndSd
    defocus_dof: Float64


def absolute_score() -> Expected:
    """Of a score that means 1 in focus and 0 far away, on any specimen: see `known_score`."""
    defocus = _defocus_dof()
    median, spread = known_score.HALF_WIDTH_DOF
    widths = median * np.exp(spread * WIDTHS)
    skews = known_score.SKEW * SKEWS
    shapes = [_bell(defocus, width, skew) for width in widths for skew in skews]
    return _with_noises(
        height=known_score.HEIGHT,
        level=known_score.LEVEL,
        nothing=known_score.NOTHING,
        noises=known_score.NOISES,
        shapes=np.array(shapes),
        weight=np.outer(_normal(WIDTHS), _normal(SKEWS)).ravel(),
        defocus_dof=defocus,
    )


def measured_score(settings: SearchSettings) -> Expected:
    """Of the score that this rig was calibrated with.

    The specimen may be brighter or thicker than the one of the calibration, so height and width
    may differ a little; or it is of another kind, about which only the scale of the score says
    anything.
    """
    curve = settings.calibrated
    assert curve is not None
    defocus = _defocus_dof()
    at = np.array(curve.defocus_um) / settings.dof_um
    score = np.array(curve.score)
    low, height = float(score.min()), float(np.ptp(score))
    skews = known_score.SKEW * SKEWS
    shapes = [
        np.interp(_skewed(defocus, skew) / stretch, at, (score - low) / height)
        for stretch in STRETCHES
        for skew in skews
    ]
    noise = max(curve.noise, 0.02 * height)
    calibrated = _with_noises(
        height=(height, 0.2 * height),
        level=(low, 0.1 * height),
        nothing=(low, 0.2 * height),
        noises=(noise, 2 * noise),
        shapes=np.array(shapes),
        weight=np.outer(_normal((STRETCHES - 1) / STRETCH_SD), _normal(SKEWS)).ravel(),
        defocus_dof=defocus,
    )
    return _either(calibrated, absolute_score(), OTHER_KIND) if settings.absolute else calibrated


def _defocus_dof() -> Float64:
    return np.linspace(-REACH_DOF, REACH_DOF, 8001)


def _bell(defocus_dof: Float64, width_dof: float, skew: float) -> Float64:
    return np.asarray(1 / (1 + (_skewed(defocus_dof, skew) / width_dof) ** 2))


def _skewed(defocus_dof: Float64, skew: float) -> Float64:
    """Distances as of a curve whose right flank is wider by ``skew`` and the left one narrower."""
    return np.asarray(defocus_dof / (1 + skew * np.sign(defocus_dof)))


def _normal(deviation: Float64) -> Float64:
    return np.asarray(np.exp(-(deviation**2) / 2))


def _with_noises(
    *,
    height: MeanAndSd,
    level: MeanAndSd,
    nothing: MeanAndSd,
    noises: tuple[float, ...],
    shapes: Float64,
    weight: Float64,
    defocus_dof: Float64,
) -> Expected:
    """Every shape with every noise."""
    count = len(noises) * len(weight)
    return Expected(
        shapes=np.tile(shapes, (len(noises), 1)),
        height=np.tile(height, (count, 1)),
        level=np.tile(level, (count, 1)),
        noise=np.repeat(noises, len(weight)),
        weight=np.tile(weight, len(noises)) / (len(noises) * weight.sum()),
        nothing=nothing,
        defocus_dof=defocus_dof,
    )


def _either(one: Expected, other: Expected, chance_of_other: float) -> Expected:
    """The curves of both."""
    return Expected(
        shapes=np.concatenate([one.shapes, other.shapes]),
        height=np.concatenate([one.height, other.height]),
        level=np.concatenate([one.level, other.level]),
        noise=np.concatenate([one.noise, other.noise]),
        weight=np.append((1 - chance_of_other) * one.weight, chance_of_other * other.weight),
        nothing=other.nothing,
        defocus_dof=one.defocus_dof,
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
    _by_curve: Float64
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
        grain_um = FINE_STEP_DOF * self._dof_um / 12**0.5
        return float(np.sqrt(np.average(spread, weights=self.chance[near]) + grain_um**2))

    def within(self, z_um: float, half_um: float) -> float:
        """Probability that focus lies within ``half_um`` of ``z_um``."""
        return float(self.chance[np.abs(self.z_um - z_um) <= half_um].sum())

    def beyond(self, low_um: float, high_um: float) -> tuple[float, float]:
        """Probabilities that focus lies below ``low_um`` and above ``high_um``."""
        below, above = self.z_um < low_um, self.z_um > high_um
        return float(self.chance[below].sum()), float(self.chance[above].sum())

    def telling(self, candidates_um: Float64) -> Float64:
        """What a reading at each candidate would tell of the in-focus plane, in nats.

        The mutual information of reading and plane, as if what the planes expect were normal: half
        the logarithm of its variance before and after the plane is known (D. MacKay, *Neural
        Computation* 4, 590, 1992).
        """
        asked = np.sort(np.argsort(self._by_curve.T, axis=None)[-MOST_ASKED:])
        # Sorted by plane, so that what belongs to one plane is summed in one stroke.
        plane, curve = np.unravel_index(asked, self._by_curve.T.shape)
        _, first, of_plane = np.unique(plane, return_index=True, return_inverse=True)
        weight = self._by_curve[curve, plane]
        defocus = (candidates_um[:, None] - self.z_um[plane]) / self._dof_um
        said = self._level[curve, plane] + self._height[curve, plane] * _shape_at(
            self._expected, defocus, curve
        )
        held = np.add.reduceat(weight, first)
        of_each = np.add.reduceat(said * weight, first, axis=1) / held
        total = held.sum() + self.nothing
        mean = (of_each @ held + self.nothing * self._flat) / total
        between = ((of_each - mean[:, None]) ** 2) @ held + self.nothing * (self._flat - mean) ** 2
        within = ((said - of_each[:, of_plane]) ** 2) @ weight
        noise2 = weight @ self._expected.noise[curve] ** 2
        return np.asarray(0.5 * np.log1p(between / (within + noise2)))

    def _near_the_top(self) -> NDArray[np.bool_]:
        return np.abs(self.z_um - self._top_um()) <= 3.0 * self._dof_um

    def _top_um(self) -> float:
        """Middle of the depth of field that holds most; a narrow spike is outweighed by a hill."""
        half_um = self._dof_um / 2
        summed = np.concatenate([[0.0], np.cumsum(self.chance)])
        low = np.searchsorted(self.z_um, self.z_um - half_um)
        high = np.searchsorted(self.z_um, self.z_um + half_um, side="right")
        return float(self.z_um[np.argmax(summed[high] - summed[low])])


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
    planes = _planes(settings)
    coarse = _weighed(planes, at_um, score, settings, expected)
    return _weighed(
        _finer(planes, coarse._top_um(), settings), at_um, score, settings, expected
    )


def _weighed(
    planes: Float64,
    at_um: Float64,
    score: Float64,
    settings: SearchSettings,
    expected: Expected,
) -> Belief:
    prior = _prior(planes, settings)
    shape = _shape_at(expected, (at_um[:, None] - planes) / settings.dof_um)
    evidence, level, height = _regression(shape, score, expected)
    log_chance = evidence + np.log(expected.weight)[:, None] + np.log(prior)
    flat_evidence, flat = _flat(score, expected)
    every = np.append(log_chance.ravel(), flat_evidence + np.log(NOTHING))
    probability = np.exp(every - every.max())
    probability /= probability.sum()
    by_curve = probability[:-1].reshape(log_chance.shape)
    top = np.unravel_index(int(np.argmax(by_curve)), by_curve.shape)
    residual = score - level[top] - height[top] * shape[top[0], :, top[1]]
    misfit = float(np.sqrt(np.mean(residual**2))) if residual.size else 0.0
    return Belief(
        z_um=planes,
        chance=by_curve.sum(axis=0),
        nothing=float(probability[-1]),
        misfit=misfit / float(expected.noise.max()),
        _by_curve=by_curve,
        _level=level,
        _height=height,
        _flat=flat,
        _expected=expected,
        _dof_um=settings.dof_um,
    )


def _planes(settings: SearchSettings) -> Float64:
    """Candidates for the in-focus plane."""
    beyond_um = BEYOND_DOF * settings.dof_um
    reach_um = settings.range_um / 2 * (1 + settings.max_extensions / 2) + beyond_um
    low = max(settings.z_min_um - beyond_um, settings.center_um - reach_um)
    high = min(settings.z_max_um + beyond_um, settings.center_um + reach_um)
    return np.arange(low, high, STEP_DOF * settings.dof_um)


def _finer(planes: Float64, top_um: float, settings: SearchSettings) -> Float64:
    """The same, closer together around one of them."""
    reach_um, step_um = FINE_REACH_DOF * settings.dof_um, FINE_STEP_DOF * settings.dof_um
    low, high = max(planes[0], top_um - reach_um), min(planes[-1], top_um + reach_um)
    outside = planes[(planes < low) | (planes > high)]
    return np.sort(np.append(outside, np.arange(low, high, step_um)))


def _prior(planes: Float64, settings: SearchSettings) -> Float64:
    """What is thought of them before the first reading."""
    # Each stands for its surroundings, as far as half way to its neighbours.
    share = np.gradient(planes)
    share = share / share.sum()
    if settings.expected is None:
        prior = share * (np.abs(planes - settings.center_um) <= settings.range_um / 2)
    else:
        off = (planes - settings.expected.z_um) / settings.expected.sigma_um
        prior = share * _normal(off)
    prior = (1 - OUTSIDE) * prior / max(prior.sum(), 1e-12) + OUTSIDE * share
    return np.asarray(prior * (1 - NOTHING))


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
    """Log evidence, level and height of every hypothesis: each (curves, planes)."""
    a0, a_sd = (expected.height[:, i, None] for i in (0, 1))
    b0, b_sd = (expected.level[:, i, None] for i in (0, 1))
    noise2, count = expected.noise[:, None] ** 2, len(score)
    left = score[None, :, None] - b0[:, None] - a0[:, None] * shape
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
