"""The coarse pass in one sweep, for stages that step by themselves while the camera takes a burst.

Which frame of a burst saw which position is the word of cables and adapters: one trigger too many
or too few, or a stage slower than the camera, and every frame belongs to the position beside it.
So the sweep only says where to look. Its best position and those beside it are read again one by
one, and unless those frames say the same, the whole sweep is forgotten. From there on it is
`coarse_to_fine`.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace

from autofocus.search import coarse_to_fine
from autofocus.search.belief import absolute_score
from autofocus.search.conclusion import Concluding
from autofocus.search.evidence import best_reading
from autofocus.search.grid import coarse_positions
from autofocus.search.looking import look_and_conclude
from autofocus.search.protocol import Pass, Purpose, Reading, Search, SearchSettings
from autofocus.search.run import Run

# The best position of a sweep and one to each side.
READ_AGAIN = 3
# By which share of the peak's height a frame taken again may score differently. A frame that
# belongs to the next position, a coarse step on, differs by half the height. Noise is not allowed
# for: a sweep that is not believed costs exposures, one that is believed wrongly more than that.
SHARE = 0.2

Doubting = Generator[Pass, tuple[Reading, ...], tuple[str, tuple[int, ...]]]


def sweep(settings: SearchSettings) -> Search:
    """Sweep the range, read the best of it again, and go on as `coarse_to_fine` does.

    Parameters
    ----------
    settings : SearchSettings
        Range, bounds and depth of field, um.

    Yields
    ------
    Pass
        The start, the coarse pass, which may be swept, up to three of its positions again, and
        what `coarse_to_fine` asks for. Only the coarse pass may be swept.

    Returns
    -------
    SearchResult
        Judged by the same verdicts as every search; the frames near the peak, and the one that
        confirms it, were all taken one by one.
    """
    run = Run(settings)
    yield from run.ask((settings.start_z_um,), Purpose.START)
    yield from run.ask(first_positions(settings), Purpose.COARSE, swept=True)
    doubt, left_out = yield from _read_again(run)
    if doubt:
        result = yield from coarse_to_fine.after_start(run)
        return replace(result, reason=f"{result.reason}; {doubt}", left_out=left_out)
    evident = yield from _evident(run)
    result = evident or (yield from coarse_to_fine.whole_range(run))
    return replace(result, left_out=left_out)


def first_positions(settings: SearchSettings) -> tuple[float, ...]:
    """Positions of the sweep, um."""
    return coarse_positions(settings)


def worst_case_exposures(settings: SearchSettings) -> int:
    """Largest number of exposures.

    A sweep of which frames are missing, the same positions one by one, which are not believed
    either, and a whole `coarse_to_fine`.
    """
    swept = 2 * len(first_positions(settings))
    return swept + READ_AGAIN + coarse_to_fine.worst_case_exposures(settings)


def _read_again(run: Run) -> Doubting:
    """Take the best of the sweep again; forget those frames, or all of them if these differ.

    Returns
    -------
    doubt : str
        What differs; empty when the sweep is believed.
    left_out : tuple of int
        The readings that were forgotten.
    """
    start, *swept = run.curve
    if not swept:
        return "", ()
    best = swept.index(best_reading(swept))
    again = range(max(0, best - 1), min(len(swept), best + 2))
    allowed = SHARE * (swept[best].score - run.background().level)
    yield from run.ask([swept[i].z_um for i in again], Purpose.COARSE)
    fresh = run.curve[1 + len(swept) :]
    doubt = _difference([swept[i] for i in again], fresh, allowed)
    if doubt:
        run.curve = [start]
        return doubt, tuple(range(1, 1 + len(swept) + len(fresh)))
    kept = [reading for i, reading in enumerate(swept) if i not in again]
    run.curve = [start, *kept, *fresh]
    return "", tuple(1 + i for i in again)


def _difference(swept: Sequence[Reading], fresh: Sequence[Reading], allowed: float) -> str:
    for before, now in zip(swept, fresh, strict=True):
        if abs(before.score - now.score) > allowed:
            return (
                f"the sweep was not believed: at {now.z_um:.2f} um it scored {before.score:.4g}, "
                f"the same position taken alone {now.score:.4g}"
            )
    return ""


def _evident(run: Run) -> Concluding:
    """What a score of absolute meaning concludes from the sweep and a few more looks."""
    if not run.settings.absolute or coarse_to_fine.hump_of(run) is None:
        return None
    expected = absolute_score()
    return (yield from look_and_conclude(run, expected, most=coarse_to_fine.MOST_LOOKS))
