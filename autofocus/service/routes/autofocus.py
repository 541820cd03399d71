"""``/autofocus``: run it, or ask what it would do."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Body, Response
from fastapi.concurrency import run_in_threadpool

from autofocus.service.answers import PlanOut, RunOut
from autofocus.service.dependencies import TheConductor
from autofocus.service.problems import described
from autofocus.service.requests import AutofocusBody

router = APIRouter(tags=["autofocus"])

EXAMPLES: dict[str, Any] = {
    "as the rig file says": {"value": {}},
    "around here": {
        "summary": "60 um around z now, at most 40 exposures of 10 ms",
        "value": {"range_um": 60.0, "exposure_ms": 10.0, "max_exposures": 40},
    },
    "never leave these": {
        "summary": "search between two positions and nowhere else",
        "value": {"z_min_um": -40.0, "z_max_um": 40.0, "max_extensions": 0},
    },
    "on a region": {
        "summary": "score only a part of the frame",
        "value": {"roi": {"x": 128, "y": 128, "width": 256, "height": 256}},
    },
    "do not wait": {
        "summary": "202 at once; look at the Location it names",
        "value": {"wait": False},
    },
}
SearchRequest = Annotated[
    AutofocusBody, Body(default_factory=AutofocusBody, openapi_examples=EXAMPLES)
]


@router.post(
    "/autofocus",
    summary="Focus now",
    response_description="The run is over; `locked` says whether the stage stands in focus.",
    responses={
        202: {
            "model": RunOut,
            "description": "With `wait: false`: the run has begun.",
            "headers": {
                "Location": {"description": "Where the run is.", "schema": {"type": "string"}}
            },
        },
        **described(409, 422, 500, 503, 504, 507),
    },
)
async def autofocus(conductor: TheConductor, response: Response, body: SearchRequest) -> RunOut:
    """Search for the in-focus plane, starting from where the stage is.

    The stage is left at the peak only when the verdict is `locked`; after every other verdict it
    is back at the start (or stays, with `on_failure: "stay"`), and exposure, ROI, binning and
    channel are as they were. A verdict is an answer, so the status is 200 for all of them: look
    at `locked`. One run at a time: a second caller gets 409 with the `run_id` of the first.
    A client that hangs up does not end the run; `DELETE /runs/{run_id}` and `POST /stop` do.
    """
    run = await run_in_threadpool(conductor.start, body.focus_request())
    if body.wait:
        return RunOut.of(await asyncio.wrap_future(run.done))
    begun = RunOut.of(run.record())
    response.status_code = 202
    response.headers["Location"] = begun.links.run
    return begun


@router.post(
    "/autofocus/plan",
    summary="Say what a run would do",
    response_description="Positions, worst-case exposures and limits. Nothing has moved.",
    responses=described(422, 500),
)
def plan_autofocus(conductor: TheConductor, body: SearchRequest) -> PlanOut:
    """Check a request against the rig and list where the first pass would go.

    Takes the same body as `POST /autofocus`. Touches no hardware, so it answers while a run is
    going on too; a warm start is then foreseen for where the XY stage was last seen.
    """
    planned = conductor.plan(body.focus_request(), conductor.microscope.state)
    return PlanOut.of(planned, settle_ms=conductor.rig.microscope.settle_ms)
