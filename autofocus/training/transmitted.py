"""Specimens in transmitted light: what is drawn for fluorescence, as matter that delays light.

Unstained cells, nuclei, filaments and granules in the bright field, in phase contrast and in
interference contrast.
"""

from __future__ import annotations

import math

import numpy as np

from autofocus.training.batches import log_uniform
from devices.simulated.contrast import Contrast, InterferenceContrast, PhaseContrast
from devices.simulated.specimens import Specimen, make_specimen

_KINDS = ("phase", "cells", "filaments", "phase", "nuclei", "puncta")


def draw_transmitted(
    index: int, *, side: int, pixel_size_um: float, rng: np.random.Generator
) -> tuple[Specimen, Contrast | None]:
    """Draw a specimen and a contrast; ``index`` goes around the kinds and the contrasts."""
    specimen = make_specimen(
        _KINDS[index % len(_KINDS)], shape=(side, side), pixel_size_um=pixel_size_um, rng=rng
    )
    contrast = _draw_contrast(index // len(_KINDS), rng)
    matter = np.minimum(specimen.layers[0][1], np.float32(3))
    density = float(rng.uniform(0, 0.05)) if rng.random() < 0.7 else log_uniform(0.05, 0.5, rng)
    # The optics are those of weak objects; what is denser (matter reaches 3) is drawn too
    # contrasty, with the blur of the right distance. Contrast methods show fainter phases.
    phase_rad = log_uniform(0.05, 0.6, rng) if contrast else log_uniform(0.2, 1.5, rng)
    return Specimen(((0.0, matter),), "phase", "brightfield", density, phase_rad), contrast


def _draw_contrast(number: int, rng: np.random.Generator) -> Contrast | None:
    if number % 3 == 0:
        return None
    if number % 3 == 1:
        return PhaseContrast(
            radius=float(rng.uniform(0.3, 0.7)),
            width=float(rng.uniform(0.06, 0.15)),
            amplitude=float(rng.uniform(0.3, 0.8)),
            bright=bool(rng.random() < 0.2),
        )
    return InterferenceContrast(
        shear=float(rng.uniform(0.1, 0.5)),
        bias_rad=float(rng.uniform(0.3, math.pi / 2)),
        direction_rad=float(rng.uniform(0, 2 * math.pi)),
    )
