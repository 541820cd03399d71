"""What a fine-tuned network does on stacks it has not seen, and what it is good for."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autofocus.training.finetune import Recipe, Trained
from autofocus.training.labelled import sampling_of
from autofocus.training.leave_one_out import LeftOut, Spread, Summary, judge, summarise
from autofocus.training.training_rows import LabelledPlanes
from devices.simulated.optics import Objective, depth_of_field_um
from models.finetuned import FineTuned, Manifest, Settings, score_of_logit
from models.head import Label


@dataclass(frozen=True)
class FineTuneReport:
    """How well stacks are scored by networks that have not seen them.

    Attributes
    ----------
    recipe : Recipe
    frames, stacks : int
        Size of the training.
    sigma_um, dof_um : float
        Of the label, and of the objective.
    began_with : str
        Name of the file of weights, or ``"random weights"``.
    best_steps : tuple of int
        At which each training was best; the last one is the network that is kept.
    seconds : float
        Of training.
    left_out : tuple of LeftOut
        Every stack by the network that left it out; with ``folds = 0`` only the stacks that said
        when to stop, by the network that is kept.
    """

    recipe: Recipe
    frames: int
    stacks: int
    sigma_um: float
    dof_um: float
    began_with: str
    best_steps: tuple[int, ...]
    seconds: float
    left_out: tuple[LeftOut, ...]

    @classmethod
    def of(
        cls,
        labelled: LabelledPlanes,
        recipe: Recipe,
        trained: Trained,
        objective: Objective,
        *,
        weights: Path | None,
    ) -> FineTuneReport:
        """Judge what was predicted of left-out stacks."""
        scores = np.array([score_of_logit(logit) for logit in trained.logits])
        asked = set(labelled.stacks[~np.isnan(trained.logits)])
        judged = judge(labelled, np.nan_to_num(scores))
        return cls(
            recipe=recipe,
            frames=len(labelled),
            stacks=len(judged),
            sigma_um=labelled.sigma_um,
            dof_um=depth_of_field_um(objective),
            began_with="random weights" if weights is None else weights.name,
            best_steps=trained.steps,
            seconds=trained.seconds,
            left_out=tuple(each for each in judged if each.stack in asked),
        )

    @property
    def summary(self) -> Summary:
        """Over stacks."""
        return summarise(self.left_out)

    @property
    def how(self) -> str:
        """Who scored the stacks of the report."""
        if self.recipe.folds:
            return "every stack scored by a network that has not seen it"
        return "only stacks that chose when to stop, which flatters: use --folds 4"

    def overview(self) -> dict[str, Any]:
        """As JSON-able values, for the manifest."""
        return {
            "recipe": asdict(self.recipe),
            "began_with": self.began_with,
            "frames": self.frames,
            "stacks": self.stacks,
            "sigma_um": self.sigma_um,
            "best_steps": list(self.best_steps),
            "seconds": round(self.seconds, 1),
            "how": self.how,
            "left_out": asdict(self.summary),
        }

    def lines(self) -> tuple[str, ...]:
        """For a terminal."""
        summary, error = self.summary, self.summary.error_um
        chosen = "z not known"
        if error is not None:
            in_dof = f"{error.mean / self.dof_um:.2f} DOF"
            chosen = f"error of the chosen plane {_pair(error)} um = {in_dof}"
        return (
            f"{self.frames} frames of {self.stacks} stacks, {self.recipe.backbone} from "
            f"{self.began_with}, {self.seconds:.0f} s of training; {self.how}:",
            f"  SRCC {_pair(summary.srcc)}, PLCC {_pair(summary.plcc)}, {chosen}",
        )


def fitted_of(report: FineTuneReport, trained: Trained, objective: Objective) -> FineTuned:
    """The network that is kept, with what it is good for."""
    settings = Settings(
        backbone=report.recipe.backbone,
        patches=report.recipe.patches,
        label=Label(report.sigma_um, unit="um"),
        pixel_size_um=objective.pixel_size_um,
        dof_um=report.dof_um,
        sampling=sampling_of(objective),
    )
    return FineTuned(trained.network, trained.usual, Manifest(settings, report.overview()))


def report_json(report: FineTuneReport) -> str:
    """Everything, as JSON."""
    per_stack = [
        {
            **asdict(each),
            "z_um": [None if math.isnan(z_um) else z_um for z_um in each.z_um],
            "error_um": each.error_um,
        }
        for each in report.left_out
    ]
    values = {**report.overview(), "per_stack": per_stack}
    return json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False)


def report_markdown(report: FineTuneReport) -> str:
    """For people."""
    lines = [
        "# Fine-tuned network",
        "",
        *(line.strip() for line in report.lines()),
        "",
        f"Best at steps {', '.join(map(str, report.best_steps))} of {report.recipe.steps}; the "
        "last is the network that is kept.",
        "",
        "| stack | SRCC | PLCC | in focus, um | chosen, um | error, um | |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in report.left_out:
        numbers = (each.srcc, each.plcc, each.z_in_focus_um, each.z_chosen_um, each.error_um)
        cells = " | ".join("-" if n is None else f"{n:.3f}" for n in numbers)
        lines.append(f"| {each.stack} | {cells} | {'at the edge' if each.at_edge else ''} |")
    return "\n".join([*lines, ""])


def _pair(spread: Spread | None) -> str:
    return "-" if spread is None else f"{spread.mean:.3f} (median {spread.median:.3f})"
