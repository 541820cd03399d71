"""The whole page of the documentation about searches, from the runs alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autofocus.bench import search_claims, search_pictures, search_real, search_report
from autofocus.bench.search_cases import FIRST_SEED, QUICK_ONE_IN
from autofocus.bench.search_entrants import CLASSICAL, LEARNED, OUGHTAFOCUS
from autofocus.bench.search_outcome import Outcome
from autofocus.bench.search_real import Replayed


@dataclass(frozen=True)
class MadeBy:
    """The options of the command that decide what the page holds.

    Attributes
    ----------
    first_seed : int
    quick : bool
    entrants : str
        As given; empty for all.
    recorded : bool
        Recorded stacks too.
    """

    first_seed: int = FIRST_SEED
    quick: bool = False
    entrants: str = ""
    recorded: bool = True

    @property
    def command(self) -> str:
        """To be typed in the checkout."""
        words = ["autofocus bench search -o OUT --jobs 2"]
        if self.recorded:
            words.append("--data ../shared/data")
        if self.first_seed != FIRST_SEED:
            words.append(f"--first-seed {self.first_seed}")
        if self.quick:
            words.append("--quick")
        if self.entrants:
            words.append(f'--entrants "{self.entrants}"')
        return " ".join([*words, "--docs docs/benchmarks/search.md"])


_INTRODUCTION = f"""\
# Searches

How often each strategy ends in focus, how often it is wrong without saying so, and what it costs. \
All but the paragraphs *This page* and *The false locks* was written by one command:

```
{{command}}
```

A run that was killed goes on where it was. `--quick` runs one case in {QUICK_ONE_IN}.

**Judge.** Five simulated microscopes (10x/0.3 to 100x/1.45 oil), seven kinds of specimen, 30 to \
1000 photons a pixel in the specimen (8 to 20 in `dim`), frames of 384 x 384 px. True focus, start \
and light follow from seeds, {{first_seed:,}} and up; nothing was trained on them, and the search \
was tuned on others: 3,000,000 to 3,999,999, and 5,000,000 to {FIRST_SEED - 1:,} of earlier \
tables. The error is the true distance of the carriage, play and all, from the plane with most \
detail in the noise-free frame; with drift, from where that plane is when the run ends. For \
debris the dust's plane is an accepted answer too, for thick tissue each of its five layers. A \
tilted specimen is judged by the middle of the frame, the median of its planes.

**Words.** Success: locked within half a depth of field. False lock: locked more than one depth of \
field away, or on nothing. Blurrier: ended more than a quarter of a depth of field farther from \
focus than begun. Intervals are 95 % Clopper-Pearson. Exposures count all: start, search, \
confirmation; each is 10 ms of dose.

**Rows.** The scorer is `{LEARNED}` unless `{CLASSICAL}` is named. *{OUGHTAFOCUS}* searches 10 um \
with a tolerance of 1 um; OughtaFocus keeps wherever it ends, so the same runs are also shown as \
if none had been refused. *Warm* runs are told that focus is within 5 DOF of the start (normal, \
sigma 2.5 DOF); *calibrated* ones also know the focus curve that `autofocus calibrate` measured on \
another specimen of the same kind under the same microscope. `golden`, `hill_climb`, \
`exhaustive` and `sweep` run a fourteenth of the cold cases, `sweep` also of those that must be \
refused. Drift is 0.02 DOF from one exposure to the next. \
Every process scores with one thread."""
_SINGLE_RUNS = """\
## Single runs

Typical successes, and the worst runs of the strategies in use as far as there are any: the lock \
that is farthest off, a false lock, a refusal although the answer was right, a run that ended \
blurrier than it began. Numbers are exposures in order."""


def contents(outcomes: Sequence[Outcome], replays: Sequence[Replayed] = ()) -> str:
    """Markdown: what was asked for, every table, and recorded stacks if there are any."""
    parts = [
        f"## What ran\n\n{_what_ran(outcomes)}",
        f"## What was asked for\n\n{search_claims.claims(outcomes)}",
        search_report.report(outcomes),
    ]
    if replays:
        parts.append(f"## Recorded z-stacks\n\n{_REPLAYS}\n\n{search_real.report(replays)}")
    return "\n\n".join(parts) + "\n"


_REPLAYS = (
    "Every stack from five starts, judged by the planes that a careful person accepts; a lock on a "
    "stack that has none counts as neither right nor beside. Trust A to C: how sure those planes "
    "are. Stacks named `train` were seen when the shipped head was fitted."
)


def _what_ran(outcomes: Sequence[Outcome]) -> str:
    heads = sorted({outcome.head for outcome in outcomes if outcome.head})
    cases = len({outcome.case for outcome in outcomes})
    minutes = sum(outcome.seconds for outcome in outcomes) / 60
    return (
        f"{len(outcomes)} runs of {cases} cases; {minutes:.0f} minutes of a core, specimens and "
        f"calibrations apart; head {', '.join(heads) or 'none'}."
    )


def write(
    page: Path, outcomes: Sequence[Outcome], replays: Sequence[Replayed], made_by: MadeBy
) -> None:
    """Write the page, and its pictures into ``images`` beside its folder."""
    images = page.resolve().parent.parent / "images"
    images.mkdir(exist_ok=True)
    (images / "search.png").write_bytes(search_pictures.overview(outcomes))
    (images / "search_runs.png").write_bytes(search_pictures.single_runs(outcomes))
    parts = (
        _INTRODUCTION.format(command=made_by.command, first_seed=made_by.first_seed),
        "![Error against exposures, coverage of the uncertainty, reliability of the confidence]"
        "(../images/search.png)",
        _SINGLE_RUNS,
        "![Readings of single runs, in order](../images/search_runs.png)",
        contents(outcomes, replays),
    )
    page.write_text("\n\n".join(parts), encoding="utf-8")
