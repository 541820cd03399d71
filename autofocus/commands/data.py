"""``autofocus data``: from folders of images to tables of planes and labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from autofocus.commands.arguments import ZCsv, ZPattern, ZStep
from autofocus.training.stack_index import ZSource, index_stacks, write_index

app = typer.Typer(help="Index, label and check a lab's own z-stacks.")

Root = Annotated[
    Path, typer.Argument(metavar="ROOT", help="Top folder of the z-stacks, or one TIFF stack.")
]


@app.command()
def index(
    root: Root,
    out: Annotated[Path, typer.Option("--out", "-o", help="CSV to write.")],
    z_pattern: ZPattern = None,
    z_step: ZStep = None,
    z_csv: ZCsv = None,
    without_z: Annotated[
        bool,
        typer.Option("--without-z", help="Accept stacks without z; enough for `predict`."),
    ] = False,
) -> None:
    """List the planes of every z-stack below ROOT: image_path, stack, z_um."""
    source = ZSource(z_pattern, z_step, z_csv, required=not without_z)
    stacks = index_stacks(root, source)
    write_index(out, (plane for stack in stacks for plane in stack.planes))
    lines = [f"{s.name}: {len(s.planes)} planes, z from {s.z_from}" for s in stacks]
    say(*lines, f"{sum(len(s.planes) for s in stacks)} planes of {len(stacks)} stacks: {out}")


def say(*lines: str, error: bool = False) -> None:
    """Print lines as they are."""
    Console(stderr=error).print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
