"""How often a scorer locks, and on the right plane: seeded simulated specimens, unknown true focus.

The judge is the simulated microscope: its true best plane (noise-free, over the frame) places the
start and judges the end; the run never sees it. Seeds of specimens and exposures are never used in
training.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import joblib
import numpy as np
import torch
from rich.progress import track

from autofocus.config import builtin_configs, load_rig
from autofocus.focus import FocusResult, run_focus
from autofocus.planning import FocusRequest
from devices import Frame, Microscope
from devices.micromanager import load_core, release
from devices.simulated.world import World
from devices.worlds import visit_world
from models.scorer import Scorer

# Far from the seeds that training counts up from 0.
FIRST_SEED = 1_000_000
KINDS = ("nuclei", "filaments", "tissue", "brightfield", "empty")
START_WITHIN_DOF = 20.0
PHOTONS = (100.0, 1000.0)

LoadScorer = Callable[[str], Scorer]


@dataclass(frozen=True)
class Case:
    """One start on one specimen.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    seed : int
        Draws the specimen, its true focus, the start and the light.
    """

    kind: str
    seed: int


@dataclass(frozen=True)
class Outcome:
    """One run, judged.

    Attributes
    ----------
    error_dof : float
        |final z - true best plane| in depths of field, signed away; NaN for empty specimens.
    start_error_dof : float
        The same of the start.
    returned : bool
        Not locked and back at the start.
    """

    scorer: str
    kind: str
    seed: int
    photons: float
    verdict: str
    locked: bool
    start_error_dof: float
    error_dof: float
    exposures: int
    returned: bool
    referee_agrees: bool | None
    confidence: float

    @property
    def success(self) -> bool:
        """Locked within half a depth of field."""
        return self.locked and self.error_dof <= 0.5

    @property
    def false_lock(self) -> bool:
        """Locked more than one depth of field away, or on nothing."""
        return self.locked and not self.error_dof <= 1.0


def cases(seeds: int, kinds: Sequence[str] = KINDS) -> list[Case]:
    """``seeds`` cases of each kind."""
    return [Case(kind, FIRST_SEED + i) for kind in kinds for i in range(seeds)]


def run_locks(
    scorers: Sequence[str],
    todo: Sequence[Case],
    load_scorer: LoadScorer,
    *,
    jobs: int = 1,
) -> list[Outcome]:
    """Run every case with every scorer.

    Parameters
    ----------
    scorers : sequence of str
        Names for ``load_scorer``.
    load_scorer : callable
        Called in the worker, once a case.
    jobs : int
        Processes.
    """
    with joblib.Parallel(n_jobs=jobs, return_as="generator") as parallel:
        done: Iterable[list[Outcome]] = parallel(
            joblib.delayed(_judge)(case, tuple(scorers), load_scorer) for case in todo
        )
        return [outcome for found in track(done, "runs", total=len(todo)) for outcome in found]


def _judge(case: Case, scorers: tuple[str, ...], load_scorer: LoadScorer) -> list[Outcome]:
    torch.set_num_threads(1)
    return [focus_simulated(case, name, load_scorer(name))[0] for name in scorers]


def focus_simulated(
    case: Case,
    name: str,
    scorer: Scorer,
    *,
    on_frame: Callable[[int, Frame], None] | None = None,
) -> tuple[Outcome, FocusResult, float]:
    """Run one case; give the judgement, the run's own answer and the true best plane in um."""
    rig = load_rig(builtin_configs() / _rig_file(case))
    assert rig.microscope.config is not None
    core = load_core(rig.microscope.config)
    try:
        rng = np.random.default_rng([case.seed, 0xCA5E])
        photons = float(np.exp(rng.uniform(*np.log(PHOTONS))))
        _set_scene(core, case, photons)
        world = visit_world(World, _rig_file(case).removesuffix(".toml"))
        best_um = world.true_focus_um if case.kind == "empty" else world.true_sharpest_um
        dof_um = rig.optics_for(None).depth_of_field_um()
        start_um = best_um + float(rng.uniform(-1, 1)) * START_WITHIN_DOF * dof_um
        with Microscope(core, rig.microscope) as microscope:
            microscope.move_to(start_um)
            result = run_focus(
                rig, microscope, scorer, FocusRequest(), run_id=name, on_frame=on_frame
            )
    finally:
        release(core)
    return _outcome(case, name, photons, result, best_um, dof_um), result, best_um


def _rig_file(case: Case) -> str:
    return "simulated_brightfield.toml" if case.kind == "brightfield" else "simulated.toml"


def _set_scene(core: object, case: Case, photons: float) -> None:
    specimen = "absorption" if case.kind == "brightfield" else case.kind
    for device, name, value in (
        ("Camera", "Specimen", specimen),
        ("Camera", "Seed", case.seed),
        ("Camera", "NoiseSeed", case.seed),
        ("Camera", "Photons", photons),
        ("Z", "FocusSeed", case.seed),
    ):
        core.setProperty(device, name, value)  # type: ignore[attr-defined]


def _outcome(
    case: Case, name: str, photons: float, result: FocusResult, best_um: float, dof_um: float
) -> Outcome:
    nothing_there = case.kind == "empty"
    return Outcome(
        scorer=name,
        kind=case.kind,
        seed=case.seed,
        photons=photons,
        verdict=result.verdict.value,
        locked=result.locked,
        start_error_dof=abs(result.start_z_um - best_um) / dof_um,
        error_dof=float("nan") if nothing_there else abs(result.final_z_um - best_um) / dof_um,
        exposures=result.exposures,
        returned=not result.locked and abs(result.final_z_um - result.start_z_um) < 0.05,
        referee_agrees=result.referee_agrees,
        confidence=result.confidence,
    )


def table(outcomes: Sequence[Outcome]) -> str:
    """Markdown: one row for each scorer and kind of specimen."""
    lines = [
        "| scorer | specimen | runs | locked within 1/2 DOF | false locks | refused, back at the "
        "start | median exposures | median error (DOF) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for scorer in dict.fromkeys(outcome.scorer for outcome in outcomes):
        for kind in dict.fromkeys(outcome.kind for outcome in outcomes):
            rows = [o for o in outcomes if o.scorer == scorer and o.kind == kind]
            if rows:
                lines.append(_row(scorer, kind, rows))
        specimens = [o for o in outcomes if o.scorer == scorer and o.kind != "empty"]
        if specimens:
            lines.append(_row(scorer, "**all specimens**", specimens))
    return "\n".join(lines)


def _row(scorer: str, kind: str, rows: Sequence[Outcome]) -> str:
    errors = [o.error_dof for o in rows if o.locked and o.error_dof == o.error_dof]
    error = f"{np.median(errors):.2f}" if errors else "-"
    return (
        f"| {scorer} | {kind} | {len(rows)} | {sum(o.success for o in rows)} | "
        f"{sum(o.false_lock for o in rows)} | {sum(o.returned for o in rows)} | "
        f"{np.median([o.exposures for o in rows]):g} | {error} |"
    )


def write_csv(outcomes: Sequence[Outcome], path: Path) -> None:
    """Write every run, one a line."""
    with path.open("w", newline="", encoding="utf-8") as target:
        writer = csv.DictWriter(target, [field.name for field in fields(Outcome)])
        writer.writeheader()
        writer.writerows(asdict(outcome) for outcome in outcomes)
