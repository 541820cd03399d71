"""How long a frame takes: ratios against the procedure of the notes, alternating in one process."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.classical import DEFAULT_MEASURE, ClassicalScorer
from models.encoders import resnet50_encoder
from models.engines import available_engines, choose_engine
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
    relative_l2 : float or None
        Of its features, to plain forward passes of the same encoders on the same patches.
    """

    name: str
    seconds: tuple[float, ...]
    relative_l2: float | None = None

    @property
    def median_s(self) -> float:
        """Typical seconds a frame."""
        return float(np.median(self.seconds))


def measure(compact: Mapping[str, Scorer], *, repeats: int, threads: int) -> list[Timing]:
    """Time the notes' procedure, ours with the same encoders, the compact scorer and a measure.

    Published layout with random weights: the time does not depend on them. The contestants take
    turns, so that a machine that slows down slows all of them.

    Parameters
    ----------
    compact : mapping of str to Scorer
        The compact scorer by engine; the published layout runs on all that are here.
    repeats : int
        Frames a contestant.
    threads : int
        Threads of the networks.
    """
    torch.set_num_threads(threads)
    image = test_frame()
    content, quality = resnet50_encoder().eval(), resnet50_encoder().eval()
    settings = ExtractorSettings(layout="published")
    published = {
        engine: ReIQA(content, quality, settings, choose_engine(engine))
        for engine in available_engines()
    }
    classical = ClassicalScorer(DEFAULT_MEASURE)
    contestants: dict[str, Callable[[], object]] = {
        "notes: 32 patches, one at a time": lambda: notes_features(image, content, quality),
        **{
            f"published layout, {engine}": partial(extractor.features, image)
            for engine, extractor in published.items()
        },
        **{
            f"{scorer.name}, {engine}, with its referee": partial(scorer.score, image)
            for engine, scorer in compact.items()
        },
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
    exact = {
        f"published layout, {engine}": _relative_l2(extractor, image, content, quality)
        for engine, extractor in published.items()
    }
    return [Timing(name, tuple(taken), exact.get(name)) for name, taken in seconds.items()]


@torch.no_grad()
def _relative_l2(
    extractor: ReIQA, image: NDArray[np.uint16], content: nn.Module, quality: nn.Module
) -> float:
    """Distance of its 8192 features to forward passes of torchvision's network, patch by patch."""
    mean = torch.tensor((0.485, 0.456, 0.406))[:, None, None]
    std = torch.tensor((0.229, 0.224, 0.225))[:, None, None]
    rows = []
    for patch in extractor.patches(image, extractor.anchor(image)):
        half = cv2.resize(patch, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        scales = [torch.from_numpy(np.repeat(scale[None], 3, axis=0)) for scale in (patch, half)]
        parts = [content(((scale - mean) / std)[None]) for scale in scales]
        parts += [quality(scale[None]) for scale in scales]
        rows.append(torch.cat(parts, dim=1).numpy()[0])
    wanted = np.mean(rows, axis=0)
    found = extractor.features(image)
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def table(timings: list[Timing]) -> str:
    """Markdown: milliseconds, and how many times faster than the first."""
    slowest = timings[0].median_s
    lines = [
        f"| a frame of {SIDE_PX} x {SIDE_PX}, 16 bit | median ms | times faster | relative L2 |",
        "|---|---|---|---|",
    ]
    for timing in timings:
        exact = "" if timing.relative_l2 is None else f"{timing.relative_l2:.1e}"
        lines.append(
            f"| {timing.name} | {1000 * timing.median_s:.1f} | "
            f"{slowest / timing.median_s:.1f} | {exact} |"
        )
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
