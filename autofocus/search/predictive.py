"""Few exposures: each goes where the hypotheses about focus differ most.

After every reading the probability of every in-focus plane is known (`belief`); the next exposure
is the most telling one, and the search stops as soon as one depth of field holds nearly all of it.
On which side focus lies is found by a second exposure, never guessed. Needs a score whose height is
known: one of absolute meaning, or a calibrated rig; otherwise, and whenever what was predicted is
not what is read, `coarse_to_fine` takes over.
"""

from __future__ import annotations

from autofocus.search import coarse_to_fine
from autofocus.search.conclusion import expected_score
from autofocus.search.grid import inside_bounds
from autofocus.search.looking import look_and_conclude, most_exposures
from autofocus.search.protocol import (
    Purpose,
    Search,
    SearchSettings,
)
from autofocus.search.run import Run

# Exposures to look with before a peak is looked at, and again before coarse_to_fine takes over.
MOST_LOOKS = 8


def predictive(settings: SearchSettings) -> Search:
    """Search the in-focus plane by the most telling exposures.

    Parameters
    ----------
    settings : SearchSettings
        Range, bounds and depth of field, um; where focus is expected, if known.

    Yields
    ------
    Pass
        The start, single positions, and the confirmation.

    Returns
    -------
    SearchResult
        Judged by the same verdicts as every search.
    """
    expected = expected_score(settings)
    if expected is None:
        return (yield from coarse_to_fine.coarse_to_fine(settings))
    run = Run(settings)
    yield from run.ask((settings.start_z_um,), Purpose.START)
    result = yield from look_and_conclude(run, expected, most=MOST_LOOKS)
    if result is not None:
        return result
    return (yield from coarse_to_fine.whole_range(run))


def worst_case_exposures(settings: SearchSettings) -> int:
    """Largest number of exposures, when nothing is as predicted and the whole range is searched."""
    return 1 + most_exposures(MOST_LOOKS) + coarse_to_fine.worst_case_exposures(settings)


def first_positions(settings: SearchSettings) -> tuple[float, ...]:
    """Positions that may come first: they follow from the reading at the start."""
    expected = settings.expected
    return (inside_bounds(settings, expected.z_um if expected else settings.center_um),)
