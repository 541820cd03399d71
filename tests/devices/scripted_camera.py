"""A Python camera whose counts say whether the shutter was open during the exposure."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from pymmcore_plus.experimental.unicore import CameraDevice, ShutterDevice


class Lamp(ShutterDevice):
    is_open = False

    def get_open(self) -> bool:
        return Lamp.is_open

    def set_open(self, open: bool) -> None:
        Lamp.is_open = open


class LampCamera(CameraDevice):
    def __init__(self) -> None:
        super().__init__()
        self._exposure_ms = 10.0
        self.register_property("Shape", default_value="gray")

    def get_exposure(self) -> float:
        return self._exposure_ms

    def set_exposure(self, exposure: float) -> None:
        self._exposure_ms = exposure

    def shape(self) -> tuple[int, ...]:
        return (8, 6) if self.get_property_value("Shape") == "gray" else (8, 6, 3)

    def dtype(self) -> type:
        return np.uint16

    def start_sequence(
        self, n: int | None, get_buffer: Callable[[Sequence[int], type], np.ndarray]
    ) -> Iterator[Mapping]:
        for _ in range(n or 1):
            image = get_buffer(self.shape(), np.uint16)
            image[:] = 500 if Lamp.is_open else 0
            if image.ndim == 3:
                image[..., 1] = 200
            yield {}
