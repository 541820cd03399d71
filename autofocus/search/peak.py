"""The sub-step position of a peak, with its uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autofocus.search.protocol import Reading

# The top of a focus curve is bell-shaped, its flanks are not; but the top alone is flat, and noise
# moves a flat top about. So the fit is tried on more and more of the peak.
SHARES = (0.98, 0.95, 0.9, 0.8, 0.65, 0.5, 0.35)
FEWEST_POINTS = 5
# How much higher than the best reading a fitted peak may be: readings miss the top by less.
MOST_ABOVE = 2.0


@dataclass(frozen=True)
class Peak:
    """A fitted maximum.

    Attributes
    ----------
    z_um : float
        Position of the maximum, inside the readings that bracket it.
    sigma_um : float
        One standard deviation of ``z_um`` from the scatter about the fit.
    score : float
        Score expected there.
    width_um : float
        Full width at half the height above the baseline.
    """

    z_um: float
    sigma_um: float
    score: float
    width_um: float


def fit_peak(curve: Sequence[Reading], *, baseline: float, noise: float) -> Peak | None:
    """Fit a Gaussian to the top of a focus curve.

    Weighted linear least squares of the logarithm of the height above the baseline (H. Guo,
    *IEEE Signal Process. Mag.* 28(5), 2011: weights equal to the squared height undo the
    logarithm's amplification of noise).

    Parameters
    ----------
    curve : sequence of Reading
        In any order.
    baseline : float
        Score far from the peak.
    noise : float
        Standard deviation of one score; keeps a few readings that fit by chance from winning.

    Returns
    -------
    Peak or None
        None when the best reading has no lower reading on each side, when too few readings are
        high enough, or when the fit does not open downwards inside its bracket or rises far above
        every reading.
    """
    ordered = sorted(curve, key=lambda reading: reading.z_um)
    z = np.array([reading.z_um for reading in ordered])
    score = np.array([reading.score for reading in ordered])
    best = int(np.argmax(score))
    height = float(score[best] - baseline)
    if height <= 0 or best in (0, len(ordered) - 1):
        return None
    fits = [
        _fit(z[top], score[top] - baseline, baseline=baseline, best_z=z[best])
        for top in _tops(z, score, best, baseline=baseline)
    ]
    # What noise there is allows no better than this, however well few readings happen to fit.
    least_share_of_width = 0.1 * noise / height
    known = [fit for fit in fits if fit is not None]
    return min(
        known,
        key=lambda fit: max(fit.sigma_um, least_share_of_width * fit.width_um),
        default=None,
    )


def _tops(
    z: NDArray[np.float64], score: NDArray[np.float64], best: int, *, baseline: float
) -> list[slice]:
    """Ever larger parts of the peak; the nearest readings where none holds enough of them."""
    height = float(score[best] - baseline)
    tops = dict.fromkeys(
        (top.start, top.stop)
        for top in (contiguous_top(score, best, baseline + share * height) for share in SHARES)
        if np.unique(z[top]).size >= FEWEST_POINTS
    )
    near = slice(max(0, best - 2), best + 3)
    if tops:
        return [slice(*ends) for ends in tops]
    return [near] if np.unique(z[near]).size >= 3 else []


def contiguous_top(score: NDArray[np.float64], best: int, floor: float) -> slice:
    """The run of scores around index ``best`` that stay at or above ``floor``."""
    low = best
    while low > 0 and score[low - 1] >= floor:
        low -= 1
    high = best
    while high < len(score) - 1 and score[high + 1] >= floor:
        high += 1
    return slice(low, high + 1)


def _fit(
    z: NDArray[np.float64],
    height: NDArray[np.float64],
    *,
    baseline: float,
    best_z: float,
) -> Peak | None:
    top = float(height.max())
    share = np.clip(height / top, 0.02, None)
    scale_um = float(np.ptp(z)) or 1.0
    u = (z - best_z) / scale_um
    design = np.stack([np.ones_like(u), u, u**2], axis=1)
    weighted = design * share[:, None]
    normal = weighted.T @ weighted
    if np.linalg.cond(normal) > 1e12:
        return None
    inverse = np.linalg.inv(normal)
    offset, slope, curvature = inverse @ weighted.T @ (np.log(share) * share)
    if curvature >= 0:
        return None
    vertex = -slope / (2 * curvature)
    if not u.min() <= vertex <= u.max():
        return None
    log_peak_share = float(offset + slope * vertex / 2)
    if log_peak_share > np.log(MOST_ABOVE):
        return None
    residual = share * (np.log(share) - design @ (offset, slope, curvature))
    # Few readings may lie on a curve by chance: 2.5 times the scatter for five, 1.1 for eleven.
    freedom = max(1, len(z) - 3)
    few = 1 + 6 / freedom**2
    variance = few**2 * max(float(residual @ residual) / freedom, 1e-8)
    gradient = np.array([0.0, -1 / (2 * curvature), slope / (2 * curvature**2)])
    sigma_um = float(np.sqrt(variance * gradient @ inverse @ gradient)) * scale_um
    half_width = np.sqrt(np.log(2) / -curvature)
    return Peak(
        z_um=float(best_z + vertex * scale_um),
        sigma_um=sigma_um,
        score=baseline + top * float(np.exp(log_peak_share)),
        width_um=2 * float(half_width) * scale_um,
    )
