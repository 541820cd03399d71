"""``autofocus bench``: measurements anyone can repeat."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from autofocus.bench import (
    curves,
    empties,
    locks,
    losses,
    measures_mlp,
    portrait,
    search,
    search_cases,
    search_entrants,
    search_page,
    search_pictures,
    search_real,
    stacks,
    sweeps,
    timing,
)
from autofocus.commands.arguments import Alpha, ConfigFile, Dask, Jobs, Root, alpha_of
from autofocus.config import EngineName, Rig, load_rig
from autofocus.scorers import scorers_of
from autofocus.training.feature_file import load_features
from autofocus.training.training_rows import join
from autofocus.training.workers import Workers
from models.classical import MEASURES
from models.engines import available_engines
from models.ensemble import NAME as ENSEMBLE
from models.registry import Registry
from models.scorer import Scorer

app = typer.Typer(help="Measure scorers on simulated rigs and recorded stacks.")

DEFAULT_SCORERS = "reiqa-compact,tenengrad,normalised_variance"
ALL_SCORERS = ",".join(["reiqa-compact", ENSEMBLE, *MEASURES])
Scorers = Annotated[
    str,
    typer.Option(
        help="Names with commas between; LABEL=FOLDER: the compact scorer of another folder; "
        "LABEL=features.npz: a small network on the classical measures of that file."
    ),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for tables and pictures.")]


@app.command("locks")
def bench_locks(
    out: Out,
    scorers: Scorers = DEFAULT_SCORERS,
    seeds: Annotated[int, typer.Option(help="Specimens of each kind.", min=1)] = 20,
    kinds: Annotated[str, typer.Option(help="Kinds, commas between.")] = ",".join(locks.KINDS),
    jobs: Annotated[int, typer.Option(help="Processes.", min=1)] = 1,
    config: ConfigFile = None,
) -> None:
    """Focus simulated specimens of unknown true focus: how often on the right plane."""
    out.mkdir(parents=True, exist_ok=True)
    outcomes = locks.run_locks(
        scorers.split(","),
        locks.cases(seeds, kinds.split(",")),
        partial(_load, load_rig(config)),
        jobs=jobs,
    )
    locks.write_csv(outcomes, out / "locks.csv")
    _report(locks.table(outcomes), out / "locks.md")


@app.command("search")
def bench_search(
    out: Out,
    data: Annotated[
        Path | None, typer.Option(help="Folder with manifest.json and stacks, for recorded ones.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help=f"One case in {search_cases.QUICK_ONE_IN}.")
    ] = False,
    entrants: Annotated[
        str, typer.Option(help="Rows of the table, semicolons between; by default all.")
    ] = "",
    first_seed: Annotated[
        int, typer.Option(help="Of the specimens; another one for tuning.")
    ] = search_cases.FIRST_SEED,
    docs: Annotated[
        Path | None, typer.Option(help="Write this page of the documentation, with its pictures.")
    ] = None,
    jobs: Jobs = 1,
    config: ConfigFile = None,
) -> None:
    """Search simulated specimens and recorded stacks; what was run before is not run again."""
    out.mkdir(parents=True, exist_ok=True)
    names = entrants.split(";") if entrants else list(search_entrants.ENTRANTS)
    share = 1 / search_cases.QUICK_ONE_IN if quick else 1.0
    load = partial(_load, load_rig(config))
    outcomes = search.run_search(
        search_cases.cases(share, first_seed=first_seed),
        [search_entrants.ENTRANTS[name] for name in names],
        load,
        log=out / "runs.jsonl",
        jobs=jobs,
    )
    replays = _replays(data, load, out, share, jobs) if data is not None else []
    (out / "search.png").write_bytes(search_pictures.overview(outcomes))
    (out / "runs.png").write_bytes(search_pictures.single_runs(outcomes))
    _report(search_page.contents(outcomes, replays), out / "search.md")
    if docs is not None:
        made_by = search_page.MadeBy(first_seed, quick, entrants, data is not None)
        search_page.write(docs, outcomes, replays, made_by)


@app.command("curves", hidden=True)
def bench_curves(
    out: Out,
    seeds: Annotated[int, typer.Option(help="Specimens of each kind.", min=1)] = 2,
    jobs: Annotated[int, typer.Option(help="Processes.", min=1)] = 1,
    config: ConfigFile = None,
) -> None:
    """Measure what the search must know of reiqa-compact: `autofocus/search/known_score.py`."""
    out.mkdir(parents=True, exist_ok=True)
    recorded = curves.record(
        curves.cases(seeds),
        "reiqa-compact",
        partial(_load, load_rig(config)),
        log=out / "curves.jsonl",
        jobs=jobs,
    )
    _report(curves.table(recorded), out / "curves.md")


@app.command("replays")
def bench_replays(
    data: Annotated[Path, typer.Option(help="Folder with manifest.json and stacks.")],
    out: Out,
    jobs: Jobs = 1,
    config: ConfigFile = None,
) -> None:
    """Search recorded z-stacks from five starts, against the planes a person accepts."""
    out.mkdir(parents=True, exist_ok=True)
    runs = _replays(data, partial(_load, load_rig(config)), out, 1.0, jobs)
    _report(search_real.report(runs), out / "replays.md")


def _replays(
    data: Path, load: search.LoadScorer, out: Path, share: float, jobs: int
) -> list[search_real.Replayed]:
    return search_real.run_real(data, load, log=out / "replays.jsonl", share=share, jobs=jobs)


@app.command("stacks")
def bench_stacks(
    data: Annotated[Path, typer.Option(help="Folder with manifest.json and stacks.")],
    out: Out,
    scorers: Scorers = "reiqa-compact",
    use: Annotated[str, typer.Option(help="train or evaluate.")] = "evaluate",
    config: ConfigFile = None,
) -> None:
    """Choose a plane of every recorded stack, against the planes a person accepts."""
    out.mkdir(parents=True, exist_ok=True)
    rig = load_rig(config)
    judged = stacks.judge_stacks(
        data, {name: _load(rig, name) for name in scorers.split(",")}, use=use
    )
    _report(stacks.table(judged), out / f"stacks_{use}.md")


@app.command("sweeps")
def bench_sweeps(
    out: Out,
    scorers: Scorers = ALL_SCORERS,
    conditions: Annotated[
        str, typer.Option(help=f"Light, commas between: {', '.join(sweeps.CONDITIONS)}.")
    ] = "1000 photons,300 photons,100 photons",
    seeds: Annotated[int, typer.Option(help="Stacks of each kind of specimen.", min=1)] = 6,
    planes: Annotated[
        int, typer.Option(help="Planes of a stack, evenly within 10 depths of field.", min=3)
    ] = sweeps.PLANES,
    jobs: Annotated[int, typer.Option(help="Processes.", min=1)] = 1,
    config: ConfigFile = None,
) -> None:
    """Score every plane of simulated stacks: rank, absolute meaning, and the plane chosen."""
    out.mkdir(parents=True, exist_ok=True)
    found = sweeps.run_sweeps(
        scorers.split(","),
        partial(_load, load_rig(config)),
        conditions=conditions.split(","),
        seeds=seeds,
        planes=planes,
        jobs=jobs,
    )
    sweeps.write_csv(found, out / "sweeps.csv")
    _report(sweeps.table(found), out / "sweeps.md")


@app.command("empties")
def bench_empties(
    out: Out,
    data: Annotated[
        Path | None, typer.Option(help="Folder with manifest.json and stills, for real frames.")
    ] = None,
    frames: Annotated[int, typer.Option(help="Frames of each kind.", min=2)] = 100,
    scorer: Annotated[str, typer.Option(help="One name.")] = "reiqa-compact",
    config: ConfigFile = None,
) -> None:
    """Tell empty fields from specimens out of focus by single frames: ROC curves."""
    out.mkdir(parents=True, exist_ok=True)
    fields = list(empties.simulated_fields(frames))
    if data is not None:
        fields += empties.real_fields(data)
    said = empties.measure(fields, _load(load_rig(config), scorer))
    empties.draw(fields, said, out / "empties.png")
    _report(empties.table(fields, said), out / "empties.md")


@app.command("losses")
def bench_losses(
    out: Out,
    features: Annotated[Path, typer.Option(help="File of `autofocus features`.")],
    scores: Annotated[Path, typer.Option(help="CSV of `autofocus data label`.")],
    alpha: Alpha = "auto",
    sigma: Annotated[
        float, typer.Option(help="Distance at which the label is 0.5, um, where not in the CSV.")
    ] = 2.0,
    dof_um: Annotated[
        float | None, typer.Option(help="Depth of field of the objective, um.", min=1e-3)
    ] = None,
    root: Root = None,
    jobs: Jobs = 1,
    dask: Dask = None,
) -> None:
    """Compare the losses of `autofocus train` on the same left-out stacks."""
    out.mkdir(parents=True, exist_ok=True)
    rows = join(load_features(features), scores, sigma_um=sigma, root=root)
    with Console(stderr=True).status("leaving out each stack, with each loss"):
        found = losses.compare(rows, alpha=alpha_of(alpha), workers=Workers(jobs, dask))
    losses.write_csv(found, out / "losses.csv")
    _report(losses.table(found, dof_um=dof_um), out / "losses.md")


@app.command("portrait")
def bench_portrait(
    out: Out,
    kind: Annotated[str, typer.Option(help="Specimen.")] = "nuclei",
    seed: Annotated[int, typer.Option(help="Of the specimen.")] = locks.FIRST_SEED,
    scorer: Annotated[str, typer.Option(help="One name.")] = "reiqa-compact",
    config: ConfigFile = None,
) -> None:
    """Draw one simulated run: frames at start, best plane and end, and the curves."""
    out.mkdir(parents=True, exist_ok=True)
    picture = out / f"portrait_{kind}_{seed}.png"
    loaded = _load(load_rig(config), scorer)
    outcome = portrait.portrait(locks.Case(kind, seed), loaded, picture)
    Console().print(f"{outcome.verdict}, error {outcome.error_dof:.2f} DOF: {picture}")


@app.command("scorer")
def bench_scorer(
    repeats: Annotated[int, typer.Option(help="Frames a scorer.", min=1)] = 5,
    threads: Annotated[int, typer.Option(help="Threads of the networks.", min=1)] = 2,
    config: ConfigFile = None,
) -> None:
    """Time a frame of 1024 x 1024 px, against the procedure of the notes in the same process."""
    rig = load_rig(config)
    engines: tuple[EngineName, ...] = ("auto", *available_engines())
    compact: dict[str, Scorer] = {
        engine: _load(replace(rig, engine=engine), "reiqa-compact") for engine in engines
    }
    Console().print(timing.table(timing.measure(compact, repeats=repeats, threads=threads)))


def _load(rig: Rig, name: str) -> Scorer:
    label, _, folder = name.partition("=")
    if folder.endswith(".npz"):
        return measures_mlp.fit_once(Path(folder))
    if folder:
        return Registry([Path(folder)]).load_scorer("reiqa-compact")
    return scorers_of(rig)(label, None)


def _report(table: str, path: Path) -> None:
    path.write_text(table + "\n", encoding="utf-8")
    Console().print(table, soft_wrap=True, markup=False)
