"""``autofocus score``: score images in files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from autofocus.commands.arguments import AsJson, ConfigFile
from autofocus.config import load_rig
from autofocus.scorers import scorers_of
from autofocus.scoring import ScoredPlanes, is_in_order, score_planes
from autofocus.service.scores import ScoreOut
from devices.replay.stack import load_stack
from models.scorer import FrameScore, Scorer


@dataclass(frozen=True)
class _Plane:
    """One plane and where it comes from; ``number`` counts from 0 within its file."""

    file: Path
    number: int
    z_um: float | None
    image: NDArray[np.generic]


def score(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="TIFF, OME-TIFF, PNG, or a folder of planes."),
    ],
    scorer: Annotated[
        str | None, typer.Option(help="Who scores, see `autofocus models list`.")
    ] = None,
    head: Annotated[str | None, typer.Option(help="Fitted head of the scorer.")] = None,
    bit_depth: Annotated[
        int | None, typer.Option(help="Bits the camera really uses.", min=1, max=64)
    ] = None,
    sampling: Annotated[
        float | None,
        typer.Option(help="Camera pixel in the specimen x NA / wavelength, where known."),
    ] = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Score the planes of images and z-stacks, and mark the sharpest; needs no microscope."""
    with_scorer = scorers_of(load_rig(config))(scorer, head)
    planes = [plane for file in files for plane in _planes(file)]
    shown = track(
        [plane.image for plane in planes],
        description=f"{with_scorer.name}, head {with_scorer.head or 'none'}",
        console=Console(stderr=True, quiet=as_json),
        transient=True,
    )
    scored = score_planes(
        with_scorer,
        shown,
        bit_depth=bit_depth,
        sampling=sampling,
        # Nothing says that several files are one stack.
        in_order=len(files) == 1 and is_in_order([plane.z_um for plane in planes]),
    )
    if as_json:
        typer.echo(_json(with_scorer, planes, scored))
    else:
        _print(with_scorer, planes, scored, Console())


def _planes(file: Path) -> list[_Plane]:
    stack = load_stack(file)
    z_um = stack.z_um or (None,) * len(stack)
    return [
        _Plane(file, number, z, image)
        for number, (z, image) in enumerate(zip(z_um, stack.planes, strict=True))
    ]


def _json(scorer: Scorer, planes: list[_Plane], scored: ScoredPlanes) -> str:
    frames = [
        {
            "file": str(plane.file),
            "plane": plane.number,
            **ScoreOut.of(said, plane.z_um).model_dump(mode="json"),
        }
        for plane, said in zip(planes, scored.scores, strict=True)
    ]
    values = {
        "scorer": scorer.name,
        "head": scorer.head,
        "referee": scorer.watched_by,
        "best": scored.best,
        "frames": frames,
    }
    return json.dumps(values, indent=2)


def _print(scorer: Scorer, planes: list[_Plane], scored: ScoredPlanes, console: Console) -> None:
    title = f"scorer {scorer.name}, head {scorer.head or 'none'}"
    table = Table("file", "plane", "z um", "score", "|d| DOF", "sd", "flags", title=title)
    for index, (plane, said) in enumerate(zip(planes, scored.scores, strict=True)):
        table.add_row(
            plane.file.name,
            str(plane.number),
            _number(plane.z_um, ".3f"),
            _number(said.score, ".4g"),
            _number(said.defocus_dof, ".2f"),
            _number(said.defocus_sd_dof, ".2f"),
            ", ".join(_flags(said, best=index == scored.best)),
        )
    console.print(table)


def _flags(said: FrameScore, *, best: bool) -> list[str]:
    flags = {
        "best": best,
        "dark": said.dark,
        "saturated": said.saturated,
        "out of distribution": said.out_of_distribution,
    }
    return [name for name, raised in flags.items() if raised]


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
