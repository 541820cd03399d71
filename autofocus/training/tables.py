"""CSV tables of images, as spreadsheets of any country and either kind of path write them."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from autofocus.errors import DataError

PATH_COLUMN = "image_path"


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes
    ----------
    where : str
        File and line, for messages.
    cells : dict of str to str
        Text by column, stripped; "" where empty.
    """

    where: str
    cells: dict[str, str]

    def number(self, column: str) -> float | None:
        """Value of a cell, None where it is empty or there is no such column.

        Raises
        ------
        DataError
            When it is not a finite number.
        """
        text = self.cells.get(column, "")
        if text in ("", "None", "nan"):
            return None
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise DataError(f"{self.where}: {column} = {text!r} is not a number such as -1.5")
        return value

    def page(self) -> int | None:
        """Page of a multi-page file, from 0; None where the file is one plane."""
        value = self.number("page")
        if value is None:
            return None
        if value != int(value) or value < 0:
            raise DataError(f"{self.where}: page = {value} must be 0, 1, 2, ...")
        return int(value)


@dataclass(frozen=True)
class Table:
    """Rows of a CSV file, in order."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def path_column(self) -> str:
        """``image_path``, or the first column where none has this name."""
        return PATH_COLUMN if PATH_COLUMN in self.columns else self.columns[0]


def read_table(path: Path) -> Table:
    """Read a CSV file with a header; separated by comma, semicolon or tab; UTF-8.

    Raises
    ------
    DataError
        When it cannot be read or holds no rows.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path} as CSV in UTF-8: {error}") from error
    header = text.partition("\n")[0]
    separator = max(",;\t", key=header.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
    columns = tuple(name.strip() for name in reader.fieldnames or ())
    rows = tuple(
        Row(
            f"{path} line {reader.line_num}",
            {k.strip(): (v or "").strip() for k, v in cells.items() if k},
        )
        for cells in reader
    )
    if not rows:
        raise DataError(f"{path} holds no rows; it needs a header such as {PATH_COLUMN!r} and rows")
    return Table(path, columns, rows)


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write CSV in UTF-8 in one step; None becomes an empty cell.

    Raises
    ------
    DataError
        When the place cannot be written.
    """
    partial = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(["" if cell is None else cell for cell in row] for row in rows)
        partial.replace(path)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error}") from error


def locate(text: str, *, beside: Path, root: Path | None = None) -> Path:
    r"""Full path of a file named in a table.

    A name that does not exist here is looked for below ``root`` by as many of its last parts as
    possible, so that ``D:\data\S001\S001_z-10.tif`` is found as ``S001/S001_z-10.tif`` on any
    system.

    Parameters
    ----------
    beside : Path
        Folder of the table, for relative names.
    root : Path, optional
        Top folder of the images.

    Returns
    -------
    Path
        As it was written when there is no such file.
    """
    if (beside / text).is_file():
        return (beside / text).resolve()
    parts = [part for part in re.split(r"[\\/]+", text) if part not in ("", ".")]
    if root is not None and ".." not in parts:
        for start in range(len(parts)):
            if (root.joinpath(*parts[start:])).is_file():
                return root.joinpath(*parts[start:]).resolve()
    return Path(text)


def common_folder(paths: Sequence[PurePath]) -> PurePath:
    """The lowest folder that all files are below; "." when there is none."""
    if not paths:
        return PurePath()
    first, *others = [path.parent for path in paths]
    folders = (first, *first.parents)
    within = (f for f in folders if all(f == o or f in o.parents for o in others))
    return next(within, type(first)())
