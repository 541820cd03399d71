"""Recorded z-stacks: multi-page TIFF, OME-TIFF, or a folder with one image a plane."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

from devices.errors import DeviceConfigError

Planes = NDArray[np.generic]

_TIFF = {".tif", ".tiff"}
_IMAGES = _TIFF | {".png", ".jpg", ".jpeg", ".bmp"}
_UM = {"µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "nm": 1e-3, "mm": 1e3, "m": 1e6, "Å": 1e-4}
_Z_IN_NAME = re.compile(r"(?:^|[^a-z])z([+-]?\d+(?:\.\d+)?)(?:um)?$", re.IGNORECASE)


@dataclass(frozen=True)
class Stack:
    """Planes in the order they are stored, or by z where file names tell it.

    Attributes
    ----------
    planes : ndarray of shape (n, height, width), uint8, uint16 or float32
        Grey values as recorded; the mean of R, G and B of colour images.
    z_um : tuple of float, or None
        Position of every plane as recorded, um; None when the recording does not tell.
    """

    planes: Planes
    z_um: tuple[float, ...] | None = None

    def __len__(self) -> int:
        return len(self.planes)


def load_stack(path: Path) -> Stack:
    """Read a z-stack.

    Of several time points and channels the first is taken. z comes from OME metadata (plane
    positions, else the physical step), ImageJ metadata (spacing in um), or, in a folder, from
    names that end in ``z`` and a position in um such as ``S001_z-10.tif``; names padded with
    zeros (``z007``) only number the planes. Files of a folder without z are in natural order: 2
    before 10.

    Raises
    ------
    DeviceConfigError
        If nothing can be read there, planes differ in size or type, or values are not finite.
    """
    if path.is_dir():
        stack = _load_folder(path)
    elif path.is_file() and path.suffix.lower() in _IMAGES - _TIFF:
        stack = Stack(_load_plane(path)[np.newaxis])
    elif path.is_file():
        stack = _load_file(path)
    else:
        raise DeviceConfigError(f"no z-stack at {path}: name a TIFF file or a folder of planes")
    if stack.planes.size == 0:
        raise DeviceConfigError(f"{path} holds no planes")
    return stack


def plane_positions(
    stack: Stack, *, z_step_um: float | None = None, z_positions_um: Sequence[float] | None = None
) -> tuple[float, ...]:
    """Return the z of every plane, um: as given, else as recorded.

    Parameters
    ----------
    z_step_um : float, optional
        Distance from each plane to the next; the first is at 0.
    z_positions_um : sequence of float, optional
        Position of each plane, in any order.

    Raises
    ------
    DeviceConfigError
        If both or neither is known, their number is wrong, or two planes share a position.
    """
    if z_step_um is not None and z_positions_um is not None:
        raise DeviceConfigError("give z_step_um or z_positions_um of a stack, not both")
    positions = stack.z_um
    if z_step_um is not None:
        positions = tuple(i * float(z_step_um) for i in range(len(stack)))
    if z_positions_um is not None:
        positions = tuple(map(float, z_positions_um))
    if positions is None:
        raise DeviceConfigError(
            "the recording does not tell the z of its planes; give z_step_um (one distance) or "
            f"z_positions_um ({len(stack)} positions)"
        )
    if len(positions) != len(stack):
        raise DeviceConfigError(f"{len(positions)} z positions for {len(stack)} planes")
    if not all(map(math.isfinite, positions)):
        raise DeviceConfigError(f"z positions must be finite numbers: {positions}")
    if len(set(positions)) < len(positions):
        raise DeviceConfigError(f"two planes share a z position: {positions} um")
    return positions


def _load_folder(folder: Path) -> Stack:
    files = [f for f in folder.iterdir() if f.is_file() and f.suffix.lower() in _IMAGES]
    if not files:
        raise DeviceConfigError(f"{folder} holds no images ({', '.join(sorted(_IMAGES))})")
    files.sort(key=_natural)
    z_um = _z_in_names(files)
    if z_um is not None:
        order = np.argsort(z_um, kind="stable")
        files, z_um = [files[i] for i in order], tuple(z_um[i] for i in order)
    return Stack(_stacked([(file.name, _load_plane(file)) for file in files], folder), z_um)


def _natural(file: Path) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", file.name.lower())
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts]


def _z_in_names(files: Sequence[Path]) -> tuple[float, ...] | None:
    found = [_Z_IN_NAME.search(file.stem) for file in files]
    texts = [match[1] for match in found if match]
    numbered = any(re.match(r"0\d", text) for text in texts)
    if len(texts) < len(files) or numbered:
        return None
    return tuple(map(float, texts))


def _load_plane(file: Path) -> Planes:
    if file.suffix.lower() in _TIFF:
        planes = _load_file(file).planes
        if len(planes) != 1:
            raise DeviceConfigError(
                f"{file} holds {len(planes)} planes; a folder must hold one plane a file"
            )
        return planes[0]
    # Not imread: it cannot open names beyond ASCII on Windows.
    image = cv2.imdecode(np.fromfile(file, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise DeviceConfigError(f"{file} is not an image that can be read")
    return _storable(_grey(image), file)


def _load_file(file: Path) -> Stack:
    try:
        with tifffile.TiffFile(file) as tiff:
            series = tiff.series[0]
            planes, axes = series.asarray(), series.axes
            z_um = _ome_positions(tiff) if tiff.is_ome else _imagej_positions(tiff)
    except Exception as error:  # whatever a damaged file makes its decoder stumble over
        raise DeviceConfigError(f"{file} cannot be read as a TIFF z-stack: {error}") from error
    planes = _z_first(planes, axes, file)
    if z_um is not None and len(z_um) != len(planes):
        z_um = None
    return Stack(_storable(planes, file), z_um)


def _z_first(values: Planes, axes: str, file: Path) -> Planes:
    """Bring an array with named axes to (z, y, x)."""
    if "S" in axes:
        values = _grey(np.moveaxis(values, axes.index("S"), -1))
        axes = axes.replace("S", "")
    lengths = dict(zip(axes, values.shape, strict=True))
    along = next((a for a in axes if a not in "YXCT" and lengths[a] > 1), None)
    if along is None and lengths.get("Z", 1) == 1:
        # Written without a z axis: time points, or else channels, were planes.
        along = next((a for a in "TC" if lengths.get(a, 1) > 1), None)
    for axis in [a for a in axes if a not in "YX" and a != along]:
        values = np.take(values, 0, axis=axes.index(axis))
        axes = axes.replace(axis, "")
    wanted = f"{along or ''}YX"
    if sorted(axes) != sorted(wanted):
        raise DeviceConfigError(f"{file} has axes {axes}; expected pages of height x width")
    values = values.transpose([axes.index(axis) for axis in wanted])
    return values if along else values[np.newaxis]


def _grey(image: Planes) -> Planes:
    """Mean of R, G and B along the last axis, if there is one; any alpha is left out."""
    if image.ndim < 3 or image.shape[-1] not in (2, 3, 4):
        return image if image.ndim < 3 else image[..., 0]
    colours = image[..., : 3 if image.shape[-1] > 2 else 1]
    mean = colours.mean(axis=-1, dtype=np.float32)
    return mean.round().astype(image.dtype) if image.dtype.kind in "ui" else mean


def _stacked(named: Sequence[tuple[str, Planes]], folder: Path) -> Planes:
    (first_name, first), *others = named
    for name, plane in others:
        if plane.shape != first.shape or plane.dtype != first.dtype:
            raise DeviceConfigError(
                f"{folder}: {name} is {_format(plane)}, but {first_name} is {_format(first)}; "
                "all planes of a stack must be alike"
            )
    return np.stack([plane for _, plane in named])


def _format(plane: Planes) -> str:
    return f"{plane.shape[1]} x {plane.shape[0]} px {plane.dtype}"


def _storable(planes: Planes, file: Path) -> Planes:
    """Bring values to a type a camera delivers, changing none of them."""
    if planes.dtype in (np.uint8, np.uint16):
        return planes
    if planes.dtype == np.bool_:
        return planes.astype(np.uint8)
    if planes.dtype.kind not in "uif":
        raise DeviceConfigError(f"{file} holds {planes.dtype} values; expected grey values")
    if planes.dtype.kind == "f" and not np.isfinite(planes).all():
        raise DeviceConfigError(f"{file} holds values that are not finite")
    fits = (
        planes.dtype.kind in "ui" and planes.min(initial=0) >= 0 and planes.max(initial=0) < 2**16
    )
    return planes.astype(np.uint16 if fits else np.float32)


def _ome_positions(tiff: tifffile.TiffFile) -> tuple[float, ...] | None:
    """Positions of the planes of the first channel and time point, from OME-XML."""
    root = ElementTree.fromstring(tiff.ome_metadata or "<OME/>")
    pixels = root.find(".//{*}Pixels")
    if pixels is None:
        return None
    first = [
        plane
        for plane in pixels.findall("{*}Plane")
        if plane.get("TheC", "0") == "0" and plane.get("TheT", "0") == "0"
    ]
    first.sort(key=lambda plane: int(plane.get("TheZ", "0")))
    # A stage that was never asked writes 0 for every plane.
    if len({plane.get("PositionZ") for plane in first} - {None}) == len(first) > 0:
        return tuple(
            float(plane.attrib["PositionZ"]) * _unit(plane.get("PositionZUnit")) for plane in first
        )
    step = pixels.get("PhysicalSizeZ")
    if step is None:
        return None
    step_um = float(step) * _unit(pixels.get("PhysicalSizeZUnit"))
    return tuple(i * step_um for i in range(int(pixels.get("SizeZ", "1"))))


def _unit(name: str | None) -> float:
    """Um in a unit. OME's default for positions is the "reference frame": um in practice."""
    return _UM.get(name or "µm", 1.0)


def _imagej_positions(tiff: tifffile.TiffFile) -> tuple[float, ...] | None:
    metadata: dict[str, Any] = tiff.imagej_metadata or {}
    spacing, unit = metadata.get("spacing"), str(metadata.get("unit", ""))
    # tifffile hands on the micro sign as ImageJ escapes it.
    unit = unit.replace("\\u00B5", "µ")
    if not isinstance(spacing, (int, float)) or spacing <= 0 or unit not in _UM:
        return None
    return tuple(i * spacing * _UM[unit] for i in range(int(metadata.get("slices", 1))))
