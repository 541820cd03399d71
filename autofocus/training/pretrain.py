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

import csv
import json
import math
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import cv2
import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors.torch import save_file

from autofocus.errors import ConfigError
from autofocus.training.batches import Batch, ContentBatches, QualityBatches
from autofocus.training.corpus import Corpus, load_corpus
from autofocus.training.defocus import DefocusBank, random_objectives
from autofocus.training.moco import MoCo
from autofocus.training.team import Team
from models.encoders import CompactEncoder

Branch = Literal["content", "quality"]

_LOG_FIELDS = ("step", "seconds", "loss", "accuracy", "learning_rate")
_LOG_EVERY = 10
_CHECKPOINT_EVERY_S = 120.0
_PREFETCH = 3  # batches made ahead of the network, for each worker


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
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(threads)
    cv2.setNumThreads(1)  # the workers are the parallelism; more would fight for the same cores
    team = team or Team()
    run = _Run.start(branch, settings, out, team)
    if resume:
        run.load()
    if team.leads:
        run.log.keep_until(run.step)
    run.train(_batches(branch, settings, corpus), minutes=minutes, workers=workers)
    return run.export()


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


def learning_rate(settings: PretrainSettings, done: float) -> float:
    """Return the rate after a share ``done`` (0..1) of the run."""
    if done < settings.warm_up:
        return settings.learning_rate * max(done / settings.warm_up, 0.01)
    annealed = (done - settings.warm_up) / (1 - settings.warm_up)
    cosine = 0.5 * (1 + math.cos(math.pi * min(annealed, 1.0)))
    return settings.learning_rate * (0.01 + 0.99 * cosine)


class _Log:
    """One CSV row every few steps, with the means since the last."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def keep_until(self, step: int) -> None:
        """Drop rows after ``step``: those steps are about to be repeated."""
        rows: list[dict[str, str]] = []
        if self._file.is_file() and step > 0:
            with self._file.open(newline="", encoding="utf-8") as source:
                rows = [row for row in csv.DictReader(source) if int(row["step"]) <= step]
        with self._file.open("w", newline="", encoding="utf-8") as target:
            writer = csv.DictWriter(target, _LOG_FIELDS)
            writer.writeheader()
            writer.writerows(rows)

    def add(self, *row: float) -> None:
        with self._file.open("a", newline="", encoding="utf-8") as target:
            csv.writer(target).writerow(f"{value:.6g}" for value in row)


@dataclass
class _Run:
    """The state of one training run."""

    branch: Branch
    settings: PretrainSettings
    out: Path
    device: torch.device
    team: Team
    model: MoCo
    optimizer: torch.optim.Optimizer
    log: _Log
    step: int = 0
    seconds: float = 0.0

    @classmethod
    def start(cls, branch: Branch, settings: PretrainSettings, out: Path, team: Team) -> _Run:
        torch.manual_seed(settings.seed)  # the same weights in every process
        device = team.device
        encoder = CompactEncoder(settings.width)
        model = MoCo(
            encoder,
            inputs=encoder.projection_input,
            dim=settings.projection,
            queue_size=settings.queue_size,
            momentum=settings.momentum,
            temperature=settings.temperature,
        ).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.AdamW(
            model.query.parameters(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
        )
        log = _Log(out / f"{branch}.csv")
        return cls(branch, settings, out, device, team, model, optimizer, log)

    @property
    def checkpoint(self) -> Path:
        return self.out / f"{self.branch}.checkpoint.pt"

    def load(self) -> None:
        if not self.checkpoint.is_file():
            return
        state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        if state["settings"] != _recipe(self.settings):
            raise ConfigError(
                f"{self.checkpoint} was made with other settings; use the same settings, another "
                "folder, or resume=False"
            )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]

    def save(self) -> None:
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(
            {
                "settings": _recipe(self.settings),
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "step": self.step,
                "seconds": self.seconds,
            },
            partial,
        )
        partial.replace(self.checkpoint)

    def train(
        self, source: QualityBatches | ContentBatches, *, minutes: float | None, workers: int
    ) -> None:
        """Train until the time or the steps are used up, with a checkpoint now and then."""
        self.model.train()
        recent: list[tuple[float, float]] = []
        last_save_s = self.seconds
        earlier_s, began = self.seconds, time.monotonic()
        with _progress() as progress, _prefetched(source, self, workers) as batches:
            task = progress.add_task(self.branch, total=1.0)
            while (done := self._done(minutes)) < 1:
                rate = learning_rate(self.settings, done)
                recent.append(self._update(next(batches), rate))
                self.step += 1
                self.seconds = self.team.agreed(earlier_s + time.monotonic() - began)
                if self.step % _LOG_EVERY == 0 and self.team.leads:
                    loss, accuracy = (
                        sum(column) / len(recent) for column in zip(*recent, strict=True)
                    )
                    self.log.add(self.step, self.seconds, loss, accuracy, rate)
                    progress.update(task, description=f"{self.branch} loss {loss:.2f}")
                    recent.clear()
                if self.seconds - last_save_s >= _CHECKPOINT_EVERY_S and self.team.leads:
                    self.save()
                    last_save_s = self.seconds
                progress.update(task, completed=self._done(minutes))
        if self.team.leads:
            self.save()

    def _done(self, minutes: float | None) -> float:
        if minutes is None:
            return self.step / self.settings.steps
        return self.seconds / (60 * minutes)

    def _update(self, batch: Batch, rate: float) -> tuple[float, float]:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        labels = torch.from_numpy(batch.labels).to(self.device)
        keys = []
        losses, accuracies = [], []
        for scale in batch.scales:
            key = self.model.keys(self._tensor(scale.keys))
            query = self.model.query(self._tensor(scale.queries))
            loss, accuracy = self.model.loss(query, key, labels)
            keys.append(key)
            losses.append(loss)
            accuracies.append(accuracy)
        mean = torch.stack(losses).mean()
        self.optimizer.zero_grad(set_to_none=True)
        mean.backward()
        self.team.average_gradients(self.model.query.parameters())
        self.optimizer.step()
        self.model.follow()
        shared = self.team.gathered(labels)
        for key in keys:
            self.model.enqueue(self.team.gathered(key), shared)
        return float(mean.detach()), float(torch.stack(accuracies).mean())

    def _tensor(self, crops: object) -> torch.Tensor:
        tensor = torch.as_tensor(crops, device=self.device)
        return tensor.to(memory_format=torch.channels_last)

    def export(self) -> Path:
        """Write the slow copy: its features read defocus better in every run that was compared."""
        file = self.out / f"{self.branch}.safetensors"
        if not self.team.leads:
            return file
        tensors = {
            name: tensor.detach().cpu().contiguous()
            for name, tensor in self.model.key.encoder.state_dict().items()
        }
        metadata = {
            "architecture": "CompactEncoder",
            "branch": self.branch,
            "settings": json.dumps(asdict(self.settings)),
            "steps": str(self.step),
            "seconds": f"{self.seconds:.0f}",
        }
        partial = file.with_suffix(".partial")
        save_file(tensors, partial, metadata=metadata)
        partial.replace(file)
        return file


def _recipe(settings: PretrainSettings) -> str:
    """Settings that a resumed run must share; it may be longer."""
    values = asdict(settings)
    del values["steps"]
    return json.dumps(values, sort_keys=True)


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


class _prefetched:  # noqa: N801 - used like a function
    """Batches from ``step`` on, in order, made by threads while the network is busy."""

    def __init__(self, source: QualityBatches | ContentBatches, run: _Run, workers: int) -> None:
        self._source, self._seed, self._step = source, run.settings.seed, run.step
        self._team = run.team
        self._workers = workers
        self._pool = ThreadPoolExecutor(workers)

    def __enter__(self) -> Iterator[Batch]:
        return self._ordered()

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _ordered(self) -> Iterator[Batch]:
        waiting: deque[Future[Batch]] = deque()
        step = self._step
        while True:
            while len(waiting) < _PREFETCH * self._workers:
                number = step * self._team.size + self._team.rank
                waiting.append(self._pool.submit(self._source.make, self._seed, number))
                step += 1
            yield waiting.popleft().result()


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:.0f} %"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
