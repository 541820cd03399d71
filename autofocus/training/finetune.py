"""Train a small network end to end on labelled planes: ranking and regression, early stopping.

A run can be killed at any time and started again with the same command: it goes on from its last
checkpoint with the batches it would have had.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from autofocus.errors import DataError
from autofocus.folders import write_whole
from autofocus.training.finetune_frames import PatchRows
from models.backbones import STAGES, Backbone, ScoreNetwork, pretrained
from models.distribution import fit_distribution
from models.finetuned import PatchSettings, Usual

Float64 = NDArray[np.float64]
Mask = NDArray[np.bool_]

LOG, CHECKPOINT = "training.csv", "checkpoint.pt"

_LOG_FIELDS = ("training", "step", "seconds", "loss", "left_out_loss")
_STOP_SHARE = 1 / 6  # of the stacks says when to stop
_FRAMES_AT_ONCE = 16
_WARM_UP = 0.05
_WEIGHT_DECAY = 1e-2
_AVERAGING = 0.97  # a step; single steps are too noisy to choose among


@dataclass(frozen=True)
class Recipe:
    """With data and weights it decides every number.

    Attributes
    ----------
    backbone : {"resnet18", "mobilenet_v3_small"}
    train_last : int
        How many of the five stages learn, the last ones; the head always does.
    patches : PatchSettings
    steps : int
        Most steps of one training.
    check_every, patience : int
        Steps between two looks at left-out stacks, and how many looks without gain end a training.
    folds : int
        Trainings that each leave some stacks out for the report; 0 reports on the stacks that say
        when to stop, which flatters.
    synthetic : float
        Share of the batches' stacks that are defocused by the point spread function, 0..1.
    ranking : float
        Weight of the ranking beside the regression.
    learning_rate : float
    stacks_a_batch, planes_a_stack : int
        Size of a batch, one random patch a plane.
    seed : int
    """

    backbone: Backbone = "resnet18"
    train_last: int = STAGES
    patches: PatchSettings = field(default_factory=PatchSettings)
    steps: int = 400
    check_every: int = 40
    patience: int = 4
    folds: int = 4
    synthetic: float = 0.25
    ranking: float = 0.5
    learning_rate: float = 1e-3
    stacks_a_batch: int = 4
    planes_a_stack: int = 6
    seed: int = 0


@dataclass(frozen=True)
class Split:
    """Stacks of one training.

    Attributes
    ----------
    test : tuple of str
        Neither trained on nor looked at before the end; none in the last training, which is kept.
    stop : tuple of str
        Say when to stop.
    train : tuple of str
    """

    test: tuple[str, ...]
    stop: tuple[str, ...]
    train: tuple[str, ...]


@dataclass(frozen=True)
class Trained:
    """What came out.

    Attributes
    ----------
    network : ScoreNetwork
        Of the last training, averaged over steps, at its best.
    usual : Usual
        Where its features of all recorded planes lie.
    logits : ndarray of shape (n,)
        Of each recorded plane by the network that left its stack out; NaN where none did.
    steps : tuple of int
        At which each training was best.
    seconds : float
        Of training, earlier parts included.
    """

    network: ScoreNetwork
    usual: Usual
    logits: Float64
    steps: tuple[int, ...]
    seconds: float


def splits_of(stacks: Sequence[str], recipe: Recipe) -> tuple[Split, ...]:
    """One split a fold, each stack once in ``test``; then the one of the network that is kept.

    Raises
    ------
    DataError
        When there are too few stacks.
    """
    names = sorted(set(stacks))
    if len(names) < (3 if recipe.folds else 2):
        raise DataError(
            f"{len(names)} stacks are too few to train on some, stop by others and report on "
            "others still; give three or more, or --folds 0"
        )
    shuffled = [names[i] for i in np.random.default_rng(recipe.seed).permutation(len(names))]
    folds = min(recipe.folds, len(names))
    tests = [tuple(shuffled[fold::folds]) for fold in range(folds)]
    return tuple(_split(test, shuffled) for test in (*tests, ()))


def finetune(
    rows: PatchRows,
    recipe: Recipe,
    out: Path,
    *,
    weights: Path | None = None,
    fresh: bool = False,
    console: Console | None = None,
) -> Trained:
    """Train once for every split.

    Parameters
    ----------
    rows : PatchRows
        Recorded planes first.
    out : Path
        Receives the log, ``training.csv``, and, until `forget`, ``checkpoint.pt``.
    weights : Path, optional
        Of torchvision, see `models.backbones.pretrained`; random if None.
    fresh : bool
        Do not go on from a checkpoint.
    console : Console, optional
        Shows progress and the time left, if no training stops early.

    Raises
    ------
    DataError
        When the checkpoint in ``out`` is of other data or another recipe, or there are too few
        stacks.
    CheckpointError
        For weights that do not fit.
    """
    run = _Run(rows, recipe, splits_of(rows.stacks.tolist(), recipe), weights, out)
    if not fresh:
        run.load()
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("left at most"),
        TimeRemainingColumn(),
        console=console or Console(quiet=True),
        transient=True,
    ) as progress:
        run.train(progress)
    return run.result()


def forget(out: Path) -> None:
    """Remove the checkpoint, once the result is safe."""
    (out / CHECKPOINT).unlink(missing_ok=True)


def loss_of(logits: Tensor, scores: Tensor, groups: Tensor, *, ranking: float) -> Tensor:
    """Regression on the score and ranking within a group.

    Parameters
    ----------
    logits, scores, groups : Tensor of shape (n,)
        Prediction, label in 0..1, and whose plane it is. The regression is the cross-entropy of
        label and predicted score less its least value; the ranking is the logistic loss on pairs
        of C. Burges et al., "Learning to rank using gradient descent", ICML 2005 (RankNet).
    ranking : float
        Its weight.
    """
    best = functional.binary_cross_entropy(scores, scores)
    regression = functional.binary_cross_entropy_with_logits(logits, scores) - best
    better, worse = torch.nonzero(
        (scores[:, None] > scores[None, :]) & (groups[:, None] == groups[None, :]), as_tuple=True
    )
    if len(better) == 0:
        return regression
    return regression + ranking * functional.softplus(logits[worse] - logits[better]).mean()


def _split(test: tuple[str, ...], shuffled: Sequence[str]) -> Split:
    others = [name for name in shuffled if name not in test]
    stopping = max(1, round(_STOP_SHARE * len(others)))
    return Split(test, tuple(others[:stopping]), tuple(others[stopping:]))


@dataclass
class _State:
    """All that a checkpoint keeps, besides the weights of the training that is going on."""

    logits: Tensor
    training: int = 0
    step: int = 0
    seconds: float = 0.0
    best_loss: float = math.inf
    best_step: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    best_steps: list[int] = field(default_factory=list)
    log: list[list[float]] = field(default_factory=list)


class _Run:
    def __init__(
        self,
        rows: PatchRows,
        recipe: Recipe,
        splits: tuple[Split, ...],
        weights: Path | None,
        out: Path,
    ) -> None:
        self.rows, self.recipe, self.splits, self.out = rows, recipe, splits, out
        self._weights = weights
        self._groups = np.unique(_names(rows), return_inverse=True)[1]
        self._fingerprint = _fingerprint(rows, recipe, weights)
        self.state = _State(torch.full((int((~rows.blurred).sum()),), math.nan))
        self._begin()

    def load(self) -> None:
        path = self.out / CHECKPOINT
        if not path.is_file():
            return
        try:
            stored: dict[str, Any] = torch.load(path, weights_only=True)
            same = stored.pop("fingerprint") == self._fingerprint
        except Exception as error:  # whatever a damaged file makes torch stumble over
            raise DataError(f"{path} cannot be read ({error!r}); give --fresh") from error
        if not same:
            raise DataError(
                f"{path} was made with other data, weights or options; give the same ones, another "
                "--out, or --fresh to begin anew"
            )
        network, average, optimizer = (stored.pop(p) for p in ("network", "average", "optimizer"))
        self.state = _State(**stored)
        self._begin()
        self.network.load_state_dict(network)
        self.average.load_state_dict(average)
        self.optimizer.load_state_dict(optimizer)

    def train(self, progress: Progress) -> None:
        total = self.recipe.steps * len(self.splits)
        task = progress.add_task("training", total=total)
        while self.state.training < len(self.splits):
            split = self.splits[self.state.training]
            self._train(split, progress, task)
            self._finish(split)

    def result(self) -> Trained:
        network = self._best()
        recorded = np.flatnonzero(~self.rows.blurred)
        features = self._outputs(network, recorded)[:, 1:].numpy().astype(np.float64)
        mean, scale = features.mean(axis=0), np.maximum(features.std(axis=0), 1e-6)
        try:
            distribution = fit_distribution(
                (features - mean) / scale, self.rows.stacks[recorded].tolist()
            )
        except ValueError as error:
            raise DataError(str(error)) from error
        return Trained(
            network,
            Usual(mean, scale, distribution),
            self.state.logits.numpy().astype(np.float64),
            tuple(self.state.best_steps),
            self.state.seconds,
        )

    def _begin(self) -> None:
        """A network and an optimizer for the training that is next."""
        torch.manual_seed(self.recipe.seed + self.state.training)
        network = (
            ScoreNetwork(self.recipe.backbone)
            if self._weights is None
            else pretrained(self.recipe.backbone, self._weights)
        )
        network.train_last(self.recipe.train_last)
        self.network = network.to(memory_format=torch.channels_last)
        learning = [p for p in self.network.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(learning, lr=0.0, weight_decay=_WEIGHT_DECAY)
        averaging = get_ema_multi_avg_fn(_AVERAGING)
        self.average = AveragedModel(self.network, multi_avg_fn=averaging, use_buffers=True)

    def _train(self, split: Split, progress: Progress, task: Any) -> None:
        train, state = np.isin(self.rows.stacks, split.train), self.state
        earlier_s, began = state.seconds, time.monotonic()
        recent: list[float] = []
        while state.step < self.recipe.steps and not self._waited_enough():
            recent.append(self._step(train))
            state.step += 1
            if state.step % self.recipe.check_every == 0 or state.step == self.recipe.steps:
                left_out = self._check(split)
                state.seconds = earlier_s + time.monotonic() - began
                loss = sum(recent) / len(recent)
                state.log.append([state.training, state.step, state.seconds, loss, left_out])
                recent.clear()
                self._save()
            done = state.training * self.recipe.steps + state.step
            progress.update(task, completed=done, description=self._title(split))

    def _step(self, train: Mask) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate()
        rng = np.random.default_rng([self.recipe.seed, self.state.training, self.state.step])
        chosen = self._draw(train, rng)
        patches = np.stack([_turned(self._patch(row, rng), rng) for row in chosen])
        logits = self.network(_input(patches))[:, 0]
        loss = self._loss(logits, chosen)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.average.update_parameters(self.network)
        return float(loss.detach())

    def _draw(self, train: Mask, rng: np.random.Generator) -> NDArray[np.intp]:
        """Planes of a batch: half of them uniformly from their stacks, half by their label."""
        blurred = train & self.rows.blurred
        kinds = (train & ~self.rows.blurred, blurred)
        chosen = []
        for _ in range(self.recipe.stacks_a_batch):
            kind = kinds[int(blurred.any() and rng.random() < self.recipe.synthetic)]
            group = rng.choice(np.unique(self._groups[kind]))
            own = np.flatnonzero(self._groups == group)
            weight = self.rows.scores[own] + self.rows.scores[own].mean() + 1e-9
            chosen.append(rng.choice(own, self.recipe.planes_a_stack, p=weight / weight.sum()))
        return np.concatenate(chosen)

    def _patch(self, row: int, rng: np.random.Generator) -> NDArray[np.float32]:
        patches = self.rows.patches[row]
        return patches[rng.integers(len(patches))].astype(np.float32)

    def _loss(self, logits: Tensor, rows: NDArray[np.intp]) -> Tensor:
        scores = torch.from_numpy(self.rows.scores[rows]).float()
        groups = torch.from_numpy(self._groups[rows])
        return loss_of(logits, scores, groups, ranking=self.recipe.ranking)

    def _check(self, split: Split) -> float:
        """Loss of the stacks that say when to stop; keeps the network if it is the least so far."""
        rows = np.flatnonzero(np.isin(self.rows.stacks, split.stop) & ~self.rows.blurred)
        average = self.average.module.eval()
        loss = float(self._loss(self._outputs(average, rows)[:, 0], rows))
        if loss < self.state.best_loss or not self.state.best:
            self.state.best_loss, self.state.best_step = loss, self.state.step
            self.state.best = {k: v.clone() for k, v in average.state_dict().items()}
        return loss

    def _finish(self, split: Split) -> None:
        """Score what was left out by the best network of this training, and go to the next."""
        state, last = self.state, len(self.splits) - 1
        asked = split.test or (split.stop if not self.recipe.folds else ())
        rows = np.flatnonzero(np.isin(self.rows.stacks, asked) & ~self.rows.blurred)
        if len(rows):
            state.logits[rows] = self._outputs(self._best(), rows)[:, 0]
        state.best_steps.append(state.best_step)
        state.training += 1
        if state.training <= last:
            state.step, state.best_step, state.best_loss, state.best = 0, 0, math.inf, {}
            self._begin()
        self._save()

    def _best(self) -> ScoreNetwork:
        network = ScoreNetwork(self.recipe.backbone)
        network.load_state_dict(self.state.best)
        return network.eval()

    def _outputs(self, network: torch.nn.Module, rows: NDArray[np.intp]) -> Tensor:
        """Means over the patches of each plane."""
        shape = self.rows.patches.shape
        with torch.inference_mode():
            means = [
                network(_input(self.rows.patches[some].reshape(-1, *shape[2:])))
                .reshape(len(some), shape[1], -1)
                .mean(dim=1)
                for some in np.array_split(rows, math.ceil(len(rows) / _FRAMES_AT_ONCE))
            ]
            return torch.cat(means)

    def _rate(self) -> float:
        """Linear warm-up, then a cosine to 1 %."""
        done = self.state.step / self.recipe.steps
        warm = min(1.0, (done + 1 / self.recipe.steps) / _WARM_UP)
        return self.recipe.learning_rate * warm * (0.505 + 0.495 * math.cos(math.pi * done))

    def _waited_enough(self) -> bool:
        looks = (self.state.step - self.state.best_step) // self.recipe.check_every
        return bool(self.state.best) and looks >= self.recipe.patience

    def _title(self, split: Split) -> str:
        kind = f"without {len(split.test)} stacks" if split.test else "to keep"
        return f"training {self.state.training + 1} of {len(self.splits)}, {kind}"

    def _save(self) -> None:
        stored = {
            **vars(self.state),
            "fingerprint": self._fingerprint,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        buffer, text = io.BytesIO(), io.StringIO()
        torch.save(stored, buffer)
        csv.writer(text, lineterminator="\n").writerows(
            [_LOG_FIELDS, *([f"{value:.6g}" for value in row] for row in self.state.log)]
        )
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            write_whole(self.out / CHECKPOINT, buffer.getvalue())
            write_whole(self.out / LOG, text.getvalue().encode())
        except OSError as error:
            raise DataError(f"cannot write to {self.out}: {error}") from error


def _names(rows: PatchRows) -> NDArray[np.str_]:
    """Pairs are ranked among recorded planes of a stack, and among its blurred ones."""
    return np.char.add(rows.stacks, np.where(rows.blurred, "\n", ""))


def _fingerprint(rows: PatchRows, recipe: Recipe, weights: Path | None) -> str:
    digest = hashlib.sha256(json.dumps(asdict(recipe), sort_keys=True).encode())
    digest.update("\n".join(rows.stacks.tolist()).encode())
    for values in (rows.patches, rows.scores):
        digest.update(np.ascontiguousarray(values).data)
    if weights is not None:
        try:
            digest.update(weights.read_bytes())
        except OSError as error:
            raise DataError(f"cannot read {weights}: {error}") from error
    return digest.hexdigest()


def _turned(patch: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """One of the eight ways to lay a square, and another gain and offset."""
    turned = np.rot90(patch, int(rng.integers(4)))
    if rng.random() < 0.5:
        turned = turned.T
    gain, offset = rng.uniform(0.85, 1.15), rng.uniform(-0.05, 0.05)
    return np.clip(turned * gain + offset, 0, 1)


def _input(patches: NDArray[np.floating[Any]]) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(patches, np.float32))[:, None]
    return tensor.contiguous(memory_format=torch.channels_last)
