"""A small learned scorer with random weights: real files, real loading, scores of no merit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from models.checkpoints import load_encoders, save_encoders
from models.encoders import CompactEncoder
from models.head import Label, fit_head, save_head
from models.reiqa import ExtractorSettings, ReIQA

SIDE = 320


def install(folder: Path) -> None:
    """Write encoders and a head that has seen frames like those of `frame`."""
    torch.manual_seed(0)
    save_encoders(folder / "compact", CompactEncoder(4), CompactEncoder(4), {"weights": "random"})
    pair = load_encoders(folder / "compact")
    extractor = ReIQA(pair.content, pair.quality, ExtractorSettings(patches=4))
    defocus_dof = np.linspace(0, 5, 12)
    features = [extractor.features(frame(blur_px=d, seed=i)) for i, d in enumerate(defocus_dof)]
    head = fit_head(
        features,
        1 / (1 + defocus_dof**2),
        defocus_dof,
        extractor=extractor,
        label=Label(1.0),
        name="test",
        sampling=np.geomspace(0.1, 1, 12)[::-1],
    )
    save_head(folder / "compact" / "head", head)


def frame(*, blur_px: float = 0.0, seed: int = 0) -> np.ndarray:
    """A disc with texture, blurred, with photon noise; uint16."""
    y, x = np.indices((SIDE, SIDE))
    inside = (y - SIDE / 2) ** 2 + (x - SIDE / 2) ** 2 < 90**2
    fine = np.sin(x / 2) * np.exp(-((blur_px / 2) ** 2))
    counts = 100 + inside * (400 + 200 * fine)
    return np.random.default_rng(seed).poisson(counts).astype(np.uint16)
