"""Remote mode and the daemon are one: same z, same exposures, same verdict on the same rig."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from demo_service import assert_problem, begin_long_run, demo_rig, serving, when_over

from autofocus.client import Client, ServiceError, focus_remotely
from autofocus.config import builtin_configs, load_rig
from autofocus.errors import AutofocusError
from autofocus.search.protocol import Reading
from autofocus.search.strategies import STRATEGIES
from autofocus.service.remote import MoveNextOut, ReadingBody, RemoteSearchBody
from autofocus.service.scores import ScoreOut
from devices import Microscope

OPTICS = {"na": 0.75, "pixel_size_um": 0.325, "wavelength_um": 0.53}
AROUND = {"z_min_um": -60.0, "z_max_um": 60.0, "range_um": 50.0, "max_extensions": 1}
SEARCH = {"start_z_um": 12.0, "z_min_um": -40.0, "z_max_um": 40.0, "dof_um": 1.4}


def config_of(folder: Path, world: str) -> Path:
    """The simulated microscope, small, with an imperfect stage, in a world of its own."""
    text = (builtin_configs() / "simulated.cfg").read_text(encoding="utf-8")
    text = text.replace("World,simulated", f"World,{world}") + "\n".join(
        [
            "",
            "#py Property,Camera,SensorWidth_px,256",
            "#py Property,Camera,SensorHeight_px,256",
            "#py Property,Camera,SpecimenSize_px,256",
            "#py Property,Camera,Bleaching,0.002",
            "#py Property,Z,Repeatability_um,0.05",
            "",
        ]
    )
    config = folder / f"{world}.cfg"
    config.write_text(text, encoding="utf-8")
    return config


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[Client]:
    """A service on one simulated microscope; the other one has the same seeds."""
    rig = load_rig(builtin_configs() / "simulated.toml")
    rig = replace(
        rig,
        microscope=replace(rig.microscope, config=config_of(tmp_path, "ours")),
        runs_dir=tmp_path / "runs",
        models_dir=tmp_path / "models",
    )
    with serving(rig) as http, Client(str(http.base_url)) as client:
        yield client


@pytest.fixture
def theirs(tmp_path: Path) -> Iterator[Microscope]:
    rig = load_rig(builtin_configs() / "simulated.toml")
    settings = replace(rig.microscope, config=config_of(tmp_path, "theirs"))
    with Microscope.open(settings) as microscope:
        yield microscope


LOCKED = {"center_um": -10.0, "scorer": "tenengrad"}
ELSEWHERE = {"center_um": 45.0, "range_um": 12.0, "scorer": "tenengrad"}


@pytest.mark.parametrize(
    ("verdict", "request_"),
    [
        # Some strategies are baselines that may fail: then both fail alike.
        *((None, {**LOCKED, "scorer": "vollath_f4", "strategy": name}) for name in STRATEGIES),
        ("locked", {**LOCKED, "scorer": "vollath_f4"}),
        ("locked", {**LOCKED, "scorer": "reiqa-compact", "exposure_ms": 5.0}),
        ("locked", {**LOCKED, "channel_offset_um": -1.5, "binning": 2}),
        ("locked", {"expected_z_um": -13.0, "expected_sigma_um": 2.0, "range_um": None}),
        ("edge", {**ELSEWHERE, "max_extensions": 0}),
        ("edge", {**ELSEWHERE, "on_failure": "stay"}),
        ("budget", {**LOCKED, "max_exposures": 9}),
        ("budget", {**LOCKED, "exposure_ms": 10.0, "max_dose_ms": 75.0}),
    ],
    ids=str,
)
def test_a_client_with_its_own_microscope_gets_what_the_daemon_gets(
    ours: Client, theirs: Microscope, verdict: str | None, request_: dict
) -> None:
    request_ = {**AROUND, **request_}
    run = ours.autofocus(**request_)
    assert verdict in (None, run.verdict)

    search = RemoteSearchBody(
        start_z_um=theirs.z_um(), optics=OPTICS, towards_specimen="+", **request_
    )
    with theirs.acquisition(search.settings()) as acquisition:
        result = focus_remotely(
            ours,
            search,
            move=theirs.move_to,
            snap=lambda: theirs.snap().image,
            bit_depth=16,
        )
        acquisition.keep_z()

    for name in ("locked", "verdict", "reason", "z_um", "z_uncertainty_um", "score", "confidence"):
        assert getattr(result, name) == getattr(run, name), name
    for name in ("exposures", "start_z_um", "final_z_um", "start_score", "final_score", "notes"):
        assert getattr(result, name) == getattr(run, name), name
    for name in ("scorer", "head", "out_of_distribution", "dof_um"):
        assert getattr(result, name) == getattr(run, name), name
    for name in ("referee", "referee_z_um", "referee_agrees"):
        assert getattr(result, name) == getattr(run, name), name
    assert [point.model_dump() for point in result.curve] == [
        point.model_dump(exclude={"t_s"}) for point in run.curve
    ]
    assert result.dose_ms == (run.dose_ms if "exposure_ms" in request_ else None)
    assert theirs.z_um() == pytest.approx(ours.stage().z_um, abs=1e-9)


def test_an_entry_of_score_with_its_z_is_a_reading(shared_client: httpx.Client) -> None:
    told = set(ScoreOut.model_fields)
    assert told <= set(ReadingBody.model_fields)
    assert {field.name for field in fields(Reading)} == set(ReadingBody.model_fields)

    with Client(str(shared_client.base_url)) as client:
        frame = np.random.default_rng(0).poisson(100, (64, 64)).astype(np.uint16)
        scored = client.score(frame, scorer="reiqa-compact", bit_depth=12, sampling=0.46)
    entry = scored.scores[0].model_dump()
    body = {"search": {**SEARCH, "scorer": "reiqa-compact"}, "readings": [{**entry, "z_um": 12.0}]}
    answer = shared_client.post("/autofocus/next", json=body)

    assert answer.status_code == 200, answer.text
    assert answer.json()["kind"] == "move"
    assert answer.json()["purpose"] == "coarse"


def test_begins_at_the_start_and_needs_no_hardware(tmp_path: Path) -> None:
    rig = demo_rig(tmp_path)
    # Narrower than the client's own limits, and busy besides.
    rig = replace(rig, microscope=replace(rig.microscope, z_min_um=-45.0, z_max_um=45.0))
    far = {"start_z_um": 4000.0, "z_min_um": 3900.0, "z_max_um": 4100.0, "optics": OPTICS}
    with serving(rig) as http, Client(str(http.base_url)) as client:
        run_id = begin_long_run(http)
        first = client.next(RemoteSearchBody(**far))
        second = client.next(RemoteSearchBody(**far), [ReadingBody(z_um=4000.0, score=0.1)])
        assert client.run(run_id).status == "running"
        client.abort(run_id)
        when_over(http, run_id)

    assert first == MoveNextOut(kind="move", z_um=[4000.0], purpose="start")
    assert isinstance(second, MoveNextOut)
    assert (min(second.z_um), max(second.z_um)) == (3900.0, 4100.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"z_min_um": None},
        {"start_z_um": None},
        {"dof_um": None},
        {"optics": OPTICS},
        {"dof_um": None, "optics": {**OPTICS, "na": 1.2}},
        {"z_min_um": 50.0},
        {"hope": 1.0},
    ],
    ids=str,
)
def test_a_search_that_is_incomplete_is_a_clear_422(
    shared_client: httpx.Client, wrong: dict
) -> None:
    search = {name: v for name, v in {**SEARCH, **wrong}.items() if v is not None}
    answer = shared_client.post("/autofocus/next", json={"search": search})
    assert "search" in assert_problem(answer, 422, "invalid-request")["detail"]


def test_a_history_of_another_run_is_a_clear_422(shared_client: httpx.Client) -> None:
    body = {"search": SEARCH, "readings": [{"z_um": 13.0, "score": 0.1}]}
    problem = assert_problem(
        shared_client.post("/autofocus/next", json=body), 422, "refused-by-rig"
    )
    assert "readings[0] is at 13 um, wanted was 12 um within 0.5 um" in problem["detail"]

    unknown = {"search": {**SEARCH, "scorer": "hope"}}
    assert_problem(shared_client.post("/autofocus/next", json=unknown), 422, "unknown-scorer")


def test_the_stage_goes_back_when_the_clients_camera_fails(shared_client: httpx.Client) -> None:
    visited: list[float] = []

    def move(z_um: float) -> float:
        visited.append(z_um)
        return z_um

    def snap() -> np.ndarray:
        if len(visited) == 3:
            raise OSError("cable")
        return np.random.default_rng(len(visited)).poisson(100, (64, 64)).astype(np.uint16)

    with (
        Client(str(shared_client.base_url)) as client,
        pytest.raises(OSError, match="cable"),
    ):
        focus_remotely(client, RemoteSearchBody(**SEARCH), move=move, snap=snap)
    assert len(visited) == 4
    assert visited[-1] == SEARCH["start_z_um"]


def test_the_client_refuses_a_service_that_would_leave_the_limits() -> None:
    class Astray(Client):
        """A service gone wrong, as the client sees it."""

        def next(self, search, readings=()):
            return MoveNextOut(kind="move", z_um=[40.5], purpose="coarse")

    moves: list[float] = []
    with Astray() as client, pytest.raises(AutofocusError, match=r"40.5 um, outside -40.0..40.0"):
        focus_remotely(
            client,
            RemoteSearchBody(**SEARCH),
            move=lambda z_um: moves.append(z_um) or z_um,
            snap=lambda: np.zeros((4, 4)),
        )
    assert moves == [SEARCH["start_z_um"]]


def test_the_client_takes_stacks_and_makes_heads_of_them(shared_client: httpx.Client) -> None:
    roi = {"x": 128, "y": 128, "width": 128, "height": 128}
    with Client(str(shared_client.base_url)) as client:
        client.move_to(0.0)
        taken = client.take_stack(half_range_dof=2.0, step_dof=1.0, roi=roi)
        assert client.stack(taken.stack_id) == taken
        assert client.stacks(limit=1).stacks == [taken]
        judged = client.label_stack(taken.stack_id, z_um=0.0)
        assert judged.labelled
        assert judged.label == client.stack(taken.stack_id).label
        assert client.label_stack(taken.stack_id).votes

        active = client.heads().active
        assert client.head(active).status == "ready"
        assert client.activate_head(active).name == active
        with pytest.raises(ServiceError) as refused:
            client.fit_head(stacks=["20200101-000000-000000"])
    assert refused.value.problem.status in (404, 422)
