"""The end of a search that has come close to a peak: whether it is one, and focus."""

from __future__ import annotations

from autofocus.search.conclusion import conclude, expected_score
from autofocus.search.grid import fine_positions, fine_step_um
from autofocus.search.looking import look
from autofocus.search.protocol import Purpose, Search
from autofocus.search.run import MOST_CONFIRMATIONS, Run

MOST_LOOKS = 4
# Looks and their confirmation; then, if those prove nothing, four readings and another.
MOST_EXPOSURES = MOST_LOOKS + MOST_CONFIRMATIONS + 4 + MOST_CONFIRMATIONS


def prove(run: Run) -> Search:
    """Conclude from what is known of the score; without that, from fresh readings alone."""
    expected = expected_score(run.settings)
    if expected is not None:
        yield from look(run, expected, most=MOST_LOOKS)
        concluded = yield from conclude(run, expected)
        if concluded is not None:
            return concluded
    refused = run.frames_refused() or run.flat_or_edge()
    if refused:
        return refused
    step_um = fine_step_um(run.settings)
    around = fine_positions(run.settings, center_um=run.center_um(), step_um=step_um)
    yield from run.ask(around, Purpose.FINE)
    return (yield from run.finish())
