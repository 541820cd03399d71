"""``/health``: whether the service lives and its hardware is ready."""

from __future__ import annotations

from fastapi import APIRouter, Response

from autofocus.service.answers import HealthOut
from autofocus.service.dependencies import TheConductor

router = APIRouter(tags=["health"])


@router.get(
    "/health",
    summary="Alive and ready?",
    response_description="Alive, and every device is initialized.",
    responses={503: {"model": HealthOut, "description": "Alive, but a device is not ready."}},
)
async def health(conductor: TheConductor, response: Response) -> HealthOut:
    """Say whether the service lives and its hardware is ready; needs no token, touches nothing."""
    state = conductor.microscope.state
    answer = HealthOut.of(conductor.rig, state, running=conductor.running)
    response.status_code = 200 if answer.ready else 503
    return answer
