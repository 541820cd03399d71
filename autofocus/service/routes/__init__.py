"""One file per resource."""

from autofocus.service.routes import autofocus, health, microscope, runs, score, stacks, stage

GUARDED = (
    autofocus.router,
    runs.router,
    stage.router,
    microscope.router,
    score.router,
    stacks.router,
)
OPEN = health.router
