"""What the referee makes of a run whose score does not know the specimen.

A learned score can fail on a specimen that it was not made for, and says so by staying low
everywhere. The classical referee needs no such knowledge: where its curve alone is a proven peak,
by the same rules as for any score, that is the focus.
"""

from __future__ import annotations

from dataclasses import replace

from autofocus.search import known_score, trust
from autofocus.search.protocol import Reading, SearchResult
from autofocus.search.referee import peak_of_referee
from autofocus.search.run import ALIKE_SHARE, ELSEWHERE_DOF, Run

# Noises that the referee's peak must stand above the background: it overrules a score that knows of
# no focus, so it must be beyond doubt. Sharp sparse specimens stand a hundred and more above it.
BEYOND_DOUBT = 25.0


def can_hear_the_referee(run: Run) -> bool:
    """Whether a referee watched every frame, and the score does not speak for another plane.

    It does not where it stayed low everywhere, nor where a frame beside the referee's peak scores
    about as much as any: in stained sections the score can dip at the very plane in focus.
    """
    if not run.settings.absolute or any(reading.referee is None for reading in run.curve):
        return False
    if run.best().score < known_score.EVIDENT_SCORE:
        return True
    seen = peak_of_referee(run.curve, run.settings)
    if seen is None:
        return False
    beside_um = ELSEWHERE_DOF * run.settings.dof_um
    beside = [r.score for r in run.curve if abs(r.z_um - seen.z_um) <= beside_um]
    return max(beside, default=0.0) >= ALIKE_SHARE * run.best().score


def referee_run(run: Run) -> Run:
    """The same readings with the referee's scores, and so all that follow."""
    watched = Run(replace(run.settings, absolute=False, calibrated=None), _of_the_referee)
    watched.curve = [_of_the_referee(reading) for reading in run.curve]
    # The referee alone does not continue the range.
    watched.extensions = run.settings.max_extensions
    return watched


def is_beyond_doubt(result: SearchResult, watched: Run) -> bool:
    """Whether the referee's lock is clear enough to be the answer."""
    if not result.locked or watched.final is None:
        return False
    back = watched.background()
    return watched.final.score - back.level >= BEYOND_DOUBT * back.noise


def as_second_opinion(
    result: SearchResult, run: Run, watched: Run, *, instead_of: SearchResult
) -> SearchResult:
    """The referee's lock as the run's answer, with scores on the run's own scale."""
    final = watched.told[-1].score
    return replace(
        result,
        reason=f"{result.reason}; by the referee: the score alone was {instead_of.verdict.value}",
        score=final,
        confidence=result.confidence * trust.REFEREE / trust.WHOLE_RANGE,
        start_score=run.curve[0].score,
        final_score=final,
    )


def _of_the_referee(reading: Reading) -> Reading:
    return replace(reading, score=reading.referee or 0.0)
