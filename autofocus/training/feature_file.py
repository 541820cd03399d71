"""Features of a lab's frames on disk, with all that says which frames and how they were made."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autofocus.errors import DataError
from autofocus.training.stack_index import Plane
from models.reiqa import ExtractorSettings


@dataclass(frozen=True)
class FeatureFile:
    """Features, one row a plane.

    Attributes
    ----------
    features : ndarray of shape (n, D), float32
    planes : tuple of Plane
        Whose they are.
    settings : ExtractorSettings
        Of the extractor.
    content_sha256, quality_sha256 : str
        Of the encoders, see `models.encoders.weights_sha256`.
    """

    features: NDArray[np.float32]
    planes: tuple[Plane, ...]
    settings: ExtractorSettings
    content_sha256: str
    quality_sha256: str

    def __len__(self) -> int:
        return len(self.planes)

    @property
    def z_um(self) -> NDArray[np.float64]:
        """Position of every plane, um; NaN where not known."""
        return np.array([math.nan if p.z_um is None else p.z_um for p in self.planes])

    def only(self, rows: Sequence[int]) -> FeatureFile:
        """Some of the rows, in the order given."""
        planes = tuple(self.planes[row] for row in rows)
        return FeatureFile(
            self.features[list(rows)],
            planes,
            self.settings,
            self.content_sha256,
            self.quality_sha256,
        )


def save_features(path: Path, table: FeatureFile) -> None:
    """Write ``.npz``: ``X`` and ``names`` as in the lab's own scripts, and what identifies them.

    Raises
    ------
    DataError
        When the place cannot be written.
    """
    partial = path.with_name(path.name + ".part")
    pages = [-1 if plane.page is None else plane.page for plane in table.planes]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            np.savez(
                file,
                X=table.features,
                names=np.array([plane.path.name for plane in table.planes]),
                paths=np.array([str(plane.path) for plane in table.planes]),
                stacks=np.array([plane.stack for plane in table.planes]),
                pages=np.array(pages),
                z_um=table.z_um,
                settings=np.array(json.dumps(table.settings.to_dict())),
                content_sha256=np.array(table.content_sha256),
                quality_sha256=np.array(table.quality_sha256),
            )
        partial.replace(path)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error}") from error


def load_features(path: Path) -> FeatureFile:
    """Read what `save_features` wrote. No code in the file is executed.

    Raises
    ------
    DataError
        When the file is absent, damaged or not one of these.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            return _table({name: stored[name] for name in stored.files})
    except Exception as error:  # whatever a damaged or foreign archive makes NumPy stumble over
        raise DataError(
            f"{path} is no file of features that `autofocus features` wrote: {error!r}"
        ) from error


def _table(stored: dict[str, NDArray[Any]]) -> FeatureFile:
    columns = (stored["paths"], stored["stacks"], stored["z_um"], stored["pages"])
    planes = tuple(
        Plane(
            Path(str(path)),
            str(stack),
            None if math.isnan(z_um) else float(z_um),
            None if page < 0 else int(page),
        )
        for path, stack, z_um, page in zip(*columns, strict=True)
    )
    features = stored["X"].astype(np.float32)
    if features.ndim != 2 or len(features) != len(planes) or not np.isfinite(features).all():
        raise ValueError(f"X has shape {features.shape} for {len(planes)} planes, or is not finite")
    return FeatureFile(
        features,
        planes,
        ExtractorSettings.from_dict(json.loads(str(stored["settings"]))),
        str(stored["content_sha256"]),
        str(stored["quality_sha256"]),
    )
