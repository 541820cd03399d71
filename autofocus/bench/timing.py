"""How long a frame takes: ratios against the procedure of the notes, alternating in one process."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.classical import DEFAULT_MEASURE, ClassicalScorer
from models.encoders import resnet50_encoder
from models.reiqa import ExtractorSettings, ReIQA
from models.scorer import Scorer

SIDE_PX = 1024


@dataclass(frozen=True)
class Timing:
    """Seconds a frame.

    Attributes
    ----------
    name : str
        What was timed.
    seconds : tuple of float
        One a repeat.
    """

    name: str
    seconds: tuple[float, ...]

    @property
    def median_s(self) -> float:
        """Typical seconds a frame."""
        return float(np.median(self.seconds))


def measure(compact: Scorer, *, repeats: int, threads: int) -> list[Timing]:
    """Time the notes' procedure, ours with the same encoders, the compact scorer and a measure.

    Published layout with random weights: the time does not depend on them. The contestants take
    turns, so that a machine that slows down slows all of them.
    """
    torch.set_num_threads(threads)
    image = test_frame()
    content, quality = resnet50_encoder().eval(), resnet50_encoder().eval()
    published = ReIQA(content, quality, ExtractorSettings(layout="published"))
    classical = ClassicalScorer(DEFAULT_MEASURE)
    contestants: dict[str, Callable[[], object]] = {
        "notes: 32 patches, one at a time": lambda: notes_features(image, content, quality),
        "published layout, ours": lambda: published.features(image),
        f"{compact.name}, with its referee": lambda: compact.score(image),
        f"{classical.name} alone": lambda: classical.score(image),
    }
    for run in list(contestants.values())[1:]:
        run()
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(repeats):
        for name, run in contestants.items():
            began_s = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began_s)
    return [Timing(name, tuple(taken)) for name, taken in seconds.items()]


def table(timings: list[Timing]) -> str:
    """Markdown: milliseconds, and how many times faster than the first."""
    slowest = timings[0].median_s
    lines = [
        f"| a frame of {SIDE_PX} x {SIDE_PX}, 16 bit | median ms | times faster |",
        "|---|---|---|",
    ]
    lines += [
        f"| {timing.name} | {1000 * timing.median_s:.1f} | {slowest / timing.median_s:.1f} |"
        for timing in timings
    ]
    return "\n".join(lines)


def test_frame() -> NDArray[np.uint16]:
    """Bright blobs on a noisy background; the ROI holds enough patches."""
    rng = np.random.default_rng(0)
    blobs = cv2.GaussianBlur((rng.random((SIDE_PX, SIDE_PX)) > 0.999).astype(np.float32), (0, 0), 9)
    light = 100 + 3000 * blobs / blobs.max()
    return rng.poisson(light).astype(np.uint16)


@torch.no_grad()
def notes_features(
    image: NDArray[np.uint16], content: nn.Module, quality: nn.Module
) -> NDArray[np.float32]:
    """The procedure of the notes: every candidate patch through four forward passes, batch of one.

    Only then are the sharpest fifth averaged. Patch positions are random: they cost nothing.
    """
    low, high = np.percentile(image, (1.0, 99.8))
    frame = np.clip((image - low) / (high - low), 0, 1).astype(np.float32)
    rng = np.random.default_rng(0)
    mean = torch.tensor((0.485, 0.456, 0.406))[:, None, None]
    std = torch.tensor((0.229, 0.224, 0.225))[:, None, None]
    features, sharpness = [], []
    for y, x in rng.integers(0, SIDE_PX - 256, (32, 2)):
        patch = frame[y : y + 256, x : x + 256]
        sharpness.append(cv2.Laplacian((patch * 255).astype(np.uint8), cv2.CV_64F).var())
        scales = (patch, cv2.resize(patch, (128, 128), interpolation=cv2.INTER_AREA))
        grey = [torch.from_numpy(np.repeat(scale[None], 3, axis=0)) for scale in scales]
        parts = [content(((scale - mean) / std)[None]) for scale in grey]
        parts += [quality(scale[None]) for scale in grey]
        features.append(torch.cat(parts, dim=1).numpy()[0])
    top = np.argsort(sharpness)[-7:]
    return np.asarray(np.mean([features[i] for i in top], axis=0), np.float32)
