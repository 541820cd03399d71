"""``autofocus train``: a lab's own head from features and labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from autofocus.commands.arguments import Alpha, ConfigFile, Dask, Jobs, Root, alpha_of
from autofocus.commands.data import say
from autofocus.config import load_rig
from autofocus.errors import DataError
from autofocus.training.feature_file import FeatureFile, load_features
from autofocus.training.lab_head import (
    TARGET,
    Report,
    TrainingOptions,
    report_json,
    report_markdown,
    train,
)
from autofocus.training.leave_one_out import Spread, Summary, summarise
from autofocus.training.losses import Loss
from autofocus.training.pictures import left_out_png
from autofocus.training.training_rows import join
from autofocus.training.workers import Workers
from models.errors import HeadError
from models.head import Head, load_head, save_head
from models.registry import builtin_folder


def train_head(
    features: Annotated[Path, typer.Option(help="File of `autofocus features`.")],
    scores: Annotated[Path, typer.Option(help="CSV of `autofocus data label`.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the head and its report.")],
    name: Annotated[str | None, typer.Option(help="Of the head; by default the folder's.")] = None,
    target: Annotated[str, typer.Option(help="Column with the label.")] = TARGET,
    alpha: Alpha = "1000",
    loss: Annotated[
        Loss, typer.Option(help="What is made small; multitask: errors of score and distance.")
    ] = "ridge",
    sigma: Annotated[
        float, typer.Option(help="Distance at which the label is 0.5, um, where not in the CSV.")
    ] = 2.0,
    dof_um: Annotated[
        float | None, typer.Option(help="Depth of field of the objective, um.", min=1e-3)
    ] = None,
    before: Annotated[
        Path | None, typer.Option(help="Head to compare with; by default the shipped one.")
    ] = None,
    root: Root = None,
    jobs: Jobs = 1,
    dask: Dask = None,
    config: ConfigFile = None,
) -> None:
    """Judge a head on stacks it has not seen, then fit it on all and save it.

    Writes head.joblib, distribution.npz and manifest.json, and report.json, .md and .png.
    """
    table = load_features(features)
    rows = join(table, scores, target=target, sigma_um=sigma, root=root)
    options = TrainingOptions(name or out.resolve().name, target, loss, alpha_of(alpha), dof_um)
    present, why_not = _present(before, table)
    with Console(stderr=True).status(f"leaving out each of {len(set(rows.stacks))} stacks"):
        head, report = train(
            rows, options, before=present, why_not=why_not, workers=Workers(jobs, dask)
        )
    _write(out, head, report)
    _tell(out, report, load_rig(config).models_dir / table.settings.layout / "heads")


def _present(folder: Path | None, table: FeatureFile) -> tuple[Head | None, str]:
    """The head to compare with, or why there is none."""
    if folder is not None:
        return load_head(folder, extractor=table), ""
    try:
        return load_head(builtin_folder() / table.settings.layout / "head", extractor=table), ""
    except HeadError as error:
        return None, str(error)


def _write(out: Path, head: Head, report: Report) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "report.json").write_text(report_json(report), encoding="utf-8")
        (out / "report.md").write_text(report_markdown(report), encoding="utf-8")
        (out / "report.png").write_bytes(left_out_png(report.left_out))
        save_head(out, head)
    except OSError as error:
        raise DataError(f"cannot write to {out}: {error}") from error


def _tell(out: Path, report: Report, heads: Path) -> None:
    lines = [
        f"{report.frames} frames of {len(report.left_out)} stacks; left out one by one:",
        _line(report.options.name, report.summary, report.options.dof_um),
    ]
    if report.before is not None:
        said = _line(report.before_title, summarise(report.before), report.options.dof_um)
        lines.append(f"{said}   (the head in use)")
    ignored = [
        f"{count} {what}"
        for count, what in (
            (report.without_label, "frames have no label"),
            (report.without_features, "labels have no features"),
        )
        if count
    ]
    say(
        *lines,
        *([f"not used: {', '.join(ignored)}"] if ignored else []),
        f"head and report: {out}",
        f"to use it: copy the folder to {heads / report.options.name}, and write "
        f'head = "{report.options.name}" under [optics] in the rig file',
    )


def _line(title: str, summary: Summary, dof_um: float | None) -> str:
    error = summary.error_um
    if error is None:
        chosen = "z not known"
    else:
        in_dof = "" if dof_um is None else f" = {error.mean / dof_um:.2f} DOF"
        chosen = f"error of the chosen plane {_pair(error)} um{in_dof}"
    return f"  {title}: SRCC {_pair(summary.srcc)}, PLCC {_pair(summary.plcc)}, {chosen}"


def _pair(spread: Spread | None) -> str:
    return "-" if spread is None else f"{spread.mean:.3f} (median {spread.median:.3f})"
