"""The camera: its settings as plain values, and frames."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from devices.errors import DeviceError, SettingRefused, SnapFailed
from devices.micromanager import Core
from devices.values import Roi

BINNING = "Binning"


class Camera:
    """Settings and frames of one camera.

    Parameters
    ----------
    core : Core
        The core that has the camera in its Camera role.
    label : str
        The camera.
    """

    def __init__(self, core: Core, label: str) -> None:
        self._core = core
        self._label = label
        self._burst_fault: str | None = None

    @property
    def label(self) -> str:
        """Which device it is."""
        return self._label

    def exposure_ms(self) -> float:
        """Read the exposure, ms."""
        return float(self._core.getExposure(self._label))

    def set_exposure_ms(self, exposure_ms: float) -> None:
        """Set the exposure; `SettingRefused` unless it is a number above 0 the camera takes."""
        if not (math.isfinite(exposure_ms) and exposure_ms > 0):
            raise SettingRefused(f"exposure_ms = {exposure_ms} must be a number above 0")
        self._core.setExposure(self._label, exposure_ms)
        # Cameras round to their line time, but some drop what they cannot do without a word.
        kept_ms = self.exposure_ms()
        if abs(kept_ms - exposure_ms) > max(1.0, 0.1 * exposure_ms):
            raise SettingRefused(
                f"camera {self._label!r} exposes {kept_ms:g} ms instead of {exposure_ms:g} ms"
            )

    def roi(self) -> Roi:
        """Read the region of interest, px of the binned frame."""
        return Roi(*(int(value) for value in self._core.getROI(self._label)))

    def set_roi(self, roi: Roi) -> None:
        """Set the region of interest within the whole frame.

        The whole frame is set first: some cameras take a new region relative to the old one.

        Raises
        ------
        SettingRefused
            If it does not lie inside the whole frame.
        """
        self._core.clearROI()
        whole = self.roi()
        if roi == whole:
            return
        inside_x = whole.x <= roi.x and roi.x + roi.width <= whole.x + whole.width
        inside_y = whole.y <= roi.y and roi.y + roi.height <= whole.y + whole.height
        if not (inside_x and inside_y and roi.width > 0 and roi.height > 0):
            raise SettingRefused(
                f"ROI {roi} does not lie inside the frame of {whole} at binning {self.binning()}"
            )
        self._core.setROI(self._label, roi.x, roi.y, roi.width, roi.height)

    def binning(self) -> int:
        """Read the binning; 1 for a camera without any."""
        if not self._core.hasProperty(self._label, BINNING):
            return 1
        return _binning_number(str(self._core.getProperty(self._label, BINNING)))

    def set_binning(self, binning: int) -> None:
        """Set the binning; `SettingRefused` unless it is one of the camera's own values."""
        if binning == self.binning():
            return
        allowed: tuple[str, ...] = ()
        if self._core.hasProperty(self._label, BINNING):
            values = self._core.getAllowedPropertyValues(self._label, BINNING)
            # A camera with limits instead of a list of values judges for itself.
            allowed = tuple(map(str, values)) or (str(binning),)
        for value in allowed:
            if _binning_number(value) == binning:
                self._core.setProperty(self._label, BINNING, value)
                return
        raise SettingRefused(
            f"binning {binning} is none of this camera's: {', '.join(allowed) or 'it has none'}"
        )

    def bit_depth(self) -> int:
        """Read how many bits a pixel has."""
        return int(self._core.getImageBitDepth())

    def live(self) -> bool:
        """Whether a sequence runs, which would block a snap."""
        return bool(self._core.isSequenceRunning(self._label))

    def stop_live(self) -> None:
        """Stop a running sequence."""
        self._core.stopSequenceAcquisition(self._label)

    def start_live(self) -> None:
        """Start an endless sequence, as a live view does."""
        self._core.startContinuousSequenceAcquisition(0)

    def snap(self) -> tuple[NDArray[np.generic], float]:
        """Expose one frame, lit as auto-shutter would.

        Returns
        -------
        image : ndarray of shape (height, width)
            Raw counts; the mean of R, G and B from a colour camera.
        t_s : float
            ``time.monotonic()`` at the end of the exposure.

        Raises
        ------
        SnapFailed
            If the camera fails, is running live, or gives something that is no image.
        """
        if self.live():
            raise SnapFailed(f"camera {self._label!r} is running live; stop it before a snap")
        with self._core.lit(self._label):
            self._core.snapImage()
        t_s = time.monotonic()
        return self._gray(np.asarray(self._core.getImage())), t_s

    @contextmanager
    def burst(self, frames: int) -> Iterator[None]:
        """Take a number of frames as fast as the camera can, lit throughout; stopped at the end.

        `next_frame` hands them out, also after the end.

        Raises
        ------
        SnapFailed
            If the camera is running live.
        """
        if self.live():
            raise SnapFailed(f"camera {self._label!r} is running live; stop it before a burst")
        self._burst_fault = None
        with self._core.lit(self._label):
            try:
                self._core.startSequenceAcquisition(frames, 0.0, True)
                yield
            finally:
                self._end_burst()

    def _end_burst(self) -> None:
        try:
            self.stop_live()
        except DeviceError as error:
            # Adapters tell here what went wrong on the way. The burst is over, unless it runs on.
            if self.live():
                raise
            self._burst_fault = str(error)

    def waiting_frames(self) -> int:
        """How many frames of a burst wait to be handed out."""
        return int(self._core.getRemainingImageCount())

    def burst_fault(self) -> str | None:
        """What the camera says went wrong in the last burst; None when nothing did."""
        if self._core.isBufferOverflowed():
            return "the camera's buffer overflowed"
        return self._burst_fault

    def next_frame(self) -> NDArray[np.generic]:
        """The oldest frame that waits, as `snap` gives it."""
        return self._gray(np.asarray(self._core.popNextImage()))

    def _gray(self, image: NDArray[np.generic]) -> NDArray[np.generic]:
        if image.size == 0 or image.ndim not in (2, 3):
            raise SnapFailed(f"camera {self._label!r} gave an array of shape {image.shape}")
        if image.ndim == 2:
            return image
        mean = image[..., :3].mean(axis=2)
        return mean.round().astype(image.dtype) if image.dtype.kind in "ui" else mean


def _binning_number(value: str) -> int:
    """Read "2", "2x2" or "2 x 2"."""
    found = re.match(r"\s*(\d+)", value)
    if not found:
        raise SettingRefused(f"cannot read the camera's binning {value!r}")
    return int(found[1])
