"""Which plane of a recorded z-stack each scorer calls sharpest, and which a person accepts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import track

from autofocus.errors import ConfigError
from autofocus.scoring import score_planes
from devices.replay.stack import load_stack
from models.classical import MEASURES, compare_on_stack
from models.scorer import Scorer

TRUSTED = ("A", "A-", "B", "B-")


@dataclass(frozen=True)
class Judged:
    """One stack and the planes chosen.

    Attributes
    ----------
    accepted : (int, int)
        First and last plane a careful person accepts, 0-based, inclusive.
    chosen : dict
        Scorer to plane.
    curves : dict
        Scorer to scores, one a plane.
    """

    name: str
    use: str
    trust: str
    planes: int
    accepted: tuple[int, int]
    chosen: dict[str, int]
    curves: dict[str, list[float]]

    def right(self, scorer: str) -> bool:
        """Whether the plane chosen is one of the accepted ones."""
        return self.accepted[0] <= self.chosen[scorer] <= self.accepted[1]


def judge_stacks(
    data: Path, scorers: Mapping[str, Scorer], *, use: str, trust: Sequence[str] = TRUSTED
) -> list[Judged]:
    """Score every plane of the labelled stacks of a data folder.

    Parameters
    ----------
    data : Path
        Folder with ``manifest.json``.
    scorers : mapping of str to Scorer
        By the name in the table; all classical measures are added.
    use : {"train", "evaluate"}
        Which stacks.

    Raises
    ------
    ConfigError
        When there is no manifest, or no stack in it that can be judged.
    """
    manifest = data / "manifest.json"
    if not manifest.is_file():
        raise ConfigError(f"{manifest} is missing; give the folder that holds it")
    entries = [
        entry
        for entry in json.loads(manifest.read_text(encoding="utf-8"))["stacks"]
        if entry["use"] == use and entry["trust"] in trust and "in_focus_accepted" in entry
    ]
    if not entries:
        raise ConfigError(
            f"{manifest} has no stack for {use!r} with accepted planes and trust {', '.join(trust)}"
        )
    return [_judge(data, entry, scorers) for entry in track(entries, "stacks")]


def _judge(data: Path, entry: dict[str, object], scorers: Mapping[str, Scorer]) -> Judged:
    planes = load_stack(data / str(entry["file"])).planes
    scored = {name: score_planes(scorer, planes) for name, scorer in scorers.items()}
    measured = compare_on_stack(list(planes))
    accepted = entry["in_focus_accepted"]
    assert isinstance(accepted, list)
    return Judged(
        name=str(entry["name"]),
        use=str(entry["use"]),
        trust=str(entry["trust"]),
        planes=len(planes),
        accepted=(accepted[0], accepted[1]),
        chosen={name: each.best for name, each in scored.items()}
        | {name: int(np.argmax(curve)) for name, curve in measured.items()},
        curves={name: [plane.score for plane in each.scores] for name, each in scored.items()}
        | measured,
    )


def table(judged: Sequence[Judged]) -> str:
    """Markdown: the plane each scorer chose, bold where it is accepted, and the sums."""
    names = [name for name in judged[0].chosen if name not in MEASURES] + list(MEASURES)
    lines = [
        "| stack | trust | planes | accepted | " + " | ".join(names) + " |",
        "|" + "---|" * (4 + len(names)),
    ]
    for stack in judged:
        cells = (
            f"**{stack.chosen[name]}**" if stack.right(name) else str(stack.chosen[name])
            for name in names
        )
        low, high = stack.accepted
        lines.append(
            f"| {stack.name} | {stack.trust} | {stack.planes} | {low}..{high} | "
            + " | ".join(cells)
            + " |"
        )
    sums = (f"{sum(stack.right(name) for stack in judged)}/{len(judged)}" for name in names)
    lines.append("| accepted | | | | " + " | ".join(sums) + " |")
    return "\n".join(lines)
