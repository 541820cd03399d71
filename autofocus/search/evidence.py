"""What a set of readings proves: noise, background, structure, rivals.

A maximum always exists, on noise too. These functions say what else is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import f as f_distribution

from autofocus.search.grid import clear_um, coarse_step_um, least_width_um
from autofocus.search.protocol import Reading, SearchSettings

# Scales a median absolute deviation to the standard deviation of normal noise.
MAD_TO_SIGMA = 1.4826
# No scorer repeats itself better than this share of its own value.
RELATIVE_FLOOR = 1e-3
# Enough for the 50 depths of field of a usual range, and bounded for thousands of readings.
MOST_CENTRES = 512


@dataclass(frozen=True)
class Background:
    """The curve away from its best reading.

    Attributes
    ----------
    level : float
        Median score away from the best reading, over the range: readings that stand close together
        count for no more of it than a lone one does.
    noise : float
        Standard deviation of one score: its scatter about the peak that fits best, or about the
        line through its neighbours, whichever is smaller.
    chance : float
        Probability that noise without a peak is fitted as well by one, 0..1.
    """

    level: float
    noise: float
    chance: float


def background(curve: Sequence[Reading], settings: SearchSettings) -> Background:
    """Level, noise and significance of the curve of a run with these settings."""
    ordered = sorted(distinct(curve), key=lambda reading: reading.z_um)
    z = np.array([reading.z_um for reading in ordered])
    score = np.array([reading.score for reading in ordered])
    away = np.abs(z - best_reading(curve).z_um) > clear_um(settings)
    # A short range has no background; its lowest readings stand in for it.
    if away.sum() < 3:
        away = score <= np.sort(score)[max(2, score.size // 2) - 1]
    level = _median(score[away], _covered_um(z, settings)[away])
    noise, chance = _about_peaks(z, score, least_width_um(settings))
    noise = min(noise, _about_neighbours(z, score))
    floor = max(RELATIVE_FLOOR * float(np.abs(score).max()), 1e-12)
    return Background(level, max(noise, floor), chance)


def _covered_um(z: NDArray[np.float64], settings: SearchSettings) -> NDArray[np.float64]:
    """How much of the range each reading stands for, um; at most one coarse step."""
    # A stage that comes back reads another last digit.
    grain_um = least_width_um(settings)
    place = np.round(z / grain_um) * grain_um
    at_um, which, count = np.unique(place, return_inverse=True, return_counts=True)
    if at_um.size < 2:
        return np.ones_like(z)
    return np.asarray(np.minimum(np.gradient(at_um), coarse_step_um(settings)) / count)[which]


def _median(value: NDArray[np.float64], weight: NDArray[np.float64]) -> float:
    """The value below and above which half of the weight lies."""
    order = np.argsort(value)
    passed = np.cumsum(weight[order])
    low, high = np.searchsorted(passed, passed[-1] * np.array([0.5 - 1e-9, 0.5 + 1e-9]))
    return float(value[order[[low, high]]].mean())


def distinct(curve: Sequence[Reading]) -> list[Reading]:
    """The readings without copies: the same pixels at the same position prove nothing twice."""
    kept = {
        (reading.z_um, reading.fingerprint or str(index)): reading
        for index, reading in enumerate(curve)
    }
    return list(kept.values())


def _about_neighbours(z: NDArray[np.float64], score: NDArray[np.float64]) -> float:
    """Typical scatter of a reading about the line through its neighbours.

    Honest over a long range, where few readings are on the peak, whatever its shape.
    """
    z, first = np.unique(z, return_index=True)
    score = score[first]
    if z.size < 5:
        return np.inf
    share = (z[1:-1] - z[:-2]) / (z[2:] - z[:-2])
    residual = score[1:-1] - (score[:-2] * (1 - share) + score[2:] * share)
    # Variance of y - (1-a) y0 - a y1 for independent noise of variance one.
    gain = np.sqrt(1 + (1 - share) ** 2 + share**2)
    return MAD_TO_SIGMA * float(np.median(np.abs(residual / gain)))


def _about_peaks(
    z: NDArray[np.float64], score: NDArray[np.float64], narrowest_um: float
) -> tuple[float, float]:
    """Scatter about the best-fitting peak or two, and the chance that noise is fitted as well.

    Lorentzian peaks (and their squares) over a grid of centres and widths, level and height by
    linear regression, a second peak fitted to what the first leaves; the F test against a constant
    (N. Draper and H. Smith, *Applied Regression Analysis*, 3rd ed. 1998, section 6.1), three
    parameters a peak.
    """
    total = score - score.mean()
    spread = float(score.std())
    if spread <= RELATIVE_FLOOR * float(np.abs(score).max()):
        return spread, 1.0
    shapes = _shapes(z, narrowest_um)
    noise, chance, left = spread, 1.0, total
    for peaks in (1, 2):
        freedom = z.size - 1 - 3 * peaks
        if freedom < 1:
            break
        left = _without_best(shapes, left)
        unexplained = max(float(left @ left / (total @ total)), 1e-9)
        ratio = (1 - unexplained) / (3 * peaks) / (unexplained / freedom)
        found = float(f_distribution.sf(ratio, 3 * peaks, freedom))
        if found < chance:
            # The typical scatter: where a real peak departs from the shape, it is not noise.
            typical = MAD_TO_SIGMA * float(np.median(np.abs(left)))
            noise, chance = typical * (z.size / freedom) ** 0.5, found
    return noise, chance


def _shapes(z: NDArray[np.float64], narrowest_um: float) -> NDArray[np.float64]:
    """Peaks of many centres and widths at the positions read, each of mean 0 and length 1."""
    centres = np.linspace(z[0], z[-1], min(8 * z.size, MOST_CENTRES))
    widest_um = max(float(np.ptp(z)), 2 * narrowest_um)
    widths = np.geomspace(narrowest_um, widest_um, 12)
    lorentzian = 1 / (1 + ((z - centres[:, None, None]) / widths[:, None]) ** 2)
    # Measures that square gradients fall off as its square.
    shapes = np.concatenate([lorentzian, lorentzian**2]).reshape(-1, z.size)
    shapes -= shapes.mean(axis=1, keepdims=True)
    return shapes / np.maximum(np.linalg.norm(shapes, axis=1, keepdims=True), 1e-12)


def _without_best(shapes: NDArray[np.float64], score: NDArray[np.float64]) -> NDArray[np.float64]:
    """What is left of the scores when the peak that explains most is taken away."""
    along = shapes @ score
    best = int(np.argmax(along))
    return score - max(float(along[best]), 0.0) * shapes[best]


def is_stale(curve: Sequence[Reading], *, least: int = 3) -> bool:
    """Whether ``least`` different positions gave the very same pixels."""
    positions: dict[str, set[float]] = {}
    for reading in curve:
        if reading.fingerprint:
            positions.setdefault(reading.fingerprint, set()).add(reading.z_um)
    return any(len(found) >= least for found in positions.values())


def best_reading(curve: Sequence[Reading]) -> Reading:
    """The reading with the highest score; the first of equals."""
    return max(curve, key=lambda reading: reading.score)


def rivals(
    curve: Sequence[Reading], *, best_z_um: float, apart_um: float, back: Background, share: float
) -> tuple[Reading, ...]:
    """Local maxima that compare with the best one and are separated from it by a valley.

    Parameters
    ----------
    apart_um : float
        Maxima nearer than this to ``best_z_um`` belong to the same peak.
    share : float
        A rival stands at least this share of the best height above the background.

    Returns
    -------
    tuple of Reading
        Highest first.
    """
    ordered = sorted(curve, key=lambda reading: reading.z_um)
    height = np.array([reading.score - back.level for reading in ordered])
    top = float(height.max())
    found = []
    for i, reading in enumerate(ordered):
        if abs(reading.z_um - best_z_um) <= apart_um or height[i] < share * top:
            continue
        neighbours = height[max(0, i - 1) : i + 2]
        if height[i] < neighbours.max() or height[i] < 5 * back.noise:
            continue
        if _valley(ordered, height, reading.z_um, best_z_um) < height[i] - max(
            4 * back.noise, 0.15 * top
        ):
            found.append(reading)
    return tuple(sorted(found, key=lambda reading: -reading.score))


def _valley(
    ordered: Sequence[Reading], height: NDArray[np.float64], one_um: float, other_um: float
) -> float:
    """Lowest height between two positions; +inf when nothing was read between them."""
    low, high = sorted((one_um, other_um))
    between = [h for reading, h in zip(ordered, height, strict=True) if low < reading.z_um < high]
    return float(min(between, default=np.inf))
