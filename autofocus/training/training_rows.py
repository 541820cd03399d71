"""Planes and features joined with labels: by full path and page, never by name or position."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autofocus.errors import DataError
from autofocus.training.feature_file import FeatureFile
from autofocus.training.labels import focus_score
from autofocus.training.stack_index import Plane, PlaneKey, plane_key, require_unique
from autofocus.training.tables import Row, Table, locate, read_table

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class LabelledPlanes:
    """Planes with their labels.

    Attributes
    ----------
    planes : tuple of Plane
        Those that have a label.
    rows : tuple of int
        Where each was among the planes given.
    scores, z_um, z_in_focus_um, sigma_um
        As of `TrainingRows`.
    without_label, without_plane : tuple of Path
        Planes and labels that are alone.
    """

    planes: tuple[Plane, ...]
    rows: tuple[int, ...]
    scores: Float64
    z_um: Float64
    z_in_focus_um: Float64
    sigma_um: float
    without_label: tuple[Path, ...]
    without_plane: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def stacks(self) -> NDArray[np.str_]:
        """Stack of each plane."""
        return np.array([plane.stack for plane in self.planes])


@dataclass(frozen=True)
class TrainingRows:
    """Labelled planes with their features.

    Attributes
    ----------
    table : FeatureFile
        Features and planes.
    scores : ndarray of shape (n,)
        Labels, higher is sharper.
    z_um : ndarray of shape (n,)
        NaN where not known.
    z_in_focus_um : ndarray of shape (n,)
        Of the stack of each row; NaN where not known.
    sigma_um : float
        Distance at which the label is 0.5.
    without_label, without_features : tuple of Path
        Rows of one file that are not in the other.
    """

    table: FeatureFile
    scores: Float64
    z_um: Float64
    z_in_focus_um: Float64
    sigma_um: float
    without_label: tuple[Path, ...]
    without_features: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def stacks(self) -> NDArray[np.str_]:
        """Stack of each row."""
        return np.array([plane.stack for plane in self.table.planes])


@dataclass(frozen=True)
class _Label:
    path: Path
    score: float
    z_um: float
    z_in_focus_um: float
    sigma_um: float | None


def join(
    table: FeatureFile,
    scores: Path,
    *,
    target: str = "focus_score",
    sigma_um: float = 2.0,
    root: Path | None = None,
) -> TrainingRows:
    """Join features with the labels of a CSV file.

    Parameters
    ----------
    target : str
        Column with the label. Where there is none, it is made of ``z_um`` with z = 0 in focus.
    sigma_um : float
        Distance at which the label is 0.5, where the file has no column ``sigma_um``.
    root : Path, optional
        Top folder of the images, for paths of another computer in either file.

    Raises
    ------
    DataError
        When no row is in both, a row is twice in one of them, or there is only one stack.
    """
    found = label_planes(table.planes, scores, target=target, sigma_um=sigma_um, root=root)
    return TrainingRows(
        table=table.only(found.rows),
        scores=found.scores,
        z_um=found.z_um,
        z_in_focus_um=found.z_in_focus_um,
        sigma_um=found.sigma_um,
        without_label=found.without_label,
        without_features=found.without_plane,
    )


def label_planes(
    planes: Sequence[Plane],
    scores: Path,
    *,
    target: str = "focus_score",
    sigma_um: float = 2.0,
    root: Path | None = None,
) -> LabelledPlanes:
    """Find the label of every plane in a CSV file; see `join`."""
    labels = _read_labels(read_table(scores), target, sigma_um, root)
    keys = [_key(plane, scores.parent, root) for plane in planes]
    require_unique(keys, Path("the file of images or features"))
    rows = [row for row, key in enumerate(keys) if key in labels]
    if not rows:
        raise DataError(
            f"no image is both in the images or features ({planes[0].path}, ...) and in {scores} "
            f"({next(iter(labels.values())).path}, ...); if they name the same files of another "
            "computer, give --root, the top folder of the images"
        )
    kept = tuple(planes[row] for row in rows)
    found = [labels[keys[row]] for row in rows]
    z_um = np.array(
        [
            p.z_um if math.isnan(f.z_um) and p.z_um is not None else f.z_um
            for p, f in zip(kept, found, strict=True)
        ]
    )
    y = np.array([label.score for label in found])
    labelled = LabelledPlanes(
        planes=kept,
        rows=tuple(rows),
        scores=y,
        z_um=z_um,
        z_in_focus_um=_z_in_focus(kept, found, y, z_um),
        sigma_um=_one_sigma(found, sigma_um, scores),
        without_label=tuple(p.path for p, k in zip(planes, keys, strict=True) if k not in labels),
        without_plane=tuple(labels[key].path for key in labels.keys() - set(keys)),
    )
    if len(np.unique(labelled.stacks)) < 2:
        raise DataError(
            f"all {len(labelled)} labelled planes belong to stack {kept[0].stack}; a head is "
            "checked on stacks it has not seen, so give two stacks or more"
        )
    return labelled


def read_scores(
    path: Path, *, target: str = "focus_score", root: Path | None = None
) -> dict[PlaneKey, float]:
    """Label of every plane of a CSV file; see `join`."""
    labels = _read_labels(read_table(path), target, 1.0, root)
    return {key: label.score for key, label in labels.items()}


def _read_labels(
    table: Table, target: str, sigma_um: float, root: Path | None
) -> dict[PlaneKey, _Label]:
    if target not in table.columns and "z_um" not in table.columns:
        raise DataError(
            f"{table.path} has no column {target!r}, nor z_um to make it of; it has "
            f"{', '.join(table.columns)}; write it with `autofocus data label`"
        )
    found = []
    for row in table.rows:
        label = _label(row, table, target, sigma_um, root)
        if label is not None:
            found.append((plane_key(label.path, row.page()), label))
    if not found:
        raise DataError(f"{table.path}: the column {target!r} is empty")
    require_unique([key for key, _ in found], table.path)
    return dict(found)


def _label(
    row: Row, table: Table, target: str, sigma_um: float, root: Path | None
) -> _Label | None:
    z_um, z_in_focus_um = row.number("z_um"), row.number("z_in_focus_um")
    if target in table.columns:
        score = row.number(target)
    else:
        z_in_focus_um = z_in_focus_um or 0.0
        made = focus_score(z_um or 0.0, z_in_focus_um=z_in_focus_um, sigma_um=sigma_um)
        score = None if z_um is None else float(made)
    if score is None:
        return None
    path = locate(row.cells.get(table.path_column, ""), beside=table.path.parent, root=root)
    return _Label(path, score, _nan(z_um), _nan(z_in_focus_um), row.number("sigma_um"))


def _nan(value: float | None) -> float:
    return math.nan if value is None else value


def _key(plane: Plane, beside: Path, root: Path | None) -> PlaneKey:
    return plane_key(locate(str(plane.path), beside=beside, root=root), plane.page)


def _z_in_focus(
    planes: Sequence[Plane], labels: Sequence[_Label], scores: Float64, z_um: Float64
) -> Float64:
    """As stated, else where the label of the stack is highest."""
    stated = np.array([label.z_in_focus_um for label in labels])
    stacks = np.array([plane.stack for plane in planes])
    for stack in np.unique(stacks[np.isnan(stated)]):
        rows = stacks == stack
        best = rows & (scores == scores[rows].max())
        stated[rows] = z_um[best].mean()
    return stated


def _one_sigma(labels: Sequence[_Label], default_um: float, path: Path) -> float:
    stated = {label.sigma_um for label in labels if label.sigma_um is not None}
    if len(stated) > 1:
        raise DataError(
            f"{path} has labels of different sigma_um {sorted(stated)}; label them alike"
        )
    return stated.pop() if stated else default_um
