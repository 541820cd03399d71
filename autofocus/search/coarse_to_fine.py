"""The default search: cross the range, narrow around the best, fit, prove, lock.

Reads like instructions to a person, because it is: each ``yield`` asks for exposures and is given
the readings. Every way out is one verdict of `Verdict`, tried in that order.
"""

from __future__ import annotations

from autofocus.search import known_score
from autofocus.search.belief import absolute_score
from autofocus.search.conclusion import Concluding
from autofocus.search.grid import (
    coarse_positions,
    coarse_step_um,
    extension_count,
)
from autofocus.search.looking import look_and_conclude, most_exposures
from autofocus.search.protocol import Purpose, Reading, Search, SearchSettings, Verdict
from autofocus.search.run import MOST_CONFIRMATIONS, Run, narrowings
from autofocus.search.second_opinion import (
    as_second_opinion,
    can_hear_the_referee,
    is_beyond_doubt,
    referee_run,
)

# How much lower than a hump the readings on both sides of it must be, how many humps a run looks
# at, and how often, before the whole range is read.
DIP = 0.3
MOST_HUMPS = 2
MOST_LOOKS = 5
# Verdicts of a score that may not know the specimen; a proven edge is none of them.
DOUBTFUL = (Verdict.FLAT, Verdict.AMBIGUOUS)


def worst_case_exposures(settings: SearchSettings) -> int:
    """Largest number of exposures a run with these settings can take, start included."""
    coarse = len(coarse_positions(settings))
    extension = extension_count(settings)
    humps = MOST_HUMPS * most_exposures(MOST_LOOKS) if settings.absolute else 0
    # Two candidates may be narrowed, one of them twice, and the peak confirmed; all of it once more
    # for the referee, and for the score where that has led to a higher one.
    judged = (3 * 4 * narrowings(settings) + MOST_CONFIRMATIONS) * (3 if settings.absolute else 1)
    return 1 + coarse + humps + settings.max_extensions * extension + judged


def coarse_to_fine(settings: SearchSettings) -> Search:
    """Search the in-focus plane from coarse to fine.

    Parameters
    ----------
    settings : SearchSettings
        Range, bounds and depth of field, um.

    Yields
    ------
    Pass
        The start, the coarse pass, extensions past an end that holds the best score, groups of
        four around the best, and the confirmation: at the peak, by the referee where it sees one
        there, or where the best was read.

    Returns
    -------
    SearchResult
        ``locked`` only when fresh readings prove the peak, nothing compares with it, and the frame
        measured last is not worse than the first.
    """
    run = Run(settings)
    yield from run.ask((settings.start_z_um,), Purpose.START)
    return (yield from after_start(run))


def after_start(run: Run) -> Search:
    """The rest of a run of which only the start was read."""
    evident = yield from _evident(run)
    if evident is not None:
        return evident
    return (yield from whole_range(run))


def whole_range(run: Run) -> Search:
    """Every coarse position, whatever was read before; judged by the readings' own scatter."""
    yield from run.ask(_unread(run, coarse_positions(run.settings)), Purpose.COARSE)
    run.range_is_read = True
    yield from run.extend()
    result = yield from _narrowed(run)
    if result.verdict not in DOUBTFUL or not can_hear_the_referee(run):
        return result
    before, watched = run.best(), referee_run(run)
    second = yield from _narrowed(watched)
    if is_beyond_doubt(second, watched):
        return as_second_opinion(second, run, watched)
    # Where the referee has led to a higher score, the score is heard once more.
    run.curve.extend(watched.told)
    return result if run.best() is before else (yield from _narrowed(run))


def _narrowed(run: Run) -> Search:
    refused = run.frames_refused() or run.flat_or_edge()
    if refused:
        return refused
    yield from run.narrow(run.center_um())
    # Closer readings may show that the peak is nearer to an end than it seemed.
    if (yield from run.extend()):
        yield from run.narrow(run.center_um())
    yield from run.examine_rival()
    return (yield from run.finish())


def _evident(run: Run) -> Concluding:
    """Cross the range in double steps and look closer at every hump, until one is in focus.

    A score of absolute meaning says so of a few frames, and what lies beyond need not be visited:
    fewer exposures, and the objective comes no closer to the specimen than it must.
    """
    if not run.settings.absolute:
        return None
    expected = absolute_score()
    looked: list[float] = []
    for z_um in coarse_positions(run.settings)[::2]:
        yield from run.ask((z_um,), Purpose.COARSE)
        hump = hump_of(run)
        if hump is None or len(looked) == MOST_HUMPS or _is_near(hump.z_um, looked, run.settings):
            continue
        looked.append(hump.z_um)
        concluded = yield from look_and_conclude(run, expected, most=MOST_LOOKS)
        if concluded is not None:
            return concluded
    return None


def hump_of(run: Run) -> Reading | None:
    """The best reading, when it is sharp or stands between lower ones."""
    best = run.best()
    if best.score >= known_score.EVIDENT_SCORE:
        return best
    lower = [r.z_um for r in run.curve if r.score < (1 - DIP) * best.score]
    inside = any(z < best.z_um for z in lower) and any(z > best.z_um for z in lower)
    return best if inside and best.score >= known_score.HUMP_SCORE else None


def _is_near(z_um: float, looked: list[float], settings: SearchSettings) -> bool:
    return any(abs(z_um - other) <= coarse_step_um(settings) for other in looked)


def _unread(run: Run, positions: tuple[float, ...]) -> tuple[float, ...]:
    """The positions that no reading is close to; a second one would tell little."""
    near_um = 0.1 * (max(positions) - min(positions)) / max(1, len(positions) - 1)
    read = [reading.z_um for reading in run.curve[1:]]
    return tuple(z for z in positions if all(abs(z - other) > near_um for other in read))
