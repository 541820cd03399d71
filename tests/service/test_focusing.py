"""POST /autofocus, the plan and the runs it leaves behind."""

from __future__ import annotations

import csv
import io
import json

import httpx
import pytest
from demo_service import NEAR, START_UM, assert_problem, begin_long_run, when_over
from PIL import Image


@pytest.fixture
def at_start(shared_client: httpx.Client) -> httpx.Client:
    assert shared_client.post("/stage", json={"z_um": START_UM}).status_code == 200
    return shared_client


def test_locks_at_the_in_focus_plane_and_says_who_scored(at_start: httpx.Client) -> None:
    run = at_start.post("/autofocus", json=NEAR).json()

    assert run["locked"] is True
    assert run["verdict"] == "locked"
    assert run["status"] == "done"
    assert abs(run["final_z_um"]) <= 0.5
    assert run["start_z_um"] == pytest.approx(START_UM)
    assert run["scorer"] == "tenengrad"
    assert run["exposures"] == len(run["curve"])
    assert run["seconds"]["total"] > 0
    assert at_start.get("/stage").json()["z_um"] == pytest.approx(run["final_z_um"])


def test_an_empty_body_uses_the_rig_files_defaults(at_start: httpx.Client) -> None:
    run = at_start.post("/autofocus").json()

    assert run["locked"] is True
    assert abs(run["final_z_um"]) <= 0.5


def test_is_not_locked_and_back_at_the_start_when_focus_is_outside_the_range(
    at_start: httpx.Client,
) -> None:
    at_start.post("/stage", json={"z_um": 80.0})

    run = at_start.post(
        "/autofocus", json={"z_min_um": 60.0, "z_max_um": 100.0, "max_extensions": 0}
    ).json()

    assert run["locked"] is False
    assert run["verdict"] in ("edge", "flat")
    assert run["final_z_um"] == pytest.approx(80.0)
    assert at_start.get("/stage").json()["z_um"] == pytest.approx(80.0)


def test_without_waiting_answers_202_and_where_to_look(at_start: httpx.Client) -> None:
    answer = at_start.post("/autofocus", json={**NEAR, "wait": False})

    assert answer.status_code == 202
    begun = answer.json()
    assert answer.headers["location"] == f"/runs/{begun['run_id']}"
    assert begun["status"] == "running"
    assert begun["locked"] is False
    assert begun["verdict"] is None
    assert when_over(at_start, begun["run_id"])["locked"] is True


def test_events_give_every_reading_and_then_the_run(at_start: httpx.Client) -> None:
    begun = at_start.post("/autofocus", json={**NEAR, "wait": False}).json()

    live = _events(at_start, begun["run_id"])
    again = _events(at_start, begun["run_id"])

    names = [name for name, _ in live]
    assert names == ["reading"] * (len(live) - 1) + ["done"]
    done = live[-1][1]
    assert done["status"] == "done"
    assert [body for _, body in live[:-1]] == done["curve"]
    assert again == live


def test_a_run_shows_its_readings_while_it_goes_on(client: httpx.Client) -> None:
    run_id = begin_long_run(client, exposure_ms=300.0)

    events = _events_until(client, run_id, readings=2)
    run = client.get(f"/runs/{run_id}").json()

    assert run["status"] == "running"
    assert run["curve"][:2] == events
    assert client.get("/runs").json()["running"] == run_id
    assert client.get(f"/runs/{run_id}/curve.png").status_code == 200
    client.delete(f"/runs/{run_id}")
    when_over(client, run_id)


def test_the_curve_comes_as_picture_as_table_and_in_the_report(at_start: httpx.Client) -> None:
    run = at_start.post("/autofocus", json=NEAR).json()
    links = run["links"]

    picture = Image.open(io.BytesIO(at_start.get(links["curve_png"]).content))
    rows = list(csv.DictReader(io.StringIO(at_start.get(links["curve_csv"]).text)))
    report = at_start.get(links["report"]).json()

    assert picture.format == "PNG"
    assert picture.size == (960, 600)
    assert [float(row["z_um"]) for row in rows] == [point["z_um"] for point in run["curve"]]
    assert [row["purpose"] for row in rows] == [point["purpose"] for point in run["curve"]]
    assert report["request"]["z_min_um"] == NEAR["z_min_um"]
    assert report["result"]["verdict"] == "locked"


def test_the_plan_moves_nothing_and_stays_within_the_request(at_start: httpx.Client) -> None:
    plan = at_start.post("/autofocus/plan", json=NEAR).json()

    assert min(plan["z_um"]) >= NEAR["z_min_um"]
    assert max(plan["z_um"]) <= NEAR["z_max_um"]
    assert plan["z_lowest_um"] == NEAR["z_min_um"]
    assert plan["z_highest_um"] == NEAR["z_max_um"]
    assert plan["worst_case_exposures"] >= len(plan["z_um"])
    assert plan["seconds"] > 0
    assert at_start.get("/stage").json()["z_um"] == pytest.approx(START_UM)


def test_the_plan_knows_who_scores(at_start: httpx.Client) -> None:
    classical = at_start.post("/autofocus/plan", json=NEAR).json()
    learned = at_start.post("/autofocus/plan", json=NEAR | {"scorer": "reiqa-compact"}).json()
    unknown = at_start.post("/autofocus/plan", json=NEAR | {"scorer": "nobody"})

    assert learned["worst_case_exposures"] > classical["worst_case_exposures"]
    assert unknown.status_code == 422
    assert unknown.json()["type"].endswith("unknown-scorer")


def test_a_run_never_makes_more_exposures_than_its_plan_said(at_start: httpx.Client) -> None:
    plan = at_start.post("/autofocus/plan", json=NEAR).json()
    run = at_start.post("/autofocus", json=NEAR).json()

    assert run["exposures"] <= plan["worst_case_exposures"]


def test_a_second_caller_is_told_which_run_is_in_the_way(client: httpx.Client) -> None:
    run_id = begin_long_run(client)

    for path, body in (
        ("/autofocus", {}),
        ("/stage", {"z_um": 1.0}),
        ("/snap", {}),
    ):
        problem = assert_problem(client.post(path, json=body), 409, "busy")
        assert problem["run_id"] == run_id
        assert run_id in problem["detail"]
    client.post("/stop")
    when_over(client, run_id)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"z_max_um": 9999.0}, "refused-by-rig"),
        ({"range_um": 10.0, "range_dof": 5.0}, "refused-by-rig"),
        ({"strategy": "clairvoyance"}, "refused-by-rig"),
        ({"scorer": "clairvoyance"}, "unknown-scorer"),
        ({"range_um": -5.0}, "invalid-request"),
        ({"range_um": "60"}, "invalid-request"),
        ({"zmax_um": 10.0}, "invalid-request"),
        ({"max_exposures": 0}, "invalid-request"),
        ({"max_exposures": True}, "invalid-request"),
        ({"on_failure": "shrug"}, "invalid-request"),
    ],
)
def test_refuses_what_cannot_be_done_and_leaves_no_run(
    shared_client: httpx.Client, body: dict, kind: str
) -> None:
    before = shared_client.get("/runs").json()["total"]

    assert_problem(shared_client.post("/autofocus", json=body), 422, kind)

    assert shared_client.get("/runs").json()["total"] == before


@pytest.mark.parametrize("field", ["channel", "scorer", "head"])
def test_half_a_character_is_refused_and_the_next_run_goes(
    shared_client: httpx.Client, field: str
) -> None:
    """JSON may hold it; no report, log or device can be given it."""
    answer = shared_client.post("/autofocus", content=rf'{{"{field}": "a\ud800"}}', headers=_JSON)

    assert answer.status_code == 422
    assert "surrogate" in answer.json()["detail"]
    assert shared_client.get("/runs").json()["running"] is None
    assert shared_client.post("/stage", json={"z_um": 1.0}).status_code == 200


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("field", ["range_um", "center_um", "z_min_um", "channel_offset_um"])
def test_refuses_numbers_that_are_not_finite(
    shared_client: httpx.Client, field: str, number: str
) -> None:
    answer = shared_client.post("/autofocus", content=f'{{"{field}": {number}}}', headers=_JSON)

    problem = assert_problem(answer, 422, "invalid-request")
    assert problem["errors"][0]["where"] == f"body/{field}"


def test_an_unknown_run_is_a_404_whatever_its_name(shared_client: httpx.Client) -> None:
    for name in ("20200101-000000-000000", "..", "%2e%2e%2fetc", "x" * 300):
        for rest in ("", "/curve.png", "/curve.csv", "/report.json", "/events"):
            assert shared_client.get(f"/runs/{name}{rest}").status_code == 404
    assert_problem(shared_client.get("/runs/nonsense"), 404, "run-not-found")
    assert_problem(shared_client.delete("/runs/nonsense"), 404, "run-not-found")


def test_saves_the_frames_when_asked(client: httpx.Client, tmp_path) -> None:
    run = client.post("/autofocus", json={**NEAR, "save_frames": True}).json()

    frames = list((tmp_path / run["run_id"] / "frames").iterdir())
    assert len(frames) == run["exposures"]


_JSON = {"content-type": "application/json"}


def _events(client: httpx.Client, run_id: str) -> list[tuple[str, dict]]:
    with client.stream("GET", f"/runs/{run_id}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        text = "".join(stream.iter_text())
    return [_event(block) for block in text.strip().split("\n\n")]


def _events_until(client: httpx.Client, run_id: str, *, readings: int) -> list[dict]:
    text = ""
    with client.stream("GET", f"/runs/{run_id}/events") as stream:
        for piece in stream.iter_text():
            text += piece
            if text.count("\n\n") >= readings:
                break
    return [_event(block)[1] for block in text.split("\n\n")[:readings]]


def _event(block: str) -> tuple[str, dict]:
    name, data = block.split("\n")
    return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))
