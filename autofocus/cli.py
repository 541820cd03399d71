"""The ``autofocus`` command.

Exit codes: 0 done (for ``focus``: only when locked), 1 another verdict or nothing to calibrate
with, 2 a fault or a bad configuration.
"""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType
from rich.live import Live

from autofocus import terminal
from autofocus.calibration import CalibrationRecord
from autofocus.commands import bench, data, models
from autofocus.commands.arguments import AsJson, ConfigFile
from autofocus.commands.features import features
from autofocus.commands.finetune import finetune_network
from autofocus.commands.predict import predict
from autofocus.commands.score import score
from autofocus.commands.train import train_head
from autofocus.commands.training import fit_default_head, pretrain_encoders, refine_encoder
from autofocus.conductor import Conductor
from autofocus.config import Rig, load_rig
from autofocus.errors import AutofocusError, NoFocusCurve
from autofocus.options import takes_options_of
from autofocus.planning import FocusRequest
from autofocus.replay import replay_rig
from autofocus.runs import RunRecord, RunStore
from autofocus.scorers import scorers_of
from autofocus.service.access import is_loopback
from autofocus.service.answers import PlanOut, RunOut
from autofocus.service.app import create_app
from autofocus.service.calibration_answers import CalibrationOut
from autofocus.service.requests import CalibrationBody, SearchBody
from autofocus.service.server import Server
from devices import DeviceError, Microscope, MicroscopeState
from models.errors import ModelError
from models.scorer import Scorer

NOT_LOCKED, FAULT = 1, 2
_REDRAW_S = 0.1

app = typer.Typer(
    name="autofocus",
    help="Focus a Micro-Manager microscope, and lock only what is proven.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.command()(score)
app.add_typer(models.app, name="models")
app.add_typer(bench.app, name="bench")
app.add_typer(data.app, name="data")
app.command()(features)
app.command("train")(train_head)
app.command("finetune")(finetune_network)
app.command()(predict)
app.command("pretrain")(pretrain_encoders)
app.command("refine")(refine_encoder)
app.command("fit-default-head")(fit_default_head)

StartZ = Annotated[
    float | None, typer.Option("--start-z-um", help="Move the stage here first, um.")
]
Replay = Annotated[
    Path | None,
    typer.Option("--replay", help="Recorded z-stack to focus in, instead of hardware."),
]
ZStep = Annotated[
    float | None, typer.Option("--z-step", help="Distance between its planes, um.", min=0.0)
]
ZPositions = Annotated[
    str | None, typer.Option("--z-positions", help='Position of each plane, um: "0 0.5 1.2".')
]


def main() -> None:
    """Run the command line; the entry point of ``autofocus``."""
    # A plain kill, or a container that is stopped, puts the microscope back as Ctrl-C does. SIGINT
    # too: shells start background jobs with it ignored, and a stop that is sent must be heeded.
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.default_int_handler)
    try:
        app()
    except (AutofocusError, DeviceError, ModelError) as error:
        print(f"autofocus: {error}", file=sys.stderr)
        sys.exit(FAULT)
    except Exception:
        # Python would end with 1, which means that a run ended without a lock.
        traceback.print_exc()
        sys.exit(FAULT)


@app.command()
def serve(
    config: ConfigFile = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.", min=0, max=65535)] = 8000,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="AUTOFOCUS_TOKEN",
            help="Bearer token that requests must carry; required for any --host but loopback.",
        ),
    ] = None,
    scorer: Annotated[
        str | None, typer.Option(help="Who scores unless a request says otherwise.")
    ] = None,
) -> None:
    """Serve the microscope over HTTP until Ctrl-C."""
    if not is_loopback(host) and not token:
        raise typer.BadParameter(
            f"{host!r} lets other machines move this microscope: "
            "give --token (or AUTOFOCUS_TOKEN), or listen on 127.0.0.1",
            param_hint="--host",
        )
    rig = load_rig(config)
    rig = replace(rig, scorer=scorer or rig.scorer)
    runs = RunStore(rig.runs_dir)
    service = create_app(rig, Microscope.open(rig.microscope), scorers_of(rig), runs, token=token)
    conductor: Conductor = service.state.conductor
    console = Console(stderr=True)
    try:
        used = conductor.scorer_for(FocusRequest())
        _announce(rig, conductor.microscope.state, used, console)
        _listen(Server(service, host=host, port=port, on_listening=_tell(console)))
    finally:
        conductor.close()


@app.command()
@takes_options_of(SearchBody)
def focus(
    body: SearchBody,
    config: ConfigFile = None,
    replay: Replay = None,
    z_step: ZStep = None,
    z_positions: ZPositions = None,
    start_z_um: StartZ = None,
    as_json: AsJson = False,
) -> None:
    """Focus once and print the verdict; exit code 0 only when locked.

    Ctrl-C ends the run and puts the microscope back.
    """
    console = Console(stderr=True, quiet=as_json)
    with _rig(config, replay, z_step, z_positions) as rig:
        record = _focus_once(rig, body, start_z_um, console)
    terminal.print_result(record, console)
    if as_json:
        typer.echo(RunOut.of(record).model_dump_json(indent=2, exclude={"links"}))
    if record.result is None or not record.result.locked:
        raise typer.Exit(NOT_LOCKED)


@app.command()
@takes_options_of(SearchBody)
def plan(
    body: SearchBody,
    config: ConfigFile = None,
    replay: Replay = None,
    z_step: ZStep = None,
    z_positions: ZPositions = None,
    start_z_um: StartZ = None,
    as_json: AsJson = False,
) -> None:
    """Say where a run would go and how many exposures it may take; focuses nothing."""
    with (
        _rig(config, replay, z_step, z_positions) as rig,
        _conducting(rig, start_z_um) as conductor,
    ):
        planned = conductor.plan(body.focus_request(), conductor.microscope.state)
    if as_json:
        typer.echo(
            PlanOut.of(planned, settle_ms=rig.microscope.settle_ms).model_dump_json(indent=2)
        )
    else:
        terminal.print_plan(planned, Console())


@app.command()
@takes_options_of(CalibrationBody)
def calibrate(
    body: CalibrationBody,
    config: ConfigFile = None,
    start_z_um: StartZ = None,
    as_json: AsJson = False,
) -> None:
    """Measure focus curve, backlash, settle time and repeatability around here, and keep them.

    Focus first. Exit code 1 when no peak was proven; Ctrl-C ends it and keeps nothing.
    """
    console = Console(stderr=True, quiet=as_json)
    rig = load_rig(config)
    try:
        with _conducting(rig, start_z_um) as conductor:
            record = _calibrate_once(conductor, body, console)
            report = conductor.calibrations.report(record.calibration_id)
    except NoFocusCurve as refusal:
        print(f"autofocus: {refusal}", file=sys.stderr)
        raise typer.Exit(NOT_LOCKED) from None
    terminal.print_calibration(record, report, console)
    if as_json:
        typer.echo(CalibrationOut.of(record).model_dump_json(indent=2, exclude={"report"}))


def _calibrate_once(
    conductor: Conductor, body: CalibrationBody, console: Console
) -> CalibrationRecord:
    request = body.calibration_request()
    live = conductor.start_calibration(request)
    _announce(conductor.rig, conductor.microscope.state, conductor.scorer_for(request), console)
    _watch(live.done, conductor, console, lambda: f"{len(live.readings)} frames scored")
    return live.done.result()


@contextmanager
def _rig(
    config: Path | None, replay: Path | None, z_step: float | None, z_positions: str | None
) -> Iterator[Rig]:
    """The rig of a rig file, or the recorded stack in its place."""
    rig = load_rig(config)
    if replay is None:
        yield rig
        return
    with TemporaryDirectory() as folder:
        yield replay_rig(
            rig,
            replay,
            Path(folder),
            z_step_um=z_step,
            z_positions_um=_numbers(z_positions),
            keep_optics=config is not None,
        )


def _numbers(text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(map(float, text.replace(",", " ").split()))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--z-positions") from error


def _focus_once(
    rig: Rig, body: SearchBody, start_z_um: float | None, console: Console
) -> RunRecord:
    with _conducting(rig, start_z_um) as conductor:
        request = body.focus_request()
        run = conductor.start(request)
        _announce(rig, conductor.microscope.state, conductor.scorer_for(request), console)
        _watch(run.done, conductor, console, lambda: terminal.running(run.record(), console))
        return run.done.result()


@contextmanager
def _conducting(rig: Rig, start_z_um: float | None) -> Iterator[Conductor]:
    """The rig's microscope, at the position to start from."""
    microscope = Microscope.open(rig.microscope)
    conductor = Conductor(rig, microscope, scorers_of(rig), RunStore(rig.runs_dir))
    try:
        if start_z_um is not None:
            conductor.move_to(start_z_um).result()
        yield conductor
    finally:
        conductor.close()


def _watch(
    done: Future[Any],
    conductor: Conductor,
    console: Console,
    show: Callable[[], RenderableType],
) -> None:
    """Show what has the microscope until it is over; Ctrl-C ends it early."""
    with Live(console=console, transient=True, auto_refresh=False) as display:
        while not done.done():
            try:
                wait([done], timeout=_REDRAW_S)
                display.update(show(), refresh=console.is_terminal)
            except KeyboardInterrupt:
                conductor.stop()
                console.print("stopping; the microscope is put back as soon as it is free")


def _announce(rig: Rig, state: MicroscopeState, scorer: Scorer, console: Console) -> None:
    limits = f"{state.z_min_um:g} to {state.z_max_um:g} um"
    lines = (
        f"rig      {rig.name}: camera {state.camera}, focus drive {state.focus_device}, {limits}",
        f"scorer   {scorer.name}, head {scorer.head or 'none'}, "
        f"referee {scorer.watched_by or 'none'}",
        f"runs     {rig.runs_dir}",
    )
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def _tell(console: Console) -> Callable[[str], None]:
    def tell(url: str) -> None:
        console.print(f"open     {url}/docs   (Ctrl-C ends)", highlight=False, soft_wrap=True)

    return tell


def _listen(server: Server) -> None:
    try:
        server.run()
    except KeyboardInterrupt:
        return  # how uvicorn reports Ctrl-C once everything is closed
    except SystemExit as exit_:
        # Uvicorn has logged why it could not listen; its exit code means something else here.
        raise typer.Exit(FAULT) from exit_
