"""The plane in focus of every stack, as names, a person or teachers have it, and labels from it.

The label is 1 / (1 + (d / sigma)^2), d the distance to the plane in focus; 0.5 at sigma.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from autofocus.errors import DataError
from autofocus.training.stack_index import IndexedStack, plane_key, read_stack
from autofocus.training.tables import PATH_COLUMN, Row, locate, read_table, write_table
from models.classical import MEASURES, compare_on_stack
from models.errors import ImageError
from models.regressor import label_of

Float64 = NDArray[np.float64]

# Teachers who must agree, of nine: six.
_LEAST_AGREEMENT = 2 / 3
# A peak is one if it stands this many times the scatter of the other planes above their median.
_LEAST_PROMINENCE = 4.0


@dataclass(frozen=True)
class Judgement:
    """Where one stack is in focus.

    Attributes
    ----------
    stack : str
        Its name.
    z_um : float or None
        Plane in focus, um; None when the stack is set aside.
    reason : str
        Who said so, or why it is set aside.
    votes : mapping of str to float
        Peak of every teacher that found one, um.
    agreement : float or None
        Share of all teachers whose peak is near the median of the peaks, 0..1; None without
        teachers.
    """

    stack: str
    z_um: float | None
    reason: str
    votes: Mapping[str, float]
    agreement: float | None = None


def focus_score(z_um: ArrayLike, *, z_in_focus_um: float, sigma_um: float) -> Float64:
    """Label of planes at z."""
    distance = np.asarray(z_um, np.float64) - z_in_focus_um
    return label_of(distance, sigma_um)


def zero_in_names(stack: IndexedStack) -> Judgement:
    """In focus at z = 0, as names such as ``S001_z-10.tif`` mean it.

    Raises
    ------
    DataError
        When z does not come from names, or 0 is not within the stack.
    """
    if stack.z_from != "names":
        raise DataError(
            f"the z of stack {stack.name} comes from its {stack.z_from}, so z = 0 need not be in "
            "focus; say where it is with --in-focus labels.csv, or ask --teacher"
        )
    low, high = stack.z_um.min(), stack.z_um.max()
    if not low <= 0 <= high:
        raise DataError(
            f"stack {stack.name} goes from {low:g} to {high:g} um, so it is not in focus at z = 0; "
            "say where it is with --in-focus labels.csv, or ask --teacher"
        )
    return Judgement(stack.name, 0.0, "z = 0 in the names", {})


def by_person(
    stacks: Sequence[IndexedStack], table_path: Path, *, root: Path
) -> tuple[Judgement, ...]:
    """What a person chose; stacks without a choice are set aside.

    Parameters
    ----------
    table_path : Path
        CSV with ``stack`` and ``z_um``, or with ``image_path`` (and ``page``) of the chosen plane.

    Raises
    ------
    DataError
        For a stack or plane that is not among ``stacks``, chosen twice, or a z outside its stack.
    """
    table = read_table(table_path)
    chosen: dict[str, float] = {}
    for row in table.rows:
        stack, z_um = _choice(row, stacks, table_path, root)
        if stack in chosen:
            raise DataError(f"{row.where}: a second choice for stack {stack}")
        chosen[stack] = z_um
    return tuple(
        Judgement(stack.name, chosen[stack.name], f"chosen in {table_path.name}", {})
        if stack.name in chosen
        else Judgement(stack.name, None, f"not in {table_path.name}", {})
        for stack in stacks
    )


def by_teachers(stack: IndexedStack, *, sigma_um: float) -> Judgement:
    """Where most classical measures have their peak.

    A measure votes for the plane it scores highest if that stands out from the other planes. The
    stack is set aside when fewer than two thirds of all measures vote within half a sigma (or one
    plane) of the median vote, when that lies at the first or last plane, or when a plane cannot be
    read.
    """
    z_um = stack.z_um
    if len(z_um) < 3:
        return Judgement(stack.name, None, f"{len(z_um)} planes are too few for teachers", {})
    try:
        scores = compare_on_stack(read_stack(stack))
    except (DataError, ImageError) as error:
        return Judgement(stack.name, None, str(error), {})
    votes = {
        name: float(z_um[np.argmax(values)])
        for name, values in scores.items()
        if stands_out(np.array(values))
    }
    near_um = max(sigma_um / 2, 1.001 * float(np.median(np.diff(z_um))))
    centre = float(np.median(list(votes.values()))) if votes else float("nan")
    agreeing = [vote for vote in votes.values() if abs(vote - centre) <= near_um]
    agreement = len(agreeing) / len(MEASURES)
    if agreement < _LEAST_AGREEMENT:
        reason = f"teachers disagree: {len(agreeing)} of {len(MEASURES)} within {near_um:.3g} um"
        return Judgement(stack.name, None, reason, votes, agreement)
    z_in_focus_um = float(np.median(agreeing))
    if not z_um[0] < z_in_focus_um < z_um[-1]:
        reason = f"its peak is at the edge, at {z_in_focus_um:g} um; the focus may lie outside"
        return Judgement(stack.name, None, reason, votes, agreement)
    reason = f"{len(agreeing)} of {len(MEASURES)} teachers within {near_um:.3g} um"
    return Judgement(stack.name, z_in_focus_um, reason, votes, agreement)


def stands_out(scores: Float64) -> bool:
    """Whether the best plane stands above the scatter of the others: noise has a maximum too."""
    # Second differences of a smooth curve are small; those of white noise scatter by sqrt(6).
    scatter = 1.4826 * float(np.median(np.abs(np.diff(scores, n=2)))) / np.sqrt(6)
    return bool(np.max(scores) - np.median(scores) > _LEAST_PROMINENCE * scatter)


def write_scores(
    path: Path, stacks: Iterable[IndexedStack], judged: Iterable[Judgement], *, sigma_um: float
) -> int:
    """Write ``focus_scores.csv``; returns the number of labelled planes.

    After image_path, z_um and focus_score come z_in_focus_um, sigma_um and, where a file has
    several planes, page.
    """
    z_in_focus = {judgement.stack: judgement.z_um for judgement in judged}
    rows = []
    for stack in stacks:
        z0_um = z_in_focus[stack.name]
        if z0_um is None:
            continue
        scores = focus_score(stack.z_um, z_in_focus_um=z0_um, sigma_um=sigma_um)
        for plane, score in zip(stack.planes, scores.tolist(), strict=True):
            rows.append((plane.path, plane.z_um, score, z0_um, sigma_um, plane.page))
    if not rows:
        raise DataError("every stack is set aside; choose planes by hand: --in-focus labels.csv")
    columns = [PATH_COLUMN, "z_um", "focus_score", "z_in_focus_um", "sigma_um"]
    if any(row[-1] is not None for row in rows):
        columns.append("page")
    write_table(path, columns, (row[: len(columns)] for row in rows))
    return len(rows)


def _choice(row: Row, stacks: Sequence[IndexedStack], table: Path, root: Path) -> tuple[str, float]:
    text = row.cells.get(PATH_COLUMN, "")
    if text:
        key = plane_key(locate(text, beside=table.parent, root=root), row.page())
        planes = [p for stack in stacks for p in stack.planes if p.key == key]
        if not planes or planes[0].z_um is None:
            raise DataError(f"{row.where}: {text} is no plane of these stacks")
        return planes[0].stack, planes[0].z_um
    name, z_um = row.cells.get("stack", ""), row.number("z_um")
    stack = next((stack for stack in stacks if stack.name == name), None)
    if stack is None:
        known = ", ".join(stack.name for stack in stacks[:5])
        raise DataError(f"{row.where}: no stack is called {name!r}; there are {known}, ...")
    low, high = stack.z_um.min(), stack.z_um.max()
    if z_um is None or not low <= z_um <= high:
        raise DataError(
            f"{row.where}: z_um = {z_um} is not within stack {name}, {low:g} to {high:g} um"
        )
    return name, z_um
