"""``autofocus features``: frozen features of a lab's frames."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from autofocus.commands.arguments import (
    SOME_SKIPPED,
    ConfigFile,
    ContentCkpt,
    Dask,
    Jobs,
    QualityCkpt,
    Root,
)
from autofocus.commands.data import say
from autofocus.commands.encoders import extractor_for
from autofocus.config import Rig, load_rig
from autofocus.errors import ConfigError
from autofocus.training.extraction import Skipped, extract_features
from autofocus.training.feature_file import save_features
from autofocus.training.stack_index import read_index
from autofocus.training.workers import Workers
from models.reiqa import ExtractorSettings, settings_for


def features(
    images: Annotated[Path, typer.Option(help="CSV of `autofocus data index`.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File (.npz) to write.")],
    root: Root = None,
    content_ckpt: ContentCkpt = None,
    quality_ckpt: QualityCkpt = None,
    patch_size: Annotated[int, typer.Option(help="Side of a patch, px.")] = 256,
    patches: Annotated[int, typer.Option(help="Candidates anywhere in the specimen.")] = 32,
    top_k: Annotated[
        float, typer.Option(help="How many patches are used, the sharpest, as a share of these.")
    ] = 0.2,
    min_roi_cover: Annotated[
        float, typer.Option(help="Least share of specimen in a candidate.")
    ] = 0.4,
    p_low: Annotated[float, typer.Option(help="Percentile that becomes black.")] = 1.0,
    p_high: Annotated[float, typer.Option(help="Percentile that becomes white.")] = 99.8,
    jobs: Jobs = 1,
    dask: Dask = None,
    config: ConfigFile = None,
) -> None:
    """Compute the features of all images; started again, it computes what is new.

    Files that cannot be read are listed and left out; the exit code is 1 then.
    """
    settings = _settings(
        published=content_ckpt is not None and content_ckpt.suffix != ".safetensors",
        patch_size=patch_size,
        patches=patches,
        top_k=top_k,
        min_roi_cover=min_roi_cover,
        p_low=p_low,
        p_high=p_high,
    )
    planes = read_index(images, root=root)
    workers, rig = Workers(jobs, dask), load_rig(config)
    rig = rig if workers.dask is None else _anywhere(rig)
    extractor = extractor_for(settings, rig, content_ckpt, quality_ckpt)
    cache = out.with_name(f"{out.stem}.cache")
    console = Console(stderr=True)
    extraction = extract_features(extractor, planes, cache, workers=workers, console=console)
    save_features(out, extraction.table)
    rows, columns = extraction.table.features.shape
    say(f"{columns} features of {rows} planes ({extraction.from_cache} from the cache): {out}")
    tell_skipped(extraction.skipped)


def tell_skipped(skipped: tuple[Skipped, ...]) -> None:
    """List what was left out, and end with 1 if there was anything."""
    if skipped:
        say(f"{len(skipped)} planes left out:", *(each.reason for each in skipped), error=True)
        raise typer.Exit(SOME_SKIPPED)


def _anywhere(rig: Rig) -> Rig:
    """Without choosing the engine by what this machine has: the workers may not have it."""
    return replace(rig, engine="torch") if rig.engine == "auto" else rig


def _settings(*, published: bool, **values: float) -> ExtractorSettings:
    try:
        return settings_for("published" if published else "compact", **values)
    except ValueError as error:
        raise ConfigError(str(error)) from error
