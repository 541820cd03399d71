"""What the readings of a run say beside the search: the referee's opinion, foreign frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from autofocus.search.protocol import Reading, SearchResult, SearchSettings
from autofocus.search.referee import opinion_of_referee

# Over 417 tuning runs with earlier weights, locks that the referee contradicted were within half a
# depth of field in 93 % instead of 98 %. Their uncertainty covers them as often as it does others.
DOUBT = 0.95


@dataclass(frozen=True)
class Findings:
    """The outcome of a search with everything else its readings tell.

    Attributes
    ----------
    outcome : SearchResult
        As the search answered, less sure of it if the referee disagrees.
    referee_z_um : float or None
        Where the referee sees the peak, um.
    referee_agrees : bool or None
        Within one depth of field of the search's answer; None without one of the two.
    out_of_distribution : bool
        Most frames near the peak (or of the run, without one) are foreign to the head.
    notes : tuple of str
        For a person.
    """

    outcome: SearchResult
    referee_z_um: float | None
    referee_agrees: bool | None
    out_of_distribution: bool
    notes: tuple[str, ...]


def findings(
    readings: Sequence[Reading],
    settings: SearchSettings,
    outcome: SearchResult,
    *,
    referee: str | None,
    notes: tuple[str, ...] = (),
) -> Findings:
    """Add the referee's opinion of the whole run, which changes nothing about the answer.

    Parameters
    ----------
    readings : sequence of Reading
        Of the whole run, in the order in which they were made.
    settings : SearchSettings
        Of the same run.
    outcome : SearchResult
        What the search answered.
    referee : str or None
        Name of the measure behind `Reading.referee`.
    notes : tuple of str
        What is known already.
    """
    left_out = set(outcome.left_out)
    readings = [reading for i, reading in enumerate(readings) if i not in left_out]
    opinion = opinion_of_referee(readings, settings, outcome)
    objection = opinion.note(referee, settings)
    heard = outcome
    if objection is not None:
        heard = replace(outcome, confidence=outcome.confidence * DOUBT)
        notes = (*notes, objection)
    return Findings(
        outcome=heard,
        referee_z_um=opinion.z_um,
        referee_agrees=opinion.agrees,
        out_of_distribution=_mostly_out_of_distribution(readings, outcome, settings),
        notes=notes,
    )


def _mostly_out_of_distribution(
    readings: Sequence[Reading], outcome: SearchResult, settings: SearchSettings
) -> bool:
    near = [
        reading
        for reading in readings
        if outcome.z_um is None or abs(reading.z_um - outcome.z_um) <= 2 * settings.dof_um
    ]
    near = near or list(readings)
    return bool(near) and 2 * sum(reading.out_of_distribution for reading in near) > len(near)
