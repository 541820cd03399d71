"""Stage, snap, state and health."""

from __future__ import annotations

import io

import httpx
import numpy as np
import pytest
import tifffile
from demo_service import assert_problem
from PIL import Image

from autofocus.config import load_rig


def test_moves_the_stage_and_answers_where_it_is(shared_client: httpx.Client) -> None:
    answer = shared_client.post("/stage", json={"z_um": -12.5})

    assert answer.json() == {"z_um": pytest.approx(-12.5)}
    assert shared_client.get("/stage").json() == {
        "z_um": pytest.approx(-12.5),
        "z_min_um": -250.0,
        "z_max_um": 250.0,
    }


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", '"5"', "true", "null"])
def test_refuses_a_position_that_is_no_finite_number(
    shared_client: httpx.Client, number: str
) -> None:
    shared_client.post("/stage", json={"z_um": 5.0})

    answer = shared_client.post(
        "/stage", content=f'{{"z_um": {number}}}', headers={"content-type": "application/json"}
    )

    assert_problem(answer, 422, "invalid-request")
    assert shared_client.get("/stage").json()["z_um"] == pytest.approx(5.0)


@pytest.mark.parametrize("z_um", [250.001, -250.001, 1e9])
def test_refuses_a_position_outside_the_limits(shared_client: httpx.Client, z_um: float) -> None:
    shared_client.post("/stage", json={"z_um": 5.0})

    problem = assert_problem(
        shared_client.post("/stage", json={"z_um": z_um}), 422, "outside-limits"
    )

    assert "250" in problem["detail"]
    assert shared_client.get("/stage").json()["z_um"] == pytest.approx(5.0)


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"{", b'{"z_um": 1, "speed": 9}'])
def test_refuses_a_malformed_body(shared_client: httpx.Client, body: bytes) -> None:
    answer = shared_client.post(
        "/stage", content=body, headers={"content-type": "application/json"}
    )

    assert assert_problem(answer, 422, "invalid-request")["errors"]


def test_snaps_a_picture_for_the_eye(shared_client: httpx.Client) -> None:
    shared_client.post("/stage", json={"z_um": 0.0})

    answer = shared_client.post("/snap")

    picture = Image.open(io.BytesIO(answer.content))
    assert answer.headers["content-type"] == "image/png"
    assert float(answer.headers["x-z-um"]) == pytest.approx(0.0)
    assert (picture.mode, picture.size) == ("L", (512, 512))
    assert np.ptp(np.asarray(picture)) == 255


def test_snaps_raw_counts_with_settings_for_this_frame_only(shared_client: httpx.Client) -> None:
    body = {"exposure_ms": 20.0, "roi": {"x": 100, "y": 50, "width": 64, "height": 32}}

    answer = shared_client.post("/snap", params={"format": "tiff"}, json=body)

    image = tifffile.imread(io.BytesIO(answer.content))
    assert answer.headers["content-type"] == "image/tiff"
    assert answer.headers["x-exposure-ms"] == "20"
    assert image.shape == (32, 64)
    assert image.dtype == np.uint16
    state = shared_client.get("/microscope").json()
    assert state["exposure_ms"] == 10.0
    assert state["roi"] == {"x": 0, "y": 0, "width": 512, "height": 512}


def test_a_setting_the_camera_does_not_have_is_refused(shared_client: httpx.Client) -> None:
    assert_problem(
        shared_client.post("/snap", json={"channel": "Infrared"}), 422, "setting-refused"
    )
    assert shared_client.get("/microscope").json()["channel"] == "DAPI"


def test_shows_the_microscope(shared_client: httpx.Client) -> None:
    state = shared_client.get("/microscope").json()

    assert state["camera"] == "Camera"
    assert state["focus_device"] == "Z"
    assert state["dof_um"] == pytest.approx(load_rig().optics_for(None).depth_of_field_um())
    assert "Z" in {device["label"] for device in state["devices"]}
    assert state["running"] is None


def test_is_alive_and_ready(shared_client: httpx.Client) -> None:
    health = shared_client.get("/health")

    assert health.status_code == 200
    assert health.json()["alive"] is True
    assert health.json()["ready"] is True
    assert health.json()["not_ready"] == []


def test_an_unknown_path_or_method_is_a_problem_too(shared_client: httpx.Client) -> None:
    assert_problem(shared_client.get("/nowhere"), 404, "not-found")
    assert_problem(shared_client.put("/stage"), 405, "method-not-allowed")
