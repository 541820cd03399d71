"""Train an encoder without labels: MoCo v2 by the recipe of Re-IQA, for microscopy and a small CPU.

    autofocus pretrain --branch quality --minutes 30 -o runs/encoders

A run can be killed at any time and started again with the same command: it goes on from its last
checkpoint, with the batches it would have had. The result is a safetensors file for
`models.encoders.CompactEncoder`.

Departures from the published recipe (`shared/reiqa_spec.md`, section 4), besides its repaired
defects: grey distortions with defocus by a pupil function, all levels of it for every image; noise
and normalisation of a camera; keys of the same batch as negatives, those of the same distortion
and level on other images left out; small gain, offset and gamma changes between the crops of a
pair; half-scale crops of half the size, by area averaging as at inference; AdamW instead of LARS,
and a faster momentum encoder, because a run on a CPU has thousands of steps and not millions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import torch
from torch import Tensor, nn

from autofocus.training.batches import Batch, ContentBatches, QualityBatches
from autofocus.training.corpus import Corpus, load_corpus
from autofocus.training.defocus import DefocusBank, random_objectives
from autofocus.training.moco import MoCo
from autofocus.training.team import Team
from autofocus.training.training_run import train
from models.encoders import CompactEncoder

Branch = Literal["content", "quality"]


@dataclass(frozen=True)
class PretrainSettings:
    """The recipe; with the seed it decides every batch.

    Attributes
    ----------
    width : int
        First-stage channels of the `CompactEncoder`.
    crop_px : int
        Side of the full-scale crops; half-scale crops have half of it.
    quality_images, defocused, distorted : int
        Images a batch of the quality branch, and versions of each: in several states of defocus,
        and with other distortions. With the pristine one that is ``1 + defocused + distorted``
        rows an image.
    content_images : int
        Images a batch of the content branch.
    jitter : float
        Spread of gain, offset and gamma between the two crops of a pair.
    queue_size, momentum, temperature, projection : int, float, float, int
        Of MoCo. A momentum below the published 0.999 suits a run of a few thousand steps; a short
        queue lets the versions of the same image weigh more among the negatives.
    learning_rate, weight_decay, warm_up : float
        AdamW; linear warm-up over this share of the run, then a cosine to 1 % of the rate.
    steps : int
        Length of the run when no time is given.
    pool_images, pool_px : int
        Simulated specimens, and the side of all images.
    objectives : int
        How many objectives real images are defocused with.
    real_share : float
        Probability that an image is a real one, when there are any.
    seed : int
    """

    width: int = 16
    crop_px: int = 96
    quality_images: int = 8
    defocused: int = 5
    distorted: int = 6
    content_images: int = 96
    jitter: float = 0.15
    queue_size: int = 1024
    momentum: float = 0.99
    temperature: float = 0.2
    projection: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    warm_up: float = 0.03
    steps: int = 4000
    pool_images: int = 800
    pool_px: int = 320
    objectives: int = 22
    real_share: float = 0.5
    seed: int = 0


def pretrain(
    branch: Branch,
    settings: PretrainSettings,
    out: Path,
    *,
    corpus: Corpus,
    minutes: float | None = None,
    threads: int = 1,
    workers: int = 1,
    resume: bool = True,
    team: Team | None = None,
) -> Path:
    """Train one branch and return the safetensors file of its encoder.

    Parameters
    ----------
    branch : "content" or "quality"
    settings : PretrainSettings
    out : Path
        Receives ``<branch>.safetensors``, ``<branch>.csv`` (the log) and, until the end,
        ``<branch>.checkpoint.pt``.
    corpus : Corpus
        As from `corpus_for`.
    minutes : float, optional
        Training time in all, resumed parts included; the learning rate is annealed over it.
        None trains ``settings.steps`` steps instead.
    threads, workers : int
        Threads of the network, and threads that make batches.
    resume : bool
        Go on from a checkpoint in ``out``; False starts anew.
    team : Team, optional
        Who trains along; all must see the same ``out``.

    Raises
    ------
    ConfigError
        When the checkpoint in ``out`` was made with other settings.
    """
    torch.set_num_threads(threads)
    cv2.setNumThreads(1)  # the workers are the parallelism; more would fight for the same cores
    team = team or Team()
    lesson = _Contrast(branch, settings, _batches(branch, settings, corpus), team)
    return train(lesson, settings, out, minutes=minutes, workers=workers, resume=resume, team=team)


def corpus_for(settings: PretrainSettings, out: Path, data: Path | None) -> Corpus:
    """Return the pool of specimens for these settings, made on first use in ``out/pool``."""
    return load_corpus(
        out / "pool",
        data=data,
        count=settings.pool_images,
        side=settings.pool_px,
        real_share=settings.real_share,
        seed=settings.seed,
    )


class _Contrast:
    """Momentum contrast as a `autofocus.training.training_run.Lesson`."""

    figure = "accuracy"
    largest_gradient = math.inf

    def __init__(
        self,
        branch: Branch,
        settings: PretrainSettings,
        source: QualityBatches | ContentBatches,
        team: Team,
    ) -> None:
        self.name = branch
        self._source, self._seed, self._team = source, settings.seed, team
        torch.manual_seed(settings.seed)  # the same weights in every process
        encoder = CompactEncoder(settings.width)
        self.state = MoCo(
            encoder,
            inputs=encoder.projection_input,
            dim=settings.projection,
            queue_size=settings.queue_size,
            momentum=settings.momentum,
            temperature=settings.temperature,
        ).to(team.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.state.train()
        self._seen: tuple[list[Tensor], Tensor] | None = None

    def learning(self) -> Iterable[nn.Parameter]:
        return self.state.query.parameters()

    def batch(self, number: int, done: float) -> Batch:
        return self._source.make(self._seed, number)

    def loss(self, batch: Batch) -> tuple[Tensor, float]:
        labels = torch.from_numpy(batch.labels).to(self._team.device)
        keys, losses, accuracies = [], [], []
        for scale in batch.scales:
            key = self.state.keys(self._tensor(scale.keys))
            query = self.state.query(self._tensor(scale.queries))
            loss, accuracy = self.state.loss(query, key, labels)
            keys.append(key)
            losses.append(loss)
            accuracies.append(accuracy)
        self._seen = keys, labels
        return torch.stack(losses).mean(), float(torch.stack(accuracies).mean())

    def after_step(self) -> None:
        assert self._seen is not None
        keys, labels = self._seen
        self.state.follow()
        shared = self._team.gathered(labels)
        for key in keys:
            self.state.enqueue(self._team.gathered(key), shared)

    def encoder(self) -> nn.Module:
        """The slow copy: its features read defocus better in every run that was compared."""
        return self.state.key.encoder

    def _tensor(self, crops: object) -> Tensor:
        tensor = torch.as_tensor(crops, device=self._team.device)
        return tensor.to(memory_format=torch.channels_last)


def _batches(
    branch: Branch, settings: PretrainSettings, corpus: Corpus
) -> QualityBatches | ContentBatches:
    objectives = random_objectives(settings.objectives, seed=settings.seed)
    defocus = DefocusBank(objectives, (corpus.side, corpus.side))
    if branch == "content":
        return ContentBatches(
            corpus,
            defocus,
            images=settings.content_images,
            crop_px=settings.crop_px,
            jitter=2 * settings.jitter,
        )
    return QualityBatches(
        corpus,
        defocus,
        images=settings.quality_images,
        defocused=settings.defocused,
        distorted=settings.distorted,
        crop_px=settings.crop_px,
        jitter=settings.jitter,
    )
