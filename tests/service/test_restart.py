"""Runs outlive the service."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from demo_service import NEAR, begin_long_run, demo_rig, serving

from autofocus.client import Client, ServiceError


def test_runs_survive_a_restart(tmp_path: Path) -> None:
    rig = demo_rig(tmp_path)
    with serving(rig) as client:
        first = client.post("/autofocus", json=NEAR).json()
        second = client.post("/autofocus", json=NEAR).json()

    with serving(rig) as client:
        history = client.get("/runs").json()
        assert [run["run_id"] for run in history["runs"]] == [second["run_id"], first["run_id"]]
        assert history["total"] == 2
        assert client.get("/runs", params={"limit": 1}).json()["runs"] == history["runs"][:1]
        assert client.get(f"/runs/{first['run_id']}").json() == first
        assert client.get(first["links"]["curve_png"]).content.startswith(b"\x89PNG")


def test_ending_the_service_in_mid_run_aborts_it_and_puts_everything_back(tmp_path: Path) -> None:
    rig = demo_rig(tmp_path)
    with serving(rig) as client:
        run_id = begin_long_run(client, exposure_ms=500.0)

    with serving(rig) as client:
        run = client.get(f"/runs/{run_id}").json()
        assert run["status"] == "done"
        assert run["verdict"] == "aborted"
        assert run["final_z_um"] == run["start_z_um"]


def test_the_client_speaks_the_same_language(client: httpx.Client) -> None:
    with Client(str(client.base_url)) as microscope:
        assert microscope.move_to(6.0) == 6.0
        assert microscope.plan(**NEAR).worst_case_exposures > 0
        run = microscope.autofocus(**NEAR)
        assert run.locked
        assert microscope.run(run.run_id) == run
        assert abs(microscope.stage().z_um) <= 0.5
        assert microscope.abort(run.run_id).state == "finished"
        assert microscope.stop().state == "stopped"
        assert microscope.microscope().halted
        with pytest.raises(ServiceError, match="outside") as refused:
            microscope.move_to(1e6)
        assert refused.value.problem.status == 422
