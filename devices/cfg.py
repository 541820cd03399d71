"""Micro-Manager ``.cfg`` files as text: which line is to blame for what the core says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from devices.errors import DeviceConfigError

PYTHON_PREFIX = "#py "
INITIALIZE = "Property,Core,Initialize,1"


@dataclass(frozen=True)
class CfgLine:
    """One command of a ``.cfg``; a Python device's line without its ``#py`` prefix."""

    number: int
    fields: tuple[str, ...]
    python: bool

    def __str__(self) -> str:
        return f"line {self.number} ({','.join(self.fields)})"


@dataclass(frozen=True)
class Cfg:
    """The commands of a ``.cfg`` in file order."""

    path: Path
    lines: tuple[CfgLine, ...]

    @property
    def needs_python_devices(self) -> bool:
        """Whether only a core that knows Python devices can load all of it."""
        return any(line.python for line in self.lines)

    def check_initializes(self) -> None:
        """Raise `DeviceConfigError` if no line initializes the devices."""
        if not any(",".join(line.fields) == INITIALIZE for line in self.lines):
            raise DeviceConfigError(
                f"{self.path}: no line initializes the devices; add `{INITIALIZE}` after those "
                "that load them and set their pre-init properties"
            )

    def where_loaded(self, label: str) -> str:
        """Say which line loads a device."""
        return self._where(("Device", label), ("pyDevice", label))

    def where_role(self, role: str) -> str:
        """Say which line gives the core a role such as Camera or Focus."""
        return self._where(("Property", "Core", role))

    def role(self, role: str) -> str | None:
        """Return the label that the file gives a role, None when it gives none."""
        line = self._last(("Property", "Core", role))
        return line.fields[3] if line and len(line.fields) > 3 else None

    def where_blamed(self, message: str) -> str:
        """Say which line made the core raise ``message``.

        The core names the line itself, except for the start-up preset it applies after the
        last line; there the property or the device in quotes is looked for.
        """
        if found := re.search(r"\bline (\d+)", message, re.IGNORECASE):
            number = int(found[1])
            return next((self._named(line) for line in self.lines if line.number == number), "")
        startup = [line for line in self.lines if line.fields[:3] == _STARTUP]
        for line in startup:
            if all(_mentions(message, name) for name in line.fields[4:5]):
                return self._named(line)
        return f"{self.path}, preset System/Startup" if startup else str(self.path)

    def _where(self, *beginnings: tuple[str, ...]) -> str:
        line = self._last(*beginnings)
        return self._named(line) if line else str(self.path)

    def _last(self, *beginnings: tuple[str, ...]) -> CfgLine | None:
        matching = [
            line for line in self.lines if any(line.fields[: len(b)] == b for b in beginnings)
        ]
        return matching[-1] if matching else None

    def _named(self, line: CfgLine) -> str:
        return f"{self.path}, {line}"


def read_cfg(path: Path) -> Cfg:
    """Read the commands of a ``.cfg``.

    Raises
    ------
    DeviceConfigError
        If there is no such file or it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise DeviceConfigError(
            f"cannot read the Micro-Manager configuration {path}: {error.strerror}; "
            "`config` of the rig must name a .cfg file"
        ) from error
    numbered = enumerate(text.splitlines(), start=1)
    lines = (_parse(number, line.strip()) for number, line in numbered)
    return Cfg(path, tuple(line for line in lines if line))


def _parse(number: int, text: str) -> CfgLine | None:
    python = text.startswith(PYTHON_PREFIX)
    command = text[len(PYTHON_PREFIX) :].lstrip() if python else text
    if not command or command.startswith("#"):
        return None
    return CfgLine(number, tuple(command.split(",")), python)


def _mentions(message: str, name: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", message) is not None


_STARTUP = ("ConfigGroup", "System", "Startup")
