"""``/stacks``: take z-stacks, look at them, say where they are in focus."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from autofocus.conductor import Conductor
from autofocus.labelling import label_by_person, label_by_teachers
from autofocus.service.dependencies import TheConductor
from autofocus.service.pictures import preview_png
from autofocus.service.problems import described
from autofocus.service.requests import LabelBody, StackBody
from autofocus.service.stack_answers import JudgementOut, StackList, StackOut
from autofocus.service.uploads import Uploads
from autofocus.stack_store import StackRecord

router = APIRouter(tags=["stacks"])

_STACK_EXAMPLES: dict[str, Any] = {
    "20 depths of field to each side": {"value": {}},
    "11 planes, 1 um apart": {"value": {"half_range_um": 5.0, "step_um": 1.0}},
    "a region in another exposure": {
        "value": {
            "half_range_dof": 4.0,
            "step_dof": 1.0,
            "exposure_ms": 5.0,
            "roi": {"x": 128, "y": 128, "width": 256, "height": 256},
        }
    },
}
_LABEL_EXAMPLES: dict[str, Any] = {
    "as the teachers find it": {"value": {"teacher": True}},
    "as I see it": {"value": {"z_um": 12.0}},
}


@router.post(
    "/stacks",
    summary="Take a z-stack",
    response_description="The stack is complete, and the microscope as it was.",
    responses={
        202: {
            "model": StackOut,
            "description": "With `wait: false`: it has begun.",
            "headers": {
                "Location": {"description": "Where the stack is.", "schema": {"type": "string"}}
            },
        },
        **described(409, 422, 500, 503, 504, 507),
    },
)
async def take_stack(
    conductor: TheConductor,
    response: Response,
    body: Annotated[StackBody, Body(default_factory=StackBody, openapi_examples=_STACK_EXAMPLES)],
) -> StackOut:
    """Take planes around where the stage is, as OME-TIFF, and put everything back.

    **This moves the objective.** A stack that would leave the rig's limits is refused with 422
    before anything moves; it is never cut. The planes are taken towards the specimen. `POST /stop`
    ends it; a stack that was stopped is not kept (409).
    """
    stack = await run_in_threadpool(conductor.start_stack, body.stack_request())
    if body.wait:
        return _told(conductor, await asyncio.wrap_future(stack.done))
    response.status_code = 202
    response.headers["Location"] = f"/stacks/{stack.stack_id}"
    return _told(conductor, stack.record())


@router.get(
    "/stacks",
    summary="List z-stacks",
    response_description="Newest first.",
    responses=described(422, 507),
)
def list_stacks(
    conductor: TheConductor,
    limit: Annotated[int, Query(ge=1, le=1000, description="At most so many.")] = 50,
) -> StackList:
    """List the z-stacks that are kept, newest first, with their labels."""
    ids = conductor.stacks.ids()
    live = conductor.live_stack
    return StackList(
        stacks=[_told(conductor, conductor.stack(stack_id)) for stack_id in ids[:limit]],
        total=len(ids),
        running=live.stack_id if live else None,
    )


@router.get(
    "/stacks/{stack_id}",
    summary="Show one z-stack",
    response_description="The stack; with the planes so far while it is taken.",
    responses=described(404, 507),
)
def show_stack(conductor: TheConductor, stack_id: str) -> StackOut:
    """Show a z-stack: where its planes are, how they were taken, where it is in focus."""
    return _told(conductor, conductor.stack(stack_id))


@router.get(
    "/stacks/{stack_id}/planes/{index}.png",
    summary="Look at one plane",
    response_class=Response,
    responses={
        200: {"description": "8 bit, contrast stretched.", "content": {"image/png": {}}},
        **described(404, 422, 507),
    },
)
def show_plane(conductor: TheConductor, stack_id: str, index: int) -> Response:
    """Give one plane, counted from 0 in ascending z, to look at; its counts are in the TIFF."""
    return Response(preview_png(conductor.stacks.plane(stack_id, index)), media_type="image/png")


@router.put(
    "/stacks/{stack_id}/label",
    summary="Say where a z-stack is in focus",
    response_description="Labelled, or why not: look at `labelled`.",
    responses=described(404, 422, 507),
)
async def label_stack(
    conductor: TheConductor,
    request: Request,
    stack_id: str,
    body: Annotated[LabelBody, Body(openapi_examples=_LABEL_EXAMPLES)],
) -> JudgementOut:
    """Label a z-stack with the plane you see in focus, or ask the teachers.

    The teachers are nine classical measures. Where fewer than two thirds of them agree, or their
    peak is the first or last plane, the stack keeps the label it had, if any, and the answer says
    `labelled: false` and why: look at its planes and send `z_um`. Touches no hardware.
    """
    uploads: Uploads = request.app.state.uploads
    if body.z_um is not None:
        judged = await run_in_threadpool(
            label_by_person, conductor.stacks, stack_id, z_um=body.z_um
        )
    else:
        async with uploads.turn:
            judged = await run_in_threadpool(label_by_teachers, conductor.stacks, stack_id)
    return JudgementOut.of(*judged)


def _told(conductor: Conductor, record: StackRecord) -> StackOut:
    return StackOut.of(record, conductor.stacks.images(record.stack_id))
