"""What a score of absolute meaning says around focus: the numbers that the search expects of it.

`autofocus.search.known_score` holds them, `autofocus.search.pinpoint` those of the referee. After
new weights: `autofocus bench curves -o OUT` prints them anew, from simulated stacks that neither
training nor the published tables use.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import joblib
import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track

from autofocus.bench.search_cases import FAULTS, FLUORESCENT, SCOPES, Case
from autofocus.search import known_score, pinpoint
from devices.simulated.settings import FocusDraw, Light, Mounting, Scene, Sensor
from devices.simulated.world import World
from models.scorer import Scorer

Float64 = NDArray[np.float64]
LoadScorer = Callable[[str], Scorer]

TUNING_SEED = 3_900_000
SIDE_PX = 384
EXPOSURE_MS = 10.0
FAULTS_OF_FRAMES = ("flicker", "uneven light", "hot pixels", "tilt", "debris", "dim")
# Beyond this a score is not of the peak any more: what stands out there is a hump.
HUMP_DOF = 6.0
HALF_WIDTHS_DOF = np.geomspace(0.5, 12.0, 60)
OFFSETS_DOF = np.linspace(-0.6, 0.6, 13)
# Of the referee's measures, for a bell.
LEAST_CLEAR = 7
REFEREE_WIDTHS_DOF = np.geomspace(0.1, 8.0, 60)
REFEREE_EXPONENTS = np.geomspace(0.25, 8.0, 21)


@dataclass(frozen=True)
class Curve:
    """One simulated stack, scored.

    Attributes
    ----------
    defocus_dof : tuple of float
        Distance from the plane with most detail in the noise-free frame; some come twice.
    score, referee : tuple of float
    layers_dof : tuple of float
        Where the layers of a thick specimen are, of which any may be focused.
    """

    case: Case
    defocus_dof: tuple[float, ...]
    score: tuple[float, ...]
    referee: tuple[float, ...]
    layers_dof: tuple[float, ...]


def positions_dof() -> tuple[float, ...]:
    """Dense near focus, sparse far away; the last few repeat positions on top and flanks."""
    near = np.arange(-2.0, 2.01, 0.25)
    away = np.array([2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 8.0, 10.0, 13.0, 18.0, 25.0])
    again = np.array([0.0, -1.0, 1.5, -2.0, 18.0])
    return tuple(float(z) for z in np.concatenate([near, away, -away, again]))


def cases(seeds: int) -> list[Case]:
    """Every kind of specimen under every microscope, and every fault that a frame shows."""
    plain = [
        (scope, kind, "none", i)
        for i in range(seeds)
        for scope in SCOPES
        for kind in (*FLUORESCENT, "absorption")
    ]
    faulty = [
        (scope, FLUORESCENT[(i + j) % len(FLUORESCENT)], fault, 1000 + i)
        for i in range(seeds)
        for j, fault in enumerate(FAULTS_OF_FRAMES)
        for scope in SCOPES
    ]
    return [_case(*drawn) for drawn in plain + faulty]


def _case(scope: str, kind: str, fault: str, index: int) -> Case:
    seed = TUNING_SEED + index
    rng = np.random.default_rng([seed, *(ord(letter) for letter in scope + kind + fault)])
    photons = float(np.exp(rng.uniform(np.log(30), np.log(1000))))
    if fault == "dim":
        photons = float(rng.uniform(8, 20))
    kind = "debris" if fault == "debris" else kind
    return Case("curves", scope, kind, photons, fault, int(rng.integers(2**31)), 0.0)


def record(
    todo: Sequence[Case], scorer: str, load_scorer: LoadScorer, *, log: Path, jobs: int = 1
) -> list[Curve]:
    """Score the stack of every case; what ``log`` holds is not scored again."""
    done = list(read(log)) if log.is_file() else []
    had = {curve.case for curve in done}
    left = [case for case in todo if case not in had]
    with joblib.Parallel(n_jobs=jobs, return_as="generator") as parallel, log.open("a") as lines:
        found: Iterable[Curve] = parallel(
            joblib.delayed(_record)(case, scorer, load_scorer) for case in left
        )
        for curve in track(found, "stacks", total=len(left)):
            lines.write(json.dumps(asdict(curve)) + "\n")
            lines.flush()
            done.append(curve)
    return done


def read(log: Path) -> Iterable[Curve]:
    """Curves recorded earlier."""
    for line in log.read_text(encoding="utf-8").splitlines():
        values = json.loads(line)
        yield Curve(
            Case(**values["case"]),
            *(tuple(values[name]) for name in ("defocus_dof", "score", "referee", "layers_dof")),
        )


def _record(case: Case, name: str, load_scorer: LoadScorer) -> Curve:
    torch.set_num_threads(1)
    scorer, world = load_scorer(name), _world(case)
    best_um, x = world.true_sharpest_um, positions_dof()
    said = []
    for defocus_dof in x:
        world.go_to_z(best_um + defocus_dof * case.dof_um)
        frame = world.expose(EXPOSURE_MS, 1, (0, 0, SIDE_PX, SIDE_PX))
        said.append(
            scorer.score(frame, bit_depth=world.sensor.bit_depth, sampling=case.optics.sampling(1))
        )
    return Curve(
        case,
        x,
        tuple(frame.score for frame in said),
        tuple(frame.referee or 0.0 for frame in said),
        tuple((layer_um - best_um) / case.dof_um for layer_um in world.layers_um),
    )


def _world(case: Case) -> World:
    """The simulated microscope of `autofocus.bench.search`, without a core around it."""
    optics, fault = case.optics, {name: value for (_, name), value in FAULTS[case.fault].items()}
    world = World()
    world.scene = Scene(
        kind=case.kind,
        seed=case.seed,
        size_px=SIDE_PX,
        na=optics.na,
        immersion_index=optics.immersion_index,
        wavelength_um=optics.wavelength_um,
        pixel_size_um=optics.pixel_size_um,
    )
    world.light = Light(
        photons=case.photons,
        flicker=fault.get("LampFlicker", 0.0),
        unevenness=fault.get("UnevenIllumination", 0.0),
    )
    world.sensor = Sensor(
        width_px=SIDE_PX,
        height_px=SIDE_PX,
        noise_seed=case.seed,
        hot_pixels=int(fault.get("HotPixels", 0)),
    )
    world.mounting = Mounting(
        tilt_x_um=fault.get("TiltX_um", 0.0) * case.dof_um,
        tilt_y_um=fault.get("TiltY_um", 0.0) * case.dof_um,
    )
    world.focus_draw = FocusDraw(case.seed)
    return world


@dataclass(frozen=True)
class Bell:
    """The bell that fits a curve best, of those that `autofocus.search.belief` draws.

    Attributes
    ----------
    level, height : float
    half_width_dof, exponent : float
    offset_dof : float
        Of its top from the plane with most detail.
    scatter : float
        Root mean square of what it leaves.
    """

    level: float
    height: float
    half_width_dof: float
    exponent: float
    offset_dof: float
    scatter: float


def fit_bell(curve: Curve) -> Bell:
    """Least squares over a grid of widths, exponents and offsets."""
    x, score = np.array(curve.defocus_dof), np.array(curve.score)
    width, exponent, offset = (
        grid.ravel() for grid in np.meshgrid(HALF_WIDTHS_DOF, known_score.EXPONENTS, OFFSETS_DOF)
    )
    distance = np.abs(x - offset[:, None]) / width[:, None]
    shape = 1 / (1 + distance ** exponent[:, None])
    centred = shape - shape.mean(axis=1, keepdims=True)
    height = centred @ score / (centred**2).sum(axis=1)
    level = score.mean() - height * shape.mean(axis=1)
    left = score - level[:, None] - height[:, None] * shape
    scatter = np.sqrt((left**2).mean(axis=1))
    best = int(np.argmin(np.where(height > 0, scatter, np.inf)))
    numbers = (level, height, width, exponent, offset, scatter)
    return Bell(*(float(number[best]) for number in numbers))


@dataclass(frozen=True)
class RefereeBell:
    """The bell that fits the logarithm of the referee's measures, as `autofocus.search.pinpoint`.

    Attributes
    ----------
    width_dof, exponent : float
    offset_dof : float
        Of its top from the plane with most detail.
    scatter : float
        Root mean square of what it leaves of the logarithm.
    """

    width_dof: float
    exponent: float
    offset_dof: float
    scatter: float

    @property
    def half_width_dof(self) -> float:
        """Where half the height is left."""
        return float(self.width_dof * np.sqrt(2 ** (1 / self.exponent) - 1))


def fit_referee(curve: Curve) -> RefereeBell | None:
    """Least squares over a grid; None where too few measures stand out."""
    x, referee = np.array(curve.defocus_dof), np.array(curve.referee)
    clear = (np.abs(x) <= pinpoint.REACH_DOF) & (referee > pinpoint.FAINT * referee.max())
    if referee.max() <= 0 or clear.sum() < LEAST_CLEAR:
        return None
    x, log = x[clear], np.log(referee[clear])
    width, exponent, offset = (
        grid.ravel() for grid in np.meshgrid(REFEREE_WIDTHS_DOF, REFEREE_EXPONENTS, OFFSETS_DOF)
    )
    left = log + exponent[:, None] * np.log1p(((x - offset[:, None]) / width[:, None]) ** 2)
    scatter = left.std(axis=1)
    best = int(np.argmin(scatter))
    return RefereeBell(*(float(number[best]) for number in (width, exponent, offset, scatter)))


def table(curves: Sequence[Curve]) -> str:
    """The numbers of `known_score` and `pinpoint`, with the names they have there."""
    bells = [fit_bell(curve) for curve in curves]
    known = [(c, b) for c, b in zip(curves, bells, strict=True) if b.height + b.level > 0.5]
    tops = np.array([_scores(curve, beyond=False).max() for curve in curves])
    away = [_scores(curve, beyond=True) for curve in curves]
    away = [scores for scores in away if scores.size]  # the thickest have none
    humps, far = np.array([scores.max() for scores in away]), np.concatenate(away)
    good = [bell for _, bell in known]
    referee = [found for curve in curves if (found := fit_referee(curve)) is not None]
    rows = (
        ("HEIGHT", _mean_sd([bell.height for bell in bells])),
        ("LEVEL", _mean_sd([bell.level for bell in bells])),
        ("NOTHING", _mean_sd(far)),
        ("NOISES", _quantiles([bell.scatter for bell in good], (0.15, 0.5, 0.9))),
        ("HALF_WIDTH_DOF", _median_log_sd([bell.half_width_dof for bell in good])),
        (
            "exponents (15, 50, 85 %)",
            _quantiles([bell.exponent for bell in good], (0.15, 0.5, 0.85)),
        ),
        ("offset of the top, DOF (sd)", f"{np.std([bell.offset_dof for bell in good]):.3f}"),
        ("noise of a frame", _quantiles([_repeat_noise(c) for c in curves], (0.15, 0.5, 0.9))),
        ("humps beyond 6 DOF (50, 90, 99 %)", _quantiles(humps, (0.5, 0.9, 0.99))),
        ("tops (1, 10, 50 %)", _quantiles(tops, (0.01, 0.1, 0.5))),
        ("referee: WIDTH_DOF", _median_log_sd([bell.width_dof for bell in referee])),
        (
            "referee: half width, DOF",
            _median_log_sd([bell.half_width_dof for bell in referee]),
        ),
        (
            "referee: EXPONENTS (15, 50, 85 %)",
            _quantiles([bell.exponent for bell in referee], (0.15, 0.5, 0.85)),
        ),
        (
            "referee: SCATTERS (15, 50, 90 %)",
            _quantiles([bell.scatter for bell in referee], (0.15, 0.5, 0.9)),
        ),
        (
            "referee: offset of the top, DOF (sd)",
            f"{np.std([bell.offset_dof for bell in referee]):.3f}",
        ),
    )
    return "\n".join(
        [
            f"{len(curves)} stacks, {len(good)} of them score 0.5 and more in focus",
            "",
            "| number | value |",
            "|---|---|",
            *(f"| {name} | {value} |" for name, value in rows),
        ]
    )


def _scores(curve: Curve, *, beyond: bool) -> Float64:
    """Scores far from every plane that is in focus, or of the others."""
    planes = np.array([0.0, *curve.layers_dof])
    distance = np.abs(np.subtract.outer(curve.defocus_dof, planes)).min(axis=1)
    return np.array(curve.score)[(distance > HUMP_DOF) == beyond]


def _repeat_noise(curve: Curve) -> float:
    """Scatter between two frames of the same position."""
    by_position: dict[float, list[float]] = {}
    for defocus, score in zip(curve.defocus_dof, curve.score, strict=True):
        by_position.setdefault(defocus, []).append(score)
    twice = [scores for scores in by_position.values() if len(scores) == 2]
    return float(np.sqrt(np.mean(np.diff(twice, axis=1) ** 2) / 2))


def _mean_sd(values: Sequence[float] | Float64) -> str:
    return f"({np.mean(values):.3f}, {np.std(values):.3f})"


def _median_log_sd(values: Sequence[float]) -> str:
    return f"({np.median(values):.2f}, {np.std(np.log(values)):.2f})"


def _quantiles(values: Sequence[float] | Float64, shares: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.3f}" for value in np.quantile(values, shares))
