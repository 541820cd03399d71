"""What each score says of every plane of simulated stacks, and how well that is focus.

Specimens, optics and seeds are disjoint from those of training. The truth is the distance of the
plane from the in-focus plane of the simulation, in depths of field.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from scipy.stats import spearmanr

from autofocus.training.default_head import score_of
from autofocus.training.defocus import random_objective
from autofocus.training.labelled import sampling_of
from devices.simulated.optics import depth_of_field_um
from devices.simulated.render import Renderer, camera_counts
from devices.simulated.specimens import KINDS, make_specimen
from models.scorer import Scorer

Float64 = NDArray[np.float64]
LoadScorer = Callable[[str], Scorer]

FIRST_SEED = 2_000_000  # training counts up from 0, the lock benchmark from 1 000 000
PLANES = 41
RANGE_DOF = 10.0
SIDE_PX = 384
SPECIMENS = tuple(kind for kind in KINDS if not kind.startswith("empty"))
_BOOTSTRAPS = 2000


@dataclass(frozen=True)
class Light:
    """What a camera gets to see.

    Attributes
    ----------
    photons : float
        A pixel in the specimen in focus; of the empty field in transmitted light.
    background : float
        Photons a pixel everywhere.
    read_noise_e : float
        Electrons.
    bleaching : float
        Share of the light that every exposure takes away.
    flicker : float
        Standard deviation of the lamp, as a share.
    """

    photons: float
    background: float = 6.0
    read_noise_e: float = 2.0
    bleaching: float = 0.0
    flicker: float = 0.0


CONDITIONS: Mapping[str, Light] = {
    "1000 photons": Light(1000.0),
    "300 photons": Light(300.0),
    "100 photons": Light(100.0),
    "8 photons": Light(8.0),
    "bleaching": Light(300.0, bleaching=0.04),
    "flicker": Light(300.0, flicker=0.15),
}


@dataclass(frozen=True)
class Sweep:
    """One scorer over one stack.

    Attributes
    ----------
    defocus_dof : ndarray of shape (planes,)
        Signed distance of each plane.
    score : ndarray of shape (planes,)
    estimate_dof : ndarray of shape (planes,)
        |defocus| as the scorer estimates it; NaN where it does not.
    """

    scorer: str
    kind: str
    seed: int
    condition: str
    defocus_dof: Float64
    score: Float64
    estimate_dof: Float64

    @property
    def wanted(self) -> Float64:
        """The label."""
        return score_of(self.defocus_dof)

    @property
    def srcc(self) -> float:
        """Rank correlation of score and label; 0 for a constant score."""
        if np.ptp(self.score) == 0:
            return 0.0
        return float(spearmanr(self.score, self.wanted).statistic)

    @property
    def plane_error_dof(self) -> float:
        """Distance of the plane with the highest score from focus."""
        return float(abs(self.defocus_dof[np.argmax(self.score)]))


def simulate(kind: str, seed: int, light: Light) -> tuple[list[NDArray[np.uint16]], Float64, float]:
    """One stack: frames, signed distances in depths of field, and how the camera samples.

    The planes lie evenly within +-10 depths of field; focus lies anywhere between two of them.
    """
    rng = np.random.default_rng([seed, 0x53EE9])
    objective = random_objective(rng)
    specimen = make_specimen(
        kind, shape=(SIDE_PX, SIDE_PX), pixel_size_um=objective.pixel_size_um, rng=rng
    )
    renderer = Renderer(specimen, objective, condenser_na_ratio=float(rng.uniform(0.3, 0.9)))
    step = 2 * RANGE_DOF / (PLANES - 1)
    distances = np.linspace(-RANGE_DOF, RANGE_DOF, PLANES) + rng.uniform(-step / 2, step / 2)
    dof_um = depth_of_field_um(objective)
    frames = []
    for exposure, distance in enumerate(distances):
        lamp = math.exp(rng.normal(0, light.flicker)) * (1 - light.bleaching) ** exposure
        expected = light.photons * lamp * renderer.relative(float(distance) * dof_um)
        frames.append(
            camera_counts(
                (expected + np.float32(light.background)).astype(np.float32),
                rng=rng,
                read_noise_e=light.read_noise_e,
            )
        )
    return frames, distances, sampling_of(objective)


def run_sweeps(
    scorers: Sequence[str],
    load_scorer: LoadScorer,
    *,
    conditions: Sequence[str],
    seeds: int,
    kinds: Sequence[str] = SPECIMENS,
    jobs: int = 1,
) -> list[Sweep]:
    """Score every plane of ``seeds`` stacks of each kind under each condition."""
    todo = [(c, k, FIRST_SEED + i) for c in conditions for k in kinds for i in range(seeds)]
    with joblib.Parallel(n_jobs=jobs, return_as="generator") as parallel:
        done: Iterable[list[Sweep]] = parallel(
            joblib.delayed(_sweep)(*case, tuple(scorers), load_scorer) for case in todo
        )
        return [sweep for found in track(done, "stacks", total=len(todo)) for sweep in found]


def _sweep(
    condition: str, kind: str, seed: int, scorers: tuple[str, ...], load_scorer: LoadScorer
) -> list[Sweep]:
    torch.set_num_threads(1)
    frames, distances, sampling = simulate(kind, seed, CONDITIONS[condition])
    found = []
    for name in scorers:
        scorer = load_scorer(name)
        said = [scorer.score(frame, sampling=sampling) for frame in frames]
        estimates = [math.nan if s.defocus_dof is None else s.defocus_dof for s in said]
        scores = np.array([s.score for s in said])
        found.append(Sweep(name, kind, seed, condition, distances, scores, np.array(estimates)))
    return found


def pooled_correlation(sweeps: Sequence[Sweep]) -> float:
    """Correlation of score and label over all planes of all stacks: its meaning by itself."""
    return _pooled([(sweep.score, sweep.wanted) for sweep in sweeps])


def ahead_by(sweeps: Sequence[Sweep], others: Sequence[Sweep]) -> tuple[float, float, float]:
    """Difference of the pooled correlations on the same stacks, with a 95 % interval.

    A paired bootstrap over stacks, 2000 draws.
    """
    mine = [(sweep.score, sweep.wanted) for sweep in sweeps]
    theirs = [(sweep.score, sweep.wanted) for sweep in others]
    rng = np.random.default_rng(0)
    differences = []
    for _ in range(_BOOTSTRAPS):
        drawn = rng.integers(len(mine), size=len(mine))
        differences.append(_pooled([mine[i] for i in drawn]) - _pooled([theirs[i] for i in drawn]))
    low, high = np.percentile(differences, (2.5, 97.5))
    return _pooled(mine) - _pooled(theirs), float(low), float(high)


def _pooled(pairs: Sequence[tuple[Float64, Float64]]) -> float:
    score = np.concatenate([pair[0] for pair in pairs])
    wanted = np.concatenate([pair[1] for pair in pairs])
    return float(np.corrcoef(score, wanted)[0, 1])


def table(sweeps: Sequence[Sweep]) -> str:
    """Markdown: one row for each scorer under each condition, the first scorer is the reference."""
    lines = [
        "| light | scorer | stacks | SRCC mean | SRCC worst | pooled correlation | reference ahead "
        "by (95 %) | error of the estimated distance (DOF) | plane error, DOF: median | 95th | "
        "within 1/2 | within 1 |",
        "|" + "---|" * 12,
    ]
    for condition in dict.fromkeys(sweep.condition for sweep in sweeps):
        here = [sweep for sweep in sweeps if sweep.condition == condition]
        by_scorer = {
            name: [sweep for sweep in here if sweep.scorer == name]
            for name in dict.fromkeys(sweep.scorer for sweep in here)
        }
        reference = next(iter(by_scorer.values()))
        for name, rows in by_scorer.items():
            lines.append(f"| {condition} | {name} | " + _cells(rows, reference))
    return "\n".join(lines)


def _cells(rows: Sequence[Sweep], reference: Sequence[Sweep]) -> str:
    srcc = np.array([row.srcc for row in rows])
    errors = np.array([row.plane_error_dof for row in rows])
    ahead = "-"
    if rows[0].scorer != reference[0].scorer:
        ahead = "{:+.3f} ({:+.3f}..{:+.3f})".format(*ahead_by(reference, rows))
    return (
        f"{len(rows)} | {srcc.mean():.3f} | {srcc.min():.2f} | {pooled_correlation(rows):.3f} | "
        f"{ahead} | {_distance_error(rows)} | {np.median(errors):.2f} | "
        f"{np.percentile(errors, 95):.2f} | {np.mean(errors <= 0.5):.0%} | "
        f"{np.mean(errors <= 1):.0%} |"
    )


def _distance_error(rows: Sequence[Sweep]) -> str:
    errors = np.concatenate([np.abs(row.estimate_dof - np.abs(row.defocus_dof)) for row in rows])
    return "-" if np.isnan(errors).any() else f"{np.median(errors):.2f}"


def write_csv(sweeps: Sequence[Sweep], path: Path) -> None:
    """Write every plane, one a line."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["condition", "scorer", "kind", "seed", "defocus_dof", "score", "estimate_dof"]
        )
        for sweep in sweeps:
            for plane in zip(sweep.defocus_dof, sweep.score, sweep.estimate_dof, strict=True):
                writer.writerow([sweep.condition, sweep.scorer, sweep.kind, sweep.seed, *plane])
