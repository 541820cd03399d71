"""Features of many frames: in parallel, and never computed twice.

Every frame's features go to a cache at once, under a hash of the file's bytes, the settings and the
encoders. A run that was killed goes on where it was; a file that changed is computed again.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import joblib
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from autofocus.errors import DataError
from autofocus.training.feature_file import FeatureFile
from autofocus.training.stack_index import Plane, read_file
from autofocus.training.workers import Workers
from models.errors import ImageError
from models.reiqa import ReIQA

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Skipped:
    """A plane without features, and why."""

    plane: Plane
    reason: str


@dataclass(frozen=True)
class Extraction:
    """What became of the planes asked for.

    Attributes
    ----------
    table : FeatureFile
        Those that could be read, in the order asked for.
    skipped : tuple of Skipped
        The others.
    from_cache : int
        How many of the first were not computed this time.
    """

    table: FeatureFile
    skipped: tuple[Skipped, ...]
    from_cache: int


@dataclass(frozen=True)
class _Outcome:
    plane: Plane
    features: Float32 | None
    reason: str = ""
    cached: bool = False


def extract_features(
    extractor: ReIQA,
    planes: Sequence[Plane],
    cache: Path,
    *,
    workers: Workers | None = None,
    console: Console | None = None,
) -> Extraction:
    """Compute the features of all planes that can be read.

    Parameters
    ----------
    extractor : ReIQA
        Every frame is anchored to itself.
    planes : sequence of Plane
        In any order.
    cache : Path
        Folder, made if absent. It may be deleted at any time.
    workers : Workers, optional
        By default this process alone. Those of a cluster write to the cache
        too. A GPU of this machine is used by one process.
    console : Console, optional
        Shows progress and the time left.

    Raises
    ------
    DataError
        When no plane at all could be read, or the cache cannot be written.
    ClusterError
        See `autofocus.training.workers.Workers.parallel`.
    """
    workers = workers or Workers()
    cache = cache.resolve()  # the working folder of a cluster's workers is another one
    _make(cache)
    files = [list(group) for _, group in itertools.groupby(planes, key=lambda plane: plane.path)]
    if extractor.engine.name == "cuda":
        workers = replace(workers, jobs=1)
    with workers.parallel(extractor) as parallel:
        made: Iterable[list[_Outcome]] = parallel(
            joblib.delayed(_of_file)(extractor, file, cache, alone=workers.alone) for file in files
        )
        outcomes = list(_shown(made, len(planes), console or Console(quiet=True)))
    kept = [each for each in outcomes if each.features is not None]
    skipped = tuple(Skipped(each.plane, each.reason) for each in outcomes if each.features is None)
    if not kept:
        raise DataError(f"none of {len(planes)} planes can be read; the first: {skipped[0].reason}")
    table = FeatureFile(
        np.stack([each.features for each in kept if each.features is not None]),
        tuple(each.plane for each in kept),
        extractor.settings,
        extractor.content_sha256,
        extractor.quality_sha256,
    )
    return Extraction(table, skipped, sum(each.cached for each in kept))


def _shown(made: Iterable[list[_Outcome]], total: int, console: Console) -> Iterable[_Outcome]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("features", total=total)
        for outcomes in made:
            yield from outcomes
            progress.advance(task, len(outcomes))


def _of_file(
    extractor: ReIQA, planes: Sequence[Plane], cache: Path, *, alone: bool
) -> list[_Outcome]:
    """Features of the planes of one file, from the cache where they are."""
    if not alone:
        torch.set_num_threads(1)
    path = planes[0].path
    try:
        content = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        return [_Outcome(plane, None, f"{path} cannot be read: {error}") for plane in planes]
    places = [cache / f"{_key(extractor, content, plane)}.npy" for plane in planes]
    found = [_cached(place) for place in places]
    if all(features is not None for features in found):
        return [_Outcome(p, f, cached=True) for p, f in zip(planes, found, strict=True)]
    try:
        images = read_file(path, planes)
    except DataError as error:
        return [_Outcome(plane, None, str(error)) for plane in planes]
    return [
        _Outcome(plane, features, cached=True)
        if features is not None
        else _compute(extractor, plane, image, place)
        for plane, features, image, place in zip(planes, found, images, places, strict=True)
    ]


def _compute(extractor: ReIQA, plane: Plane, image: NDArray[np.generic], place: Path) -> _Outcome:
    try:
        features = extractor.features(image)
    except ImageError as error:
        return _Outcome(plane, None, f"{plane.path}: {error}")
    # In one step: a run that is killed leaves no half of a file under this name. Another machine
    # may write the same place.
    partial = place.with_suffix(f".{uuid.uuid4().hex}.part")
    with partial.open("wb") as file:
        np.save(file, features)
    partial.replace(place)
    return _Outcome(plane, features)


def _key(extractor: ReIQA, content_sha256: str, plane: Plane) -> str:
    facts = [
        content_sha256,
        plane.page,
        extractor.settings.to_dict(),
        extractor.content_sha256,
        extractor.quality_sha256,
        extractor.engine.bfloat16,
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _cached(place: Path) -> Float32 | None:
    try:
        features = np.load(place, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None  # absent or damaged: computed again
    return features if features.dtype == np.float32 and features.ndim == 1 else None


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make the cache {folder}: {error}") from error
