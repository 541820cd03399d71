"""Which planes belong to which z-stack, and where in z each was taken.

A stack is a folder of planes or one multi-page TIFF. It is known by its path below the top folder,
a plane by its full path and page; equal base names never collide.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path, PurePath

import numpy as np
import tifffile
from numpy.typing import NDArray

from autofocus.errors import DataError
from autofocus.training.tables import (
    PATH_COLUMN,
    Row,
    Table,
    common_folder,
    locate,
    read_table,
    write_table,
)
from autofocus.training.z_positions import natural_key, varying_number, z_by_pattern
from devices.replay.stack import load_stack

_TIFF = {".tif", ".tiff"}
_IMAGES = _TIFF | {".png", ".jpg", ".jpeg", ".bmp"}
_HOW_TO_TELL_Z = (
    r"give --z-pattern 'z([+-]?\d+)' for names with z in um, --z-step UM for numbered names, or "
    f"--z-csv with the columns {PATH_COLUMN},z_um"
)

PlaneKey = tuple[str, int]


@dataclass(frozen=True)
class Plane:
    """One image.

    Attributes
    ----------
    path : Path
        Full path.
    stack : str
        Path of its stack below the top folder, parts separated by "/"; "." for the top folder.
    z_um : float or None
        Position, um; None when not known.
    page : int or None
        In a multi-page file, from 0; None when the file is the plane.
    """

    path: Path
    stack: str
    z_um: float | None = None
    page: int | None = None

    @property
    def key(self) -> PlaneKey:
        """What identifies it in every table."""
        return plane_key(self.path, self.page)

    @property
    def name(self) -> str:
        """Short, for people; not unique."""
        return self.path.name if self.page is None else f"{self.path.name} page {self.page}"


@dataclass(frozen=True)
class IndexedStack:
    """Planes of one stack, by z where it is known, else in natural order of their names.

    Attributes
    ----------
    name : str
        Path below the top folder.
    planes : tuple of Plane
        Not empty.
    z_from : str
        ``"names"``, ``"metadata"``, ``"numbers"`` (times the step), ``"table"`` or ``"nothing"``.
    """

    name: str
    planes: tuple[Plane, ...]
    z_from: str

    @property
    def z_um(self) -> NDArray[np.float64]:
        """Position of every plane, um; NaN where not known."""
        return np.array([math.nan if p.z_um is None else p.z_um for p in self.planes])


@dataclass(frozen=True)
class ZSource:
    """What the user says of z; what is not said is looked for in names and metadata.

    Attributes
    ----------
    pattern : str or None
        Regular expression with one group, see `autofocus.training.z_positions.compile_z_pattern`;
        "" takes no z from names.
    step_um : float or None
        Distance between planes that are only numbered.
    table : Path or None
        CSV with ``image_path``, ``z_um`` and, for multi-page files, ``page``. It stands before
        names and metadata.
    required : bool
        Whether a stack without z is an error.
    """

    pattern: str | None = None
    step_um: float | None = None
    table: Path | None = None
    required: bool = True


def plane_key(path: Path, page: int | None) -> PlaneKey:
    """Identity of a plane: its full path, as its system compares paths, and its page."""
    return os.path.normcase(path), page or 0


def index_stacks(root: Path, source: ZSource | None = None) -> tuple[IndexedStack, ...]:
    """Find every z-stack below a folder, or the one in a multi-page file.

    Parameters
    ----------
    root : Path
        Folder or TIFF file. Files and folders whose names begin with a dot are left out, and, in a
        folder with TIFF files, images of other kinds.
    source : ZSource, optional
        Where z comes from.

    Raises
    ------
    DataError
        When there are no images, or the z of a stack is not known, contradictory or not unique;
        names the stack.
    """
    root = root.resolve()
    if not root.exists():
        raise DataError(f"there is no {root}; name the top folder of the z-stacks")
    source = source or ZSource()
    stacks = [root] if root.is_file() else [f for folder in _folders(root) for f in _within(folder)]
    positions = _read_positions(source.table, root) if source.table else {}
    found = tuple(_index(stack, root, source, positions) for stack in stacks)
    if not found:
        raise DataError(f"{root} holds no images ({', '.join(sorted(_IMAGES))})")
    return found


def write_index(path: Path, planes: Iterable[Plane]) -> None:
    """Write ``images.csv``: image_path, stack, z_um, and page where a file has several."""
    planes = list(planes)
    paged = any(plane.page is not None for plane in planes)
    rows = ((p.path, p.stack, p.z_um, *([p.page] if paged else [])) for p in planes)
    write_table(path, (PATH_COLUMN, "stack", "z_um", *(["page"] if paged else [])), rows)


def read_index(path: Path, *, root: Path | None = None) -> tuple[Plane, ...]:
    """Read ``images.csv``; only ``image_path`` (or the first column) must be there.

    Parameters
    ----------
    root : Path, optional
        Top folder below which images are looked for that are not where the table says.

    Raises
    ------
    DataError
        When the table cannot be read or names a plane twice.
    """
    table = read_table(path)
    named = [(row, _located(row, table, root)) for row in table.rows]
    top = (root or Path(common_folder([at for _, at in named]))).resolve()
    planes = tuple(_plane(row, at, top) for row, at in named)
    require_unique((plane.key for plane in planes), path)
    return planes


def by_stack(planes: Iterable[Plane]) -> dict[str, list[Plane]]:
    """Planes of every stack, in the order given."""
    stacks: dict[str, list[Plane]] = {}
    for plane in planes:
        stacks.setdefault(plane.stack, []).append(plane)
    return stacks


def require_unique(keys: Iterable[PlaneKey], path: Path) -> None:
    """Refuse a table that names a plane twice.

    Raises
    ------
    DataError
    """
    (key, count), *_ = Counter(keys).most_common(1)
    if count > 1:
        raise DataError(
            f"{path} names {key[0]} (page {key[1]}) {count} times; two rows for one plane, or two "
            "files that look the same below --root"
        )


def read_plane(plane: Plane) -> NDArray[np.generic]:
    """Pixels of one plane, shape (height, width), as recorded; colours become their mean.

    Raises
    ------
    DataError
        When the file is absent or damaged, or holds another number of planes than expected.
    """
    return read_file(plane.path, [plane])[0]


def read_stack(stack: IndexedStack) -> list[NDArray[np.generic]]:
    """Pixels of all planes of a stack, every file opened once; see `read_plane`."""
    by_file = groupby(stack.planes, key=lambda plane: plane.path)
    return [image for path, planes in by_file for image in read_file(path, list(planes))]


def read_file(path: Path, planes: Sequence[Plane]) -> list[NDArray[np.generic]]:
    """Pixels of several planes of one file; see `read_plane`."""
    if not path.is_file():
        raise DataError(f"{path} is not there; give --root, the top folder of the images")
    try:
        stored = load_stack(path).planes
    except Exception as error:  # whatever a damaged file makes its decoder stumble over
        raise DataError(f"{path} cannot be read, it is damaged or no image: {error}") from error
    if len(stored) > 1 and any(plane.page is None for plane in planes):
        raise DataError(
            f"{path} holds {len(stored)} planes; write the table with `autofocus data index`, "
            "which gives each its page"
        )
    last = max(plane.page or 0 for plane in planes)
    if last >= len(stored):
        raise DataError(f"{path} holds {len(stored)} planes, page {last} is asked for")
    return [stored[plane.page or 0] for plane in planes]


def _folders(root: Path) -> list[Path]:
    below = (path for path in root.rglob("*") if path.is_dir() and not _hidden(path, root))
    return [root, *sorted(below, key=lambda path: natural_key(path.relative_to(root).as_posix()))]


def _within(folder: Path) -> list[Path]:
    """Multi-page files of a folder, each a stack, and the folder itself if it has other images."""
    images = _images(folder)
    paged = [path for path in images if _pages(path) > 1]
    return [*paged, *([folder] if len(paged) < len(images) else [])]


def _images(folder: Path) -> list[Path]:
    files = (path for path in folder.iterdir() if path.suffix.lower() in _IMAGES)
    shown = [path for path in files if path.is_file() and not path.name.startswith(".")]
    # Beside TIFF planes, other images are pictures of them: previews, curves.
    planes = [path for path in shown if path.suffix.lower() in _TIFF] or shown
    return sorted(planes, key=lambda path: natural_key(path.name))


def _hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def _pages(path: Path) -> int:
    if path.suffix.lower() not in _TIFF:
        return 1
    try:
        with tifffile.TiffFile(path) as tiff:
            if len(tiff.pages) == 1 and tiff.series[0].ndim == 2:
                return 1
        return len(load_stack(path))
    except Exception:  # a damaged file is one plane here, and is reported when it is read
        return 1


def _index(
    stack: Path, root: Path, source: ZSource, positions: dict[PlaneKey, float]
) -> IndexedStack:
    name = stack.relative_to(root).as_posix() if stack != root or root.is_dir() else stack.name
    planes = _planes_of_file(stack, name) if stack.is_file() else _planes_of_folder(stack, name)
    z_um, z_from = _find_z(planes, source, positions)
    if z_um is None:
        if source.required:
            raise DataError(_without_z(name, planes, source))
        return IndexedStack(name, planes, z_from)
    if len(set(z_um)) < len(z_um):
        raise DataError(f"stack {name}: two planes share a z according to their {z_from}: {z_um}")
    placed = [replace(plane, z_um=z) for plane, z in zip(planes, z_um, strict=True)]
    return IndexedStack(name, tuple(sorted(placed, key=lambda plane: plane.z_um or 0.0)), z_from)


def _planes_of_file(path: Path, name: str) -> tuple[Plane, ...]:
    pages = _pages(path)
    if pages == 1:
        return (Plane(path, name),)
    return tuple(Plane(path, name, page=page) for page in range(pages))


def _planes_of_folder(folder: Path, name: str) -> tuple[Plane, ...]:
    return tuple(Plane(path, name) for path in _images(folder) if _pages(path) == 1)


def _find_z(
    planes: Sequence[Plane], source: ZSource, positions: dict[PlaneKey, float]
) -> tuple[tuple[float, ...] | None, str]:
    known = [positions.get(plane.key) for plane in planes]
    in_table = tuple(z for z in known if z is not None)
    if len(in_table) == len(planes):
        return in_table, "table"
    if in_table:
        absent = next(p for p, z in zip(planes, known, strict=True) if z is None)
        raise DataError(
            f"stack {absent.stack}: {source.table} has the z of other planes of it, not of "
            f"{absent.name}"
        )
    stated, z_from = _stated_z(planes, source)
    if stated is not None:
        _require_same_step(stated, z_from, planes[0].stack, source)
        return stated, z_from
    if source.step_um is None:
        return None, "nothing"
    numbers = _numbers(planes)
    return numbers and tuple(n * source.step_um for n in numbers), "numbers"


def _stated_z(planes: Sequence[Plane], source: ZSource) -> tuple[tuple[float, ...] | None, str]:
    """Positions that the recording itself tells, um."""
    if planes[0].page is not None:
        return load_stack(planes[0].path).z_um, "metadata"
    if source.pattern == "":
        return None, "nothing"
    return z_by_pattern([plane.path.stem for plane in planes], source.pattern), "names"


def _numbers(planes: Sequence[Plane]) -> tuple[int, ...] | None:
    if planes[0].page is not None:
        return tuple(plane.page or 0 for plane in planes)
    return varying_number([plane.path.stem for plane in planes])


def _require_same_step(z_um: tuple[float, ...], z_from: str, name: str, source: ZSource) -> None:
    """Numbers of planes look like positions: a step that contradicts them must not be ignored."""
    if source.step_um is None or len(z_um) < 2:
        return
    step_um = float(np.median(np.diff(np.sort(z_um))))
    if not math.isclose(step_um, source.step_um, rel_tol=0.01):
        raise DataError(
            f"stack {name}: its {z_from} say {step_um:g} um between planes, --z-step says "
            f"{source.step_um:g} um; leave out --z-step if the {z_from} are right, give "
            "--z-pattern '' if they only number the planes, or --z-csv"
        )


def _without_z(name: str, planes: Sequence[Plane], source: ZSource) -> str:
    if len(planes) == 1:
        return f"stack {name} is the single plane {planes[0].path}, without z; {_HOW_TO_TELL_Z}"
    shown = f"{planes[0].name}, {planes[1].name}, ..."
    if source.step_um is not None:
        return (
            f"stack {name} ({shown}): the names differ in more than one number, so --z-step does "
            f"not tell z; {_HOW_TO_TELL_Z}"
        )
    return f"the z of stack {name} ({shown}) is not known; {_HOW_TO_TELL_Z}"


def _read_positions(path: Path, root: Path) -> dict[PlaneKey, float]:
    table = read_table(path)
    top = root if root.is_dir() else root.parent
    found: list[tuple[PlaneKey, float]] = []
    for row in table.rows:
        z_um = row.number("z_um")
        if z_um is None:
            raise DataError(f"{row.where}: no z_um")
        found.append((plane_key(_located(row, table, top), row.page()), z_um))
    require_unique((key for key, _ in found), path)
    return dict(found)


def _located(row: Row, table: Table, root: Path | None) -> Path:
    text = row.cells.get(table.path_column, "")
    if not text:
        raise DataError(f"{row.where}: no {table.path_column}")
    return locate(text, beside=table.path.parent, root=root)


def _plane(row: Row, path: Path, top: PurePath) -> Plane:
    page = row.page()
    within = path if page is not None else path.parent
    derived = within.relative_to(top) if within.is_relative_to(top) else within
    return Plane(path, row.cells.get("stack") or derived.as_posix(), row.number("z_um"), page)
