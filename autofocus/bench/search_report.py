"""The benchmark of the search as tables and pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from io import BytesIO

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import beta, norm

from autofocus.bench.search import Outcome
from autofocus.bench.search_cases import HARDSHIPS, MUST_REFUSE, SCOPES

Key = Callable[[Outcome], str]
BRIGHT_PHOTONS = 100.0


def report(outcomes: Sequence[Outcome]) -> str:
    """Markdown: every table, one after the other."""
    sections = (
        ("Cold: start within 25 DOF, no fault", _cold(outcomes)),
        ("Cold, by microscope", _by(outcomes, "cold", lambda o: o.case.scope)),
        ("Cold, by specimen", _by(outcomes, "cold", lambda o: o.case.kind)),
        ("Hardships: start within 15 DOF", _by(outcomes, "hardship", lambda o: o.case.fault)),
        ("What must be refused", _refusals(outcomes)),
        ("Warm: start within 5 DOF", _summary(_of(outcomes, "warm"))),
        (
            "10x / 0.3, dense specimens, 200 photons, start within 20 um, calibrated",
            _deepfocus(outcomes),
        ),
        ("Runs that ended blurrier than they began", _blurrier(outcomes)),
        ("Uncertainty of z, over all locked runs", _coverage(outcomes)),
        ("Confidence, over all runs with an answer", _reliability(outcomes)),
        ("Every false lock", _false_locks(outcomes)),
        ("Where the time went", _time(outcomes)),
    )
    return "\n\n".join(f"## {title}\n\n{text}" for title, text in sections) + "\n"


def interval(hits: int, runs: int) -> tuple[float, float]:
    """95 % interval of a rate (C. Clopper and E. Pearson, *Biometrika* 26, 404, 1934)."""
    low = float(beta.ppf(0.025, hits, runs - hits + 1)) if hits else 0.0
    high = float(beta.ppf(0.975, hits + 1, runs - hits)) if hits < runs else 1.0
    return low, high


def _of(outcomes: Iterable[Outcome], group: str) -> list[Outcome]:
    return [outcome for outcome in outcomes if outcome.case.group == group]


def _rate(hits: Sequence[bool]) -> str:
    if not hits:
        return "-"
    low, high = interval(sum(hits), len(hits))
    return f"{sum(hits)}/{len(hits)} = {np.mean(hits):.1%} ({low:.1%} to {high:.1%})"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def _entrants(outcomes: Iterable[Outcome]) -> list[str]:
    return list(dict.fromkeys(outcome.entrant for outcome in outcomes))


_SUMMARY = (
    "strategy",
    "success",
    "false locks",
    "refused",
    "exposures: median",
    "95th",
    "travel, DOF",
    "error, DOF: median",
    "95th",
)


def _summary(outcomes: Sequence[Outcome], label: str | None = None) -> str:
    rows = (
        _summary_row(label or name, [o for o in outcomes if o.entrant == name])
        for name in _entrants(outcomes)
    )
    return _table(_SUMMARY, rows)


def _summary_row(label: str, runs: Sequence[Outcome]) -> tuple[str, ...]:
    errors = [run.error_dof for run in runs if run.locked] or [float("nan")]
    exposures = [run.exposures for run in runs]
    return (
        label,
        _rate([run.success for run in runs]),
        _rate([run.false_lock for run in runs]),
        str(sum(not run.locked for run in runs)),
        f"{np.median(exposures):g}",
        f"{np.percentile(exposures, 95):.0f}",
        f"{np.median([run.travel_dof for run in runs]):.0f}",
        f"{np.median(errors):.2f}",
        f"{np.percentile(errors, 95):.2f}",
    )


def _cold(outcomes: Sequence[Outcome]) -> str:
    """By light. OughtaFocus keeps whatever it ends at: shown as that would have been, too."""
    cold = _of(outcomes, "cold")
    rows = []
    for title, chosen in (
        (">= 100 photons", [o for o in cold if _is_bright(o)]),
        ("< 100 photons", [o for o in cold if not _is_bright(o)]),
    ):
        for name in _entrants(chosen):
            runs = [o for o in chosen if o.entrant == name]
            rows.append(_summary_row(f"{name}, {title}", runs))
            if name.startswith("brent"):
                rows.append(_never_refusing(f"{name}, {title}, never refusing", runs))
    return _table(_SUMMARY, rows)


def _is_bright(outcome: Outcome) -> bool:
    return outcome.case.photons >= BRIGHT_PHOTONS


def _never_refusing(label: str, runs: Sequence[Outcome]) -> tuple[str, ...]:
    """The same runs, had every one kept its best position, as OughtaFocus does."""
    errors = [run.kept_error_dof for run in runs]
    exposures = [run.exposures for run in runs]
    return (
        label,
        _rate([error <= 0.5 for error in errors]),
        _rate([error > 1.0 for error in errors]),
        "0",
        f"{np.median(exposures):g}",
        f"{np.percentile(exposures, 95):.0f}",
        "",
        f"{np.median(errors):.2f}",
        f"{np.percentile(errors, 95):.2f}",
    )


def _by(outcomes: Sequence[Outcome], group: str, key: Key) -> str:
    chosen = _of(outcomes, group)
    order = [*SCOPES, *HARDSHIPS, *MUST_REFUSE]
    values = sorted({key(o) for o in chosen}, key=lambda v: order.index(v) if v in order else -1)
    rows = (
        _summary_row(
            f"{name}: {value}", [o for o in chosen if key(o) == value and o.entrant == name]
        )
        for name in _entrants(chosen)
        for value in values
    )
    return _table(_SUMMARY, rows)


def _refusals(outcomes: Sequence[Outcome]) -> str:
    chosen = _of(outcomes, "must refuse")
    rows = []
    for name in _entrants(chosen):
        for fault in MUST_REFUSE:
            runs = [o for o in chosen if o.entrant == name and o.case.fault == fault]
            verdicts = Counter(run.verdict for run in runs)
            said = ", ".join(f"{verdict} {count}" for verdict, count in verdicts.most_common())
            median = f"{np.median([run.exposures for run in runs]):g}" if runs else "-"
            rows.append((name, fault, _rate([run.false_lock for run in runs]), said, median))
    return _table(("strategy", "fault", "false locks", "verdicts", "exposures"), rows)


def _deepfocus(outcomes: Sequence[Outcome]) -> str:
    chosen = _of(outcomes, "deepfocus")
    if not chosen:
        return "Not run."
    error_um = [run.error_dof * run.case.dof_um for run in chosen if run.locked]
    few = [run.exposures <= 4 for run in chosen]
    return (
        f"{_summary(chosen)}\n\nMedian error {np.median(error_um):.2f} um (95th percentile "
        f"{np.percentile(error_um, 95):.2f} um) at a depth of field of "
        f"{chosen[0].case.dof_um:.2f} um; at most 4 exposures in {_rate(few)}."
    )


def _blurrier(outcomes: Sequence[Outcome]) -> str:
    rows = (
        (name, _rate([o.blurrier for o in outcomes if o.entrant == name]))
        for name in _entrants(outcomes)
    )
    return _table(("strategy", "more than 0.25 DOF farther from focus"), rows)


def _coverage(outcomes: Sequence[Outcome]) -> str:
    """How often the truth lies within the interval that ``z_uncertainty_um`` promises."""
    locked = _locked_with_sigma(outcomes)
    groups = [("all", locked)]
    for scope in SCOPES:
        for title, bright in ((">= 100 photons", True), ("< 100 photons", False)):
            runs = [o for o in locked if o.case.scope == scope and _is_bright(o) is bright]
            groups.append((f"{scope}, {title}", runs))
    rows = (
        (title, str(len(runs)), *(f"{_covered(runs, width):.1%}" for width in (1.0, 1.96)))
        for title, runs in groups
        if runs
    )
    return _table(("stratum", "locked runs", "within 1 sigma", "within 1.96 sigma"), rows)


def _locked_with_sigma(outcomes: Iterable[Outcome]) -> list[Outcome]:
    return [o for o in outcomes if o.locked and np.isfinite(o.answer_error_dof + o.sigma_dof)]


def _covered(runs: Sequence[Outcome], width: float) -> float:
    return float(np.mean([run.answer_error_dof <= width * run.sigma_dof for run in runs]))


def _answered(outcomes: Sequence[Outcome]) -> list[Outcome]:
    return [outcome for outcome in outcomes if np.isfinite(outcome.answer_error_dof)]


def calibration_error(outcomes: Sequence[Outcome], bins: int = 10) -> float:
    """Expected calibration error: mean |confidence - share right| over bins, weighted by runs."""
    answered = _answered(outcomes)
    total = 0.0
    for runs in _binned(answered, bins):
        if runs:
            said = np.mean([run.confidence for run in runs])
            right = np.mean([run.answer_error_dof <= 0.5 for run in runs])
            total += len(runs) * abs(said - right)
    return float(total / max(1, len(answered)))


def _binned(runs: Sequence[Outcome], bins: int) -> list[list[Outcome]]:
    found: list[list[Outcome]] = [[] for _ in range(bins)]
    for run in runs:
        found[min(bins - 1, int(run.confidence * bins))].append(run)
    return found


def _reliability(outcomes: Sequence[Outcome]) -> str:
    rows = [
        (
            f"{i / 10:.1f} to {(i + 1) / 10:.1f}",
            str(len(runs)),
            f"{np.mean([run.confidence for run in runs]):.2f}",
            f"{np.mean([run.answer_error_dof <= 0.5 for run in runs]):.2f}",
        )
        for i, runs in enumerate(_binned(_answered(outcomes), 10))
        if runs
    ]
    text = _table(("confidence", "runs", "said", "within half a DOF"), rows)
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
    return _table((*head, "referee agreed"), rows) if rows else "None."


def _time(outcomes: Sequence[Outcome]) -> str:
    rows = (
        (
            name,
            f"{np.median([o.seconds for o in runs]):.2f}",
            f"{np.sum([o.scoring_s for o in runs]) / np.sum([o.seconds for o in runs]):.0%}",
            f"{1000 * sum(o.scoring_s for o in runs) / sum(o.exposures for o in runs):.0f}",
            f"{np.median([o.dose_ms for o in runs]):.0f}",
        )
        for name in _entrants(outcomes)
        for runs in [[o for o in outcomes if o.entrant == name]]
    )
    head = ("strategy", "s a run, median", "of it scoring", "ms a frame", "dose, ms")
    return _table(head, rows)


def picture(outcomes: Sequence[Outcome]) -> bytes:
    """PNG: exposures against error, coverage of the uncertainty, reliability of the confidence."""
    figure = Figure(figsize=(15, 4.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    cold = [o for o in _of(outcomes, "cold") if o.locked]
    for name in _entrants(cold):
        runs = [o for o in cold if o.entrant == name]
        error = np.maximum([run.error_dof for run in runs], 0.005)
        left.scatter([run.exposures for run in runs], error, s=8, alpha=0.4, label=name)
    left.axhline(0.5, color="0.5", linewidth=1)
    left.set(xlabel="exposures", ylabel="error, DOF", yscale="log", title="cold starts, locked")
    if cold:
        left.legend(fontsize=7)
    locked = _locked_with_sigma(outcomes)
    if locked:
        ratio = np.sort([run.answer_error_dof / run.sigma_dof for run in locked])
        middle.plot(ratio, np.arange(1, ratio.size + 1) / ratio.size)
    normal = np.linspace(0, 4, 100)
    middle.plot(normal, [_normal_share(x) for x in normal], "--", color="0.5", label="normal")
    middle.set(
        xlabel="|error| / uncertainty", ylabel="share of locked runs", xlim=(0, 4), title="coverage"
    )
    middle.legend(fontsize=7)
    bins = [runs for runs in _binned(_answered(outcomes), 10) if runs]
    said = [float(np.mean([run.confidence for run in runs])) for runs in bins]
    held = [float(np.mean([run.answer_error_dof <= 0.5 for run in runs])) for runs in bins]
    right.plot([0, 1], [0, 1], "--", color="0.5")
    right.scatter(said, held, s=[8 + 4 * len(runs) ** 0.5 for runs in bins])
    right.set(xlabel="confidence", ylabel="within half a DOF", title="reliability")
    target = BytesIO()
    figure.savefig(target, format="png", dpi=110)
    return target.getvalue()


def _normal_share(width: float) -> float:
    """Share of a normal distribution within +- ``width`` standard deviations."""
    return float(2 * norm.cdf(width) - 1)
