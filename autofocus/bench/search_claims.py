"""What the benchmark of the search was asked to show, a line each, with number and interval."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from autofocus.bench.search_entrants import OUGHTAFOCUS
from autofocus.bench.search_outcome import Outcome
from autofocus.bench.search_report import (
    ADVISED,
    advised,
    answered,
    calibration_error,
    coverage_strata,
    covered,
    entrants,
    is_bright,
    locked_with_sigma,
    median_interval,
    of_group,
    rate,
    table,
)

Line = tuple[str, str, str]
COLD = ("coarse_to_fine", "predictive", OUGHTAFOCUS)


def claims(outcomes: Sequence[Outcome]) -> str:
    """Markdown: one table."""
    lines = (
        *_false_locks(outcomes),
        *_blurrier(outcomes),
        *_cold(outcomes),
        *_known_beforehand(outcomes),
        *_edge(outcomes),
        *_uncertainty(outcomes),
    )
    return table(("of", "strategy", "measured"), lines)


def _false_locks(outcomes: Sequence[Outcome]) -> Iterator[Line]:
    refuse = of_group(outcomes, "must refuse")
    elsewhere = [o for o in outcomes if o.case.group != "must refuse"]
    for title, chosen in (("what must be refused", refuse), ("everything else", elsewhere)):
        yield from _each(
            f"false locks on {title}", chosen, lambda runs: rate([run.false_lock for run in runs])
        )


def _blurrier(outcomes: Sequence[Outcome]) -> Iterator[Line]:
    return _each(
        "ended more than 0.25 DOF blurrier than begun",
        outcomes,
        lambda runs: rate([run.blurrier for run in runs]),
    )


def _each(
    title: str, outcomes: Sequence[Outcome], tell: Callable[[list[Outcome]], str]
) -> Iterator[Line]:
    """All advised strategies together, then every strategy by itself."""
    ours = advised(outcomes)
    if ours:
        yield title, f"{ADVISED}, together", tell(ours)
    for name in entrants(outcomes):
        yield title, name, tell([o for o in outcomes if o.entrant == name])


def _cold(outcomes: Sequence[Outcome]) -> Iterator[Line]:
    bright = [o for o in of_group(outcomes, "cold") if is_bright(o)]
    title = "cold start, at least 100 photons"
    for name in (name for name in COLD if name in entrants(bright)):
        runs = [o for o in bright if o.entrant == name]
        yield title, name, f"success {rate([run.success for run in runs])}; {_exposures(runs)}"
        if name == OUGHTAFOCUS:
            kept = [run.kept_error_dof <= 0.5 for run in runs]
            yield title, f"{name}, never refusing", f"success {rate(kept)}; {_exposures(runs)}"


def _exposures(runs: Sequence[Outcome]) -> str:
    exposures = [run.exposures for run in runs]
    return f"exposures {np.median(exposures):g}, 95th percentile {np.percentile(exposures, 95):.0f}"


def _known_beforehand(outcomes: Sequence[Outcome]) -> Iterator[Line]:
    for title, group in (
        ("start within 5 DOF, focus expected there", "warm"),
        ("10x / 0.3, dense, 200 photons, start within 20 um", "deepfocus"),
        ("start 25 to 40 DOF away", "far"),
    ):
        chosen = of_group(outcomes, group)
        for name in entrants(chosen):
            runs = [o for o in chosen if o.entrant == name]
            yield title, name, "; ".join(_how_well(runs))


def _how_well(runs: Sequence[Outcome]) -> Iterator[str]:
    yield f"success {rate([run.success for run in runs])}"
    yield _exposures(runs)
    yield f"at most 4 exposures {rate([run.exposures <= 4 for run in runs])}"
    locked = [run for run in runs if run.locked]
    if locked:
        um, dof = [run.error_um for run in locked], [run.error_dof for run in locked]
        low, high = median_interval(um)
        yield (
            f"error {np.median(um):.2f} um ({low:.2f} to {high:.2f}) = {np.median(dof):.2f} DOF, "
            f"95th percentile {np.percentile(um, 95):.2f} um = {np.percentile(dof, 95):.2f} DOF"
        )


def _edge(outcomes: Sequence[Outcome]) -> Iterator[Line]:
    return _each(
        "focus within 1 DOF of the end of the range: locked within half a DOF, or `edge`",
        of_group(outcomes, "edge"),
        lambda runs: rate([run.right_at_the_edge for run in runs]),
    )


def _uncertainty(outcomes: Sequence[Outcome]) -> Iterator[Line]:
    locked = locked_with_sigma(advised(outcomes))
    for width in (1.0, 1.96):
        title = f"truth within {width:g} times the uncertainty, locked runs"
        if locked:
            yield title, f"{ADVISED}, together", rate(covered(locked, width))
        shares = [np.mean(covered(runs, width)) for _, runs in coverage_strata(locked)]
        if shares:
            by_stratum = f"{min(shares):.1%} to {max(shares):.1%} in {len(shares)} strata"
            yield title, f"{ADVISED}, by microscope and light", by_stratum
    title = "expected calibration error of the confidence"
    for whose, runs in ((f"{ADVISED}, together", advised(outcomes)), ("all", outcomes)):
        if answered(runs):
            yield title, whose, f"{calibration_error(runs):.3f}"
