"""Simulated devices that do not do in a sweep what they should."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import DTypeLike

from devices.simulated.camera import SimulatedCamera
from devices.simulated.stages import SimulatedZStage


class DroppingCamera(SimulatedCamera):
    """Exposes every frame of a burst and delivers all but the third."""

    def start_sequence(
        self, n: int | None, get_buffer: Callable[[Sequence[int], DTypeLike], np.ndarray]
    ) -> Iterator[Mapping]:
        for i in range(n or 1):
            frame = self.expose(self.get_exposure(), self.get_binning(), self.get_roi())
            if n != 1 and i == 2:
                continue
            get_buffer(frame.shape, frame.dtype)[:] = frame
            yield {}


class HurriedStage(SimulatedZStage):
    """Wired to the wrong edge: it is a position ahead of the one it was given."""

    def send_sequence(self, sequence: tuple[float, ...]) -> None:
        super().send_sequence((*sequence[1:], sequence[-1]))


class RunawayStage(SimulatedZStage):
    """Goes on where its sequence ends."""

    def send_sequence(self, sequence: tuple[float, ...]) -> None:
        super().send_sequence((*sequence[:4], *(sequence[3] + 7.0 * i for i in range(1, 9))))


class UnstoppableStage(SimulatedZStage):
    """Takes no stop, as many adapters do not."""

    def stop(self) -> None:
        raise NotImplementedError("command not supported")
