"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SOME_SKIPPED = 1
"""Exit code of a command that did its work but had to leave something out, which it listed."""

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", help="Rig file (TOML); without it the built-in demo microscope."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
ZPattern = Annotated[
    str | None,
    typer.Option(help="Regular expression whose one group is z in um; default: z-10, z+3, z3.5."),
]
ZStep = Annotated[
    float | None, typer.Option(help="Distance between planes that are only numbered, um.", min=0.0)
]
ZCsv = Annotated[Path | None, typer.Option(help="CSV with image_path and z_um.")]
Root = Annotated[
    Path | None,
    typer.Option("--root", help="Top folder of the images, for paths of another computer."),
]
Jobs = Annotated[int, typer.Option(help="Processes; -1: one a core.")]
Dask = Annotated[
    str | None,
    typer.Option(
        help="Dask scheduler, tcp://host:8786, whose workers take the place of --jobs; they need "
        "this program and the files at the same paths. pip install 'reiqa-autofocus[dask]'",
    ),
]
Alpha = Annotated[str, typer.Option(help="Strength of the ridge, or auto: on left-out stacks.")]
ContentCkpt = Annotated[
    Path | None,
    typer.Option(help="Content encoder: content_aware_r50.pth, or compact .safetensors."),
]
QualityCkpt = Annotated[
    Path | None,
    typer.Option(help="Quality encoder: quality_aware_r50.pth, or compact .safetensors."),
]


def alpha_of(text: str) -> float | None:
    """Value of an `Alpha`; None for auto."""
    if text == "auto":
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise typer.BadParameter("a positive number, or auto", param_hint="--alpha")
    return value
