"""Specimens in transmitted light: what is drawn for fluorescence, as matter that delays light.

Unstained cells, nuclei, filaments and granules in the bright field, in phase contrast and in
interference contrast.
"""

from __future__ import annotations

import math

import numpy as np

from autofocus.training.batches import log_uniform
from devices.simulated.contrast import Contrast, InterferenceContrast, PhaseContrast
from devices.simulated.optics import Objective
from devices.simulated.render import Renderer
from devices.simulated.specimens import Specimen, make_specimen

_KINDS = ("phase", "cells", "filaments", "phase", "nuclei", "puncta")


def draw_transmitted(
    index: int, objective: Objective, *, side: int, rng: np.random.Generator
) -> Renderer:
    """Draw a specimen, a contrast and a condenser; ``index`` goes around kinds and contrasts."""
    specimen = make_specimen(
        _KINDS[index % len(_KINDS)],
        shape=(side, side),
        pixel_size_um=objective.pixel_size_um,
        rng=rng,
    )
    contrast = _draw_contrast(index // len(_KINDS), rng)
    matter = np.minimum(specimen.layers[0][1], np.float32(3))
    density = float(rng.uniform(0, 0.05)) if rng.random() < 0.7 else log_uniform(0.05, 0.5, rng)
    # The optics are those of weak objects; what is denser (matter reaches 3) is drawn too
    # contrasty, with the blur of the right distance. Contrast methods show fainter phases.
    phase_rad = log_uniform(0.05, 0.6, rng) if contrast else log_uniform(0.2, 1.5, rng)
    return Renderer(
        Specimen(((0.0, matter),), "phase", "brightfield", density, phase_rad),
        objective,
        condenser_na_ratio=float(rng.uniform(0.3, 0.9)),
        contrast=contrast,
    )


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
