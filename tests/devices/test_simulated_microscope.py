"""The simulated microscope through a real core, loaded from its .cfg."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from devices.micromanager import load_core, release
from devices.simulated.optics import depth_of_field_um
from devices.simulated.settings import Scene
from devices.simulated.world import World
from devices.worlds import join_world, visit_world

CONFIGS = Path(__file__).parents[2] / "configs"
DOF_UM = depth_of_field_um(Scene().objective)


class Rig:
    """A loaded core in the words of a test."""

    def __init__(self, config: Path) -> None:
        self.core: Any = load_core(config)
        self.core.setShutterOpen(True)
        self.set("Camera", SensorWidth_px=192, SensorHeight_px=192, SpecimenSize_px=192)

    def set(self, device: str, **properties: object) -> None:
        for name, value in properties.items():
            self.core.setProperty(device, name, value)

    def get(self, device: str, name: str) -> float:
        return float(self.core.getProperty(device, name))

    def go_to(self, z_um: float) -> None:
        self.core.setPosition(z_um)
        self.core.waitForDevice("Z")

    def focus(self) -> None:
        self.go_to(self.get("Z", "TrueFocus_um"))

    def snap(self) -> np.ndarray:
        self.core.snapImage()
        return self.core.getImage().astype(float)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    opened = Rig(CONFIGS / "simulated.cfg")
    yield opened
    release(opened.core)


def own_world(tmp_path: Path, name: str) -> Path:
    text = (CONFIGS / "simulated.cfg").read_text(encoding="utf-8")
    config = tmp_path / f"{name}.cfg"
    config.write_text(text.replace("World,simulated", f"World,{name}"), encoding="utf-8")
    return config


@pytest.mark.parametrize("name", ["simulated", "simulated_brightfield"])
def test_a_cfg_loads_and_its_focus_is_sharpest(name: str) -> None:
    rig = Rig(CONFIGS / f"{name}.cfg")
    try:
        in_focus_um = rig.get("Z", "TrueFocus_um")
        assert in_focus_um != 0  # drawn by FocusSeed
        detail = {}
        for dof in (-4, 0, 4):
            rig.go_to(in_focus_um + dof * DOF_UM)
            detail[dof] = np.abs(np.diff(rig.snap(), axis=1)).mean()
        assert max(detail, key=detail.__getitem__) == 0
    finally:
        release(rig.core)


def test_exposure_binning_roi_and_bit_depth_work_as_on_any_camera(rig: Rig) -> None:
    rig.focus()
    rig.set("Camera", Offset=0)
    whole = rig.snap()
    rig.core.setExposure(20.0)
    assert rig.snap().mean() == pytest.approx(2 * whole.mean(), rel=0.02)
    rig.core.setExposure(10.0)

    rig.core.setROI(32, 16, 100, 50)
    assert rig.core.getROI() == [32, 16, 100, 50]
    part = rig.snap()
    assert part.shape == (50, 100)
    assert part.mean() == pytest.approx(whole[16:66, 32:132].mean(), rel=0.05)

    rig.set("Camera", Binning="2")
    assert (rig.core.getImageHeight(), rig.core.getImageWidth()) == (96, 96)
    assert rig.snap().mean() == pytest.approx(4 * whole.mean(), rel=0.02)
    rig.set("Camera", Binning=1, BitDepth=8)
    assert rig.core.getImageBitDepth() == 8
    assert rig.snap().max() == 255
    rig.set("Camera", BitDepth=12, Photons=50000)
    assert rig.snap().max() == 4095


@pytest.mark.parametrize("wrong", [float("nan"), 0.0, -1.0])
def test_refuses_impossible_exposures(rig: Rig, wrong: float) -> None:
    with pytest.raises(ValueError, match="exposure"):
        rig.core.setExposure(wrong)


def test_refuses_positions_that_are_none(rig: Rig) -> None:
    for wrong in (float("nan"), float("inf"), 1001.0):
        with pytest.raises(ValueError, match="limits"):
            rig.core.setPosition(wrong)
    with pytest.raises(ValueError, match="within the allowed range"):
        rig.set("Z", Backlash_um=float("nan"))


CHANGES = {
    "Camera": {
        "Specimen": "filaments",
        "Seed": 2,
        "NA": 0.3,
        "ImmersionIndex": 1.33,
        "Wavelength_um": 0.7,
        "PixelSize_um": 0.65,
        "SphericalAberration_waves": 0.5,
        "Photons": 3000,
        "Background": 300,
        "PhotonsExposure_ms": 2.5,
        "UnevenIllumination": 0.8,
        "Offset": 900,
        "Gain": 3,
        "ReadNoise_e": 300,
        "HotPixels": 2000,
        "TiltX_um": 30,
        "TiltY_um": 30,
        "FluorescenceLeft": 0.3,
    },
    "Z": {"TrueFocus_um": 25, "FocusSeed": 9},
}


def test_every_setting_reaches_the_image(rig: Rig) -> None:
    rig.set("Camera", Photons=10000, Seed=1)
    rig.set("Z", TrueFocus_um=0)
    rig.go_to(1.0)
    plain = rig.snap()
    noise = np.abs(rig.snap() - plain).mean()
    for device, changes in CHANGES.items():
        for name, value in changes.items():
            before = rig.core.getProperty(device, name)
            rig.set(device, **{name: value})
            assert rig.core.getProperty(device, name) == value
            changed = np.abs(rig.snap() - plain).mean()
            assert changed > 1.5 * noise, f"{name} = {value} does not show"
            rig.set(device, **{name: before})


def test_a_world_ends_with_its_devices_whoever_still_holds_it() -> None:
    first = Rig(CONFIGS / "simulated.cfg")
    first.set("Z", TrueFocus_um=-77)
    held = visit_world(World, "simulated")
    release(first.core)
    second = Rig(CONFIGS / "simulated.cfg")
    try:
        assert held.true_focus_um == pytest.approx(-77)
        assert second.get("Z", "TrueFocus_um") != pytest.approx(-77)
    finally:
        release(second.core)


def test_condenser_matters_in_transmitted_light() -> None:
    rig = Rig(CONFIGS / "simulated_brightfield.cfg")
    try:
        rig.set("Camera", Specimen="phase", Photons=20000)
        rig.go_to(rig.get("Z", "TrueFocus_um") + 2 * DOF_UM)
        contrast = {}
        for ratio in (0.3, 1.0):
            rig.set("Camera", CondenserRatio=ratio)
            contrast[ratio] = rig.snap().std()
        assert contrast[0.3] > 1.5 * contrast[1.0]
    finally:
        release(rig.core)


def test_phase_contrast_shows_in_focus_what_the_bright_field_hides() -> None:
    rig = Rig(CONFIGS / "simulated_brightfield.cfg")
    try:
        rig.set("Camera", Specimen="phase", Photons=20000)
        rig.go_to(rig.get("Z", "TrueFocus_um"))
        seen = {}
        for contrast in ("brightfield", "phase_contrast", "interference_contrast"):
            rig.set("Camera", Contrast=contrast)
            seen[contrast] = rig.snap().std()
        assert seen["phase_contrast"] > 3 * seen["brightfield"]
        assert seen["interference_contrast"] > 3 * seen["brightfield"]
    finally:
        release(rig.core)


def test_repeats_itself_for_the_same_seed_and_history(tmp_path: Path) -> None:
    def history(name: str, noise_seed: int) -> list[np.ndarray]:
        rig = Rig(own_world(tmp_path, name))
        try:
            rig.set("Camera", NoiseSeed=noise_seed, LampFlicker=0.1, Bleaching=0.01)
            rig.set("Z", Repeatability_um=0.3, SettleTime_ms=50, Drift_um_s=1.0)
            frames = []
            for z_um in (3.0, -2.0, 5.0):
                rig.go_to(z_um)
                frames.append(rig.snap())
            return frames
        finally:
            release(rig.core)

    first, again, other = history("a", 1), history("b", 1), history("c", 2)
    assert all(map(np.array_equal, first, again))
    assert not any(map(np.array_equal, first, other))


def test_two_worlds_do_not_mix(tmp_path: Path) -> None:
    one, two = (Rig(own_world(tmp_path, name)) for name in ("one", "two"))
    try:
        one.set("Z", TrueFocus_um=10)
        two.set("Z", TrueFocus_um=-10)
        one.go_to(4.0)
        two.set("Camera", Seed=7)
        assert one.get("Z", "TrueFocus_um") == 10
        assert two.core.getPosition() == 0
        assert one.get("Camera", "Seed") == 1
        with pytest.raises(RuntimeError, match="already in the world"):
            one.set("Z", World="two")
    finally:
        release(one.core)
        release(two.core)


def test_a_world_ends_with_its_devices(tmp_path: Path) -> None:
    config = own_world(tmp_path, "brief")
    rig = Rig(config)
    rig.go_to(5.0)
    release(rig.core)
    del rig
    gc.collect()
    rig = Rig(config)
    try:
        assert rig.core.getPosition() == 0
    finally:
        release(rig.core)


def test_without_light_there_is_only_offset_and_noise_and_nothing_bleaches(rig: Rig) -> None:
    rig.set("Camera", Bleaching=0.1)
    rig.core.setShutterOpen(False)
    dark = rig.snap()
    assert dark.mean() == pytest.approx(100, abs=0.1)
    assert dark.std() == pytest.approx(1.53, abs=0.1)
    assert rig.get("Camera", "FluorescenceLeft") == 1
    rig.core.setShutterOpen(True)
    assert rig.snap().mean() > 110


def test_every_exposure_bleaches_by_its_dose(rig: Rig) -> None:
    rig.set("Camera", Bleaching=0.1, Background=0, Offset=0)
    rig.focus()
    first = rig.snap().mean()
    assert rig.get("Camera", "FluorescenceLeft") == pytest.approx(0.9)
    assert rig.snap().mean() == pytest.approx(0.9 * first, rel=0.02)
    rig.core.setExposure(30.0)
    rig.snap()
    assert rig.get("Camera", "FluorescenceLeft") == pytest.approx(0.9**5)
    rig.set("Camera", FluorescenceLeft=1)
    rig.core.setExposure(10.0)
    assert rig.snap().mean() == pytest.approx(first, rel=0.02)


def test_the_lamp_flickers(rig: Rig) -> None:
    rig.set("Camera", Photons=5000, LampFlicker=0.05)
    means = [rig.snap().mean() - 100 for _ in range(40)]
    assert np.std(means) / np.mean(means) == pytest.approx(0.05, rel=0.4)


def test_backlash_hides_between_read_back_and_truth(rig: Rig) -> None:
    rig.set("Z", Backlash_um=2.0, TrueFocus_um=0)
    # After (asked for): where the carriage is. 6 is a reversal shorter than the play.
    for asked, true in ((10, 10), (5, 7), (6, 7), (7.5, 7.5), (0, 2), (-3, -1), (0, 0)):
        rig.go_to(asked)
        assert rig.core.getPosition() == asked
        assert rig.get("Z", "TrueDefocus_um") == pytest.approx(true)


def test_the_screw_stops_somewhere_around(rig: Rig) -> None:
    rig.set("Z", Repeatability_um=0.5, TrueFocus_um=0)
    errors = []
    for _ in range(100):
        rig.go_to(3.0)
        errors.append(rig.get("Z", "TrueDefocus_um") - 3.0)
    assert np.mean(errors) == pytest.approx(0, abs=0.2)
    assert np.std(errors) == pytest.approx(0.5, rel=0.25)


def test_a_move_swings_until_it_has_settled(rig: Rig) -> None:
    rig.set("Z", SettleTime_ms=100, TrueFocus_um=0)
    rig.core.setExposure(10.0)
    rig.go_to(10.0)
    off = []
    for _ in range(12):
        rig.snap()  # 10 ms each
        off.append(abs(rig.get("Z", "TrueDefocus_um") - 10.0))
    assert off[0] > 0.3
    assert max(off[10:]) < 0.03
    assert rig.core.getPosition() == 10


def test_focus_drifts_with_time(rig: Rig) -> None:
    rig.set("Z", TrueFocus_um=5.0, Drift_um_s=2.0)
    rig.core.setExposure(500.0)
    rig.snap()
    assert rig.get("Z", "TrueFocus_um") == pytest.approx(6.0)
    rig.set("Z", TrueFocus_um=5.0)
    assert rig.get("Z", "TrueFocus_um") == pytest.approx(5.0)


def test_tilt_puts_every_side_in_focus_elsewhere(rig: Rig) -> None:
    rig.set("Camera", Specimen="tissue", Photons=5000, TiltX_um=20.0)
    rig.set("Z", TrueFocus_um=0)

    def detail(z_um: float) -> tuple[float, float]:
        rig.go_to(z_um)
        steps = np.abs(np.diff(rig.snap(), axis=0))
        return float(steps[:, :48].mean()), float(steps[:, -48:].mean())

    # Rising to the right by 20 um over the frame: quarter strips are in focus at -7.5 and 7.5.
    (left_low, right_low), (left_high, right_high) = detail(-7.5), detail(7.5)
    assert left_low > 1.5 * left_high
    assert right_high > 1.5 * right_low


def test_tilt_goes_on_under_the_xy_stage(rig: Rig) -> None:
    rig.set("Camera", TiltX_um=6.24)  # over 192 px of 0.325 um: 0.1 um for each um
    rig.set("Z", TrueFocus_um=0)
    rig.core.setXYPosition(50.0, 80.0)
    assert rig.get("Z", "TrueFocus_um") == pytest.approx(5.0)


def test_the_xy_stage_moves_the_picture_and_wraps_around(rig: Rig) -> None:
    rig.set("Camera", Photons=50000)
    rig.focus()
    before = rig.snap()
    rig.core.setXYPosition(10 * 0.325, -4 * 0.325)
    assert rig.core.getXYPosition() == pytest.approx([3.25, -1.3])
    moved = rig.snap()
    shifted = np.roll(before, (4, -10), axis=(0, 1))
    assert np.corrcoef(moved.ravel(), shifted.ravel())[0, 1] > 0.99
    assert np.corrcoef(moved.ravel(), before.ravel())[0, 1] < 0.9
    rig.core.setXYPosition(192 * 0.325, 0.0)
    assert np.corrcoef(rig.snap().ravel(), before.ravel())[0, 1] > 0.99


def test_a_turn_of_the_turret_changes_na_and_pixel_size(rig: Rig) -> None:
    assert rig.core.getStateLabel("Objective") == "20x/0.75"
    rig.core.setStateLabel("Objective", "40x/0.95")
    assert rig.get("Camera", "NA") == 0.95
    assert rig.get("Camera", "PixelSize_um") == 0.1625


def test_stale_frames_are_the_last_one_again(rig: Rig) -> None:
    fresh = rig.snap()
    rig.set("Camera", StaleFrames=1)
    rig.go_to(8.0)
    assert np.array_equal(rig.snap(), fresh)
    rig.set("Camera", StaleFrames=0)
    assert not np.array_equal(rig.snap(), fresh)


def test_a_stuck_stage_reads_back_what_it_was_told(rig: Rig) -> None:
    rig.set("Z", TrueFocus_um=0, Stuck=1)
    rig.go_to(12.0)
    assert rig.core.getPosition() == 12
    assert rig.get("Z", "TrueDefocus_um") == 0


def test_the_truth_cannot_be_overwritten(rig: Rig) -> None:
    assert rig.core.isPropertyReadOnly("Z", "TrueDefocus_um")
    with pytest.raises(ValueError, match="read-only"):
        rig.set("Z", TrueDefocus_um=1.0)


def test_focus_seeds_draw_within_their_range(rig: Rig) -> None:
    drawn = []
    rig.set("Z", FocusRange_um=40)
    for seed in range(30):
        rig.set("Z", FocusSeed=seed)
        drawn.append(rig.get("Z", "TrueFocus_um"))
    assert len(set(drawn)) == 30
    assert max(map(abs, drawn)) <= 20
    assert max(drawn) - min(drawn) > 25
    rig.set("Z", FocusSeed=0)
    assert rig.get("Z", "TrueFocus_um") == drawn[0]


def test_aberration_parts_the_sharpest_plane_from_the_true_focus(rig: Rig) -> None:
    rig.set("Z", TrueFocus_um=3.0)
    world = visit_world(World, "simulated")
    assert world.true_sharpest_um == pytest.approx(3.0, abs=0.1 * DOF_UM)
    rig.set("Camera", Specimen="absorption", SphericalAberration_waves=0.3)
    assert abs(world.true_sharpest_um - 3.0) > 0.5 * DOF_UM


def test_real_time_takes_its_time_and_can_be_stopped(rig: Rig) -> None:
    rig.set("Z", Speed_um_s=50, TrueFocus_um=0)
    rig.set("Camera", TimeScale=1)
    rig.core.setExposure(60.0)
    began_s = time.monotonic()
    rig.snap()
    assert time.monotonic() - began_s >= 0.06
    rig.core.setPosition(100.0)
    assert rig.core.deviceBusy("Z")
    time.sleep(0.1)
    rig.core.stop("Z")
    assert not rig.core.deviceBusy("Z")
    assert 2 < rig.core.getPosition() < 90
    assert rig.get("Z", "TrueDefocus_um") == pytest.approx(rig.core.getPosition())


def test_never_sleeping_passes_simulated_time(rig: Rig) -> None:
    rig.set("Z", Speed_um_s=1.0)
    rig.core.setExposure(5000.0)
    began_s = time.monotonic()
    rig.go_to(30.0)
    rig.snap()
    assert time.monotonic() - began_s < 3
    assert rig.core.getPosition() == 30


def test_live_frames_arrive(rig: Rig) -> None:
    rig.core.startSequenceAcquisition(3, 0, True)
    deadline_s = time.monotonic() + 10
    while rig.core.isSequenceRunning() and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert rig.core.getRemainingImageCount() == 3
    assert rig.core.popNextImage().shape == (192, 192)


def test_an_empty_field_is_background_alone(rig: Rig) -> None:
    rig.set("Camera", Specimen="empty")
    counts = rig.snap()
    assert counts.mean() == pytest.approx(105, abs=0.2)
    assert counts.var() == pytest.approx(5 + 1.5**2 + 1 / 12, rel=0.05)


def test_worlds_are_joined_by_kind_and_name() -> None:
    world = join_world(World, "here")
    assert join_world(World, "here") is world
    assert join_world(World, "there") is not world


def test_a_frame_is_rendered_in_time() -> None:
    """512 x 512 at a new height: < 40 ms of one core on the project's machine; here with slack."""
    world = World()
    world.expose(10.0, 1, (0, 0, 512, 512))
    began_s = time.process_time()
    for z_um in (1.0, 2.0, 3.0, 4.0, 5.0):
        world.go_to_z(z_um)
        world.expose(10.0, 1, (0, 0, 512, 512))
    assert (time.process_time() - began_s) / 5 < 0.2
