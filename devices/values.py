"""What the microscope takes and gives: settings, frames, states."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from devices.errors import DeviceConfigError


@dataclass(frozen=True)
class MicroscopeSettings:
    """One rig: which devices, and how far and how fast its focus drive may go.

    Attributes
    ----------
    config : Path or None
        Micro-Manager ``.cfg``; None when a core is handed in.
    z_min_um, z_max_um : float
        Soft limits, bounds included. They are ours: MMCore and most adapters have none.
    focus_device, camera : str or None
        Device labels; None takes the core's Focus and Camera roles.
    towards_specimen : {"+", "-"} or None
        Sign of the z motion that brings objective and specimen together.
    max_step_um : float or None
        Longest single command to the stage; longer moves go in hops, each verified and
        interruptible.
    max_towards_um : float or None
        How far beyond its start a run may go towards the specimen; kept here for the run.
    backlash_um : float
        Play of the drive. Every final approach ends with at least this much travel towards the
        specimen ("+" when ``towards_specimen`` is unknown), so the play is always on one side.
    settle_ms : float
        Rest after arrival, before a frame is taken.
    arrival_tolerance_um : float
        Largest accepted |read-back - asked|.
    timeout_ms : float
        Longest wait for one hop.
    adapter_paths : tuple of Path
        Folders with Micro-Manager device adapters; empty finds the installed ones.
    xy_tolerance_um : float
        XY read-back may differ by this much during a run before the specimen counts as moved.

    Raises
    ------
    DeviceConfigError
        If a value makes no sense.
    """

    config: Path | None
    z_min_um: float
    z_max_um: float
    focus_device: str | None = None
    camera: str | None = None
    towards_specimen: Literal["+", "-"] | None = None
    max_step_um: float | None = None
    max_towards_um: float | None = None
    backlash_um: float = 0.0
    settle_ms: float = 0.0
    arrival_tolerance_um: float = 0.5
    timeout_ms: float = 10_000
    adapter_paths: tuple[Path, ...] = ()
    xy_tolerance_um: float = 2.0

    def __post_init__(self) -> None:
        if not (_finite(self.z_min_um, self.z_max_um) and self.z_min_um < self.z_max_um):
            raise DeviceConfigError(
                f"z_min_um = {self.z_min_um} and z_max_um = {self.z_max_um} are no limits: "
                "both must be finite and z_min_um the smaller"
            )
        if self.towards_specimen not in ("+", "-", None):
            raise DeviceConfigError(
                f'towards_specimen = {self.towards_specimen!r} must be "+", "-" or absent'
            )
        for name in ("max_step_um", "arrival_tolerance_um", "timeout_ms"):
            value = getattr(self, name)
            if value is not None and not (_finite(value) and value > 0):
                raise DeviceConfigError(f"{name} = {value} must be a number above 0")
        for name in ("max_towards_um", "backlash_um", "settle_ms", "xy_tolerance_um"):
            value = getattr(self, name)
            if value is not None and not (_finite(value) and value >= 0):
                raise DeviceConfigError(f"{name} = {value} must be a number, 0 or more")

    def into_limits(self, z_um: float) -> float:
        """Return the nearest position inside the soft limits, um."""
        return min(max(z_um, self.z_min_um), self.z_max_um)

    def permitted_um(self, here_um: float) -> tuple[float, float]:
        """Lowest and highest z that a run or z-stack from here may visit, um."""
        low, high = self.z_min_um, self.z_max_um
        if self.max_towards_um is not None and self.towards_specimen == "+":
            high = min(high, here_um + self.max_towards_um)
        if self.max_towards_um is not None and self.towards_specimen == "-":
            low = max(low, here_um - self.max_towards_um)
        return low, high


@dataclass(frozen=True)
class Roi:
    """A rectangle of the camera frame, px of the binned frame; ``x, y`` is its upper left."""

    x: int
    y: int
    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height} px at ({self.x}, {self.y})"


@dataclass(frozen=True)
class AcquisitionSettings:
    """What to change for a run; None leaves a setting as it is.

    Attributes
    ----------
    exposure_ms : float or None
        Exposure of every frame.
    roi : Roi or None
        In pixels of the frame after ``binning`` is applied.
    binning : int or None
        One of the camera's own values.
    channel : str or None
        A preset of the core's channel group.
    """

    exposure_ms: float | None = None
    roi: Roi | None = None
    binning: int | None = None
    channel: str | None = None


@dataclass(frozen=True)
class Frame:
    """One exposure.

    Attributes
    ----------
    image : ndarray of shape (height, width)
        Raw camera counts in the camera's own dtype; a colour frame becomes the mean of R, G, B.
    z_um : float
        Stage position read back after the exposure; of a swept frame, where its sequence put the
        stage.
    exposure_ms : float
        As read back from the camera.
    binning, bit_depth : int
        Of the camera when the frame was taken.
    t_s : float
        ``time.monotonic()`` at the end of the exposure.
    """

    image: NDArray[np.generic]
    z_um: float
    exposure_ms: float
    binning: int
    bit_depth: int
    t_s: float


class DeviceInfo(NamedTuple):
    """A loaded device; ``initialization`` is ``InitializedSuccessfully`` when all is well."""

    label: str
    library: str
    name: str
    initialization: str


@dataclass(frozen=True)
class MicroscopeState:
    """What was last known of the microscope, from memory: reading it touches no hardware.

    Attributes
    ----------
    busy : bool
        An operation is going on; the other values are from before or from its last step.
    halted : bool
        Somebody pressed stop, and moves are forbidden until ``resume()``.
    objective : str or None
        Label of the objective turret's position; None when there is no turret.
    pixel_size_um : float
        As the core computes it for this objective and binning; 0 when it does not know.
    xy_um : tuple of float or None
        Position of the XY stage; None without one.
    updated_s : float
        ``time.monotonic()`` of the last reading.
    """

    z_um: float
    z_min_um: float
    z_max_um: float
    focus_device: str
    camera: str
    exposure_ms: float
    roi: Roi
    binning: int
    channel: str | None
    objective: str | None
    pixel_size_um: float
    xy_um: tuple[float, float] | None
    busy: bool
    halted: bool
    devices: tuple[DeviceInfo, ...]
    updated_s: float


def _finite(*values: Any) -> bool:
    return all(isinstance(value, (int, float)) and math.isfinite(value) for value in values)
