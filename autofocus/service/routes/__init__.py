"""One file per resource."""

from autofocus.service.routes import autofocus, health, microscope, runs, score, stage

GUARDED = (autofocus.router, runs.router, stage.router, microscope.router, score.router)
OPEN = health.router
