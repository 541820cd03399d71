"""What each score says of every plane of simulated stacks, and how well that is focus.

Specimens, optics and seeds are disjoint from those of training. The truth is the distance of the
plane from the in-focus plane of the simulation, in depths of field.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import joblib
import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from scipy.stats import spearmanr

from autofocus.training.default_head import score_of
from autofocus.training.defocus import random_objective
from autofocus.training.labelled import few_beads, sampling_of
from devices.simulated.optics import depth_of_field_um
from devices.simulated.render import Renderer, camera_counts
from devices.simulated.specimens import KINDS, Specimen, make_specimen
from models.scorer import Scorer

Float64 = NDArray[np.float64]
LoadScorer = Callable[[str], Scorer]

FIRST_SEED = 2_000_000  # training counts up from 0, the lock benchmark from 1 000 000
PLANES = 41
RANGE_DOF = 10.0
SIDE_PX = 384
SPECIMENS = tuple(kind for kind in KINDS if not kind.startswith("empty"))
TRANSMITTED = ("absorption", "phase")
FLUORESCENT = tuple(kind for kind in SPECIMENS if kind not in TRANSMITTED)
ORACLE = "oracle"
_SPARSE_SHARE = 0.03
_BOOTSTRAPS = 2000


@dataclass(frozen=True)
class Condition:
    """What a camera gets to see.

    Attributes
    ----------
    photons : float
        A pixel in the specimen in focus; of the empty field in transmitted light.
    kinds : tuple of str
        Specimens.
    background : float
        Photons a pixel everywhere.
    read_noise_e : float
        Electrons.
    bleaching : float
        Share of the light that every exposure takes away.
    flicker : float
        Standard deviation of the lamp, as a share.
    sparse : bool
        Leave a disc of specimen that covers 3 % of the frame.
    few_beads : int
        This many beads are all there is; 0 for the specimens as they are.
    side_px : int
        Of the frame.
    """

    photons: float
    kinds: tuple[str, ...] = SPECIMENS
    background: float = 6.0
    read_noise_e: float = 2.0
    bleaching: float = 0.0
    flicker: float = 0.0
    sparse: bool = False
    few_beads: int = 0
    side_px: int = SIDE_PX


CONDITIONS: Mapping[str, Condition] = MappingProxyType(
    {
        "1000 photons": Condition(1000.0),
        "300 photons": Condition(300.0),
        "100 photons": Condition(100.0),
        "8 photons": Condition(8.0, FLUORESCENT),
        "bleaching": Condition(300.0, FLUORESCENT, bleaching=0.04),
        "flicker": Condition(300.0, flicker=0.15),
        "sparse": Condition(300.0, FLUORESCENT, sparse=True),
        "transmitted": Condition(1000.0, TRANSMITTED),
        "few beads": Condition(300.0, ("beads",), few_beads=2, side_px=1024),
    }
)


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
    sharp_dof : tuple of float
        As of `Stack`.
    """

    scorer: str
    kind: str
    seed: int
    condition: str
    defocus_dof: Float64
    score: Float64
    estimate_dof: Float64
    sharp_dof: tuple[float, ...]

    @property
    def wanted(self) -> Float64:
        """The label."""
        return score_of(self.defocus_dof)

    @property
    def wanted_with_dust(self) -> Float64:
        """The label of the nearest plane in focus, be it that of dust."""
        return score_of(np.abs(self.defocus_dof[:, None] - self.sharp_dof).min(axis=1))

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


@dataclass(frozen=True)
class Stack:
    """One simulated stack.

    Attributes
    ----------
    frames : tuple of ndarray of shape (height, width), uint16
    defocus_dof : ndarray of shape (planes,)
        Signed distance of each plane; evenly within +-10, focus anywhere between two planes.
    sampling : float
        Camera pixel as a multiple of wavelength / NA.
    sharp : ndarray of shape (height, width), float32
        The image in focus without noise, which nobody but the oracle knows.
    sharp_dof : tuple of float
        Distances at which something is in focus: the specimen, 0, and dust on another plane.
    """

    frames: tuple[NDArray[np.uint16], ...]
    defocus_dof: Float64
    sampling: float
    sharp: NDArray[np.float32]
    sharp_dof: tuple[float, ...]


def simulate(kind: str, seed: int, condition: Condition, *, planes: int = PLANES) -> Stack:
    """Render a random specimen through a random objective; the same for everyone."""
    rng = np.random.default_rng([seed, 0x53EE9])
    objective = random_objective(rng)
    specimen = _specimen(kind, condition, objective.pixel_size_um, rng)
    if condition.sparse:
        specimen = _sparse(specimen, rng)
    renderer = Renderer(specimen, objective, condenser_na_ratio=float(rng.uniform(0.3, 0.9)))
    step = 2 * RANGE_DOF / (planes - 1)
    distances = np.linspace(-RANGE_DOF, RANGE_DOF, planes) + rng.uniform(-step / 2, step / 2)
    dof_um = depth_of_field_um(objective)
    frames = []
    for exposure, distance in enumerate(distances):
        lamp = math.exp(rng.normal(0, condition.flicker)) * (1 - condition.bleaching) ** exposure
        light = condition.photons * lamp * renderer.relative(float(distance) * dof_um)
        expected = (light + np.float32(condition.background)).astype(np.float32)
        frames.append(camera_counts(expected, rng=rng, read_noise_e=condition.read_noise_e))
    dust_um = renderer.layers_um[1:] if kind == "debris" else ()
    return Stack(
        tuple(frames),
        distances,
        sampling_of(objective),
        renderer.relative(0.0),
        (0.0, *(layer_um / dof_um for layer_um in dust_um)),
    )


def _specimen(
    kind: str, condition: Condition, pixel_size_um: float, rng: np.random.Generator
) -> Specimen:
    side = condition.side_px
    if condition.few_beads:
        return few_beads(side, pixel_size_um, count=condition.few_beads, rng=rng)
    return make_specimen(kind, shape=(side, side), pixel_size_um=pixel_size_um, rng=rng)


def _sparse(specimen: Specimen, rng: np.random.Generator) -> Specimen:
    """Blot out everything but a disc around some of what is sharp, wherever in the frame."""
    side = specimen.shape[0]
    y, x = np.indices((side, side))
    radius = side * math.sqrt(_SPARSE_SHARE / math.pi)
    center = rng.uniform(radius, side - radius, 2)
    inside = (np.hypot(y - center[0], x - center[1]) < radius).astype(np.float32)
    _, sharp = min(specimen.layers, key=lambda layer: abs(layer[0]))
    light = sharp.ravel().astype(np.float64)
    something = divmod(int(rng.choice(light.size, p=light / light.sum())), side)
    # The specimen continues at the opposite edge, so it may be moved any way.
    shift = tuple(np.rint(center - something).astype(int))
    layers = tuple(
        (depth, np.roll(image, shift, axis=(0, 1)) * inside) for depth, image in specimen.layers
    )
    return replace(specimen, layers=layers)


def run_sweeps(
    scorers: Sequence[str],
    load_scorer: LoadScorer,
    *,
    conditions: Sequence[str],
    seeds: int,
    planes: int = PLANES,
    jobs: int = 1,
) -> list[Sweep]:
    """Score every plane of ``seeds`` stacks of each kind under each condition.

    The last scorer is an oracle, which correlates every frame with the noise-free image in focus.
    """
    todo = [
        (name, kind, FIRST_SEED + i)
        for name in conditions
        for kind in CONDITIONS[name].kinds
        for i in range(seeds)
    ]
    with joblib.Parallel(n_jobs=jobs, return_as="generator") as parallel:
        done: Iterable[list[Sweep]] = parallel(
            joblib.delayed(_sweep)(*case, planes, tuple(scorers), load_scorer) for case in todo
        )
        return [sweep for found in track(done, "stacks", total=len(todo)) for sweep in found]


def _sweep(
    condition: str,
    kind: str,
    seed: int,
    planes: int,
    scorers: tuple[str, ...],
    load_scorer: LoadScorer,
) -> list[Sweep]:
    torch.set_num_threads(1)
    stack = simulate(kind, seed, CONDITIONS[condition], planes=planes)

    def sweep(name: str, scores: list[float], estimates: list[float]) -> Sweep:
        told = np.array(scores), np.array(estimates)
        return Sweep(name, kind, seed, condition, stack.defocus_dof, *told, stack.sharp_dof)

    found = []
    for name in scorers:
        scorer = load_scorer(name)
        said = [scorer.score(frame, sampling=stack.sampling) for frame in stack.frames]
        estimates = [math.nan if s.defocus_dof is None else s.defocus_dof for s in said]
        found.append(sweep(name, [s.score for s in said], estimates))
    known = [float(np.corrcoef(f.ravel(), stack.sharp.ravel())[0, 1]) for f in stack.frames]
    return [*found, sweep(ORACLE, known, [math.nan] * planes)]


def pooled_correlation(sweeps: Sequence[Sweep]) -> float:
    """Correlation of score and label over all planes of all stacks: its meaning by itself."""
    return _pooled([(sweep.score, sweep.wanted) for sweep in sweeps])


def correlation_with_dust(sweeps: Sequence[Sweep]) -> float:
    """The same, where dust in focus counts as in focus, as it does for a search."""
    return _pooled([(sweep.score, sweep.wanted_with_dust) for sweep in sweeps])


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
        "| light | scorer | stacks | SRCC mean | SRCC worst | pooled correlation | dust counts "
        "as in focus | reference ahead by (95 %) | error of the estimated distance (DOF) | "
        "plane error, DOF: median | 95th | within 1/2 | within 1 |",
        "|" + "---|" * 13,
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
        f"{correlation_with_dust(rows):.3f} | {ahead} | {_distance_error(rows)} | "
        f"{np.median(errors):.2f} | {np.percentile(errors, 95):.2f} | "
        f"{np.mean(errors <= 0.5):.0%} | {np.mean(errors <= 1):.0%} |"
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
