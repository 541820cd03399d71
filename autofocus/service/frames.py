"""Frames out of files that strangers wrote.

Nothing here or below executes anything of a file. What is checked before it is decoded: how large
it becomes, that it is complete, and that it names no other file of this machine.
"""

from __future__ import annotations

import shutil
import struct
import xml.etree.ElementTree as ElementTree
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

import numpy as np
import tifffile

from devices import DeviceError
from devices.replay.stack import Stack, load_stack
from models.errors import ImageError

MAX_DECODED_BYTES = 1 << 30
MAX_PLANE_PX = 100_000_000
MAX_PAGES = 10_000

_PNG = b"\x89PNG\r\n\x1a\n"
# Header -> byte order, type of an offset, of the number of tags, bytes of a tag, first offset at.
_TIFF = {
    b"II*\0": ("<", "I", "H", 12, 4),
    b"MM\0*": (">", "I", "H", 12, 4),
    b"II+\0": ("<", "Q", "Q", 20, 8),
    b"MM\0+": (">", "Q", "Q", 20, 8),
}
_NONE, _LZW, _DEFLATE, _OLD_DEFLATE = 1, 5, 8, 32946
_PIECE = 1 << 20


@dataclass(frozen=True)
class RawFormat:
    """How to read counts without a header: row by row, little-endian, frame after frame."""

    width: int
    height: int
    dtype: str


def read_frames(content: BinaryIO, raw: RawFormat | None = None) -> Stack:
    """Planes of an uploaded file.

    Parameters
    ----------
    content : binary file
        TIFF, OME-TIFF or PNG; the mean of R, G and B of colour images is taken. Uncompressed,
        Deflate and LZW are read.
    raw : RawFormat, optional
        The content is raw counts instead, of one frame or several.

    Raises
    ------
    ImageError
        When it is none of these, damaged, incomplete, or too large once decoded; says which.
    """
    content.seek(0)
    if raw is not None:
        return _raw(content, raw)
    head = content.read(24)
    content.seek(0)
    if head[:4] in _TIFF:
        return _load(content, "upload.tif", check=_check_tiff)
    if head[:8] == _PNG:
        return _load(content, "upload.png", check=_check_png)
    raise ImageError(
        "the file is neither TIFF nor PNG; for raw counts send width, height and dtype with it"
    )


def _raw(content: BinaryIO, raw: RawFormat) -> Stack:
    dtype = np.dtype(raw.dtype).newbyteorder("<")
    _require_plane(raw.width, raw.height)
    values = content.read(MAX_DECODED_BYTES + 1)
    _require_decodable(len(values))
    frame_bytes = raw.width * raw.height * dtype.itemsize
    if not values or len(values) % frame_bytes:
        raise ImageError(
            f"{len(values)} bytes are no whole number of frames of {raw.width} x {raw.height} px "
            f"{raw.dtype}, which take {frame_bytes} bytes each"
        )
    planes = np.frombuffer(values, dtype).astype(raw.dtype, copy=False)
    return Stack(planes.reshape(-1, raw.height, raw.width))


def _load(content: BinaryIO, name: str, *, check: Callable[[BinaryIO], None]) -> Stack:
    with TemporaryDirectory() as folder:
        path = Path(folder) / name
        with path.open("wb") as copy:
            shutil.copyfileobj(content, copy)
        return _checked(path, check)


def _checked(path: Path, check: Callable[[BinaryIO], None]) -> Stack:
    try:
        with path.open("rb") as file:
            check(file)
        return load_stack(path)
    except ImageError:
        raise
    except DeviceError as error:
        raise ImageError(str(error).replace(str(path), "the file")) from error
    except Exception as error:  # whatever a damaged file makes its decoder stumble over
        raise ImageError(f"the file cannot be read, it is damaged or cut short: {error}") from error


def _check_png(content: BinaryIO) -> None:
    content.seek(12)
    kind, width, height = struct.unpack(">4sII", content.read(12))
    if kind != b"IHDR":
        raise ImageError("the file begins like a PNG, but has no header")
    _require_plane(width, height)


def _check_tiff(content: BinaryIO) -> None:
    _require_whole_chain(content)
    content.seek(0)
    with tifffile.TiffFile(content) as tiff:
        if tiff.is_ome:
            _require_alone(tiff.ome_metadata or "")
        for page in tiff.pages:
            _require_plane(page.imagewidth, page.imagelength)
        _require_decodable(tiff.series[0].nbytes)
        for page in tiff.series[0].pages:
            if page is not None:
                _require_honest(page.aspage(), content)


def _require_whole_chain(content: BinaryIO) -> None:
    """Follow the chain of pages: where it breaks off, readers drop the rest in silence."""
    order, offset, count, tag_bytes, first_at = _TIFF[_read(content, 0, 4)]
    seen: set[int] = set()
    at = _unpack(content, order + offset, first_at)
    while at:
        if at in seen or len(seen) >= MAX_PAGES:
            raise ImageError(f"the TIFF has a loop of pages, or more than {MAX_PAGES}")
        seen.add(at)
        tags = _unpack(content, order + count, at)
        at = _unpack(content, order + offset, at + struct.calcsize(count) + tags * tag_bytes)


def _unpack(content: BinaryIO, layout: str, at: int) -> int:
    return int(struct.unpack(layout, _read(content, at, struct.calcsize(layout)))[0])


def _read(content: BinaryIO, at: int, size: int) -> bytes:
    content.seek(at)
    found = content.read(size)
    if len(found) < size:
        raise ImageError(f"the TIFF is cut short: it goes on at byte {at}, where it has ended")
    return found


def _require_alone(ome_xml: str) -> None:
    """Refuse to look for the other files of a data set: they would be files of this machine."""
    if "<!DOCTYPE" in ome_xml or "<!ENTITY" in ome_xml:
        raise ImageError("the OME-XML of the file defines entities; it must not")
    root = ElementTree.fromstring(ome_xml)
    named = {element.text for element in root.iter() if element.tag.endswith("}UUID")}
    if named - {root.get("UUID")}:
        raise ImageError(
            "the OME-TIFF is one file of several; send it as a plain TIFF, or all planes in one"
        )


def _require_honest(page: tifffile.TiffPage, content: BinaryIO) -> None:
    """Refuse strips or tiles that unpack to more than their place in the image."""
    if page.compression in (_NONE, _LZW):
        return
    if page.compression not in (_DEFLATE, _OLD_DEFLATE):
        raise ImageError(
            f"the TIFF is compressed with {page.compression!r}; save it uncompressed, with Deflate "
            "or LZW"
        )
    expected = _segment_bytes(page)
    _require_decodable(expected)
    for at, size in zip(page.dataoffsets, page.databytecounts, strict=True):
        if _unpacked_bytes(_read(content, at, size), stop=expected) > expected:
            raise ImageError(f"a strip or tile of the TIFF unpacks to more than {expected} bytes")


def _segment_bytes(page: tifffile.TiffPage) -> int:
    rows = page.tilelength if page.is_tiled else min(page.rowsperstrip, page.imagelength)
    columns = page.tilewidth if page.is_tiled else page.imagewidth
    bits = page.bitspersample if isinstance(page.bitspersample, int) else max(page.bitspersample)
    depth = page.tiledepth if page.is_tiled else 1
    return int(rows * columns * depth * page.samplesperpixel * max(1, -(-bits // 8)))


def _unpacked_bytes(packed: bytes, *, stop: int) -> int:
    """Size once unpacked, counted in small pieces and no further than ``stop``."""
    unpacker, size = zlib.decompressobj(), 0
    while packed and not unpacker.eof and size <= stop:
        size += len(unpacker.decompress(packed, _PIECE))
        packed = unpacker.unconsumed_tail
    return size


def _require_plane(width: int, height: int) -> None:
    if not 0 < width * height <= MAX_PLANE_PX:
        raise ImageError(f"a plane has {width} x {height} px; at most {MAX_PLANE_PX} are taken")


def _require_decodable(size: int) -> None:
    if size > MAX_DECODED_BYTES:
        raise ImageError(
            f"the file unpacks to {size} bytes, at most {MAX_DECODED_BYTES} are taken; "
            "send fewer planes at a time"
        )
