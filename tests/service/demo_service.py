"""A real service on a real core: Micro-Manager's demo devices behind a real web server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from autofocus.config import Rig, load_rig
from autofocus.runs import RunStore
from autofocus.scorers import scorers_of
from autofocus.service.app import create_app
from autofocus.service.server import Server
from devices import Microscope

# Small enough to be quick, and the in-focus plane is well inside.
NEAR = {"z_min_um": -40.0, "z_max_um": 40.0}
START_UM = 8.5


def demo_rig(runs_dir: Path) -> Rig:
    return replace(
        load_rig(),
        runs_dir=runs_dir,
        stacks_dir=runs_dir / "stacks",
        models_dir=runs_dir / "models",
        calibrations_dir=runs_dir / "calibrations",
        scorer="tenengrad",
    )


@contextmanager
def serving(rig: Rig, **options: Any) -> Iterator[httpx.Client]:
    """Serve the rig on a free loopback port; ends with the core unloaded.

    Options are those of `create_app`.
    """
    microscope = Microscope.open(rig.microscope)
    service = create_app(rig, microscope, scorers_of(rig), RunStore(rig.runs_dir), **options)
    urls: list[str] = []
    server = Server(service, host="127.0.0.1", port=0, on_listening=urls.append)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: bool(urls) or not thread.is_alive())
        with httpx.Client(base_url=urls[0], timeout=60) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(timeout=30)
        service.state.conductor.close()
    assert not thread.is_alive()


def wait_until(condition: Callable[[], bool], *, timeout_s: float = 20.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"not so after {timeout_s} s"
        time.sleep(0.01)


def begin_long_run(client: httpx.Client, *, exposure_ms: float = 2000.0) -> str:
    """Begin a run whose camera is busy nearly always; returns its id during an exposure."""
    request = {"wait": False, "exposure_ms": exposure_ms, **NEAR}
    answer = client.post("/autofocus", json=request)
    assert answer.status_code == 202, answer.text
    wait_until(lambda: client.get("/microscope").json()["exposure_ms"] == exposure_ms)
    time.sleep(0.3)
    return str(answer.json()["run_id"])


def when_over(client: httpx.Client, run_id: str) -> dict:
    wait_until(lambda: client.get(f"/runs/{run_id}").json()["status"] != "running")
    return client.get(f"/runs/{run_id}").json()


def assert_problem(answer: httpx.Response, status: int, kind: str) -> dict:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == f"urn:reiqa-autofocus:problem:{kind}"
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert problem["instance"] == answer.request.url.path
    return problem
