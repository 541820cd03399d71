"""The benchmark of the search: its judge, its books, and its arithmetic."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from autofocus.bench import search_claims, search_page, search_pictures, search_report
from autofocus.bench.search import run_search
from autofocus.bench.search_cases import MUST_REFUSE, Case, cases, some_of
from autofocus.bench.search_entrants import ENTRANTS
from autofocus.bench.search_outcome import read_log, write_line
from autofocus.commands.bench import _load
from autofocus.config import load_rig
from autofocus.search.strategies import STRATEGIES

CLASSICAL = ENTRANTS["coarse_to_fine, vollath_f4"]
LOAD = partial(_load, load_rig(None))
TODO = [
    Case("cold", "20x/0.75", "nuclei", 300.0, "none", 77, -6.0),
    Case("must refuse", "20x/0.75", "empty", 300.0, "empty", 78, 4.0),
    Case("must refuse", "20x/0.75", "nuclei", 300.0, "out of range", 79, 33.0),
    Case("hardship", "20x/0.75", "nuclei", 300.0, "backlash", 80, 5.0),
    Case("hardship", "20x/0.75", "nuclei", 300.0, "drift", 81, 5.0),
    Case("edge", "20x/0.75", "nuclei", 300.0, "at the edge", 82, 24.4),
    Case("edge", "20x/0.75", "nuclei", 300.0, "at the edge", 83, -25.8),
    Case("far", "20x/0.75", "nuclei", 300.0, "none", 84, 38.0),
]


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    path = tmp_path_factory.mktemp("search") / "runs.jsonl"
    run_search(TODO, [CLASSICAL], LOAD, log=path)
    return path


def untimed(outcomes):
    return [write_line(replace(o, stage_s=0, camera_s=0, scoring_s=0, seconds=0)) for o in outcomes]


def test_the_judge_knows_what_the_run_does_not(log):
    cold, empty, beyond, play, *_ = read_log(log)
    assert cold.start_error_dof == pytest.approx(6.0, abs=0.05)
    assert cold.success
    assert not empty.locked
    assert np.isnan(empty.error_dof)
    assert not beyond.false_lock
    # Told the play of its stage, the run ends where the carriage is, not where the screw reads.
    assert play.success


def test_with_drift_the_plane_in_focus_at_the_end_counts(log):
    drift = list(read_log(log))[4]
    z_dof, *_ = drift.curve[0]
    # Positions are told from the plane in focus at the end: 0.02 DOF an exposure further on.
    assert drift.start_error_dof == pytest.approx(5.0, abs=0.05)
    assert 5.0 - z_dof == pytest.approx(0.02 * drift.exposures, abs=0.02)
    assert drift.error_dof == pytest.approx(abs(drift.end_dof))


def test_focus_at_the_end_of_the_range_is_reached_or_named(log):
    inside, outside = list(read_log(log))[5:7]
    assert inside.start_error_dof == pytest.approx(24.4, abs=0.05)
    assert inside.right_at_the_edge
    assert outside.verdict == "edge"
    assert outside.right_at_the_edge
    assert not replace(outside, verdict="flat").right_at_the_edge
    assert not replace(outside, z_error_dof=49.0).right_at_the_edge
    locked = replace(inside, verdict="locked", locked=True)
    assert replace(locked, error_dof=0.4).right_at_the_edge
    assert not replace(locked, error_dof=0.6).right_at_the_edge


def test_far_starts_have_a_range_that_covers_them(log):
    far = list(read_log(log))[7]
    assert far.success
    assert np.ptp([z for z, _, _ in far.curve]) > 80


def test_what_was_run_is_not_run_again(log):
    before = log.read_bytes()
    log.write_bytes(before[:-20])  # the last line was cut short by a kill
    again = run_search(TODO, [CLASSICAL], LOAD, log=log)
    assert len(again) == len(list(read_log(log))) == len(TODO)
    assert log.read_bytes().startswith(before[: before.rindex(b"\n", 0, -1) + 1])


def test_after_kill_9_the_table_is_the_same(log, tmp_path):
    killed = tmp_path / "runs.jsonl"
    here = Path(__file__)
    program = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from test_search_bench import *\n"
        "run_search(TODO, [CLASSICAL], LOAD, log=Path(sys.argv[2]))"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(here.parent), str(killed)])
    while not (killed.is_file() and killed.stat().st_size):
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
    process.wait()
    assert len(list(read_log(killed))) < len(TODO)
    again = run_search(TODO, [CLASSICAL], LOAD, log=killed)
    assert untimed(again) == untimed(read_log(log))


def test_nobody_is_influenced_by_who_ran_before(tmp_path):
    """A stage that stops by chance and a specimen that drifts begin anew for everyone."""
    other = ENTRANTS["brent, vollath_f4"]
    todo = [
        Case("cold", "20x/0.75", "nuclei", 300.0, "poor stage", 90, 3.0),
        replace(TODO[4], group="cold"),
    ]
    together = run_search(todo, [other, CLASSICAL], LOAD, log=tmp_path / "together.jsonl")
    alone = run_search(todo, [CLASSICAL], LOAD, log=tmp_path / "alone.jsonl")
    assert untimed(o for o in together if o.entrant == CLASSICAL.name) == untimed(alone)


def test_report_claims_and_pictures_of_what_there_is(log):
    outcomes = list(read_log(log))
    text = search_report.report(outcomes)
    assert "| coarse_to_fine, vollath_f4, >= 100 photons | 1/1 = 100.0% (2.5% to 100.0%)" in text
    line = "| focus within 1 DOF of the end of the range: locked within half a DOF, or `edge` | "
    assert f"{line}coarse_to_fine, vollath_f4 | 2/2" in search_claims.claims(outcomes)
    assert search_pictures.overview(outcomes).startswith(b"\x89PNG")


def test_the_page_says_how_it_was_made(log, tmp_path):
    page = tmp_path / "benchmarks" / "search.md"
    page.parent.mkdir()
    made_by = search_page.MadeBy(first_seed=3_000_000, quick=True, recorded=False)
    # As one that users are advised to use, so that its runs are drawn.
    outcomes = [replace(o, entrant="predictive") for o in read_log(log)]
    search_page.write(page, outcomes, [], made_by)
    text = page.read_text(encoding="utf-8")
    assert "--first-seed 3000000 --quick --docs docs/benchmarks/search.md" in text
    assert "8 runs of 8 cases" in text
    for name in ("search.png", "search_runs.png"):
        assert f"(../images/{name})" in text
        assert (tmp_path / "images" / name).stat().st_size > 20_000


def test_a_false_lock_is_counted_and_shown(log):
    cold, empty, *_ = read_log(log)
    beside = replace(cold, error_dof=1.01)
    on_nothing = replace(empty, locked=True)
    assert beside.false_lock
    assert on_nothing.false_lock
    text = search_report.report([beside, on_nothing])
    assert text.count("| coarse_to_fine, vollath_f4 | cold | 20x/0.75 | nuclei |") == 1
    assert "0/1 = 0.0%" in text
    claims = search_claims.claims([beside, on_nothing])
    for where in ("what must be refused", "everything else"):
        assert f"| false locks on {where} | coarse_to_fine, vollath_f4 | 1/1" in claims


@pytest.mark.parametrize("drawn", [3, 12, 120])
def test_the_interval_of_a_median_holds_it_in_at_least_19_of_20_samples(drawn):
    rng = np.random.default_rng(drawn)
    held = []
    for _ in range(1000):
        low, high = search_report.median_interval(rng.exponential(size=drawn))
        held.append(low <= np.log(2) <= high)
    # Three values hold it in 3 of 4 samples: beyond their whole range no rank lies.
    assert np.mean(held) >= (0.93 if drawn >= 6 else 0.7)
    assert np.mean(held) <= 0.99


def test_intervals_are_clopper_and_pearsons():
    assert search_report.interval(0, 10) == (0.0, pytest.approx(0.3085, abs=1e-4))
    assert search_report.interval(5, 10) == (
        pytest.approx(0.1871, abs=1e-4),
        pytest.approx(0.8129, abs=1e-4),
    )


def test_cases_are_the_same_every_time_and_others_for_tuning():
    published, tuning = cases(), cases(first_seed=3_500_000)
    assert published == cases()
    assert len(published) == len(set(published))
    assert not {case.seed for case in published} & {case.seed for case in tuning}
    wanted = sum(
        entrant.share * (case.group in entrant.groups)
        for case in published
        for entrant in ENTRANTS.values()
    )
    assert wanted >= 3000


def test_a_share_of_the_cases_is_spread_over_microscopes_and_faults():
    few = cases(1 / 10)
    assert {case.fault for case in few if case.group == "must refuse"} == set(MUST_REFUSE)
    assert len({case.scope for case in few}) == 5
    assert len({case.kind for case in few}) >= 7
    assert set(some_of(range(100), 0.1)) < set(some_of(range(100), 0.5))


def test_every_strategy_has_a_row():
    assert {entrant.strategy for entrant in ENTRANTS.values()} == set(STRATEGIES)


def test_the_stage_of_the_deepfocus_condition_has_no_play():
    (case,) = {replace(c, seed=0, start_dof=0, kind="") for c in cases() if c.group == "deepfocus"}
    assert case.stage_and_light == {("Z", "Repeatability_um"): 0.05}
    assert case.photons == 200.0
