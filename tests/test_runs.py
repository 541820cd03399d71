"""The folder of a run, and what is left of one whose process died."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
import tifffile

from autofocus.errors import RunNotFound, StorageError
from autofocus.focus import CurvePoint, FocusResult, Seconds
from autofocus.planning import FocusRequest
from autofocus.plots import curve_png
from autofocus.runs import RunRecord, RunStatus, RunStore, curve_csv, new_run_id
from autofocus.search.protocol import Purpose, Verdict
from autofocus.service.answers import RunOut
from autofocus.terminal import curve_text
from devices import Frame, Roi

STARTED = datetime(2026, 11, 23, 9, 15, 2, 118204, tzinfo=timezone.utc)
REQUEST = FocusRequest(range_um=60.0, roi=Roi(1, 2, 30, 40), on_failure="stay")
CURVE = (
    CurvePoint(z_um=33.7, score=0.5, t_s=0.1, referee=None, purpose=Purpose.START),
    CurvePoint(z_um=-0.1, score=2.25, t_s=0.3, referee=7.5, purpose=Purpose.CONFIRM),
)


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "not" / "yet")


def opening(started_at: datetime = STARTED) -> RunRecord:
    return RunRecord(new_run_id(started_at), started_at, "demo", "tenengrad", None, REQUEST)


def result_of(record: RunRecord) -> FocusResult:
    return FocusResult(
        run_id=record.run_id,
        locked=True,
        verdict=Verdict.LOCKED,
        reason="because",
        z_um=-0.1,
        z_uncertainty_um=0.02,
        score=2.3,
        confidence=0.9,
        exposures=2,
        dose_ms=20.0,
        start_z_um=33.7,
        final_z_um=-0.1,
        start_score=0.5,
        final_score=2.25,
        scorer="tenengrad",
        head=None,
        out_of_distribution=False,
        referee=None,
        referee_z_um=None,
        referee_agrees=None,
        dof_um=3.1,
        notes=("a note",),
        curve=CURVE,
        seconds=Seconds(0.1, 0.1, 0.1, 0.3),
    )


def test_a_finished_run_reads_back_as_it_was(store: RunStore) -> None:
    record = opening()
    folder = store.begin(record)
    for point in CURVE:
        folder.add(point)

    written = folder.finish(result_of(record))

    assert store.read(record.run_id) == written
    assert written == replace(
        record, status=RunStatus.DONE, result=result_of(record), readings=CURVE
    )


def test_a_failed_run_keeps_its_readings_and_its_fault(store: RunStore) -> None:
    record = opening()
    folder = store.begin(record)
    folder.add(CURVE[0])

    folder.fail("MoveFailed: asked for 3 um, is at 2 um")

    read = store.read(record.run_id)
    assert read.status is RunStatus.FAILED
    assert read.error == "MoveFailed: asked for 3 um, is at 2 um"
    assert read.readings == CURVE[:1]


def test_a_run_whose_process_died_is_shown_as_aborted_and_says_why(store: RunStore) -> None:
    folder = store.begin(opening())
    for point in CURVE:
        folder.add(point)
    with (folder.folder / "curve.csv").open("a") as file:
        file.write("12.5,0.7")  # killed in mid-write

    shown = RunOut.of(RunStore(store.folder).read(opening().run_id))

    assert shown.status is RunStatus.INTERRUPTED
    assert shown.verdict is Verdict.ABORTED
    assert shown.locked is False
    assert "ended before the run did" in (shown.reason or "")
    assert [point.z_um for point in shown.curve] == [33.7, -0.1]


@pytest.mark.parametrize("left", [b"", b"{}", b"\xff"])
def test_a_report_that_a_power_cut_left_is_named(store: RunStore, left: bytes) -> None:
    run = opening()
    store.begin(run)
    (store.path(run.run_id) / "report.json").write_bytes(left)

    with pytest.raises(StorageError, match=r"cannot read .*report\.json.*move its folder away"):
        store.read(run.run_id)


def test_lists_newest_first_and_only_runs(store: RunStore) -> None:
    assert store.ids() == ()
    ids = [
        store.begin(opening(STARTED + timedelta(seconds=s))).folder.name for s in (3600, 0, 86400)
    ]
    (store.folder / "20261123-091502-000000").mkdir()
    (store.folder / "notes").mkdir()
    (store.folder / "notes" / "report.json").write_text("{}")

    assert store.ids() == (ids[2], ids[0], ids[1])


@pytest.mark.parametrize("name", ["", ".", "..", "../..", "notes", "20261123-091502-118204/.."])
def test_finds_nothing_by_a_name_that_is_no_run(store: RunStore, name: str) -> None:
    store.begin(opening())
    (store.folder / "notes").mkdir()
    (store.folder / "notes" / "report.json").write_text("{}")

    with pytest.raises(RunNotFound):
        store.read(name)


def test_frames_keep_the_cameras_counts(store: RunStore) -> None:
    image = np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000
    folder = store.begin(opening())

    folder.add_frame(
        7, Frame(image, z_um=-1.25, exposure_ms=10.0, binning=1, bit_depth=16, t_s=0.0)
    )

    (path,) = (folder.folder / "frames").iterdir()
    assert path.name == "007_z-1.250.tif"
    np.testing.assert_array_equal(tifffile.imread(path), image)


def test_the_table_has_a_line_an_exposure() -> None:
    assert curve_csv(CURVE).splitlines() == [
        "z_um,score,t_s,referee,purpose",
        "33.7,0.5,0.1,,start",
        "-0.1,2.25,0.3,7.5,confirm",
    ]


@pytest.mark.parametrize("readings", [(), CURVE[:1], CURVE])
def test_draws_any_number_of_readings(readings: tuple[CurvePoint, ...]) -> None:
    assert curve_png(replace(opening(), readings=readings)).startswith(b"\x89PNG")


def test_the_terminal_curve_is_highest_where_the_score_is() -> None:
    points = [
        CurvePoint(z_um=z, score=-abs(z), t_s=0.0, referee=None, purpose=Purpose.COARSE)
        for z in (-10.0, -5.0, 0.0, 5.0, 10.0)
    ]

    lines = curve_text(points, width=21, height=5, unicode=False).splitlines()

    assert lines[0] == "|" + " " * 10 + "*" + " " * 10
    assert lines[4] == "|*" + " " * 19 + "*"
    assert lines[-1].split() == ["-10.00", "10.00", "um"]
    assert curve_text([]) == ""
    assert curve_text(points[:1]).count("\u2800") < 60 * 8


def test_the_terminal_curve_needs_no_unicode() -> None:
    assert curve_text(CURVE, unicode=False).isascii()
    assert not curve_text(CURVE).isascii()
