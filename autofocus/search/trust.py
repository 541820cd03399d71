"""How sure an answer is: its uncertainty and its confidence, as tuning runs have borne them out.

The shares of a peak believed after few readings, and of one fitted to many by a score of absolute
meaning, come from 1095 simulated locks (seeds from 3 700 000 and 3 750 000, faults included), of
which 70 % and 92 % lie within one and 1.96 standard deviations: their errors have heavier tails
than a normal distribution. Those of a score without absolute meaning, of the referee and the others
were chosen by what other tuning runs showed. How well all of them hold on other seeds is in
`docs/benchmarks/search.md`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Shares:
    """What the uncertainty of a peak is made of, added in squares.

    Attributes
    ----------
    own : float
        Share of the standard deviation that the belief or the fit has by itself.
    moved : float
        Share of how far the peak lies from the frame that is answered.
    unsharp : float
        Share of what that frame lacks of a score of `SHARP`, in depths of field: a specimen that is
        tilted or thick is nowhere sharp as a whole.
    unknown_dof : float
        What no reading can know of the specimen.
    """

    own: float
    moved: float
    unsharp: float
    unknown_dof: float


# Believed after few readings. What a sharp frame scores is another on every rig, and a calibration
# knows it.
CALIBRATED = Shares(own=0.48, moved=1.7, unsharp=0.0, unknown_dof=0.021)
UNCALIBRATED = Shares(own=0.69, moved=1.5, unsharp=0.17, unknown_dof=0.019)
# Fitted to many: by the referee beside the score's peak; by a score of absolute meaning, and by one
# without.
REFEREED = Shares(own=0.6, moved=0.64, unsharp=0.08, unknown_dof=0.012)
FITTED = Shares(own=0.5, moved=0.6, unsharp=0.35, unknown_dof=0.02)
FITTED_ANYHOW = Shares(own=0.65, moved=0.6, unsharp=0.0, unknown_dof=0.04)
SHARP = 0.95
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


def sigma_um(
    shares: Shares, *, score: float, own_um: float, moved_um: float, dof_um: float
) -> float:
    """Standard deviation of the position of a peak.

    Parameters
    ----------
    shares : Shares
        Of its kind.
    score : float
        Of the frame that is answered.
    own_um : float
        Standard deviation of the belief or the fit.
    moved_um : float
        How far the peak lies from that frame.
    dof_um : float
        Depth of field.
    """
    return math.hypot(
        shares.own * own_um,
        shares.moved * moved_um,
        shares.unsharp * max(SHARP - score, 0.0) * dof_um,
        shares.unknown_dof * dof_um,
    )


def confidence(sigma_um: float, *, share: float, dof_um: float) -> float:
    """Probability that a lock is within half a depth of field of the in-focus plane.

    Parameters
    ----------
    share : float
        Of such locks that are on the right peak at all.
    """
    return share * math.erf(dof_um / 2 / max(sigma_um, 1e-12) / math.sqrt(2))
