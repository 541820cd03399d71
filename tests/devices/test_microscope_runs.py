"""What a run changes and puts back, on the demo microscope as another program would own it."""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymmcore_plus import DeviceType

from devices import (
    AcquisitionSettings,
    Halted,
    HardwareThread,
    Microscope,
    MicroscopeSettings,
    RestoreFailed,
    Roi,
    SettingRefused,
    SnapFailed,
    SpecimenMoved,
)
from devices.micromanager import load_core, release

SETTINGS = MicroscopeSettings(config=None, z_min_um=-100, z_max_um=100)


def everything(core: Any) -> dict[str, Any]:
    """All that a run must leave as it was."""
    return {
        "exposure": core.getExposure(),
        "roi": core.getROI(),
        "binning": core.getProperty("Camera", "Binning"),
        "dichroic": core.getStateLabel("Dichroic"),
        "emission": core.getStateLabel("Emission"),
        "excitation": core.getStateLabel("Excitation"),
        "shutter": core.getShutterDevice(),
        "white": core.getShutterOpen("White Light Shutter"),
        "led": core.getShutterOpen("LED Shutter"),
        "auto shutter": core.getAutoShutter(),
        "continuous focus": core.isContinuousFocusEnabled(),
        "live": core.isSequenceRunning(),
        "z": core.getPosition("Z"),
    }


def unusual(core: Any) -> None:
    """Leave the microscope as no start-up preset would."""
    core.setExposure(33)
    core.setProperty("Camera", "Binning", "2")
    core.setROI(16, 24, 128, 64)
    core.setStateLabel("Emission", "89402m")
    core.setAutoShutter(False)
    core.setShutterOpen("White Light Shutter", True)
    core.enableContinuousFocus(True)
    core.setPosition("Z", 12.0)
    core.startContinuousSequenceAcquisition(0)


WANTED = AcquisitionSettings(exposure_ms=20, roi=Roi(0, 0, 40, 30), binning=4, channel="FITC")


@pytest.mark.parametrize("start", [unusual, lambda core: None], ids=["unusual", "as loaded"])
@pytest.mark.parametrize("end", ["success", "failure", "halt"])
def test_puts_everything_back(demo_core: Any, start: Any, end: str) -> None:
    start(demo_core)
    microscope = Microscope(demo_core, SETTINGS)
    before = everything(demo_core)
    with contextlib.suppress(ZeroDivisionError, Halted), microscope.acquisition(WANTED):
        microscope.move_to(-40)
        frame = microscope.snap()
        assert (frame.image.shape, frame.exposure_ms, frame.binning) == ((30, 40), 20, 4)
        assert demo_core.getCurrentConfig("Channel") == "FITC"
        assert not demo_core.isContinuousFocusEnabled()
        demo_core.setAutoShutter(not demo_core.getAutoShutter())
        demo_core.setShutterDevice("LED Shutter")
        if end == "failure":
            raise ZeroDivisionError
        if end == "halt":
            microscope.halt()
            microscope.move_to(0)
    assert everything(demo_core) == before


def test_puts_back_the_rest_when_one_item_cannot_be(demo_core: Any) -> None:
    microscope = Microscope(demo_core, SETTINGS)
    before = everything(demo_core)
    with (
        pytest.raises(SettingRefused),
        microscope.acquisition(AcquisitionSettings(binning=2, exposure_ms=-1)),
    ):
        pytest.fail("the run must not begin")
    assert everything(demo_core) == before


def test_notices_an_exposure_that_the_camera_drops_without_a_word(demo_core: Any) -> None:
    microscope = Microscope(demo_core, SETTINGS)
    with (
        pytest.raises(SettingRefused, match="exposes 10 ms instead of 1e\\+06 ms"),
        microscope.acquisition(AcquisitionSettings(exposure_ms=1e6)),
    ):
        pytest.fail("the run must not begin")


def test_leaves_continuous_focus_off_when_the_stage_is_not_back(demo_core: Any) -> None:
    microscope = Microscope(demo_core, SETTINGS)
    demo_core.enableContinuousFocus(True)
    with (  # noqa: PT012
        pytest.raises(RestoreFailed, match=r"z: .*\"Z\".*continuous focus: left off"),
        microscope.acquisition(),
    ):
        microscope.move_to(10)
        demo_core.unloadDevice("Z")
    assert not demo_core.isContinuousFocusEnabled()


def test_one_shutter_that_fails_leaves_no_other_open(demo_core: Any) -> None:
    microscope = Microscope(demo_core, SETTINGS)
    shutters = list(demo_core.getLoadedDevicesOfType(DeviceType.ShutterDevice))
    gone, other = shutters[0], shutters[-1]
    demo_core.setShutterDevice(other)
    demo_core.setShutterOpen(other, False)
    auto = demo_core.getAutoShutter()
    with pytest.raises(RestoreFailed, match="shutter: "), microscope.acquisition():  # noqa: PT012
        demo_core.setAutoShutter(not auto)
        demo_core.setShutterOpen(other, True)
        demo_core.unloadDevice(gone)
    assert gone != other
    assert not demo_core.getShutterOpen(other)
    assert demo_core.getAutoShutter() == auto


def test_one_property_that_fails_leaves_no_other_as_the_run_had_it(demo_core: Any) -> None:
    microscope = Microscope(demo_core, SETTINGS)
    before = demo_core.getConfigGroupState("Channel")
    first = next(iter(before))[0]
    rest = [each for each in before if each[0] != first]
    with (
        pytest.raises(RestoreFailed, match="channel: "),
        microscope.acquisition(AcquisitionSettings(channel="Cy5")),
    ):
        demo_core.unloadDevice(first)
    assert len(rest) > 1
    for device, name, value in rest:
        assert demo_core.getProperty(device, name) == value


def test_a_channel_that_switches_the_camera_is_refused(demo_core: Any) -> None:
    """Exposure, ROI and dose would be those of another one."""
    demo_core.loadDevice("Second", "DemoCamera", "DCam")
    demo_core.initializeDevice("Second")
    demo_core.defineConfig("Channel", "Twin", "Core", "Camera", "Second")
    demo_core.defineConfig("Channel", "FITC", "Core", "Camera", "Camera")
    microscope = Microscope(demo_core, SETTINGS)
    with (
        pytest.raises(SettingRefused, match="from camera 'Second'; this rig exposes with 'Camera'"),
        microscope.acquisition(AcquisitionSettings(channel="Twin")),
    ):
        pytest.fail("the run must not begin")
    assert demo_core.getCameraDevice() == "Camera"


@pytest.mark.parametrize("ending", ["noticed", "stopped", "failed"])
@pytest.mark.parametrize(("towards", "start_um", "end_um"), [("+", 10.0, -20.0), ("-", 10.0, 10.0)])
def test_an_exchanged_objective_is_not_brought_nearer_to_the_specimen(
    demo_core: Any, towards: str, start_um: float, end_um: float, ending: str
) -> None:
    """The start may be too near for one that is longer; away from the specimen it goes."""
    settings = replace(SETTINGS, towards_specimen=towards)
    microscope = Microscope(demo_core, settings)
    microscope.move_to(start_um)
    own = {"noticed": SpecimenMoved, "stopped": Halted, "failed": ZeroDivisionError}[ending]
    with (  # noqa: PT012
        pytest.raises(RestoreFailed if towards == "+" else own) as refused,
        microscope.acquisition() as acquisition,
    ):
        microscope.move_to(-20)
        demo_core.setState("Objective", 0)
        demo_core.waitForDevice("Objective")
        if ending == "noticed":
            acquisition.verify_unchanged()
        if ending == "stopped":
            microscope.halt()
            microscope.move_to(0)
        raise ZeroDivisionError
    if towards == "+":
        assert "left at -20 um" in str(refused.value)
        assert "Objective went from" in str(refused.value)
    assert demo_core.getPosition("Z") == pytest.approx(end_um)


def test_hardware_autofocus_does_not_pull_the_stage_off_where_it_was_kept(demo_core: Any) -> None:
    microscope = Microscope(demo_core, SETTINGS)
    demo_core.enableContinuousFocus(True)
    with microscope.acquisition() as acquisition:
        microscope.move_to(20)
        acquisition.keep_z()
    assert acquisition.was_held
    assert not demo_core.isContinuousFocusEnabled()


def test_a_full_frame_stays_one_when_binned(demo_core: Any) -> None:
    microscope = Microscope(demo_core, SETTINGS)
    with microscope.acquisition(AcquisitionSettings(binning=2)):
        assert microscope.snap().image.shape == (256, 256)
    assert microscope.snap().image.shape == (512, 512)


@pytest.mark.parametrize("value", [("PixelType", "32bitRGB"), ("PixelType", "64bitRGB")])
def test_a_colour_frame_becomes_gray(demo_core: Any, value: tuple[str, str]) -> None:
    demo_core.setProperty("Camera", "Mode", "Color Test Pattern")
    demo_core.setProperty("Camera", *value)
    frame = Microscope(demo_core, SETTINGS).snap()
    assert frame.image.shape == (512, 512)
    expected = demo_core.getImage().astype(float).mean(axis=2)
    np.testing.assert_allclose(frame.image, expected, atol=0.5)


def test_a_snap_during_live_mode_says_so(demo_core: Any) -> None:
    microscope = Microscope(demo_core, SETTINGS)
    demo_core.startContinuousSequenceAcquisition(0)
    with pytest.raises(SnapFailed, match="running live"):
        microscope.snap()
    demo_core.stopSequenceAcquisition()


def test_beads_blur_with_the_distance_from_the_in_focus_plane(demo_core: Any) -> None:
    microscope = Microscope(demo_core, SETTINGS)

    def sharpness(z_um: float) -> float:
        microscope.move_to(z_um)
        image = microscope.snap().image.astype(float)
        return float(np.var(np.diff(image, axis=0)) / image.mean() ** 2)

    curve = [sharpness(z_um) for z_um in (0, 3, 10, 30, 100)]
    assert curve == sorted(curve, reverse=True)
    assert curve[0] > 10 * curve[2]
    assert sharpness(-10) == pytest.approx(curve[2])


@pytest.mark.parametrize(
    ("disturb", "says"),
    [
        (lambda core: core.setState("Objective", 0), "Objective went from 'Nikon 20X"),
        (lambda core: core.setStateLabel("Path", "Eyepiece"), "Path went from 'Camera-left'"),
        (lambda core: core.setXYPosition(10.0, 0.0), "XY stage went from"),
    ],
)
def test_notices_that_the_specimen_is_no_longer_the_same(
    demo_core: Any, disturb: Any, says: str
) -> None:
    microscope = Microscope(demo_core, SETTINGS)
    with (  # noqa: PT012
        pytest.raises(SpecimenMoved, match=says),
        microscope.acquisition() as acquisition,
    ):
        acquisition.verify_unchanged()
        disturb(demo_core)
        demo_core.waitForSystem()
        acquisition.verify_unchanged()


def test_channels_shutters_and_small_drifts_do_not_count_as_a_moved_specimen(
    demo_core: Any,
) -> None:
    microscope = Microscope(demo_core, SETTINGS)
    with microscope.acquisition() as acquisition:
        demo_core.setConfig("Channel", "Cy5")
        demo_core.setState("LED", 3)
        demo_core.setXYPosition(1.0, 0.5)
        demo_core.waitForSystem()
        acquisition.verify_unchanged()


def test_a_handed_in_core_stays_loaded(demo_core: Any) -> None:
    loaded = demo_core.getLoadedDevices()
    with Microscope(demo_core, SETTINGS) as microscope:
        microscope.move_to(3)
    assert demo_core.getLoadedDevices() == loaded
    assert demo_core.getPosition("Z") == 3


def test_a_handed_in_core_gets_its_camera_role_back(demo_core: Any) -> None:
    demo_core.loadDevice("Second", "DemoCamera", "DCam")
    demo_core.initializeDevice("Second")
    settings = MicroscopeSettings(config=None, z_min_um=0, z_max_um=1, camera="Second")
    with Microscope(demo_core, settings) as microscope:
        assert microscope.state.camera == "Second"
        assert demo_core.getCameraDevice() == "Second"
    assert demo_core.getCameraDevice() == "Camera"


def test_stop_and_state_answer_at_once_during_a_long_exposure(demo_core: Any) -> None:
    microscope = Microscope(demo_core, SETTINGS)
    microscope.move_to(30)
    began = threading.Event()

    def run() -> None:
        with microscope.acquisition(AcquisitionSettings(exposure_ms=2000)):
            microscope.move_to(-50)
            began.set()
            microscope.snap()
            microscope.move_to(-60)

    with HardwareThread() as hardware:
        done = hardware.submit(run)
        assert began.wait(10)
        time.sleep(0.3)
        pressed_s = time.monotonic()
        answer = microscope.halt()
        halt_s = time.monotonic() - pressed_s
        took_s = []
        while not done.done():
            asked_s = time.monotonic()
            state = microscope.state
            took_s.append(time.monotonic() - asked_s)
            assert state.busy
            assert state.halted
            time.sleep(0.01)
            if time.monotonic() - pressed_s > 15:
                pytest.fail("the run does not end")
        error = done.exception()
    assert isinstance(error, Halted)
    assert halt_s < 1.0  # waiting for the exposure would take 1.7 s
    assert answer == "pending"
    assert statistics.median(took_s) < 0.01
    assert max(took_s) < 1.0
    assert demo_core.getPosition("Z") == 30
    assert demo_core.getExposure() == 10


LAMP_CFG = """\
Property,Core,Initialize,0
#py pyDevice,Camera,scripted_camera,LampCamera
#py pyDevice,Lamp,scripted_camera,Lamp
#py pyDevice,Z,scripted_stage,ScriptedStage
Property,Core,Initialize,1
#py Property,Core,Camera,Camera
#py Property,Core,Shutter,Lamp
#py Property,Core,Focus,Z
"""


def test_lights_the_frames_of_a_python_camera_as_auto_shutter_would(tmp_path: Path) -> None:
    config = tmp_path / "lamp.cfg"
    config.write_text(LAMP_CFG)
    core = load_core(config)
    microscope = Microscope(core, SETTINGS)
    core.setAutoShutter(True)
    assert microscope.snap().image.max() == 500
    assert not core.getShutterOpen()
    core.setAutoShutter(False)
    assert microscope.snap().image.max() == 0
    core.setShutterOpen(True)
    assert microscope.snap().image.max() == 500
    assert core.getShutterOpen()
    core.setShutterOpen(False)
    release(core)


def test_refuses_a_roi_from_a_camera_without_one(tmp_path: Path) -> None:
    config = tmp_path / "lamp.cfg"
    config.write_text(LAMP_CFG)
    with Microscope.open(MicroscopeSettings(config=config, z_min_um=0, z_max_um=1)) as microscope:
        wanted = AcquisitionSettings(roi=Roi(0, 0, 2, 2))
        with pytest.raises(SettingRefused), microscope.acquisition(wanted):
            pytest.fail("the run must not begin")
