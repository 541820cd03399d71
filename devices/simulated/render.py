"""From a specimen to the photons on a camera, and from photons to counts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from devices.simulated.contrast import Contrast
from devices.simulated.optics import Objective, TransferFunctions, depth_of_field_um
from devices.simulated.shot_noise import noisy_electrons
from devices.simulated.specimens import Specimen

Image = NDArray[np.float32]

DEFAULT_CONDENSER_NA_RATIO = 0.5
_REMEMBERED = 64  # transfer functions; a run comes back to the same positions


class Renderer:
    """Noise-free images of one specimen through one objective; keeps the specimen's spectra.

    Parameters
    ----------
    specimen : Specimen
    objective : Objective
    condenser_na_ratio : float
        Transmitted light only: condenser NA / objective NA, 0.05..1.
    contrast : PhaseContrast or InterferenceContrast, optional
        Transmitted light only; bright field if None.
    """

    def __init__(
        self,
        specimen: Specimen,
        objective: Objective,
        *,
        condenser_na_ratio: float = DEFAULT_CONDENSER_NA_RATIO,
        contrast: Contrast | None = None,
    ) -> None:
        self._specimen, self._objective = specimen, objective
        self._condenser_na_ratio, self.contrast = condenser_na_ratio, contrast
        self._spectra = [(offset, self._layer_spectra(layer)) for offset, layer in specimen.layers]
        self._functions = TransferFunctions(objective, specimen.shape)
        self._otfs: dict[float, tuple[NDArray[np.inexact], ...]] = {}
        self._level = self._brightness_in_focus()
        self._shift: tuple[tuple[float, float], NDArray[np.complex64] | None] = ((0.0, 0.0), None)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the images, pixels."""
        return self._specimen.shape

    @property
    def transmitted(self) -> bool:
        """Whether the specimen is seen in transmitted light."""
        return self._specimen.modality == "brightfield"

    @property
    def layers_um(self) -> tuple[float, ...]:
        """Offsets of the specimen's layers from its plane in focus, um."""
        return tuple(offset for offset, _ in self._specimen.layers)

    @property
    def _same_on_both_sides(self) -> bool:
        """Whether blur above and below focus is the same: no aberration, no transmitted light."""
        return not self.transmitted and self._objective.spherical_waves == 0

    @cached_property
    def sharpest_defocus_um(self) -> float:
        """Defocus of the image with most detail, um; see `sharpest_defocus_um`."""
        return sharpest_defocus_um(self, self._specimen.kind, self._objective)

    def relative(self, defocus_um: float, shift_px: tuple[float, float] = (0.0, 0.0)) -> Image:
        """Image at ``defocus_um`` = z - z_in_focus, shape of the specimen.

        Fluorescence: 1 is the typical brightness of the structure in focus. Brightfield: 1 is the
        empty field. ``shift_px`` (y, x) moves the picture, around the edges.
        """
        total = self._sum_of_layers(defocus_um)
        if any(shift_px):
            total = total * self._shift_phase(shift_px)
        image = fft.irfft2(total, s=self._specimen.shape)
        if self._specimen.modality == "brightfield":
            image = 1 + image
        return np.maximum(image / self._level, 0).astype(np.float32)

    def _shift_phase(self, shift_px: tuple[float, float]) -> NDArray[np.complex64]:
        """Phase that moves a picture; the last one is kept, as a focus run stays in one place."""
        known, phase = self._shift
        if phase is None or known != shift_px:
            phase = _shift_phase(self._specimen.shape, shift_px)
            self._shift = (shift_px, phase)
        return phase

    def _layer_spectra(self, layer: Image) -> tuple[NDArray[np.complex64], ...]:
        if self._specimen.modality == "fluorescence":
            return (fft.rfft2(layer),)
        absorbed = np.exp(-self._specimen.density * layer) - 1
        return fft.rfft2(absorbed), fft.rfft2(self._specimen.phase_rad * layer)

    def _sum_of_layers(self, defocus_um: float) -> NDArray[np.complex64]:
        # Rounded to 10 nm, a fiftieth of the depth of field of an oil objective.
        defoci_um = [round(defocus_um - offset_um, 2) for offset_um, _ in self._spectra]
        if self._same_on_both_sides:
            defoci_um = [abs(z) for z in defoci_um]
        self._prepare(defoci_um)
        terms = (
            spectrum * otf
            for (_, spectra), key in zip(self._spectra, defoci_um, strict=True)
            for spectrum, otf in zip(spectra, self._otfs[key], strict=True)
        )
        return sum(terms, start=np.zeros((), np.complex64))

    def _prepare(self, defoci_um: list[float]) -> None:
        missing = sorted({z for z in defoci_um if z not in self._otfs})
        if len(self._otfs) + len(missing) > _REMEMBERED:
            self._otfs.clear()
            missing = sorted(set(defoci_um))
        if missing:
            self._otfs.update(zip(missing, self._compute(missing), strict=True))

    def _compute(self, defoci_um: list[float]) -> list[tuple[NDArray[np.inexact], ...]]:
        if self._specimen.modality == "fluorescence":
            return [(otf,) for otf in self._functions.fluorescence(defoci_um)]
        return [
            self._functions.transmitted(
                z, condenser_na_ratio=self._condenser_na_ratio, contrast=self.contrast
            )
            for z in defoci_um
        ]

    def _brightness_in_focus(self) -> float:
        """Mean brightness where a photon comes from, sum(I^2) / sum(I), of the image in focus.

        Unlike a percentile it is the structure's own level for two beads and for tissue alike.
        """
        if self._specimen.modality == "brightfield":
            return 1.0
        self._level = 1.0
        image = self.relative(0.0).astype(np.float64)
        total = float(image.sum())
        return float((image**2).sum()) / total if total > 0 else 1.0


def sharpest_defocus_um(renderer: Renderer, kind: str, objective: Objective) -> float:
    """Return the defocus at which the noise-free image has most gradient energy, um.

    Searched within 3 depths of field, a parabola through the best of it. 0 for phase specimens in
    the bright field, whose contrast is least in focus, and for empty ones.
    """
    hidden = kind == "phase" and renderer.contrast is None
    if hidden or kind.startswith("empty"):
        return 0.0
    step_um = depth_of_field_um(objective) / 4
    detail = [_gradient_energy(renderer.relative(i * step_um)) for i in range(-12, 13)]
    best = int(np.clip(np.argmax(detail), 1, 23))
    before, here, after = detail[best - 1 : best + 2]
    bend = before - 2 * here + after
    shift = 0.5 * (before - after) / bend if bend < 0 else 0.0
    return (best - 12 + shift) * step_um


def _gradient_energy(image: Image) -> float:
    down, right = np.diff(image, axis=0), np.diff(image, axis=1)
    return float((down**2).sum() + (right**2).sum())


def expected_photons(
    specimen: Specimen,
    objective: Objective,
    *,
    defocus_um: float,
    photons: float,
    background: float,
    condenser_na_ratio: float = DEFAULT_CONDENSER_NA_RATIO,
) -> Image:
    """Return the noise-free image in photons a pixel; defocus moves light and loses none.

    Parameters
    ----------
    specimen : Specimen
    objective : Objective
    defocus_um : float
        z - z_in_focus, um.
    photons : float
        Fluorescence: photons a pixel in the structure, in focus (mean weighted by brightness).
        Brightfield: photons a pixel of the empty field.
    background : float
        Photons a pixel that every pixel gets besides.
    condenser_na_ratio : float
        Transmitted light only.

    Returns
    -------
    ndarray of the specimen's shape, float32
    """
    renderer = Renderer(specimen, objective, condenser_na_ratio=condenser_na_ratio)
    return photons * renderer.relative(defocus_um) + np.float32(background)


def camera_counts(
    expected: Image,
    *,
    rng: np.random.Generator,
    read_noise_e: float = 1.5,
    gain: float = 1.0,
    offset: float = 100.0,
    bit_depth: int = 16,
    hot_pixels: Sequence[tuple[int, int, float]] = (),
) -> NDArray[np.uint16]:
    """Digitise: Poisson, read noise, gain, offset, rounding, saturation.

    Parameters
    ----------
    expected : ndarray of float32
        Photoelectrons a pixel, as from `expected_photons`.
    rng : numpy.random.Generator
    read_noise_e : float
        Standard deviation of the read noise, electrons.
    gain : float
        Counts an electron.
    offset : float
        Counts without any light.
    bit_depth : int
        1..16; counts saturate at ``2**bit_depth - 1``.
    hot_pixels : sequence of (row, column, electrons)
        Dark electrons, with their own Poisson noise, on top of the light.
    """
    expected = np.maximum(expected, 0, dtype=np.float32)
    for row, column, electrons in hot_pixels:
        expected[row, column] += electrons
    seen = noisy_electrons(expected, rng=rng, read_noise_e=read_noise_e)
    counts = np.rint(np.float32(gain) * seen + np.float32(offset))
    return np.clip(counts, 0, 2**bit_depth - 1).astype(np.uint16)


def _shift_phase(shape: tuple[int, int], shift_px: tuple[float, float]) -> NDArray[np.complex64]:
    fy = fft.fftfreq(shape[0])[:, None]
    fx = fft.rfftfreq(shape[1])[None, :]
    return np.exp(-2j * np.pi * (fy * shift_px[0] + fx * shift_px[1])).astype(np.complex64)
