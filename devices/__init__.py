"""Hardware behind MMCore: guarded moves and frames. Knows nothing of focus or models."""

from devices.errors import (
    DeviceConfigError,
    DeviceError,
    DeviceTimeout,
    Halted,
    LimitError,
    MoveFailed,
    MoveRefused,
    RestoreFailed,
    SettingRefused,
    SnapFailed,
    SpecimenMoved,
)
from devices.hardware_thread import HardwareThread
from devices.microscope import Acquisition, Microscope
from devices.sweeping import Sweep
from devices.values import (
    AcquisitionSettings,
    DeviceInfo,
    Frame,
    MicroscopeSettings,
    MicroscopeState,
    Roi,
)

__all__ = [
    "Acquisition",
    "AcquisitionSettings",
    "DeviceConfigError",
    "DeviceError",
    "DeviceInfo",
    "DeviceTimeout",
    "Frame",
    "Halted",
    "HardwareThread",
    "LimitError",
    "Microscope",
    "MicroscopeSettings",
    "MicroscopeState",
    "MoveFailed",
    "MoveRefused",
    "RestoreFailed",
    "Roi",
    "SettingRefused",
    "SnapFailed",
    "SpecimenMoved",
    "Sweep",
]
