"""The benchmark of the search as tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from scipy.stats import beta, binom

from autofocus.bench.search_cases import HARDSHIPS, MUST_REFUSE, SCOPES
from autofocus.bench.search_entrants import ENTRANTS
from autofocus.bench.search_outcome import Outcome

Key = Callable[[Outcome], str]
BRIGHT_PHOTONS = 100.0
# Strategies that users are advised to use, each with the learned score.
ADVISED = "strategies in use"
LIGHT = ("30 to 100 photons", "100 to 300 photons", "300 to 1000 photons")


def report(outcomes: Sequence[Outcome]) -> str:
    """Markdown: every table, one after the other."""
    sections = (
        ("Cold: start within 25 DOF, no fault", _cold(outcomes)),
        ("Cold, by microscope", _by(outcomes, "cold", lambda o: o.case.scope)),
        ("Cold, by light", _by(outcomes, "cold", _light)),
        ("Cold, by specimen", _by(outcomes, "cold", lambda o: o.case.kind)),
        ("Far: start 25 to 40 DOF away, range 90 DOF", _summary(of_group(outcomes, "far"))),
        ("Hardships: start within 15 DOF", _by(outcomes, "hardship", lambda o: o.case.fault)),
        ("Focus within 1 DOF of the end of the range, inside or outside", _edges(outcomes)),
        ("What must be refused", _refusals(outcomes)),
        ("Warm: start within 5 DOF", _summary(of_group(outcomes, "warm"))),
        (
            "10x / 0.3, dense specimens, 200 photons, start within 20 um, stage good to 0.05 um, "
            "calibrated",
            _summary(of_group(outcomes, "deepfocus")),
        ),
        ("Uncertainty of z, over locked runs", _coverage(outcomes)),
        (f"Confidence, over runs of {ADVISED} with an answer", _reliability(advised(outcomes))),
        ("Every false lock", _false_locks(outcomes)),
        ("Where the time went, seconds a run", _time(outcomes)),
    )
    return "\n\n".join(f"## {title}\n\n{text}" for title, text in sections)


def interval(hits: int, runs: int) -> tuple[float, float]:
    """95 % interval of a rate (C. Clopper and E. Pearson, *Biometrika* 26, 404, 1934)."""
    low = float(beta.ppf(0.025, hits, runs - hits + 1)) if hits else 0.0
    high = float(beta.ppf(0.975, hits + 1, runs - hits)) if hits < runs else 1.0
    return low, high


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the median of what they were drawn from: two of them, by their ranks.

    How many of n values lie below the median is binomial (n, 1/2); for fewer than 6 values no two
    ranks hold so much, and it is their whole range.
    """
    ranked = np.sort(values)
    low = int(binom.ppf(0.025, len(ranked), 0.5))
    return float(ranked[max(low - 1, 0)]), float(ranked[min(len(ranked) - low, len(ranked) - 1)])


def of_group(outcomes: Iterable[Outcome], group: str) -> list[Outcome]:
    """Those of one table."""
    return [outcome for outcome in outcomes if outcome.case.group == group]


def rate(hits: Sequence[bool]) -> str:
    """Count, share and its interval."""
    if not hits:
        return "-"
    low, high = interval(sum(hits), len(hits))
    return f"{sum(hits)}/{len(hits)} = {np.mean(hits):.1%} ({low:.1%} to {high:.1%})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """In Markdown."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def entrants(outcomes: Iterable[Outcome]) -> list[str]:
    """Names of those that ran, in the order of the list of entrants."""
    there = {outcome.entrant for outcome in outcomes}
    return [name for name in ENTRANTS if name in there]


def advised(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Those of strategies that are not there to be compared with."""
    return [outcome for outcome in outcomes if not ENTRANTS[outcome.entrant].compared]


def _ran_everything(name: str) -> bool:
    return ENTRANTS[name].share == 1.0


_SUMMARY = (
    "strategy",
    "success",
    "false locks",
    "refused",
    "blurrier",
    "exposures: median",
    "95th",
    "dose, ms",
    "moves",
    "travel, DOF",
    "error, um: median",
    "error, DOF: median",
    "95th",
)


def _summary(outcomes: Sequence[Outcome]) -> str:
    if not outcomes:
        return "Not run."
    rows = (
        _summary_row(name, [o for o in outcomes if o.entrant == name])
        for name in entrants(outcomes)
    )
    return table(_SUMMARY, rows)


def _summary_row(label: str, runs: Sequence[Outcome]) -> tuple[str, ...]:
    locked = [run for run in runs if run.locked]
    exposures = [run.exposures for run in runs]
    return (
        label,
        rate([run.success for run in runs]),
        rate([run.false_lock for run in runs]),
        str(len(runs) - len(locked)),
        str(sum(run.blurrier for run in runs)),
        _median(exposures),
        _high(exposures),
        _median([run.dose_ms for run in runs]),
        _median([run.moves for run in runs]),
        _median([round(run.travel_dof) for run in runs]),
        _median([run.error_um for run in locked], ".2f"),
        _median([run.error_dof for run in locked], ".2f"),
        _high([run.error_dof for run in locked], ".2f"),
    )


def _median(values: Sequence[float], digits: str = "g") -> str:
    return f"{np.median(values):{digits}}" if values else "-"


def _high(values: Sequence[float], digits: str = ".0f") -> str:
    return f"{np.percentile(values, 95):{digits}}" if values else "-"


def _cold(outcomes: Sequence[Outcome]) -> str:
    """By light. OughtaFocus keeps whatever it ends at: shown as that would have been, too."""
    cold = of_group(outcomes, "cold")
    rows = []
    for title, chosen in (
        (">= 100 photons", [o for o in cold if is_bright(o)]),
        ("< 100 photons", [o for o in cold if not is_bright(o)]),
    ):
        for name in entrants(chosen):
            runs = [o for o in chosen if o.entrant == name]
            rows.append(_summary_row(f"{name}, {title}", runs))
            if ENTRANTS[name].strategy == "brent":
                rows.append(_never_refusing(f"{name}, {title}, never refusing", runs))
    return table(_SUMMARY, rows)


def is_bright(outcome: Outcome) -> bool:
    """At least `BRIGHT_PHOTONS`."""
    return outcome.case.photons >= BRIGHT_PHOTONS


def _light(outcome: Outcome) -> str:
    return LIGHT[int(np.searchsorted((100.0, 300.0), outcome.case.photons, side="right"))]


def _never_refusing(label: str, runs: Sequence[Outcome]) -> tuple[str, ...]:
    """The same runs, had every one kept its best position, as OughtaFocus does."""
    errors = [run.kept_error_dof for run in runs]
    exposures = [run.exposures for run in runs]
    return (
        label,
        rate([error <= 0.5 for error in errors]),
        rate([error > 1.0 for error in errors]),
        "0",
        str(sum(run.kept_error_dof > run.start_error_dof + 0.25 for run in runs)),
        _median(exposures),
        _high(exposures),
        _median([run.dose_ms for run in runs]),
        _median([run.moves for run in runs]),
        "",
        _median([run.kept_error_dof * run.case.dof_um for run in runs], ".2f"),
        _median(errors, ".2f"),
        _high(errors, ".2f"),
    )


def _by(outcomes: Sequence[Outcome], group: str, key: Key) -> str:
    chosen = of_group(outcomes, group)
    order = [*SCOPES, *LIGHT, *HARDSHIPS]
    values = sorted(
        sorted({key(o) for o in chosen}), key=lambda v: order.index(v) if v in order else -1
    )
    rows = (
        _summary_row(
            f"{name}: {value}", [o for o in chosen if key(o) == value and o.entrant == name]
        )
        for name in entrants(chosen)
        if _ran_everything(name)
        for value in values
    )
    return table(_SUMMARY, rows)


def _edges(outcomes: Sequence[Outcome]) -> str:
    """Right: locked within half a depth of field, or told that the peak is at the end."""
    chosen = of_group(outcomes, "edge")
    rows = []
    for name in entrants(chosen):
        for title, inside in (("inside", True), ("outside", False)):
            runs = [o for o in chosen if o.entrant == name and _is_inside(o) is inside]
            rows.append(
                (
                    name,
                    title,
                    rate([run.right_at_the_edge for run in runs]),
                    rate([run.false_lock for run in runs]),
                    _verdicts(runs),
                    _median([run.exposures for run in runs]),
                )
            )
    return table(("strategy", "focus is", "right", "false locks", "verdicts", "exposures"), rows)


def _is_inside(outcome: Outcome) -> bool:
    within_dof = outcome.case.within_dof
    return within_dof is not None and abs(outcome.case.start_dof) <= within_dof


def _verdicts(runs: Sequence[Outcome]) -> str:
    counted = Counter(run.verdict for run in runs).most_common()
    return ", ".join(f"{verdict} {count}" for verdict, count in counted)


def _refusals(outcomes: Sequence[Outcome]) -> str:
    chosen = of_group(outcomes, "must refuse")
    rows = []
    for name in entrants(chosen):
        for fault in MUST_REFUSE:
            runs = [o for o in chosen if o.entrant == name and o.case.fault == fault]
            rows.append(
                (
                    name,
                    fault,
                    rate([not run.locked for run in runs]),
                    rate([run.false_lock for run in runs]),
                    _verdicts(runs),
                    _median([run.exposures for run in runs]),
                )
            )
    head = ("strategy", "fault", "correctly refused", "false locks", "verdicts", "exposures")
    return table(head, rows)


def _coverage(outcomes: Sequence[Outcome]) -> str:
    """How often the truth lies within the interval that ``z_uncertainty_um`` promises."""
    every, locked = locked_with_sigma(outcomes), locked_with_sigma(advised(outcomes))
    strata = (("all", every), (ADVISED, locked), *coverage_strata(locked))
    rows = (
        (title, str(len(runs)), *(rate(covered(runs, width)) for width in (1.0, 1.96)))
        for title, runs in strata
    )
    return table(("stratum", "locked runs", "within 1 sigma", "within 1.96 sigma"), rows)


def coverage_strata(locked: Sequence[Outcome]) -> list[tuple[str, list[Outcome]]]:
    """Locked runs by microscope and light, as far as there are any."""
    groups = []
    for scope in SCOPES:
        for title, bright in ((">= 100 photons", True), ("< 100 photons", False)):
            runs = [o for o in locked if o.case.scope == scope and is_bright(o) is bright]
            groups.append((f"{scope}, {title}", runs))
    return [(title, runs) for title, runs in groups if runs]


def locked_with_sigma(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Locked runs with a truth to compare their uncertainty with."""
    return [o for o in outcomes if o.locked and np.isfinite(o.answer_error_dof + o.sigma_dof)]


def covered(runs: Sequence[Outcome], width: float) -> list[bool]:
    """Whether the truth lies within ``width`` times the uncertainty, of each run."""
    return [run.answer_error_dof <= width * run.sigma_dof for run in runs]


def answered(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Those that answer a position, and have a truth to compare it with."""
    return [outcome for outcome in outcomes if np.isfinite(outcome.answer_error_dof)]


def calibration_error(outcomes: Sequence[Outcome], bins: int = 10) -> float:
    """Expected calibration error: mean |confidence - share right| over bins, weighted by runs."""
    total, judged = 0.0, answered(outcomes)
    for runs in binned(judged, bins):
        if runs:
            said = np.mean([run.confidence for run in runs])
            right = np.mean([run.answer_error_dof <= 0.5 for run in runs])
            total += len(runs) * abs(said - right)
    return float(total / max(1, len(judged)))


def binned(runs: Sequence[Outcome], bins: int = 10) -> list[list[Outcome]]:
    """By confidence."""
    found: list[list[Outcome]] = [[] for _ in range(bins)]
    for run in runs:
        found[min(bins - 1, int(run.confidence * bins))].append(run)
    return found


def _reliability(outcomes: Sequence[Outcome]) -> str:
    if not answered(outcomes):
        return "Not run."
    rows = [
        (
            f"{i / 10:.1f} to {(i + 1) / 10:.1f}",
            str(len(runs)),
            f"{np.mean([run.confidence for run in runs]):.2f}",
            f"{np.mean([run.answer_error_dof <= 0.5 for run in runs]):.2f}",
        )
        for i, runs in enumerate(binned(answered(outcomes)))
        if runs
    ]
    text = table(("confidence", "runs", "said", "within half a DOF"), rows)
    return f"{text}\n\nExpected calibration error {calibration_error(outcomes):.3f}."


def _false_locks(outcomes: Sequence[Outcome]) -> str:
    rows = [
        (
            run.entrant,
            run.case.group,
            run.case.scope,
            run.case.kind,
            run.case.fault,
            f"{run.case.photons:.0f}",
            str(run.case.seed),
            f"{run.error_dof:.2f}",
            {True: "yes", False: "no", None: "no opinion"}[run.referee_agrees],
        )
        for run in outcomes
        if run.false_lock
    ]
    head = ("strategy", "group", "microscope", "specimen", "fault", "photons", "seed", "off, DOF")
    return table((*head, "referee agreed"), rows) if rows else "None."


def _time(outcomes: Sequence[Outcome]) -> str:
    """Means. Scoring goes on beside the other two; camera is the time that rendering takes."""
    rows = (
        (
            name,
            *(
                f"{np.mean([getattr(o, part) for o in runs]):.2f}"
                for part in ("stage_s", "camera_s", "scoring_s", "seconds")
            ),
            f"{1000 * sum(o.scoring_s for o in runs) / sum(o.exposures for o in runs):.0f}",
        )
        for name in entrants(outcomes)
        for runs in [[o for o in outcomes if o.entrant == name]]
    )
    return table(("strategy", "stage", "camera", "scoring", "total", "scoring, ms a frame"), rows)
