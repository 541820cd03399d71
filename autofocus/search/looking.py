"""Where to look next when the score is known beforehand: where the hypotheses differ most."""

from __future__ import annotations

import numpy as np

from autofocus.search.belief import Belief, Expected, believe
from autofocus.search.conclusion import CONVINCED, SURE, bounds
from autofocus.search.grid import along
from autofocus.search.protocol import Purpose
from autofocus.search.run import Asking, Run

CANDIDATES_A_DOF = 2
LEAST_APART_DOF = 0.4


def look(run: Run, expected: Expected, *, most: int) -> Asking:
    """Ask for at most ``most`` positions, until one depth of field holds nearly all probability."""
    for _ in range(most):
        belief = believe(run.curve, run.settings, expected)
        if _is_settled(belief, run):
            return
        yield from run.ask((_most_telling(belief, run),), Purpose.COARSE)


def _is_settled(belief: Belief, run: Run) -> bool:
    """Whether another look would not change what is done next."""
    settings = run.settings
    if len(run.curve) < 3:
        return False
    if belief.nothing > CONVINCED or max(belief.beyond(*bounds(run))) > CONVINCED:
        return True
    half_um = settings.dof_um / 2
    sure = belief.within(belief.best_um, half_um) >= SURE
    return sure and belief.sigma_um <= max(settings.tolerance_um, settings.dof_um / 4)


def _most_telling(belief: Belief, run: Run) -> float:
    """Where the hypotheses differ most; of equals, the one farthest from the specimen."""
    settings = run.settings
    low, high = bounds(run)
    low, high = max(low, float(belief.z_um[0])), min(high, float(belief.z_um[-1]))
    count = max(2, int((high - low) / settings.dof_um * CANDIDATES_A_DOF) + 1)
    candidates = np.array(along(settings, np.linspace(low, high, count).tolist()))
    # A second look at the same place repeats the same departure from the shape.
    read_um = np.array([reading.z_um for reading in run.curve])
    apart_um = np.abs(candidates[:, None] - read_um).min(axis=1)
    worth = belief.disagreement(candidates) * (apart_um >= settings.dof_um * LEAST_APART_DOF)
    return float(candidates[np.argmax(worth >= 0.95 * worth.max())])
