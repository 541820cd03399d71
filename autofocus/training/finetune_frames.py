"""Patches of labelled planes as the network will see them, and of planes defocused on purpose."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from autofocus.errors import DataError
from autofocus.training.extraction import Skipped
from autofocus.training.labelled import defocused
from autofocus.training.labels import focus_score
from autofocus.training.stack_index import read_file
from autofocus.training.training_rows import LabelledPlanes
from devices.simulated.optics import Objective, depth_of_field_um
from models.errors import ImageError
from models.finetuned import PatchSettings
from models.frame import as_grey_float, noise_sigma
from models.patches import anchored_patches, choose_anchor

Float64 = NDArray[np.float64]

_BLURRED_PLANES = 12  # a stack
# Aberration of real objectives: the two sides of focus differ.
_SPHERICAL_WAVES = 0.1


@dataclass(frozen=True)
class PatchRows:
    """Patches of planes, ready for the network; planes of one stack follow one another.

    Attributes
    ----------
    patches : ndarray of shape (n, k, size, size), float16
        In [0, 1]; where a plane has fewer than k, they are repeated.
    scores : ndarray of shape (n,)
        Labels, 0..1.
    stacks : ndarray of shape (n,), str
        Whose planes they are.
    blurred : ndarray of shape (n,), bool
        Made of a plane in focus by the point spread function, not recorded.
    """

    patches: NDArray[np.float16]
    scores: Float64
    stacks: NDArray[np.str_]
    blurred: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True)
class _Made:
    rows: list[int]
    skipped: list[Skipped]
    patches: NDArray[np.float16]
    blurred: NDArray[np.float16]
    blurred_scores: Float64


def prepare(
    labelled: LabelledPlanes,
    choice: PatchSettings,
    objective: Objective,
    *,
    blur: bool,
    seed: int,
    threads: int = 1,
    console: Console | None = None,
) -> tuple[LabelledPlanes, PatchRows, tuple[Skipped, ...]]:
    """Read all planes and cut their patches, every plane anchored to itself as in use.

    Parameters
    ----------
    objective : Objective
        Of the frames; its point spread function defocuses.
    blur : bool
        Add, for every stack with a plane within half a depth of field of focus, planes that are
        such a plane convolved with the point spread function at distances up to the stack's own.

    Returns
    -------
    labelled : LabelledPlanes
        Those that could be read, by stack.
    rows : PatchRows
        Theirs first, in this order; then the blurred ones.
    skipped : tuple of Skipped

    Raises
    ------
    DataError
        When a label is outside 0..1, or fewer than two stacks can be read.
    """
    if not ((labelled.scores >= 0) & (labelled.scores <= 1)).all():
        raise DataError(
            "the labels of a fine-tuned network must be within 0..1, as `autofocus data label` "
            f"writes them; these are {labelled.scores.min():g} to {labelled.scores.max():g}"
        )
    stacks = [np.flatnonzero(labelled.stacks == name) for name in dict.fromkeys(labelled.stacks)]

    def make(job: tuple[int, NDArray[np.intp]]) -> _Made:
        number, own = job
        rng = np.random.default_rng([seed, 0xF0C, number])
        return _of_stack(labelled, own, choice, objective, rng if blur else None)

    with ThreadPoolExecutor(threads) as pool:
        jobs = pool.map(make, enumerate(stacks))
        shown = track(
            jobs,
            "patches",
            total=len(stacks),
            console=console or Console(quiet=True),
            transient=True,
        )
        made = list(shown)
    skipped = tuple(itertools.chain.from_iterable(each.skipped for each in made))
    kept = _only(labelled, [row for each in made for row in each.rows])
    if len(set(kept.stacks)) < 2:
        reason = f"; the first: {skipped[0].reason}" if skipped else ""
        raise DataError(f"planes of fewer than two stacks can be read{reason}")
    names = [labelled.stacks[own[0]] for own in stacks]
    counts = [len(each.blurred) for each in made]
    rows = PatchRows(
        np.concatenate([*(each.patches for each in made), *(each.blurred for each in made)]),
        np.concatenate([kept.scores, *(each.blurred_scores for each in made)]),
        np.concatenate([kept.stacks, np.repeat(names, counts)]),
        np.repeat([False, True], [len(kept), sum(counts)]),
    )
    return kept, rows, skipped


def patches_of(image: NDArray[np.generic], choice: PatchSettings) -> NDArray[np.float16]:
    """Patches of one frame as the scorer sees them, repeated to ``choice.top_patches``."""
    found = anchored_patches(image, choose_anchor(image, choice), choice).astype(np.float16)
    return found[np.arange(choice.top_patches) % len(found)]


def _of_stack(
    labelled: LabelledPlanes,
    own: NDArray[np.intp],
    choice: PatchSettings,
    objective: Objective,
    rng: np.random.Generator | None,
) -> _Made:
    images: dict[int, NDArray[np.generic]] = {}
    patches: list[NDArray[np.float16]] = []
    skipped: list[Skipped] = []
    for row, image in _images(labelled, own, skipped):
        try:
            patches.append(patches_of(image, choice))
            images[row] = image
        except ImageError as error:
            path = labelled.planes[row].path
            skipped.append(Skipped(labelled.planes[row], f"{path}: {error}"))
    blurred: list[NDArray[np.float16]] = []
    scores: list[float] = []
    if rng is not None:
        for image, score in _blurred(labelled, images, objective, rng):
            blurred.append(patches_of(image, choice))
            scores.append(score)
    shape = (choice.top_patches, choice.patch_size, choice.patch_size)
    return _Made(
        list(images), skipped, _stacked(patches, shape), _stacked(blurred, shape), np.array(scores)
    )


def _images(
    labelled: LabelledPlanes, own: NDArray[np.intp], skipped: list[Skipped]
) -> Iterator[tuple[int, NDArray[np.generic]]]:
    """Planes that can be read, every file opened once."""
    for path, group in itertools.groupby(own.tolist(), key=lambda row: labelled.planes[row].path):
        rows = list(group)
        try:
            yield from zip(rows, read_file(path, [labelled.planes[r] for r in rows]), strict=True)
        except DataError as error:
            skipped += [Skipped(labelled.planes[row], str(error)) for row in rows]


def _blurred(
    labelled: LabelledPlanes,
    images: dict[int, NDArray[np.generic]],
    objective: Objective,
    rng: np.random.Generator,
) -> Iterator[tuple[NDArray[np.float32], float]]:
    """Planes defocused by the point spread function, with the noise of the plane they are of."""
    dof_um = depth_of_field_um(objective)
    away_um = {row: abs(labelled.z_um[row] - labelled.z_in_focus_um[row]) for row in images}
    in_focus = [row for row, distance_um in away_um.items() if distance_um <= dof_um / 2]
    if not in_focus:
        return
    farthest_um = float(np.nanmax(list(away_um.values())))
    distances_um = rng.uniform(0, farthest_um, _BLURRED_PLANES)
    scores = focus_score(distances_um, z_in_focus_um=0.0, sigma_um=labelled.sigma_um)
    for distance_um, score in zip(distances_um, scores.tolist(), strict=True):
        light = as_grey_float(images[int(rng.choice(in_focus))])
        waves = float(rng.normal(0, _SPHERICAL_WAVES))
        (image,) = defocused(light, objective, [distance_um / dof_um], spherical_waves=waves)
        # The blur took the noise along; the camera of a real defocused plane adds its own.
        noise = rng.normal(0, noise_sigma(light), light.shape)
        yield np.maximum(image + noise, 0).astype(np.float32), score


def _stacked(patches: list[NDArray[np.float16]], shape: tuple[int, ...]) -> NDArray[np.float16]:
    return np.stack(patches) if patches else np.empty((0, *shape), np.float16)


def _only(labelled: LabelledPlanes, rows: list[int]) -> LabelledPlanes:
    return replace(
        labelled,
        planes=tuple(labelled.planes[row] for row in rows),
        rows=tuple(labelled.rows[row] for row in rows),
        scores=labelled.scores[rows],
        z_um=labelled.z_um[rows],
        z_in_focus_um=labelled.z_in_focus_um[rows],
    )
