"""Settings that show as Micro-Manager properties of a Python device."""

from __future__ import annotations

import dataclasses
from typing import Any


def knob(
    name: str, default: Any, *, low: float | None = None, high: float | None = None, **more: Any
) -> Any:
    """Return a dataclass field that shows as the Micro-Manager property ``name``.

    Parameters
    ----------
    name : str
        Property name, with its unit.
    default : float, int or str
        Its type is the property's type.
    low, high : float
        Limits, both included; not for text.
    choices : sequence of str
        The values a text may take.
    """
    limits = None if low is None or high is None else (low, high)
    return dataclasses.field(default=default, metadata={"name": name, "limits": limits, **more})
