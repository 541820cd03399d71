"""How strategies search: seeded simulated microscopes, the same cases for every entrant.

The judge is the simulated microscope: its true best plane (noise-free, over the frame) places the
start and judges the end; no run ever sees it. A false lock and a success are as `docs/glossary.md`
defines them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Event
from types import MappingProxyType

import joblib
import numpy as np
import torch
from rich.progress import track

from autofocus.bench.search_cases import FAULTS, IN_DOF, WARM_START_DOF, Case
from autofocus.calibrating import CalibrationRequest, calibrate
from autofocus.calibration import focus_curve
from autofocus.config import Objective, Rig, builtin_configs, load_rig
from autofocus.errors import NoFocusCurve
from autofocus.focus import FocusResult, run_focus
from autofocus.planning import FocusRequest
from autofocus.search.protocol import FocusCurve
from devices import Microscope
from devices.micromanager import load_core, release
from devices.simulated.world import World
from devices.worlds import visit_world
from models.scorer import Scorer

RIG = "simulated.toml"
LoadScorer = Callable[[str], Scorer]
# Far enough for a start 40 depths of field away, and everything a run may add to it.
LIMITS_DOF = 80.0
# Of the frame and the specimen: as small as a region of interest that an operator would draw.
SIDE_PX = 384
# Of the specimens that rigs are calibrated with; no case has it.
CALIBRATION_SEED = 4_999_999


@dataclass(frozen=True)
class Entrant:
    """A strategy with a scorer, and what it may know beforehand.

    Attributes
    ----------
    name : str
        Of its row in the tables.
    strategy, scorer : str
        By name.
    groups : tuple of str
        Which cases it runs.
    expects : bool
        Told where focus is expected: the start, give or take half the range of starts.
    calibrated : bool
        Knows the focus curve of another specimen of the same kind under the same microscope.
    range_um, tolerance_um : float or None
        Of its request.
    """

    name: str
    strategy: str
    scorer: str
    groups: tuple[str, ...]
    expects: bool = False
    calibrated: bool = False
    range_um: float | None = None
    tolerance_um: float | None = None


_EVERYWHERE = ("cold", "hardship", "must refuse")
ENTRANTS: Mapping[str, Entrant] = MappingProxyType(
    {
        entrant.name: entrant
        for entrant in (
            Entrant("coarse_to_fine", "coarse_to_fine", "reiqa-compact", _EVERYWHERE),
            Entrant("predictive", "predictive", "reiqa-compact", _EVERYWHERE),
            Entrant(
                "brent, OughtaFocus settings",
                "brent",
                "reiqa-compact",
                ("cold",),
                range_um=10.0,
                tolerance_um=1.0,
            ),
            Entrant("coarse_to_fine, vollath_f4", "coarse_to_fine", "vollath_f4", _EVERYWHERE),
            Entrant("brent, vollath_f4", "brent", "vollath_f4", ("cold",)),
            Entrant("warm", "predictive", "reiqa-compact", ("warm",), expects=True),
            Entrant(
                "warm, calibrated",
                "predictive",
                "reiqa-compact",
                ("warm",),
                expects=True,
                calibrated=True,
            ),
            Entrant(
                "calibrated",
                "predictive",
                "reiqa-compact",
                ("deepfocus",),
                expects=True,
                calibrated=True,
            ),
        )
    }
)


@dataclass(frozen=True)
class Outcome:
    """One run, judged.

    Attributes
    ----------
    error_dof, start_error_dof : float
        True distance of the stage from the nearest accepted plane when the run ended and when it
        began, depths of field; NaN where there is nothing to focus on.
    z_error_dof : float
        The same of the position that the run answers, locked or not; NaN without one.
    kept_error_dof : float
        The same of the reading with the highest score, where a search that never refuses stays.
    exposures, moves : int
    travel_dof : float
        Way of the stage.
    """

    entrant: str
    case: Case
    verdict: str
    locked: bool
    reason: str
    start_error_dof: float
    error_dof: float
    z_error_dof: float
    kept_error_dof: float
    sigma_dof: float
    confidence: float
    exposures: int
    dose_ms: float
    moves: int
    travel_dof: float
    seconds: float
    scoring_s: float
    referee_agrees: bool | None

    @property
    def answer_error_dof(self) -> float:
        """How far off the answer is; of a lock where the carriage is, play and all."""
        return self.error_dof if self.locked else self.z_error_dof

    @property
    def success(self) -> bool:
        """Locked within half a depth of field."""
        return self.locked and self.error_dof <= 0.5

    @property
    def false_lock(self) -> bool:
        """Locked more than one depth of field away, or on nothing."""
        return self.locked and not self.error_dof <= 1.0

    @property
    def blurrier(self) -> bool:
        """Ended more than a quarter of a depth of field farther away than it began."""
        return self.error_dof > self.start_error_dof + 0.25


def run_search(
    todo: Sequence[Case],
    entrants: Sequence[Entrant],
    load_scorer: LoadScorer,
    *,
    log: Path,
    jobs: int = 1,
) -> list[Outcome]:
    """Run every case with every entrant of its group; what ``log`` holds is not run again.

    Parameters
    ----------
    load_scorer : callable
        Called in the worker, once a case.
    log : Path
        JSON lines, one a run, written as the runs end.
    jobs : int
        Processes.
    """
    done = _resume(log) if log.is_file() else []
    had = {(outcome.entrant, outcome.case) for outcome in done}
    left = []
    for case in todo:
        wanted = tuple(e for e in entrants if case.group in e.groups and (e.name, case) not in had)
        if wanted:
            left.append((case, wanted))
    with joblib.Parallel(n_jobs=jobs, return_as="generator") as parallel, log.open("a") as lines:
        kinds = {_kind(case, e) for case, wanted in left for e in wanted if e.calibrated}
        measured = parallel(joblib.delayed(_calibrate)(kind, load_scorer) for kind in sorted(kinds))
        curves = dict(track(measured, "calibrations", total=len(kinds)))
        running = parallel(
            joblib.delayed(_judge)(case, wanted, load_scorer, curves) for case, wanted in left
        )
        for found in track(running, "cases", total=len(left)):
            lines.writelines(json.dumps(asdict(outcome)) + "\n" for outcome in found)
            lines.flush()
            done += found
    return done


def read_log(log: Path) -> Iterator[Outcome]:
    """Outcomes of an earlier run."""
    for line in log.read_text(encoding="utf-8").splitlines():
        values = json.loads(line)
        yield Outcome(**{**values, "case": Case(**values["case"])})


def _resume(log: Path) -> list[Outcome]:
    """Outcomes so far; a last line that a kill has cut short is taken off the file."""
    whole = log.read_bytes()
    log.write_bytes(whole[: whole.rfind(b"\n") + 1])
    return list(read_log(log))


Kind = tuple[str, str, str]  # microscope, specimen, scorer
Curves = Mapping[Kind, FocusCurve | None]


def _kind(case: Case, entrant: Entrant) -> Kind:
    return case.scope, case.kind, entrant.scorer


def _calibrate(kind: Kind, load_scorer: LoadScorer) -> tuple[Kind, FocusCurve | None]:
    """Measure the curve of a specimen of this kind; None where it is refused."""
    torch.set_num_threads(1)
    scope, specimen, scorer = kind
    case = Case("calibration", scope, specimen, 300.0, "none", CALIBRATION_SEED, 0.0)
    with _Scene(case) as scene:
        return kind, scene.calibrate(load_scorer(scorer))


def _judge(
    case: Case, entrants: Sequence[Entrant], load_scorer: LoadScorer, curves: Curves
) -> list[Outcome]:
    torch.set_num_threads(1)
    with _Scene(case) as scene:
        return [
            scene.run(
                entrant,
                load_scorer(entrant.scorer),
                curves[_kind(case, entrant)] if entrant.calibrated else None,
            )
            for entrant in entrants
        ]


class _Scene:
    """A simulated microscope set up for one case."""

    def __init__(self, case: Case) -> None:
        self._case = case
        rig = load_rig(builtin_configs() / RIG)
        assert rig.microscope.config is not None
        self._core = load_core(rig.microscope.config)
        self._set_up()
        self._world = visit_world(World, RIG.removesuffix(".toml"))
        self._rig = _rig(rig, case, self._world.true_focus_um)

    def __enter__(self) -> _Scene:
        return self

    def __exit__(self, *_: object) -> None:
        release(self._core)

    def run(self, entrant: Entrant, scorer: Scorer, calibrated: FocusCurve | None) -> Outcome:
        """Put everything back to the beginning of the case and focus."""
        case, dof_um = self._case, self._case.dof_um
        self._set_up()
        self._world.begin_anew()
        best_um = self._best_um()
        request = _request(entrant, case, start_um=best_um + case.start_dof * dof_um)
        with Microscope(self._core, self._rig.microscope) as microscope:
            microscope.move_to(best_um + case.start_dof * dof_um)
            began = self._error_dof()
            result = run_focus(
                self._rig, microscope, scorer, request, run_id=entrant.name, calibrated=calibrated
            )
        return self._outcome(entrant, result, began)

    def calibrate(self, scorer: Scorer) -> FocusCurve | None:
        """The focus curve as ``autofocus calibrate`` measures it; None where it is refused."""
        with Microscope(self._core, self._rig.microscope) as microscope:
            microscope.move_to(self._best_um())
            try:
                record = calibrate(
                    self._rig,
                    microscope,
                    scorer,
                    CalibrationRequest(),
                    calibration_id="bench",
                    abort=Event(),
                )
            except NoFocusCurve:
                return None
        return focus_curve(record)

    def _set_up(self) -> None:
        case, optics = self._case, self._case.optics
        # NA = 0.01 first: no medium refuses it.
        scene: list[tuple[str, str, str | float]] = [
            ("Camera", "NA", 0.01),
            ("Camera", "ImmersionIndex", optics.immersion_index),
            ("Camera", "NA", optics.na),
            ("Camera", "PixelSize_um", optics.pixel_size_um),
            ("Camera", "Wavelength_um", optics.wavelength_um),
            ("Camera", "SensorWidth_px", SIDE_PX),
            ("Camera", "SensorHeight_px", SIDE_PX),
            ("Camera", "SpecimenSize_px", SIDE_PX),
            ("Camera", "Specimen", case.kind),
            ("Camera", "Seed", case.seed),
            ("Camera", "NoiseSeed", case.seed),
            ("Camera", "Photons", case.photons),
            ("Z", "FocusSeed", case.seed),
        ]
        for (device, name), value in FAULTS[case.fault].items():
            scene.append((device, name, value * case.dof_um if name in IN_DOF else value))
        for device, name, to in scene:
            self._core.setProperty(device, name, to)

    def _best_um(self) -> float:
        world = self._world
        nothing = self._case.fault in ("empty", "dark")
        return world.true_focus_um if nothing else world.true_sharpest_um

    def _error_dof(self) -> float:
        """Distance of the carriage, play and all, from the nearest accepted plane."""
        if self._case.fault in ("empty", "dark"):
            return float("nan")
        world = self._world
        carriage_um = world.true_focus_um + world.true_defocus_um
        return self._distance_dof(carriage_um)

    def _distance_dof(self, z_um: float) -> float:
        accepted = [self._world.true_sharpest_um]
        # Dust is as good an answer as the specimen, and every layer of a thick section as the
        # brightest: all are there, and all are sharp.
        if self._case.kind in ("debris", "tissue"):
            accepted += self._world.layers_um
        return min(abs(z_um - plane) for plane in accepted) / self._case.dof_um

    def _outcome(self, entrant: Entrant, result: FocusResult, began_dof: float) -> Outcome:
        z_um = [point.z_um for point in result.curve]
        way_um = np.abs(np.diff([*z_um, result.final_z_um]))
        dof_um, nothing = self._case.dof_um, np.isnan(began_dof)
        best = max(result.curve, key=lambda point: point.score)
        answered = result.z_um is not None and not nothing
        sigma_um = result.z_uncertainty_um
        return Outcome(
            entrant=entrant.name,
            case=self._case,
            verdict=result.verdict.value,
            locked=result.locked,
            reason=result.reason,
            start_error_dof=began_dof,
            error_dof=self._error_dof(),
            z_error_dof=self._distance_dof(result.z_um) if answered else float("nan"),  # type: ignore[arg-type]
            kept_error_dof=float("nan") if nothing else self._distance_dof(best.z_um),
            sigma_dof=float("nan") if sigma_um is None else sigma_um / dof_um,
            confidence=result.confidence,
            exposures=result.exposures,
            dose_ms=result.dose_ms,
            moves=int((way_um > 0).sum()),
            travel_dof=float(way_um.sum()) / dof_um,
            seconds=result.seconds.total,
            scoring_s=result.seconds.scoring,
            referee_agrees=result.referee_agrees,
        )


def _rig(rig: Rig, case: Case, focus_um: float) -> Rig:
    reach_um = LIMITS_DOF * case.dof_um
    backlash = FAULTS[case.fault].get(("Z", "Backlash_um"), 0.0)
    return replace(
        rig,
        microscope=replace(
            rig.microscope,
            z_min_um=focus_um - reach_um,
            z_max_um=focus_um + reach_um,
            max_step_um=2 * reach_um,
            max_towards_um=2 * reach_um,
            # As a lab would have measured it: `autofocus calibrate` does.
            backlash_um=2 * backlash * case.dof_um,
        ),
        objectives=(Objective(None, case.optics, None),),
    )


def _request(entrant: Entrant, case: Case, *, start_um: float) -> FocusRequest:
    request = FocusRequest(
        strategy=entrant.strategy, range_um=entrant.range_um, tolerance_um=entrant.tolerance_um
    )
    if entrant.expects:
        within_um = abs(case.dof_um) * WARM_START_DOF
        request = replace(request, expected_z_um=start_um, expected_sigma_um=within_um / 2)
    if case.fault == "out of range":
        half_um = 25 * case.dof_um
        request = replace(request, z_min_um=start_um - half_um, z_max_um=start_um + half_um)
    return request
