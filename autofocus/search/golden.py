"""Golden-section search: shrinks the range by the same share at every exposure."""

from __future__ import annotations

import math

from autofocus.search.grid import range_ends
from autofocus.search.proof import MOST_EXPOSURES, prove
from autofocus.search.protocol import Purpose, Search, SearchSettings
from autofocus.search.run import Asking, Run

SHARE = (math.sqrt(5) - 1) / 2


def golden(settings: SearchSettings) -> Search:
    """Shrink the range around one maximum until it is a depth of field wide, then prove it.

    J. Kiefer, *Proc. Amer. Math. Soc.* 4, 502 (1953); finds the peak only of a curve that has one
    and rises towards it from both ends.
    """
    run = Run(settings)
    yield from run.ask((settings.start_z_um,), Purpose.START)
    yield from _shrink(run)
    return (yield from prove(run))


def first_positions(settings: SearchSettings) -> tuple[float, ...]:
    """The two inner positions, um."""
    low, high = range_ends(settings)
    return high - SHARE * (high - low), low + SHARE * (high - low)


def worst_case_exposures(settings: SearchSettings) -> int:
    """Largest number of exposures: one for every section, and the proof."""
    low, high = range_ends(settings)
    sections = math.log(max(settings.dof_um / max(high - low, 1e-9), 1e-9)) / math.log(SHARE)
    return 3 + max(0, math.ceil(sections)) + MOST_EXPOSURES


def _shrink(run: Run) -> Asking:
    low, high = range_ends(run.settings)
    left, right = first_positions(run.settings)
    yield from run.ask((left, right), Purpose.COARSE)
    f_left, f_right = run.curve[-2].score, run.curve[-1].score
    while high - low > run.settings.dof_um:
        if f_left >= f_right:
            high, right, f_right = right, left, f_left
            left = high - SHARE * (high - low)
            yield from run.ask((left,), Purpose.FINE)
            f_left = run.curve[-1].score
        else:
            low, left, f_left = left, right, f_right
            right = low + SHARE * (high - low)
            yield from run.ask((right,), Purpose.FINE)
            f_right = run.curve[-1].score
