"""A burst of frames while the stage steps through positions by itself, a step a frame.

Camera and stage are wired: the camera's trigger sends the stage on. What the adapters promise is
checked as far as it can be read back: the number of frames, and where the stage is at the end.
Which frame saw which position cannot be read back, so whoever uses swept frames takes some of them
again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from devices.camera import Camera
from devices.drive import POLL_S, FocusDrive
from devices.errors import DeviceError, Halted, MoveFailed, MoveRefused
from devices.values import Frame, MicroscopeSettings


@dataclass(frozen=True)
class Sweep:
    """What came of a sweep.

    Attributes
    ----------
    frames : tuple of Frame
        One a position, in their order; empty when the sweep is not valid.
    exposed : int
        Exposures made, those of an invalid sweep included.
    exposure_ms : float
        Of each, as read back from the camera.
    fault : str or None
        Why it is not valid.
    """

    frames: tuple[Frame, ...]
    exposed: int
    exposure_ms: float
    fault: str | None


class Sweeper:
    """Sweeps one stage and one camera.

    Parameters
    ----------
    drive, camera
        What to sweep.
    settings : MicroscopeSettings
        Of the rig.
    """

    def __init__(self, drive: FocusDrive, camera: Camera, settings: MicroscopeSettings) -> None:
        self._drive = drive
        self._camera = camera
        self._settings = settings
        self._unfaithful: str | None = None

    def refusal(self, z_um: Sequence[float]) -> str | None:
        """Why these positions cannot be swept, though each may be visited; None when they can."""
        if self._unfaithful is not None:
            return self._unfaithful
        # The last position is loaded twice; see `FocusDrive.sequence`.
        longest, needed = self._drive.longest_sequence(), len(z_um) + 1
        if longest == 0:
            return "the stage takes no sequence of positions"
        if needed > longest:
            return f"the stage takes sequences of {longest} positions, {needed} are needed"
        try:
            self._drive.check_steps(z_um)
        except MoveRefused as refused:
            return str(refused)
        return None

    def sweep(
        self,
        z_um: Sequence[float],
        *,
        permitted_um: tuple[float, float],
        interrupted: Callable[[], bool],
    ) -> Sweep:
        """Take one frame a position; see `devices.microscope.Acquisition.sweep`."""
        self._drive.check_sequence(z_um, permitted_um)
        self._drive.move_to(z_um[0])
        burst = _Burst(self._drive, self._camera, self._settings, z_um, permitted_um)
        with self._drive.sequence(z_um):
            burst.expose(interrupted)
        fault = burst.fault or self._astray(z_um)
        frames = () if fault else burst.frames()
        return Sweep(frames, burst.exposed, burst.exposure_ms, fault)

    def _astray(self, z_um: Sequence[float]) -> str | None:
        """Why the stage cannot have gone through the sequence; raises when it is elsewhere.

        A stage that stayed where it may be is merely deaf to its triggers, and is not asked again.
        """
        try:
            self._drive.arrive(z_um[0], z_um[-1])
        except Halted as halted:
            return str(halted)
        except MoveFailed as error:
            tolerance_um = self._settings.arrival_tolerance_um
            low_um, high_um = min(z_um) - tolerance_um, max(z_um) + tolerance_um
            if not low_um <= self._drive.z_um() <= high_um:
                raise
            self._unfaithful = f"the stage does not follow its sequence: {error}"
            return self._unfaithful
        return None


class _Burst:
    """The frames of one sweep, fetched as they come, with an eye on the stage."""

    def __init__(
        self,
        drive: FocusDrive,
        camera: Camera,
        settings: MicroscopeSettings,
        z_um: Sequence[float],
        permitted_um: tuple[float, float],
    ) -> None:
        self._drive = drive
        self._camera = camera
        self._z_um = tuple(z_um)
        self.exposure_ms = camera.exposure_ms()
        self._patience_s = (self.exposure_ms + settings.timeout_ms) / 1000
        # A step may swing over its end; farther out the stage is on its own.
        step_um = max((abs(b - a) for a, b in pairwise(z_um)), default=0.0)
        tolerance_um = settings.arrival_tolerance_um
        self._low_um = max(permitted_um[0], min(z_um) - step_um) - tolerance_um
        self._high_um = min(permitted_um[1], max(z_um) + step_um) + tolerance_um
        self._taken: list[tuple[NDArray[np.generic], float]] = []
        self._unstopped = ""
        self.exposed = 0
        self.fault: str | None = None

    def expose(self, interrupted: Callable[[], bool]) -> None:
        """Take one frame a position, unless interrupted or something goes wrong."""
        wanted = len(self._z_um)
        if interrupted():
            self.fault = "stopped before the first frame"
            return
        with self._camera.burst(wanted):
            self._fetch(interrupted)
            begun = self._arrived() + 1
        if interrupted():
            # The frame that was being exposed may or may not have come.
            self.exposed = min(wanted, max(begun, self._arrived()))
            self.fault = f"stopped after {self.exposed} of {wanted} frames{self._unstopped}"
            return
        # Frames that did not come were exposed all the same.
        self.exposed = max(wanted, self._arrived())
        self.fault = self._camera.burst_fault()
        if self.fault is None and len(self._taken) != wanted:
            self.fault = f"the camera gave {self._arrived()} frames instead of {wanted}"

    def frames(self) -> tuple[Frame, ...]:
        """The frames of a complete burst, each with the position of the same number."""
        binning, bit_depth = self._camera.binning(), self._camera.bit_depth()
        return tuple(
            Frame(image, z_um, self.exposure_ms, binning, bit_depth, t_s)
            for z_um, (image, t_s) in zip(self._z_um, self._taken, strict=True)
        )

    def _fetch(self, interrupted: Callable[[], bool]) -> None:
        """Until the camera has ended or failed, sends nothing for too long, or sends too much."""
        last_s = time.monotonic()
        while not interrupted():
            running = self._camera.live()
            while self._camera.waiting_frames() and len(self._taken) <= len(self._z_um):
                last_s = time.monotonic()
                self._taken.append((self._camera.next_frame(), last_s))
            self._watch_stage()
            ended = not running or time.monotonic() - last_s > self._patience_s
            if ended or len(self._taken) > len(self._z_um) or self._camera.burst_fault():
                return
            time.sleep(POLL_S)
        self._stop_stage()

    def _watch_stage(self) -> None:
        z_um = self._drive.z_um()
        if not self._low_um <= z_um <= self._high_um:
            self._stop_stage()
            raise MoveFailed(
                f"the stage was to step from {self._z_um[0]:g} to {self._z_um[-1]:g} um and is at "
                f"{z_um:g} um{self._unstopped}"
            )

    def _stop_stage(self) -> None:
        """Before the camera, which may first finish its exposure."""
        try:
            self._drive.stop()
        except DeviceError as error:
            # It gets no further steps all the same.
            self._unstopped = f"; stopping the stage failed: {error}"

    def _arrived(self) -> int:
        return len(self._taken) + self._camera.waiting_frames()
