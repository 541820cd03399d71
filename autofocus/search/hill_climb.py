"""Uphill from the start: few moves when focus is near, lost when it is not."""

from __future__ import annotations

import math

from autofocus.search.grid import fine_step_um, inside_bounds
from autofocus.search.proof import MOST_EXPOSURES, prove
from autofocus.search.protocol import Purpose, Search, SearchSettings
from autofocus.search.run import Asking, Run

FIRST_STEP_DOF = 2.0


def hill_climb(settings: SearchSettings) -> Search:
    """Step towards the higher score, turn and halve the step when it falls, then prove the top."""
    run = Run(settings)
    yield from run.ask((settings.start_z_um,), Purpose.START)
    yield from _climb(run)
    return (yield from prove(run))


def first_positions(settings: SearchSettings) -> tuple[float, ...]:
    """One step away from the specimen, um."""
    step_um = FIRST_STEP_DOF * settings.dof_um
    return (inside_bounds(settings, settings.start_z_um - settings.direction * step_um),)


def worst_case_exposures(settings: SearchSettings) -> int:
    """Largest number of exposures: the range in first steps, every halving, and the proof."""
    return 1 + _most_steps(settings) + MOST_EXPOSURES


def _most_steps(settings: SearchSettings) -> int:
    first_um = FIRST_STEP_DOF * settings.dof_um
    halvings = math.ceil(math.log2(max(first_um / fine_step_um(settings), 1.0))) + 1
    return math.ceil(settings.range_um / first_um) + 2 * halvings + 2


def _climb(run: Run) -> Asking:
    settings = run.settings
    step_um = -settings.direction * FIRST_STEP_DOF * settings.dof_um
    top, turned = run.curve[0], False
    for _ in range(_most_steps(settings)):
        if abs(step_um) < fine_step_um(settings) / 2:
            return
        z_um = inside_bounds(settings, top.z_um + step_um)
        yield from run.ask((z_um,), Purpose.FINE)
        if run.curve[-1].score > top.score:
            top, turned = run.curve[-1], False
        elif turned:
            step_um, turned = -step_um / 2, False
        else:
            step_um, turned = -step_um, True
