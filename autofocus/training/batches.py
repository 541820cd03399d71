"""Pairs of crops for both branches, made anew from (seed, step) so that a resumed run repeats them.

Light is distorted, then a camera with photon and read noise records it, then the frame is
normalised as at inference, and only then cropped: the network sees in training what it will see.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import fft

from autofocus.training.corpus import Corpus, Pristine
from autofocus.training.crops import half_swap, overlapping_crops
from autofocus.training.defocus import DefocusBank
from autofocus.training.distortions import DISTORTIONS, LEVELS, Distortion
from autofocus.training.moco import PRISTINE, UNLABELLED

Floats = NDArray[np.float32]

PERCENTILES = (1.0, 99.8)

_DEFOCUS_KINDS = 2  # without and with spherical aberration
_SPHERICAL_WAVES = (0.0, 0.0, -0.25, 0.25)  # of real images; the sign chooses the side of focus
_READ_NOISE = 2.0  # electrons
_BRIGHT_FIELD = 0.4  # median of a field in transmitted light, on a scale where 1 is its brightest
LAMP_GAIN = 5.0  # transmitted light is not scarce: cameras are used near their full well
_CONTENT_SCALES = (0.4, 1.0)  # side of a random resized crop, share of the tile


@dataclass(frozen=True)
class Scale:
    """Queries and keys of one image scale.

    Attributes
    ----------
    queries, keys : ndarray of shape (n, 1, side, side), float32
    """

    queries: Floats
    keys: Floats


@dataclass(frozen=True)
class Batch:
    """What one training step needs.

    Attributes
    ----------
    scales : tuple of Scale
        Full scale, then half scale; each has the same rows.
    labels : ndarray of shape (n,), int64
        Distortion and level of each row, or `UNLABELLED`.
    """

    scales: tuple[Scale, ...]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class QualityBatches:
    """Batches of the quality branch: each image pristine and distorted in several ways.

    Attributes
    ----------
    corpus : Corpus
    defocus : DefocusBank
        For the corpus's image size.
    images, defocused, distorted : int
        Images a batch, and versions of each besides the pristine one.
    crop_px : int
        Side of the full-scale crops, even; those of the half scale have half of it.
    jitter : float
        Spread of gain, offset and gamma between the two crops of a pair, 0 for none.
    """

    corpus: Corpus
    defocus: DefocusBank
    images: int
    defocused: int
    distorted: int
    crop_px: int
    jitter: float

    def make(self, seed: int, step: int) -> Batch:
        """Return the batch of this step, always the same one."""
        rng = np.random.default_rng([seed, step])
        parts = [self._rows(self.corpus.draw(rng), rng) for _ in range(self.images)]
        full = [part[0] for part in parts]
        half = [part[1] for part in parts]
        labels = np.concatenate([part[2] for part in parts])
        return Batch((_stack(full), _stack(half)), labels)

    def _rows(
        self, pristine: Pristine, rng: np.random.Generator
    ) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats], NDArray[np.int64]]:
        tiles, labels = self._versions(pristine, rng)
        order = rng.permutation(len(tiles))  # so that the half-swap meets every kind
        tiles = tiles[order]
        middle = len(tiles) // 2
        full = half_swap(*overlapping_crops(tiles, self.crop_px, rng), slice(0, middle))
        small = np.stack([_half(tile) for tile in tiles])
        half = half_swap(*overlapping_crops(small, self.crop_px // 2, rng), slice(middle, None))
        return self._jittered(full, rng), self._jittered(half, rng), labels[order]

    def _versions(
        self, pristine: Pristine, rng: np.random.Generator
    ) -> tuple[Floats, NDArray[np.int64]]:
        """Return normalised tiles (n, side, side) of one place in the image, and their labels."""
        window = _window(pristine.image.shape, 2 * self.crop_px, rng)
        light = _light(pristine.image, window)
        camera = _Camera.draw(light, rng)
        rows = [(PRISTINE, camera.record(light, rng))]
        for label, blurred in self._defocused(pristine, rng):
            rows.append((label, camera.record(_light(blurred, window), rng)))
        kinds = list(DISTORTIONS.values())
        for index in rng.permutation(len(kinds))[: self.distorted]:
            level = int(rng.integers(LEVELS))
            frame = _distorted(light, kinds[index], level, camera, rng)
            rows.append((_label(_DEFOCUS_KINDS + int(index), level), frame))
        tiles = np.stack([normalise(frame) for _, frame in rows])
        return tiles, np.array([label for label, _ in rows])

    def _defocused(
        self, pristine: Pristine, rng: np.random.Generator
    ) -> Iterator[tuple[int, NDArray[np.floating]]]:
        """Yield (label, light) of distinct levels, rendered or by the transfer functions."""
        levels = [int(level) for level in rng.permutation(LEVELS)[: self.defocused]]
        if pristine.defocused is not None:
            for level in levels:
                yield _label(int(pristine.aberrated), level), pristine.defocused[level]
            return
        spectrum = fft.rfft2(pristine.image.astype(np.float32))
        objective = int(rng.integers(len(self.defocus.objectives)))
        waves = float(rng.choice(_SPHERICAL_WAVES))
        for level in levels:
            light = self.defocus.blur(spectrum, level, objective=objective, spherical_waves=waves)
            yield _label(int(waves != 0), level), light

    def _jittered(
        self, pair: tuple[Floats, Floats], rng: np.random.Generator
    ) -> tuple[Floats, Floats]:
        first, second = (jitter(crops, self.jitter, rng) for crops in pair)
        return first, second


@dataclass(frozen=True)
class ContentBatches:
    """Batches of the content branch: two views of each image, whatever their quality.

    Attributes
    ----------
    corpus : Corpus
    defocus : DefocusBank
    images : int
        Rows a batch.
    crop_px : int
        Side of the views.
    jitter : float
        Spread of gain, offset and gamma.
    """

    corpus: Corpus
    defocus: DefocusBank
    images: int
    crop_px: int
    jitter: float

    def make(self, seed: int, step: int) -> Batch:
        """Return the batch of this step, always the same one."""
        rng = np.random.default_rng([seed, step])
        drawn = [self.corpus.draw(rng) for _ in range(self.images)]
        queries = np.stack([self._view(pristine, rng) for pristine in drawn])
        keys = np.stack([self._view(pristine, rng) for pristine in drawn])
        scale = Scale(
            jitter(queries, self.jitter, rng)[:, None], jitter(keys, self.jitter, rng)[:, None]
        )
        return Batch((scale,), np.full(self.images, UNLABELLED))

    def _view(self, pristine: Pristine, rng: np.random.Generator) -> Floats:
        light: NDArray[np.floating] = pristine.image
        if rng.random() < 0.5:
            light = self._blurred(pristine, int(rng.integers(3)), rng)
        side = int(len(light) * rng.uniform(*_CONTENT_SCALES))
        window = _window(light.shape, side, rng)
        camera = _Camera.draw(_light(pristine.image, window), rng)
        frame = normalise(camera.record(_light(light, window), rng))
        how = cv2.INTER_AREA if side > self.crop_px else cv2.INTER_LINEAR
        view = cv2.resize(frame, (self.crop_px, self.crop_px), interpolation=how)
        view = np.rot90(view, int(rng.integers(4)))
        return np.ascontiguousarray(view[:, ::-1] if rng.random() < 0.5 else view)

    def _blurred(
        self, pristine: Pristine, level: int, rng: np.random.Generator
    ) -> NDArray[np.floating]:
        if pristine.defocused is not None:
            return pristine.defocused[level]
        objective = int(rng.integers(len(self.defocus.objectives)))
        spectrum = fft.rfft2(pristine.image.astype(np.float32))
        return self.defocus.blur(spectrum, level, objective=objective)


def normalise(frame: Floats) -> Floats:
    """Stretch the 1st..99.8th percentile of a frame to 0..1, as the extractor does."""
    low, high = nearest_ranks(frame[::2, ::2].ravel(), PERCENTILES)
    stretched = (frame - low) / np.float32(max(high - low, 1e-6))
    return np.clip(stretched, 0, 1, out=stretched)


def nearest_ranks(
    sample: Floats, percentiles: tuple[float, float]
) -> tuple[np.float32, np.float32]:
    """Two percentiles by nearest rank: np.percentile to the eye, at a third of the price."""
    ranks = [round(share / 100 * (sample.size - 1)) for share in percentiles]
    low, high = np.partition(sample, ranks)[ranks]
    return low, high


def jitter(crops: Floats, spread: float, rng: np.random.Generator) -> Floats:
    """Give each crop its own small gain, offset and gamma; a frame's percentiles vary as much."""
    if spread == 0:
        return crops
    gain, offset, gamma = rng.uniform(-spread, spread, (3, len(crops), 1, 1)).astype(np.float32)
    changed = np.power(crops, np.exp(gamma)) * (1 + gain) + offset / 2
    return np.clip(changed, 0, 1, out=changed)


@dataclass(frozen=True)
class _Camera:
    """Lamp and camera of one image; all its versions share them: they must tell nothing apart."""

    photons: float  # of the brightest pixel
    background: float  # as a share of the brightest pixel
    inverted: bool  # an absorbing specimen on a bright field instead of a glowing one
    lamp: Floats | None

    @classmethod
    def draw(cls, light: Floats, rng: np.random.Generator) -> _Camera:
        """Draw what suits this light, shape (side, side), sharp and in 0..1."""
        inverted = bool(rng.random() < 0.15)
        level = float(np.median(light))
        bright = (1 - level if inverted else level) > _BRIGHT_FIELD
        return cls(
            photons=log_uniform(20, 5000, rng) * (LAMP_GAIN if bright else 1.0),
            background=log_uniform(0.005, 0.2 if bright else 2.0, rng),
            inverted=inverted,
            lamp=_uneven_lamp(light.shape[0], rng) if rng.random() < 0.5 else None,
        )

    def record(self, light: Floats, rng: np.random.Generator) -> Floats:
        """Electrons a pixel; the exposure varies by a third between versions."""
        light = 1 - light if self.inverted else light
        expected = np.maximum(light + np.float32(self.background), 0)
        if self.lamp is not None:
            expected *= self.lamp
        expected *= np.float32(self.photons * math.exp(rng.uniform(-0.3, 0.3)))
        # A Gaussian of the same variance: its skew is lost below some 10 photons, its price is a
        # fifth of a Poisson draw's.
        spread = np.sqrt(expected + np.float32(_READ_NOISE**2))
        expected += spread * rng.standard_normal(expected.shape, dtype=np.float32)
        return expected


def _uneven_lamp(side: int, rng: np.random.Generator) -> Floats:
    """A smooth hill of light; the corners keep 40 to 100 % of it."""
    cy, cx = rng.uniform(0, side, 2)
    axis = np.arange(side, dtype=np.float32)
    away = (axis[:, None] - cy) ** 2 + (axis[None, :] - cx) ** 2
    return (1 - rng.uniform(0, 0.6) * away / away.max()).astype(np.float32)


def log_uniform(low: float, high: float, rng: np.random.Generator) -> float:
    """Draw a number between the two, every ratio alike."""
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def _label(kind: int, level: int) -> int:
    return PRISTINE + 1 + kind * LEVELS + level


def _distorted(
    light: Floats, kind: Distortion, level: int, camera: _Camera, rng: np.random.Generator
) -> Floats:
    if not kind.after_camera:
        return camera.record(kind.apply(light, level, rng), rng)
    return kind.apply(normalise(camera.record(light, rng)), level, rng)


def _light(image: NDArray[np.floating], window: tuple[slice, slice]) -> Floats:
    return np.ascontiguousarray(image[window], dtype=np.float32)


def _window(shape: tuple[int, ...], side: int, rng: np.random.Generator) -> tuple[slice, slice]:
    """Return a place for a tile, off the border, where blur wraps around, if there is room."""
    margin = min(32, (min(shape) - side) // 2)
    y = int(rng.integers(margin, shape[0] - side - margin + 1))
    x = int(rng.integers(margin, shape[1] - side - margin + 1))
    return slice(y, y + side), slice(x, x + side)


def _half(tile: Floats) -> Floats:
    size = (tile.shape[1] // 2, tile.shape[0] // 2)
    return cv2.resize(tile, size, interpolation=cv2.INTER_AREA)


def _stack(pairs: list[tuple[Floats, Floats]]) -> Scale:
    return Scale(
        np.concatenate([first for first, _ in pairs])[:, None],
        np.concatenate([second for _, second in pairs])[:, None],
    )
