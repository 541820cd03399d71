"""One training run of an encoder: resumable, seeded, logged, with progress and time left.

What is learnt is a `Lesson`; everything around it (checkpoints, CSV log, learning rate, batches
made ahead, several processes) is here, once.
"""

from __future__ import annotations

import csv
import json
import math
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors.torch import save_file
from torch import Tensor, nn

from autofocus.errors import ConfigError
from autofocus.training.team import Team

_LOG_EVERY = 10
_CHECKPOINT_EVERY_S = 120.0
_PREFETCH = 3  # batches made ahead of the network, for each worker
_LEAST_SHARE = 0.01  # of the learning rate, at both ends of a run


class Schedule(Protocol):
    """Settings that every run has; a frozen dataclass.

    `autofocus.training.pretrain.PretrainSettings` says what each means.
    """

    @property
    def learning_rate(self) -> float: ...  # noqa: D102
    @property
    def weight_decay(self) -> float: ...  # noqa: D102
    @property
    def warm_up(self) -> float: ...  # noqa: D102
    @property
    def steps(self) -> int: ...  # noqa: D102
    @property
    def seed(self) -> int: ...  # noqa: D102


Made = TypeVar("Made")


class Lesson(Protocol[Made]):
    """What an encoder learns, a step at a time.

    Attributes
    ----------
    name : str
        Of the files: ``<name>.safetensors``, ``<name>.csv``, ``<name>.checkpoint.pt``.
    figure : str
        Column of the log for the number beside the loss.
    largest_gradient : float
        Norm that the gradients are scaled down to; infinite for no limit.
    state : nn.Module
        Everything a resumed run needs, in training mode.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def figure(self) -> str: ...  # noqa: D102
    @property
    def largest_gradient(self) -> float: ...  # noqa: D102
    @property
    def state(self) -> nn.Module: ...  # noqa: D102

    def learning(self) -> Iterable[nn.Parameter]:
        """Parameters that the optimiser changes."""

    def batch(self, number: int, done: float) -> Made:
        """Make a batch, always the same one for a number and a share ``done`` of the run."""

    def loss(self, batch: Made) -> tuple[Tensor, float]:
        """Loss to be minimised, and the figure for the log."""

    def after_step(self) -> None:
        """Do what follows the optimiser's step."""

    def encoder(self) -> nn.Module:
        """The network that is exported."""


def train(
    lesson: Lesson[Any],
    schedule: Schedule,
    out: Path,
    *,
    minutes: float | None,
    workers: int,
    resume: bool,
    team: Team,
) -> Path:
    """Train, with a checkpoint now and then, and return the safetensors file of the encoder.

    Parameters
    ----------
    minutes : float or None
        Training time in all, resumed parts included; the learning rate is annealed over it.
        None trains ``schedule.steps`` steps instead.
    workers : int
        Threads that make batches.
    resume : bool
        Go on from a checkpoint in ``out``; False starts anew.

    Raises
    ------
    ConfigError
        When the checkpoint in ``out`` was made with other settings.
    """
    out.mkdir(parents=True, exist_ok=True)
    run = _Run(lesson, schedule, out, team)
    if resume:
        run.load()
    if team.leads:
        run.log.keep_until(run.step)
    run.train(minutes=minutes, workers=workers)
    return run.export()


def learning_rate(schedule: Schedule, done: float) -> float:
    """Return the rate after a share ``done`` (0..1): linear warm-up, then a cosine to 1 %."""
    if done < schedule.warm_up:
        return schedule.learning_rate * max(done / schedule.warm_up, _LEAST_SHARE)
    annealed = (done - schedule.warm_up) / (1 - schedule.warm_up)
    cosine = 0.5 * (1 + math.cos(math.pi * min(annealed, 1.0)))
    return schedule.learning_rate * (_LEAST_SHARE + (1 - _LEAST_SHARE) * cosine)


class _Log:
    """One CSV row every few steps, with the means since the last."""

    def __init__(self, file: Path, figure: str) -> None:
        self._file = file
        self._fields = ("step", "seconds", "loss", figure, "learning_rate")

    def keep_until(self, step: int) -> None:
        """Drop rows after ``step``: those steps are about to be repeated."""
        rows: list[dict[str, str]] = []
        if self._file.is_file() and step > 0:
            with self._file.open(newline="", encoding="utf-8") as source:
                rows = [row for row in csv.DictReader(source) if int(row["step"]) <= step]
        with self._file.open("w", newline="", encoding="utf-8") as target:
            writer = csv.DictWriter(target, self._fields)
            writer.writeheader()
            writer.writerows(rows)

    def add(self, *row: float) -> None:
        with self._file.open("a", newline="", encoding="utf-8") as target:
            csv.writer(target).writerow(f"{value:.6g}" for value in row)


class _Run:
    """The state of one run."""

    def __init__(self, lesson: Lesson[Any], schedule: Schedule, out: Path, team: Team) -> None:
        self.lesson, self.schedule, self.out, self.team = lesson, schedule, out, team
        self.optimizer = torch.optim.AdamW(
            lesson.learning(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay
        )
        self.log = _Log(out / f"{lesson.name}.csv", lesson.figure)
        self.step = 0
        self.seconds = 0.0

    @property
    def checkpoint(self) -> Path:
        return self.out / f"{self.lesson.name}.checkpoint.pt"

    def load(self) -> None:
        if not self.checkpoint.is_file():
            return
        state = torch.load(self.checkpoint, map_location=self.team.device, weights_only=True)
        if state["settings"] != _recipe(self.schedule):
            was, now = json.loads(state["settings"]), json.loads(_recipe(self.schedule))
            differing = sorted(name for name in was | now if was.get(name) != now.get(name))
            raise ConfigError(
                f"{self.checkpoint} was made with other settings ({', '.join(differing)}), or by "
                "another version of this program; use the same settings, another folder, or begin "
                "anew with --fresh (resume=False)"
            )
        self.lesson.state.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]

    def save(self) -> None:
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(
            {
                "settings": _recipe(self.schedule),
                "model": self.lesson.state.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "step": self.step,
                "seconds": self.seconds,
            },
            partial,
        )
        partial.replace(self.checkpoint)

    def train(self, *, minutes: float | None, workers: int) -> None:
        """Train until the time or the steps are used up."""
        recent: list[tuple[float, float]] = []
        last_save_s = self.seconds
        earlier_s, began = self.seconds, time.monotonic()
        ahead = _Ahead(self, minutes, workers)
        with _progress() as progress, ahead.batches() as batches:
            task = progress.add_task(self.lesson.name, total=1.0)
            while (done := self.done(self.step, minutes)) < 1:
                rate = learning_rate(self.schedule, done)
                recent.append(self._update(next(batches), rate))
                self.step += 1
                self.seconds = self.team.agreed(earlier_s + time.monotonic() - began)
                if self.step % _LOG_EVERY == 0 and self.team.leads:
                    loss, figure = (
                        sum(column) / len(recent) for column in zip(*recent, strict=True)
                    )
                    self.log.add(self.step, self.seconds, loss, figure, rate)
                    progress.update(task, description=f"{self.lesson.name} loss {loss:.2f}")
                    recent.clear()
                if self.seconds - last_save_s >= _CHECKPOINT_EVERY_S and self.team.leads:
                    self.save()
                    last_save_s = self.seconds
                progress.update(task, completed=self.done(self.step, minutes))
        if self.team.leads:
            self.save()

    def done(self, step: int, minutes: float | None) -> float:
        """Share of the run before a step."""
        return step / self.schedule.steps if minutes is None else self.seconds / (60 * minutes)

    def number(self, step: int) -> int:
        """Which of all batches of the team this process learns from in a step."""
        return step * self.team.size + self.team.rank

    def _update(self, batch: Any, rate: float) -> tuple[float, float]:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        # What a step leaves to chance, a resumed run leaves to the same chance.
        torch.manual_seed(_seed(self.schedule.seed, self.number(self.step)))
        loss, figure = self.lesson.loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.team.average_gradients(self.lesson.learning())
        nn.utils.clip_grad_norm_(self.lesson.learning(), self.lesson.largest_gradient)
        self.optimizer.step()
        self.lesson.after_step()
        return float(loss.detach()), figure

    def export(self) -> Path:
        """Write the encoder."""
        file = self.out / f"{self.lesson.name}.safetensors"
        if not self.team.leads:
            return file
        tensors = {
            name: tensor.detach().cpu().contiguous()
            for name, tensor in self.lesson.encoder().state_dict().items()
        }
        metadata = {
            "architecture": "CompactEncoder",
            "branch": self.lesson.name,
            "settings": _recipe(self.schedule),
            "steps": str(self.step),
            "seconds": f"{self.seconds:.0f}",
        }
        partial = file.with_suffix(".partial")
        save_file(tensors, partial, metadata=metadata)
        partial.replace(file)
        return file


def _seed(seed: int, number: int) -> int:
    """Of 32 bits, all that torch's generator on the CPU heeds."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def _recipe(schedule: Schedule) -> str:
    """Settings that a resumed run must share; it may be longer."""
    values = asdict(schedule)  # type: ignore[call-overload]
    del values["steps"]
    return json.dumps(values, sort_keys=True)


@dataclass(frozen=True)
class _Ahead:
    """Batches from the run's step on, in order, made by threads while the network is busy."""

    run: _Run
    minutes: float | None
    workers: int

    @contextmanager
    def batches(self) -> Iterator[Iterator[Any]]:
        pool = ThreadPoolExecutor(self.workers)
        try:
            yield self._ordered(pool)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _ordered(self, pool: ThreadPoolExecutor) -> Iterator[Any]:
        run, waiting = self.run, deque[Future[Any]]()
        step = run.step
        while True:
            while len(waiting) < _PREFETCH * self.workers:
                done = run.done(step, self.minutes)
                waiting.append(pool.submit(run.lesson.batch, run.number(step), done))
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
