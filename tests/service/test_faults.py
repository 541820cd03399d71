"""Hardware that fails: an error with a name, a run that says so, a service that lives on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from demo_service import assert_problem, demo_rig, serving

CFG = """\
Property,Core,Initialize,0
Device,Camera,DemoCamera,DCam
#py pyDevice,Z,scripted_stage,ScriptedStage
Property,Core,Initialize,1
Property,Core,Camera,Camera
#py Property,Core,Focus,Z
#py Property,Z,Fault,{fault}
"""


@pytest.fixture(autouse=True)
def _scripted_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "devices")


@contextmanager
def failing(tmp_path: Path, fault: str) -> Iterator[httpx.Client]:
    (tmp_path / "rig.cfg").write_text(CFG.format(fault=fault), encoding="utf-8")
    rig = demo_rig(tmp_path / "runs")
    microscope = replace(rig.microscope, config=tmp_path / "rig.cfg", timeout_ms=300.0)
    with serving(replace(rig, microscope=microscope)) as client:
        yield client


@pytest.mark.parametrize(
    ("fault", "status", "kind"),
    [
        ("refuse", 503, "device-fault"),
        ("stick", 504, "device-timeout"),
    ],
)
def test_a_stage_that_fails_is_a_fault_and_not_a_verdict(
    tmp_path: Path, fault: str, status: int, kind: str
) -> None:
    with failing(tmp_path, fault) as client:
        assert_problem(client.post("/stage", json={"z_um": 5.0}), status, kind)
        refused = client.post("/autofocus", json={"range_um": 40.0})
        assert refused.status_code in (503, 504)
        (run,) = client.get("/runs").json()["runs"]
        whole = client.get(run["links"]["self"]).json()
        report = client.get(run["links"]["report"]).json()

        assert whole["status"] == "failed"
        assert whole["locked"] is False
        assert whole["verdict"] is None
        assert whole["error"]
        assert report["error"] == whole["error"]
        assert client.get("/runs").json()["running"] is None
        assert client.get("/health").status_code == 200


def test_followers_of_a_run_that_fails_are_told(tmp_path: Path) -> None:
    with failing(tmp_path, "stick") as client:
        run = client.post("/autofocus", json={"range_um": 40.0, "wait": False}).json()

        events = client.get(run["links"]["events"]).text

        assert events.split("\n\n")[-2].startswith("event: done")
        assert '"status":"failed"' in events


def test_a_disk_that_cannot_be_written_frees_the_microscope(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where the folder should be")
    with serving(demo_rig(tmp_path / "runs")) as client:
        for _ in range(2):
            assert_problem(client.post("/autofocus", json={}), 507, "storage")
        assert client.post("/stage", json={"z_um": 1.0}).status_code == 200
