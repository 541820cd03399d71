"""What every microscope must do, on each of those listed in conftest."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from devices import (
    AcquisitionSettings,
    DeviceError,
    Halted,
    LimitError,
    Microscope,
    MicroscopeSettings,
    Roi,
    SettingRefused,
)


def test_moves_and_reads_back(microscope: Microscope) -> None:
    z_um = microscope.move_to(12.5)
    assert z_um == pytest.approx(12.5, abs=microscope.settings.arrival_tolerance_um)
    assert microscope.z_um() == pytest.approx(z_um, abs=1e-3)
    assert microscope.state.z_um == pytest.approx(z_um, abs=1e-3)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf, 1e9, -1e9])
def test_refuses_positions_outside_the_limits_and_stays(
    microscope: Microscope, wrong: float
) -> None:
    before_um = microscope.z_um()
    with pytest.raises(LimitError):
        microscope.move_to(wrong)
    assert microscope.z_um() == pytest.approx(before_um, abs=1e-3)


def test_reaches_its_limits(microscope: Microscope) -> None:
    for limit_um in (microscope.settings.z_max_um, microscope.settings.z_min_um):
        assert microscope.move_to(limit_um) == pytest.approx(
            limit_um, abs=microscope.settings.arrival_tolerance_um
        )


def test_a_frame_says_where_and_how_it_was_taken(microscope: Microscope) -> None:
    with microscope.acquisition(AcquisitionSettings(exposure_ms=7)):
        z_um = microscope.move_to(8)
        before_s = time.monotonic()
        frame = microscope.snap()
    assert frame.image.ndim == 2
    assert frame.image.shape == (microscope.state.roi.height, microscope.state.roi.width)
    assert frame.z_um == pytest.approx(z_um, abs=1e-3)
    assert frame.exposure_ms == pytest.approx(7)
    assert frame.binning == 1
    assert int(frame.image.max()) < 2**frame.bit_depth
    assert before_s <= frame.t_s <= time.monotonic()


def test_frames_do_not_share_memory(microscope: Microscope) -> None:
    microscope.move_to(0)
    first = microscope.snap()
    kept = first.image.copy()
    microscope.move_to(20)
    second = microscope.snap()
    np.testing.assert_array_equal(first.image, kept)
    assert not np.array_equal(first.image, second.image)


def test_applies_settings_and_puts_them_back(microscope: Microscope) -> None:
    microscope.move_to(15)
    before = microscope.refresh()
    wanted = AcquisitionSettings(exposure_ms=20, roi=Roi(8, 16, 64, 32))
    with microscope.acquisition(wanted):
        microscope.move_to(-5)
        frame = microscope.snap()
        assert frame.image.shape == (32, 64)
        assert microscope.state.roi == wanted.roi
        assert microscope.state.busy
    after = microscope.refresh()
    assert (after.exposure_ms, after.roi, after.binning) == (
        before.exposure_ms,
        before.roi,
        before.binning,
    )
    assert after.z_um == pytest.approx(before.z_um, abs=1e-3)
    assert not after.busy


def test_puts_everything_back_when_the_run_fails(microscope: Microscope) -> None:
    microscope.move_to(15)
    before = microscope.refresh()
    with (  # noqa: PT012
        pytest.raises(ZeroDivisionError),
        microscope.acquisition(AcquisitionSettings(exposure_ms=20, roi=Roi(8, 16, 64, 32))),
    ):
        microscope.move_to(-5)
        raise ZeroDivisionError
    after = microscope.refresh()
    assert (after.exposure_ms, after.roi) == (before.exposure_ms, before.roi)
    assert after.z_um == pytest.approx(before.z_um, abs=1e-3)


def test_stays_at_the_peak_when_told_to(microscope: Microscope) -> None:
    microscope.move_to(15)
    with microscope.acquisition(AcquisitionSettings()) as acquisition:
        z_um = microscope.move_to(-5)
        acquisition.keep_z()
    assert microscope.z_um() == pytest.approx(z_um, abs=1e-3)


def test_returns_after_a_halt_and_moves_again_only_after_resume(microscope: Microscope) -> None:
    microscope.move_to(15)
    with (  # noqa: PT012
        pytest.raises(Halted),
        microscope.acquisition(AcquisitionSettings(exposure_ms=20)),
    ):
        microscope.move_to(-5)
        assert microscope.halt() in ("stopped", "pending")
        microscope.move_to(0)
    assert microscope.z_um() == pytest.approx(15, abs=microscope.settings.arrival_tolerance_um)
    assert microscope.halted
    assert microscope.state.halted
    with pytest.raises(Halted):
        microscope.move_to(0)
    microscope.resume()
    microscope.move_to(0)


@pytest.mark.parametrize(
    "wrong",
    [
        AcquisitionSettings(exposure_ms=math.nan),
        AcquisitionSettings(exposure_ms=0),
        AcquisitionSettings(binning=7),
        AcquisitionSettings(channel="no such channel"),
        AcquisitionSettings(exposure_ms=20, roi=Roi(0, 0, 100_000, 10)),
        AcquisitionSettings(exposure_ms=20, roi=Roi(-1, 0, 10, 10)),
        AcquisitionSettings(exposure_ms=20, roi=Roi(0, 0, 0, 10)),
    ],
)
def test_refuses_settings_the_hardware_does_not_take(
    microscope: Microscope, wrong: AcquisitionSettings
) -> None:
    before = microscope.refresh()
    with pytest.raises(SettingRefused), microscope.acquisition(wrong):
        pytest.fail("the run must not begin")
    after = microscope.refresh()
    assert (after.exposure_ms, after.roi, after.binning, after.channel) == (
        before.exposure_ms,
        before.roi,
        before.binning,
        before.channel,
    )


def test_state_lists_the_devices(microscope: Microscope, settings: MicroscopeSettings) -> None:
    state = microscope.state
    labels = [device.label for device in state.devices]
    assert {state.focus_device, state.camera} <= set(labels)
    assert {device.initialization for device in state.devices} == {"InitializedSuccessfully"}
    assert (state.z_min_um, state.z_max_um) == (settings.z_min_um, settings.z_max_um)


def test_is_of_no_use_after_close(settings: MicroscopeSettings) -> None:
    microscope = Microscope.open(settings)
    microscope.close()
    microscope.close()
    with pytest.raises(DeviceError, match="closed"):
        microscope.z_um()
    assert microscope.state.devices


def test_can_be_opened_again(settings: MicroscopeSettings) -> None:
    for _ in range(2):
        with Microscope.open(settings) as microscope:
            microscope.move_to(1)
