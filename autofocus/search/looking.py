"""Where to look next when the score is known beforehand: where a frame tells most of the plane."""

from __future__ import annotations

import numpy as np

from autofocus.search.belief import Belief, Expected, believe
from autofocus.search.conclusion import (
    CLEAR,
    CONVINCED,
    LIKELY,
    SURE,
    Concluding,
    bounds,
    conclude,
    open_side,
)
from autofocus.search.grid import along
from autofocus.search.protocol import Purpose
from autofocus.search.run import MOST_CONFIRMATIONS, Asking, Run

# Candidates over everything that may be visited, and where the flanks of the likeliest peak are.
STEP_DOF = 1.0
NEAR_STEP_DOF = 0.25
NEAR_DOF = 3.0
LEAST_APART_DOF = 0.4
FLANK_DOF = 2.0


def look_and_conclude(run: Run, expected: Expected, *, most: int) -> Concluding:
    """The verdict after at most twice ``most`` looks, or None when they prove nothing."""
    # The frame at the peak tells much itself, so it is taken early; a lock needs more, and in this
    # first round more than it must have in the end.
    for sure, wanted in ((LIKELY, CLEAR), (CLEAR, SURE)):
        yield from look(run, expected, most=most, sure=sure)
        result = yield from conclude(run, expected, wanted=wanted)
        if result is not None:
            return result
    return None


def most_exposures(most: int) -> int:
    """Exposures that `look_and_conclude` can take."""
    return 2 * (most + MOST_CONFIRMATIONS)


def look(run: Run, expected: Expected, *, most: int, sure: float = SURE) -> Asking:
    """Ask for at most ``most`` positions, until one depth of field holds ``sure``.

    Lower readings then stand on both sides of it, which `conclude` wants to see.
    """
    for _ in range(most):
        belief = believe(run.curve, run.settings, expected)
        z_um = _next(belief, run, sure)
        if z_um is None:
            return
        yield from run.ask((z_um,), Purpose.COARSE)


def _next(belief: Belief, run: Run, sure: float) -> float | None:
    """The next position; None when another look would not change what is done next."""
    if len(run.curve) < 3:
        return _most_telling(belief, run)
    if belief.nothing > CONVINCED or max(belief.beyond(*bounds(run))) > CONVINCED:
        return None
    half_um = run.settings.dof_um / 2
    # What the referee adds locks nothing by itself, so it does not end the looking either.
    held = belief.within(belief.best_um, half_um), belief.within_by_score(belief.best_um, half_um)
    if min(held) < sure:
        return _most_telling(belief, run)
    return _flank(belief, run)


def _flank(belief: Belief, run: Run) -> float | None:
    """Where a lower reading is still missing, beyond what was read on that side; or None."""
    # What the frame at the peak scored, or is going to.
    top = run.final.score if run.final else max(run.best().score, belief.top_score)
    side = open_side(run, belief.best_um, top, belief)
    if side == 0:
        return None
    off_um = [side * (reading.z_um - belief.best_um) for reading in run.curve]
    z_um = belief.best_um + side * (max(0.0, *off_um) + FLANK_DOF * run.settings.dof_um)
    low, high = bounds(run)
    return z_um if low <= z_um <= high else None


def _most_telling(belief: Belief, run: Run) -> float:
    """Where a frame tells most of the in-focus plane; of equals, farthest from the specimen."""
    settings, dof_um = run.settings, run.settings.dof_um
    low, high = bounds(run)
    low, high = max(low, float(belief.z_um[0])), min(high, float(belief.z_um[-1]))
    everywhere = np.linspace(low, high, max(2, int((high - low) / (STEP_DOF * dof_um)) + 1))
    near = belief.best_um + dof_um * np.arange(-NEAR_DOF, NEAR_DOF + 0.01, NEAR_STEP_DOF)
    near = near[(near >= low) & (near <= high)]
    candidates = np.array(along(settings, np.append(everywhere, near).tolist()))
    # A second look at the same place repeats the same departure from the shape.
    read_um = np.array([reading.z_um for reading in run.curve])
    apart_um = np.abs(candidates[:, None] - read_um).min(axis=1)
    worth = belief.telling(candidates) * (apart_um >= dof_um * LEAST_APART_DOF)
    return float(candidates[np.argmax(worth >= 0.95 * worth.max())])
