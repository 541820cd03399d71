"""``autofocus pretrain``, ``refine`` and ``fit-default-head``: how the shipped weights are made."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from autofocus.errors import ConfigError
from autofocus.training import default_head
from autofocus.training.corpus import Corpus
from autofocus.training.known_defocus import load_known_defocus
from autofocus.training.labelled import (
    bead_groups,
    simulated_groups,
    stack_groups,
    still_groups,
    transmitted_groups,
)
from autofocus.training.pretrain import Branch, PretrainSettings, corpus_for, pretrain
from autofocus.training.refine import RefineSettings, refine
from autofocus.training.team import Team, assembled
from autofocus.training.wide_cameras import wide_camera_groups
from models.checkpoints import load_compact_encoder, save_encoders
from models.head import save_head
from models.registry import ENSEMBLE_FILE, Registry

_SMALL_MINUTES = 3.0
_SIMULATED_PER_BEAD_FIELD = 6
_SIMULATED_PER_TRANSMITTED = 6
_SIMULATED_PER_STILL_WINDOW = 390

Data = Annotated[
    Path | None,
    typer.Option(help="Folder with manifest.json, stacks and stills; without it simulation only."),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")]
Seed = Annotated[int, typer.Option(help="Decides every image.", min=0)]


def pretrain_encoders(
    out: Out,
    data: Data = None,
    branch: Annotated[Literal["content", "quality", "both"], typer.Option()] = "both",
    minutes: Annotated[
        float | None, typer.Option(help="Training time of each branch; resumed parts count.")
    ] = None,
    threads: Annotated[int, typer.Option(help="Threads of the network.", min=1)] = 1,
    workers: Annotated[int, typer.Option(help="Threads that make batches.", min=1)] = 1,
    seed: Seed = 0,
    small: Annotated[
        bool,
        typer.Option(
            "--small", help="A trial: few images, and 3 minutes a branch unless --minutes is given."
        ),
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Ignore an existing checkpoint.")] = False,
) -> None:
    """Train the compact encoders without labels (MoCo v2); started again, it goes on.

    On several GPUs: torchrun --nproc-per-node N -m autofocus pretrain ...
    """
    settings = PretrainSettings(seed=seed)
    if small:
        settings = replace(settings, pool_images=60, content_images=48)
        minutes = minutes or _SMALL_MINUTES
    branches: tuple[Branch, ...] = ("quality", "content")
    with assembled() as team:
        corpus = _corpus(settings, out, data, team)
        for each in branches:
            if branch in (each, "both"):
                file = pretrain(
                    each,
                    settings,
                    out,
                    corpus=corpus,
                    minutes=minutes,
                    threads=threads,
                    workers=workers,
                    resume=not fresh,
                    team=team,
                )
                if team.leads:
                    Console().print(f"{each}: {file}", soft_wrap=True)


def refine_encoder(
    encoders: Annotated[
        Path, typer.Option(help="Folder with both encoders, of `autofocus pretrain`.")
    ],
    out: Out,
    data: Data = None,
    minutes: Annotated[
        float | None, typer.Option(help="Training time; resumed parts count.")
    ] = None,
    specimens: Annotated[
        int, typer.Option(help="Simulated specimens, 8 distances each.", min=1)
    ] = 2700,
    width: Annotated[
        int | None,
        typer.Option(help="Channels of its first stage from now on, more than it has."),
    ] = None,
    learning_rate: Annotated[
        float,
        typer.Option(help="Highest; 0.001 for an encoder that was refined before.", min=1e-6),
    ] = RefineSettings.learning_rate,
    threads: Annotated[int, typer.Option(help="Threads of the network.", min=1)] = 1,
    workers: Annotated[int, typer.Option(help="Threads that make batches.", min=1)] = 1,
    jobs: Annotated[int, typer.Option(help="Processes that render specimens.", min=1)] = 1,
    seed: Seed = 0,
    fresh: Annotated[bool, typer.Option("--fresh", help="Ignore an existing checkpoint.")] = False,
) -> None:
    """Teach the quality encoder what a depth of field looks like; started again, it goes on.

    The content encoder is copied, so that `autofocus fit-default-head` can go on with the result.
    """
    if out.resolve() == encoders.resolve():
        raise ConfigError(f"{out} holds the encoder to begin with; give another folder with --out")
    with assembled() as team:
        if team.leads:
            out.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(encoders / "content.safetensors", out / "content.safetensors")
            load_known_defocus(out / "light", data=data, count=specimens, seed=seed, jobs=jobs)
        team.agreed(0.0)
        pool = load_known_defocus(out / "light", data=data, count=specimens, seed=seed)
        file = refine(
            encoders / "quality.safetensors",
            RefineSettings(seed=seed, width=width, learning_rate=learning_rate),
            out,
            pool=pool,
            minutes=minutes,
            threads=threads,
            workers=workers,
            resume=not fresh,
            team=team,
        )
        if team.leads:
            Console().print(f"quality: {file}", soft_wrap=True)


def _corpus(settings: PretrainSettings, out: Path, data: Path | None, team: Team) -> Corpus:
    """Have rank 0 make the pool of specimens; the others wait for it."""
    if team.leads:
        corpus_for(settings, out, data)
    team.agreed(0.0)
    return corpus_for(settings, out, data)


def fit_default_head(
    encoders: Annotated[
        Path, typer.Option(help="Folder with content.safetensors and quality.safetensors.")
    ],
    out: Out,
    data: Data = None,
    specimens: Annotated[int, typer.Option(help="Simulated specimens, 10 frames each.")] = 520,
    light: Annotated[
        Path | None,
        typer.Option(
            help="Folder `light` of `autofocus refine`: its specimens, 8 frames each, and a field "
            "with nothing in it for every eighth."
        ),
    ] = None,
    cameras: Annotated[
        int, typer.Option(help="Cameras that each specimen of --light is seen through.", min=1)
    ] = 2,
    jobs: Annotated[int, typer.Option(help="Processes.", min=1)] = 1,
    seed: Seed = 1,
) -> None:
    """Fit the head that ships, on frames of known defocus; makes a folder of models.

    A ridge, or a small network where held-out specimens say that it is clearly better: that takes
    some tens of thousands of frames.
    """
    layout = out / "compact"
    save_encoders(
        layout,
        load_compact_encoder(encoders / "content.safetensors"),
        load_compact_encoder(encoders / "quality.safetensors"),
        {"made_by": "autofocus pretrain, with or without autofocus refine"},
    )
    extractor = Registry([out]).load_extractor("reiqa-compact")
    groups = simulated_groups(specimens, seed=seed)
    groups += bead_groups(specimens // _SIMULATED_PER_BEAD_FIELD, seed=seed)
    groups += transmitted_groups(specimens // _SIMULATED_PER_TRANSMITTED, seed=seed)
    if data is not None:
        windows = max(2, specimens // _SIMULATED_PER_STILL_WINDOW)
        groups += still_groups(data, seed=seed, per_image=windows) + stack_groups(data)
    if light is not None:
        groups += wide_camera_groups(light, cameras=cameras, seed=seed)
    table = default_head.extract(extractor, groups, jobs=jobs)
    table.save(out / "features.npz")
    default_head.fit_classical(table).save(out / ENSEMBLE_FILE)
    head = save_head(layout / "head", default_head.fit(extractor, table))
    Console().print_json(data=dict(head.manifest.report))
