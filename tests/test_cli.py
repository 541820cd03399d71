"""The ``autofocus`` command: what it prints, where, and its exit code."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from test_replay_rig import EVEN_UM, record

from autofocus.cli import main
from autofocus.config import builtin_configs

AUTOFOCUS = [sys.executable, "-m", "autofocus"]
NEAR = ["--z-min-um", "-40", "--z-max-um", "40"]
needs_sigint = pytest.mark.skipif(
    sys.platform == "win32", reason="one process cannot send another Ctrl-C on Windows"
)


@pytest.fixture
def rig_file(tmp_path: Path) -> Path:
    return write_rig(tmp_path)


def write_rig(folder: Path, cfg: Path | None = None, **microscope: object) -> Path:
    """A rig file like the demo's, with its runs in ``folder``."""
    cfg = cfg or builtin_configs() / "demo.cfg"
    demo = {"z_min_um": -250.0, "z_max_um": 250.0, "simulated": True}
    values = {"config": cfg.as_posix(), **demo, **microscope}
    path = folder / "rig.toml"
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    path.write_text(
        "\n".join(
            [
                'scorer = "tenengrad"',
                f"runs_dir = {json.dumps((folder / 'runs').as_posix())}",
                "[microscope]",
                *lines,
                "[optics]",
                "na = 0.5",
                "pixel_size_um = 0.5",
                "[search]",
                "range_um = 120.0",
                "coarse_step_um = 8.0",
            ]
        ),
        encoding="utf-8",
    )
    return path


def autofocus(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [*AUTOFOCUS, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def run_here(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    """Run the command in this process, which is quicker: (exit code, stdout, stderr)."""
    on_terminate = signal.getsignal(signal.SIGTERM)

    def run(*arguments: object) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["autofocus", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main()
        return exit_.value.code, *capfd.readouterr()

    yield run
    signal.signal(signal.SIGTERM, on_terminate)


def test_focus_locks_and_prints_nothing_but_json(rig_file: Path) -> None:
    ended = autofocus("focus", "--config", rig_file, "--start-z-um", "33.7", "--json", *NEAR)

    assert ended.returncode == 0, ended.stderr
    run = json.loads(ended.stdout)
    assert run["locked"] is True
    assert abs(run["final_z_um"]) <= 0.5
    assert run["start_z_um"] == pytest.approx(33.7)
    assert run["scorer"] == "tenengrad"
    assert run["curve"][0]["purpose"] == "start"
    assert ended.stderr == ""
    assert (rig_file.parent / "runs" / run["run_id"] / "report.json").is_file()


def test_focus_tells_a_person_what_it_used_and_found(rig_file: Path) -> None:
    ended = autofocus("focus", "--config", rig_file, "--start-z-um", "12", *NEAR)

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == ""
    assert "tenengrad" in ended.stderr
    assert "camera Camera" in ended.stderr
    assert "locked" in ended.stderr


def test_focus_ends_with_1_for_any_other_verdict(run_here, rig_file: Path) -> None:
    code, out, _ = run_here(
        *("focus", "--config", rig_file, "--start-z-um", "80", "--json"),
        *("--z-min-um", "60", "--z-max-um", "100", "--max-extensions", "0"),
    )

    assert code == 1
    run = json.loads(out)
    assert run["verdict"] in ("edge", "flat")
    assert run["final_z_um"] == pytest.approx(80.0)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--range-um", "nan"], "--range-um"),
        (["--range-um", "-3"], "--range-um"),
        (["--exposure-ms", "ten"], "--exposure-ms"),
        (["--on-failure", "shrug"], "--on-failure"),
        (["--roi", "0", "0", "0", "9"], "--roi"),
        (["--start-z-um", "400"], "250"),
        (["--z-max-um", "400"], "z_max_um = 400"),
        (["--range-um", "5", "--range-dof", "5"], "not both"),
        (["--scorer", "clairvoyance"], "clairvoyance"),
        (["--strategy", "clairvoyance"], "clairvoyance"),
        (["--channel", "Infrared"], "Infrared"),
    ],
)
def test_focus_ends_with_2_when_it_cannot_be_done(
    run_here, rig_file: Path, arguments: list[str], says: str
) -> None:
    code, out, err = run_here("focus", "--config", rig_file, "--json", *arguments)

    assert code == 2
    assert out == ""
    assert says in err


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("Camera,Camera\n", "Camera,Cam\n", ["line", "Property,Core,Camera,Cam"]),
        ("Core,Focus,Z", "Core,Focus,Q", ["line", "Property,Core,Focus,Q"]),
        ("DemoCamera,DStage", "DemoCamera,DNothing", ["line", "Z", "DNothing"]),
    ],
    ids=["camera", "focus device", "device"],
)
@pytest.mark.parametrize("command", ["serve", "focus", "plan"])
def test_says_which_line_and_device_of_the_cfg_is_wrong(
    run_here, tmp_path: Path, command: str, old: str, new: str, says: list[str]
) -> None:
    text = (builtin_configs() / "demo.cfg").read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "bad.cfg").write_text(text.replace(old, new), encoding="utf-8")

    code, out, err = run_here(command, "--config", write_rig(tmp_path, tmp_path / "bad.cfg"))

    assert code == 2
    assert out == ""
    for part in ["bad.cfg", *says]:
        assert part in err


def test_says_which_device_fails_to_initialize(
    run_here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent / "devices")
    (tmp_path / "bad.cfg").write_text(
        "Device,DHub,DemoCamera,DHub\n"
        "Device,Camera,DemoCamera,DCam\n"
        "#py pyDevice,Z,scripted_stage,ScriptedStage\n"
        "#py Property,Z,Fault,initialize\n"
        "Property,Core,Initialize,1\n"
        "Property,Core,Camera,Camera\n"
        "#py Property,Core,Focus,Z\n",
        encoding="utf-8",
    )

    code, _, err = run_here("serve", "--config", write_rig(tmp_path, tmp_path / "bad.cfg"))

    assert code == 2
    assert "line 3" in err
    assert "'Z'" in err
    assert "did not initialize" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"camera": "Nikon"}, "Nikon"),
        ({"focus_device": "PFS"}, "PFS"),
        ({"z_min_um": 300.0}, "z_min_um"),
        ({"speed": 3}, "speed"),
        ({"simulated": False}, "towards_specimen"),
    ],
)
def test_says_which_key_of_the_rig_file_is_wrong(
    run_here, tmp_path: Path, arguments: dict[str, object], says: str
) -> None:
    code, _, err = run_here("serve", "--config", write_rig(tmp_path, **arguments))

    assert code == 2
    assert says in err


def test_a_rig_file_that_is_not_there_is_a_bad_configuration(run_here, tmp_path: Path) -> None:
    code, _, err = run_here("focus", "--config", tmp_path / "none.toml")

    assert code == 2
    assert "none.toml" in err


def test_focuses_in_a_recorded_stack(run_here, tmp_path: Path) -> None:
    stack = record(tmp_path / "stack.tif", EVEN_UM, 15)
    rig_file = write_rig(tmp_path)
    replay = ("--replay", stack, "--z-step", "0.5", "--start-z-um", "2", "--json")

    code, out, err = run_here("focus", "--config", rig_file, *replay)

    assert code == 0, err + out
    assert json.loads(out)["final_z_um"] == pytest.approx(7.5)
    assert run_here("focus", "--replay", stack)[0] == 2
    assert run_here("focus", "--replay", stack, "--z-positions", "0 1 x")[0] == 2


def test_plan_lists_positions_and_focuses_nothing(run_here, rig_file: Path) -> None:
    code, out, _ = run_here("plan", "--config", rig_file, "--json", "--start-z-um", "5", *NEAR)

    plan = json.loads(out)
    assert code == 0
    assert min(plan["z_um"]) >= -40
    assert max(plan["z_um"]) <= 40
    assert plan["worst_case_exposures"] > len(plan["z_um"])
    assert not (rig_file.parent / "runs").exists()
    assert "at most" in run_here("plan", "--config", rig_file)[1]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", ""])
def test_serve_refuses_other_machines_without_a_token(
    run_here, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.delenv("AUTOFOCUS_TOKEN", raising=False)

    code, _, err = run_here("serve", "--host", host)

    assert code == 2
    assert "--token" in err


def test_serve_ends_with_2_when_the_port_is_taken(run_here, rig_file: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, _, _ = run_here("serve", "--config", rig_file, "--port", taken.getsockname()[1])

    assert code == 2


@needs_sigint
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_stopping_focus_puts_the_stage_back_and_says_aborted(rig_file: Path, how: int) -> None:
    command = ["focus", "--config", rig_file, "--start-z-um", "12", "--exposure-ms", "500"]
    process = subprocess.Popen(
        [*AUTOFOCUS, *map(str, command), "--json", *NEAR],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=_ignore_sigint,
    )
    first_reading = _first_reading(rig_file.parent / "runs", process)

    process.send_signal(how)
    out, _ = process.communicate(timeout=60)

    run = json.loads(out)
    assert first_reading
    assert process.returncode == 1
    assert run["verdict"] == "aborted"
    assert run["final_z_um"] == pytest.approx(12.0)


@needs_sigint
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_serve_answers_until_it_is_stopped_and_then_ends_with_0(rig_file: Path, how: int) -> None:
    with _serving("--config", rig_file) as (process, url, told):
        assert "tenengrad" in told
        assert httpx.get(f"{url}/health").json()["ready"] is True
        request = {"wait": False, "exposure_ms": 500.0, "z_min_um": -40.0, "z_max_um": 40.0}
        run = httpx.post(f"{url}/autofocus", json=request).json()

        process.send_signal(how)

        assert process.wait(timeout=60) == 0
    report = rig_file.parent / "runs" / run["run_id"] / "report.json"
    assert json.loads(report.read_text(encoding="utf-8"))["result"]["verdict"] == "aborted"


def test_serve_takes_its_token_from_the_environment(rig_file: Path) -> None:
    environment = {**os.environ, "AUTOFOCUS_TOKEN": "s3cret"}
    with _serving("--config", rig_file, env=environment) as (_, url, _):
        assert httpx.get(f"{url}/microscope").status_code == 401
        headers = {"authorization": "Bearer s3cret"}
        assert httpx.get(f"{url}/microscope", headers=headers).status_code == 200


class _serving:  # noqa: N801 - used as a with statement
    """A daemon of its own process: (process, url, what it told on start)."""

    def __init__(self, *arguments: object, env: dict[str, str] | None = None) -> None:
        command = [*AUTOFOCUS, "serve", "--port", "0", *map(str, arguments)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env)

    def __enter__(self) -> tuple[subprocess.Popen[str], str, str]:
        told = ""
        for line in self._lines():
            told += line
            if found := re.search(r"(http://\S+)/docs", line):
                return self.process, found[1], told
        raise AssertionError(f"it ended: {told}")

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.communicate(timeout=60)

    def _lines(self) -> Iterator[str]:
        assert self.process.stderr
        return iter(self.process.stderr)


def _ignore_sigint() -> None:
    """As a shell without job control starts its background jobs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _first_reading(runs: Path, process: subprocess.Popen[str]) -> bool:
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        for curve in runs.glob("*/curve.csv"):
            if len(curve.read_text(encoding="utf-8").splitlines()) > 1:
                return True
        time.sleep(0.02)
    return False


def test_calibrate_keeps_what_it_measured_and_ends_with_1_without_a_peak(
    run_here, rig_file: Path
) -> None:
    small = ("--step-um", "1", "--exposure-ms", "1", "--roi", "192", "192", "128", "128")
    folder = rig_file.parent / "calibrations"
    rig_file.write_text(
        f"calibrations_dir = {json.dumps(folder.as_posix())}\n{rig_file.read_text('utf-8')}",
        encoding="utf-8",
    )
    near = ("calibrate", "--config", rig_file, "--half-range-um", "16", *small)

    code, out, err = run_here(*near, "--start-z-um", "2", "--json")
    refused, _, why = run_here(*near, "--start-z-um", "17")

    assert code in (0, None), err
    found = json.loads(out)
    assert abs(found["z_um"]) < 0.5
    assert (folder / found["calibration_id"] / "report.png").is_file()
    assert refused == 1
    assert "end of the range" in why
