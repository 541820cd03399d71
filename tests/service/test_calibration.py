"""POST /calibration, what it leaves behind, and what it refuses."""

from __future__ import annotations

import io
import json
from pathlib import Path

import httpx
import pytest
from demo_service import (
    assert_problem,
    begin_long_run,
    demo_rig,
    serving,
    wait_until,
    when_over,
)
from PIL import Image

SMALL = {
    "half_range_um": 16.0,
    "step_um": 1.0,
    "exposure_ms": 1.0,
    "roi": {"x": 192, "y": 192, "width": 128, "height": 128},
}


def test_measures_keeps_and_puts_everything_back(tmp_path: Path) -> None:
    with serving(demo_rig(tmp_path)) as client:
        client.post("/stage", json={"z_um": 2.0})
        before = client.get("/microscope").json()

        answer = client.post("/calibration", json=SMALL)
        found = answer.json()
        after = client.get("/microscope").json()
        listed = client.get("/calibration").json()
        shown = client.get(f"/calibration/{found['calibration_id']}").json()
        picture = Image.open(io.BytesIO(client.get(found["report"]).content))
    with serving(demo_rig(tmp_path)) as client:
        again = client.get("/calibration").json()

    assert answer.status_code == 200, answer.text
    for name in ("z_um", "exposure_ms", "roi", "binning", "channel"):
        assert after[name] == before[name], name
    assert found["status"] == "done"
    assert abs(found["z_um"]) < 0.5  # where the demo is in focus
    assert abs(found["backlash_um"]) < 0.5
    assert found["scorer"] == "tenengrad"
    assert found["dose_ms"] == pytest.approx(found["exposures"])
    assert len(found["defocus_um"]) == len(found["score"]) >= 30
    assert shown == found
    assert (listed["calibrations"], listed["total"]) == ([found], 1)
    assert listed["last"]["status"] == "done"
    assert again == {"calibrations": [found], "total": 1, "last": None}
    assert (picture.format, picture.size) == ("PNG", (1440, 1080))
    (kept,) = (tmp_path / "calibrations").glob("*/calibration.json")
    assert json.loads(kept.read_text(encoding="utf-8"))["towards"]


def test_one_thing_at_a_time_and_a_stop_puts_everything_back(client: httpx.Client) -> None:
    client.post("/stage", json={"z_um": 3.0})
    body = {**SMALL, "exposure_ms": 300.0, "wait": False}
    begun = client.post("/calibration", json=body)
    assert begun.status_code == 202
    calibration_id = begun.json()["calibration_id"]
    where = begun.headers["location"]
    wait_until(lambda: client.get(where).json()["exposures"] >= 2)

    for path, other in (
        ("/calibration", SMALL),
        ("/autofocus", {}),
        ("/stacks", {}),
        ("/snap", {}),
    ):
        problem = assert_problem(client.post(path, json=other), 409, "busy")
        assert problem["calibration_id"] == calibration_id
    assert client.get(where).json()["status"] == "running"
    assert client.post("/stop").status_code == 200
    wait_until(lambda: client.get(where).json()["status"] == "failed")
    state = client.get("/microscope").json()

    assert "stopped" in client.get(where).json()["error"]
    assert client.get("/calibration").json()["calibrations"] == []
    assert state["z_um"] == pytest.approx(3.0)
    assert state["exposure_ms"] == pytest.approx(10.0)

    run_id = begin_long_run(client)
    problem = assert_problem(client.post("/calibration", json=SMALL), 409, "busy")
    assert problem["run_id"] == run_id
    client.post("/stop")
    when_over(client, run_id)


def test_without_a_proven_peak_nothing_is_kept(client: httpx.Client) -> None:
    client.post("/stage", json={"z_um": 17.0})

    problem = assert_problem(client.post("/calibration", json=SMALL), 409, "no-focus-curve")

    assert "end of the range" in problem["detail"]
    assert client.get("/stage").json()["z_um"] == pytest.approx(17.0)
    assert client.get("/calibration").json()["total"] == 0
    assert client.get("/calibration").json()["last"]["error"] == problem["detail"]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"half_range_um": 300.0}, "refused-by-rig"),
        ({"half_range_um": 160.0}, "refused-by-rig"),  # beyond max_towards_um
        ({"step_dof": 1.5}, "refused-by-rig"),
        ({"half_range_um": 5.0, "half_range_dof": 5.0}, "refused-by-rig"),
        ({"scorer": "hope"}, "unknown-scorer"),
        ({"step_um": -1.0}, "invalid-request"),
        ({"steps": 3}, "invalid-request"),
    ],
)
def test_refuses_what_this_rig_must_not_do_before_anything_moves(
    shared_client: httpx.Client, body: dict, kind: str
) -> None:
    shared_client.post("/stage", json={"z_um": 2.0})

    assert_problem(shared_client.post("/calibration", json=body), 422, kind)

    assert shared_client.get("/stage").json()["z_um"] == pytest.approx(2.0)
    assert shared_client.post("/stage", json={"z_um": 2.0}).status_code == 200


def test_a_disk_that_cannot_be_written_is_noticed_before_anything_is_exposed(
    tmp_path: Path,
) -> None:
    (tmp_path / "calibrations").write_text("a file where the folder should be")
    with serving(demo_rig(tmp_path)) as client:
        assert_problem(client.post("/calibration", json=SMALL), 507, "storage")
        assert client.get("/calibration").json()["last"] is None
        assert client.post("/stage", json={"z_um": 1.0}).status_code == 200


def test_an_unknown_calibration_is_a_404(shared_client: httpx.Client) -> None:
    for path in ("/calibration/nonsense", "/calibration/20200101-000000-000000/report.png"):
        assert_problem(shared_client.get(path), 404, "calibration-not-found")
