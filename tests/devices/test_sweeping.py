"""Stage sequences and camera bursts: pairing, what is refused, what is noticed, what is stopped."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from devices import (
    AcquisitionSettings,
    Halted,
    LimitError,
    Microscope,
    MicroscopeSettings,
    MoveFailed,
    MoveRefused,
)
from devices.micromanager import load_core, release

CONFIGS = Path(__file__).parents[2] / "configs"
BLEACHING = 0.01

# Micro-Manager's own judge of sequences: every image says where the stage was.
TESTER_CFG = """\
Property,Core,Initialize,0
Device,Hub,SequenceTester,THub
Device,Camera,SequenceTester,TCamera-0
Device,Z,SequenceTester,TZStage-0
Parent,Camera,Hub
Parent,Z,Hub
Property,Camera,ImageMode,MachineReadable
Property,Camera,ImageWidth,{side}
Property,Camera,ImageHeight,{side}
Property,Core,Initialize,1
Property,Core,Camera,Camera
Property,Core,Focus,Z
Property,Z,TriggerSequenceMaxLength,{longest}
Property,Z,TriggerSourceDevice,TCamera-0
Property,Z,TriggerSourcePort,{port}
"""


def never() -> bool:
    return False


def seen_um(image: np.ndarray) -> float:
    """Where the stage was during the exposure: the tester packs its state into the pixels."""
    state = rb"\x92\x92\xa9TZStage-0\xabZPositionUm\x92\xa5float\xcb(.{8})"
    return float(struct.unpack(">d", re.findall(state, image.tobytes(), re.DOTALL)[-1])[0])


@pytest.fixture
def tester(tmp_path: Path) -> Iterator[Callable[..., Microscope]]:
    opened = []

    def make(*, port: str = "ExposureStartEdge", longest: int = 100, **settings: Any) -> Microscope:
        config = tmp_path / "tester.cfg"
        config.write_text(TESTER_CFG.format(side=128, longest=longest, port=port))
        limits = {"z_min_um": -50.0, "z_max_um": 50.0, **settings}
        opened.append(Microscope.open(MicroscopeSettings(config=config, **limits)))
        return opened[-1]

    yield make
    for microscope in opened:
        microscope.close()


class Rig:
    """A simulated microscope, and what its specimen has seen."""

    def __init__(self, core: Any, **settings: Any) -> None:
        self.core = core
        limits = {"z_min_um": -100.0, "z_max_um": 100.0, **settings}
        self.microscope = Microscope(core, MicroscopeSettings(config=None, **limits))

    def exposures(self) -> int:
        """By what the exposures bleached."""
        left = float(self.core.getProperty("Camera", "FluorescenceLeft"))
        return round(math.log(left) / math.log(1 - BLEACHING))


@pytest.fixture
def simulated(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    cores = []

    def make(
        *,
        stage: str = "devices.simulated.stages,SimulatedZStage",
        camera: str = "",
        **settings: Any,
    ) -> Rig:
        text = (CONFIGS / "simulated.cfg").read_text(encoding="utf-8")
        text = text.replace("World,simulated", "World,sweeping")
        text = text.replace("devices.simulated.stages,SimulatedZStage", stage)
        text = text.replace(
            "devices.simulated.camera,SimulatedCamera",
            camera or "devices.simulated.camera,SimulatedCamera",
        )
        config = tmp_path / "sweeping.cfg"
        config.write_text(text, encoding="utf-8")
        core = load_core(config)
        cores.append(core)
        for name, value in {
            "SensorWidth_px": 64,
            "SensorHeight_px": 64,
            "SpecimenSize_px": 64,
            "Bleaching": BLEACHING,
        }.items():
            core.setProperty("Camera", name, value)
        # Near focus a frame is rendered fastest.
        core.setProperty("Z", "TrueFocus_um", 0.0)
        return Rig(core, **settings)

    yield make
    for core in cores:
        release(core)


@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_every_frame_is_paired_with_the_position_it_saw(tester: Any, count: int) -> None:
    microscope = tester()
    z_um = [-20.0 + 0.75 * i for i in range(count)]
    with microscope.acquisition() as acquisition:
        assert acquisition.why_no_sweep(z_um) is None
        sweep = acquisition.sweep(z_um, interrupted=never)
        assert (sweep.fault, sweep.exposed) == (None, count)
        assert [frame.z_um for frame in sweep.frames] == z_um
        assert [seen_um(frame.image) for frame in sweep.frames] == z_um
        assert microscope.z_um() == z_um[-1]
    assert microscope.z_um() == 0.0


def test_a_trigger_at_the_wrong_edge_is_not_seen_here(tester: Any) -> None:
    """Why nobody may lock on swept frames: all that can be read back is as it should be."""
    microscope = tester(port="ExposureStopEdge")
    z_um = [1.0, 2.0, 3.0, 4.0]
    with microscope.acquisition() as acquisition:
        sweep = acquisition.sweep(z_um, interrupted=never)
    assert sweep.fault is None
    assert [seen_um(frame.image) for frame in sweep.frames] == [1.0, 1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("z_um", "error", "match"),
    [
        ([0.0, 60.0], LimitError, "outside the limits"),
        ([-60.0, 0.0], LimitError, "outside the limits"),
        ([0.0, float("nan")], LimitError, "is not a position"),
        ([0.0, 10.0, 20.0, 31.0], LimitError, "what this run may visit, -50 to 30 um"),
        ([0.0, 11.0], MoveRefused, "max_step_um"),
        ([0.0, 5.0, 4.0], MoveRefused, "against the approach"),
        ([3.0, 3.0], MoveRefused, "against the approach"),
    ],
)
def test_what_is_not_allowed_is_refused_before_anything_is_sent(
    tester: Any, z_um: list[float], error: type[Exception], match: str
) -> None:
    microscope = tester(max_step_um=10.0, max_towards_um=30.0, towards_specimen="+")
    number, _ = since_last_image(microscope)
    with microscope.acquisition() as acquisition, pytest.raises(error, match=match):
        acquisition.sweep(z_um, interrupted=never)
    assert since_last_image(microscope) == (number + 1, 0)
    microscope.move_to(1.0)
    assert since_last_image(microscope) == (number + 2, 1)


def since_last_image(microscope: Microscope) -> tuple[int, int]:
    """Number of the image that is taken now, and how often the stage was sent since the last."""
    packet = microscope.snap().image.tobytes()
    return packet[1], len(re.findall(rb"\x93\x92\xa9TZStage-0\xabZPositionUm", packet))


def test_towards_the_specimen_may_be_down(tester: Any) -> None:
    microscope = tester(max_towards_um=5.0, towards_specimen="-")
    with microscope.acquisition() as acquisition:
        with pytest.raises(LimitError, match="-5 to 50"):
            acquisition.sweep([0.0, -6.0], interrupted=never)
        sweep = acquisition.sweep([4.0, 0.0, -5.0], interrupted=never)
    assert [seen_um(frame.image) for frame in sweep.frames] == [4.0, 0.0, -5.0]


@pytest.mark.parametrize(
    ("rig", "z_um", "why"),
    [
        ({"longest": 0}, [0.0, 1.0], "takes no sequence"),
        ({"longest": 3}, [0.0, 1.0, 2.0], "of 3 positions, 4 are needed"),
        ({"max_step_um": 2.0}, [0.0, 3.0], "max_step_um"),
    ],
)
def test_says_why_it_cannot_sweep(tester: Any, rig: Any, z_um: list[float], why: str) -> None:
    with tester(**rig).acquisition() as acquisition:
        assert why in acquisition.why_no_sweep(z_um)


def test_a_buffer_that_overflows_makes_the_sweep_invalid(tester: Any) -> None:
    microscope = tester()
    core = microscope._core
    core.setProperty("Camera", "Binning", "1")
    core.setCircularBufferMemoryFootprint(1)
    z_um = [0.5 * i for i in range(90)]
    with microscope.acquisition() as acquisition:
        sweep = acquisition.sweep(z_um, interrupted=never)
    assert sweep.fault is not None
    assert re.search("overflowed|frames instead of 90", sweep.fault)
    assert (sweep.frames, sweep.exposed) == ((), 90)


def test_a_stage_that_is_deaf_to_its_sequence_is_found_out_and_not_asked_again(
    demo_core: Any,
) -> None:
    """Micro-Manager's demo stage says that it takes sequences, and stays where it is."""
    demo_core.setProperty("Z", "UseSequences", "Yes")
    microscope = Microscope(demo_core, MicroscopeSettings(config=None, z_min_um=-100, z_max_um=100))
    z_um = [2.0, 4.0, 6.0]
    with microscope.acquisition() as acquisition:
        assert acquisition.why_no_sweep(z_um) is None
        sweep = acquisition.sweep(z_um, interrupted=never)
        assert (sweep.frames, sweep.exposed) == ((), 3)
        assert "does not follow" in (sweep.fault or "")
        assert acquisition.why_no_sweep(z_um) == sweep.fault
        assert not demo_core.getShutterOpen("White Light Shutter")
    assert not demo_core.isSequenceRunning()
    assert demo_core.getPosition("Z") == 0.0


def test_the_light_is_on_for_the_burst_and_off_after_it(simulated: Any) -> None:
    rig = simulated()
    with rig.microscope.acquisition() as acquisition:
        sweep = acquisition.sweep([0.0, 1.0, 2.0], interrupted=never)
        assert not rig.core.getShutterOpen()
    dark = np.mean([frame.image.min() for frame in sweep.frames])
    assert all(frame.image.mean() > dark + 1 for frame in sweep.frames)
    assert rig.exposures() == sweep.exposed == 3


def test_each_frame_is_rendered_where_its_sequence_put_the_stage(simulated: Any) -> None:
    rig = simulated(stage="devices.simulated.stages,SimulatedZStage")
    focus_um = float(rig.core.getProperty("Z", "TrueFocus_um"))
    z_um = [focus_um + 4.0 * i for i in (-2, -1, 0, 1, 2)]
    with rig.microscope.acquisition() as acquisition:
        sweep = acquisition.sweep(z_um, interrupted=never)
    detail = [np.abs(np.diff(frame.image.astype(float), axis=1)).mean() for frame in sweep.frames]
    assert int(np.argmax(detail)) == 2


@pytest.mark.parametrize("how", ["halt", "interrupt"])
@pytest.mark.parametrize(
    "stage", ["devices.simulated.stages,SimulatedZStage", "sweeping_devices,UnstoppableStage"]
)
def test_a_stop_in_the_middle_ends_stage_and_camera(simulated: Any, how: str, stage: str) -> None:
    rig = simulated(stage=stage)
    rig.core.setProperty("Camera", "TimeScale", 1.0)
    rig.microscope.move_to(-7.0)

    def press() -> bool:
        if rig.exposures() < 3:
            return False
        if how == "halt" and not rig.microscope.halted:
            rig.microscope.halt()
        return how == "interrupt"

    with rig.microscope.acquisition(AcquisitionSettings(exposure_ms=50.0)) as acquisition:
        rig.core.setProperty("Camera", "PhotonsExposure_ms", 50.0)
        sweep = acquisition.sweep([0.1 * i for i in range(30)], interrupted=press)
        assert "stopped after" in (sweep.fault or "")
        assert sweep.frames == ()
        assert 3 <= sweep.exposed <= 5
        assert sweep.exposed == rig.exposures()
        assert not rig.core.isSequenceRunning()
        where_um = rig.microscope.z_um()
        assert where_um < 1.0
        rig.microscope.snap()  # a trigger that an armed stage would heed
        assert rig.microscope.z_um() == where_um
        assert not rig.core.getShutterOpen()
        if how == "halt":
            with pytest.raises(Halted):
                rig.microscope.move_to(0.0)
    assert rig.microscope.z_um() == pytest.approx(-7.0)


def test_nothing_is_exposed_after_a_stop(simulated: Any) -> None:
    rig = simulated()
    with rig.microscope.acquisition() as acquisition:
        rig.microscope.halt()
        with pytest.raises(Halted):
            acquisition.sweep([0.0, 1.0], interrupted=never)
        rig.microscope.resume()
        sweep = acquisition.sweep([0.0, 1.0], interrupted=lambda: True)
        assert (sweep.frames, sweep.exposed) == ((), 0)
    assert rig.exposures() == 0


def test_a_lost_frame_makes_the_sweep_invalid_and_was_exposed_all_the_same(simulated: Any) -> None:
    rig = simulated(camera="sweeping_devices,DroppingCamera")
    with rig.microscope.acquisition() as acquisition:
        sweep = acquisition.sweep([float(i) for i in range(6)], interrupted=never)
        assert sweep.fault == "the camera gave 5 frames instead of 6"
        assert (sweep.frames, sweep.exposed) == ((), 6)
        assert acquisition.why_no_sweep([0.0, 1.0]) is None
    assert rig.exposures() == 6


def test_a_stage_that_goes_beyond_its_sequence_is_stopped(simulated: Any) -> None:
    rig = simulated(stage="sweeping_devices,RunawayStage", towards_specimen="+")
    rig.microscope.move_to(-3.0)
    z_um = [float(i) for i in range(12)]
    with (
        pytest.raises(MoveFailed, match="was to step from 0 to 11 um and is at"),
        rig.microscope.acquisition() as acquisition,
    ):
        acquisition.sweep(z_um, interrupted=never)
    assert rig.microscope.z_um() == pytest.approx(-3.0)
    assert not rig.core.isSequenceRunning()


def test_everything_is_put_back_after_a_sweep(simulated: Any) -> None:
    rig = simulated()
    rig.microscope.move_to(5.0)
    rig.core.setExposure(23.0)
    rig.core.startContinuousSequenceAcquisition(0)
    try:
        with rig.microscope.acquisition(AcquisitionSettings(exposure_ms=11.0)) as acquisition:
            sweep = acquisition.sweep([0.0, 1.0, 2.0], interrupted=never)
            assert [frame.exposure_ms for frame in sweep.frames] == [11.0] * 3
        assert rig.core.isSequenceRunning()
        assert rig.core.getExposure() == 23.0
        assert rig.microscope.z_um() == pytest.approx(5.0)
    finally:
        rig.core.stopSequenceAcquisition()
