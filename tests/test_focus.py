"""Live runs on Micro-Manager's own demo camera."""

import math
import threading
import time
from dataclasses import replace

import pytest

from autofocus.conductor import Conductor
from autofocus.config import load_rig
from autofocus.errors import RequestError
from autofocus.focus import run_focus
from autofocus.planning import FocusRequest, plan, search_settings
from autofocus.runs import RunStore
from autofocus.search.protocol import Purpose, Verdict
from devices import Halted, Microscope, RestoreFailed, SpecimenMoved
from models.classical import DEFAULT_MEASURE, ClassicalScorer
from models.errors import ModelError
from models.scorer import FrameScore


@pytest.fixture(scope="module")
def rig():
    return load_rig()


@pytest.fixture(scope="module")
def opened(rig):
    with Microscope.open(rig.microscope) as microscope:
        yield microscope


@pytest.fixture
def microscope(opened):
    opened.resume()
    opened.move_to(0.0)
    return opened


@pytest.fixture
def scorer():
    return ClassicalScorer(DEFAULT_MEASURE)


def focus(rig, microscope, scorer, **request):
    return run_focus(rig, microscope, scorer, FocusRequest(**request), run_id="test")


@pytest.mark.parametrize("start_um", [33.7, -61.3, -18.9, 4.4, 78.2])
def test_the_demo_ends_up_sharp(rig, microscope, scorer, start_um):
    microscope.move_to(start_um)
    result = focus(rig, microscope, scorer)
    assert result.verdict is Verdict.LOCKED, result.reason
    assert abs(result.final_z_um) <= 0.5
    assert microscope.z_um() == pytest.approx(result.z_um, abs=0.01)
    assert result.exposures == len(result.curve)
    assert result.dose_ms == pytest.approx(10.0 * result.exposures)
    assert result.final_score > result.start_score


def test_edge_returns_to_the_start(rig, microscope, scorer):
    microscope.move_to(60.0)
    result = focus(rig, microscope, scorer, range_um=20.0, max_extensions=0)
    assert result.verdict in (Verdict.EDGE, Verdict.FLAT)
    assert not result.locked
    assert microscope.z_um() == pytest.approx(60.0, abs=0.01)


def test_on_failure_stay_leaves_the_stage(rig, microscope, scorer):
    microscope.move_to(60.0)
    result = focus(rig, microscope, scorer, range_um=20.0, max_extensions=0, on_failure="stay")
    assert not result.locked
    assert microscope.z_um() != pytest.approx(60.0, abs=0.5)


@pytest.mark.parametrize(
    ("budget", "spent"),
    [({"max_exposures": 7}, 7), ({"max_dose_ms": 55.0}, 5), ({"max_exposures": 1}, 1)],
)
def test_budgets_are_honoured_exactly(rig, microscope, scorer, budget, spent):
    microscope.move_to(33.7)
    result = focus(rig, microscope, scorer, **budget)
    assert result.verdict is Verdict.BUDGET
    assert result.exposures == spent
    assert microscope.z_um() == pytest.approx(33.7, abs=0.01)


def test_abort_returns_to_the_start(rig, microscope, scorer):
    microscope.move_to(33.7)
    abort = threading.Event()
    seen = []

    def watch(point):
        seen.append(point)
        if len(seen) == 5:
            abort.set()

    result = run_focus(
        rig, microscope, scorer, FocusRequest(), run_id="x", abort=abort, on_reading=watch
    )
    assert result.verdict is Verdict.ABORTED
    # While the fifth frame was scored the next one was being exposed; nothing was begun after it.
    assert 5 <= len(seen) == result.exposures <= 6
    assert f"{result.exposures} exposures" in result.reason
    assert microscope.z_um() == pytest.approx(33.7, abs=0.01)


def test_halt_in_mid_exposure_allows_no_further_frame(rig, microscope, scorer):
    microscope.move_to(10.0)
    before = microscope.state.exposure_ms
    threading.Timer(0.9, microscope.halt).start()
    began = time.monotonic()
    result = focus(rig, microscope, scorer, exposure_ms=600.0)
    assert result.verdict is Verdict.ABORTED
    assert time.monotonic() - began < 8.0  # the whole run would expose for more than 10 s
    assert microscope.z_um() == pytest.approx(10.0, abs=0.01)
    assert microscope.refresh().exposure_ms == before


def test_channel_offset_is_applied_after_the_lock(rig, microscope, scorer):
    microscope.move_to(12.0)
    result = focus(rig, microscope, scorer, range_um=60.0, channel_offset_um=1.5)
    assert result.locked
    assert result.final_z_um == pytest.approx(result.z_um + 1.5, abs=0.01)


def test_plan_moves_nothing_and_bounds_the_run(rig, microscope, scorer):
    microscope.move_to(33.7)
    promised = plan(rig, FocusRequest(), state=microscope.refresh(), absolute=scorer.absolute)
    assert microscope.z_um() == pytest.approx(33.7, abs=0.01)
    result = focus(rig, microscope, scorer)
    assert result.exposures <= promised.worst_case_exposures
    assert all(promised.z_lowest_um <= p.z_um <= promised.z_highest_um for p in result.curve)


@pytest.mark.parametrize(
    "request_",
    [
        {"z_max_um": 251.0},
        {"z_min_um": -999.0},
        {"range_um": 10.0, "range_dof": 3.0},
        {"strategy": "hope"},
        {"center_um": 400.0},
        {"z_min_um": 5.0, "z_max_um": 5.0},
        {"range_dof": 501.0},
    ],
)
def test_requests_the_rig_must_refuse(rig, microscope, request_):
    with pytest.raises(RequestError):
        plan(rig, FocusRequest(**request_), state=microscope.state, absolute=False)


def test_a_derived_range_is_cut_at_the_limits_and_said_so(rig, microscope):
    state = replace(microscope.state, z_um=200.0)
    promised = plan(rig, FocusRequest(), state=state, absolute=False)
    assert promised.z_highest_um <= 250.0
    assert any("cut to the permitted" in note for note in promised.notes)


def test_never_further_towards_the_specimen_than_the_rig_allows(rig, microscope):
    state = replace(microscope.state, z_um=-150.0)
    promised = plan(rig, FocusRequest(range_um=450.0), state=state, absolute=False)
    assert promised.z_highest_um == pytest.approx(-150.0 + rig.microscope.max_towards_um)


def test_the_plan_owns_up_to_channel_offset_and_backlash(rig, microscope):
    backlashed = replace(rig, microscope=replace(rig.microscope, backlash_um=3.0))
    request = FocusRequest(z_min_um=-20.0, z_max_um=40.0, channel_offset_um=5.0)
    promised = plan(backlashed, request, state=microscope.state, absolute=False)
    assert (promised.z_lowest_um, promised.z_highest_um) == (-23.0, 40.0)


def test_a_stop_while_the_last_frame_is_scored_still_counts(rig, microscope, scorer):
    microscope.move_to(12.0)
    abort = threading.Event()

    def watch(point):
        if point.purpose is Purpose.CONFIRM:
            abort.set()

    request = FocusRequest(range_um=60.0, channel_offset_um=1.5)
    result = run_focus(rig, microscope, scorer, request, run_id="x", abort=abort, on_reading=watch)
    assert result.verdict is Verdict.ABORTED
    assert microscope.z_um() == pytest.approx(12.0, abs=0.01)


def test_the_scorer_is_told_how_the_camera_samples(rig, microscope):
    told = []

    class Attentive(ClassicalScorer):
        def score(self, image, *, bit_depth=None, sampling=None):
            told.append(sampling)
            return super().score(image, bit_depth=bit_depth)

    focus(rig, microscope, Attentive(DEFAULT_MEASURE), binning=2)
    optics = rig.optics_for(microscope.state.objective)
    assert set(told) == {optics.sampling(2)}
    assert optics.sampling(2) == pytest.approx(
        2 * optics.pixel_size_um * optics.na / optics.wavelength_um
    )


@pytest.mark.parametrize(
    "said",
    [
        FrameScore(score=math.nan),
        FrameScore(score=0.5, referee=math.nan),
        FrameScore(score=0.5, defocus_dof=math.nan, defocus_sd_dof=1.0),
        FrameScore(score=0.5, defocus_dof=1.0, defocus_sd_dof=math.inf),
    ],
)
def test_what_is_no_number_ends_the_run(rig, microscope, said):
    class Undecided(ClassicalScorer):
        """A scorer that breaks its promise of finite numbers."""

        def score(self, image, *, bit_depth=None, sampling=None):
            return said

    microscope.move_to(12.0)
    with pytest.raises(ModelError, match="depths of field"):
        focus(rig, microscope, Undecided(DEFAULT_MEASURE))
    assert microscope.z_um() == pytest.approx(12.0, abs=0.01)


def test_a_stop_while_the_scorer_is_loaded_forbids_the_run(rig, scorer, tmp_path):
    def load(name, head):
        conductor.stop()
        return scorer

    conductor = Conductor(rig, Microscope.open(rig.microscope), load, RunStore(tmp_path))
    try:
        with pytest.raises(Halted):
            conductor.start(FocusRequest())
        assert conductor.running is None
        assert conductor.runs.ids() == ()
    finally:
        conductor.close()


def test_a_rig_may_forbid_every_move_towards_the_specimen_beyond_the_start(rig, microscope):
    strict = replace(rig, microscope=replace(rig.microscope, max_towards_um=0.0))
    promised = plan(strict, FocusRequest(), state=microscope.state, absolute=False)
    assert promised.z_highest_um == microscope.state.z_um


def test_frames_are_scored_while_the_stage_goes_on(rig, microscope):
    """A pass of many positions takes less than its moves, exposures and scores one by one."""
    microscope.move_to(20.0)
    slow = ClassicalScorer("tenengrad")
    result = focus(rig, microscope, slow, strategy="exhaustive", range_um=30.0, exposure_ms=20.0)
    seconds = result.seconds
    assert 0 < seconds.saved <= seconds.scoring
    assert seconds.total < seconds.stage + seconds.camera + seconds.scoring
    z_um = [point.z_um for point in result.curve]
    assert z_um[1:30] == sorted(z_um[1:30])


def test_an_objective_swung_in_during_a_pass_is_driven_no_further(rig, microscope, scorer):
    microscope.move_to(60.0)
    core, seen = microscope._core, []
    before = core.getState("Objective")

    def swing_in(point):
        seen.append(point)
        if len(seen) == 4:
            core.setState("Objective", (before + 1) % 6)
            core.waitForDevice("Objective")

    try:
        with pytest.raises((SpecimenMoved, RestoreFailed), match=r"Objective|light path"):
            run_focus(
                rig,
                microscope,
                scorer,
                FocusRequest(strategy="exhaustive"),
                run_id="x",
                on_reading=swing_in,
            )
    finally:
        core.setState("Objective", before)
        core.waitForDevice("Objective")
    # The frame that was being scored when it was noticed, and the one exposed meanwhile.
    assert len(seen) <= 6


def test_a_start_that_reads_just_beyond_a_limit_is_one_at_it(rig, microscope):
    state = replace(microscope.state, z_um=rig.microscope.z_max_um + 0.02)
    settings, _ = search_settings(rig, FocusRequest(), state=state, absolute=False)
    assert settings.start_z_um == rig.microscope.z_max_um
    beyond = replace(state, z_um=rig.microscope.z_max_um + 5)
    settings, _ = search_settings(rig, FocusRequest(), state=beyond, absolute=False)
    assert settings.start_z_um == beyond.z_um


def test_a_range_in_which_nothing_changes_is_refused(rig, microscope):
    with pytest.raises(RequestError, match="within which nothing changes"):
        plan(rig, FocusRequest(range_um=1e-15), state=microscope.state, absolute=False)


def test_a_lock_leaves_hardware_autofocus_off_and_says_so(rig, microscope, scorer):
    microscope.move_to(20.0)
    core = microscope._core
    core.enableContinuousFocus(True)
    try:
        result = focus(rig, microscope, scorer)
        assert not core.isContinuousFocusEnabled()
    finally:
        core.enableContinuousFocus(False)
    assert result.locked
    assert any("hardware autofocus" in note for note in result.notes)
    assert abs(result.final_z_um) <= 0.5


@pytest.mark.parametrize("unwritable", ["\ud800", "half \udfff"])
def test_a_run_that_cannot_be_written_down_lets_go_of_the_microscope(
    rig, scorer, tmp_path, unwritable
):
    conductor = Conductor(
        rig, Microscope.open(rig.microscope), lambda *_: scorer, RunStore(tmp_path)
    )
    try:
        with pytest.raises(ValueError, match="surrogates"):
            conductor.start(FocusRequest(channel=unwritable))
        assert not conductor.occupied
        assert conductor.move_to(1.0).result(timeout=10) == pytest.approx(1.0)
    finally:
        conductor.close()


def test_closing_stops_a_move_on_its_way(rig, scorer, tmp_path):
    """Ctrl-C while the stage goes to where a run should start."""
    hops = replace(rig.microscope, max_step_um=0.02)
    conductor = Conductor(
        replace(rig, microscope=hops), Microscope.open(hops), lambda *_: scorer, RunStore(tmp_path)
    )
    moving = conductor.move_to(90.0)
    while not conductor.microscope.state.z_um > 0.1:
        time.sleep(0.001)
    waiting = conductor.move_to(-90.0)
    assert conductor.busy
    conductor.close()
    with pytest.raises(Halted):
        moving.result()
    assert waiting.cancelled() or isinstance(waiting.exception(), Halted)
    assert conductor.microscope.state.z_um < 80


def test_closing_lets_a_stopped_run_put_the_stage_back(rig, scorer, tmp_path):
    """A second stop on its way back would leave the stage anywhere."""
    hops = replace(rig.microscope, max_step_um=0.2)
    conductor = Conductor(
        replace(rig, microscope=hops), Microscope.open(hops), lambda *_: scorer, RunStore(tmp_path)
    )
    conductor.move_to(5.0).result()
    run = conductor.start(FocusRequest(strategy="exhaustive", z_min_um=-60.0, z_max_um=60.0))
    while abs(conductor.microscope.state.z_um - 5.0) < 30:
        time.sleep(0.001)
    conductor.stop()
    conductor.close()
    assert run.done.result().result.verdict is Verdict.ABORTED
    assert run.done.result().result.final_z_um == pytest.approx(5.0, abs=0.01)
