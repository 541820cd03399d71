"""Where focus may be, given the readings so far: a probability for every position.

A reading is taken for ``b + a S(z - z*)`` plus noise: ``S`` the shape of the focus curve, ``z*``
the in-focus plane. Level ``b`` and height ``a`` have normal priors and are integrated out
(Bayesian linear regression: C. Bishop, *Pattern Recognition and Machine Learning*, 2006, section
3.5), the width of the shape is summed over, and "there is nothing to focus on" is a hypothesis like
any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logsumexp

from autofocus.search import known_score
from autofocus.search.evidence import distinct
from autofocus.search.pinpoint import told_by_referee
from autofocus.search.protocol import Reading, SearchSettings

Float64 = NDArray[np.float64]

STEP_DOF = 0.5
# Around the most probable plane, which is wanted more closely than the others.
FINE_STEP_DOF = 0.05
FINE_REACH_DOF = 1.5
# Focus may lie beyond the bounds, where it cannot be visited but lifts the readings near them.
BEYOND_DOF = 12.0
# Share of the prior on "focus is somewhere the range does not cover", and on "there is none".
OUTSIDE = 0.1
NOTHING = 0.1
# What a frame can rule out "focus is somewhere" to.
LEAST_CHANCE = 1e-12
# So many hypotheses, the most probable ones, are asked what they expect: more take long and tell
# the same.
MOST_ASKED = 1500
# Half widths of the bells, in standard deviations of their logarithm about the median; a specimen
# far thicker than the depth of field makes one several times as wide as usual.
WIDTHS = np.array([-2.0, -1.2, -0.6, 0.0, 0.6, 1.2, 2.0, 3.0, 4.0])
# A calibration speaks of another specimen of the same kind: how much wider the curve of this one
# may be, and the probability that it is of no such kind and must be judged like any specimen.
STRETCHES = np.array([0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.4])
STRETCH_SD = 0.15
OTHER_KIND = 0.2
REACH_DOF = 80.0

MeanAndSd = tuple[float, float]


@dataclass(frozen=True)
class Expected:
    """What is expected of a score before any reading: many shapes, each with a probability.

    Attributes
    ----------
    shapes : ndarray of shape (shapes, positions)
        ``S`` over `defocus_dof`, highest 1.
    weight : ndarray of shape (shapes,)
        Prior probability of each; they sum to 1.
    height, level : ndarray of shape (shapes, 2)
        Mean and standard deviation of ``a`` and of ``b``.
    noise : ndarray of shape (shapes, noises)
        Standard deviation of a reading about the curve, departures from its shape included; it is
        not known either, so that every shape is there with several.
    nothing : tuple of (float, float)
        Mean and standard deviation of a score where there is nothing to focus on.
    defocus_dof : ndarray of shape (positions,)
        Rising, evenly.
    """

    shapes: Float64
    weight: Float64
    height: Float64
    level: Float64
    noise: Float64
    nothing: MeanAndSd
    defocus_dof: Float64


def absolute_score() -> Expected:
    """Of a score that means 1 in focus and 0 far away, on any specimen: see `known_score`."""
    defocus = _defocus_dof()
    median, spread = known_score.HALF_WIDTH_DOF
    exponents = known_score.EXPONENTS
    widths = median * np.exp(spread * WIDTHS)
    return _expected(
        [1 / (1 + np.abs(defocus / width) ** p) for width in widths for p in exponents],
        weight=np.repeat(_normal(WIDTHS), len(exponents)),
        height=known_score.HEIGHT,
        level=known_score.LEVEL,
        noises=known_score.NOISES,
        nothing=known_score.NOTHING,
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
    noise = max(curve.noise, 0.02 * height)
    calibrated = _expected(
        [np.interp(defocus / stretch, at, (score - low) / height) for stretch in STRETCHES],
        weight=_normal((STRETCHES - 1) / STRETCH_SD),
        height=(height, 0.2 * height),
        level=(low, 0.1 * height),
        noises=(noise, 2 * noise, 4 * noise),
        nothing=(low, 0.2 * height),
    )
    return _either(calibrated, absolute_score(), OTHER_KIND) if settings.absolute else calibrated


def _defocus_dof() -> Float64:
    return np.linspace(-REACH_DOF, REACH_DOF, 8001)


def _normal(deviation: Float64) -> Float64:
    return np.asarray(np.exp(-(deviation**2) / 2))


def _expected(
    shapes: Sequence[Float64],
    *,
    weight: Float64,
    height: MeanAndSd,
    level: MeanAndSd,
    noises: tuple[float, ...],
    nothing: MeanAndSd,
) -> Expected:
    count = len(shapes)
    return Expected(
        shapes=np.array(shapes),
        weight=weight / weight.sum(),
        height=np.tile(height, (count, 1)),
        level=np.tile(level, (count, 1)),
        noise=np.tile(noises, (count, 1)),
        nothing=nothing,
        defocus_dof=_defocus_dof(),
    )


def _either(one: Expected, other: Expected, chance_of_other: float) -> Expected:
    """The shapes of both."""
    return Expected(
        shapes=np.concatenate([one.shapes, other.shapes]),
        weight=np.append((1 - chance_of_other) * one.weight, chance_of_other * other.weight),
        height=np.concatenate([one.height, other.height]),
        level=np.concatenate([one.level, other.level]),
        noise=np.concatenate([one.noise, other.noise]),
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
    noise : float
        Standard deviation of a reading about the curve, as it is believed to be.
    """

    z_um: Float64
    chance: Float64
    nothing: float
    misfit: float
    noise: float
    _by_score: Float64
    _by_shape: Float64
    _level: Float64
    _height: Float64
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

    @property
    def top_score(self) -> float:
        """What a frame at the peak is expected to score."""
        near = self._near_the_top()
        top = (self._level + self._height)[:, near]
        return float(np.average(top, weights=self._by_shape[:, near]))

    def within(self, z_um: float, half_um: float) -> float:
        """Probability that focus lies within ``half_um`` of ``z_um``."""
        return float(self.chance[np.abs(self.z_um - z_um) <= half_um].sum())

    def within_by_score(self, z_um: float, half_um: float) -> float:
        """The same by the score alone, without what the referee says of the place."""
        return float(self._by_score[np.abs(self.z_um - z_um) <= half_um].sum())

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
        by_plane = self._by_shape.T
        # Sorted by plane, so that what belongs to one plane is summed in one stroke.
        asked = np.sort(np.argsort(by_plane, axis=None)[-MOST_ASKED:])
        asked = asked[by_plane.ravel()[asked] > 0]
        plane, shape = np.unravel_index(asked, by_plane.shape)
        _, first, of_plane = np.unique(plane, return_index=True, return_inverse=True)
        weight = by_plane[plane, shape]
        defocus = (candidates_um[:, None] - self.z_um[plane]) / self._dof_um
        said = self._expected.shapes[shape, _index(self._expected, defocus)]
        said = self._level[shape, plane] + self._height[shape, plane] * said
        held = np.add.reduceat(weight, first)
        of_each = np.add.reduceat(said * weight, first, axis=1) / held
        mean = of_each @ held / held.sum()
        between = ((of_each - mean[:, None]) ** 2) @ held
        within = ((said - of_each[:, of_plane]) ** 2) @ weight + held.sum() * self.noise**2
        return np.asarray(0.5 * np.log1p(between / within))

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
        All readings of the run; saturated ones and copies tell nothing and are left out.
    settings : SearchSettings
        Bounds, range, depth of field, and where focus is expected.
    expected : Expected
        What is known of the score.
    """
    used = [reading for reading in distinct(curve) if not reading.saturated]
    at_um = np.array([reading.z_um for reading in used])
    score = np.array([reading.score for reading in used])
    coarse_um = _planes(settings)
    coarse = _weighed(coarse_um, at_um, score, settings, expected)
    fine_um = _finer(coarse_um, coarse._top_um(), settings)
    fine = _weighed(fine_um, at_um, score, settings, expected)
    # Measured for scores of absolute meaning only.
    return _pinpointed(fine, used) if settings.absolute else fine


def _pinpointed(belief: Belief, curve: Sequence[Reading]) -> Belief:
    """The same, with what the referee says of the place.

    What the planes around the peak hold together stays: the referee can move a peak, but neither
    make nor end one. It can gather within one depth of field what was spread over three; so a lock
    asks what the score alone holds, too.
    """
    best_um, dof_um = belief.best_um, belief._dof_um
    near = np.abs(belief.z_um - best_um) <= FINE_REACH_DOF * dof_um
    told = told_by_referee(belief.z_um[near], curve, near_um=best_um, dof_um=dof_um)
    held = belief.chance[near]
    if told is None or not held.sum() > 0:
        return belief
    factor = np.ones_like(belief.z_um)
    factor[near] = told * held.sum() / (held @ told)
    return replace(belief, chance=belief.chance * factor, _by_shape=belief._by_shape * factor)


def _weighed(
    z_um: Float64, at_um: Float64, score: Float64, settings: SearchSettings, expected: Expected
) -> Belief:
    """The probability of every shape at every plane."""
    defocus = (at_um[:, None] - z_um) / settings.dof_um
    shape = expected.shapes[:, _index(expected, defocus)]
    evidence, level, height = _regression(shape, score, expected)
    prior = expected.weight[:, None, None] / expected.noise.shape[1] * _prior(z_um, settings)
    log_chance = evidence + np.log(prior)
    chance = np.exp(log_chance - log_chance.max())
    # Apart from "nothing", beside which all planes may be too improbable for a number.
    somewhere = expit(logsumexp(log_chance) - _flat_evidence(score, expected) - np.log(NOTHING))
    chance *= max(float(somewhere), LEAST_CHANCE) / chance.sum()
    by_shape = chance.sum(axis=1)
    least = np.maximum(by_shape, 1e-300)
    level = (level * chance).sum(axis=1) / least
    height = (height * chance).sum(axis=1) / least
    noise2 = (chance.sum(axis=2) * expected.noise**2).sum() / max(chance.sum(), 1e-300)
    top = np.unravel_index(int(np.argmax(by_shape)), by_shape.shape)
    residual = score - level[top] - height[top] * shape[top[0], :, top[1]]
    misfit = float(np.sqrt(np.mean(residual**2))) if residual.size else 0.0
    by_score = by_shape.sum(axis=0)
    return Belief(
        z_um=z_um,
        chance=by_score,
        nothing=1 - float(somewhere),
        misfit=misfit / float(expected.noise.max()),
        _by_score=by_score,
        _by_shape=by_shape,
        _level=level,
        _height=height,
        noise=float(noise2**0.5),
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


def _index(expected: Expected, defocus_dof: Float64) -> NDArray[np.intp]:
    """Where the shapes are read at these distances."""
    grid = expected.defocus_dof
    at = np.rint((defocus_dof - grid[0]) / (grid[1] - grid[0])).astype(np.intp)
    return np.clip(at, 0, grid.size - 1)


def _regression(
    shape: Float64, score: Float64, expected: Expected
) -> tuple[Float64, Float64, Float64]:
    """Log evidence, level and height of every hypothesis: each (shapes, noises, planes)."""
    a0, a_sd = (expected.height[:, i, None, None] for i in (0, 1))
    b0, b_sd = (expected.level[:, i, None, None] for i in (0, 1))
    noise2, count = expected.noise[:, :, None] ** 2, len(score)
    left = score[:, None] - b0 - a0 * shape
    # Posterior precision of (b, a) about their means, a 2 x 2 matrix a hypothesis.
    p_bb = 1 / b_sd**2 + count / noise2
    p_ba = shape.sum(axis=1, keepdims=True) / noise2
    p_aa = 1 / a_sd**2 + (shape**2).sum(axis=1, keepdims=True) / noise2
    v_b = left.sum(axis=1, keepdims=True) / noise2
    v_a = (left * shape).sum(axis=1, keepdims=True) / noise2
    determinant = p_bb * p_aa - p_ba**2
    level = (p_aa * v_b - p_ba * v_a) / determinant
    height = (p_bb * v_a - p_ba * v_b) / determinant
    fit = (left**2).sum(axis=1, keepdims=True) / noise2 - (level * v_b + height * v_a)
    spread = np.log(determinant * a_sd**2 * b_sd**2) + count * np.log(noise2)
    return -0.5 * (fit + spread), b0 + level, a0 + height


def _flat_evidence(score: Float64, expected: Expected) -> float:
    """Log evidence of a level without a peak."""
    mean, spread = expected.nothing
    noise2, left = np.unique(expected.noise) ** 2, score - mean
    precision = 1 / spread**2 + len(score) / noise2
    level = left.sum() / noise2 / precision
    fit = (left**2).sum() / noise2 - precision * level**2
    evidence = -0.5 * (fit + np.log(precision * spread**2) + len(score) * np.log(noise2))
    return float(logsumexp(evidence) - np.log(noise2.size))
