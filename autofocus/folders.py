"""Folders named by the time they were begun, and files that are there whole or not at all."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from autofocus.errors import StorageError

T = TypeVar("T")

_NAME = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9]{6}")


def is_timed(name: str) -> bool:
    """Whether a name is one that `autofocus.runs.new_run_id` gives; no path can hide in one."""
    return _NAME.fullmatch(name) is not None


def timed_names(folder: Path, file: str) -> tuple[str, ...]:
    """Names of the timed folders below ``folder`` that hold ``file``, newest first."""
    if not folder.is_dir():
        return ()
    names = (found.parent.name for found in folder.glob(f"*/{file}"))
    return tuple(sorted(filter(is_timed, names), reverse=True))


def write_whole(path: Path, content: bytes) -> None:
    """Write a file in one step: whoever reads it meanwhile finds the old one."""
    draft = path.with_name(f"{path.name}.part")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())  # or a power cut may leave the new name on an empty file
    draft.replace(path)


def read_whole(path: Path, kind: TypeAdapter[T]) -> T:
    """Read what `write_whole` wrote.

    Raises
    ------
    StorageError
        When it is something else.
    """
    try:
        return kind.validate_json(path.read_bytes())
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]["msg"]
        raise StorageError(
            f"cannot read {path}: {first}; move its folder away, or delete it"
        ) from error


@contextmanager
def storing(folder: Path, *, setting: str) -> Iterator[None]:
    """Turn an error of the disk into a `StorageError` that names the key of the rig file."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"cannot write {folder}: {error}; free the disk, or set {setting} in the rig file"
        ) from error
