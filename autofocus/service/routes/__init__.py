"""One file per resource."""

from autofocus.service.routes import (
    autofocus,
    heads,
    health,
    microscope,
    remote,
    runs,
    score,
    stacks,
    stage,
)

GUARDED = (
    autofocus.router,
    remote.router,
    runs.router,
    stage.router,
    microscope.router,
    score.router,
    stacks.router,
    heads.router,
)
OPEN = health.router
