"""What is wrong with a lab's images before anything is fitted on them."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from autofocus.errors import DataError
from autofocus.training.pictures import contact_sheet_png
from autofocus.training.stack_index import Plane, PlaneKey, read_plane
from models.errors import ImageError
from models.frame import as_grey_float, fingerprint, inspect

Float32 = NDArray[np.float32]

# Sides of the reduced frames that are compared, and the correlation from which they are one field.
_THUMB_PX = 64
_SAME_FIELD = 0.9


@dataclass(frozen=True)
class Finding:
    """Something to look at.

    Attributes
    ----------
    kind : str
        ``missing``, ``unreadable``, ``sizes``, ``types``, ``saturated``, ``dark``, ``copies``,
        ``near-duplicates``, ``edge`` or ``few``.
    stack : str
        Where.
    text : str
        What, in words.
    """

    kind: str
    stack: str
    text: str


@dataclass(frozen=True)
class CheckedStack:
    """What was found in one stack.

    Attributes
    ----------
    stack : str
        Its name.
    findings : tuple of Finding
    sheet_png : bytes
        Its planes side by side; the labelled one, if there is one, is framed.
    fingerprints : mapping of str to str
        Name of a plane by the hash of its pixels.
    thumb : ndarray or None
        Fine structure of the labelled (or middle) plane, to compare stacks by; None where there
        is none.
    """

    stack: str
    findings: tuple[Finding, ...]
    sheet_png: bytes
    fingerprints: Mapping[str, str]
    thumb: Float32 | None


def check_stack(
    name: str, planes: Sequence[Plane], scores: Mapping[PlaneKey, float], *, bit_depth: int | None
) -> CheckedStack:
    """Look at every plane of one stack.

    Parameters
    ----------
    scores : mapping
        Labels of planes, as far as there are any.
    bit_depth : int, optional
        Bits the camera really uses, to tell saturation.
    """
    findings: list[Finding] = []
    frames = [_read(name, plane, findings) for plane in planes]
    marked = _labelled(planes, scores)
    findings += _formats(name, frames)
    findings += _exposures(name, planes, frames, bit_depth)
    findings += _label_at_edge(name, planes, marked)
    prints, copies = _copies(name, planes, frames)
    shown = frames[marked if marked is not None else len(frames) // 2]
    captions = [p.name if p.z_um is None else f"{p.z_um:g} um" for p in planes]
    sheet = contact_sheet_png(frames, captions, title=name, marked=marked)
    thumb = None if shown is None else _fine_structure(shown)
    return CheckedStack(name, (*findings, *copies), sheet, prints, thumb)


def compare_stacks(checked: Sequence[CheckedStack]) -> Iterator[Finding]:
    """Frames and fields that are in two stacks: left out, they are not unseen."""
    for a, b in itertools.combinations(checked, 2):
        shared = a.fingerprints.keys() & b.fingerprints.keys()
        if shared:
            one = min(shared)
            yield Finding(
                "copies",
                a.stack,
                f"{len(shared)} planes are the same as in {b.stack}: {a.fingerprints[one]} is "
                f"{b.fingerprints[one]}",
            )
        elif a.thumb is not None and b.thumb is not None:
            alike = float(np.sum(a.thumb * b.thumb))
            if alike > _SAME_FIELD:
                text = f"shows the same field as {b.stack} (correlation {alike:.2f})"
                yield Finding("near-duplicates", a.stack, text)


def _read(name: str, plane: Plane, findings: list[Finding]) -> NDArray[np.generic] | None:
    if not plane.path.is_file():
        findings.append(Finding("missing", name, f"{plane.path} is not there"))
        return None
    try:
        frame = read_plane(plane)
        as_grey_float(frame)
    except (DataError, ImageError) as error:
        findings.append(Finding("unreadable", name, str(error)))
        return None
    return frame


def _labelled(planes: Sequence[Plane], scores: Mapping[PlaneKey, float]) -> int | None:
    known = [(scores[plane.key], -n) for n, plane in enumerate(planes) if plane.key in scores]
    return -max(known)[1] if known else None


def _formats(name: str, frames: Sequence[NDArray[np.generic] | None]) -> Iterator[Finding]:
    seen = [frame for frame in frames if frame is not None]
    sizes = Counter(f"{f.shape[1]} x {f.shape[0]} px" for f in seen)
    types = Counter(str(f.dtype) for f in seen)
    for kind, counts in (("sizes", sizes), ("types", types)):
        if len(counts) > 1:
            said = ", ".join(f"{count} of {what}" for what, count in counts.most_common())
            yield Finding(kind, name, f"mixed {kind}: {said}")
    if len(frames) < 3:
        yield Finding("few", name, f"{len(frames)} planes are no curve")


def _exposures(
    name: str,
    planes: Sequence[Plane],
    frames: Sequence[NDArray[np.generic] | None],
    bit_depth: int | None,
) -> Iterator[Finding]:
    seen = [
        (p, inspect(f, bit_depth=bit_depth))
        for p, f in zip(planes, frames, strict=True)
        if f is not None
    ]
    saturated = [plane.name for plane, stats in seen if stats.saturated]
    if saturated:
        text = f"{len(saturated)} of {len(planes)} planes are saturated, first {saturated[0]}"
        yield Finding("saturated", name, text)
    if seen and all(stats.dark for _, stats in seen):
        yield Finding("dark", name, "nothing stands out of the noise in any plane")


def _label_at_edge(name: str, planes: Sequence[Plane], marked: int | None) -> Iterator[Finding]:
    if marked in (0, len(planes) - 1):
        text = f"the plane labelled sharpest, {planes[marked].name}, is the first or last one"
        yield Finding("edge", name, text)


def _copies(
    name: str,
    planes: Sequence[Plane],
    frames: Sequence[NDArray[np.generic] | None],
) -> tuple[dict[str, str], list[Finding]]:
    prints: dict[str, str] = {}
    findings = []
    for plane, frame in zip(planes, frames, strict=True):
        if frame is None:
            continue
        pixels = fingerprint(frame)
        if pixels in prints:
            text = f"{plane.name} has the same pixels as {prints[pixels]}"
            findings.append(Finding("copies", name, text))
        prints.setdefault(pixels, plane.name)
    return prints, findings


def _fine_structure(frame: NDArray[np.generic]) -> Float32 | None:
    """Reduced frame less its own blur, of unit length: shading and brightness do not count."""
    small = cv2.resize(as_grey_float(frame), (_THUMB_PX, _THUMB_PX), interpolation=cv2.INTER_AREA)
    fine = small - cv2.GaussianBlur(small, (0, 0), 6)
    length = float(np.linalg.norm(fine))
    return None if length == 0 else np.asarray(fine / length, np.float32)
