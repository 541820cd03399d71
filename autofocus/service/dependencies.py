"""What routes ask for instead of reaching for a global."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from autofocus.conductor import Conductor


def _conductor(request: Request) -> Conductor:
    conductor: Conductor = request.app.state.conductor
    return conductor


TheConductor = Annotated[Conductor, Depends(_conductor)]
