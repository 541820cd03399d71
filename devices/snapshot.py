"""What a run may change on the microscope, read before it and put back after it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from devices.camera import Camera
from devices.errors import DeviceError, SettingRefused
from devices.micromanager import Core
from devices.values import AcquisitionSettings, Roi


@dataclass(frozen=True)
class Snapshot:
    """Everything to put back; plain values, so that it can be written to disk.

    Attributes
    ----------
    channel : tuple of (device, property, value)
        Every property the presets of the channel group set; this also puts back a state that
        is no preset.
    shutters_open : tuple of (shutter, open)
        Every shutter.
    live : bool
        A sequence was running, which blocks snaps.
    continuous_focus : bool
        A hardware autofocus was holding the stage, which fights every move.
    """

    z_um: float
    exposure_ms: float
    binning: int
    roi: Roi
    channel: tuple[tuple[str, str, str], ...]
    shutter: str
    shutters_open: tuple[tuple[str, bool], ...]
    auto_shutter: bool
    continuous_focus: bool
    live: bool


def take_snapshot(core: Core, camera: Camera, z_um: float) -> Snapshot:
    """Read everything that `restore` puts back; changes nothing."""
    return Snapshot(
        z_um=z_um,
        exposure_ms=camera.exposure_ms(),
        binning=camera.binning(),
        roi=camera.roi(),
        channel=tuple(_channel_settings(core)),
        shutter=core.getShutterDevice(),
        shutters_open=tuple(
            (s, bool(core.getShutterOpen(s))) for s in core.labels_of("ShutterDevice")
        ),
        auto_shutter=bool(core.getAutoShutter()),
        continuous_focus=bool(core.isContinuousFocusEnabled()),
        live=camera.live(),
    )


def prepare(core: Core, camera: Camera, before: Snapshot, wanted: AcquisitionSettings) -> None:
    """Make the microscope ready for snaps with the settings wanted.

    Auto-shutter stays as it is: on, every frame is lit for just its exposure; off, the light is
    what its user left.

    Raises
    ------
    SettingRefused
        If the hardware does not take one of them; some may have been set by then.
    """
    if before.live:
        camera.stop_live()
    if before.continuous_focus:
        core.enableContinuousFocus(False)
    if wanted.channel is not None:
        _set_channel(core, wanted.channel)
    _require_role(core, camera)
    if wanted.binning is not None:
        camera.set_binning(wanted.binning)
    if wanted.roi is not None:
        camera.set_roi(wanted.roi)
    if wanted.exposure_ms is not None:
        # Last: a channel preset or the binning may bring an exposure of its own.
        camera.set_exposure_ms(wanted.exposure_ms)


def restore(
    core: Core,
    camera: Camera,
    before: Snapshot,
    return_stage: Callable[[], None],
    read_state: Callable[[], None],
    *,
    z_kept: bool = False,
) -> list[str]:
    """Put everything back, whatever fails on the way.

    Parameters
    ----------
    return_stage : callable
        Brings the stage back, or does nothing.
    read_state : callable
        Reads back what the microscope is like now, as the last step.
    z_kept : bool
        The stage stays where it is; continuous focus, which would pull it away, stays off.

    Returns
    -------
    list of str
        What could not be put back, and why; empty when all is as it was.
    """
    failures: dict[str, DeviceError] = {}
    held = before.continuous_focus and not z_kept

    def restore_continuous_focus() -> None:
        if "z" in failures:
            raise DeviceError("left off, for it would move a stage that is not back")
        core.enableContinuousFocus(True)

    steps: tuple[tuple[str, Callable[[], object]], ...] = (
        ("sequence", lambda: camera.stop_live() if camera.live() else None),
        # The stage before the slower rest, so that the specimen is safe soonest.
        ("z", return_stage),
        ("channel", lambda: _restore_properties(core, before.channel)),
        # Binning before ROI: a change of binning rescales it.
        ("binning", lambda: camera.set_binning(before.binning)),
        ("ROI", lambda: camera.set_roi(before.roi) if camera.roi() != before.roi else None),
        ("exposure", lambda: _restore_exposure(camera, before.exposure_ms)),
        ("shutter", lambda: _restore_shutters(core, before)),
        ("continuous focus", restore_continuous_focus if held else _nothing),
        ("live mode", lambda: camera.start_live() if before.live else None),
        ("state", read_state),
    )
    for name, step in steps:
        if failure := _failure_of(step):
            failures[name] = failure
    if failures and before.continuous_focus and z_kept:
        failures["continuous focus"] = DeviceError("left off, for the stage stays where it is")
    return [f"{name}: {failure}" for name, failure in failures.items()]


def channel_devices(core: Core) -> set[str]:
    """Labels of the devices that the presets of the channel group set."""
    return {device for device, _, _ in _channel_settings(core)}


def _failure_of(step: Callable[[], object]) -> DeviceError | None:
    try:
        step()
    except DeviceError as error:
        return error
    return None


def _all(steps: Iterable[Callable[[], object]]) -> None:
    """Take every step, then raise what failed: light is left on by none because of another."""
    failures = [failure for step in steps if (failure := _failure_of(step))]
    if failures:
        raise DeviceError("; ".join(map(str, failures))) from failures[0]


def _set_channel(core: Core, channel: str) -> None:
    group = core.getChannelGroup()
    presets = tuple(core.getAvailableConfigs(group)) if group else ()
    if channel not in presets:
        raise SettingRefused(
            f"channel {channel!r} is no preset of the channel group {group!r}: "
            f"{', '.join(presets) or 'it has none'}"
        )
    core.setConfig(group, channel)
    core.waitForConfig(group, channel)


def _require_role(core: Core, camera: Camera) -> None:
    exposing = core.getCameraDevice()
    if exposing != camera.label:
        raise SettingRefused(
            f"frames would come from camera {exposing!r}; this rig exposes with {camera.label!r}. "
            "Take Core,Camera out of the channel's preset, or name the other in the rig file"
        )


def _channel_settings(core: Core) -> Iterator[tuple[str, str, str]]:
    group = core.getChannelGroup()
    if not group:
        return
    for device, name, value in core.getConfigGroupState(group):
        yield device, name, str(value)


def _restore_properties(core: Core, settings: tuple[tuple[str, str, str], ...]) -> None:
    changed: set[str] = set()

    def put_back(device: str, name: str, value: str) -> None:
        if str(core.getProperty(device, name)) != value:
            changed.add(device)
            core.setProperty(device, name, value)

    try:
        _all(partial(put_back, *setting) for setting in settings)
    finally:
        _all(partial(core.waitForDevice, device) for device in sorted(changed - {"Core"}))


def _restore_exposure(camera: Camera, exposure_ms: float) -> None:
    if camera.exposure_ms() != exposure_ms:
        camera.set_exposure_ms(exposure_ms)


def _restore_shutters(core: Core, before: Snapshot) -> None:
    def role() -> None:
        if core.getShutterDevice() != before.shutter:
            core.setShutterDevice(before.shutter)

    def put_back(shutter: str, was_open: bool) -> None:
        # Auto-shutter had opened this one for the live view, and will again.
        by_live = before.live and before.auto_shutter and shutter == before.shutter
        wanted = was_open and not by_live
        if bool(core.getShutterOpen(shutter)) != wanted:
            core.setShutterOpen(shutter, wanted)

    def auto() -> None:
        if bool(core.getAutoShutter()) != before.auto_shutter:
            core.setAutoShutter(before.auto_shutter)

    _all([role, *(partial(put_back, *each) for each in before.shutters_open), auto])


def _nothing() -> None:
    """Put back what was not there."""
