"""How simulated devices join their common world."""

from __future__ import annotations

from typing import Any

from devices.python_device import WorldName, add_properties
from devices.simulated.world import World
from devices.worlds import join_world


class Joining:
    """Mixin: a device that joins the world named by its pre-init property ``World``."""

    _world: World | None = None
    _world_name = WorldName()

    @property
    def world(self) -> World:
        """The common world, joined when first needed."""
        if self._world is None:
            self._world = join_world(World, self._world_name.name)
        return self._world

    def add_world_name(self) -> None:
        """Add the property ``World``."""
        add_properties(
            self,
            WorldName,
            read=lambda device: device._world_name,
            write=lambda device, name: device.name_world(name),
            pre_init=True,
        )

    def name_world(self, name: WorldName) -> None:
        """Choose the world; RuntimeError once the device is in one."""
        if self._world is not None and name != self._world_name:
            raise RuntimeError(
                f"this device is already in the world {self._world_name.name!r}; set World "
                "before every other property and before the devices are initialized"
            )
        self._world_name = name

    def initialize(self) -> None:
        """Join the world."""
        _ = self.world

    def shutdown(self) -> None:
        """Leave the world; it ends when the last device has left."""
        self._world = None


def add_settings(device: Any, section: str, settings: type) -> None:
    """Show one section of the world's settings as properties of a device."""
    add_properties(
        device,
        settings,
        read=lambda device: getattr(device.world, section),
        write=lambda device, value: setattr(device.world, section, value),
    )
