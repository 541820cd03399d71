"""The one registry through which Python devices of a microscope find what they share.

MMCore builds every device of a ``.cfg`` without arguments, so a simulated stage and its camera
cannot be handed a common world. They join it here, by the name in their pre-init property
``World``. The registry holds weak references: a world ends with the last device that joined it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar, cast
from weakref import WeakValueDictionary

Shared = TypeVar("Shared")

_joining = threading.Lock()
_worlds: WeakValueDictionary[tuple[object, str], Any] = WeakValueDictionary()


def join_world(make: Callable[[], Shared], name: str) -> Shared:
    """Return the world that ``make`` made under this name, making it if nobody holds one.

    Safe from several threads: MMCore initializes Python devices in parallel.
    """
    with _joining:
        world = _worlds.get((make, name))
        if world is None:
            world = _worlds[make, name] = make()
        return cast(Shared, world)
