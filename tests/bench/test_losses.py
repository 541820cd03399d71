"""Losses compared on the same left-out stacks."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np

from autofocus.bench.losses import table
from autofocus.training.feature_file import FeatureFile, save_features
from autofocus.training.leave_one_out import LeftOut
from autofocus.training.losses import LOSSES
from autofocus.training.stack_index import Plane
from autofocus.training.tables import write_table
from models.reiqa import ExtractorSettings

Z_UM = range(-4, 5)


def left_out(error_um: float, srcc: float, *, stack: str = "S1") -> LeftOut:
    return LeftOut(stack, (0.0,), (1.0,), (1.0,), srcc, srcc, 0.0, error_um, at_edge=False)


def test_differences_are_taken_stack_by_stack() -> None:
    found = {
        "ridge": [left_out(1.0, 0.5), left_out(3.0, 0.7), left_out(8.0, 0.2)],
        "huber": [left_out(0.0, 0.6), left_out(2.0, 0.6), left_out(7.0, 0.2)],
    }
    lines = table(found, dof_um=2.0).splitlines()  # type: ignore[arg-type]
    assert lines[0].startswith("3 stacks")
    assert lines[4].startswith("| ridge | 0.467 (0.200 to 0.700) | 4.000 (1.000 to 8.000) | 2.000")
    assert lines[4].endswith("| 3.00 | 0 |")
    srcc, error_um, error_dof = lines[-1].strip("| ").split(" | ")[1:]
    assert srcc == "0.000 (-0.100 to 0.100)"
    assert error_um == "**-1.000 (-1.000 to -1.000)**"
    assert error_dof == "**-0.500 (-0.500 to -0.500)**"


def test_the_command_compares_every_loss_on_every_stack(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    slope = rng.normal(size=6)
    planes, features, labels = [], [], []
    for stack in ("S1", "S2", "S3"):
        for z in Z_UM:
            score = 1 / (1 + (z / 2) ** 2)
            planes.append(Plane(Path(f"/lab/{stack}/z{z}.tif"), stack, float(z)))
            features.append(score * slope + rng.normal(0, 0.02, 6))
            labels.append([planes[-1].path, z, score, 0.0, 2.0])
    extracted = FeatureFile(
        np.array(features, np.float32), tuple(planes), ExtractorSettings(), "c" * 64, "q" * 64
    )
    save_features(tmp_path / "f.npz", extracted)
    columns = ["image_path", "z_um", "focus_score", "z_in_focus_um", "sigma_um"]
    write_table(tmp_path / "s.csv", columns, labels)
    command = [sys.executable, "-m", "autofocus", "bench", "losses", "-o", "out", "--alpha", "1"]
    command += ["--features", "f.npz", "--scores", "s.csv", "--dof-um", "4"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    with (tmp_path / "out" / "losses.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["loss"], row["stack"]) for row in rows] == [
        (loss, stack) for loss in LOSSES for stack in ("S1", "S2", "S3")
    ]
    assert {float(row["error_um"]) for row in rows} == {0.0}
    assert (tmp_path / "out" / "losses.md").read_text(encoding="utf-8").strip() == said.strip()
