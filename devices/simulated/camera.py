"""The simulated camera; it carries the properties of specimen, light and chip."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike, NDArray

from devices.python_device import FrameCamera
from devices.simulated.joining import SimulatedDevice, add_settings
from devices.simulated.settings import Light, Mounting, Pace, Scene, Sensor


class SimulatedCamera(SimulatedDevice, FrameCamera):
    """Widefield camera over a seeded specimen."""

    def __init__(self) -> None:
        super().__init__()
        self.add_world_name()
        add_settings(self, "scene", Scene)
        add_settings(self, "light", Light)
        add_settings(self, "sensor", Sensor)
        add_settings(self, "mounting", Mounting)
        add_settings(self, "pace", Pace)
        self.register_property(
            "FluorescenceLeft",
            getter=lambda camera: camera.world.fluorescence_left,
            setter=lambda camera, value: setattr(camera.world, "fluorescence_left", value),
            limits=(0.0, 1.0),
            property_type=float,
        )

    def sensor_shape(self) -> tuple[int, int]:
        """Height and width at binning 1, pixels."""
        return self.world.sensor.height_px, self.world.sensor.width_px

    def dtype(self) -> DTypeLike:
        """uint8 up to 8 bits, uint16 above."""
        return np.uint8 if self.world.sensor.bit_depth <= 8 else np.uint16

    def expose(
        self, exposure_ms: float, binning: int, roi: tuple[int, int, int, int]
    ) -> NDArray[np.generic]:
        """Take one frame; ``roi`` is (x, y, width, height) in pixels of the binned frame."""
        return self.world.expose(exposure_ms, binning, roi)
