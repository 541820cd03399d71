"""One file per resource."""

from autofocus.service.routes import (
    autofocus,
    calibration,
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
    calibration.router,
    heads.router,
)
OPEN = health.router
