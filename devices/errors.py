"""Everything that can go wrong with the hardware.

DeviceError
├── DeviceConfigError   a .cfg, device label or role that cannot be used
├── SettingRefused      exposure, ROI, binning or channel the hardware does not take
├── MoveRefused         a move that was never sent to the stage
│   ├── LimitError      outside the soft limits, or not a number
│   └── Halted          forbidden since somebody pressed stop
├── MoveFailed          sent, but the stage did not arrive
├── SnapFailed          the camera gave no usable frame
├── SpecimenMoved       objective, XY stage or turret changed during a run
├── RestoreFailed       something could not be put back as it was before a run
└── DeviceTimeout       a device did not answer in time
"""


class DeviceError(Exception):
    """Base of every hardware error; raised as itself for what the core reports without kind."""


class DeviceConfigError(DeviceError):
    """A ``.cfg``, device or role that cannot be used; names the line and the device."""


class SettingRefused(DeviceError):  # noqa: N818
    """An exposure, ROI, binning or channel that this hardware does not take."""


class MoveRefused(DeviceError):  # noqa: N818
    """A move that was refused before anything was sent to the stage."""


class LimitError(MoveRefused):
    """A position outside the soft limits, infinite, or not a number."""


class Halted(MoveRefused):
    """Moves are forbidden because a stop was requested."""


class MoveFailed(DeviceError):  # noqa: N818
    """The stage took the move but its read-back position is not the one asked for."""


class SnapFailed(DeviceError):  # noqa: N818
    """The camera gave no usable frame."""


class SpecimenMoved(DeviceError):  # noqa: N818
    """The objective, the XY position or a turret is not what it was when the run began."""


class RestoreFailed(DeviceError):  # noqa: N818
    """Something could not be put back as it was before a run; the message names every item."""


class DeviceTimeout(DeviceError):  # noqa: N818
    """A device did not become ready in the time allowed."""
