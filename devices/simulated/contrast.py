"""What makes unstained cells visible in transmitted light: phase and interference contrast.

Both change what each scattered wave does to the background, so both are other transfer functions of
the same weak object ``exp(-density / 2 + i phase)`` (`devices.simulated.optics`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Complexes = NDArray[np.complexfloating]
Reals = NDArray[np.floating]
PupilPhase = Callable[[Floats], Floats]

# Radii that stand for the annulus, whose image fills 0.6 of the ring, and their weights (Gauss).
_SOURCE = 0.3 * np.array([-math.sqrt(0.6), 0.0, math.sqrt(0.6)])
_SOURCE_WEIGHTS = np.array([5.0, 8.0, 5.0]) / 18
_EDGE = 0.03  # of the ring, in its width: a hard one would need many more angles


@dataclass(frozen=True)
class PhaseContrast:
    """Zernike's: the condenser shines through an annulus, whose image a ring dims and delays.

    F. Zernike, "Phase contrast, a new method for the microscopic observation of transparent
    objects", Physica 9 (1942) 686-698 and 974-986.

    Attributes
    ----------
    radius, width : float
        Of the ring, as shares of the pupil radius.
    amplitude : float
        What the ring lets through, 0..1; dimmer gives more contrast.
    bright : bool
        Whether dense structure looks bright (negative phase contrast) instead of dark.
    """

    radius: float = 0.5
    width: float = 0.1
    amplitude: float = 0.5
    bright: bool = False

    def __post_init__(self) -> None:
        inside = 0 < self.width / 2 < self.radius <= 1 - self.width / 2
        if not (inside and 0 < self.amplitude <= 1):
            raise ValueError(f"{self}: the ring must lie within the pupil, amplitude within 0..1")


@dataclass(frozen=True)
class InterferenceContrast:
    """Nomarski's: two images side by side, a shear apart, interfere; slopes of phase look lit.

    Transfer function after C. Preza, D. L. Snyder and J.-A. Conchello, JOSA A 16 (1999) 2185-2199.

    Attributes
    ----------
    shear : float
        Distance of the two images in units of wavelength / NA.
    bias_rad : float
        Phase between them where nothing is; 0 < bias < pi.
    direction_rad : float
        Of the shear.
    """

    shear: float = 0.25
    bias_rad: float = 0.8
    direction_rad: float = math.pi / 4

    def __post_init__(self) -> None:
        if not (0 < self.bias_rad < math.pi and 0 < self.shear <= 1):
            raise ValueError(f"{self}: the bias must be within 0..pi rad, the shear within 0..1")


Contrast = PhaseContrast | InterferenceContrast


def ring_cross_coefficient(
    contrast: PhaseContrast, s: Floats, pupil_phase: PupilPhase, *, slope: float
) -> Complexes:
    """Hopkins' C(s, 0) of an annular source behind a phase ring, 1 at s = 0.

    Parameters
    ----------
    contrast : PhaseContrast
    s : ndarray of shape (n,)
        Frequencies in NA / wavelength.
    pupil_phase : callable
        Squared pupil radius to phase in rad, defocus included.
    slope : float
        Largest gradient of that phase, cycles a pupil radius.
    """
    half = math.pi / (256 + int(8 * slope))
    angle = np.arange(half, math.pi, 2 * half)  # midpoints: the other half turn is the same
    rings = contrast.radius + contrast.width * _SOURCE
    weights = _SOURCE_WEIGHTS * rings
    total = np.zeros(len(s), np.complex128)
    for ring, weight in zip(rings, weights, strict=True):
        u2 = ring**2 + s[:, None] ** 2 + 2 * ring * s[:, None] * np.cos(angle)
        background = contrast.amplitude * np.exp(1j * pupil_phase(np.array(ring**2)))
        wave = _behind_ring(contrast, np.sqrt(u2)) * np.exp(1j * pupil_phase(np.minimum(u2, 1)))
        total += weight * (wave * (u2 <= 1)).mean(axis=1) * np.conj(background)
    return total / (contrast.amplitude**2 * weights.sum())


def _behind_ring(contrast: PhaseContrast, u: Floats) -> Complexes:
    """What becomes of light relative to the phase of the ring: dimmed in it, +-i beside it.

    The ring advances the background by a quarter of a wave, so that what passes beside it lags by
    one; dense structure, which delays light, then looks dark.
    """
    beyond = np.abs(u - contrast.radius) / contrast.width - 0.5
    in_ring = 0.5 * (1 - np.tanh(beyond / _EDGE))
    beside = 1j if not contrast.bright else -1j
    return in_ring * contrast.amplitude + (1 - in_ring) * beside


def sheared(
    contrast: InterferenceContrast, coefficient: Complexes, fy: Reals, fx: Reals
) -> tuple[Complexes, Complexes]:
    """Absorption and phase transfer functions of two sheared images.

    Parameters
    ----------
    contrast : InterferenceContrast
    coefficient : ndarray
        C(f, 0) of the bright field.
    fy, fx : ndarray
        Frequencies in NA / wavelength, broadcastable to ``coefficient``.
    """
    along = fx * math.cos(contrast.direction_rad) + fy * math.sin(contrast.direction_rad)
    turn = math.pi * contrast.shear * along
    even, odd = np.cos(turn), np.sin(turn) / math.tan(contrast.bias_rad / 2)
    absorption: Complexes = even * coefficient.real + 1j * odd * coefficient.imag
    phase: Complexes = 2 * (1j * odd * coefficient.real - even * coefficient.imag)
    return absorption, phase
