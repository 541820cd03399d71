"""Teach a contrastive encoder what one depth of field of defocus looks like.

MoCo tells distortions apart; it has no reason to lay them out along a line that a ridge can read,
and in transmitted light it does not. So the quality encoder goes on learning with a second pretext
task: read the distance to focus of light that the project's own optics defocused
(`autofocus.training.known_defocus`), from the logarithms of its features at full and at half
scale, with the sampling of the camera, by what the head is: a small network that says how likely
each of a few dozen distances is (`autofocus.training.network`). Nobody labels anything: the
distance is known by construction. The reading is thrown away; the encoder is frozen and a head is
fitted on it as on any other.

    autofocus refine --encoders runs/encoders --minutes 48 -o runs/refined

It can be made wider first, with what it knows (`autofocus.training.widen`).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from autofocus.training.default_head import FARTHEST_DOF, score_of
from autofocus.training.focus_batches import COUNTING, FocusBatch, FocusBatches
from autofocus.training.known_defocus import SIDE_PX, KnownDefocus
from autofocus.training.network import class_distances, class_ends, class_shares, rectifiers
from autofocus.training.team import Team
from autofocus.training.training_run import train
from autofocus.training.widen import widened
from models.checkpoints import load_compact_encoder
from models.encoders import CompactEncoder
from models.engines import bfloat16_is_faster
from models.reiqa import LOG_FLOOR

_RANK_SLOPE = 4.0


@dataclass(frozen=True)
class RefineSettings:
    """The recipe; with the seed it decides every batch.

    Attributes
    ----------
    crop_px : int
        Side of the crops in the first part of the run.
    late : float
        Share of the run after which whole patches of 256 px are used, as at inference.
    specimens, distances : int
        A batch; a third of the specimens in the late part.
    rank : float
        Weight of the order of the distances of one specimen, as far as the classes reach.
    unknown : float
        Share of the specimens whose sampling is not told.
    empty, counting : float
        Share of the specimens that are empty fields, and of those in fluorescence that a detector
        sees which counts photons.
    classes : int
        Distances of which the reading says how likely each is; as of
        `autofocus.training.network.NetworkSettings`.
    hidden, dropped : tuple of int, float
        Of the network that reads the distance: rectifiers of its two layers, and the share of its
        inputs and of the first layer's left out at random.
    average : float
        Share of the exported average of the weights that survives a step.
    learning_rate, weight_decay, warm_up : float
        AdamW; linear warm-up over this share of the run, then a cosine to 1 % of the rate.
    width : int or None
        Channels that the first stage of the encoder gets (`autofocus.training.widen.widened`);
        None leaves it as wide as it is.
    steps : int
        Length of the run when no time is given.
    seed : int
    light : str
        What the light was made with; `refine` writes it here, so that no run goes on with another.
    """

    crop_px: int = 128
    late: float = 0.7
    specimens: int = 24
    distances: int = 4
    rank: float = 0.3
    unknown: float = 0.25
    empty: float = 0.05
    counting: float = COUNTING
    classes: int = 36
    hidden: tuple[int, int] = (256, 128)
    dropped: float = 0.1
    average: float = 0.998
    learning_rate: float = 1.5e-3
    weight_decay: float = 1e-4
    warm_up: float = 0.03
    width: int | None = None
    steps: int = 6000
    seed: int = 0
    light: str = ""


def refine(
    encoder: Path,
    settings: RefineSettings,
    out: Path,
    *,
    pool: KnownDefocus,
    minutes: float | None = None,
    threads: int = 1,
    workers: int = 1,
    resume: bool = True,
    team: Team | None = None,
) -> Path:
    """Train the quality encoder on and return its safetensors file.

    Parameters
    ----------
    encoder : Path
        Quality encoder of `autofocus.training.pretrain.pretrain`.
    settings : RefineSettings
    out : Path
        Receives ``quality.safetensors``, ``quality.csv`` (the log) and ``quality.checkpoint.pt``.
    pool : KnownDefocus
    minutes, threads, workers, resume, team
        As of `autofocus.training.pretrain.pretrain`.

    Raises
    ------
    ConfigError
        When the checkpoint in ``out`` was made with other settings or other light, or the encoder
        is not narrower than ``settings.width``.
    CheckpointError
        When ``encoder`` is not a compact encoder.
    """
    torch.set_num_threads(threads)
    cv2.setNumThreads(1)
    team, settings = team or Team(), replace(settings, light=pool.made_with)
    begin = load_compact_encoder(encoder)
    if settings.width is not None:
        begin = widened(begin, settings.width, seed=settings.seed)
    lesson = _KnownDistances(begin, settings, pool, team)
    return train(lesson, settings, out, minutes=minutes, workers=workers, resume=resume, team=team)


class DefocusReading(nn.Module):
    """How likely each distance is, read as a head reads features.

    Parameters
    ----------
    features : int
        Of both scales together.
    classes, hidden, dropped
        As of `RefineSettings`.
    """

    def __init__(
        self, features: int, *, classes: int, hidden: tuple[int, int], dropped: float
    ) -> None:
        super().__init__()
        self.standardised = nn.BatchNorm1d(features + 1, affine=False)
        self.network = rectifiers(
            features + 1, classes, hidden=hidden, unseen=dropped, dropped=dropped
        )

    def forward(self, features: Tensor, sampling: Tensor) -> Tensor:
        """Read frames.

        Parameters
        ----------
        features : Tensor of shape (n, features)
            Logarithms.
        sampling : Tensor of shape (n,)
            Centred logarithm of the sampling, 0 where it is not told.

        Returns
        -------
        Tensor of shape (n, classes)
            Logits.
        """
        read: Tensor = self.network(
            self.standardised(torch.cat([features, sampling[:, None]], dim=1))
        )
        return read


class _State(nn.Module):
    """Encoder, reading and the running average of the encoder."""

    def __init__(self, encoder: CompactEncoder, settings: RefineSettings) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(True).train()
        self.reading = DefocusReading(
            2 * encoder.feature_dim,
            classes=settings.classes,
            hidden=settings.hidden,
            dropped=settings.dropped,
        )
        self.average = copy.deepcopy(encoder).requires_grad_(False)
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))


class _KnownDistances:
    """Reading the distance as a `autofocus.training.training_run.Lesson`."""

    name = "quality"
    figure = "correlation"
    largest_gradient = 5.0

    def __init__(
        self, encoder: CompactEncoder, settings: RefineSettings, pool: KnownDefocus, team: Team
    ) -> None:
        torch.manual_seed(settings.seed)
        self._settings, self._team = settings, team
        self._early = FocusBatches(
            pool,
            specimens=settings.specimens,
            distances=settings.distances,
            crop_px=settings.crop_px,
            unknown=settings.unknown,
            empty=settings.empty,
            counting=settings.counting,
        )
        self._late = replace(
            self._early, specimens=max(1, settings.specimens // 3), crop_px=SIDE_PX
        )
        self._ends = class_ends(FARTHEST_DOF, settings.classes)
        labels = score_of(class_distances(self._ends)).astype(np.float32)
        self._labels = torch.from_numpy(labels).to(team.device)
        self._mean_log_sampling = float(np.log(pool.sampling).mean())
        self.state = _State(encoder, settings).to(team.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def learning(self) -> Iterable[nn.Parameter]:
        return (p for p in self.state.parameters() if p.requires_grad)

    def batch(self, number: int, done: float) -> FocusBatch:
        source = self._late if done > self._settings.late else self._early
        return source.make(self._settings.seed, number)

    def loss(self, batch: FocusBatch) -> tuple[Tensor, float]:
        device = self._team.device
        crops = torch.from_numpy(batch.crops).to(device, memory_format=torch.channels_last)
        distance = np.minimum(batch.defocus_dof, FARTHEST_DOF).astype(np.float64)
        shares, label = (
            torch.from_numpy(values.astype(np.float32)).to(device)
            for values in (class_shares(distance, self._ends), score_of(distance))
        )
        native = device.type != "cpu" or bfloat16_is_faster()
        with torch.autocast(device.type, torch.bfloat16, enabled=native):
            features = torch.cat(
                [
                    _log(self.state.encoder(crops)),
                    _log(self.state.encoder(functional.avg_pool2d(crops, 2))),
                ],
                dim=1,
            )
        read = self.state.reading(features.float(), self._sampling(batch).to(device))
        likely = torch.softmax(read, dim=1)
        loss = functional.cross_entropy(read, shares) + self._settings.rank * _rank_loss(
            likely @ -torch.log(self._labels), -torch.log(label), self._settings.distances
        )
        scores = torch.stack([likely.detach() @ self._labels, label])
        return loss, float(torch.corrcoef(scores)[0, 1].nan_to_num())

    def after_step(self) -> None:
        updates = self.state.get_buffer("updates")
        updates += 1
        # The first steps are forgotten sooner.
        kept = min(self._settings.average, 1 - 10 / (10 + float(updates)))
        slow, fast = self.state.average.state_dict(), self.state.encoder.state_dict()
        for name, value in slow.items():
            if value.dtype.is_floating_point:
                value.lerp_(fast[name], 1 - kept)
            else:
                value.copy_(fast[name])

    def encoder(self) -> nn.Module:
        return self.state.average

    def _sampling(self, batch: FocusBatch) -> Tensor:
        """Centred logarithm of the sampling; 0 where it is not told."""
        centred = np.log(batch.sampling) - np.float32(self._mean_log_sampling)
        return torch.from_numpy(np.nan_to_num(centred))


def _rank_loss(read: Tensor, wanted: Tensor, distances: int) -> Tensor:
    """Of two frames of one specimen the one farther from focus must be read as farther.

    The logistic loss of C. Burges et al., "Learning to rank using gradient descent", ICML 2005.
    """
    read, wanted = read.view(-1, distances), wanted.view(-1, distances)
    difference = read[:, :, None] - read[:, None]
    farther = (wanted[:, :, None] - wanted[:, None] > 0.02).float()
    lost = functional.softplus(-difference * _RANK_SLOPE) * farther
    return lost.sum() / farther.sum().clamp(min=1)


def _log(features: Tensor) -> Tensor:
    return torch.log(features.float() + float(LOG_FLOOR))
