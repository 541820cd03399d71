"""A lab's folder of z-stacks, simulated: S001/S001_z-15.tif ... S001_z15.tif, in focus at 0 um.

Run as a script it makes the folder: ``python tests/training/lab_stacks.py FOLDER --stacks 11``.
Every five stacks, one of each kind of specimen, have the next of ``--electrons``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from devices.simulated.optics import Objective
from devices.simulated.render import Renderer, camera_counts
from devices.simulated.specimens import make_specimen

OBJECTIVE = Objective(0.4, 1.0, 0.53, 0.325)
KINDS = ("nuclei", "cells", "puncta", "filaments", "tissue")


def planes(
    z_um: Sequence[float],
    *,
    seed: int,
    side: int = 96,
    in_focus_um: float = 0.0,
    electrons: float = 400.0,
) -> NDArray[np.uint16]:
    """Frames of one simulated specimen, shape (n, side, side).

    ``electrons`` are those of a bright pixel in focus; 20 more are everywhere.
    """
    rng = np.random.default_rng(seed)
    kind = KINDS[seed % len(KINDS)]
    shape = (side, side)
    specimen = make_specimen(kind, shape=shape, pixel_size_um=OBJECTIVE.pixel_size_um, rng=rng)
    renderer = Renderer(specimen, OBJECTIVE)
    clean = [renderer.relative(z - in_focus_um) for z in z_um]
    return np.stack([camera_counts(electrons * each + 20, rng=rng) for each in clean])


def write_stack(
    folder: Path,
    z_um: Sequence[float],
    *,
    seed: int,
    side: int = 96,
    in_focus_um: float = 0.0,
    electrons: float = 400.0,
    name: str = "{folder}_z{z:g}.tif",
) -> list[Path]:
    """Write one file a plane; ``name`` may use folder, z and n (from 1)."""
    folder.mkdir(parents=True, exist_ok=True)
    frames = planes(z_um, seed=seed, side=side, in_focus_um=in_focus_um, electrons=electrons)
    files = []
    for n, (z, frame) in enumerate(zip(z_um, frames, strict=True), start=1):
        files.append(folder / name.format(folder=folder.name, z=z, n=n))
        tifffile.imwrite(files[-1], frame)
    return files


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--stacks", type=int, default=4)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--electrons", type=float, nargs="+", default=[400.0])
    options = parser.parse_args()
    for number in range(options.first, options.first + options.stacks):
        electrons = options.electrons[number // len(KINDS) % len(options.electrons)]
        folder = options.folder / f"S{number:03d}"
        write_stack(folder, range(-15, 16), seed=number, side=options.side, electrons=electrons)


if __name__ == "__main__":
    main()
