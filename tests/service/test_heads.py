"""POST /heads on the stacks of this instrument, and PUT /heads/active."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from compact_models import install
from demo_service import (
    NEAR,
    assert_problem,
    begin_long_run,
    demo_rig,
    serving,
    wait_until,
    when_over,
)
from PIL import Image

from autofocus.config import Rig

STACK = {
    "half_range_um": 5.0,
    "step_um": 1.0,
    "roi": {"x": 128, "y": 128, "width": 256, "height": 256},
}
TWO_FRAMES = {**NEAR, "max_exposures": 2}


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Rig:
    folder = tmp_path_factory.mktemp("heads")
    install(folder / "models")
    return replace(demo_rig(folder), scorer="reiqa-compact")


@pytest.fixture(scope="module")
def client(rig: Rig) -> Iterator[httpx.Client]:
    """Three labelled stacks, and a head `beads` fitted on them."""
    with serving(rig) as client:
        for z_um in (-1.0, 0.0, 1.5):
            take_and_label(client, z_um)
        answer = client.post("/heads", json={"name": "beads"})
        assert answer.status_code == 202, answer.text
        assert answer.headers["location"] == "/heads/beads"
        when_fitted(client, "beads")
        yield client


def take_and_label(client: httpx.Client, z_um: float) -> str:
    client.post("/stage", json={"z_um": z_um})
    stack_id = str(client.post("/stacks", json=STACK).json()["stack_id"])
    assert client.put(f"/stacks/{stack_id}/label", json={"z_um": 0.0}).is_success
    return stack_id


def when_fitted(client: httpx.Client, name: str) -> dict:
    wait_until(lambda: client.get(f"/heads/{name}").json()["status"] != "fitting", timeout_s=240)
    return client.get(f"/heads/{name}").json()


def test_the_report_judges_every_stack_by_a_head_that_has_not_seen_it(
    client: httpx.Client, rig: Rig
) -> None:
    head = client.get("/heads/beads").json()
    labelled = sorted(s["stack_id"] for s in client.get("/stacks").json()["stacks"] if s["label"])

    assert head["status"] == "ready"
    assert head["active"] is False
    assert head["title"].startswith("beads@")
    assert head["stacks"] == labelled
    report = head["report"]
    assert report["frames"] == 33
    assert report["leave_one_stack_out"]["stacks"] == 3
    assert report["before"]["head"].startswith("test@")
    assert report["before"]["leave_one_stack_out"]["stacks"] == 3
    assert [each["stack"] for each in report["per_stack"]] == labelled
    errors = [each["error_um"] for each in report["per_stack"]]
    assert report["leave_one_stack_out"]["error_um"]["mean"] == pytest.approx(sum(errors) / 3)
    assert (rig.models_dir / "compact" / "heads" / "beads" / "manifest.json").is_file()
    assert not (rig.models_dir / "compact" / "fitting" / "beads").exists()
    picture = Image.open(io.BytesIO(client.get("/heads/beads/report.png").content))
    assert picture.format == "PNG"


def test_all_heads_are_listed_and_one_is_in_use(client: httpx.Client) -> None:
    listed = client.get("/heads").json()

    assert {"default", "beads"} <= {head["name"] for head in listed["heads"]}
    assert [head["name"] for head in listed["heads"] if head["active"]] == [listed["active"]]


def test_an_activated_head_scores_the_next_run_also_after_a_restart(
    client: httpx.Client, rig: Rig
) -> None:
    title = client.get("/heads/beads").json()["title"]
    assert client.post("/autofocus", json=TWO_FRAMES).json()["head"].startswith("test@")

    answer = client.put("/heads/active", json={"name": "beads"})

    assert answer.json() == {
        "name": "beads",
        "previous": "default",
        "used_by_next_run": True,
        "note": None,
    }
    assert client.get("/heads/beads").json()["active"] is True
    assert client.post("/autofocus", json=TWO_FRAMES).json()["head"] == title
    with serving(rig) as restarted:
        assert restarted.get("/heads").json()["active"] == "beads"
        assert restarted.post("/autofocus", json=TWO_FRAMES).json()["head"] == title
    previous = client.get("/heads").json()["previous"]
    assert client.put("/heads/active", json={"name": previous}).json()["previous"] == "beads"
    assert client.post("/autofocus", json=TWO_FRAMES).json()["head"].startswith("test@")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: m.update(quality_sha256="0" * 64), "quality_sha256"),
        (lambda m: m["settings"].update(layout="published"), "published layout"),
        (lambda m: m.update(head_sha256="0" * 64), "is not opened"),
        (lambda m: m.pop("settings"), "not the manifest"),
    ],
)
def test_a_head_that_does_not_belong_here_is_refused_with_the_reason(
    client: httpx.Client, rig: Rig, change, reason: str
) -> None:
    heads = rig.models_dir / "compact" / "heads"
    shutil.copytree(heads / "beads", heads / "foreign")
    try:
        path = heads / "foreign" / "manifest.json"
        manifest = json.loads(path.read_text(encoding="utf-8"))
        change(manifest)
        path.write_text(json.dumps(manifest), encoding="utf-8")
        before = client.get("/heads").json()["active"]

        answer = client.put("/heads/active", json={"name": "foreign"})

        assert reason in assert_problem(answer, 422, "head-mismatch")["detail"]
        assert client.get("/heads").json()["active"] == before
        assert client.get("/heads/default").json()["status"] == "ready"
    finally:
        shutil.rmtree(heads / "foreign")


def test_a_head_that_is_not_there_cannot_be_used(client: httpx.Client) -> None:
    for name in ("nonsense", "../../beads", ""):
        assert_problem(client.put("/heads/active", json={"name": name}), 422, "head-mismatch")
    assert_problem(client.get("/heads/nonsense"), 404, "head-not-found")
    assert_problem(client.get("/heads/nonsense/events"), 404, "head-not-found")
    assert_problem(client.get("/heads/default/report.png"), 404, "head-not-found")


def test_no_route_takes_a_head_from_outside(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    uploads = [
        path
        for path, methods in document["paths"].items()
        for operation in methods.values()
        if "multipart/form-data" in operation.get("requestBody", {}).get("content", {})
    ]
    assert uploads == ["/score"]
    for method in ("POST", "PUT"):
        for path in ("/heads/beads", "/heads/beads/head.joblib"):
            answer = client.request(method, path, content=b"\x80\x04")
            assert answer.status_code in (404, 405)


def test_refuses_what_no_head_can_be_made_of(client: httpx.Client) -> None:
    labelled = [s["stack_id"] for s in client.get("/stacks").json()["stacks"] if s["label"]]
    for taken in ("beads", "default", "active"):
        problem = assert_problem(client.post("/heads", json={"name": taken}), 422, "training-data")
        assert "already" in problem["detail"]
    bare = client.post("/stacks", json=STACK).json()["stack_id"]
    binned = client.post("/stacks", json={**STACK, "binning": 2, "roi": None}).json()["stack_id"]
    client.put(f"/stacks/{binned}/label", json={"z_um": 0.0})

    for body, kind, word in (
        ({"name": "new"}, "training-data", "depths of field"),
        ({"name": "new", "stacks": labelled[:1]}, "training-data", "or more"),
        ({"name": "new", "stacks": [labelled[0]] * 2}, "training-data", "or more"),
        ({"name": "new", "stacks": [bare, labelled[0]]}, "training-data", "not labelled"),
        ({"name": "new", "stacks": [binned, labelled[0]]}, "training-data", "depths of field"),
        ({"name": "../new"}, "invalid-request", "pattern"),
        ({"alpha": 0.0}, "invalid-request", "alpha"),
    ):
        assert word in assert_problem(client.post("/heads", json=body), 422, kind)["detail"]
    unknown = client.post("/heads", json={"stacks": ["20200101-000000-000000", labelled[0]]})
    assert_problem(unknown, 404, "stack-not-found")
    shutil.rmtree(_folder(client, binned))
    assert "new" not in {head["name"] for head in client.get("/heads").json()["heads"]}


def test_a_fit_does_not_begin_while_a_run_has_the_microscope(client: httpx.Client) -> None:
    run_id = begin_long_run(client)

    problem = assert_problem(client.post("/heads", json={}), 409, "busy")

    assert problem["run_id"] == run_id
    client.post("/stop")
    when_over(client, run_id)


def test_a_fit_tells_its_steps_yields_to_others_and_lets_runs_begin(client: httpx.Client) -> None:
    assert client.post("/heads", json={"name": "second"}).status_code == 202
    assert_problem(client.post("/heads", json={"name": "third"}), 409, "head-being-fitted")
    if sys.platform == "linux":
        wait_until(lambda: _niceness_of_children() == [10])
    run = client.post("/autofocus", json={**NEAR, "scorer": "tenengrad"}).json()

    events = client.get("/heads/second/events").text.strip().split("\n\n")

    assert run["locked"] is True
    steps = [json.loads(e.split("data: ")[1]) for e in events if e.startswith("event: step")]
    assert steps == [
        *({"what": "features", "done": done, "total": 3} for done in range(3)),
        {"what": "fitting", "done": 3, "total": 3},
    ]
    assert events[-1].startswith("event: done")
    assert json.loads(events[-1].split("data: ")[1])["status"] == "ready"


def test_a_fit_that_goes_wrong_says_why_and_leaves_nothing(client: httpx.Client, rig: Rig) -> None:
    broken = take_and_label(client, 0.0)
    path = _folder(client, broken) / "stack.ome.tif"
    path.write_bytes(path.read_bytes()[:5000])

    client.post("/heads", json={"name": "wrong"})
    head = when_fitted(client, "wrong")
    answer = client.put("/heads/active", json={"name": "wrong"})

    assert head["status"] == "failed"
    assert broken in head["error"]
    assert_problem(answer, 422, "head-mismatch")
    assert not list((rig.models_dir / "compact").rglob("wrong"))
    shutil.rmtree(path.parent)


def test_closing_the_service_ends_a_fit(rig: Rig, client: httpx.Client) -> None:
    with serving(rig) as other:
        assert other.post("/heads", json={"name": "unfinished"}).status_code == 202
        began_s = time.monotonic()
    assert time.monotonic() - began_s < 10
    assert not list((rig.models_dir / "compact").rglob("unfinished"))


def _folder(client: httpx.Client, stack_id: str) -> Path:
    return Path(client.get(f"/stacks/{stack_id}").json()["path"]).parent


def _niceness_of_children() -> list[int]:
    children = [task.read_text().split() for task in Path("/proc/self/task").glob("*/children")]
    return [os.getpriority(os.PRIO_PROCESS, int(pid)) for pids in children for pid in pids]
