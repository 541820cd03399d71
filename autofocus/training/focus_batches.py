"""Crops of known defocus as a camera records them, made anew from (seed, step).

Lamp, camera and what a program does to a frame before it is scored are drawn for every specimen
from far wider ranges than any one microscope has: what varies here cannot be mistaken for focus.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from autofocus.training.batches import LAMP_GAIN, PERCENTILES, log_uniform, nearest_ranks
from autofocus.training.known_defocus import SIDE_PX, KnownDefocus
from autofocus.training.labelled import EMPTY_DEFOCUS_DOF
from models.normalise import Normalisation

Floats = NDArray[np.float32]

_CANDIDATES = 3  # windows of which the one with most contrast is usually taken
COUNTING = 0.1  # share of fluorescent specimens that a confocal sees
# Of bright pixels, on which it dwells for microseconds. With fewer, frames in focus show nothing,
# and would teach that nothing may be focus.
_COUNTED_PHOTONS = 2.0, 40.0
_SMALLEST_FRAME_PX = 48  # cameras are often read out in part; such frames are continued by mirrors


@dataclass(frozen=True)
class FocusBatch:
    """What one training step needs.

    Attributes
    ----------
    crops : ndarray of shape (n, 1, side, side), float32
        0 is dark, 1 the upper percentile, highlights compressed, as at inference; frames of one
        specimen follow one another.
    defocus_dof : ndarray of shape (n,), float32
        |z - z_in_focus| in depths of field.
    sampling : ndarray of shape (n,), float32
        Camera pixel as a multiple of wavelength / NA; NaN where it is not told.
    """

    crops: Floats
    defocus_dof: Floats
    sampling: Floats


@dataclass(frozen=True)
class FocusBatches:
    """Batches of several specimens, each at several distances from focus.

    Attributes
    ----------
    pool : KnownDefocus
    specimens, distances : int
        A batch.
    crop_px : int
        Side of the crops, at most that of the pool.
    unknown : float
        Share of the specimens whose sampling is not told.
    empty : float
        Share of the specimens of which only the mean light is left: noise, lamp and hot pixels
        alone are no focus. They are `autofocus.training.labelled.EMPTY_DEFOCUS_DOF` away from it.
    counting : float
        Share of the fluorescent specimens seen by the detector of a confocal, a few photons a
        pixel.
    """

    pool: KnownDefocus
    specimens: int
    distances: int
    crop_px: int
    unknown: float
    empty: float = 0.0
    counting: float = COUNTING

    def make(self, seed: int, step: int) -> FocusBatch:
        """Return the batch of this step, always the same one."""
        rng = np.random.default_rng([seed, 0xF0C, step])
        chosen = rng.choice(len(self.pool), self.specimens, replace=self.specimens > len(self.pool))
        planes = [
            rng.permutation(self.pool.light.shape[1])[: self.distances]
            for _ in range(self.specimens)
        ]
        empty = rng.random(self.specimens) < self.empty
        crops = [
            self._frames(int(specimen), each, rng, empty=bool(blank))
            for specimen, each, blank in zip(chosen, planes, empty, strict=True)
        ]
        defocus = self.pool.defocus_dof[chosen[:, None], np.array(planes)]
        defocus[empty] = EMPTY_DEFOCUS_DOF
        told = rng.random(self.specimens) >= self.unknown
        sampling = np.where(told, self.pool.sampling[chosen], np.nan)
        return FocusBatch(
            np.concatenate(crops)[:, None],
            defocus.ravel().astype(np.float32),
            np.repeat(sampling, self.distances).astype(np.float32),
        )

    def recorded(
        self,
        specimen: int,
        planes: NDArray[np.intp],
        rng: np.random.Generator,
        *,
        empty: bool = False,
    ) -> list[Floats]:
        """Record planes of one specimen with one camera drawn at random.

        Parameters
        ----------
        specimen : int
            Its number in the pool.
        planes : ndarray of int
            Which of its distances.
        rng : numpy.random.Generator
        empty : bool
            The same light without its structure: a field with nothing in it.

        Returns
        -------
        list of ndarray of shape (side, side), float32
            Counts of one window, of ``crop_px`` or, now and then, less.
        """
        light = self._light(specimen, planes, rng, empty=empty)
        microscope = self._microscope(specimen, light.shape[1:], rng)
        return [microscope.record(plane, rng) for plane in light]

    def _frames(
        self, specimen: int, planes: NDArray[np.intp], rng: np.random.Generator, *, empty: bool
    ) -> Floats:
        light = self._light(specimen, planes, rng, empty=empty)
        turns, mirrored = int(rng.integers(4)), rng.random() < 0.5
        microscope = self._microscope(specimen, light.shape[1:], rng)
        percentiles = _percentiles(rng)
        frames = []
        for plane in light:
            frame = _stretched(microscope.record(plane, rng), percentiles)
            frame = np.rot90(self._filled(frame), turns)
            frames.append(frame[:, ::-1] if mirrored else frame)
        return np.ascontiguousarray(np.stack(frames), dtype=np.float32)

    def _light(
        self, specimen: int, planes: NDArray[np.intp], rng: np.random.Generator, *, empty: bool
    ) -> Floats:
        window = self._window(self.pool.light[specimen, 0], rng)
        light = self.pool.light[specimen, planes][:, window[0], window[1]].astype(np.float32)
        if not empty:
            return light
        return np.broadcast_to(light.mean(axis=(1, 2), keepdims=True), light.shape)

    def _microscope(
        self, specimen: int, shape: tuple[int, ...], rng: np.random.Generator
    ) -> _Microscope:
        transmitted = bool(self.pool.transmitted[specimen])
        counting = 0.0 if transmitted else self.counting
        return _Microscope.draw(shape, transmitted=transmitted, counting=counting, rng=rng)

    def _window(
        self, in_focus: NDArray[np.float16], rng: np.random.Generator
    ) -> tuple[slice, slice]:
        side = self.crop_px
        if rng.random() < 0.12:
            side = int(rng.integers(_SMALLEST_FRAME_PX, self.crop_px))
        corners = rng.integers(SIDE_PX - side + 1, size=(_CANDIDATES, 2))
        windows = [(slice(y, y + side), slice(x, x + side)) for y, x in corners]
        if rng.random() < 0.3:
            return windows[0]
        return max(windows, key=lambda w: float(in_focus[w][::2, ::2].astype(np.float32).std()))

    def _filled(self, frame: Floats) -> Floats:
        missing = self.crop_px - frame.shape[0]
        before = missing // 2
        return np.pad(frame, (before, missing - before), "symmetric") if missing else frame


@dataclass(frozen=True)
class _Microscope:
    """Lamp, camera and software of one specimen; all its frames share them.

    ``counting`` is the detector of a confocal, which sees a few photons or none. With a ``gain``
    each photon gives an exponentially distributed charge, digitised afterwards: the most that
    multiplying adds to the noise (M. Robbins and B. Hadwen, "The noise performance of electron
    multiplying charge-coupled devices", IEEE Trans. Electron Devices 50, 2003).
    """

    photons: float
    background: float
    read_noise_e: float
    inverted: bool
    lamp: Floats | None
    hot: tuple[NDArray[np.intp], Floats] | None
    row_noise_e: float
    smoothing_px: float
    gamma: float
    levels: int | None
    counting: bool
    gain: float | None

    @classmethod
    def draw(
        cls,
        shape: tuple[int, ...],
        *,
        transmitted: bool,
        counting: float,
        rng: np.random.Generator,
    ) -> _Microscope:
        photons = log_uniform(8, 4000, rng)
        haze = 0.0 if transmitted else float(rng.uniform(0, 1.0)) ** 3
        read_noise_e = float(rng.uniform(0.5, 4))
        if rng.random() < 0.1:  # averaged frames
            photons, read_noise_e = photons * 100, 0.0
        counts = counting > 0 and rng.random() < counting
        stray = float(rng.uniform(0, 10))
        if counts:
            photons, read_noise_e = log_uniform(*_COUNTED_PHOTONS, rng), 0.0
            stray = log_uniform(0.01, 0.5, rng)
        return cls(
            photons=photons * (LAMP_GAIN if transmitted else 1.0),
            background=photons * haze + stray,
            read_noise_e=read_noise_e,
            inverted=not transmitted and rng.random() < 0.12,
            lamp=_lamp(shape, rng) if rng.random() < 0.4 else None,
            hot=_hot_pixels(shape, photons, rng) if not counts and rng.random() < 0.1 else None,
            row_noise_e=read_noise_e * float(rng.uniform(0, 0.5)) if rng.random() < 0.1 else 0.0,
            smoothing_px=float(rng.uniform(0.3, 0.7)) if rng.random() < 0.15 else 0.0,
            gamma=math.exp(float(rng.normal(0, 0.3))) if rng.random() < 0.2 else 1.0,
            levels=int(rng.integers(40, 256)) if rng.random() < 0.2 else None,
            counting=counts,
            gain=log_uniform(2, 40, rng) if counts and rng.random() < 0.4 else None,
        )

    def record(self, light: Floats, rng: np.random.Generator) -> Floats:
        if self.inverted:
            light = np.maximum(1.6 - light, 0.05)
        expected = light if self.lamp is None else light * self.lamp
        exposure = math.exp(float(rng.normal(0, 0.1)))
        expected = (self.photons * expected + self.background) * np.float32(exposure)
        seen = self._detected(expected, rng)
        if self.row_noise_e:
            seen += rng.normal(0, self.row_noise_e, (len(seen), 1)).astype(np.float32)
        if self.hot is not None:
            seen.ravel()[self.hot[0]] += self.hot[1]
        return self._processed(seen)

    def _detected(self, expected: Floats, rng: np.random.Generator) -> Floats:
        if self.counting:
            counted = rng.poisson(expected).astype(np.float32)
            if self.gain is None:
                return counted
            return np.rint(np.float32(self.gain) * rng.standard_gamma(counted, dtype=np.float32))
        spread = np.sqrt(expected + np.float32(self.read_noise_e**2))
        return expected + spread * rng.standard_normal(expected.shape, dtype=np.float32)

    def _processed(self, frame: Floats) -> Floats:
        if self.smoothing_px:
            frame = cv2.GaussianBlur(frame, (5, 5), self.smoothing_px)
        if self.gamma == 1.0 and self.levels is None:
            return frame
        low, high = float(frame.min()), float(frame.max())
        frame = (frame - low) / np.float32(max(high - low, 1e-6))
        if self.gamma != 1.0:
            frame = np.power(frame, np.float32(self.gamma))
        return frame if self.levels is None else np.rint(frame * self.levels)


def _percentiles(rng: np.random.Generator) -> tuple[float, float]:
    """Those of the extractor, or others: a crop is a part of a frame that others decide."""
    if rng.random() < 0.5:
        return PERCENTILES
    return float(log_uniform(0.1, 5, rng)), 100 - float(log_uniform(0.02, 2, rng))


def _stretched(frame: Floats, percentiles: tuple[float, float]) -> Floats:
    """The percentiles of a frame to 0 and 1, highlights compressed."""
    sample = frame.ravel()
    low, high = nearest_ranks(sample, percentiles)
    if high <= low:  # a few bright pixels on a constant field, as at inference
        low, high = sample.min(), sample.max()
    window = Normalisation(float(low), max(float(high), float(low) + 1e-6))
    return window.apply(frame, "compress")


def _lamp(shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """A smooth hill of light or a slope; its rim keeps 40 to 100 %."""
    height, width = shape
    y, x = np.ogrid[0:height, 0:width]
    cy, cx = rng.uniform(-0.5, 1.5, 2) * shape
    away = ((y - cy) ** 2 + (x - cx) ** 2).astype(np.float32)
    return (1 - rng.uniform(0, 0.6) * away / away.max()).astype(np.float32)


def _hot_pixels(
    shape: tuple[int, ...], photons: float, rng: np.random.Generator
) -> tuple[NDArray[np.intp], Floats]:
    count = int(rng.integers(1, 1 + shape[0] * shape[1] // 2000))
    where = rng.integers(shape[0] * shape[1], size=count)
    return where, (photons * rng.uniform(0.5, 10, count)).astype(np.float32)
