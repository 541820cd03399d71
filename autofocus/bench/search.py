"""How strategies search: seeded simulated microscopes, the same cases for every entrant.

The judge is the simulated microscope: its true best plane (noise-free, over the frame; of a tilted
specimen the one in the middle, which is the median) places the start and judges the end, where it
is then. No run ever sees it. A false lock and a success are as `docs/glossary.md` defines them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event

import joblib
import numpy as np
import torch
from rich.progress import track

from autofocus.bench.search_cases import WARM_START_DOF, Case, some_of
from autofocus.bench.search_entrants import Entrant
from autofocus.bench.search_outcome import Outcome, Point, mend_log, read_log, write_line
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
LIMITS_DOF = 100.0
# Of the frame and the specimen: as small as a region of interest that an operator would draw.
SIDE_PX = 384
# Of the specimens that rigs are calibrated with; no case has it.
CALIBRATION_SEED = 4_999_999
# Cases that one process is given at a time: it loads the scorers once for all of them.
BATCH = 4

Job = tuple[Case, tuple[Entrant, ...]]
# A case that stands for all with its microscope, specimen and stage; and the scorer.
Kind = tuple[Case, str]
Curves = Mapping[Kind, FocusCurve | None]


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
        Called in the worker, once a batch.
    log : Path
        JSON lines, one a run, written as the runs end.
    jobs : int
        Processes.

    Returns
    -------
    list of Outcome
        In the order of cases and entrants, however they were run.
    """
    mend_log(log)
    wanted = _jobs(todo, entrants)
    asked = {(case, entrant.name) for case, those in wanted for entrant in those}
    done = {(o.case, o.entrant): o for o in (read_log(log) if log.is_file() else ())}
    done = {key: outcome for key, outcome in done.items() if key in asked}
    left = [
        (case, missing)
        for case, those in wanted
        if (missing := tuple(e for e in those if (case, e.name) not in done))
    ]
    with (
        joblib.Parallel(n_jobs=jobs, batch_size=1, return_as="generator") as parallel,
        log.open("a", encoding="utf-8") as lines,
    ):
        kinds = list(dict.fromkeys(_kind(c, e) for c, those in left for e in those if e.calibrated))
        measured = parallel(joblib.delayed(_calibrate)(kind, load_scorer) for kind in kinds)
        curves = dict(zip(kinds, track(measured, "calibrations", total=len(kinds)), strict=True))
        batches = [left[i : i + BATCH] for i in range(0, len(left), BATCH)]
        running = parallel(joblib.delayed(_judge)(batch, load_scorer, curves) for batch in batches)
        for found in track(running, "batches of cases", total=len(batches)):
            lines.writelines(map(write_line, found))
            lines.flush()
            done |= {(outcome.case, outcome.entrant): outcome for outcome in found}
    return [done[case, entrant.name] for case, those in wanted for entrant in those]


def _jobs(todo: Sequence[Case], entrants: Sequence[Entrant]) -> list[Job]:
    """Who runs which case."""
    groups = {case.group: [c for c in todo if c.group == case.group] for case in todo}
    runs = {
        entrant: {
            case
            for name in groups.keys() & set(entrant.groups)
            for case in some_of(groups[name], entrant.share)
        }
        for entrant in entrants
    }
    found = ((case, tuple(e for e in entrants if case in runs[e])) for case in todo)
    return [(case, those) for case, those in found if those]


def _kind(case: Case, entrant: Entrant) -> Kind:
    """What a calibration for this case is made with: another specimen, good light, no fault."""
    alike = replace(case, photons=300.0, fault="none", seed=CALIBRATION_SEED, start_dof=0.0)
    return alike, entrant.scorer


def _calibrate(kind: Kind, load_scorer: LoadScorer) -> FocusCurve | None:
    """Measure the curve of a specimen of this kind; None where it is refused."""
    torch.set_num_threads(1)
    case, scorer = kind
    with _Scene(case) as scene:
        return scene.calibrate(load_scorer(scorer))


def _judge(batch: Sequence[Job], load_scorer: LoadScorer, curves: Curves) -> list[Outcome]:
    torch.set_num_threads(1)
    scorers = {name: load_scorer(name) for name in {e.scorer for _, those in batch for e in those}}
    found = []
    for case, entrants in batch:
        with _Scene(case) as scene:
            for entrant in entrants:
                curve = curves[_kind(case, entrant)] if entrant.calibrated else None
                found.append(scene.run(entrant, scorers[entrant.scorer], curve))
    return found


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
        scene += [(*setting, value) for setting, value in case.stage_and_light.items()]
        for device, name, to in scene:
            self._core.setProperty(device, name, to)

    def _best_um(self) -> float:
        world = self._world
        return world.true_focus_um if self._case.nothing_to_see else world.true_sharpest_um

    def _carriage_um(self) -> float:
        """Where the stage is, play and all."""
        return self._world.true_focus_um + self._world.true_defocus_um

    def _error_dof(self) -> float:
        """Distance of the carriage from the nearest accepted plane; NaN where there is none."""
        if self._case.nothing_to_see:
            return float("nan")
        return self._distance_dof(self._carriage_um())

    def _distance_dof(self, z_um: float) -> float:
        return min(abs(z_um - plane) for plane in self._accepted_um()) / self._case.dof_um

    def _accepted_um(self) -> list[float]:
        accepted = [self._world.true_sharpest_um]
        # Dust is as good an answer as the specimen, and every layer of a thick section as the
        # brightest: all are there, and all are sharp.
        if self._case.kind in ("debris", "tissue"):
            accepted += self._world.layers_um
        return accepted

    def _outcome(self, entrant: Entrant, result: FocusResult, began_dof: float) -> Outcome:
        way_um = np.abs(np.diff([*(point.z_um for point in result.curve), result.final_z_um]))
        dof_um, nothing = self._case.dof_um, self._case.nothing_to_see
        best = max(result.curve, key=lambda point: point.score)
        best_um, accepted_um = self._best_um(), [] if nothing else self._accepted_um()
        nan, z_um, sigma_um = float("nan"), result.z_um, result.z_uncertainty_um
        return Outcome(
            entrant=entrant.name,
            case=self._case,
            verdict=result.verdict.value,
            locked=result.locked,
            reason=result.reason,
            start_error_dof=began_dof,
            error_dof=self._error_dof(),
            z_error_dof=nan if nothing or z_um is None else self._distance_dof(z_um),
            kept_error_dof=nan if nothing else self._distance_dof(best.z_um),
            end_dof=(self._carriage_um() - best_um) / dof_um,
            accepted_dof=tuple((plane - best_um) / dof_um for plane in accepted_um),
            sigma_dof=nan if sigma_um is None else sigma_um / dof_um,
            confidence=result.confidence,
            exposures=result.exposures,
            dose_ms=result.dose_ms,
            moves=int((way_um > 0).sum()),
            travel_dof=float(way_um.sum()) / dof_um,
            stage_s=result.seconds.stage,
            camera_s=result.seconds.camera,
            scoring_s=result.seconds.scoring,
            seconds=result.seconds.total,
            referee_agrees=result.referee_agrees,
            head=result.head,
            curve=self._curve(result),
        )

    def _curve(self, result: FocusResult) -> tuple[Point, ...]:
        """Of no more digits than a picture shows."""
        best_um, dof_um = self._best_um(), self._case.dof_um
        return tuple(
            (
                round((point.z_um - best_um) / dof_um, 3),
                float(f"{point.score:.5g}"),
                None if point.referee is None else float(f"{point.referee:.5g}"),
            )
            for point in result.curve
        )


def _rig(rig: Rig, case: Case, focus_um: float) -> Rig:
    reach_um = LIMITS_DOF * case.dof_um
    backlash_um = case.stage_and_light.get(("Z", "Backlash_um"), 0.0)
    return replace(
        rig,
        microscope=replace(
            rig.microscope,
            z_min_um=focus_um - reach_um,
            z_max_um=focus_um + reach_um,
            max_step_um=2 * reach_um,
            max_towards_um=2 * reach_um,
            # As a lab would have measured it: `autofocus calibrate` does.
            backlash_um=2 * backlash_um,
        ),
        objectives=(Objective(None, case.optics, None),),
    )


def _request(entrant: Entrant, case: Case, *, start_um: float) -> FocusRequest:
    request = FocusRequest(
        strategy=entrant.strategy,
        range_um=entrant.range_um,
        range_dof=case.range_dof,
        tolerance_um=entrant.tolerance_um,
    )
    if entrant.expects:
        sigma_um = WARM_START_DOF * case.dof_um / 2
        request = replace(request, expected_z_um=start_um, expected_sigma_um=sigma_um)
    if case.within_dof is not None:
        half_um = case.within_dof * case.dof_um
        request = replace(request, z_min_um=start_um - half_um, z_max_um=start_um + half_um)
    return request
