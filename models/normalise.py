"""Camera counts to [0, 1] by percentiles, so that exposure and offset do not reach the network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.frame import as_grey_float

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Normalisation:
    """The counts that become 0 and 1.

    Attributes
    ----------
    lo, hi : float
        Camera counts; ``lo < hi``.
    """

    lo: float
    hi: float

    def apply(self, counts: NDArray[np.generic]) -> Float32:
        """Counts of any shape as float32 in [0, 1]; values outside ``lo`` to ``hi`` are clipped."""
        scaled = np.subtract(counts, np.float32(self.lo), dtype=np.float32)
        scaled /= np.float32(self.hi - self.lo)
        return np.clip(scaled, 0, 1, out=scaled)


def percentile_normalisation(
    image: NDArray[np.generic], *, p_low: float, p_high: float
) -> Normalisation:
    """Normalisation that maps two percentiles of a frame to 0 and 1.

    Parameters
    ----------
    image : ndarray of shape (height, width), integer or float
        Raw camera counts; all pixels are used.
    p_low, p_high : float
        Percentiles, 0..100, with linear interpolation as in `numpy.percentile`.

    Returns
    -------
    Normalisation
        From minimum to maximum where the percentiles coincide (a few bright puncta on a constant
        background); one count wide on a constant frame.

    Raises
    ------
    ImageError
        For anything but a grey frame of finite numbers.
    """
    counts = as_grey_float(image)
    lo, hi = _percentiles(image, counts, (p_low, p_high))
    if hi <= lo:
        lo, hi = float(counts.min()), float(counts.max())
    # Above 2**24 a step of one count is lost in float32; the next number up always differs.
    return Normalisation(lo, max(hi, lo + 1.0, float(np.nextafter(np.float32(lo), np.inf))))


def _percentiles(
    image: NDArray[np.generic], counts: Float32, percentiles: tuple[float, float]
) -> tuple[float, float]:
    if image.dtype.kind == "u" and image.dtype.itemsize <= 2:
        below = np.cumsum(np.bincount(image.ravel(), minlength=2))
        return _from_histogram(below, percentiles[0]), _from_histogram(below, percentiles[1])
    low, high = np.percentile(counts, percentiles)
    return float(low), float(high)


def _from_histogram(below: NDArray[np.intp], percentile: float) -> float:
    """Exact percentile of integer counts; six times faster than sorting on 1024 x 1024.

    Parameters
    ----------
    below : ndarray of shape (levels,)
        Number of pixels at or below each level.
    percentile : float
        0..100.
    """
    rank = percentile / 100 * (int(below[-1]) - 1)
    first = int(rank)
    lower = int(np.searchsorted(below, first, side="right"))
    upper = int(np.searchsorted(below, min(first + 1, int(below[-1]) - 1), side="right"))
    return lower + (rank - first) * (upper - lower)
