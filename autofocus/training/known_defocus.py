"""Light with known defocus, to teach an encoder how far from focus a frame is.

Nobody labels anything: how much an image is defocused is known because the optics of this project
defocused it. Simulated specimens are rendered at several distances, so that thickness, haze and the
contrast of transmitted light are those of the optics; real sharp stills are blurred by the pupil
function. Some of both have dust on a plane of its own. What is kept is light without noise; camera
and lamp are drawn anew for every batch.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import joblib
import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from autofocus.training.batches import log_uniform
from autofocus.training.corpus import train_images
from autofocus.training.defocus import random_objective
from autofocus.training.labelled import defocused, few_beads, sampling_of
from autofocus.training.transmitted import draw_transmitted
from devices.simulated.optics import Objective, depth_of_field_um
from devices.simulated.render import DEFAULT_CONDENSER_NA_RATIO, Renderer
from devices.simulated.specimens import KINDS, Specimen, make_dust, make_specimen

Floats = NDArray[np.float32]
Halves = NDArray[np.float16]

SIDE_PX = 256
# Distances a specimen is kept at: in focus, two near it, three within 8, two up to 20.
_REACHES_DOF = ((0.0, 2.5),) * 2 + ((1.0, 8.0),) * 3 + ((4.0, 20.0),) * 2
DISTANCES = 1 + len(_REACHES_DOF)
# With dust, two of those within 8 are beside its plane instead, as far as this.
_BESIDE_DUST = slice(4, 6)
_DUST_REACH_DOF = 0.7
_DUST_AWAY_DOF = 2.0, 16.0
_NEXT_TO_NOTHING = 0.1  # of the contrast of dust
_WINDOWS_PER_STILL = 10
_DUSTY_WINDOWS_PER_STILL = 3
# To be raised with every change of specimens or optics: light of another recipe is made again.
_RECIPE = 7
_MADE_WITH = "known_defocus.json"
_SIMULATED_PER_BEAD_FIELD = 5
_SIMULATED_PER_TRANSMITTED = 3
_SIMULATED_PER_DUSTY = 2
_SIMULATED_PER_HARD = 2
_KINDS = tuple(kind for kind in KINDS if not kind.startswith("empty"))
# Half of them in transmitted light, where dust is read worst.
_DUSTY_KINDS = (
    *("nuclei", "filaments", "puncta", "cells", "tissue", "beads"),
    *("absorption", "phase") * 3,
)
_FINE_DUST = 0.4  # share of dust that is not like that of the kind debris
# Of these an encoder reads the distance worst, so there are more of them.
_HARD_KINDS = ("absorption", "phase", "tissue")
# Cameras with binning sample coarser than those `random_objective` draws.
_BINNINGS = (1, 1, 1, 2)


@dataclass(frozen=True)
class KnownDefocus:
    """Light of many specimens, each at several distances from focus.

    Attributes
    ----------
    light : ndarray of shape (specimens, DISTANCES, SIDE_PX, SIDE_PX), float16
        Fluorescence and stills: 1 is the brightness of the structure in focus; transmitted light:
        1 is the empty field. May be mapped from disk.
    defocus_dof : ndarray of shape (specimens, DISTANCES)
        |z - z_in_focus| in depths of field, of what is to be seen; the first is 0.
    sampling : ndarray of shape (specimens,)
        Camera pixel as a multiple of wavelength / NA.
    transmitted : ndarray of shape (specimens,), bool
    made_with : str
        Recipe, numbers and seed, as JSON; "" when not known.
    """

    light: Halves
    defocus_dof: NDArray[np.float64]
    sampling: NDArray[np.float64]
    transmitted: NDArray[np.bool_]
    made_with: str = ""

    def __len__(self) -> int:
        return len(self.sampling)


@dataclass(frozen=True)
class _Series:
    light: Halves
    defocus_dof: NDArray[np.float64]
    sampling: float
    transmitted: bool


def load_known_defocus(
    folder: Path, *, data: Path | None, count: int, seed: int, jobs: int = 1
) -> KnownDefocus:
    """Return the light kept in ``folder``, making it first when it is not there.

    Parameters
    ----------
    folder : Path
        Holds ``light.npy``, ``truth.npz`` and what they were made with; light made otherwise is
        made again.
    data : Path or None
        Folder with ``manifest.json``, whose `train` images are added; None for simulation only.
    count : int
        Simulated specimens of every kind; a third as many in transmitted light, half as many again
        of the kinds that are hardest to read, as many with dust and a fifth that are fields of
        beads come on top.
    seed, jobs : int
        Processes that render.
    """
    made_with = json.dumps({"recipe": _RECIPE, "count": count, "seed": seed, "data": str(data)})
    settings = folder / _MADE_WITH
    if not (settings.is_file() and settings.read_text(encoding="utf-8") == made_with):
        folder.mkdir(parents=True, exist_ok=True)
        settings.unlink(missing_ok=True)
        _make(folder, data, count=count, seed=seed, jobs=jobs)
        settings.write_text(made_with, encoding="utf-8")
    return open_known_defocus(folder)


def open_known_defocus(folder: Path) -> KnownDefocus:
    """Map what `load_known_defocus` made."""
    light = np.load(folder / "light.npy", mmap_mode="r")
    made_with = (folder / _MADE_WITH).read_text(encoding="utf-8")
    with np.load(folder / "truth.npz") as truth:
        return KnownDefocus(
            light, truth["defocus_dof"], truth["sampling"], truth["transmitted"], made_with
        )


def _make(folder: Path, data: Path | None, *, count: int, seed: int, jobs: int) -> None:
    tasks: list[Callable[[], _Series]] = [_simulated(i, seed) for i in range(count)]
    tasks += [_beads(i, seed) for i in range(count // _SIMULATED_PER_BEAD_FIELD)]
    tasks += [_transmitted(i, seed) for i in range(count // _SIMULATED_PER_TRANSMITTED)]
    tasks += [_dusty(i, seed) for i in range(count // _SIMULATED_PER_DUSTY)]
    tasks += [_hard(i, seed) for i in range(count // _SIMULATED_PER_HARD)]
    for number, (_, image) in enumerate(train_images(data) if data else ()):
        if min(image.shape) >= SIDE_PX // 2:
            tasks += [_still(image, number, k, seed) for k in range(_WINDOWS_PER_STILL)]
            tasks += [_dusty_still(image, number, k, seed) for k in range(_DUSTY_WINDOWS_PER_STILL)]
    light = np.lib.format.open_memmap(
        folder / "light.npy",
        mode="w+",
        dtype=np.float16,
        shape=(len(tasks), DISTANCES, SIDE_PX, SIDE_PX),
    )
    truth = []
    with joblib.Parallel(n_jobs=jobs, return_as="generator") as parallel:
        made = parallel(joblib.delayed(_call)(task) for task in tasks)
        for i, series in enumerate(track(made, "light", total=len(tasks))):
            light[i] = series.light
            truth.append(series)
    light.flush()
    np.savez(
        folder / "truth.npz",
        defocus_dof=np.stack([series.defocus_dof for series in truth]),
        sampling=np.array([series.sampling for series in truth]),
        transmitted=np.array([series.transmitted for series in truth]),
    )


def _call(task: Callable[[], _Series]) -> _Series:
    return task()


@dataclass(frozen=True)
class _Dust:
    """Dirt on a plane of its own.

    Attributes
    ----------
    away_dof : float
        From the specimen, depths of field; positive: in focus at a larger z.
    renderer : Renderer
        Of the dust alone, in the same light.
    dof_um : float
        Depth of field.
    amount : float
        Brightness relative to the specimen; fluorescence only.
    """

    away_dof: float
    renderer: Renderer
    dof_um: float
    amount: float

    @classmethod
    def draw(
        cls,
        objective: Objective,
        rng: np.random.Generator,
        *,
        transmitted: bool = False,
        condenser_na_ratio: float = DEFAULT_CONDENSER_NA_RATIO,
    ) -> _Dust:
        """Specks and fibres, or fine grains; in the bright field they absorb and delay light."""
        away_dof = log_uniform(*_DUST_AWAY_DOF, rng) * float(rng.choice([-1, 1]))
        dirt = make_dust(
            shape=(SIDE_PX, SIDE_PX),
            pixel_size_um=objective.pixel_size_um,
            fine=bool(rng.random() < _FINE_DUST),
            rng=rng,
        )
        scene = Specimen(((0.0, dirt),), "debris", "fluorescence")
        if transmitted:
            density, phase_rad = log_uniform(0.03, 1.0, rng), float(rng.uniform(0, 0.7))
            # The optics are those of weak objects.
            matter = np.minimum(dirt, np.float32(3))
            scene = Specimen(((0.0, matter),), "debris", "brightfield", density, phase_rad)
        renderer = Renderer(scene, objective, condenser_na_ratio=condenser_na_ratio)
        return cls(
            away_dof, renderer, depth_of_field_um(objective), amount=float(rng.uniform(0.1, 0.6))
        )

    def over(
        self, light: list[Floats], distances: NDArray[np.float64]
    ) -> tuple[list[Floats], NDArray[np.float64]]:
        """Add the dust, and tell how far from focus the frames are then.

        Where dust is in focus, something in the frame is sharp, and yet the specimen is not. But
        where next to nothing is left to be seen of the specimen, dust that is nearer to focus
        counts.
        """
        off_dust = distances - self.away_dof
        dust = [self.renderer.relative(float(each) * self.dof_um) for each in off_dust]
        if self.renderer.transmitted:  # both are thin: what passes one passes the other
            seen = [plane * dirt for plane, dirt in zip(light, dust, strict=True)]
        else:
            dust = [np.float32(self.amount) * dirt for dirt in dust]
            seen = [plane + dirt for plane, dirt in zip(light, dust, strict=True)]
        hidden = np.std(light, axis=(1, 2)) < _NEXT_TO_NOTHING * np.std(dust, axis=(1, 2))
        sharper = np.abs(off_dust) < np.abs(distances)
        return seen, np.where(hidden & sharper, off_dust, distances)


@dataclass(frozen=True)
class _simulated:  # noqa: N801 - used like a function; a closure could not go to another process
    index: int
    seed: int
    kinds: tuple[str, ...] = _KINDS
    stream: int = 0xDEF  # of random numbers; every list of specimens has its own
    dusty: bool = False

    def __call__(self) -> _Series:
        rng = np.random.default_rng([self.seed, self.stream, self.index])
        objective = _any_objective(rng)
        aberrated = replace(
            objective, spherical_waves=float(rng.choice([0, 0, rng.normal(0, 0.2)]))
        )
        specimen = make_specimen(
            self.kinds[self.index % len(self.kinds)],
            shape=(SIDE_PX, SIDE_PX),
            pixel_size_um=objective.pixel_size_um,
            rng=rng,
        )
        condenser = float(rng.uniform(0.3, 0.9))
        renderer = Renderer(specimen, aberrated, condenser_na_ratio=condenser)
        dust = None
        if self.dusty:
            dust = _Dust.draw(
                aberrated, rng, transmitted=renderer.transmitted, condenser_na_ratio=condenser
            )
        dof_um = depth_of_field_um(objective)
        distances = _distances(rng, dust)
        light = [renderer.relative(float(distance) * dof_um) for distance in distances]
        return _series(light, distances, objective, transmitted=renderer.transmitted, dust=dust)


def _dusty(index: int, seed: int) -> _simulated:
    return _simulated(index, seed, _DUSTY_KINDS, 0xD057, dusty=True)


def _hard(index: int, seed: int) -> _simulated:
    return _simulated(index, seed, _HARD_KINDS, 0x4A6D)


@dataclass(frozen=True)
class _beads:  # noqa: N801 - as above
    """A few small beads, often through an aberrated objective: point spread functions.

    The rings of a defocused bead are as crisp as anything, and other specimens do not show them
    alone.
    """

    index: int
    seed: int

    def __call__(self) -> _Series:
        rng = np.random.default_rng([self.seed, 0xBEAD, self.index])
        objective = _any_objective(rng)
        aberrated = replace(objective, spherical_waves=float(rng.normal(0, 0.4)))
        beads = few_beads(
            SIDE_PX, objective.pixel_size_um, count=int(rng.choice((3, 6, 12))), rng=rng
        )
        renderer = Renderer(beads, aberrated)
        # Aberration moves the sharpest plane.
        sharpest_um, dof_um = renderer.sharpest_defocus_um, depth_of_field_um(objective)
        distances = _distances(rng)
        light = [renderer.relative(sharpest_um + float(each) * dof_um) for each in distances]
        return _series(light, distances, objective, transmitted=False)


@dataclass(frozen=True)
class _transmitted:  # noqa: N801 - as above
    index: int
    seed: int

    def __call__(self) -> _Series:
        rng = np.random.default_rng([self.seed, 0x7A2, self.index])
        objective = _any_objective(rng)
        renderer = draw_transmitted(self.index, objective, side=SIDE_PX, rng=rng)
        dof_um = depth_of_field_um(objective)
        distances = _distances(rng)
        light = [renderer.relative(float(distance) * dof_um) for distance in distances]
        return _series(light, distances, objective, transmitted=True)


@dataclass(frozen=True)
class _still:  # noqa: N801 - as above
    image: Floats
    number: int
    window: int
    seed: int
    stream: int = 0x571
    dusty: bool = False

    def __call__(self) -> _Series:
        rng = np.random.default_rng([self.seed, self.stream, self.number, self.window])
        objective = _any_objective(rng)
        waves = float(rng.normal(0, 0.1))
        dust = None
        if self.dusty:
            dust = _Dust.draw(replace(objective, spherical_waves=waves), rng)
        distances = _distances(rng, dust)
        window = _window(self.image, rng)
        light = list(defocused(window, objective, distances, spherical_waves=waves))
        return _series(light, distances, objective, transmitted=False, dust=dust)


def _dusty_still(image: Floats, number: int, window: int, seed: int) -> _still:
    return _still(image, number, window, seed, 0xD571, dusty=True)


def _series(
    light: list[Floats],
    distances: NDArray[np.float64],
    objective: Objective,
    *,
    transmitted: bool,
    dust: _Dust | None = None,
) -> _Series:
    if dust is not None:
        light, distances = dust.over(light, distances)
    brightest = 60_000.0  # what float16 holds
    kept = np.clip(np.stack(light), 0, brightest).astype(np.float16)
    return _Series(kept, np.abs(distances), sampling_of(objective), transmitted)


def _distances(rng: np.random.Generator, dust: _Dust | None = None) -> NDArray[np.float64]:
    away = [0.0]
    for low, high in _REACHES_DOF:
        uniform = low == 0
        away.append(rng.uniform(low, high) if uniform else log_uniform(low, high, rng))
    distances = np.array(away) * rng.choice([-1, 1], len(away))
    if dust is not None:
        beside = distances[_BESIDE_DUST]
        beside[:] = dust.away_dof + rng.uniform(-_DUST_REACH_DOF, _DUST_REACH_DOF, len(beside))
    return distances


def _any_objective(rng: np.random.Generator) -> Objective:
    objective = random_objective(rng)
    binning = int(rng.choice(_BINNINGS))
    return replace(objective, pixel_size_um=objective.pixel_size_um * binning)


def _window(image: Floats, rng: np.random.Generator) -> Floats:
    """Cut SIDE_PX from a still, of which a small one is continued by reflection; in 0..1.5."""
    short = [max(0, SIDE_PX - side) for side in image.shape]
    image = np.pad(image, [(0, missing) for missing in short], "symmetric")
    y, x = (int(rng.integers(side - SIDE_PX + 1)) for side in image.shape)
    window = image[y : y + SIDE_PX, x : x + SIDE_PX]
    low, high = np.percentile(window, (0.5, 99.9))
    return np.clip((window - low) / max(high - low, 1e-6), 0, 1.5).astype(np.float32)
