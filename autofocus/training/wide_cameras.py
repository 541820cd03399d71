"""The light of `autofocus.training.known_defocus` as frames to fit a head to.

Every specimen through cameras, lamps and programs drawn from far wider ranges than any one
microscope has (`autofocus.training.focus_batches`): smoothed, with few levels, hot pixels, uneven
light, in two photons and in thousands. The frames are small, so there can be many of them. Some
are of fields with nothing in them, which all these cameras make look like something.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autofocus.training.focus_batches import FocusBatches
from autofocus.training.known_defocus import SIDE_PX, KnownDefocus, open_known_defocus
from autofocus.training.labelled import EMPTY_DEFOCUS_DOF, Group, LabelledFrame

_SPECIMENS_PER_EMPTY_FIELD = 8


def wide_camera_groups(folder: Path, *, cameras: int, seed: int) -> list[Group]:
    """All specimens of a folder of `load_known_defocus`, each through ``cameras`` cameras.

    The light of every eighth comes once more without its structure.
    """
    specimens = range(len(open_known_defocus(folder)))
    frames = {f"wide-{seed}-{i}": _Recorded(folder, i, cameras, seed) for i in specimens}
    empties = specimens[::_SPECIMENS_PER_EMPTY_FIELD]
    nothing = {f"wide-empty-{seed}-{i}": _Empty(folder, i, seed) for i in empties}
    return [Group(name, "wide cameras", made) for name, made in (frames | nothing).items()]


@dataclass(frozen=True)
class _Recorded:
    """Frames of one specimen, a callable that can go to another process; the light is on disk."""

    folder: Path
    specimen: int
    cameras: int
    seed: int

    def __call__(self) -> list[LabelledFrame]:
        pool = open_known_defocus(self.folder)
        batches = _whole_frames(pool)
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


@dataclass(frozen=True)
class _Empty:
    """One frame of a field with nothing in it; as above."""

    folder: Path
    specimen: int
    seed: int

    def __call__(self) -> list[LabelledFrame]:
        pool = open_known_defocus(self.folder)
        rng = np.random.default_rng([self.seed, 0xE3B, self.specimen])
        (frame,) = _whole_frames(pool).recorded(self.specimen, np.array([0]), rng, empty=True)
        return [LabelledFrame(frame, EMPTY_DEFOCUS_DOF, float(pool.sampling[self.specimen]))]


def _whole_frames(pool: KnownDefocus) -> FocusBatches:
    return FocusBatches(pool, specimens=1, distances=1, crop_px=SIDE_PX, unknown=0.0)
