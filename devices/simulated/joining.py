"""How simulated devices join their common world and show its settings."""

from __future__ import annotations

from typing import Any

from devices.python_device import Joining, add_properties
from devices.simulated.world import World


class SimulatedDevice(Joining[World]):
    """Mixin of every simulated device."""

    world_class = World


def add_settings(device: Any, section: str, settings: type) -> None:
    """Show one section of the world's settings as properties of a device."""
    add_properties(
        device,
        settings,
        read=lambda device: getattr(device.world, section),
        write=lambda device, value: setattr(device.world, section, value),
    )
