"""POST /stacks, the stacks it leaves behind, and their labels."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import httpx
import numpy as np
import pytest
import tifffile
from demo_service import (
    assert_problem,
    begin_long_run,
    demo_rig,
    serving,
    wait_until,
    when_over,
)
from PIL import Image

from devices.replay.stack import load_stack

SMALL = {
    "half_range_um": 6.0,
    "step_um": 1.0,
    "roi": {"x": 128, "y": 128, "width": 256, "height": 256},
}


@pytest.fixture
def at_two(shared_client: httpx.Client) -> httpx.Client:
    assert shared_client.post("/stage", json={"z_um": 2.0}).status_code == 200
    return shared_client


def test_takes_planes_around_here_and_puts_everything_back(at_two: httpx.Client) -> None:
    before = at_two.get("/microscope").json()

    stack = at_two.post("/stacks", json={**SMALL, "exposure_ms": 5.0}).json()

    assert stack["status"] == "done"
    assert stack["z_um"] == pytest.approx(np.arange(-4.0, 8.5, 1.0))
    assert stack["planes"] == stack["exposures"] == 13
    assert stack["exposure_ms"] == 5.0
    assert stack["dose_ms"] == pytest.approx(65.0)
    assert stack["label"] is None
    after = at_two.get("/microscope").json()
    for what in ("z_um", "exposure_ms", "roi", "binning", "channel", "halted", "busy"):
        assert after[what] == before[what], what
    assert at_two.get(f"/stacks/{stack['stack_id']}").json() == stack
    assert at_two.get("/stacks").json()["stacks"][0] == stack


def test_the_ome_tiff_tells_where_and_how_every_plane_was_taken(at_two: httpx.Client) -> None:
    stack = at_two.post("/stacks", json={**SMALL, "binning": 2, "roi": None}).json()

    loaded = load_stack(Path(stack["path"]))
    with tifffile.TiffFile(stack["path"]) as tiff:
        series = tiff.series[0]
        xml = ElementTree.fromstring(tiff.ome_metadata or "")
    record = json.loads((Path(stack["path"]).parent / "stack.json").read_text(encoding="utf-8"))

    assert (series.axes, len(series)) == ("ZYX", 13)
    assert loaded.z_um == pytest.approx(stack["z_um"])
    # The demo is in focus at 0, plane 4, and blurs alike on both sides of it.
    assert np.array_equal(loaded.planes[3], loaded.planes[5])
    assert not np.array_equal(loaded.planes[3], loaded.planes[6])
    pixels = xml.find(".//{*}Pixels")
    assert pixels is not None
    assert float(pixels.get("PhysicalSizeX", "0")) == pytest.approx(0.65)
    assert pixels.get("PhysicalSizeYUnit") == "µm"
    planes = pixels.findall("{*}Plane")
    assert {plane.get("ExposureTime") for plane in planes} == {"10.0"}
    assert {plane.get("ExposureTimeUnit") for plane in planes} == {"ms"}
    assert record["binning"] == 2
    assert record["channel"] == stack["channel"]
    assert "objective" in record


def test_ranges_may_be_in_depths_of_field(at_two: httpx.Client) -> None:
    dof_um = at_two.get("/microscope").json()["dof_um"]

    body = {**SMALL, "half_range_um": None, "step_um": None, "half_range_dof": 2, "step_dof": 1}
    stack = at_two.post("/stacks", json=body).json()

    assert stack["z_um"] == pytest.approx([2 + k * dof_um for k in range(-2, 3)], abs=0.01)


def test_a_plane_can_be_looked_at(at_two: httpx.Client) -> None:
    stack = at_two.post("/stacks", json=SMALL).json()
    base = f"/stacks/{stack['stack_id']}/planes"

    picture = Image.open(io.BytesIO(at_two.get(f"{base}/4.png").content))

    assert (picture.format, picture.size) == ("PNG", (256, 256))
    assert_problem(at_two.get(f"{base}/13.png"), 404, "stack-not-found")
    assert_problem(at_two.get(f"{base}/-1.png"), 404, "stack-not-found")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"half_range_um": 300.0, "step_um": 20.0}, "refused-by-rig"),
        ({"half_range_um": 160.0, "step_um": 20.0}, "refused-by-rig"),  # beyond max_towards_um
        ({"half_range_um": 10.0, "step_um": 0.01}, "refused-by-rig"),
        ({"half_range_um": 1.0, "step_um": 2.0}, "refused-by-rig"),
        ({"half_range_um": 5.0, "half_range_dof": 5.0}, "refused-by-rig"),
        ({"step_um": 1.0, "step_dof": 1.0}, "refused-by-rig"),
        ({"channel": "octarine"}, "setting-refused"),
        ({"half_range_um": -1.0}, "invalid-request"),
        ({"step_um": 0.0}, "invalid-request"),
        ({"steps": 3}, "invalid-request"),
    ],
)
def test_refuses_what_this_rig_must_not_do_before_anything_moves(
    at_two: httpx.Client, body: dict, kind: str
) -> None:
    done = _done(at_two)

    assert_problem(at_two.post("/stacks", json=body), 422, kind)

    assert at_two.get("/stage").json()["z_um"] == pytest.approx(2.0)
    assert _done(at_two) == done
    assert at_two.post("/stage", json={"z_um": 2.0}).status_code == 200


def test_a_stop_ends_it_and_leaves_no_stack(client: httpx.Client) -> None:
    client.post("/stage", json={"z_um": 8.5})
    begun = _begin_long_stack(client)

    client.post("/stop")
    wait_until(lambda: client.get("/stacks").json()["running"] is None)
    over = client.get(f"/stacks/{begun}").json()
    state = client.get("/microscope").json()

    assert over["status"] == "failed"
    assert over["path"] is None
    assert "stopped" in over["error"]
    assert over["exposures"] <= 2
    assert state["z_um"] == pytest.approx(8.5)
    assert state["exposure_ms"] == pytest.approx(10.0)
    label = client.put(f"/stacks/{begun}/label", json={"z_um": 8.5})
    assert_problem(label, 404, "stack-not-found")
    assert_problem(client.get(f"/stacks/{begun}/planes/0.png"), 404, "stack-not-found")


def test_one_thing_at_a_time(client: httpx.Client) -> None:
    begun = _begin_long_stack(client)
    for path, body in (
        ("/stacks", SMALL),
        ("/autofocus", {}),
        ("/stage", {"z_um": 1.0}),
        ("/snap", {}),
    ):
        problem = assert_problem(client.post(path, json=body), 409, "busy")
        assert problem["stack_id"] == begun
    client.post("/stop")
    wait_until(lambda: client.get("/stacks").json()["running"] is None)

    run_id = begin_long_run(client)
    problem = assert_problem(client.post("/stacks", json=SMALL), 409, "busy")
    assert problem["run_id"] == run_id
    client.post("/stop")
    when_over(client, run_id)


def test_a_stack_whose_process_died_is_not_taken_for_one(tmp_path: Path) -> None:
    rig = demo_rig(tmp_path)
    with serving(rig) as client:
        stack = client.post("/stacks", json=SMALL).json()
    record = Path(stack["path"]).parent / "stack.json"
    text = record.read_text(encoding="utf-8")
    record.write_text(text.replace('"done"', '"running"'), encoding="utf-8")
    with serving(rig) as client:
        (found,) = client.get("/stacks").json()["stacks"]

        assert found["status"] == "interrupted"
        assert found["path"] is None
        answer = client.put(f"/stacks/{stack['stack_id']}/label", json={"teacher": True})
        assert_problem(answer, 404, "stack-not-found")


def test_approaches_every_plane_from_the_far_side(tmp_path: Path) -> None:
    rig = demo_rig(tmp_path)
    microscope = replace(rig.microscope, towards_specimen="-", backlash_um=3.0)
    with serving(replace(rig, microscope=microscope)) as client:
        taken = _begin_long_stack(client)
        wait_until(lambda: client.get(f"/stacks/{taken}").json()["exposures"] >= 2)
        first, second = client.get(f"/stacks/{taken}").json()["z_um"][:2]
        client.post("/stop")

    assert first == pytest.approx(6.0)
    assert second == pytest.approx(5.0)


def test_a_disk_that_cannot_be_written_frees_the_microscope(tmp_path: Path) -> None:
    (tmp_path / "stacks").write_text("a file where the folder should be")
    with serving(demo_rig(tmp_path)) as client:
        for _ in range(2):
            assert_problem(client.post("/stacks", json=SMALL), 507, "storage")
        assert client.post("/stage", json={"z_um": 1.0}).status_code == 200


def test_a_person_labels_a_stack(at_two: httpx.Client) -> None:
    stack_id = at_two.post("/stacks", json=SMALL).json()["stack_id"]
    path = f"/stacks/{stack_id}/label"

    answer = at_two.put(path, json={"z_um": 0.3}).json()

    assert answer["labelled"] is True
    assert at_two.get(f"/stacks/{stack_id}").json()["label"] == answer["label"]
    assert (answer["label"]["z_um"], answer["label"]["by"]) == (0.3, "person")
    assert_problem(at_two.put(path, json={"z_um": 9.0}), 422, "refused-by-rig")
    for body in ({}, {"z_um": 1.0, "teacher": True}, {"teacher": False}, {"z_um": "1"}):
        assert_problem(at_two.put(path, json=body), 422, "invalid-request")
    assert at_two.get(f"/stacks/{stack_id}").json()["label"]["z_um"] == 0.3


def test_teachers_label_a_stack_and_say_how_well_they_agree(at_two: httpx.Client) -> None:
    stack_id = at_two.post("/stacks", json=SMALL).json()["stack_id"]

    answer = at_two.put(f"/stacks/{stack_id}/label", json={"teacher": True}).json()

    assert answer["labelled"] is True
    assert abs(answer["label"]["z_um"]) <= 0.5
    assert answer["label"]["by"] == "teacher"
    assert answer["agreement"] == answer["label"]["agreement"] >= 2 / 3
    assert len(answer["votes"]) >= 6


def test_teachers_that_see_no_peak_leave_a_stack_unlabelled_and_say_so(
    shared_client: httpx.Client,
) -> None:
    shared_client.post("/stage", json={"z_um": 40.0})
    stack_id = shared_client.post("/stacks", json=SMALL).json()["stack_id"]

    answer = shared_client.put(f"/stacks/{stack_id}/label", json={"teacher": True}).json()

    assert answer["labelled"] is False
    assert "edge" in answer["reason"] or "disagree" in answer["reason"]
    assert answer["label"] is None
    assert shared_client.get(f"/stacks/{stack_id}").json()["label"] is None


def test_an_unknown_stack_is_a_404_whatever_its_name(shared_client: httpx.Client) -> None:
    for name in ("20200101-000000-000000", "%2e%2e%2fetc", "x" * 300):
        for path in (f"/stacks/{name}", f"/stacks/{name}/planes/0.png"):
            assert shared_client.get(path).status_code == 404
        answer = shared_client.put(f"/stacks/{name}/label", json={"teacher": True})
        assert answer.status_code == 404
    assert_problem(shared_client.get("/stacks/nonsense"), 404, "stack-not-found")


def _begin_long_stack(client: httpx.Client) -> str:
    """Begin a stack that is busy for long; returns during its second exposure or later."""
    body = {"half_range_um": 6.0, "step_um": 1.0, "exposure_ms": 700.0, "wait": False}
    answer = client.post("/stacks", json=body)
    assert answer.status_code == 202, answer.text
    stack_id = answer.json()["stack_id"]
    assert answer.headers["location"] == f"/stacks/{stack_id}"
    wait_until(lambda: client.get(f"/stacks/{stack_id}").json()["exposures"] >= 1)
    return str(stack_id)


def _done(client: httpx.Client) -> list[str]:
    stacks = client.get("/stacks").json()["stacks"]
    return [stack["stack_id"] for stack in stacks if stack["status"] == "done"]
