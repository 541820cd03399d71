"""Defocus of images that are already in focus, by the pupil function of the objective.

A sharp image has been through the objective once. What defocus adds is the ratio of two transfer
functions, OTF(z) / OTF(0): its modulus never exceeds 1, because an unaberrated pupil in focus
transfers every frequency best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from devices.simulated.optics import (
    Objective,
    depth_of_field_um,
    fluorescence_otf,
)

LEVELS_DOF = (0.5, 1.0, 2.0, 4.0, 8.0)

_LENSES = (  # (NA, immersion index) as found on microscopes
    (0.16, 1.0),
    (0.3, 1.0),
    (0.45, 1.0),
    (0.5, 1.0),
    (0.75, 1.0),
    (0.8, 1.0),
    (0.95, 1.0),
    (1.0, 1.33),
    (1.2, 1.33),
    (1.3, 1.515),
    (1.4, 1.515),
)
_SMALLEST_TRANSFER = 1e-3  # below this the image in focus holds noise only


def random_objectives(count: int, *, seed: int) -> tuple[Objective, ...]:
    """Objectives with cameras that sample between twice and a third of the Nyquist rate.

    The first 11 cover the lenses once each, from NA 0.16 to 1.4.
    """
    rng = np.random.default_rng([seed, 0x0B])
    return tuple(_with_camera(_LENSES[i % len(_LENSES)], rng) for i in range(count))


def random_objective(rng: np.random.Generator) -> Objective:
    """Any of the lenses, with a random camera."""
    return _with_camera(_LENSES[rng.integers(len(_LENSES))], rng)


@dataclass(frozen=True)
class DefocusBank:
    """Defocus for a set of objectives; each transfer function is computed once, when first used.

    Attributes
    ----------
    objectives : sequence of Objective
        Without aberration.
    shape : (int, int)
        Height and width of the images to blur.
    """

    objectives: Sequence[Objective]
    shape: tuple[int, int]
    _transfers: dict[tuple[int, float], NDArray[np.float32]] = field(
        default_factory=dict, repr=False, compare=False
    )

    def blur(
        self,
        spectrum: NDArray[np.complex64],
        level: int,
        *,
        objective: int,
        spherical_waves: float = 0.0,
    ) -> NDArray[np.float32]:
        """Return the image defocused by ``LEVELS_DOF[level]`` depths of field.

        Parameters
        ----------
        spectrum : ndarray
            ``rfft2`` of the image in focus, so that several levels share it.
        level : int
            0..4.
        objective : int
            Index into ``objectives``.
        spherical_waves : float
            Primary spherical aberration, waves. With it the two sides of focus differ; a negative
            coefficient shows the other side.
        """
        transfers = self._get(objective, spherical_waves)
        return fft.irfft2(spectrum * transfers[level], s=self.shape)

    def _get(self, objective: int, spherical_waves: float) -> NDArray[np.float32]:
        key = (objective, spherical_waves)
        if key not in self._transfers:
            ideal = self.objectives[objective]
            aberrated = replace(ideal, spherical_waves=spherical_waves)
            self._transfers[key] = _relative_transfers(ideal, aberrated, self.shape)
        return self._transfers[key]


def _relative_transfers(
    ideal: Objective, aberrated: Objective, shape: tuple[int, int]
) -> NDArray[np.float32]:
    in_focus = fluorescence_otf(ideal, defocus_um=0.0, shape=shape)
    dof_um = depth_of_field_um(ideal)
    defocused = np.stack(
        [
            fluorescence_otf(aberrated, defocus_um=level * dof_um, shape=shape)
            for level in LEVELS_DOF
        ]
    )
    passed = in_focus > _SMALLEST_TRANSFER
    ratio = defocused / np.where(passed, in_focus, 1)
    return np.where(passed, np.clip(ratio, -1, 1), 0).astype(np.float32)


def _with_camera(lens: tuple[float, float], rng: np.random.Generator) -> Objective:
    na, index = lens
    wavelength_um = rng.uniform(0.45, 0.7)
    nyquist_um = wavelength_um / (4 * na)
    pixel_size_um = nyquist_um * np.exp(rng.uniform(np.log(0.5), np.log(3.0)))
    return Objective(na, index, wavelength_um, float(pixel_size_um))
