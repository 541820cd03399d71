"""A folder per z-stack: ``stack.ome.tif``, ``stack.json`` that describes it, and its label.

``stack.json`` says ``done`` only once the image file is complete under its name, so a stack whose
process died is never taken for one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Literal

import numpy as np
import tifffile
from numpy.typing import NDArray
from pydantic import TypeAdapter

from autofocus import __version__
from autofocus.errors import RequestError, StackNotFound
from autofocus.folders import is_timed, read_whole, storing, timed_names, write_whole
from autofocus.runs import RunStatus
from devices import Frame

IMAGES = "stack.ome.tif"
RECORD = "stack.json"
LABEL = "label.json"
_SETTING = "stacks_dir"


@dataclass(frozen=True)
class StackLabel:
    """Where a stack is in focus.

    Attributes
    ----------
    z_um : float
        In-focus plane, um.
    by : {"person", "teacher"}
        Who said so.
    reason : str
        In one sentence.
    agreement : float or None
        Share of the teachers that agree, 0..1.
    """

    z_um: float
    by: Literal["person", "teacher"]
    reason: str
    agreement: float | None = None


@dataclass(frozen=True)
class StackRecord:
    """All that is known of one z-stack.

    Attributes
    ----------
    stack_id : str
        Sortable by start time; also the name of the folder.
    started_at : datetime
        UTC.
    rig : str
        Name of the rig.
    objective, channel : str or None
        In the light path, where the rig has such.
    dof_um : float
        Depth of field.
    pixel_size_um : float
        Of the frames, in the specimen.
    sampling : float or None
        See `autofocus.optics.Optics.sampling`.
    planes : int
        How many it has when it is complete.
    status : RunStatus
        Only a DONE stack has images.
    z_um : tuple of float
        As read back; ascending once DONE, as taken before.
    exposure_ms : float or None
        Of every plane.
    dose_ms : float
        Sum of all exposures.
    binning, bit_depth : int or None
        Of the camera.
    label : StackLabel or None
        Where it is in focus.
    error : str or None
        What ended a FAILED one.
    version : str
        Of this package.
    """

    stack_id: str
    started_at: datetime
    rig: str
    objective: str | None
    channel: str | None
    dof_um: float
    pixel_size_um: float
    sampling: float | None
    planes: int
    status: RunStatus = RunStatus.RUNNING
    z_um: tuple[float, ...] = ()
    exposure_ms: float | None = None
    dose_ms: float = 0.0
    binning: int | None = None
    bit_depth: int | None = None
    label: StackLabel | None = field(default=None)
    error: str | None = None
    version: str = __version__

    def with_frames(self, frames: Sequence[Frame]) -> StackRecord:
        """What these planes add to it."""
        if not frames:
            return self
        return replace(
            self,
            z_um=tuple(frame.z_um for frame in frames),
            exposure_ms=frames[0].exposure_ms,
            dose_ms=sum(frame.exposure_ms for frame in frames),
            binning=frames[0].binning,
            bit_depth=frames[0].bit_depth,
        )


_RECORD = TypeAdapter(StackRecord)
_LABEL = TypeAdapter(StackLabel)


class StackStore:
    """Every z-stack under one folder, newest first.

    Parameters
    ----------
    folder : Path
        Created when the first stack is taken.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(self, record: StackRecord) -> None:
        """Make the folder of a stack that is about to be taken.

        Raises
        ------
        StorageError
            When it cannot be written.
        """
        folder = self.folder / record.stack_id
        with storing(folder, setting=_SETTING):
            folder.mkdir(parents=True)
            self._write(record)

    def finish(self, record: StackRecord, frames: Sequence[Frame]) -> StackRecord:
        """Write the images, and only then that the stack is complete.

        Parameters
        ----------
        frames : sequence of Frame
            In ascending z.
        """
        done = replace(record.with_frames(frames), status=RunStatus.DONE)
        folder = self.folder / record.stack_id
        with storing(folder, setting=_SETTING):
            _write_images(folder / IMAGES, done, frames)
            self._write(done)
        return done

    def fail(self, record: StackRecord, error: str) -> None:
        """Write what ended a stack that has no images."""
        with storing(self.folder / record.stack_id, setting=_SETTING):
            (self.folder / record.stack_id / f"{IMAGES}.part").unlink(missing_ok=True)
            self._write(replace(record, status=RunStatus.FAILED, error=error))

    def put_label(self, stack_id: str, label: StackLabel) -> StackRecord:
        """Label a complete stack; takes the place of its label.

        Raises
        ------
        StackNotFound
            When there is no complete stack of this id.
        RequestError
            When the plane is not within the stack.
        """
        record = self.complete(stack_id)
        if not record.z_um[0] <= label.z_um <= record.z_um[-1]:
            raise RequestError(
                f"z_um = {label.z_um:g} um is not within stack {stack_id}, "
                f"{record.z_um[0]:g} to {record.z_um[-1]:g} um"
            )
        folder = self.folder / stack_id
        with storing(folder, setting=_SETTING):
            write_whole(folder / LABEL, _LABEL.dump_json(label, indent=2))
        return replace(record, label=label)

    def ids(self) -> tuple[str, ...]:
        """Names of all stacks, newest first."""
        return timed_names(self.folder, RECORD)

    def read(self, stack_id: str) -> StackRecord:
        """Return one stack that is not being taken now.

        Raises
        ------
        StackNotFound
            When no folder of that name exists.
        StorageError
            When its record or label is not what was written.
        """
        folder = self.folder / stack_id
        if not is_timed(stack_id) or not (folder / RECORD).is_file():
            raise StackNotFound(f"no z-stack {stack_id!r}; GET /stacks lists them")
        record = read_whole(folder / RECORD, _RECORD)
        if record.status is RunStatus.RUNNING:
            return replace(record, status=RunStatus.INTERRUPTED)
        if (folder / LABEL).is_file():
            return replace(record, label=read_whole(folder / LABEL, _LABEL))
        return record

    def complete(self, stack_id: str) -> StackRecord:
        """Return one stack that has its images.

        Raises
        ------
        StackNotFound
            When there is none of this id.
        """
        record = self.read(stack_id)
        if record.status is not RunStatus.DONE:
            raise StackNotFound(f"z-stack {stack_id} is {record.status.value}: it has no planes")
        return record

    def images(self, stack_id: str) -> Path:
        """The OME-TIFF of one stack."""
        return self.folder / stack_id / IMAGES

    def plane(self, stack_id: str, index: int) -> NDArray[np.generic]:
        """Raw counts of one plane, shape (height, width).

        Raises
        ------
        StackNotFound
            When there is no such plane.
        """
        record = self.complete(stack_id)
        if not 0 <= index < record.planes:
            raise StackNotFound(f"z-stack {stack_id} has planes 0 to {record.planes - 1}")
        plane: NDArray[np.generic] = tifffile.imread(self.images(stack_id), key=index)
        return plane

    def _write(self, record: StackRecord) -> None:
        content = _RECORD.dump_json(record, indent=2, exclude={"label"})
        write_whole(self.folder / record.stack_id / RECORD, content)


def _write_images(path: Path, record: StackRecord, frames: Sequence[Frame]) -> None:
    count = len(frames)
    metadata = {
        "axes": "ZYX",
        "Name": f"{record.stack_id} {record.objective or ''}".strip(),
        "PhysicalSizeX": record.pixel_size_um,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": record.pixel_size_um,
        "PhysicalSizeYUnit": "µm",
        "PhysicalSizeZ": (record.z_um[-1] - record.z_um[0]) / (count - 1),
        "PhysicalSizeZUnit": "µm",
        "Channel": {"Name": record.channel or "default"},
        "Plane": {
            "PositionZ": list(record.z_um),
            "PositionZUnit": ["µm"] * count,
            "ExposureTime": [frame.exposure_ms for frame in frames],
            "ExposureTimeUnit": ["ms"] * count,
        },
    }
    partial = path.with_name(f"{path.name}.part")
    planes = (frame.image for frame in frames)
    first = frames[0].image
    with partial.open("wb") as file:
        tifffile.imwrite(
            file,
            planes,
            shape=(count, *first.shape),
            dtype=first.dtype,
            ome=True,
            photometric="minisblack",
            metadata=metadata,
        )
    partial.replace(path)
