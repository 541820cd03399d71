"""Calibrations of simulated microscopes whose play, swing and scatter are known."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from autofocus.calibrating import CalibrationRequest, calibrate, plan_calibration
from autofocus.calibration import CalibrationRecord
from autofocus.config import Rig, builtin_configs, load_rig
from autofocus.errors import NoFocusCurve, RequestError
from autofocus.stacks import StackRequest
from devices import AcquisitionSettings, Halted, Microscope, Roi
from devices.micromanager import load_core, release
from models.classical import ClassicalScorer

SMALL = {"SensorWidth_px": 144, "SensorHeight_px": 144, "SpecimenSize_px": 144}


@dataclass
class Bench:
    """A simulated microscope, the core it is made of, and what a calibration of it says."""

    rig: Rig
    microscope: Microscope
    core: Any

    def set(self, **properties: object) -> None:
        for name, value in properties.items():
            device = "Z" if self.core.hasProperty("Z", name) else "Camera"
            self.core.setProperty(device, name, value)

    def true_focus_um(self) -> float:
        return float(self.core.getProperty("Z", "TrueFocus_um"))

    def go(self, from_focus_um: float) -> None:
        self.microscope.move_to(self.true_focus_um() + from_focus_um)

    def calibrate(self, **changes: Any) -> CalibrationRecord:
        stack = StackRequest(**{"half_range_dof": 7.0, **changes})
        return self.run(CalibrationRequest(stack))

    def run(self, request: CalibrationRequest, **options: Any) -> CalibrationRecord:
        options = {"calibration_id": "test", "abort": threading.Event(), **options}
        scorer = ClassicalScorer("tenengrad")
        return calibrate(self.rig, self.microscope, scorer, request, **options)


@pytest.fixture
def make_bench(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    cores = []

    def make(camera: str = "devices.simulated.camera,SimulatedCamera", **limits: Any) -> Bench:
        text = (builtin_configs() / "simulated.cfg").read_text(encoding="utf-8")
        text = text.replace("devices.simulated.camera,SimulatedCamera", camera)
        config = tmp_path / "own.cfg"
        config.write_text(text.replace("World,simulated", f"World,{tmp_path}"), encoding="utf-8")
        rig = load_rig(builtin_configs() / "simulated.toml")
        rig = replace(rig, microscope=replace(rig.microscope, config=config, **limits))
        cores.append(load_core(config))
        bench = Bench(rig, Microscope(cores[-1], rig.microscope), cores[-1])
        bench.set(**SMALL)
        return bench

    yield make
    for core in cores:
        release(core)


def test_measures_play_and_scatter_and_puts_everything_back(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench()
    bench.set(Backlash_um=2.0, Repeatability_um=0.12)
    bench.go(2.0)
    before = bench.microscope.refresh()
    roi = Roi(8, 8, 128, 128)

    found = bench.calibrate(camera=AcquisitionSettings(exposure_ms=20.0, roi=roi))

    after = bench.microscope.refresh()
    assert after.z_um == pytest.approx(before.z_um, abs=0.01)
    assert (after.exposure_ms, after.roi) == (before.exposure_ms, before.roi)
    assert found.play.backlash_um == pytest.approx(2.0, abs=0.4)
    assert 0.06 < found.repeatability.repeatability_um < 0.24
    assert found.repeatability.readback_um < 0.01
    assert found.z_um == pytest.approx(bench.true_focus_um(), abs=0.4)
    assert 1.0 < found.shape.width_um / found.dof_um < 2.2
    assert found.settling.settle_ms == 0.0
    assert found.stale_frames == 0
    assert found.dose_ms == pytest.approx(20.0 * found.exposures)
    assert any("set backlash_um" in note for note in found.notes)


def test_measures_play_that_the_rig_takes_up_and_a_camera_that_is_one_frame_late(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench("late_camera,LateCamera", towards_specimen="-", backlash_um=3.0)
    bench.set(Backlash_um=1.5)
    bench.go(-1.0)

    found = bench.calibrate()

    # Going down, the carriage stands higher than the screw reads by its play.
    assert found.z_um == pytest.approx(bench.true_focus_um() - 1.5, abs=0.4)
    assert found.play.backlash_um == pytest.approx(1.5, abs=0.4)
    assert found.stale_frames == 1
    assert found.towards[0].z_um > found.towards[-1].z_um
    assert any("old frame" in note for note in found.notes)
    assert not any("backlash_um" in note for note in found.notes)


def test_measures_the_settle_time_and_waits_for_it_from_then_on(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench()
    bench.set(TimeScale=1.0, Speed_um_s=1000.0, SettleTime_ms=180.0)
    bench.go(1.0)

    found = bench.calibrate(half_range_dof=5.0, step_dof=0.75)

    settle_ms = found.settling.settle_ms
    assert settle_ms is not None
    # After 180 ms 1 % of the swing is left, which cannot be seen any more.
    assert 50 < settle_ms < 240
    assert abs(found.play.backlash_um) < 0.3
    assert any("set settle_ms" in note for note in found.notes)


def test_the_curve_is_as_wide_as_the_optics_make_it_and_the_way_there_is_safe(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(max_towards_um=66.0)
    bench.set(NA=0.3, PixelSize_um=0.65)
    objective = bench.rig.objectives[0]
    optics = replace(objective.optics, na=0.3, pixel_size_um=0.65)
    bench.rig = replace(bench.rig, objectives=(replace(objective, optics=optics),))
    bench.go(3.0)
    here_um = bench.microscope.z_um()
    visited: list[float] = []

    found = bench.run(
        CalibrationRequest(StackRequest(half_range_dof=8.0)),
        on_reading=lambda reading: visited.append(reading.z_um),
    )

    # Squared gradients see a plane as one to two depths of field thick.
    assert found.dof_um == pytest.approx(0.53 / 0.3**2 + 0.65 / 0.3)
    assert 1.0 < found.shape.width_um / found.dof_um < 2.0
    assert abs(found.play.backlash_um) < 0.2 * found.dof_um
    assert abs(found.z_um - bench.true_focus_um()) < 0.25 * found.dof_um
    assert visited[0] == pytest.approx(min(visited))
    assert max(abs(z_um - here_um) for z_um in visited) < 8.01 * found.dof_um < 66.0
    assert [s.z_um for s in found.towards] == sorted(s.z_um for s in found.towards)


def test_refuses_a_peak_at_the_edge_none_at_all_and_a_stuck_camera(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench()
    bench.go(8.0)
    before_um = bench.microscope.z_um()

    with pytest.raises(NoFocusCurve, match=r"from the end of the range"):
        bench.calibrate(half_range_dof=6.5)
    bench.set(StaleFrames=1)
    with pytest.raises(NoFocusCurve, match="identical frames"):
        bench.calibrate()
    bench.set(StaleFrames=0, Photons=0, Background=0)
    with pytest.raises(NoFocusCurve, match="lamp"):
        bench.calibrate()
    bench.set(Photons=300, Background=5, Specimen="empty")
    with pytest.raises(NoFocusCurve):
        bench.calibrate()

    assert bench.microscope.z_um() == pytest.approx(before_um)


@pytest.mark.parametrize("frames", [1, 30])
def test_an_abort_puts_everything_back_and_gives_nothing(
    make_bench: Callable[..., Bench], frames: int
) -> None:
    bench = make_bench()
    bench.go(3.0)
    before = bench.microscope.refresh()
    abort, seen = threading.Event(), []

    def watch(reading: object) -> None:
        seen.append(reading)
        if len(seen) == frames:
            abort.set()

    stack = StackRequest(camera=AcquisitionSettings(exposure_ms=5.0))
    with pytest.raises(Halted, match="none is kept"):
        bench.run(CalibrationRequest(stack), abort=abort, on_reading=watch)

    after = bench.microscope.refresh()
    assert len(seen) == frames
    assert after.z_um == pytest.approx(before.z_um)
    assert after.exposure_ms == before.exposure_ms


@pytest.mark.parametrize(
    ("request_", "limits"),
    [
        ({"half_range_um": 160.0}, {}),
        ({}, {"max_towards_um": 5.0}),
        ({"half_range_um": 5.0, "half_range_dof": 5.0}, {}),
        ({"step_dof": 1.5}, {}),
        ({"half_range_dof": 3.0, "step_dof": 1.0}, {}),
    ],
)
def test_refuses_before_anything_moves(
    make_bench: Callable[..., Bench], request_: dict, limits: dict
) -> None:
    bench = make_bench(**limits)
    state = bench.microscope.refresh()

    with pytest.raises(RequestError):
        plan_calibration(bench.rig, CalibrationRequest(StackRequest(**request_)), state=state)
