"""``/heads``: fit a head on labelled z-stacks, see how good it is, use it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Body, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from autofocus.conductor import Conductor
from autofocus.heads import Heads
from autofocus.scorers import DEFAULT_SCORER, choose_head
from autofocus.service.dependencies import TheConductor, TheHeads
from autofocus.service.event_stream import event, stream
from autofocus.service.head_answers import ActiveHeadOut, HeadList, HeadOut, StepOut
from autofocus.service.problems import described
from autofocus.service.requests import ActiveHeadBody, HeadBody

router = APIRouter(tags=["heads"])

_POLL_S = 0.2

_FIT_EXAMPLES: dict[str, Any] = {
    "on all labelled stacks": {"value": {}},
    "with a name, and wait": {"value": {"name": "my-beads", "wait": True}},
}
_ACTIVE_EXAMPLES: dict[str, Any] = {
    "the one that came with the program": {"value": {"name": "default"}},
}


@router.post(
    "/heads",
    summary="Fit a head",
    response_description="With `wait: true`: the head is fitted; see its report.",
    responses={
        202: {
            "model": HeadOut,
            "description": "The fit has begun.",
            "headers": {
                "Location": {"description": "Where the head will be.", "schema": {"type": "string"}}
            },
        },
        **described(404, 409, 422, 507),
    },
)
async def fit_head(
    heads: TheHeads,
    response: Response,
    body: Annotated[HeadBody, Body(default_factory=HeadBody, openapi_examples=_FIT_EXAMPLES)],
) -> HeadOut:
    """Fit a head on labelled z-stacks of one objective, in the background.

    Refused with 409 while a run or a z-stack has the microscope. A run that begins meanwhile is
    not slowed: the fit has one thread and yields. The report says how left-out stacks are scored by
    the new head and by the one in use; the new one is used only after `PUT /heads/active`.
    """
    fitting = await run_in_threadpool(heads.fit, body.head_request())
    if body.wait:
        await asyncio.wrap_future(fitting.done)
    else:
        response.status_code = 202
        response.headers["Location"] = f"/heads/{fitting.name}"
    return HeadOut.of(await run_in_threadpool(heads.show, fitting.name))


@router.get("/heads", summary="List heads", response_description="By name.")
def list_heads(heads: TheHeads) -> HeadList:
    """List the heads of the learned score, with their reports, and say which is in use."""
    return HeadList(
        heads=[HeadOut.of(record) for record in heads.list()],
        active=heads.active,
        previous=heads.previous,
    )


@router.put(
    "/heads/active",
    summary="Use another head",
    response_description="In use from the next run on.",
    responses=described(422, 500, 507),
)
def activate_head(
    heads: TheHeads,
    conductor: TheConductor,
    body: Annotated[ActiveHeadBody, Body(openapi_examples=_ACTIVE_EXAMPLES)],
) -> ActiveHeadOut:
    """Use this head where a request and the rig file name none, also after a restart.

    Refused with 422 and the reason when the head does not belong to the encoders or settings that
    are installed, or its files are not those of its manifest; the head in use stays. The run that
    goes on keeps the head it began with. `previous` can be put back the same way.
    """
    heads.activate(body.name)
    note = _overruled(conductor, heads)
    return ActiveHeadOut(
        name=heads.active, previous=heads.previous, used_by_next_run=note is None, note=note
    )


@router.get(
    "/heads/{name}",
    summary="Show one head",
    response_description="The head and its report; how far the fit is while it goes on.",
    responses=described(404),
)
def show_head(heads: TheHeads, name: str) -> HeadOut:
    """Show a head: on which stacks it was fitted, and how it scores stacks left out of the fit."""
    return HeadOut.of(heads.show(name))


@router.get(
    "/heads/{name}/report.png",
    summary="Draw the left-out stacks",
    response_class=Response,
    responses={
        200: {"description": "One small curve a stack.", "content": {"image/png": {}}},
        **described(404),
    },
)
def draw_report(heads: TheHeads, name: str) -> Response:
    """Draw label and prediction of every stack, by a head fitted on the others."""
    return Response(heads.picture(name), media_type="image/png")


@router.get(
    "/heads/{name}/events",
    summary="Follow a fit",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "A `step` event a stack, then one `done` event with the head.",
            "content": {
                "text/event-stream": {
                    "schema": {"type": "string"},
                    "example": 'event: step\ndata: {"what":"features","done":3,"total":8}\n\n',
                }
            },
        },
        **described(404),
    },
)
async def follow_fit(heads: TheHeads, name: str) -> StreamingResponse:
    """Send every step of the fit as it is made (server-sent events), then the whole head."""
    await run_in_threadpool(heads.show, name)
    return stream(_events(heads, name))


async def _events(heads: Heads, name: str) -> AsyncIterator[str]:
    fitting, sent, over = heads.fitting, 0, False
    while fitting and fitting.name == name and not over:
        over = fitting.done.done()  # before the steps are looked at, or the last could be missed
        for step in fitting.steps[sent:]:
            yield event("step", StepOut.model_validate(step))
            sent += 1
        if not over:
            await asyncio.sleep(_POLL_S)
    yield event("done", HeadOut.of(await run_in_threadpool(heads.show, name)))


def _overruled(conductor: Conductor, heads: Heads) -> str | None:
    """Why the next run uses another head, if it does."""
    if (scorer := heads.default_scorer) != DEFAULT_SCORER:
        return f"this rig scores with {scorer}; ask for scorer {DEFAULT_SCORER}"
    state = conductor.microscope.state
    chosen = choose_head(
        conductor.rig, None, None, objective=state.objective, channel=state.channel
    )
    return f"the next run takes {chosen.why}" if chosen.name else None
