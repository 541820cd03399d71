"""The end of a run whose score is known beforehand: where focus is, if all is as expected.

A few readings cannot tell noise from a peak by themselves. They can when height, level and noise of
the score are known: see `belief`. What is not as expected is never concluded from.
"""

from __future__ import annotations

from collections.abc import Generator

from autofocus.search import known_score, trust
from autofocus.search.belief import Belief, Expected, absolute_score, believe, measured_score
from autofocus.search.grid import inside_bounds
from autofocus.search.protocol import (
    Pass,
    Reading,
    SearchResult,
    SearchSettings,
    Verdict,
)
from autofocus.search.run import Run

# Probability that one depth of field must hold for a lock, and the one that is wanted first.
SURE = 0.9
CLEAR = 0.95
# From which on a frame there is worth taking, and from which on a start as sharp is worth keeping.
LIKELY = 0.55
WORTH_KEEPING = 0.75
# Probability of "nothing here" or "not in the range" that ends a run.
CONVINCED = 0.99
# Share of the tolerance by which a belief may move after the frame at the peak without another.
FOLLOWED = 0.7
# Noises by which a score must be lower to be surely lower.
MARGIN = 1.5
# Residuals, in units of the noise, above which the readings are of no curve that was expected.
REFUTED = 2.5

Concluding = Generator[Pass, tuple[Reading, ...], SearchResult | None]


def expected_score(settings: SearchSettings) -> Expected | None:
    """What is known of the score of this run beforehand; None when nothing is."""
    if settings.calibrated is not None:
        return measured_score(settings)
    return absolute_score() if settings.absolute else None


def bounds(run: Run) -> tuple[float, float]:
    """Lowest and highest position that may be visited, um."""
    return run.settings.z_min_um, run.settings.z_max_um


def conclude(run: Run, expected: Expected, *, wanted: float = SURE) -> Concluding:
    """The verdict, or None when the readings are not what was predicted or seem to be of nothing.

    Parameters
    ----------
    wanted : float
        Probability that one depth of field must hold for a lock; less does for a start that is as
        sharp.
    """
    refused = run.frames_refused()
    if refused:
        return refused
    belief = believe(run.curve, run.settings, expected)
    # Of five runs that few readings convinced of an empty field, none was one. The range decides.
    if belief.misfit > REFUTED or belief.nothing > CONVINCED:
        return None
    low_um, high_um = bounds(run)
    below, above = belief.beyond(low_um, high_um)
    if max(below, above) > CONVINCED:
        side, end_um = ("below", low_um) if below > above else ("above", high_um)
        return run.refuse(
            Verdict.EDGE,
            f"focus lies {side} {end_um:.2f} um, the end of what may be visited",
            end_um,
        )
    for _ in range(2):
        z_um = inside_bounds(run.settings, belief.best_um)
        yield from run.confirm_at(z_um)
        belief = believe(run.curve, run.settings, expected)
        off_um = abs(inside_bounds(run.settings, belief.best_um) - z_um)
        if off_um <= FOLLOWED * run.settings.tolerance_um:
            break
    if (yield from run.move_to_sharper(belief.top_score - _least_noise(expected))):
        belief = believe(run.curve, run.settings, expected)
    if _start_will_do(run, belief, expected):
        wanted = WORTH_KEEPING
        yield from run.confirm_at(run.curve[0].z_um)
        belief = believe(run.curve, run.settings, expected)
    return run.frames_refused() or _judged(run, belief, expected, wanted)


def _start_will_do(run: Run, belief: Belief, expected: Expected) -> bool:
    """Whether the start may well be focus, and is no less sharp: then it is the safer place."""
    held = belief.within(run.curve[0].z_um, run.settings.dof_um / 2)
    worth_keeping = run.allows(run.curve[0]) and held >= WORTH_KEEPING
    return worth_keeping and (
        run.start_is_as_sharp(noise=_least_noise(expected)) or run.referee_prefers_the_start()
    )


def _judged(run: Run, belief: Belief, expected: Expected, wanted: float) -> SearchResult | None:
    final, start, settings = run.final, run.curve[0], run.settings
    assert final is not None
    held = belief.within(final.z_um, settings.dof_um / 2)
    if belief.misfit > REFUTED or held < wanted:
        return None
    # The referee may make a run surer, but not sure.
    if belief.within_by_score(final.z_um, settings.dof_um / 2) < min(wanted, SURE):
        return None
    if open_side(run, final.z_um, final.score, belief):
        return None
    if run.best().score - final.score > MARGIN * float(expected.noise.max()):
        return None
    if final.score < _evident_score(run, final.z_um):
        return None
    if run.referee_saw_more_elsewhere() or run.contradiction() or run.unsure_of_the_place():
        return None
    if start.score - final.score > float(expected.noise.max()):
        return None
    if run.start_is_as_sharp(noise=_least_noise(expected)):
        return None
    sigma_um = trust.sigma_um(
        trust.UNCALIBRATED if settings.calibrated is None else trust.CALIBRATED,
        score=final.score,
        own_um=belief.sigma_um,
        moved_um=abs(belief.best_um - final.z_um),
        dof_um=settings.dof_um,
    )
    return run.result(
        Verdict.LOCKED,
        f"peak at {final.z_um:.2f} um holds focus within half a depth of field with a probability "
        f"of {held:.3f}, measured again",
        z_um=final.z_um,
        sigma_um=sigma_um,
        score=final.score,
        confidence=trust.confidence(sigma_um, share=trust.KNOWN_SCORE, dof_um=settings.dof_um),
    )


def _evident_score(run: Run, z_um: float) -> float:
    """What a frame there must score to be in focus: by the calibration, else by the scorer."""
    if run.settings.calibrated is None:
        return run.evident_score(z_um)
    low, high = min(run.settings.calibrated.score), max(run.settings.calibrated.score)
    return low + known_score.EVIDENT_SCORE * (high - low)


def _least_noise(expected: Expected) -> float:
    return float(expected.noise.min())


def open_side(run: Run, z_um: float, top: float, belief: Belief) -> int:
    """On which side of a peak no surely lower reading is: -1, +1, or 0 when both have one."""
    lower = [r.z_um for r in run.curve if r.score < top - MARGIN * belief.noise]
    if not any(z < z_um for z in lower):
        return -1
    return 0 if any(z > z_um for z in lower) else +1
