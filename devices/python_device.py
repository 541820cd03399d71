"""What the simulated and the replayed devices have in common.

The only module besides `devices.micromanager` that imports pymmcore-plus' experimental part:
the base classes of Python devices.
"""

from __future__ import annotations

import dataclasses
import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray
from pymmcore_plus.experimental.unicore import (
    CameraDevice,
    ShutterDevice,
    StageDevice,
    StateDevice,
    XYStageDevice,
)

from devices.knob import knob
from devices.worlds import join_world, leave_world

__all__ = [
    "FrameCamera",
    "Joining",
    "ShutterDevice",
    "StageDevice",
    "StateDevice",
    "XYStageDevice",
    "add_properties",
]

BINNINGS = (1, 2, 4, 8)

W = TypeVar("W")


def add_properties(
    device: Any,
    settings: type,
    *,
    read: Callable[[Any], Any],
    write: Callable[[Any, Any], None],
    pre_init: bool = False,
) -> None:
    """Show every `knob` of a frozen dataclass as a property of a device.

    Parameters
    ----------
    settings : type
        The dataclass.
    read : callable
        Given the device, returns the settings in force.
    write : callable
        Given the device and new settings, puts them in force.
    pre_init : bool
        Whether the properties must be set before the device is initialized.
    """
    for field in dataclasses.fields(settings):
        kind = type(field.default)
        device.register_property(
            field.metadata["name"],
            default_value=field.default,
            getter=_getter(field.name, read),
            setter=_setter(field.name, kind, read, write),
            limits=field.metadata["limits"],
            allowed_values=field.metadata.get("choices"),
            is_pre_init=pre_init,
            property_type=kind,
        )


def _getter(name: str, read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda device: getattr(read(device), name)


def _setter(
    name: str, kind: type, read: Callable[[Any], Any], write: Callable[[Any, Any], None]
) -> Callable[[Any, Any], None]:
    def set_it(device: Any, value: Any) -> None:
        # The core hands on text from a .cfg, and floats where there are limits.
        value = kind(float(value)) if kind is int else kind(value)
        write(device, dataclasses.replace(read(device), **{name: value}))

    return set_it


@dataclasses.dataclass(frozen=True)
class WorldName:
    """The pre-init property ``World``: devices with equal names see the same world."""

    name: str = knob("World", "default")


class Joining(Generic[W]):
    """Mixin: a device that shares a world with the others that name the same one.

    A subclass says what kind of world in `world_class` and calls `add_world_name` when it is
    built.
    """

    world_class: Callable[[], W]
    _world: W | None = None
    _world_name = WorldName()

    @property
    def world(self) -> W:
        """The common world, joined when first needed."""
        if self._world is None:
            self._world = join_world(type(self).world_class, self._world_name.name)
        return self._world

    def add_world_name(self) -> None:
        """Add the property ``World``."""
        add_properties(
            self,
            WorldName,
            read=lambda device: device._world_name,
            write=lambda device, name: device._name_world(name),
            pre_init=True,
        )

    def initialize(self) -> None:
        """Join the world."""
        _ = self.world

    def shutdown(self) -> None:
        """Leave the world; it ends when the last device has left."""
        if self._world is not None:
            leave_world(type(self).world_class, self._world_name.name, self._world)
            self._world = None

    def _name_world(self, name: WorldName) -> None:
        if self._world is not None and name != self._world_name:
            raise RuntimeError(
                f"this device is already in the world {self._world_name.name!r}; set World "
                "before every other property and before the devices are initialized"
            )
        self._world_name = name


class _Binnings(tuple[int, ...]):
    """Allowed binnings that also recognise the text a ``.cfg`` brings."""

    def __contains__(self, value: object) -> bool:
        return str(value) in map(str, self)


class FrameCamera(CameraDevice):
    """A camera with exposure, binning and region of interest; a subclass supplies the frames."""

    def __init__(self) -> None:
        self._exposure_ms = 10.0
        self._binning = 1
        self._roi: tuple[int, int, int, int] | None = None
        super().__init__()
        self.set_property_allowed_values("Binning", _Binnings(BINNINGS))

    @abstractmethod
    def sensor_shape(self) -> tuple[int, int]:
        """Height and width at binning 1, pixels."""

    @abstractmethod
    def expose(
        self, exposure_ms: float, binning: int, roi: tuple[int, int, int, int]
    ) -> NDArray[np.generic]:
        """Take one frame; ``roi`` is (x, y, width, height) in pixels of the binned frame."""

    def get_exposure(self) -> float:
        """Return the exposure, ms."""
        return self._exposure_ms

    def set_exposure(self, exposure: float) -> None:
        """Set the exposure, ms."""
        exposure = float(exposure)
        if not (math.isfinite(exposure) and exposure > 0):
            raise ValueError(f"exposure = {exposure} ms must be a number above 0")
        self._exposure_ms = exposure

    def get_binning(self) -> int:
        """Return the binning."""
        return self._binning

    def set_binning(self, value: int) -> None:
        """Set the binning; the region of interest goes back to the whole frame."""
        self._binning = int(value)
        self._roi = None

    def shape(self) -> tuple[int, int]:
        """Height and width of the next frame, pixels."""
        _, _, width, height = self.get_roi()
        return height, width

    def get_roi(self) -> tuple[int, int, int, int]:
        """Return (x, y, width, height) in pixels of the binned frame."""
        height, width = (side // self._binning for side in self.sensor_shape())
        return self._roi or (0, 0, width, height)

    def set_roi(self, x: int, y: int, width: int, height: int) -> None:
        """Set the region of interest in pixels of the binned frame."""
        frame_height, frame_width = (side // self._binning for side in self.sensor_shape())
        inside = x >= 0 and y >= 0 and x + width <= frame_width and y + height <= frame_height
        if not (inside and width > 0 and height > 0):
            raise ValueError(
                f"ROI x={x} y={y} {width} x {height} px does not lie inside the frame of "
                f"{frame_width} x {frame_height} px"
            )
        self._roi = (x, y, width, height)

    def clear_roi(self) -> None:
        """Use the whole frame again."""
        self._roi = None

    def start_sequence(
        self, n: int | None, get_buffer: Callable[[Sequence[int], DTypeLike], np.ndarray]
    ) -> Iterator[Mapping]:
        """Take ``n`` frames, or frames without end."""
        taken = 0
        while n is None or taken < n:
            frame = self.expose(self._exposure_ms, self._binning, self.get_roi())
            buffer = get_buffer(frame.shape, frame.dtype)
            buffer[:] = frame
            yield {}
            taken += 1
