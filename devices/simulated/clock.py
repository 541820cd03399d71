"""Simulated time, at any pace."""

from __future__ import annotations

import time


class Clock:
    """Seconds since the world began.

    Parameters
    ----------
    scale : float
        Real seconds a simulated second takes; at 0 only `wait` advances the clock.
    """

    def __init__(self, scale: float = 0.0) -> None:
        self._scale = scale
        self._begun_s = 0.0
        self._since = time.monotonic()

    @property
    def scale(self) -> float:
        """Real seconds a simulated second takes."""
        return self._scale

    def now_s(self) -> float:
        """Read the clock, simulated seconds."""
        if self._scale == 0:
            return self._begun_s
        return self._begun_s + (time.monotonic() - self._since) / self._scale

    def wait(self, simulated_s: float) -> None:
        """Let simulated time pass."""
        if self._scale == 0:
            self._begun_s += simulated_s
        else:
            time.sleep(simulated_s * self._scale)

    def set_scale(self, scale: float) -> None:
        """Go on from here at another pace."""
        self._begun_s, self._since = self.now_s(), time.monotonic()
        self._scale = scale
