"""What the referee makes of a run whose score does not know the specimen.

A learned score can fail on a specimen that it was not made for, and says so by staying low
everywhere. The classical referee needs no such knowledge: where its curve alone is a proven peak,
by the same rules as for any score, that is the focus.
"""

from __future__ import annotations

from dataclasses import replace

from autofocus.search import known_score, trust
from autofocus.search.protocol import Reading, SearchResult
from autofocus.search.run import Run

# Noises that the referee's peak must stand above the background: it overrules a score that knows of
# no focus, so it must be beyond doubt. Sharp sparse specimens stand a hundred and more above it.
BEYOND_DOUBT = 25.0


def can_hear_the_referee(run: Run) -> bool:
    """Whether the score stayed low everywhere and a referee watched every frame."""
    if not run.settings.absolute or run.best().score >= known_score.EVIDENT_SCORE:
        return False
    return all(reading.referee is not None for reading in run.curve)


def referee_run(run: Run) -> Run:
    """The same readings with the referee's scores, and so all that follow."""
    watched = Run(replace(run.settings, absolute=False, calibrated=None), _of_the_referee)
    watched.curve = [_of_the_referee(reading) for reading in run.curve]
    # The referee alone does not continue the range.
    watched.extensions = run.settings.max_extensions
    return watched


def is_beyond_doubt(result: SearchResult, watched: Run) -> bool:
    """Whether the referee's lock is clear enough to be the answer."""
    if not result.locked or watched.final is None or watched.specimen_beyond() is not None:
        return False
    back = watched.background()
    return watched.final.score - back.level >= BEYOND_DOUBT * back.noise


def as_second_opinion(result: SearchResult, run: Run, watched: Run) -> SearchResult:
    """The referee's lock as the run's answer, with scores on the run's own scale."""
    final = watched.told[-1].score
    return replace(
        result,
        reason=f"{result.reason}; by the referee: no frame of the range had scored "
        f"{known_score.EVIDENT_SCORE}",
        score=final,
        confidence=result.confidence * trust.REFEREE / trust.WHOLE_RANGE,
        start_score=run.curve[0].score,
        final_score=final,
    )


def _of_the_referee(reading: Reading) -> Reading:
    return replace(reading, score=reading.referee or 0.0)
