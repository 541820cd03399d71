"""``autofocus data``: from folders of images to tables of planes and labels."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table as RichTable

from autofocus.commands.arguments import SOME_SKIPPED, AsJson, ZCsv, ZPattern, ZStep
from autofocus.commands.arguments import Root as TopFolder
from autofocus.errors import DataError
from autofocus.training.checks import CheckedStack, check_stack, compare_stacks
from autofocus.training.labels import (
    Judgement,
    by_person,
    by_teachers,
    write_scores,
    zero_in_names,
)
from autofocus.training.stack_index import (
    IndexedStack,
    ZSource,
    by_stack,
    index_stacks,
    read_index,
    write_index,
)
from autofocus.training.tables import common_folder
from autofocus.training.training_rows import read_scores

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


@app.command()
def label(
    root: Root,
    out: Annotated[Path, typer.Option("--out", "-o", help="CSV to write.")],
    sigma: Annotated[
        float, typer.Option(help="Distance from focus at which the label is 0.5, um.", min=1e-3)
    ] = 2.0,
    z_pattern: ZPattern = None,
    z_step: ZStep = None,
    z_csv: ZCsv = None,
    in_focus: Annotated[
        Path | None,
        typer.Option(help="CSV of a person's choice: stack,z_um or the image_path of the plane."),
    ] = None,
    teacher: Annotated[
        bool, typer.Option("--teacher", help="Ask the classical measures instead.")
    ] = False,
) -> None:
    """Label every plane by its distance to focus: image_path, z_um, focus_score.

    In focus is z = 0 of the names, a person's choice, or what the teachers agree on. Stacks on
    which nobody can tell are set aside, listed, and make the exit code 1.
    """
    if in_focus is not None and teacher:
        raise typer.BadParameter(
            "either a person chooses or the teachers do", param_hint="--teacher"
        )
    stacks = index_stacks(root, ZSource(z_pattern, z_step, z_csv))
    if in_focus is not None:
        judged = by_person(stacks, in_focus, root=root)
    elif teacher:
        judged = _taught(stacks, sigma)
    else:
        judged = tuple(zero_in_names(stack) for stack in stacks)
    _print_judged(judged)
    labelled = write_scores(out, stacks, judged, sigma_um=sigma)
    aside = [each.stack for each in judged if each.z_um is None]
    say(f"{labelled} planes of {len(stacks) - len(aside)} stacks: {out}")
    if aside:
        say(f"set aside, not labelled: {', '.join(aside)}", error=True)
        raise typer.Exit(SOME_SKIPPED)


@app.command()
def check(
    images: Annotated[Path, typer.Argument(metavar="IMAGES.csv", help="CSV of `data index`.")],
    scores: Annotated[Path | None, typer.Option(help="CSV of `data label`.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for a contact sheet a stack (PNG).")
    ] = None,
    root: TopFolder = None,
    target: Annotated[str, typer.Option(help="Column with the label.")] = "focus_score",
    bit_depth: Annotated[
        int | None, typer.Option(help="Bits the camera really uses.", min=1, max=64)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Look for missing and broken files, mixed sizes, saturation, copies, and labels at the edge.

    The exit code is 1 when something was found.
    """
    planes = read_index(images, root=root)
    if out is not None and out.resolve().is_relative_to(common_folder([p.path for p in planes])):
        raise typer.BadParameter(
            "a folder among the images would be taken for a stack next time", param_hint="--out"
        )
    stacks = by_stack(planes)
    labels = read_scores(scores, target=target, root=root) if scores else {}
    console = Console(stderr=True, quiet=as_json)
    checked = []
    for name in track(stacks, "looking", console=console, transient=True):
        checked.append(check_stack(name, stacks[name], labels, bit_depth=bit_depth))
        if out is not None:
            _write_sheet(out, len(checked), checked[-1])
    findings = [*(f for each in checked for f in each.findings), *compare_stacks(checked)]
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in findings], indent=2, ensure_ascii=False))
    else:
        say(
            *(f"{each.stack}: {each.kind}: {each.text}" for each in findings),
            f"{len(findings)} findings in {len(stacks)} stacks"
            + (f"; contact sheets: {out}" if out else ""),
        )
    if findings:
        raise typer.Exit(SOME_SKIPPED)


def _write_sheet(folder: Path, number: int, checked: CheckedStack) -> None:
    # Numbered: "a/b" and "a b" must not become one file.
    readable = re.sub(r"[^\w.-]+", "_", checked.stack).strip("_.")
    path = folder / f"{number:03d}_{readable or 'stack'}.png"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(checked.sheet_png)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error}") from error


def _taught(stacks: tuple[IndexedStack, ...], sigma_um: float) -> tuple[Judgement, ...]:
    console = Console(stderr=True)
    shown = track(stacks, "asking the teachers", console=console, transient=True)
    return tuple(by_teachers(stack, sigma_um=sigma_um) for stack in shown)


def _print_judged(judged: tuple[Judgement, ...]) -> None:
    table = RichTable("stack", "in focus, um", "agreement", "why")
    for each in judged:
        table.add_row(
            escape(each.stack),
            "set aside" if each.z_um is None else f"{each.z_um:g}",
            "-" if each.agreement is None else f"{each.agreement:.0%}",
            escape(each.reason),
        )
    Console().print(table)


def say(*lines: str, error: bool = False) -> None:
    """Print lines as they are."""
    Console(stderr=error).print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
