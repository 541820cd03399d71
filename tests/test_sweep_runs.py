"""Runs with the strategy sweep, on simulated microscopes whose stage takes sequences, or does not.

What the specimen has seen is counted by what it bleached.
"""

import math
import threading
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from autofocus.config import load_rig
from autofocus.focus import run_focus
from autofocus.planning import FocusRequest, plan
from autofocus.search.protocol import Purpose, Verdict
from devices import Microscope
from models.classical import DEFAULT_MEASURE, ClassicalScorer

CONFIGS = Path(__file__).parents[1] / "configs"
STAGE = "devices.simulated.stages,SimulatedZStage"
CAMERA = "devices.simulated.camera,SimulatedCamera"
BLEACHING = 1e-4
START_UM = -9.0
COARSE = {Purpose.COARSE, Purpose.EXTEND}


class Rig:
    """A simulated microscope with its rig file, and what its specimen has seen."""

    def __init__(self, folder: Path, *, stage: str, camera: str, lines: tuple[str, ...]) -> None:
        text = (CONFIGS / "simulated.cfg").read_text(encoding="utf-8")
        text = text.replace("World,simulated", f"World,{folder.name}")
        text = text.replace(STAGE, stage).replace(CAMERA, camera)
        small = [
            f"#py Property,Camera,{side}_px,192"
            for side in ("SensorWidth", "SensorHeight", "SpecimenSize")
        ]
        bleaching = f"#py Property,Camera,Bleaching,{BLEACHING}"
        text = "\n".join([text, *small, bleaching, *(f"#py Property,{line}" for line in lines)])
        (folder / "simulated.cfg").write_text(text, encoding="utf-8")
        toml = (CONFIGS / "simulated.toml").read_text(encoding="utf-8")
        (folder / "simulated.toml").write_text(toml, encoding="utf-8")
        self.rig = load_rig(folder / "simulated.toml")
        self.microscope = Microscope.open(self.rig.microscope)
        self.microscope.move_to(START_UM)

    @property
    def core(self):
        return self.microscope._core

    def exposures(self) -> int:
        left = float(self.core.getProperty("Camera", "FluorescenceLeft"))
        return round(math.log(left) / math.log(1 - BLEACHING))

    def focus_um(self) -> float:
        return float(self.core.getProperty("Z", "TrueFocus_um"))

    def run(self, abort=None, on_reading=None, **request):
        wanted = FocusRequest(**{"strategy": "sweep", **request})
        return run_focus(
            self.rig,
            self.microscope,
            ClassicalScorer(DEFAULT_MEASURE),
            wanted,
            run_id="test",
            abort=abort,
            on_reading=on_reading,
        )


@pytest.fixture
def make_rig(tmp_path):
    opened = []

    def make(*lines, stage=STAGE, camera=CAMERA):
        opened.append(Rig(tmp_path, stage=stage, camera=camera, lines=lines))
        return opened[-1]

    yield make
    for rig in opened:
        rig.microscope.close()


def coarse_z_um(result):
    return [point.z_um for point in result.curve if point.purpose in COARSE]


def test_a_swept_run_locks_and_counts_every_frame(make_rig):
    rig = make_rig()
    result = rig.run()
    assert result.verdict is Verdict.LOCKED, result.reason
    assert abs(result.final_z_um - rig.focus_um()) <= result.dof_um / 2
    assert result.exposures == len(result.curve) == rig.exposures()
    assert result.seconds.swept > 0
    assert not any("not swept" in note for note in result.notes)
    assert not rig.core.isSequenceRunning()


def test_a_stage_without_sequences_gives_the_same_answer(make_rig, tmp_path):
    swept = make_rig()
    result = swept.run()
    swept.microscope.close()
    stepped = make_rig("Z,SequenceMaxLength,0")
    same = stepped.run()
    assert (same.verdict, same.exposures) == (result.verdict, result.exposures)
    assert same.z_um == pytest.approx(result.z_um, abs=0.05)
    assert coarse_z_um(same) == pytest.approx(coarse_z_um(result), abs=0.5)
    assert same.seconds.swept == 0
    assert any("takes no sequence" in note for note in same.notes)


def test_frames_of_a_miswired_stage_are_not_believed(make_rig):
    rig = make_rig(stage="sweeping_devices,HurriedStage")
    result = rig.run()
    assert result.verdict is Verdict.LOCKED, result.reason
    assert "the sweep was not believed" in result.reason
    assert abs(result.final_z_um - rig.focus_um()) <= result.dof_um / 2
    assert result.exposures == rig.exposures()


def test_a_sweep_with_a_lost_frame_is_repeated_one_by_one_and_counted(make_rig):
    rig = make_rig(camera="sweeping_devices,DroppingCamera")
    promised = planned(rig)
    result = rig.run()
    assert result.verdict is Verdict.LOCKED, result.reason
    lost = len(promised.z_um)
    assert any(f"gave {lost - 1} frames instead of {lost}" in note for note in result.notes)
    assert result.exposures == len(result.curve) + lost == rig.exposures()
    assert result.exposures <= promised.worst_case_exposures
    assert result.dose_ms == pytest.approx(10.0 * result.exposures)


@pytest.mark.parametrize(
    "budget", [{"max_exposures": 8}, {"max_dose_ms": 85.0}, {"max_seconds": 0.085}]
)
def test_a_sweep_is_not_begun_that_the_budget_would_not_let_end(make_rig, budget):
    rig = make_rig()
    result = rig.run(**budget)
    assert result.verdict is Verdict.BUDGET
    assert result.exposures == rig.exposures() == 1
    assert rig.microscope.z_um() == pytest.approx(START_UM)


def test_a_budget_that_just_suffices_for_the_sweep_lets_it_be_made(make_rig):
    rig = make_rig()
    swept = len(planned(rig).z_um)
    result = rig.run(max_exposures=1 + swept)
    assert result.verdict is Verdict.BUDGET
    assert result.exposures == rig.exposures() == 1 + swept


@pytest.mark.parametrize("how", ["abort", "halt"])
def test_an_abort_in_the_middle_of_a_sweep_returns_to_the_start(make_rig, how):
    rig = make_rig("Camera,TimeScale,1.0")
    abort = threading.Event()
    stop = abort.set if how == "abort" else rig.microscope.halt

    def watch():
        while rig.exposures() < 4:
            finished.wait(0.005)
        stop()

    finished = threading.Event()
    watcher = threading.Thread(target=watch)
    watcher.start()
    result = rig.run(abort=abort, exposure_ms=10.0)
    watcher.join()
    assert result.verdict is Verdict.ABORTED
    assert len(result.curve) == 1
    assert 4 <= result.exposures < 12
    assert result.exposures == rig.exposures()
    assert rig.microscope.z_um() == pytest.approx(START_UM)
    assert not rig.core.isSequenceRunning()


def test_a_step_longer_than_the_rig_allows_is_not_swept(make_rig):
    rig = make_rig()
    step_um = coarse_step_um_of(rig)
    limited = replace(rig.rig.microscope, max_step_um=step_um / 2)
    rig.microscope.close()
    rig.microscope = Microscope.open(limited)
    rig.microscope.move_to(START_UM)
    result = rig.run()
    assert result.verdict is Verdict.LOCKED, result.reason
    assert any("max_step_um" in note for note in result.notes)


def planned(rig):
    request = FocusRequest(strategy="sweep")
    return plan(rig.rig, request, state=rig.microscope.refresh(), absolute=False)


def coarse_step_um_of(rig):
    z_um = planned(rig).z_um
    return max(b - a for a, b in pairwise(z_um))
