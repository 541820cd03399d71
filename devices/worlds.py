"""The one registry through which Python devices of a microscope find what they share.

MMCore builds every device of a ``.cfg`` without arguments, so a simulated stage and its camera
cannot be handed a common world. They join it here, by the name in their pre-init property
``World``. The registry holds weak references and counts who is in: a world ends when the last
device leaves it, even while something else (the traceback of an old error, say) still holds it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar, cast
from weakref import WeakValueDictionary

Shared = TypeVar("Shared")

_joining = threading.Lock()
_worlds: WeakValueDictionary[tuple[object, str], Any] = WeakValueDictionary()
_inhabitants: dict[tuple[object, str], int] = {}


def join_world(make: Callable[[], Shared], name: str) -> Shared:
    """Return the world that ``make`` made under this name, making it if nobody holds one.

    Safe from several threads: MMCore initializes Python devices in parallel.
    """
    with _joining:
        world = _worlds.get((make, name))
        if world is None:
            world = _worlds[make, name] = make()
            _inhabitants[make, name] = 0
        _inhabitants[make, name] += 1
        return cast(Shared, world)


def visit_world(make: Callable[[], Shared], name: str) -> Shared:
    """The world that devices have joined, without joining it; KeyError when there is none."""
    with _joining:
        return cast(Shared, _worlds[make, name])


def leave_world(make: Callable[[], Shared], name: str, world: Shared) -> None:
    """Say that a device that joined ``world`` is gone; the last one ends it."""
    with _joining:
        if _worlds.get((make, name)) is not world:
            return
        _inhabitants[make, name] -= 1
        if _inhabitants[make, name] == 0:
            del _worlds[make, name], _inhabitants[make, name]
