"""``/runs``: the history, and the run that is going on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from autofocus.conductor import Conductor, LiveRun
from autofocus.plots import curve_png
from autofocus.runs import RunRecord, curve_csv, record_json
from autofocus.service.answers import CurvePointOut, RunBrief, RunList, RunOut, StopOut
from autofocus.service.dependencies import TheConductor
from autofocus.service.event_stream import event, stream
from autofocus.service.problems import described

router = APIRouter(tags=["runs"])

_POLL_S = 0.05


@router.get(
    "/runs",
    summary="List runs",
    response_description="Newest first.",
    responses=described(422, 507),
)
def list_runs(
    conductor: TheConductor,
    limit: Annotated[int, Query(ge=1, le=1000, description="At most so many.")] = 50,
) -> RunList:
    """List the runs that are kept, newest first, those of earlier days included."""
    ids = conductor.runs.ids()
    return RunList(
        runs=[RunBrief.of(conductor.record(run_id)) for run_id in ids[:limit]],
        total=len(ids),
        running=conductor.running,
    )


@router.get(
    "/runs/{run_id}",
    summary="Show one run",
    response_description="The run; with the readings so far while it goes on.",
    responses=described(404, 507),
)
def show_run(conductor: TheConductor, run_id: str) -> RunOut:
    """Show a run: its answer when it is over, its readings so far while it goes on."""
    return RunOut.of(conductor.record(run_id))


@router.delete(
    "/runs/{run_id}",
    summary="Abort a run",
    response_description="What became of the request.",
    responses=described(404, 507),
)
async def abort_run(conductor: TheConductor, run_id: str) -> StopOut:
    """Abort the run if it is going on: no further move is sent towards a focus.

    The stage and the camera are put back as soon as their adapter is free, and the run ends with
    the verdict `aborted`. A run that is over is not touched (`state: "finished"`); aborting
    deletes nothing from the history.
    """
    stop = await asyncio.to_thread(conductor.abort, run_id)
    return StopOut(state=stop.state, run_id=stop.run_id)


@router.get(
    "/runs/{run_id}/events",
    summary="Follow a run",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "A `reading` event an exposure, then one `done` event with the run.",
            "content": {
                "text/event-stream": {
                    "schema": {"type": "string"},
                    "example": 'event: reading\ndata: {"z_um":33.7,"score":0.0121,"t_s":0.031,'
                    '"referee":null,"purpose":"start"}\n\n',
                }
            },
        },
        **described(404, 507),
    },
)
async def follow_run(conductor: TheConductor, run_id: str) -> StreamingResponse:
    """Send every reading as it is made (server-sent events), then the whole run.

    A run that is over is told again from its beginning.
    """
    live = conductor.live
    if live and live.run_id == run_id:
        return stream(_live_events(conductor, live))
    return stream(_past_events(await run_in_threadpool(conductor.record, run_id)))


@router.get(
    "/runs/{run_id}/curve.png",
    summary="Draw the focus curve",
    response_class=Response,
    responses={
        200: {"description": "960 x 600 pixels.", "content": {"image/png": {}}},
        **described(404, 507),
    },
)
def draw_curve(conductor: TheConductor, run_id: str) -> Response:
    """Draw score against z, with the start and the peak; also while the run goes on."""
    return Response(curve_png(conductor.record(run_id)), media_type="image/png")


@router.get(
    "/runs/{run_id}/curve.csv",
    summary="Tabulate the focus curve",
    response_class=Response,
    responses={
        200: {
            "description": "One line an exposure, in the order they were made.",
            "content": {
                "text/csv": {"example": "z_um,score,t_s,referee,purpose\r\n33.7,0.01,0.03,,start"}
            },
        },
        **described(404, 507),
    },
)
def tabulate_curve(conductor: TheConductor, run_id: str) -> Response:
    """Give the readings as comma-separated text; also while the run goes on."""
    return Response(curve_csv(conductor.record(run_id).readings), media_type="text/csv")


@router.get(
    "/runs/{run_id}/report.json",
    summary="Give the whole record",
    response_class=Response,
    responses={
        200: {
            "description": "Rig, request, result and version of the software, as kept on disk.",
            "content": {"application/json": {}},
        },
        **described(404, 507),
    },
)
def report(conductor: TheConductor, run_id: str) -> Response:
    """Give all that is kept of a run, the request included."""
    return Response(record_json(conductor.record(run_id)), media_type="application/json")


async def _live_events(conductor: Conductor, live: LiveRun) -> AsyncIterator[str]:
    sent = 0
    over = False
    while not over:
        over = live.done.done()  # before the readings are looked at, or the last could be missed
        for point in live.readings[sent:]:
            yield event("reading", CurvePointOut.model_validate(point))
            sent += 1
        if not over:
            await asyncio.sleep(_POLL_S)
    yield event("done", RunOut.of(await run_in_threadpool(conductor.record, live.run_id)))


async def _past_events(record: RunRecord) -> AsyncIterator[str]:
    for point in record.readings:
        yield event("reading", CurvePointOut.model_validate(point))
    yield event("done", RunOut.of(record))
