"""What routes ask for instead of reaching for a global."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from autofocus.conductor import Conductor
from autofocus.heads import Heads


def _conductor(request: Request) -> Conductor:
    conductor: Conductor = request.app.state.conductor
    return conductor


def _heads(request: Request) -> Heads:
    heads: Heads = request.app.state.heads
    return heads


TheHeads = Annotated[Heads, Depends(_heads)]
TheConductor = Annotated[Conductor, Depends(_conductor)]
