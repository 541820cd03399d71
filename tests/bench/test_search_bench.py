"""The benchmark of the search: its judge, its books, and its arithmetic."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from autofocus.bench import search_pictures, search_report
from autofocus.bench.search import run_search
from autofocus.bench.search_cases import Case, cases
from autofocus.bench.search_entrants import ENTRANTS
from autofocus.bench.search_outcome import read_log
from autofocus.commands.bench import _load
from autofocus.config import load_rig

CLASSICAL = ENTRANTS["coarse_to_fine, vollath_f4"]
TODO = [
    Case("cold", "20x/0.75", "nuclei", 300.0, "none", 77, -6.0),
    Case("must refuse", "20x/0.75", "empty", 300.0, "empty", 78, 4.0),
    Case("must refuse", "20x/0.75", "nuclei", 300.0, "out of range", 79, 33.0),
    Case("hardship", "20x/0.75", "nuclei", 300.0, "backlash", 80, 5.0),
]


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    path = tmp_path_factory.mktemp("search") / "runs.jsonl"
    run_search(TODO, [CLASSICAL], partial(_load, load_rig(None)), log=path)
    return path


def test_the_judge_knows_what_the_run_does_not(log):
    cold, empty, beyond, play = read_log(log)
    assert cold.start_error_dof == pytest.approx(6.0, abs=0.05)
    assert cold.success
    assert not empty.locked
    assert np.isnan(empty.error_dof)
    assert not beyond.false_lock
    # Told the play of its stage, the run ends where the carriage is, not where the screw reads.
    assert play.success


def test_what_was_run_is_not_run_again(log):
    before = log.read_bytes()
    log.write_bytes(before[:-20])  # the last line was cut short by a kill
    again = run_search(TODO, [CLASSICAL], partial(_load, load_rig(None)), log=log)
    assert len(again) == len(list(read_log(log))) == len(TODO)
    assert log.read_bytes().startswith(before[: before.rindex(b"\n", 0, -1) + 1])


def test_report_and_picture_of_what_there_is(log):
    outcomes = list(read_log(log))
    text = search_report.report(outcomes)
    assert "| coarse_to_fine, vollath_f4, >= 100 photons | 1/1 = 100.0% (2.5% to 100.0%)" in text
    assert search_pictures.overview(outcomes).startswith(b"\x89PNG")


def test_a_false_lock_is_counted_and_shown(log):
    cold, empty, *_ = read_log(log)
    beside = replace(cold, error_dof=1.01)
    on_nothing = replace(empty, locked=True)
    assert beside.false_lock
    assert on_nothing.false_lock
    text = search_report.report([beside, on_nothing])
    assert text.count("| coarse_to_fine, vollath_f4 | cold | 20x/0.75 | nuclei |") == 1
    assert "0/1 = 0.0%" in text


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
        case.group in entrant.groups for case in published for entrant in ENTRANTS.values()
    )
    assert wanted >= 3000
