"""Whether the specimen is still where it was: objective, XY stage and turrets."""

from __future__ import annotations

import math
from dataclasses import dataclass

from devices.errors import DeviceError, SpecimenMoved
from devices.micromanager import Core
from devices.snapshot import channel_devices


@dataclass(frozen=True)
class View:
    """What decides which part of the specimen is seen, and how large.

    Attributes
    ----------
    positions : dict
        Label of the current position of every state device (turrets, wheels, light paths).
    xy_um : tuple of float or None
        None without an XY stage.
    magnification : float
        Product of the magnifiers.
    """

    positions: dict[str, str]
    xy_um: tuple[float, float] | None
    magnification: float


def look(core: Core) -> View:
    """Read the view; devices that a channel or a shutter switches are left out."""
    switched = _switched(core)
    turrets = set(core.labels_of("StateDevice")) - switched
    magnifiers = set(core.labels_of("MagnifierDevice"))
    return View(
        positions={turret: _position(core, turret) for turret in sorted(turrets)},
        xy_um=stage_xy_um(core),
        magnification=1.0 if magnifiers & switched else float(core.getMagnificationFactor()),
    )


def check_unchanged(before: View, now: View, *, xy_tolerance_um: float) -> None:
    """Raise `SpecimenMoved`, naming every difference."""
    changes = [
        f"{device} went from {label!r} to {now.positions.get(device)!r}"
        for device, label in before.positions.items()
        if now.positions.get(device) != label
    ]
    if before.magnification != now.magnification:
        changes.append(f"magnification went from {before.magnification} to {now.magnification}")
    if before.xy_um and now.xy_um and math.dist(before.xy_um, now.xy_um) > xy_tolerance_um:
        changes.append(f"the XY stage went from {before.xy_um} um to {now.xy_um} um")
    if changes:
        raise SpecimenMoved("during the run " + "; ".join(changes))


def objective_label(core: Core) -> str | None:
    """Label of the objective turret's position; None without a turret."""
    turrets = core.guessObjectiveDevices()
    return _position(core, turrets[0]) if turrets else None


def _position(core: Core, turret: str) -> str:
    """Label of a turret's position, or its number: not every position has a label."""
    try:
        return str(core.getStateLabel(turret))
    except DeviceError:
        return str(core.getState(turret))


def stage_xy_um(core: Core) -> tuple[float, float] | None:
    """Position of the XY stage, um; None without one."""
    if not core.getXYStageDevice():
        return None
    x_um, y_um = core.getXYPosition()
    return float(x_um), float(y_um)


def _switched(core: Core) -> set[str]:
    """State devices that change in the normal course of a run."""
    behind_shutters = {
        str(core.getProperty(shutter, "State Device"))
        for shutter in core.labels_of("ShutterDevice")
        if core.hasProperty(shutter, "State Device")
    }
    return channel_devices(core) | behind_shutters
