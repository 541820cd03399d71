"""Runs on recorded z-stacks, from several starts, against the planes that a person accepts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import joblib
import numpy as np
import torch
from rich.progress import track

from autofocus.config import load_rig
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


def run_real(data: Path, load_scorer: LoadScorer, *, jobs: int = 1) -> list[Replayed]:
    """Run every stack of a data folder that is not for training from five starts.

    Parameters
    ----------
    data : Path
        Folder with ``manifest.json``.
    """
    manifest = json.loads((data / "manifest.json").read_text(encoding="utf-8"))
    entries: list[dict[str, Any]] = manifest["stacks"]
    with joblib.Parallel(n_jobs=jobs, return_as="generator") as parallel:
        running = parallel(joblib.delayed(_replay)(data, entry, load_scorer) for entry in entries)
        return [run for found in track(running, "stacks", total=len(entries)) for run in found]


def _replay(data: Path, entry: Mapping[str, Any], load_scorer: LoadScorer) -> list[Replayed]:
    torch.set_num_threads(1)
    stack = data / str(entry["file"])
    planes = len(load_stack(stack).planes)
    found = []
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        z_um = _positions_um(entry, planes)
        # The depth of field is guessed from the distance between the planes.
        rig = replay_rig(load_rig(None), stack, Path(folder), z_positions_um=z_um)
        assert rig.microscope.config is not None
        core = load_core(rig.microscope.config)
        try:
            for strategy, name in ENTRANTS:
                scorer = load_scorer(name)
                for share in STARTS:
                    with Microscope(core, rig.microscope) as microscope:
                        start = round(share * (planes - 1))
                        microscope.move_to(z_um[start])
                        request = FocusRequest(strategy=strategy)
                        result = run_focus(rig, microscope, scorer, request, run_id="bench")
                    found.append(
                        Replayed(
                            stack=str(entry["name"]),
                            use=str(entry["use"]),
                            trust=str(entry["trust"]),
                            strategy=strategy,
                            scorer=name,
                            start_plane=start,
                            plane=int(np.abs(np.array(z_um) - result.final_z_um).argmin()),
                            accepted=(entry["in_focus_accepted"][0], entry["in_focus_accepted"][1])
                            if "in_focus_accepted" in entry
                            else None,
                            verdict=result.verdict.value,
                            locked=result.locked,
                            reason=result.reason,
                            exposures=result.exposures,
                            referee_agrees=result.referee_agrees,
                        )
                    )
        finally:
            release(core)
    return found


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
    return "\n".join([*lines, "", *_misses(runs)])


def _row(strategy: str, scorer: str, use: str, title: str, runs: Sequence[Replayed]) -> str:
    stacks = len({run.stack for run in runs})
    return (
        f"| {strategy} | {scorer} | {stacks} {use} | {title} | {len(runs)} | "
        f"{sum(run.right for run in runs)} | {sum(run.wrong for run in runs)} | "
        f"{sum(not run.locked for run in runs)} | {np.median([run.exposures for run in runs]):g} |"
    )


def _misses(runs: Sequence[Replayed]) -> list[str]:
    lines = [
        "| stack | trust | strategy | scorer | start | left at | accepted | verdict | referee |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        if run.right or run.accepted is None:
            continue
        agreed = {True: "agrees", False: "disagrees", None: "no opinion"}[run.referee_agrees]
        lines.append(
            f"| {run.stack} ({run.use}) | {run.trust} | {run.strategy} | {run.scorer} | "
            f"{run.start_plane} | {run.plane} | {run.accepted[0]}..{run.accepted[1]} | "
            f"{run.verdict} | {agreed} |"
        )
    return lines
