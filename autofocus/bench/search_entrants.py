"""Who searches in the benchmark of the search: strategies, scorers, and what they know before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

LEARNED, CLASSICAL = "reiqa-compact", "vollath_f4"


@dataclass(frozen=True)
class Entrant:
    """A strategy with a scorer, and what it may know beforehand.

    Attributes
    ----------
    name : str
        Of its row in the tables.
    strategy : str
        By name.
    groups : tuple of str
        Which cases it runs.
    scorer : str
        By name.
    share : float
        Of the cases of those groups; slow ones run a few.
    compared : bool
        Not what a user is advised to use: left out of what the report adds up over strategies.
    expects : bool
        Told where focus is expected: the start, give or take half the range of starts.
    calibrated : bool
        Knows the focus curve of another specimen of the same kind under the same microscope.
    range_um, tolerance_um : float or None
        Of its request.
    """

    name: str
    strategy: str
    groups: tuple[str, ...]
    scorer: str = LEARNED
    share: float = 1.0
    compared: bool = False
    expects: bool = False
    calibrated: bool = False
    range_um: float | None = None
    tolerance_um: float | None = None


EVERYWHERE = ("cold", "far", "hardship", "edge", "must refuse")
FEW = 1 / 14
OUGHTAFOCUS = "brent, OughtaFocus settings"
_ALL = (
    Entrant("coarse_to_fine", "coarse_to_fine", EVERYWHERE),
    Entrant("predictive", "predictive", EVERYWHERE),
    Entrant("warm", "predictive", ("warm",), expects=True),
    Entrant("warm, calibrated", "predictive", ("warm",), expects=True, calibrated=True),
    Entrant("calibrated", "predictive", ("deepfocus",), expects=True, calibrated=True),
    Entrant("sweep", "sweep", ("cold", "must refuse"), share=FEW),
    Entrant(OUGHTAFOCUS, "brent", ("cold",), compared=True, range_um=10.0, tolerance_um=1.0),
    Entrant("golden", "golden", ("cold",), share=FEW, compared=True),
    Entrant("hill_climb", "hill_climb", ("cold",), share=FEW, compared=True),
    Entrant("exhaustive", "exhaustive", ("cold",), share=FEW, compared=True),
    Entrant("coarse_to_fine, vollath_f4", "coarse_to_fine", EVERYWHERE, CLASSICAL, compared=True),
    Entrant("brent, vollath_f4", "brent", ("cold",), CLASSICAL, compared=True),
)
ENTRANTS: Mapping[str, Entrant] = MappingProxyType({entrant.name: entrant for entrant in _ALL})
