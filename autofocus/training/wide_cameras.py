"""The light of `autofocus.training.known_defocus` as frames to fit a head to.

Every specimen through cameras, lamps and programs drawn from far wider ranges than any one
microscope has (`autofocus.training.focus_batches`): smoothed, with few levels, hot pixels, uneven
light, in 8 photons and in thousands. The frames are small, so there can be many of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autofocus.training.focus_batches import FocusBatches
from autofocus.training.known_defocus import SIDE_PX, open_known_defocus
from autofocus.training.labelled import Group, LabelledFrame


def wide_camera_groups(folder: Path, *, cameras: int, seed: int) -> list[Group]:
    """All specimens of a folder of `load_known_defocus`, each through ``cameras`` cameras."""
    return [
        Group(f"wide-{seed}-{specimen}", "wide cameras", _Recorded(folder, specimen, cameras, seed))
        for specimen in range(len(open_known_defocus(folder)))
    ]


@dataclass(frozen=True)
class _Recorded:
    """Frames of one specimen, a callable that can go to another process; the light is on disk."""

    folder: Path
    specimen: int
    cameras: int
    seed: int

    def __call__(self) -> list[LabelledFrame]:
        pool = open_known_defocus(self.folder)
        batches = FocusBatches(pool, specimens=1, distances=1, crop_px=SIDE_PX, unknown=0.0)
        defocus, sampling = pool.defocus_dof[self.specimen], float(pool.sampling[self.specimen])
        rng = np.random.default_rng([self.seed, 0xCA3, self.specimen])
        planes = np.arange(len(defocus))
        return [
            LabelledFrame(frame, float(distance), sampling)
            for _ in range(self.cameras)
            for frame, distance in zip(
                batches.recorded(self.specimen, planes, rng), defocus, strict=True
            )
        ]
