"""Micro-Manager cores: loading one, letting it go, and turning its exceptions into ours.

The only module that imports pymmcore-plus' experimental Python-device core, and the only place
where an exception of MMCore (or of a Python device behind it) becomes a `DeviceError`.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devices.cfg import INITIALIZE, Cfg, read_cfg
from devices.errors import (
    DeviceConfigError,
    DeviceError,
    DeviceTimeout,
    MoveFailed,
    SettingRefused,
    SnapFailed,
)
from devices.values import DeviceInfo

if TYPE_CHECKING:
    from pymmcore_plus import CMMCorePlus

_KIND_OF_FAILURE: dict[str, type[DeviceError]] = {
    "setPosition": MoveFailed,
    "snapImage": SnapFailed,
    "getImage": SnapFailed,
    "startSequenceAcquisition": SnapFailed,
    "popNextImage": SnapFailed,
    "setExposure": SettingRefused,
    "setROI": SettingRefused,
    "clearROI": SettingRefused,
    "setProperty": SettingRefused,
    "setConfig": SettingRefused,
    "setCameraDevice": DeviceConfigError,
}


class Core:
    """A Micro-Manager core that raises nothing but `DeviceError`.

    Every method of ``CMMCorePlus`` is called by its own name. Failures say which call with which
    arguments, and are as narrow as the call allows: a failed ``setPosition`` is a `MoveFailed`.

    Parameters
    ----------
    core : CMMCorePlus
        A loaded core.
    """

    def __init__(self, core: CMMCorePlus) -> None:
        self._core: CMMCorePlus | None = core

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if self._core is None:
            raise DeviceError(f"{name}: the microscope is closed")
        return partial(_call, getattr(self._core, name), name)

    @property
    def dropped(self) -> bool:
        """Whether the core was let go of."""
        return self._core is None

    def drop(self) -> None:
        """Let go of the core; every later call raises."""
        self._core = None

    def devices(self) -> tuple[DeviceInfo, ...]:
        """List the loaded devices, the core itself left out."""
        return tuple(
            DeviceInfo(
                label,
                self.getDeviceLibrary(label),
                self.getDeviceName(label),
                self.getDeviceInitializationState(label).name,
            )
            for label in self.getLoadedDevices()
            if label != "Core"
        )

    def labels_of(self, kind: str) -> tuple[str, ...]:
        """List the loaded devices of a kind, such as ``CameraDevice`` or ``StageDevice``."""
        from pymmcore_plus import DeviceType

        return tuple(self.getLoadedDevicesOfType(DeviceType[kind]))

    @contextmanager
    def lit(self, camera: str) -> Iterator[None]:
        """Light a snap as auto-shutter would, for cameras it forgets.

        MMCore opens the shutter around a snap itself, but not for a Python camera
        (pymmcore-plus 0.18, ``UniMMCore._do_snap_image``).
        """
        shutter = self.getShutterDevice() if self.getAutoShutter() else ""
        if not shutter or not self._is_python_device(camera):
            yield
            return
        self.setShutterOpen(shutter, True)
        try:
            yield
        finally:
            self.setShutterOpen(shutter, False)

    def _is_python_device(self, label: str) -> bool:
        return hasattr(self._core, "isPyDevice") and bool(self.isPyDevice(label))


def load_core(config: Path, adapter_paths: Sequence[Path] = ()) -> CMMCorePlus:
    """Load a ``.cfg`` into a new core and check that every device and role works.

    Parameters
    ----------
    config : Path
        Lines that start with ``#py`` load Python devices, through pymmcore-plus' experimental
        core; without any the plain core is used.
    adapter_paths : sequence of Path
        Folders with device adapters; empty uses those of mm-test-adapters and of the
        Micro-Manager that pymmcore-plus finds.

    Raises
    ------
    DeviceConfigError
        Naming the line and the device: unknown adapter, device, property or role, or a device
        that does not initialize.
    """
    cfg = read_cfg(config)
    cfg.check_initializes()
    core = _new_core(cfg.needs_python_devices, adapter_paths)
    try:
        with _complaints() as complaints:
            _load(core, cfg)
        _check_initialized(core, cfg, complaints)
        _check_roles(core, cfg)
    except BaseException:
        release(core)
        raise
    return core


def release(core: CMMCorePlus) -> None:
    """Stop every camera, unload every device and detach the callbacks.

    A core that still delivers callbacks when the interpreter exits aborts the process.

    Raises
    ------
    DeviceError
        If a device cannot be stopped or unloaded; the callbacks are detached all the same.
    """
    from pymmcore_plus._pymmcore import CMMCore

    ours = Core(core)
    try:
        for camera in ours.labels_of("CameraDevice"):
            if ours.isSequenceRunning(camera):
                # The core unloads nothing while a sequence runs.
                ours.stopSequenceAcquisition(camera)
        ours.unloadAllDevices()
    finally:
        # Not core.registerCallback, which CMMCorePlus forbids.
        CMMCore.registerCallback(core, None)


def _call(method: Callable[..., Any], name: str, *args: Any) -> Any:
    try:
        return method(*args)
    except DeviceError:
        raise
    except Exception as error:
        raise _ours(name, args, error) from error


def _ours(name: str, args: tuple[Any, ...], error: Exception) -> DeviceError:
    said = " ".join(str(error).split()) or type(error).__name__
    message = f"{name}({', '.join(map(repr, args))}) failed: {said}"
    if isinstance(error, TimeoutError) or "timed out" in said:
        return DeviceTimeout(message)
    return _KIND_OF_FAILURE.get(name, DeviceError)(message)


def _new_core(python_devices: bool, adapter_paths: Sequence[Path]) -> CMMCorePlus:
    with _quiet_import():
        from pymmcore_plus import CMMCorePlus, find_micromanager
    core_class: type[CMMCorePlus] = CMMCorePlus
    if python_devices:
        from pymmcore_plus.experimental.unicore import UniMMCore

        core_class = UniMMCore
    paths = [str(path) for path in adapter_paths]
    if not paths:
        from mm_test_adapters import device_adapter_path

        paths = list(dict.fromkeys(p for p in (device_adapter_path(), find_micromanager()) if p))
    return core_class(adapter_paths=paths)


@contextmanager
def _quiet_import() -> Iterator[None]:
    """Keep the first import of pymmcore-plus from taking over the process' logging.

    It sets the root logger to DEBUG and writes a log file to the home directory, which a
    service account may not have. Failures reach people as our exceptions instead. A program
    that imported it before keeps what it set up.
    """
    if "pymmcore_plus" in sys.modules:
        yield
        return
    os.environ.setdefault("PYMM_LOG_FILE", "0")
    level = logging.root.level
    try:
        yield
    finally:
        logging.root.setLevel(level)
        for name in ("pymmcore-plus", "pymmcore_plus"):
            logging.getLogger(name).handlers = [logging.NullHandler()]


def _load(core: CMMCorePlus, cfg: Cfg) -> None:
    try:
        core.loadSystemConfiguration(str(cfg.path))
    except Exception as error:
        said = " ".join(str(error).split())
        raise DeviceConfigError(f"{cfg.where_blamed(str(error))}: {said}") from error


@contextmanager
def _complaints() -> Iterator[list[logging.LogRecord]]:
    """Collect what the core only logs: why a Python device did not initialize."""
    logger = logging.getLogger("pymmcore_plus")
    collector = _Collector()
    logger.addHandler(collector)
    try:
        yield collector.records
    finally:
        logger.removeHandler(collector)


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def _check_initialized(
    core: CMMCorePlus, cfg: Cfg, complaints: Sequence[logging.LogRecord]
) -> None:
    """Refuse devices that failed to initialize, which the core only logs."""
    for device in Core(core).devices():
        if device.initialization == "InitializedSuccessfully":
            continue
        raise DeviceConfigError(
            f"{cfg.where_loaded(device.label)}: device {device.label!r} ({device.library}/"
            f"{device.name}) did not initialize (state {device.initialization})"
            f"{_reason(device.label, complaints)}; check that it is switched on and connected, "
            f"and that its lines come before `{INITIALIZE}`"
        )


def _reason(label: str, complaints: Sequence[logging.LogRecord]) -> str:
    for record in complaints:
        if repr(label) in record.getMessage() and record.exc_info:
            return f": {record.exc_info[1]}"
    return ""


def _check_roles(core: CMMCorePlus, cfg: Cfg) -> None:
    """Refuse roles that the core silently dropped: it accepts an unknown focus device."""
    for role, kind in {"Camera": "CameraDevice", "Focus": "StageDevice"}.items():
        suitable = Core(core).labels_of(kind)
        wanted = cfg.role(role)
        if wanted and wanted not in suitable:
            raise DeviceConfigError(
                f"{cfg.where_role(role)}: {wanted!r} cannot be the {role} device; "
                f"loaded and suitable: {', '.join(suitable) or 'none'}"
            )
