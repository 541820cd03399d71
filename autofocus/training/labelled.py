"""Frames whose distance to the in-focus plane is known, to fit and to judge heads.

Simulated stacks, real sharp images defocused by a physical PSF, and real `train` z-stacks. Every
frame carries its group (one specimen), because frames of one specimen must never be on both sides
of a split.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy import fft

from autofocus.training.batches import LAMP_GAIN, log_uniform
from autofocus.training.corpus import train_images
from autofocus.training.defocus import random_objective
from autofocus.training.transmitted import draw_transmitted
from devices.simulated.optics import Objective, TransferFunctions, depth_of_field_um
from devices.simulated.render import Renderer, camera_counts
from devices.simulated.specimens import KINDS, Specimen, make_specimen

Floats = NDArray[np.float32]

# A field with nothing in it is as far from focus as anything can be.
EMPTY_DEFOCUS_DOF = 20.0
_MOST_DEFOCUS_DOF = 20.0
_SIDES_PX = (96, 192, 320, 384, 512)  # cameras are often read out in part
_BEAD_SIDES_PX = (48, 64, 96, 128, 192, 256, 384, 640, 1024)
_EMPTY_KINDS = ("empty", "empty_brightfield")


@dataclass(frozen=True)
class _RealOptics:
    dof_um: float
    sampling: float


# Of the real `train` stacks, from what their sources state (0.55 um light where none is stated);
# stacks whose step is unknown in um are left out. The NA of `bnl` is likely, not known.
_REAL_OPTICS = {"bnl": _RealOptics(3.4, 0.21), "imagexpress": _RealOptics(2.8, 1.97)}


@dataclass(frozen=True)
class LabelledFrame:
    """A camera frame and its truth.

    Attributes
    ----------
    image : ndarray of shape (height, width), uint16 or uint8
        Counts.
    defocus_dof : float
        |z - z_in_focus| in depths of field.
    sampling : float
        Camera pixel as a multiple of wavelength / NA, NaN where not known.
    """

    image: NDArray[np.generic]
    defocus_dof: float
    sampling: float


@dataclass(frozen=True)
class Group:
    """One specimen, rendered or read when asked for.

    Attributes
    ----------
    name : str
        Unique.
    source : str
        What it counts as in a report: ``simulated``, ``beads``, ``transmitted``, ``stills`` or
        ``stacks``.
    frames : callable
        Makes the frames, always the same ones.
    """

    name: str
    source: str
    frames: Callable[[], list[LabelledFrame]]


@dataclass(frozen=True)
class _Exposure:
    """Light and camera of one group."""

    photons: float
    background: float
    read_noise_e: float
    offset: float
    bit_depth: int

    @classmethod
    def draw(cls, rng: np.random.Generator, *, transmitted: bool = False) -> _Exposure:
        """Draw one; transmitted light is not scarce, and its background is the field itself."""
        photons = log_uniform(20, 4000, rng) * (LAMP_GAIN if transmitted else 1.0)
        haze = 0.0 if transmitted else float(rng.uniform(0, 0.5)) ** 2
        return cls(
            photons=photons,
            background=photons * haze + float(rng.uniform(0, 10)),
            read_noise_e=float(rng.uniform(0.8, 4)),
            offset=float(rng.choice([0, 20, 100, 200])),
            bit_depth=16,
        )

    def record(self, relative: Floats, rng: np.random.Generator) -> NDArray[np.uint16]:
        flicker = math.exp(float(rng.normal(0, 0.05)))
        expected = (self.photons * relative + self.background) * np.float32(flicker)
        return camera_counts(
            expected.astype(np.float32),
            rng=rng,
            read_noise_e=self.read_noise_e,
            offset=self.offset,
            bit_depth=self.bit_depth,
        )


def simulated_groups(count: int, *, seed: int, frames: int = 10) -> list[Group]:
    """Specimens of every kind through random optics and exposures, ``frames`` planes of each."""
    return [_simulated_group(i, seed=seed, frames=frames) for i in range(count)]


def bead_groups(count: int, *, seed: int, frames: int = 10) -> list[Group]:
    """One to five small beads, in frames of any size, often through an aberrated objective.

    What labs record to measure a point spread function. The rings of a defocused bead are as crisp
    as anything, and hardly any specimen of `simulated_groups` shows them alone.
    """
    return [_bead_group(i, seed=seed, frames=frames) for i in range(count)]


def transmitted_groups(count: int, *, seed: int, frames: int = 10) -> list[Group]:
    """Specimens that delay light, in the bright field, in phase and in interference contrast."""
    return [_transmitted_group(i, seed=seed, frames=frames) for i in range(count)]


def still_groups(data: Path, *, seed: int, per_image: int = 2, frames: int = 8) -> list[Group]:
    """Real sharp `train` images, defocused by the PSF of a random objective."""
    groups = []
    for number, (source, image) in enumerate(train_images(data)):
        if min(image.shape) < 128:
            continue
        for k in range(per_image):
            groups.append(_still_group(f"{source}-{number}-{k}", image, [seed, number, k], frames))
    return groups


def stack_groups(data: Path) -> list[Group]:
    """Real `train` z-stacks whose steps and optics are known in um."""
    manifest = json.loads((data / "manifest.json").read_text(encoding="utf-8"))
    groups = []
    for entry in manifest["stacks"]:
        optics = _REAL_OPTICS.get(entry["name"].split("_")[0])
        if entry["use"] == "train" and optics is not None:
            groups.append(_stack_group(data / entry["file"], entry, optics))
    return groups


def few_beads(side: int, pixel_size_um: float, *, count: int, rng: np.random.Generator) -> Specimen:
    """Balls of 0.1 to 2 um at random places, each a disc of its thickness, in one layer."""
    y, x = np.indices((side, side))
    light = np.zeros((side, side), np.float32)
    for _ in range(count):
        radius_px = max(0.5, log_uniform(0.05, 1.0, rng) / pixel_size_um)
        cy, cx = rng.uniform(0.1 * side, 0.9 * side, 2)
        away = np.hypot(y - cy, x - cx)
        ball = np.sqrt(np.maximum((radius_px + 0.5) ** 2 - away**2, 0)) / radius_px
        light += float(rng.uniform(0.5, 1)) * ball.astype(np.float32)
    return Specimen(((0.0, light),), "beads", "fluorescence")


def sampling_of(objective: Objective) -> float:
    """Camera pixel as a multiple of wavelength / NA."""
    return objective.pixel_size_um * objective.na / objective.wavelength_um


def draw_defocus_dof(count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Signed distances: one in focus, a third within 2 DOF, the others log-uniform to 20 DOF."""
    near = rng.uniform(0, 2, count)
    far = np.exp(rng.uniform(math.log(1), math.log(_MOST_DEFOCUS_DOF), count))
    distance = np.where(rng.random(count) < 1 / 3, near, far)
    distance[0] = 0.0
    return distance * rng.choice([-1, 1], count)


def _simulated_group(index: int, *, seed: int, frames: int) -> Group:
    kinds = [kind for kind in KINDS if kind not in _EMPTY_KINDS]
    kind = kinds[index % len(kinds)]
    if index % 16 == 15:
        kind = _EMPTY_KINDS[index // 16 % 2]

    def make() -> list[LabelledFrame]:
        rng = np.random.default_rng([seed, 0x5EED, index])
        objective = random_objective(rng)
        aberrated = replace(
            objective, spherical_waves=float(rng.choice([0, 0, rng.normal(0, 0.2)]))
        )
        side = int(rng.choice(_SIDES_PX))
        specimen = make_specimen(
            kind, shape=(side, side), pixel_size_um=objective.pixel_size_um, rng=rng
        )
        renderer = Renderer(specimen, aberrated, condenser_na_ratio=float(rng.uniform(0.3, 0.9)))
        exposure = _Exposure.draw(rng, transmitted=specimen.modality == "brightfield")
        shading = _shading(side, rng)
        dof_um = depth_of_field_um(objective)
        made = []
        for distance in draw_defocus_dof(frames, rng):
            relative = renderer.relative(float(distance) * dof_um) * shading
            truth = EMPTY_DEFOCUS_DOF if kind in _EMPTY_KINDS else abs(float(distance))
            image = exposure.record(relative, rng)
            made.append(LabelledFrame(image, truth, sampling_of(objective)))
        return made

    return Group(f"{kind}-{seed}-{index}", "simulated", make)


def _bead_group(index: int, *, seed: int, frames: int) -> Group:
    def make() -> list[LabelledFrame]:
        rng = np.random.default_rng([seed, 0xBEAD, index])
        objective = random_objective(rng)
        aberrated = replace(objective, spherical_waves=float(rng.normal(0, 0.4)))
        side = int(rng.choice(_BEAD_SIDES_PX))
        beads = few_beads(
            side, objective.pixel_size_um, count=int(rng.choice((1, 1, 1, 2, 5))), rng=rng
        )
        renderer = Renderer(beads, aberrated)
        exposure = _Exposure.draw(rng)
        dof_um = depth_of_field_um(objective)
        sharpest_um = renderer.sharpest_defocus_um
        made = []
        for distance in draw_defocus_dof(frames, rng):
            light = renderer.relative(sharpest_um + float(distance) * dof_um)
            image = exposure.record(light, rng)
            made.append(LabelledFrame(image, abs(float(distance)), sampling_of(objective)))
        return made

    return Group(f"bead-{seed}-{index}", "beads", make)


def _transmitted_group(index: int, *, seed: int, frames: int) -> Group:
    def make() -> list[LabelledFrame]:
        rng = np.random.default_rng([seed, 0x7A2, index])
        objective = random_objective(rng)
        side = int(rng.choice(_SIDES_PX))
        renderer = draw_transmitted(index, objective, side=side, rng=rng)
        exposure = _Exposure.draw(rng, transmitted=True)
        shading = _shading(side, rng)
        dof_um = depth_of_field_um(objective)
        made = []
        for distance in draw_defocus_dof(frames, rng):
            light = renderer.relative(float(distance) * dof_um) * shading
            image = exposure.record(light, rng)
            made.append(LabelledFrame(image, abs(float(distance)), sampling_of(objective)))
        return made

    return Group(f"transmitted-{seed}-{index}", "transmitted", make)


def _still_group(name: str, image: Floats, seed: Sequence[int], frames: int) -> Group:
    def make() -> list[LabelledFrame]:
        rng = np.random.default_rng([*seed, 0x571])
        objective = random_objective(rng)
        light = _random_window(image, int(rng.choice(_SIDES_PX)), rng)
        distances = draw_defocus_dof(frames, rng)
        exposure = _Exposure.draw(rng)
        blurred = defocused(light, objective, distances, spherical_waves=float(rng.normal(0, 0.1)))
        return [
            LabelledFrame(exposure.record(frame, rng), abs(float(distance)), sampling_of(objective))
            for frame, distance in zip(blurred, distances, strict=True)
        ]

    return Group(f"still-{name}", "stills", make)


def _stack_group(path: Path, entry: dict[str, object], optics: _RealOptics) -> Group:
    z_um = entry["z_positions_um"]
    accepted = entry["in_focus_accepted"]
    assert isinstance(z_um, list)
    assert isinstance(accepted, list)

    def make() -> list[LabelledFrame]:
        planes = tifffile.imread(path)
        low, high = z_um[accepted[0]], z_um[accepted[1]]
        return [
            # Planes a careful person accepts are in focus, all of them.
            LabelledFrame(plane, max(low - z, 0, z - high) / optics.dof_um, optics.sampling)
            for plane, z in zip(planes, z_um, strict=True)
        ]

    return Group(f"stack-{entry['name']}", "stacks", make)


def defocused(
    light: Floats,
    objective: Objective,
    distances_dof: Sequence[float] | NDArray[np.float64],
    *,
    spherical_waves: float = 0.0,
) -> Iterator[Floats]:
    """Blur a sharp image by OTF(z) / OTF(0) for each distance; see `autofocus.training.defocus`.

    Edges are mirrored first, so that light does not come in from the opposite side.
    """
    height, width = light.shape
    margin = min(96, min(light.shape) - 1)
    padded = np.pad(light, margin, mode="symmetric")
    spectrum = fft.rfft2(padded)
    aberrated = replace(objective, spherical_waves=spherical_waves)
    dof_um = depth_of_field_um(objective)
    sharp = TransferFunctions(objective, padded.shape).fluorescence([0.0])[0]
    passed = sharp > 1e-3
    otfs = TransferFunctions(aberrated, padded.shape).fluorescence(
        [float(distance) * dof_um for distance in distances_dof]
    )
    for distance, otf in zip(distances_dof, otfs, strict=True):
        ratio = np.where(passed, np.clip(otf / np.where(passed, sharp, 1), -1, 1), 0)
        blurred = light if distance == 0 else fft.irfft2(spectrum * ratio, s=padded.shape)
        if distance != 0:
            blurred = blurred[margin : margin + height, margin : margin + width]
        yield np.maximum(blurred, 0).astype(np.float32)


def _random_window(image: Floats, side: int, rng: np.random.Generator) -> Floats:
    height, width = min(side, image.shape[0]), min(side, image.shape[1])
    y = int(rng.integers(image.shape[0] - height + 1))
    x = int(rng.integers(image.shape[1] - width + 1))
    window = image[y : y + height, x : x + width]
    low, high = np.percentile(window, (0.5, 99.9))
    return np.clip((window - low) / max(high - low, 1e-6), 0, 1.5).astype(np.float32)


def _shading(side: int, rng: np.random.Generator) -> Floats:
    """Uneven illumination: a smooth bowl, up to 40 % darker at its rim."""
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side
    centre = rng.uniform(0.2, 0.8, 2)
    depth = float(rng.uniform(0, 0.4)) if rng.random() < 0.5 else 0.0
    return (1 - depth * ((y - centre[0]) ** 2 + (x - centre[1]) ** 2)).astype(np.float32)
