"""Brent's method, as Micro-Manager's OughtaFocus searches: few exposures, and one peak at best."""

from __future__ import annotations

import math

from autofocus.search.grid import range_ends
from autofocus.search.proof import MOST_EXPOSURES, prove
from autofocus.search.protocol import Purpose, Search, SearchSettings
from autofocus.search.run import Asking, Run

GOLDEN = (3 - math.sqrt(5)) / 2
MOST_STEPS = 30


def brent(settings: SearchSettings) -> Search:
    """Close in on one maximum by parabolas and golden sections.

    R. Brent, *Algorithms for Minimization without Derivatives* (1973), chapter 5, with the sign of
    the score turned. OughtaFocus stays wherever this ends; here it must be proven like any peak.
    """
    run = Run(settings)
    yield from run.ask((settings.start_z_um,), Purpose.START)
    yield from _close_in(run)
    return (yield from prove(run))


def first_positions(settings: SearchSettings) -> tuple[float, ...]:
    """The first position: a golden section of the range, um."""
    low, high = range_ends(settings)
    return (low + GOLDEN * (high - low),)


def worst_case_exposures(settings: SearchSettings) -> int:
    """Largest number of exposures: the steps and the proof."""
    return 1 + MOST_STEPS + MOST_EXPOSURES


def _close_in(run: Run) -> Asking:
    """Narrow the bracket until it is as small as the tolerance."""
    low, high = range_ends(run.settings)
    least_um = max(run.settings.tolerance_um, 1e-6)
    best = second = third = low + GOLDEN * (high - low)
    yield from run.ask((best,), Purpose.FINE)
    f_best = f_second = f_third = -run.curve[-1].score
    step = before = 0.0
    for _ in range(MOST_STEPS - 1):
        middle = (low + high) / 2
        if abs(best - middle) <= 2 * least_um - (high - low) / 2:
            return
        golden = True
        if abs(before) > least_um:
            parabola = _parabola(best, second, third, f_best, f_second, f_third)
            inside = parabola is not None and low < best + parabola < high
            if parabola is not None and inside and abs(parabola) < abs(before / 2):
                before, step, golden = step, parabola, False
                if min(best + step - low, high - best - step) < 2 * least_um:
                    step = math.copysign(least_um, middle - best)
        if golden:
            before = (high if best < middle else low) - best
            step = GOLDEN * before
        z_um = best + (step if abs(step) >= least_um else math.copysign(least_um, step))
        yield from run.ask((z_um,), Purpose.FINE)
        f = -run.curve[-1].score
        if f <= f_best:
            low, high = (best, high) if z_um >= best else (low, best)
            third, f_third, second, f_second, best, f_best = second, f_second, best, f_best, z_um, f
            continue
        low, high = (z_um, high) if z_um < best else (low, z_um)
        if f <= f_second or second == best:
            third, f_third, second, f_second = second, f_second, z_um, f
        elif f <= f_third or third in (best, second):
            third, f_third = z_um, f


def _parabola(x: float, w: float, v: float, fx: float, fw: float, fv: float) -> float | None:
    """Step from ``x`` to the extremum of the parabola through three readings."""
    r, q = (x - w) * (fx - fv), (x - v) * (fx - fw)
    numerator, denominator = (x - v) * q - (x - w) * r, 2 * (q - r)
    return -numerator / denominator if denominator else None
