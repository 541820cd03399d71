"""A simulated camera that hands out each frame one exposure late, as a full buffer makes one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from devices.simulated.camera import SimulatedCamera


class LateCamera(SimulatedCamera):
    def __init__(self) -> None:
        super().__init__()
        self._kept: NDArray[np.generic] | None = None

    def expose(
        self, exposure_ms: float, binning: int, roi: tuple[int, int, int, int]
    ) -> NDArray[np.generic]:
        frame = super().expose(exposure_ms, binning, roi)
        self._kept, late = frame, self._kept
        return frame if late is None else late
