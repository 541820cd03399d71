"""Where focus is expected, from earlier locks: on paper, and on a tilted specimen."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autofocus.conductor import Conductor
from autofocus.config import builtin_configs, load_rig
from autofocus.errors import RequestError
from autofocus.planning import FocusRequest
from autofocus.runs import RunRecord, RunStore
from autofocus.scorers import scorers_of
from autofocus.search.protocol import Verdict
from autofocus.warm_start import DRIFT_UM_PER_SQRT_H, MOST_SIGMA_DOF, Lock, predict, warmed
from devices import Microscope
from devices.simulated.world import World
from devices.worlds import visit_world

NOW = datetime(2026, 11, 23, 9, 15, 2, tzinfo=timezone.utc)
DOF_UM = 1.4
FIELD_UM = 160.0


def lock(x_um: float, y_um: float, z_um: float, *, hours: float = 0.0, sigma_um: float = 0.1):
    at = NOW - timedelta(hours=hours)
    return Lock(f"{at:%Y%m%d-%H%M%S-%f}", at, (x_um, y_um), z_um, sigma_um)


def predicted(locks, *, at=(0.0, 0.0)):
    return predict(locks, xy_um=at, field_um=FIELD_UM, dof_um=DOF_UM, now=NOW)


def test_the_last_lock_here_is_taken_as_it_is() -> None:
    found = predicted([lock(0, 0, 5.0, hours=3), lock(3, 4, 6.0, hours=1), lock(300, 0, 50.0)])
    assert found is not None
    assert found.here
    assert [used.z_um for used in found.locks] == [6.0]
    assert found.z_um == pytest.approx(6.0)
    own_um, slope_um = DOF_UM / 4, 0.05
    expected = math.hypot(own_um, slope_um, DRIFT_UM_PER_SQRT_H)
    assert found.sigma_um == pytest.approx(expected)


def test_a_plane_through_three_neighbours() -> None:
    found = predicted(
        [lock(x, y, 7 + x / 100 + y / 200) for x, y in [(300, 0), (0, 300), (0, -200)]]
    )
    assert found is not None
    assert not found.here
    assert found.z_um == pytest.approx(7.0, abs=0.2)
    assert found.sigma_um < 1.0


def test_of_every_place_nearby_only_the_last_lock_counts() -> None:
    moved = [lock(200, 0, 1.0, hours=2), lock(205, 0, 9.0, hours=1)]
    found = predicted(moved)
    assert found is not None
    assert [used.z_um for used in found.locks] == [9.0]


def test_older_and_farther_is_less_sure_until_nothing_is_said() -> None:
    by_age = [predicted([lock(0, 0, 5.0, hours=hours)]).sigma_um for hours in (0, 1, 4, 23)]
    by_distance = [predicted([lock(x, 0, 5.0)]).sigma_um for x in (0, 200, 500, 1000)]
    assert by_age == sorted(set(by_age))
    assert by_distance == sorted(set(by_distance))
    assert by_age[2] == pytest.approx(2 * DRIFT_UM_PER_SQRT_H, rel=0.05)
    assert predicted([lock(2000, 0, 5.0)]) is None
    assert predicted([lock(0, 0, 5.0, hours=200)]) is None
    assert predicted([]) is None


def test_neighbours_that_lie_in_no_plane_make_it_unsure() -> None:
    corners = [(300, 0), (-300, 0), (0, 300), (0, -300), (300, 300), (-300, -300)]
    flat = predicted([lock(x, y, 5.0) for x, y in corners])
    rough = predicted([lock(x, y, 5.0 + 4 * (-1) ** i) for i, (x, y) in enumerate(corners)])
    assert flat is not None
    assert rough is not None
    assert rough.sigma_um > 4 * flat.sigma_um


def test_the_uncertainty_is_honest_on_tilted_specimens_that_drift() -> None:
    """Planes, drifts and errors drawn as they are assumed: 68 % within one, 95 % within two."""
    rng = np.random.default_rng(3)
    deviations = []
    for _ in range(600):
        tilt = rng.normal(0, 5.0, 2) / 1000
        hours = rng.uniform(0, 4)
        drift_um = rng.normal(0, DRIFT_UM_PER_SQRT_H * math.sqrt(hours))
        places = rng.uniform(-500, 500, (int(rng.integers(1, 7)), 2))
        locks = [
            lock(x, y, float(tilt @ (x, y) + rng.normal(0, 0.35)), hours=hours, sigma_um=0.35)
            for x, y in places
        ]
        found = predicted(locks)
        if found is not None:
            deviations.append((found.z_um - drift_um) / found.sigma_um)
    within = [np.mean(np.abs(deviations) <= k) for k in (1, 2)]
    assert len(deviations) > 500
    assert 0.63 < within[0] < 0.9
    assert within[1] > 0.93


near = st.floats(-3000, 3000)
some_locks = st.lists(
    st.builds(
        lock,
        near,
        near,
        st.floats(-200, 200),
        hours=st.floats(0, 48),
        sigma_um=st.floats(0, 5),
    ),
    max_size=12,
)


@given(locks=some_locks, at=st.tuples(near, near))
@settings(max_examples=200, deadline=None)
def test_whatever_the_locks_a_prediction_is_finite_and_bounded_or_none(locks, at) -> None:
    found = predicted(locks, at=at)
    if not locks:
        assert found is None
    if found is None:
        return
    assert math.isfinite(found.z_um)
    assert DOF_UM / 8 < found.sigma_um <= MOST_SIGMA_DOF * DOF_UM
    assert 1 <= len(found.locks) <= 8
    assert found.locks == tuple(sorted(found.locks, key=lambda one: one.at, reverse=True))
    if found.here:
        (used,) = found.locks
        assert math.dist(used.xy_um, at) <= FIELD_UM / 4
        assert found.z_um == pytest.approx(used.z_um)


# -- on the simulated microscope ---------------------------------------------------------------


@pytest.fixture(scope="module")
def conductor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Conductor]:
    """A tilted specimen under an XY stage: it rises by 12 um a mm."""
    folder = tmp_path_factory.mktemp("warm")
    text = (builtin_configs() / "simulated.cfg").read_text(encoding="utf-8")
    text = text.replace("World,simulated", "World,warm") + "\n".join(
        [
            "",
            *(f"#py Property,Camera,{name},256" for name in ("SensorWidth_px", "SensorHeight_px")),
            "#py Property,Camera,TiltX_um,0.6",
            "#py Property,Camera,TiltY_um,0.8",
            "#py Property,Camera,SpecimenSize_px,256",
            "",
        ]
    )
    (folder / "warm.cfg").write_text(text, encoding="utf-8")
    rig = load_rig(builtin_configs() / "simulated.toml")
    rig = replace(
        rig,
        microscope=replace(rig.microscope, config=folder / "warm.cfg"),
        models_dir=folder / "models",
        scorer="tenengrad",
    )
    opened = Conductor(
        rig, Microscope.open(rig.microscope), scorers_of(rig), RunStore(folder / "runs")
    )
    yield opened
    opened.close()


def go(conductor: Conductor, x_um: float, y_um: float) -> float:
    """Send the XY stage somewhere, as a user does, and tell the true focus there."""
    world = visit_world(World, "warm")
    world.xy_um = (x_um, y_um)
    return float(world.true_sharpest_um)


def run(conductor: Conductor, **request) -> RunRecord:
    return conductor.start(FocusRequest(**request)).done.result(timeout=60)


def test_locks_at_three_places_tell_the_fourth(conductor: Conductor) -> None:
    cold = []
    for x_um, y_um in [(0, 0), (400, 0), (0, 300)]:
        in_focus_um = go(conductor, x_um, y_um)
        record = run(conductor, range_um=50.0, center_um=in_focus_um + 7)
        assert record.result.verdict is Verdict.LOCKED, record.result.reason
        assert record.place.xy_um == pytest.approx((x_um, y_um))
        cold.append(record)

    in_focus_um = go(conductor, 400, 300)
    assert abs(in_focus_um - cold[0].result.z_um) > 1.0
    foreseen, _ = conductor.warmed(FocusRequest(warm_start=True), conductor.microscope.refresh())
    assert abs(foreseen.expected_z_um - in_focus_um) < foreseen.expected_sigma_um < 5.0

    warm = run(conductor, warm_start=True).result
    assert warm.verdict is Verdict.LOCKED, warm.reason
    assert abs(warm.z_um - in_focus_um) < 0.7
    assert warm.exposures < min(record.result.exposures for record in cold)
    (note,) = [note for note in warm.notes if note.startswith("warm start")]
    for record in cold:
        assert record.run_id in note

    again = run(conductor, warm_start=True).result
    assert f"the last lock here ({warm.run_id})" in again.notes[0]


def test_the_plan_foresees_the_same(conductor: Conductor) -> None:
    in_focus_um = go(conductor, 0, 0)
    if not conductor.runs.ids():
        run(conductor, range_um=50.0, center_um=in_focus_um)
    state = conductor.microscope.refresh()
    request, told = conductor.warmed(FocusRequest(warm_start=True), state)
    planned = conductor.plan(FocusRequest(warm_start=True), state)
    assert told[0].startswith("warm start: ")
    assert planned.notes[:1] == told
    assert min(planned.z_um) < request.expected_z_um < max(planned.z_um)
    cold = conductor.plan(FocusRequest(), state)
    assert len(planned.z_um) < len(cold.z_um)


def test_begins_cold_and_says_why(conductor: Conductor, tmp_path: Path) -> None:
    rig, state = conductor.rig, conductor.microscope.refresh()
    want = FocusRequest(warm_start=True)
    nothing = RunStore(tmp_path)

    assert warmed(want, nothing, rig, state=state, now=NOW) == (
        FocusRequest(),
        "no warm start: no lock near enough in the last day",
    )
    no_stage = replace(state, xy_um=None)
    assert "without an XY stage" in warmed(want, nothing, rig, state=no_stage, now=NOW)[1]


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"objective": "other"}, "no lock near enough"),
        ({"channel": "DAPI"}, "no lock near enough"),
        ({"xy_um": (9000.0, 9000.0)}, "no lock near enough"),
        ({"z_um": -140.0}, "outside the permitted"),
    ],
    ids=str,
)
def test_only_locks_of_the_same_view_within_the_limits_count(
    conductor: Conductor, changed: dict, why: str
) -> None:
    in_focus_um = go(conductor, 0, 0)
    state = replace(conductor.microscope.refresh(), z_um=in_focus_um)
    rig = replace(conductor.rig, microscope=replace(conductor.rig.microscope, max_towards_um=50.0))
    locked = run(conductor, range_um=50.0, center_um=in_focus_um)
    now = locked.started_at
    want = FocusRequest(warm_start=True)

    warm, told = warmed(want, conductor.runs, rig, state=state, now=now)
    assert warm.expected_z_um == pytest.approx(locked.result.z_um)
    assert "the last lock here" in told

    request, told = warmed(want, conductor.runs, rig, state=replace(state, **changed), now=now)
    assert request == FocusRequest()
    assert why in told


@pytest.mark.parametrize(
    "wrong", [{"expected_z_um": 3.0, "expected_sigma_um": 1.0}, {"center_um": 3.0}], ids=str
)
def test_says_where_or_asks_but_not_both(conductor: Conductor, wrong: dict) -> None:
    request = FocusRequest(warm_start=True, **wrong)
    with pytest.raises(RequestError, match="warm_start"):
        conductor.start(request)
    with pytest.raises(RequestError, match="warm_start"):
        conductor.warmed(request, conductor.microscope.state)


def test_records_from_before_places_were_kept_are_read_and_left_out(
    conductor: Conductor, tmp_path: Path
) -> None:
    go(conductor, 0, 0)
    run_id = run(conductor, range_um=50.0).run_id
    folder = tmp_path / run_id
    folder.mkdir()
    report = json.loads((conductor.runs.path(run_id) / "report.json").read_text("utf-8"))
    del report["place"], report["request"]["warm_start"]
    (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")

    old = RunStore(tmp_path)
    assert old.read(run_id).place is None
    state = conductor.microscope.refresh()
    _, told = warmed(FocusRequest(warm_start=True), old, conductor.rig, state=state, now=NOW)
    assert told == "no warm start: no lock near enough in the last day"
