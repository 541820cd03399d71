"""How sure an answer is: its uncertainty and its confidence, as tuning runs have borne them out.

The shares of a believed peak were fitted to 807 simulated locks (seeds 3 800 000 and up, faults
included), the others chosen by what tuning runs on seeds 3 000 000 to 3 999 999 showed; how well
all of them hold on other seeds is in `docs/benchmarks/search.md`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Shares:
    """What the uncertainty of a believed peak is made of, added in squares.

    Attributes
    ----------
    believed : float
        Share of the belief's own standard deviation.
    moved : float
        Share of how far the belief moved after the last frame.
    unsharp : float
        Share of what the frame at the peak lacks of a score of `SHARP`, in depths of field: a
        specimen that is tilted or thick is nowhere sharp as a whole.
    unknown_dof : float
        What no reading can know of the specimen.
    """

    believed: float
    moved: float
    unsharp: float
    unknown_dof: float


# What a sharp frame scores is another on every rig, and a calibration knows it.
CALIBRATED = Shares(believed=0.5, moved=0.9, unsharp=0.0, unknown_dof=0.015)
UNCALIBRATED = Shares(believed=0.7, moved=0.9, unsharp=0.3, unknown_dof=0.02)
SHARP = 0.95
# Of the scatter about a fitted peak, as a share, and what no fit can know of the specimen.
FIT_SHARE = 0.65
FIT_MOVED = 0.6
UNFITTED_DOF = 0.04
# Share of locks that are on the right peak at all: judged by what the score is known to be, by the
# whole range, and by the referee where the score does not know the specimen.
KNOWN_SCORE = 0.99
WHOLE_RANGE = 0.97
REFEREE = 0.95
# Of the probability that a refused candidate has by the readings, what comes true.
REFUSED_SHARE = 0.8
# Share of refused candidates that are focus, where the score has no absolute meaning: of those at
# an end of the range (1 of 25 tuning runs), and of others (2 of 3).
AT_AN_END = 0.04
UNPROVEN = 0.6


def believed_sigma_um(
    shares: Shares, *, score: float, sigma_um: float, moved_um: float, dof_um: float
) -> float:
    """Standard deviation of a peak that was concluded from few readings.

    Parameters
    ----------
    shares : Shares
        Of a calibrated rig, or of any other.
    score : float
        Of the frame at the peak that is answered.
    sigma_um : float
        Standard deviation of the belief.
    moved_um : float
        By how much the belief has moved away from that frame since.
    dof_um : float
        Depth of field.
    """
    return math.hypot(
        shares.believed * sigma_um,
        shares.moved * moved_um,
        shares.unsharp * max(SHARP - score, 0.0) * dof_um,
        shares.unknown_dof * dof_um,
    )


def fitted_sigma_um(sigma_um: float, *, moved_um: float, dof_um: float) -> float:
    """Standard deviation of a fitted peak, with what no fit can know of the specimen.

    Parameters
    ----------
    sigma_um : float
        Of the fit.
    moved_um : float
        How far from the fit the run ended.
    """
    return math.hypot(FIT_SHARE * sigma_um, FIT_MOVED * moved_um, UNFITTED_DOF * dof_um)


def confidence(sigma_um: float, *, share: float, dof_um: float) -> float:
    """Probability that a lock is within half a depth of field of the in-focus plane.

    Parameters
    ----------
    share : float
        Of such locks that are on the right peak at all.
    """
    return share * math.erf(dof_um / 2 / max(sigma_um, 1e-12) / math.sqrt(2))
