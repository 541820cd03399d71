"""Runs on recorded z-stacks, from several starts, against the planes that a person accepts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import joblib
import numpy as np
import torch
from rich.progress import track

from autofocus.bench.search_cases import some_of
from autofocus.bench.search_outcome import mend_log
from autofocus.config import Rig, load_rig
from autofocus.focus import run_focus
from autofocus.planning import FocusRequest
from autofocus.replay import replay_rig
from devices import Microscope
from devices.micromanager import load_core, release
from devices.replay.stack import load_stack
from models.scorer import Scorer

STARTS = (0.05, 0.275, 0.5, 0.725, 0.95)
# (strategy, scorer) of each row.
ENTRANTS = (
    ("coarse_to_fine", "reiqa-compact"),
    ("predictive", "reiqa-compact"),
    ("coarse_to_fine", "vollath_f4"),
)
LoadScorer = Callable[[str], Scorer]


@dataclass(frozen=True)
class Replayed:
    """One run on one stack.

    Attributes
    ----------
    trust : str
        A to C: how sure the accepted planes are.
    plane : int
        Where the stage was left, 0-based.
    accepted : (int, int) or None
        First and last plane a careful person accepts; None when nobody could say.
    """

    stack: str
    use: str
    trust: str
    strategy: str
    scorer: str
    start_plane: int
    plane: int
    accepted: tuple[int, int] | None
    verdict: str
    locked: bool
    reason: str
    exposures: int
    referee_agrees: bool | None

    @property
    def right(self) -> bool:
        """Locked on an accepted plane."""
        return self.locked and self._inside

    @property
    def wrong(self) -> bool:
        """Locked on a plane that is not accepted."""
        return self.locked and self.accepted is not None and not self._inside

    @property
    def _inside(self) -> bool:
        return self.accepted is not None and self.accepted[0] <= self.plane <= self.accepted[1]


def run_real(
    data: Path, load_scorer: LoadScorer, *, log: Path, share: float = 1.0, jobs: int = 1
) -> list[Replayed]:
    """Run every stack of a data folder from five starts; what ``log`` holds is not run again.

    Parameters
    ----------
    data : Path
        Folder with ``manifest.json``.
    log : Path
        JSON lines, one a run, written as the stacks end.
    share : float
        Of the stacks.
    """
    manifest = json.loads((data / "manifest.json").read_text(encoding="utf-8"))
    entries: list[dict[str, Any]] = some_of(manifest["stacks"], share)
    mend_log(log)
    done = list(_read(log)) if log.is_file() else []
    left = [entry for entry in entries if not _complete(entry, done)]
    names = {str(entry["name"]) for entry in left}
    done = [run for run in done if run.stack not in names]
    with (
        joblib.Parallel(n_jobs=jobs, batch_size=1, return_as="generator") as parallel,
        log.open("a", encoding="utf-8") as lines,
    ):
        running = parallel(joblib.delayed(_replay)(data, entry, load_scorer) for entry in left)
        for found in track(running, "recorded stacks", total=len(left)):
            lines.writelines(json.dumps(asdict(run)) + "\n" for run in found)
            lines.flush()
            done += found
    order = [str(entry["name"]) for entry in entries]
    asked = [run for run in done if run.stack in order]
    return sorted(asked, key=lambda run: order.index(run.stack))


def _read(log: Path) -> Iterator[Replayed]:
    for line in log.read_text(encoding="utf-8").splitlines():
        values = json.loads(line)
        first_last = values["accepted"] and (values["accepted"][0], values["accepted"][1])
        yield Replayed(**{**values, "accepted": first_last})


def _complete(entry: Mapping[str, Any], done: Sequence[Replayed]) -> bool:
    runs = [run for run in done if run.stack == entry["name"]]
    return len(runs) == len(STARTS) * len(ENTRANTS)


def _replay(data: Path, entry: Mapping[str, Any], load_scorer: LoadScorer) -> list[Replayed]:
    torch.set_num_threads(1)
    stack = data / str(entry["file"])
    scorers = {name: load_scorer(name) for name in {scorer for _, scorer in ENTRANTS}}
    z_um = _positions_um(entry, len(load_stack(stack).planes))
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        # The depth of field is guessed from the distance between the planes.
        rig = replay_rig(load_rig(None), stack, Path(folder), z_positions_um=z_um)
        assert rig.microscope.config is not None
        core = load_core(rig.microscope.config)
        try:
            return [
                _run(
                    core, rig, entry, z_um, strategy, scorers[name], round(share * (len(z_um) - 1))
                )
                for strategy, name in ENTRANTS
                for share in STARTS
            ]
        finally:
            release(core)


def _run(
    core: Any,
    rig: Rig,
    entry: Mapping[str, Any],
    z_um: Sequence[float],
    strategy: str,
    scorer: Scorer,
    start: int,
) -> Replayed:
    with Microscope(core, rig.microscope) as microscope:
        microscope.move_to(z_um[start])
        result = run_focus(rig, microscope, scorer, FocusRequest(strategy=strategy), run_id="bench")
    accepted = entry.get("in_focus_accepted")
    return Replayed(
        stack=str(entry["name"]),
        use=str(entry["use"]),
        trust=str(entry["trust"]),
        strategy=strategy,
        scorer=scorer.name,
        start_plane=start,
        plane=int(np.abs(np.array(z_um) - result.final_z_um).argmin()),
        accepted=accepted and (accepted[0], accepted[1]),
        verdict=result.verdict.value,
        locked=result.locked,
        reason=result.reason,
        exposures=result.exposures,
        referee_agrees=result.referee_agrees,
    )


def _positions_um(entry: Mapping[str, Any], planes: int) -> list[float]:
    """Where the planes were taken, as far as it is known; else their numbers."""
    known = entry.get("z_positions_um")
    if isinstance(known, list) and len(known) == planes and len(set(known)) == planes:
        return [float(z) for z in known]
    return [float(plane) for plane in range(planes)]


def report(runs: Sequence[Replayed]) -> str:
    """Markdown: how often on an accepted plane, and every stack where not."""
    lines = [
        "| strategy | scorer | stacks | trust | runs | locked on an accepted plane | locked beside "
        "it | refused | median exposures |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for strategy, scorer in ENTRANTS:
        for use in ("evaluate", "train"):
            for title, trusts in (("A, A-, B, B-", ("A", "A-", "B", "B-")), ("C", ("C",))):
                chosen = [
                    run
                    for run in runs
                    if (run.strategy, run.scorer, run.use) == (strategy, scorer, use)
                    and run.trust in trusts
                ]
                if chosen:
                    lines.append(_row(strategy, scorer, use, title, chosen))
    return "\n".join(
        [*lines, "", "Every run that did not lock on an accepted plane:", "", *_misses(runs)]
    )


def _row(strategy: str, scorer: str, use: str, title: str, runs: Sequence[Replayed]) -> str:
    stacks = len({run.stack for run in runs})
    return (
        f"| {strategy} | {scorer} | {stacks} {use} | {title} | {len(runs)} | "
        f"{sum(run.right for run in runs)} | {sum(run.wrong for run in runs)} | "
        f"{sum(not run.locked for run in runs)} | {np.median([run.exposures for run in runs]):g} |"
    )


def _misses(runs: Sequence[Replayed]) -> list[str]:
    lines = [
        "| stack | trust | strategy | scorer | start | left at | accepted | verdict | referee | "
        "reason |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        if run.right or run.accepted is None:
            continue
        agreed = {True: "agrees", False: "disagrees", None: "no opinion"}[run.referee_agrees]
        lines.append(
            f"| {run.stack} ({run.use}) | {run.trust} | {run.strategy} | {run.scorer} | "
            f"{run.start_plane} | {run.plane} | {run.accepted[0]}..{run.accepted[1]} | "
            f"{run.verdict} | {agreed} | {run.reason} |"
        )
    return lines
