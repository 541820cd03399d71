"""Photon and read noise of a camera frame, fast enough to train on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]

_FEW = 8.0  # photons; below, the distribution is counted out, above, approximated


def noisy_electrons(expected: Image, *, rng: np.random.Generator, read_noise_e: float) -> Image:
    """Draw Poisson(expected) plus normal read noise, electrons.

    Below 8 photons the Poisson draw is exact. Above, mean, variance and skewness are exact: with
    z normal and s^2 the total variance, ``expected + s z + expected / (6 s^2) (z^2 - 1)``
    (Cornish and Fisher 1938), which costs one normal draw a pixel instead of a Poisson draw.
    """
    z = rng.standard_normal(expected.shape, dtype=np.float32)
    variance = expected + np.float32(max(read_noise_e, 1e-3) ** 2)
    electrons = expected + np.sqrt(variance) * z + expected / (6 * variance) * (z * z - 1)
    few = expected < _FEW
    if few.any():
        electrons[few] = _poisson_of_few(expected[few], rng) + np.float32(read_noise_e) * z[few]
    return electrons


def _poisson_of_few(expected: Image, rng: np.random.Generator) -> Image:
    """Poisson draws by inverting the distribution function, term by term."""
    if float(expected.max()) <= 0:
        return np.zeros_like(expected)
    chance = rng.random(expected.shape, dtype=np.float32)
    term = np.exp(-expected)
    reached = term.copy()
    count = np.zeros_like(expected)
    # Beyond this the tail holds less than a float32 can tell from 1.
    for k in range(1, int(10 + 3 * float(expected.max()))):
        count += chance >= reached
        term *= expected / k
        reached += term
    return count
