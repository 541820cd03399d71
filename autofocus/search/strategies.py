"""The searches by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from autofocus.search import (
    brent,
    coarse_to_fine,
    exhaustive,
    golden,
    hill_climb,
    predictive,
    sweep,
)
from autofocus.search.protocol import Search, SearchSettings


@dataclass(frozen=True)
class Strategy:
    """A search and what can be said of it before it begins.

    Attributes
    ----------
    search : callable
        Makes the generator.
    first_positions : callable
        Positions of the first pass after the start, um.
    worst_case_exposures : callable
        Largest number of exposures a run can take, the start included.
    """

    search: Callable[[SearchSettings], Search]
    first_positions: Callable[[SearchSettings], tuple[float, ...]]
    worst_case_exposures: Callable[[SearchSettings], int]


STRATEGIES: Mapping[str, Strategy] = MappingProxyType(
    {
        "coarse_to_fine": Strategy(
            coarse_to_fine.coarse_to_fine,
            coarse_to_fine.coarse_positions,
            coarse_to_fine.worst_case_exposures,
        ),
        "predictive": Strategy(
            predictive.predictive, predictive.first_positions, predictive.worst_case_exposures
        ),
        "sweep": Strategy(sweep.sweep, sweep.first_positions, sweep.worst_case_exposures),
        "exhaustive": Strategy(
            exhaustive.exhaustive, exhaustive.first_positions, exhaustive.worst_case_exposures
        ),
        "brent": Strategy(brent.brent, brent.first_positions, brent.worst_case_exposures),
        "golden": Strategy(golden.golden, golden.first_positions, golden.worst_case_exposures),
        "hill_climb": Strategy(
            hill_climb.hill_climb, hill_climb.first_positions, hill_climb.worst_case_exposures
        ),
    }
)
