"""``/stage``: the focus drive."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Body

from autofocus.service.answers import MovedOut, StageOut
from autofocus.service.dependencies import TheConductor
from autofocus.service.problems import described
from autofocus.service.requests import MoveBody

router = APIRouter(tags=["stage"])

_EXAMPLES = {"out of focus on the demo": {"value": {"z_um": 33.7}}}


@router.get("/stage", summary="Where the stage is", response_description="Last position read.")
async def show_stage(conductor: TheConductor) -> StageOut:
    """Give the last position read and the limits, from memory: answers during an exposure too."""
    state = conductor.microscope.state
    return StageOut(z_um=state.z_um, z_min_um=state.z_min_um, z_max_um=state.z_max_um)


@router.post(
    "/stage",
    summary="Move the stage",
    response_description="Arrived, verified by reading back.",
    responses=described(409, 422, 503, 504),
)
async def move_stage(
    conductor: TheConductor, body: Annotated[MoveBody, Body(openapi_examples=_EXAMPLES)]
) -> MovedOut:
    """Move the focus drive to an absolute position and wait until it is there.

    **This moves the objective.** A position outside the rig's limits, or one that is not a finite
    number, is refused with 422 and nothing moves; it is never trimmed to the nearest limit.
    During a run: 409.
    """
    return MovedOut(z_um=await asyncio.wrap_future(conductor.move_to(body.z_um)))
