"""What a widefield microscope does to an image, as transfer functions of its pupil.

All pupils here are rotationally symmetric, so every transfer function depends on the radial
frequency alone and is real, except for interference contrast, whose shear has a direction. It is
computed on a radial line, where no defocus can wrap around, and then
looked up on the camera's frequency grid. Frequencies beyond the camera's Nyquist limit are cut.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.special import j0, roots_legendre

from devices.simulated.contrast import (
    Contrast,
    InterferenceContrast,
    PhaseContrast,
    ring_cross_coefficient,
    sheared,
)

Floats = NDArray[np.float64]

# Radii and frequencies below are normalised: r in units of wavelength / NA, s in NA / wavelength.
_RADIAL_STEP = 1 / 10  # finer than 1 / 8, which the cutoff s = 2 of both factors needs
_TAIL_RADIUS = 12.0  # beyond the geometric blur; what is cut off there is below 1e-3 of the OTF
_TABLE_SIZE = 2**15  # radial functions are looked up in steps of s that no image resolves
_TABLE_STEP = 2.001 / _TABLE_SIZE
_CYCLES_TO_NODES = 3.6  # Gauss-Legendre needs a little more than pi nodes for each oscillation
_RADIUS_STEP = 1.5  # kernels reach to powers of it: a few of them serve every defocus
_KERNELS_KEPT = 8  # 60 MB in all, when blur is 40 depths of field


@dataclass(frozen=True)
class Objective:
    """An objective with its light and the camera behind it.

    Attributes
    ----------
    na : float
        Numerical aperture, below ``immersion_index``.
    immersion_index : float
        Refractive index of the medium: 1.0 air, 1.33 water, 1.515 oil.
    wavelength_um : float
        Emission wavelength, or mean wavelength of the lamp, um.
    pixel_size_um : float
        Camera pixel in the specimen, um.
    spherical_waves : float
        Primary spherical aberration: coefficient, in waves, of 6 rho^4 - 6 rho^2 + 1.
    """

    na: float
    immersion_index: float
    wavelength_um: float
    pixel_size_um: float
    spherical_waves: float = 0.0

    def __post_init__(self) -> None:
        for name in ("na", "immersion_index", "wavelength_um", "pixel_size_um"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} = {value} must be a positive number")
        if not self.na < self.immersion_index:
            raise ValueError(
                f"na = {self.na} must be below immersion_index = {self.immersion_index}"
            )


def depth_of_field_um(objective: Objective) -> float:
    """Total depth of field in um: lambda n / NA^2 + n p / NA, p the pixel in the specimen.

    Inoue and Spring, *Video Microscopy*, 2nd ed. 1997, section 2.4.6.

    >>> round(depth_of_field_um(Objective(0.75, 1.0, 0.53, 0.325)), 3)
    1.376
    """
    n, na = objective.immersion_index, objective.na
    return objective.wavelength_um * n / na**2 + n * objective.pixel_size_um / na


class TransferFunctions:
    """Transfer functions of one objective on one image size; keeps what does not depend on defocus.

    Parameters
    ----------
    objective : Objective
    shape : (int, int)
        Height and width of the images, pixels. An image is a torus: what defocus moves over one
        edge comes back at the other.
    """

    def __init__(self, objective: Objective, shape: tuple[int, int]) -> None:
        self._objective = objective
        pixel_um = objective.pixel_size_um
        fy = np.fft.fftfreq(shape[0], pixel_um)[:, None]
        fx = np.fft.rfftfreq(shape[1], pixel_um)[None, :]
        s = np.hypot(fy, fx) * (objective.wavelength_um / objective.na)
        self._fy, self._fx = (f * (objective.wavelength_um / objective.na) for f in (fy, fx))
        self._index = np.minimum(np.rint(s / _TABLE_STEP), _TABLE_SIZE - 1).astype(np.intp)
        self._pixel = (np.sinc(fy * pixel_um) * np.sinc(fx * pixel_um)).astype(np.float32)
        self._kernels = lru_cache(_KERNELS_KEPT)(_kernels)

    def fluorescence(self, defocus_um: Sequence[float]) -> tuple[NDArray[np.float32], ...]:
        """Incoherent transfer functions, one for each defocus; see `fluorescence_otf`.

        Each by itself, so that it does not depend on which others are asked for.
        """
        radial = (_radial_otf(self._objective, z_um, self._kernels) for z_um in defocus_um)
        return tuple(self._on_grid(s, otf) for s, otf in radial)

    def transmitted(
        self, defocus_um: float, *, condenser_na_ratio: float, contrast: Contrast | None = None
    ) -> tuple[NDArray[np.inexact], NDArray[np.inexact]]:
        """Absorption and phase transfer functions; see `transmitted_otf`.

        ``contrast`` is None for the bright field. Phase contrast brings its own condenser; with
        interference contrast the functions are complex64.
        """
        if isinstance(contrast, PhaseContrast):
            return self._both_on_grid(*self._behind_a_ring(defocus_um, contrast))
        absorption, phase = self.bright_field(defocus_um, condenser_na_ratio=condenser_na_ratio)
        if not isinstance(contrast, InterferenceContrast):
            return absorption, phase
        coefficient = absorption - 0.5j * phase
        absorption_c, phase_c = sheared(contrast, coefficient, self._fy, self._fx)
        return absorption_c.astype(np.complex64), phase_c.astype(np.complex64)

    def bright_field(
        self, defocus_um: float, *, condenser_na_ratio: float
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Absorption and phase transfer functions; see `transmitted_otf`."""
        if not 0.05 <= condenser_na_ratio <= 1:
            raise ValueError(f"condenser_na_ratio = {condenser_na_ratio} must be within 0.05..1")
        return self._both_on_grid(
            *_radial_cross_coefficient(self._objective, defocus_um, condenser_na_ratio)
        )

    def _behind_a_ring(
        self, defocus_um: float, contrast: PhaseContrast
    ) -> tuple[Floats, NDArray[np.complex128]]:
        slope = _edge_slope(self._objective, defocus_um)
        s = np.linspace(0.0, 1 + contrast.radius + contrast.width / 2, 160 + int(10 * slope))

        def phase(rho_2: Floats) -> Floats:
            return _pupil_phase(self._objective, rho_2, defocus_um)

        c = ring_cross_coefficient(contrast, s, phase, slope=slope)
        return s, c.astype(np.complex128, copy=False)

    def _both_on_grid(
        self, s: Floats, c: NDArray[np.complex128]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return self._on_grid(s, c.real), self._on_grid(s, -2 * c.imag)

    def _on_grid(self, s: Floats, radial: Floats) -> NDArray[np.float32]:
        table = np.zeros(_TABLE_SIZE, np.float32)
        inside = int(s[-1] / _TABLE_STEP)
        table[:inside] = CubicSpline(s, radial)(_TABLE_STEP * np.arange(inside))
        return table[self._index] * self._pixel


def fluorescence_otf(
    objective: Objective, *, defocus_um: float, shape: tuple[int, int]
) -> NDArray[np.float32]:
    """Incoherent transfer function: Fourier transform of the PSF |FT(pupil)|^2.

    Parameters
    ----------
    objective : Objective
    defocus_um : float
        Distance of the specimen from the plane in focus, um; the sign matters only with aberration.
    shape : (int, int)
        Height and width of the image it will be applied to, pixels.

    Returns
    -------
    ndarray of shape (height, width // 2 + 1), float32
        ``rfft2`` layout, 1 at zero frequency (light is only moved, never lost). Includes the
        camera's integration over a square pixel.
    """
    return TransferFunctions(objective, shape).fluorescence([defocus_um])[0]


def transmitted_otf(
    objective: Objective, *, defocus_um: float, shape: tuple[int, int], condenser_na_ratio: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weak-object transfer functions of transmitted light, (absorption, phase).

    The cross-coefficient C(f, 0) of Hopkins (1953) for a condenser that fills
    ``condenser_na_ratio`` of the pupil, as in N. Streibl, JOSA A 2, 121 (1985): a weak object
    ``exp(-density / 2 + i phase)`` gives the relative intensity
    ``1 - Re C * density - 2 Im C * phase``.

    Parameters
    ----------
    objective : Objective
    defocus_um : float
        Distance of the specimen from the plane in focus, um.
    shape : (int, int)
        Height and width of the image, pixels.
    condenser_na_ratio : float
        Condenser NA / objective NA, 0.05..1.

    Returns
    -------
    absorption, phase : ndarrays of shape (height, width // 2 + 1), float32
        ``rfft2`` layout. ``absorption`` is Re C, 1 at zero frequency; ``phase`` is -2 Im C, zero
        in focus without aberration: a pure phase specimen is least visible there.
    """
    functions = TransferFunctions(objective, shape)
    return functions.bright_field(defocus_um, condenser_na_ratio=condenser_na_ratio)


def _pupil_phase(objective: Objective, rho_2: Floats, defocus_um: Floats | float) -> Floats:
    """Phase in radians at squared normalised pupil radius; defocus is exact, not paraxial."""
    n = objective.immersion_index
    cos_theta = np.sqrt(np.maximum(1 - (objective.na / n) ** 2 * rho_2, 0.0))
    # Relative to the axis: a constant phase does nothing, and a small number keeps its digits.
    waves = n / objective.wavelength_um * defocus_um * (cos_theta - 1)
    if objective.spherical_waves:
        waves = waves + objective.spherical_waves * (6 * rho_2 * (rho_2 - 1) + 1)
    return 2 * math.pi * waves


def _edge_slope(objective: Objective, defocus_um: float) -> float:
    """Largest gradient of the pupil phase, cycles a pupil radius = the geometric blur's radius."""
    na, n = objective.na, objective.immersion_index
    defocus = abs(defocus_um) * na**2 / (objective.wavelength_um * math.sqrt(n**2 - na**2))
    return defocus + 12 * abs(objective.spherical_waves)


@dataclass(frozen=True)
class _Kernels:
    """What the two Hankel transforms of `_radial_otf` need and no objective changes.

    Attributes
    ----------
    nodes, weights : ndarray
        Quadrature over the pupil's radius.
    to_amplitude : ndarray of shape (nodes, r)
    r : ndarray
        Where the PSF is computed.
    to_otf : ndarray of shape (r, s)
    s : ndarray
        Frequencies, 0..2.
    """

    nodes: Floats
    weights: Floats
    to_amplitude: Floats
    r: Floats
    to_otf: Floats
    s: Floats


def _kernels(radius: float) -> _Kernels:
    blur = (radius - _TAIL_RADIUS) / 1.1
    r = np.arange(0.0, radius, _RADIAL_STEP)
    nodes, weights = _gauss_legendre(0.0, 1.0, 16 + int(_CYCLES_TO_NODES * (radius + blur / 2)))
    s = _denser_near_zero(2.0, 48 + int(5 * radius))
    to_amplitude = j0(2 * math.pi * np.outer(nodes, r))
    return _Kernels(nodes, weights, to_amplitude, r, j0(2 * math.pi * np.outer(r, s)), s)


def _radial_otf(
    objective: Objective, defocus_um: float, kernels: Callable[[float], _Kernels]
) -> tuple[Floats, Floats]:
    """Return frequencies s (0..2) and the OTF there.

    The closed form in focus plus the Hankel transform of (PSF - PSF in focus): their far tails
    are alike, so the difference may be cut at a finite radius.
    """
    blur = _edge_slope(objective, defocus_um)
    radius = 1.1 * blur + _TAIL_RADIUS
    k = kernels(_RADIUS_STEP ** math.ceil(math.log(radius, _RADIUS_STEP)))
    rings = math.ceil(radius / _RADIAL_STEP)
    pupil = np.exp(1j * _pupil_phase(objective, k.nodes**2, defocus_um))
    pupils = np.vstack([pupil, np.ones_like(k.nodes)])  # the second one is in focus
    weighted = pupils * (2 * k.weights * k.nodes)
    # Real and imaginary part apart: the kernel is real.
    to_amplitude = k.to_amplitude[:, :rings]
    psf = (weighted.real @ to_amplitude) ** 2 + (weighted.imag @ to_amplitude) ** 2
    ring = k.r[:rings] * _RADIAL_STEP
    ring[0] = _RADIAL_STEP**2 / 12  # Euler-Maclaurin: the integrand starts with slope 1 at r = 0
    change = ((psf[0] - psf[1]) * ring) @ k.to_otf[:rings]
    change -= change[0] * np.exp(-((k.s * _TAIL_RADIUS) ** 2))  # no light is lost: 1 at s = 0
    return k.s, _otf_in_focus(k.s) + 2 * math.pi**2 * change


def _otf_in_focus(s: Floats) -> Floats:
    """OTF of a clear circular pupil (Goodman, *Introduction to Fourier Optics*, section 6.3)."""
    half = np.clip(s / 2, 0.0, 1.0)
    return 2 / math.pi * (np.arccos(half) - half * np.sqrt(1 - half**2))


def _radial_cross_coefficient(
    objective: Objective, defocus_um: float, sigma: float
) -> tuple[Floats, NDArray[np.complex128]]:
    """Return frequencies s (0..1 + sigma) and C(s, 0).

    C integrates exp(i (phase(|u + s|) - phase(|u|))) over source points u that both stay inside
    the source (radius sigma) and land inside the pupil (radius 1), divided by the source's area.
    """
    slope = _edge_slope(objective, defocus_um)
    s = _denser_near_zero(1.0 + sigma, 48 + int(5 * slope))[:, None, None]
    t, t_weights = _gauss_legendre(0.0, math.pi / 2, 20 + int(0.3 * slope))
    y_max = _half_height_of_overlap(s, sigma)
    y = y_max * np.sin(t)[None, :, None]
    y_weights = y_max[..., 0] * np.cos(t) * t_weights
    pupil_half_width, source_half_width = np.sqrt(1 - y**2), np.sqrt(sigma**2 - y**2)
    left = np.maximum(-source_half_width, -s - pupil_half_width)
    right = np.minimum(source_half_width, -s + pupil_half_width)
    width = np.maximum(right - left, 0.0)
    x, x_weights = _gauss_legendre(0.0, 1.0, 12 + int(2.4 * slope * sigma))
    u = left + width * x
    phase = _pupil_phase(objective, (u + s) ** 2 + y**2, defocus_um)
    phase -= _pupil_phase(objective, u**2 + y**2, defocus_um)
    phase = phase.astype(np.float32)  # differences only: a few hundred rad, and much faster
    strips = (np.cos(phase) @ x_weights + 1j * (np.sin(phase) @ x_weights)) * width[..., 0]
    total = (strips * y_weights).sum(axis=1) * 2  # the other half, y < 0, is the same
    return s[:, 0, 0], total / (math.pi * sigma**2)


def _half_height_of_overlap(s: Floats, sigma: float) -> Floats:
    """Largest y shared by a disc of radius sigma at 0 and a disc of radius 1 at -s."""
    crossing_x = (1 - s**2 - sigma**2) / (2 * np.maximum(s, 1e-9))
    return np.sqrt(np.maximum(sigma**2 - np.minimum(crossing_x, 0.0) ** 2, 0.0))


def _denser_near_zero(stop: float, count: int) -> Floats:
    return stop * np.linspace(0.0, 1.0, count) ** 1.5


def _gauss_legendre(start: float, stop: float, count: int) -> tuple[Floats, Floats]:
    nodes, weights = roots_legendre(count)
    half = (stop - start) / 2
    return start + half * (nodes + 1), half * weights
