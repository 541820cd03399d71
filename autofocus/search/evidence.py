"""What a set of readings proves: noise, background, structure, rivals.

A maximum always exists, on noise too. These functions say what else is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autofocus.search.protocol import Reading

# Scales a median absolute deviation to the standard deviation of normal noise.
MAD_TO_SIGMA = 1.4826
# No scorer repeats itself better than this share of its own value.
RELATIVE_FLOOR = 1e-3


@dataclass(frozen=True)
class Background:
    """The curve away from its best reading.

    Attributes
    ----------
    level : float
        Median score away from the best reading.
    noise : float
        Standard deviation of one score: scatter about the line through its two neighbours, or half
        the spread of the background where that is larger (flicker and drift are not white).
    """

    level: float
    noise: float


def background(curve: Sequence[Reading], *, best_z_um: float, clear_um: float) -> Background:
    """Level and noise of the curve more than ``clear_um`` away from ``best_z_um``."""
    ordered = sorted(curve, key=lambda reading: reading.z_um)
    z = np.array([reading.z_um for reading in ordered])
    score = np.array([reading.score for reading in ordered])
    away = score[np.abs(z - best_z_um) > clear_um]
    # A short range has no background; its lowest readings stand in for it.
    if away.size < 3:
        away = np.sort(score)[: max(2, score.size // 2)]
    level = float(np.median(away))
    spread = MAD_TO_SIGMA * float(np.median(np.abs(away - level)))
    floor = RELATIVE_FLOOR * float(np.abs(score).max())
    return Background(level, max(_white_noise(z, score), spread / 2, floor, 1e-12))


def _white_noise(z: NDArray[np.float64], score: NDArray[np.float64]) -> float:
    """Scatter of each score about the line through its neighbours; blind to slow change."""
    z, first = np.unique(z, return_index=True)
    score = score[first]
    if z.size < 5:
        return 0.0
    share = (z[1:-1] - z[:-2]) / (z[2:] - z[:-2])
    residual = score[1:-1] - (score[:-2] * (1 - share) + score[2:] * share)
    # Variance of y - (1-a) y0 - a y1 for independent noise of variance one.
    gain = np.sqrt(1 + (1 - share) ** 2 + share**2)
    return MAD_TO_SIGMA * float(np.median(np.abs(residual / gain)))


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
