"""One file per resource."""

from autofocus.service.routes import autofocus, health, microscope, runs, stage

GUARDED = (autofocus.router, runs.router, stage.router, microscope.router)
OPEN = health.router
