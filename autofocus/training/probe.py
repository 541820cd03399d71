"""How much of defocus do frozen features hold? A quick linear reading, to watch a training run.

Simulated specimens with seeds that pretraining never uses, through random objectives, at known
defocus and random light. Ridge on frozen features, cross-validated by specimen, against the focus
label. It compares encoders with each other; the published figures come from `autofocus bench`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn import functional

from autofocus.training.batches import normalise
from autofocus.training.defocus import random_objective
from devices.simulated.optics import depth_of_field_um
from devices.simulated.render import Renderer, camera_counts
from devices.simulated.specimens import KINDS, make_specimen
from models.regressor import label_of

_SIDE = 256
_SIGMA_DOF = 2.0
_SEED = 0x9806E


@dataclass(frozen=True)
class ProbeSet:
    """Frames at known defocus.

    Attributes
    ----------
    frames : ndarray of shape (n, side, side), float32
        Normalised as at inference.
    defocus_dof : ndarray of shape (n,)
        Distance to the in-focus plane in depths of field, signed.
    specimen : ndarray of shape (n,), int
    """

    frames: NDArray[np.float32]
    defocus_dof: NDArray[np.float64]
    specimen: NDArray[np.int64]


def make_probe_set(*, specimens: int = 48, planes: int = 7, side: int = _SIDE) -> ProbeSet:
    """Render ``planes`` frames of each specimen within +-10 depths of field; always the same."""
    frames, defocus, groups = [], [], []
    for group in range(specimens):
        for depth_dof, frame in _stack(np.random.default_rng([_SEED, group]), planes, side):
            frames.append(frame)
            defocus.append(depth_dof)
            groups.append(group)
    return ProbeSet(np.stack(frames), np.array(defocus), np.array(groups))


def probe(encoders: list[nn.Module], probe_set: ProbeSet) -> float:
    """Return the correlation of a cross-validated linear reading with 1 / (1 + (d / 2)^2).

    Parameters
    ----------
    encoders : list of nn.Module
        (n, 1, h, w) -> (n, features); their features at full and half scale are joined.
    probe_set : ProbeSet
    """
    features = np.hstack([_features(encoder, probe_set.frames) for encoder in encoders])
    label = label_of(probe_set.defocus_dof, _SIGMA_DOF)
    model = make_pipeline(StandardScaler(), RidgeCV(alphas=np.logspace(0, 5, 11)))
    folds = GroupKFold(n_splits=6)
    predicted = cross_val_predict(model, features, label, groups=probe_set.specimen, cv=folds)
    return float(np.corrcoef(predicted, label)[0, 1])


@torch.no_grad()
def _features(encoder: nn.Module, frames: NDArray[np.float32]) -> NDArray[np.float32]:
    was_training = encoder.training
    encoder.eval()  # otherwise BatchNorm would learn from the probe
    parts = []
    for start in range(0, len(frames), 32):
        full = torch.from_numpy(frames[start : start + 32])[:, None]
        half = functional.avg_pool2d(full, 2)
        parts.append(torch.cat([encoder(full), encoder(half)], dim=1).numpy())
    encoder.train(was_training)
    return np.concatenate(parts)


def _stack(
    rng: np.random.Generator, planes: int, side: int
) -> list[tuple[float, NDArray[np.float32]]]:
    kinds = [kind for kind in KINDS if not kind.startswith("empty")]
    objective = random_objective(rng)
    if rng.random() < 0.4:
        objective = replace(objective, spherical_waves=float(rng.uniform(-0.4, 0.4)))
    specimen = make_specimen(
        kinds[rng.integers(len(kinds))],
        shape=(side, side),
        pixel_size_um=objective.pixel_size_um,
        rng=rng,
    )
    renderer = Renderer(specimen, objective)
    photons = float(np.exp(rng.uniform(np.log(20), np.log(2000))))
    background = photons * float(np.exp(rng.uniform(np.log(0.01), 0)))
    stack = []
    for depth_dof in np.linspace(-10, 10, planes) + rng.uniform(-1.6, 1.6, planes):
        light = renderer.relative(float(depth_dof) * depth_of_field_um(objective))
        counts = camera_counts(photons * light + np.float32(background), rng=rng)
        stack.append((float(depth_dof), normalise(counts.astype(np.float32))))
    return stack
