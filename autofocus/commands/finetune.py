"""``autofocus finetune``: a network of a lab's own, from its labelled z-stacks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import torch
import typer
from rich.console import Console

from autofocus.commands.arguments import ConfigFile, Root
from autofocus.commands.data import say
from autofocus.commands.features import tell_skipped
from autofocus.config import load_rig
from autofocus.errors import ConfigError, DataError
from autofocus.training.finetune import Recipe, finetune, forget
from autofocus.training.finetune_frames import prepare
from autofocus.training.finetune_report import (
    FineTuneReport,
    fitted_of,
    report_json,
    report_markdown,
)
from autofocus.training.pictures import left_out_png
from autofocus.training.stack_index import read_index
from autofocus.training.training_rows import label_planes
from devices.simulated.optics import Objective
from models.backbones import STAGES
from models.finetuned import PatchSettings, save_finetuned
from models.registry import FINETUNED, is_taken

_NAME = re.compile(r"[\w.-]+")
_LAST_WITH_WEIGHTS = 1


def finetune_network(
    images: Annotated[Path, typer.Option(help="CSV of `autofocus data index`.")],
    scores: Annotated[Path, typer.Option(help="CSV of `autofocus data label`.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the network; its name is the scorer's.")
    ],
    na: Annotated[float, typer.Option(help="Numerical aperture of the objective.", min=0.01)],
    pixel_um: Annotated[
        float, typer.Option(help="Camera pixel in the specimen, with binning, um.", min=1e-3)
    ],
    wavelength_um: Annotated[float, typer.Option(help="Of the light, um.", min=0.1)] = 0.55,
    immersion_index: Annotated[float, typer.Option(help="Of the medium.", min=1.0)] = 1.0,
    backbone: Annotated[
        Literal["mobilenet_v3_small", "resnet18"], typer.Option()
    ] = "mobilenet_v3_small",
    weights: Annotated[
        Path | None,
        typer.Option(help="torchvision's weights (.pth) to begin with; without: random ones."),
    ] = None,
    train_last: Annotated[
        int | None,
        typer.Option(
            help=f"Stages that learn, the last ones of {STAGES}; 0: only the head. By default "
            f"{_LAST_WITH_WEIGHTS} with --weights, all without.",
            min=0,
            max=STAGES,
        ),
    ] = None,
    steps: Annotated[int, typer.Option(help="Most steps of one training.", min=1)] = Recipe.steps,
    check_every: Annotated[
        int, typer.Option(help="Steps between looks at left-out stacks, and checkpoints.", min=1)
    ] = Recipe.check_every,
    patience: Annotated[
        int, typer.Option(help="Looks without gain that end a training.", min=1)
    ] = Recipe.patience,
    folds: Annotated[
        int, typer.Option(help="Trainings for the report; 0: none, the report flatters.", min=0)
    ] = Recipe.folds,
    synthetic: Annotated[
        float,
        typer.Option(
            help="Share of planes defocused by the point spread function (fluorescence); 0: none.",
            min=0.0,
            max=1.0,
        ),
    ] = Recipe.synthetic,
    learning_rate: Annotated[float, typer.Option(min=1e-7)] = Recipe.learning_rate,
    patch_size: Annotated[
        int, typer.Option(help="Side of a patch, px.", min=32)
    ] = PatchSettings.patch_size,
    top_patches: Annotated[
        int, typer.Option(help="Patches a frame, the sharpest.", min=1)
    ] = PatchSettings.top_patches,
    sigma: Annotated[
        float, typer.Option(help="Distance at which the label is 0.5, um, where not in the CSV.")
    ] = 2.0,
    threads: Annotated[int, typer.Option(help="Of the processor.", min=1)] = 1,
    seed: Annotated[int, typer.Option(min=0)] = Recipe.seed,
    fresh: Annotated[bool, typer.Option("--fresh", help="Ignore an existing checkpoint.")] = False,
    root: Root = None,
    config: ConfigFile = None,
) -> None:
    """Train a network end to end on labelled z-stacks; started again, it goes on.

    Writes weights.safetensors and manifest.json, report.json, .md and .png, and training.csv.
    """
    name = out.resolve().name
    if is_taken(name) or not _NAME.fullmatch(name):
        raise typer.BadParameter(f"{name!r} cannot be the name of a scorer", param_hint="--out")
    choice = PatchSettings(patch_size, max(PatchSettings.patches, top_patches), top_patches)
    if train_last is None:
        train_last = STAGES if weights is None else _LAST_WITH_WEIGHTS
    recipe = Recipe(
        backbone=backbone,
        train_last=train_last,
        patches=choice,
        steps=steps,
        check_every=check_every,
        patience=patience,
        folds=folds,
        synthetic=synthetic,
        learning_rate=learning_rate,
        seed=seed,
    )
    objective = _objective(na, immersion_index, wavelength_um, pixel_um)
    torch.set_num_threads(threads)
    console = Console(stderr=True)
    labelled, rows, skipped = prepare(
        label_planes(read_index(images, root=root), scores, sigma_um=sigma, root=root),
        choice,
        objective,
        blur=synthetic > 0,
        seed=seed,
        threads=threads,
        console=console,
    )
    trained = finetune(rows, recipe, out, weights=weights, fresh=fresh, console=console)
    report = FineTuneReport.of(labelled, recipe, trained, objective, weights=weights)
    _write(out, report)
    fitted = save_finetuned(out, fitted_of(report, trained, objective))
    forget(out)
    models = load_rig(config).models_dir / FINETUNED
    say(
        *report.lines(),
        f"network and report: {out} ({fitted.manifest.weights_sha256[:8]})",
        f'to use it: copy the folder to {models / name}, and write scorer = "{name}" above '
        "the first table of the rig file",
    )
    tell_skipped(skipped)


def _objective(na: float, index: float, wavelength_um: float, pixel_um: float) -> Objective:
    try:
        return Objective(na, index, wavelength_um, pixel_um)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _write(out: Path, report: FineTuneReport) -> None:
    try:
        (out / "report.json").write_text(report_json(report), encoding="utf-8")
        (out / "report.md").write_text(report_markdown(report), encoding="utf-8")
        (out / "report.png").write_bytes(left_out_png(report.left_out))
    except OSError as error:
        raise DataError(f"cannot write to {out}: {error}") from error
