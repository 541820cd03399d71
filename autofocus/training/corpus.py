"""Images to train on: simulated specimens and the real `train` images, as one pool.

A simulated specimen is rendered in focus and at five levels of defocus, so that thickness, haze,
aberration and the contrast of transmitted light are those of the optics. A real image is there in
focus only; `autofocus.training.defocus` adds defocus to it. Everything is made once, kept as
float16 beside the run, and shared by both branches.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray
from rich.progress import track

from autofocus.errors import ConfigError
from autofocus.training.defocus import LEVELS_DOF, random_objective
from devices.simulated.optics import depth_of_field_um
from devices.simulated.render import Renderer
from devices.simulated.specimens import KINDS, make_specimen

Floats = NDArray[np.float32]

_LEAST_SIDE = 120  # smaller real images would be mostly mirror images of themselves
_CROPS_PER_IMAGE = 6
_LARGEST_SHRINK = 2.5
_EMPTY_FIELD = 0.65  # where the empty field of transmitted light lies in 0..1


@dataclass(frozen=True)
class Pristine:
    """One specimen.

    Attributes
    ----------
    image : ndarray of shape (side, side), float16
        Light in 0..1, in focus. A view: what is needed of it is converted when it is used.
    defocused : ndarray of shape (5, side, side), float16, or None
        The same specimen at the levels of `LEVELS_DOF`; None for a real image.
    aberrated : bool
        ``defocused`` was seen through an objective with spherical aberration.
    """

    image: NDArray[np.float16]
    defocused: NDArray[np.float16] | None
    aberrated: bool


@dataclass(frozen=True)
class Corpus:
    """A pool of specimens.

    Attributes
    ----------
    simulated : ndarray of shape (n, 6, side, side), float16
        In focus, then at the levels of `LEVELS_DOF`; may be mapped from disk.
    aberrated : ndarray of shape (n,), bool
        Which of them were seen through spherical aberration.
    real : ndarray of shape (m, side, side), float16
        May be empty.
    real_share : float
        Probability that a draw is a real image; without effect when there are none.
    """

    simulated: NDArray[np.float16]
    aberrated: NDArray[np.bool_]
    real: NDArray[np.float16]
    real_share: float

    @property
    def side(self) -> int:
        """Height and width of the images, px."""
        return int(self.simulated.shape[-1])

    def draw(self, rng: np.random.Generator) -> Pristine:
        """Return a random specimen, turned and mirrored at random."""
        if len(self.real) and rng.random() < self.real_share:
            image = _turned(self.real[rng.integers(len(self.real))], rng)
            return Pristine(image, None, aberrated=False)
        index = int(rng.integers(len(self.simulated)))
        series = _turned(self.simulated[index], rng)
        return Pristine(series[0], series[1:], aberrated=bool(self.aberrated[index]))


def load_corpus(
    folder: Path, *, data: Path | None, count: int, side: int, real_share: float, seed: int
) -> Corpus:
    """Return the pool kept in ``folder``, making it first when it is not there.

    Parameters
    ----------
    folder : Path
        Holds ``simulated.npy``, ``real.npz`` and the settings they were made with; a pool made
        with others is made again.
    data : Path or None
        Folder with ``manifest.json``, ``stacks`` and ``stills``; None trains on simulation only.
    count : int
        Simulated specimens.
    side : int
        Side of all images, px.
    real_share : float
        Probability that a draw is a real image.
    seed : int

    Raises
    ------
    ConfigError
        When ``data`` has no manifest.
    """
    made_with = json.dumps({"count": count, "side": side, "seed": seed, "data": str(data)})
    settings = folder / "pool.json"
    if not (settings.is_file() and settings.read_text(encoding="utf-8") == made_with):
        _make_pool(folder, data, count=count, side=side, seed=seed)
        settings.write_text(made_with, encoding="utf-8")
    with np.load(folder / "real.npz") as stored:
        real, aberrated = stored["real"], stored["aberrated"]
    simulated = np.load(folder / "simulated.npy", mmap_mode="r")
    return Corpus(simulated, aberrated, real, real_share)


def simulated_series(side: int, rng: np.random.Generator) -> tuple[Floats, bool]:
    """Render a random specimen through a random objective, in focus and at five levels of defocus.

    Returns
    -------
    series : ndarray of shape (6, side, side), float32
        Light in 0..1. Each level lies on a random side of focus and up to 20 % off.
    aberrated : bool
        The objective has spherical aberration.
    """
    kinds = [kind for kind in KINDS if not kind.startswith("empty")]
    objective = random_objective(rng)
    aberrated = bool(rng.random() < 0.4)
    if aberrated:
        waves = rng.uniform(0.1, 0.4) * rng.choice((-1, 1))
        objective = replace(objective, spherical_waves=float(waves))
    specimen = make_specimen(
        kinds[rng.integers(len(kinds))],
        shape=(side, side),
        pixel_size_um=objective.pixel_size_um,
        rng=rng,
    )
    renderer = Renderer(
        specimen, objective, condenser_na_ratio=float(np.exp(rng.uniform(np.log(0.15), 0)))
    )
    away = np.array((0.0, *LEVELS_DOF)) * np.exp(rng.uniform(-0.2, 0.2, 6)) * rng.choice((-1, 1), 6)
    depths_um = away * depth_of_field_um(objective)
    light = np.stack([renderer.relative(float(depth_um)) for depth_um in depths_um])
    if specimen.modality == "brightfield":
        scale = _EMPTY_FIELD
    else:
        scale = 1 / max(float(np.percentile(light[0], 99.9)), 1e-6)
    return np.clip(light * np.float32(scale), 0, 1), aberrated


def real_crops(data: Path, *, side: int, seed: int) -> NDArray[np.float16]:
    """Cut sharp crops from the `train` images of a data folder; every source weighs the same."""
    rng = np.random.default_rng([seed, 0xEA1])
    by_source: dict[str, list[Floats]] = {}
    for source, image in train_images(data):
        if min(image.shape) < _LEAST_SIDE:
            continue
        cuts = [_informative_crop(image, side, rng) for _ in range(_CROPS_PER_IMAGE)]
        by_source.setdefault(source, []).extend(cuts)
    if not by_source:
        return np.zeros((0, side, side), np.float16)
    most = int(np.median([len(cuts) for cuts in by_source.values()]))
    chosen = []
    for cuts in by_source.values():
        chosen += [cuts[i] for i in rng.permutation(np.resize(np.arange(len(cuts)), most))]
    return np.stack(chosen).astype(np.float16)


def train_images(data: Path) -> Iterator[tuple[str, Floats]]:
    """Yield (source, grey image in counts) of everything sharp that may be trained on.

    In-focus planes of stacks and stills; never ``use: "evaluate"``, never a folder that is
    deliberately out of focus.
    """
    manifest = data / "manifest.json"
    if not manifest.is_file():
        raise ConfigError(f"{manifest} is missing; give a folder with manifest.json, or no data")
    entries = json.loads(manifest.read_text(encoding="utf-8"))
    for stack in entries["stacks"]:
        if stack["use"] == "train" and "in_focus_plane" in stack:
            planes = tifffile.imread(data / stack["file"])
            yield stack["name"].split("_")[0], _grey(planes[stack["in_focus_plane"]])
    for still in entries["stills"]:
        if still["use"] == "train" and "defocused" not in still["name"]:
            for file in sorted((data / still["folder"]).glob("*.tif")):
                yield still["name"], _grey(tifffile.imread(file))


def _grey(image: NDArray[np.generic]) -> Floats:
    counts = image.astype(np.float32)
    return counts.mean(axis=2) if counts.ndim == 3 else counts


def _informative_crop(image: Floats, side: int, rng: np.random.Generator) -> Floats:
    """Return, of three random crops, the one with the most contrast, in 0..1."""
    crops = [_random_crop(image, side, rng) for _ in range(3)]
    return _stretched(max(crops, key=lambda crop: float(np.log1p(crop - crop.min()).std())))


def _random_crop(image: Floats, side: int, rng: np.random.Generator) -> Floats:
    largest = float(np.clip(min(image.shape) / side, 1, _LARGEST_SHRINK))
    cut = min(int(side * rng.uniform(1, largest)), min(image.shape))
    y = int(rng.integers(image.shape[0] - cut + 1))
    x = int(rng.integers(image.shape[1] - cut + 1))
    crop = image[y : y + cut, x : x + cut]
    if cut >= side:
        return cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA)
    before = (side - cut) // 2
    after = side - cut - before
    return np.pad(crop, ((before, after), (before, after)), mode="symmetric")


def _stretched(image: Floats) -> Floats:
    low, high = np.percentile(image, (0.5, 99.95))
    return np.clip((image - low) / max(high - low, 1e-6), 0, 1).astype(np.float32)


def _turned(image: NDArray[np.float16], rng: np.random.Generator) -> NDArray[np.float16]:
    turned = np.rot90(image, int(rng.integers(4)), axes=(-2, -1))
    return turned[..., ::-1] if rng.random() < 0.5 else turned


def _make_pool(folder: Path, data: Path | None, *, count: int, side: int, seed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pool.json").unlink(missing_ok=True)
    real = np.zeros((0, side, side), np.float16)
    if data is not None:
        real = real_crops(data, side=side, seed=seed)
    shape = (count, 1 + len(LEVELS_DOF), side, side)
    simulated = np.lib.format.open_memmap(
        folder / "simulated.npy", mode="w+", dtype=np.float16, shape=shape
    )
    aberrated = np.zeros(count, bool)
    for i in track(range(count), "simulated specimens"):
        simulated[i], aberrated[i] = simulated_series(side, np.random.default_rng([seed, 0x51, i]))
    simulated.flush()
    np.savez(folder / "real.npz", real=real, aberrated=aberrated)
