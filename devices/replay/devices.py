"""The camera and the stepper stage of a recorded z-stack."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.request import url2pathname

import numpy as np
from numpy.typing import DTypeLike, NDArray

from devices.errors import DeviceConfigError
from devices.knob import knob
from devices.python_device import FrameCamera, Joining, StageDevice, add_properties
from devices.replay.recording import Recording
from devices.replay.stack import load_stack, plane_positions


@dataclass(frozen=True)
class Source:
    """Which stack, and where its planes are; pre-init properties of the stage.

    ``Stack`` is a path or a ``file:`` URI (a ``.cfg`` cannot hold a comma otherwise).
    ``ZPositions`` lists um, separated by spaces, semicolons or commas, or names a text file that
    does. ``ZStep_um`` = 0 and no positions: as recorded.
    """

    stack: str = knob("Stack", "")
    z_step_um: float = knob("ZStep_um", 0.0, low=-1e6, high=1e6)
    z_positions: str = knob("ZPositions", "")


class ReplayDevice(Joining[Recording]):
    """Mixin of both devices."""

    world_class = Recording


class ReplayCamera(ReplayDevice, FrameCamera):
    """Delivers the plane the stage is on; exposure changes nothing, binning takes means."""

    def __init__(self) -> None:
        super().__init__()
        self.add_world_name()

    def sensor_shape(self) -> tuple[int, int]:
        """Height and width of the planes, pixels."""
        _, height, width = self.world.planes.shape
        return height, width

    def dtype(self) -> DTypeLike:
        """Type of the planes."""
        return self.world.planes.dtype

    def expose(
        self, exposure_ms: float, binning: int, roi: tuple[int, int, int, int]
    ) -> NDArray[np.generic]:
        """Return the plane the stage is on; ``roi`` (x, y, width, height) in binned pixels."""
        x, y, width, height = roi
        return _mean_binned(self.world.frame, binning)[y : y + height, x : x + width]


class ReplayStage(ReplayDevice, StageDevice):
    """Goes to the plane nearest to what it is asked for and reports that plane's z."""

    def __init__(self) -> None:
        super().__init__()
        self.source = Source()
        self.add_world_name()
        add_properties(
            self,
            Source,
            read=lambda stage: stage.source,
            write=lambda stage, source: setattr(stage, "source", source),
            pre_init=True,
        )
        self.register_property(
            "Planes",
            getter=lambda stage: len(stage.world.planes),
            is_read_only=True,
            property_type=int,
        )

    def initialize(self) -> None:
        """Join the world and read the stack into it."""
        super().initialize()
        stack = load_stack(_path(self.source.stack))
        positions = plane_positions(
            stack,
            z_step_um=self.source.z_step_um or None,
            z_positions_um=_numbers(self.source.z_positions),
        )
        self.world.load(stack.planes, positions)

    def set_position_um(self, val: float) -> None:
        """Go to the nearest plane; ValueError outside the stack."""
        self.world.go_to(float(val))

    def get_position_um(self) -> float:
        """Position of the plane it is on."""
        return self.world.z_um

    def stop(self) -> None:
        """Do nothing: it is never on its way."""

    def home(self) -> None:
        """Refuse: a recording has no home."""
        raise NotImplementedError("a recorded stack has no home position")

    def set_origin(self) -> None:
        """Refuse: the recorded positions stay as they are."""
        raise NotImplementedError("the positions of a recorded stack cannot be renamed")


def _path(text: str) -> Path:
    if not text:
        raise DeviceConfigError("the replay stage has no stack; set its pre-init property Stack")
    return Path(url2pathname(text[5:])) if text.startswith("file:") else Path(text)


def _numbers(text: str) -> tuple[float, ...] | None:
    if not text.strip():
        return None
    words = re.split(r"[\s;,]+", text.strip())
    try:
        return tuple(map(float, words))
    except ValueError:
        return _numbers_in_file(_path(text.strip()))


def _numbers_in_file(file: Path) -> tuple[float, ...]:
    try:
        words = re.split(r"[\s;,]+", file.read_text(encoding="utf-8").strip())
        return tuple(map(float, words))
    except (OSError, ValueError) as error:
        raise DeviceConfigError(
            f"ZPositions {str(file)!r} is neither a list of um nor a file with one: {error}"
        ) from error


def _mean_binned(frame: NDArray[np.generic], binning: int) -> NDArray[np.generic]:
    if binning == 1:
        return frame
    height, width = (side // binning for side in frame.shape)
    cut = frame[: height * binning, : width * binning]
    mean = cut.reshape(height, binning, width, binning).mean(axis=(1, 3), dtype=np.float64)
    return (
        mean.round().astype(frame.dtype) if frame.dtype.kind in "ui" else mean.astype(frame.dtype)
    )
