"""``/microscope``, ``/stop`` and ``/snap``: look at it, halt it, take one frame."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Query, Response
from fastapi.concurrency import run_in_threadpool

from autofocus.service.answers import MicroscopeOut, StopOut
from autofocus.service.dependencies import TheConductor
from autofocus.service.pictures import preview_png, raw_tiff
from autofocus.service.problems import described
from autofocus.service.requests import SnapBody

router = APIRouter(tags=["microscope"])

_EXAMPLES: dict[str, Any] = {
    "as the camera is set": {"value": {}},
    "10 ms, for this frame only": {"value": {"exposure_ms": 10.0}},
}


@router.get("/microscope", summary="Show the microscope", response_description="Last known state.")
async def show_microscope(conductor: TheConductor) -> MicroscopeOut:
    """Give the last known state, from memory: answers during a long exposure too."""
    state = conductor.microscope.state
    return MicroscopeOut.of(conductor.rig, state, running=conductor.running)


@router.post("/stop", summary="Stop everything", response_description="What became of it.")
async def stop(conductor: TheConductor) -> StopOut:
    """Halt the stage, forbid every further move, abort the run if there is one.

    Answers within 100 ms, whatever the hardware is doing. An aborted run puts the stage and the
    camera back where they were as soon as their adapter is free. The next command that asks for
    a move is obeyed again.
    """
    stopped = await asyncio.to_thread(conductor.stop)
    return StopOut(state=stopped.state, run_id=stopped.run_id)


@router.post(
    "/snap",
    summary="Take one frame",
    response_class=Response,
    responses={
        200: {
            "description": "The frame; the headers `X-Z-Um`, `X-Exposure-Ms` and `X-Binning` say "
            "how it was taken.",
            "content": {"image/png": {}, "image/tiff": {}},
        },
        **described(409, 422, 503, 504),
    },
)
async def snap(
    conductor: TheConductor,
    body: Annotated[SnapBody, Body(default_factory=SnapBody, openapi_examples=_EXAMPLES)],
    format: Annotated[
        Literal["png", "tiff"],
        Query(description="`png`: 8 bit, contrast stretched, to look at. `tiff`: raw counts."),
    ] = "png",
) -> Response:
    """Expose once where the stage is; camera settings are put back afterwards."""
    frame = await asyncio.wrap_future(conductor.snap(body.settings()))
    headers = {
        "X-Z-Um": f"{frame.z_um:.4f}",
        "X-Exposure-Ms": f"{frame.exposure_ms:g}",
        "X-Binning": str(frame.binning),
    }
    if format == "tiff":
        content = await run_in_threadpool(raw_tiff, frame)
    else:
        content = await run_in_threadpool(preview_png, frame.image)
    return Response(content, media_type=f"image/{format}", headers=headers)
