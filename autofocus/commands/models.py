"""``autofocus models``: which scorers are installed, are they whole, add the published ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from autofocus.commands.arguments import ConfigFile
from autofocus.config import Rig, load_rig
from autofocus.errors import ConfigError
from autofocus.scorers import default_scorer, registry_of
from models.checkpoints import EncoderManifest
from models.engines import choose_engine
from models.registry import Registry

PUBLISHED = "reiqa-published"

app = typer.Typer(help="List, show, verify and import what turns frames into scores.")

_Name = Annotated[str, typer.Argument(help="As `autofocus models list` has it.")]


@app.command("list")
def list_models(config: ConfigFile = None) -> None:
    """List the scorers that can be named, with their heads and folders."""
    rig = load_rig(config)
    registry = registry_of(rig)
    default = default_scorer(rig, registry)
    table = Table("scorer", "", "heads", "folder")
    for entry in registry.list():
        table.add_row(
            entry.name,
            "default" if entry.name == default else "",
            ", ".join(entry.heads) or "-",
            str(entry.folder or "classical measure"),
        )
    console = Console()
    console.print(table)
    for layout in ("compact", "published"):
        engine = choose_engine(rig.engine, layout)
        _print(console, f"engine of {layout} encoders: {engine.name} ({engine.reason})")
    _print(console, f"own models go to {rig.models_dir}")


@app.command()
def show(name: _Name, config: ConfigFile = None) -> None:
    """Print the manifests of a scorer: how it was made, and its hashes (JSON)."""
    Console().print_json(data=registry_of(load_rig(config)).show(name))


@app.command()
def verify(
    name: Annotated[
        str | None, typer.Argument(help="One scorer; by default every learned one.")
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Read every file of a scorer and compare it with its manifest; exit code 2 if one differs."""
    registry = registry_of(load_rig(config))
    names = [name] if name else [entry.name for entry in registry.list() if entry.folder]
    console = Console()
    for each in names:
        _verify(registry, each, console)
    if not names:
        _print(console, "no learned scorer is installed; classical measures have no files")


@app.command("import")
def import_models(
    content: Annotated[
        Path, typer.Argument(metavar="CONTENT.pth", help="content_aware_r50.pth, as published.")
    ],
    quality: Annotated[
        Path, typer.Argument(metavar="QUALITY.pth", help="quality_aware_r50.pth, as published.")
    ],
    config: ConfigFile = None,
) -> None:
    """Check the two published Re-IQA files and keep their encoders as safetensors.

    docs/models.md tells where the authors publish them. The two files are not needed afterwards.
    """
    if "quality" in content.name.lower() and "content" in quality.name.lower():
        raise typer.BadParameter("the content-aware file comes first", param_hint="CONTENT.pth")
    rig = load_rig(config)
    console = Console()
    with console.status(f"checking {content.name} and {quality.name}"):
        manifest = _import(rig, content, quality)
    _print(
        console,
        f"content  {manifest.content_sha256}  from {content}",
        f"quality  {manifest.quality_sha256}  from {quality}",
        f"kept in  {rig.models_dir / manifest.layout}",
        *_without_a_head(registry_of(rig)),
    )


def _import(rig: Rig, content: Path, quality: Path) -> EncoderManifest:
    try:
        return registry_of(rig).import_(content, quality)
    except OSError as error:
        raise ConfigError(
            f"cannot write to {rig.models_dir}: {error}; make room, or name another models_dir in "
            "the rig file"
        ) from error


def _without_a_head(registry: Registry) -> tuple[str, ...]:
    heads = next(entry.heads for entry in registry.list() if entry.name == PUBLISHED)
    if heads:
        return ()
    return (f"{PUBLISHED} has no head yet: fit one on labelled z-stacks before it can score",)


def _verify(registry: Registry, name: str, console: Console) -> None:
    found = registry.verify(name)
    lines = [f"  {part}  {sha256}" for part, sha256 in found.items()]
    _print(console, f"{name}: {'as its manifests say' if found else 'has no files'}", *lines)


def _print(console: Console, *lines: str) -> None:
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
