"""Where the focus drive says it is, and where its carriage really is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from devices.simulated.settings import Mechanics

_SWING = 0.3  # share of a move by which the carriage lags when the drive has arrived
_SETTLED = math.log(100.0)  # after the settle time 1 % of the swing is left
_SWINGS = 2.0  # oscillations within the settle time


@dataclass(frozen=True)
class _Move:
    """One move: what the screw does (read back) and what the carriage does (true), um and s."""

    read_from: float
    read_to: float
    true_from: float
    true_to: float
    begun_s: float
    travel_s: float
    settle_s: float

    def share(self, now_s: float) -> float:
        if self.travel_s <= 0:
            return 1.0
        return min(max((now_s - self.begun_s) / self.travel_s, 0.0), 1.0)

    def read_um(self, now_s: float) -> float:
        return self.read_from + self.share(now_s) * (self.read_to - self.read_from)

    def true_um(self, now_s: float) -> float:
        step_um = self.true_to - self.true_from
        if self.settle_s <= 0:
            return self.true_from + self.share(now_s) * step_um
        if self.share(now_s) < 1:
            return self.true_from + self.share(now_s) * (1 - _SWING) * step_um
        after = (now_s - self.begun_s - self.travel_s) / self.settle_s
        swing = math.exp(-_SETTLED * after) * math.cos(2 * math.pi * _SWINGS * after)
        return self.true_to - _SWING * step_um * swing


class Carriage:
    """A carriage on a screw with play.

    Moving up, the screw pushes the carriage along; after a reversal it first turns through the
    play ``backlash_um`` before it pulls the carriage down. Read back is the screw.

    Parameters
    ----------
    rng : numpy.random.Generator
        Draws where the screw really stops.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._rest_um = 0.0
        self._move = _Move(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)

    def go_to(self, z_um: float, now_s: float, mechanics: Mechanics) -> float:
        """Start a move and return how long the screw travels, s."""
        read_um, true_um = self._move.read_um(now_s), self._move.true_um(now_s)
        speed = mechanics.speed_um_s
        travel_s = abs(z_um - read_um) / speed if speed > 0 else 0.0
        if not mechanics.stuck:
            stop_um = z_um + mechanics.repeatability_um * self._rng.standard_normal()
            self._rest_um = min(max(self._rest_um, stop_um), stop_um + mechanics.backlash_um)
        settle_s = mechanics.settle_ms / 1000
        self._move = _Move(read_um, z_um, true_um, self._rest_um, now_s, travel_s, settle_s)
        return travel_s

    def stop(self, now_s: float) -> None:
        """Stay where the screw is now."""
        read_um, true_um = self._move.read_um(now_s), self._move.true_um(now_s)
        if self.busy(now_s):
            self._rest_um = true_um
            self._move = _Move(read_um, read_um, true_um, true_um, now_s, 0.0, 0.0)

    def busy(self, now_s: float) -> bool:
        """Whether the screw still turns."""
        return self._move.share(now_s) < 1

    def read_um(self, now_s: float) -> float:
        """Position read back from the screw, um."""
        return self._move.read_um(now_s)

    def true_um(self, now_s: float) -> float:
        """Position of the carriage, um."""
        return self._move.true_um(now_s)
