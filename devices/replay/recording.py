"""What the replayed camera and stage share: the planes, and which one is in front of the lens."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from devices.errors import DeviceConfigError
from devices.replay.stack import Planes


class Recording:
    """A z-stack and the plane the stage is on; empty until `load`."""

    def __init__(self) -> None:
        self._planes: Planes | None = None
        self._z_um: NDArray[np.float64] = np.empty(0)
        self._index = 0

    def load(self, planes: Planes, z_um: tuple[float, ...]) -> None:
        """Show this stack, beginning at the plane stored first."""
        self._planes, self._z_um, self._index = planes, np.asarray(z_um), 0

    @property
    def planes(self) -> Planes:
        """All planes, shape (n, height, width)."""
        if self._planes is None:
            raise DeviceConfigError(
                "no z-stack is loaded: a ReplayStage with the same World and its property Stack "
                "must be initialized first"
            )
        return self._planes

    @property
    def frame(self) -> NDArray[np.generic]:
        """The plane the stage is on."""
        return self.planes[self._index]

    @property
    def z_um(self) -> float:
        """Position of the plane the stage is on, um."""
        _ = self.planes
        return float(self._z_um[self._index])

    def go_to(self, z_um: float) -> None:
        """Go to the plane nearest to ``z_um``.

        Raises
        ------
        ValueError
            Beyond the first or last plane by more than half the largest step, or not a number.
        """
        _ = self.planes
        positions = np.sort(self._z_um)
        slack_um = float(np.diff(positions).max(initial=0)) / 2
        if not positions[0] - slack_um <= z_um <= positions[-1] + slack_um:
            raise ValueError(
                f"z = {z_um} um is outside the recorded stack, "
                f"{positions[0]:g}..{positions[-1]:g} um"
            )
        self._index = int(np.abs(self._z_um - z_um).argmin())
