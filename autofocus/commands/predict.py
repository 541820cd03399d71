"""``autofocus predict``: the best plane of a z-stack, by a lab's own head."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from autofocus.commands.arguments import (
    AsJson,
    ConfigFile,
    ContentCkpt,
    QualityCkpt,
    ZCsv,
    ZPattern,
    ZStep,
)
from autofocus.commands.data import say
from autofocus.commands.encoders import extractor_for
from autofocus.commands.features import tell_skipped
from autofocus.config import load_rig
from autofocus.errors import DataError
from autofocus.training.extraction import Skipped, extract_features
from autofocus.training.feature_file import load_features
from autofocus.training.pictures import curve_png
from autofocus.training.prediction import ScoredPlane, StackPrediction, predict_stacks
from autofocus.training.stack_index import ZSource, index_stacks
from models.head import Head, load_head, read_head_manifest

_SHOWN = 10


def predict(
    head: Annotated[Path, typer.Option(help="Folder of `autofocus train`.")],
    features: Annotated[Path | None, typer.Option(help="File of `autofocus features`.")] = None,
    stack: Annotated[
        Path | None, typer.Option(help="A folder of planes or a multi-page TIFF instead.")
    ] = None,
    png: Annotated[
        Path | None, typer.Option(help="Draw the curve there; of several stacks the first.")
    ] = None,
    z_pattern: ZPattern = None,
    z_step: ZStep = None,
    z_csv: ZCsv = None,
    content_ckpt: ContentCkpt = None,
    quality_ckpt: QualityCkpt = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Score the planes of z-stacks; say which is best, and what speaks against it.

    Planes that cannot be read are listed and left out; the exit code is 1 then.
    """
    if (features is None) == (stack is None):
        raise typer.BadParameter("give one of the two", param_hint="--features or --stack")
    skipped: tuple[Skipped, ...] = ()
    if features is not None:
        table = load_features(features)
    if stack is not None:
        settings = read_head_manifest(head).settings
        extractor = extractor_for(settings, load_rig(config), content_ckpt, quality_ckpt)
        source = ZSource(z_pattern, z_step, z_csv, required=False)
        planes = [plane for each in index_stacks(stack, source) for plane in each.planes]
        with TemporaryDirectory() as cache:
            console = Console(stderr=True, quiet=as_json)
            made = extract_features(extractor, planes, Path(cache), console=console)
        table, skipped = made.table, made.skipped
    fitted = load_head(head, extractor=table)
    found = predict_stacks(fitted, table)
    if png is not None:
        _draw(png, found[0])
    if as_json:
        typer.echo(json.dumps(_json(fitted, found, skipped), indent=2, ensure_ascii=False))
    else:
        for each in found:
            _print(fitted, each)
    tell_skipped(skipped)


def _draw(path: Path, found: StackPrediction) -> None:
    picture = curve_png(
        [each.plane.z_um for each in found.planes],
        [each.said.score for each in found.planes],
        title=f"{found.title}: {found.chosen.plane.name}",
        best=found.best,
        fitted_on=found.fitted_on,
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error}") from error


def _json(
    head: Head, found: tuple[StackPrediction, ...], skipped: tuple[Skipped, ...]
) -> dict[str, Any]:
    return {
        "head": head.manifest.title,
        "score_range": list(head.manifest.score_range),
        "stacks": [
            {
                "stack": each.stack,
                "best": _plane(each, each.chosen),
                "at_edge": each.at_edge,
                "warnings": list(each.warnings()),
                "planes": [_plane(each, plane) for plane in each.planes],
            }
            for each in found
        ],
        "skipped": [{"path": str(each.plane.path), "reason": each.reason} for each in skipped],
    }


def _plane(found: StackPrediction, each: ScoredPlane) -> dict[str, Any]:
    return {
        "path": str(each.plane.path),
        "page": each.plane.page,
        "z_um": each.plane.z_um,
        "score": each.said.score,
        "defocus_dof": each.said.defocus_dof,
        "defocus_sd_dof": each.said.defocus_sd_dof,
        "outside_range": found.outside_range(each),
        "out_of_distribution": each.said.out_of_distribution,
    }


def _print(head: Head, found: StackPrediction) -> None:
    table = Table(
        "plane",
        "z um",
        "score",
        "|d| DOF",
        "sd",
        "flags",
        title=escape(
            f"{found.title}, head {head.manifest.title}: best of {len(found.planes)} planes"
        ),
    )
    for each in found.ranking[:_SHOWN]:
        table.add_row(
            escape(each.plane.name),
            _number(each.plane.z_um, "g"),
            f"{each.said.score:.4f}",
            _number(each.said.defocus_dof, ".2f"),
            _number(each.said.defocus_sd_dof, ".2f"),
            ", ".join(_flags(found, each)),
        )
    Console().print(table)
    best = found.chosen
    z = "z not known" if best.plane.z_um is None else f"z = {best.plane.z_um:g} um"
    say(
        f"best plane: {best.plane.name}, {z}, score {best.said.score:.4f}",
        *(f"warning: {warning}" for warning in found.warnings()),
    )


def _flags(found: StackPrediction, each: ScoredPlane) -> list[str]:
    flags = {
        "at the edge": found.at_edge and each is found.chosen,
        "outside the range of the fit": found.outside_range(each),
        "out of distribution": each.said.out_of_distribution,
    }
    return [name for name, raised in flags.items() if raised]


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
