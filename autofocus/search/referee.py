"""What the classical referee says of the same readings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from autofocus.search.evidence import background, best_reading
from autofocus.search.peak import Peak, fit_peak
from autofocus.search.protocol import Reading, SearchResult, SearchSettings

# Chance of noise looking as much like a peak, above which the referee has no opinion.
SURE = 1e-3
# Noises that its peak must stand above the background: a curve that dips has a highest point too.
STANDS_OUT = 7.0


@dataclass(frozen=True)
class Opinion:
    """Where the referee puts the peak.

    Attributes
    ----------
    z_um : float or None
        None when no referee watched, or when its curve has no peak that stands out of its noise.
    agrees : bool or None
        Within one depth of field of the search's answer; None without one of the two.
    """

    z_um: float | None = None
    agrees: bool | None = None

    def note(self, name: str | None, settings: SearchSettings) -> str | None:
        """A sentence for the result when the referee disagrees."""
        if self.agrees is not False:
            return None
        return (
            f"the referee, {name or 'a classical measure'}, puts the peak at {self.z_um:.2f} um, "
            f"more than the depth of field ({settings.dof_um:.2f} um) away"
        )


def opinion_of_referee(
    curve: Sequence[Reading], settings: SearchSettings, outcome: SearchResult
) -> Opinion:
    """Find the referee's peak among the readings of a run.

    Parameters
    ----------
    curve : sequence of Reading
        Readings of the run, any order.
    settings : SearchSettings
        Of the same run.
    outcome : SearchResult
        What the search answered.
    """
    peak = peak_of_referee(curve, settings)
    if peak is None:
        return Opinion()
    if outcome.z_um is None:
        return Opinion(peak.z_um)
    return Opinion(peak.z_um, abs(peak.z_um - outcome.z_um) <= settings.dof_um)


def peak_of_referee(curve: Sequence[Reading], settings: SearchSettings) -> Peak | None:
    """The peak of the referee's curve; None where none stands out of its noise."""
    watched = [
        replace(reading, score=reading.referee) for reading in curve if reading.referee is not None
    ]
    if len(watched) < 5:
        return None
    best = best_reading(watched)
    back = background(watched, settings)
    ends = (min(r.z_um for r in watched), max(r.z_um for r in watched))
    # A curve that is highest at an end has its peak somewhere else.
    if back.chance > SURE or best.z_um in ends:
        return None
    if best.score - back.level < STANDS_OUT * back.noise:
        return None
    peak = fit_peak(watched, baseline=back.level, noise=back.noise)
    return peak or Peak(best.z_um, settings.dof_um / 2, best.score, settings.dof_um)
