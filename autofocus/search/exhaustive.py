"""Every position at half the depth of field: slow, and hard to fool."""

from __future__ import annotations

from dataclasses import replace

from autofocus.search.grid import coarse_positions
from autofocus.search.proof import MOST_EXPOSURES, prove
from autofocus.search.protocol import Purpose, Search, SearchSettings
from autofocus.search.run import Run

STEP_DOF = 0.5


def exhaustive(settings: SearchSettings) -> Search:
    """Read the whole range in steps of half a depth of field, then prove the best.

    Parameters
    ----------
    settings : SearchSettings
        Range, bounds and depth of field, um; its own coarse step is not used.
    """
    run = Run(_fine(settings))
    yield from run.ask((settings.start_z_um,), Purpose.START)
    yield from run.ask(first_positions(settings), Purpose.COARSE)
    run.range_is_read = True
    return (yield from prove(run))


def first_positions(settings: SearchSettings) -> tuple[float, ...]:
    """The range in steps of half a depth of field, um."""
    return coarse_positions(_fine(settings))


def worst_case_exposures(settings: SearchSettings) -> int:
    """Largest number of exposures: the range and the proof."""
    return 1 + len(first_positions(settings)) + MOST_EXPOSURES


def _fine(settings: SearchSettings) -> SearchSettings:
    return replace(settings, coarse_step_um=STEP_DOF * settings.dof_um, max_extensions=0)
