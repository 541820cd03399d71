"""``/calibration``: measure focus curve, backlash, settle time and repeatability of this rig."""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse

from autofocus.runs import RunStatus
from autofocus.service.calibration_answers import (
    CalibrationList,
    CalibrationOut,
    CalibrationProgress,
)
from autofocus.service.dependencies import TheConductor
from autofocus.service.problems import described
from autofocus.service.requests import CalibrationBody

router = APIRouter(tags=["calibration"])

_EXAMPLES: dict[str, Any] = {
    "20 um to each side, whatever the depth of field": {
        "value": {"half_range_um": 20.0, "step_um": 1.25}
    },
    "a region, do not wait": {
        "value": {
            "half_range_dof": 15.0,
            "step_dof": 1.0,
            "roi": {"x": 128, "y": 128, "width": 256, "height": 256},
            "wait": False,
        }
    },
}


@router.post(
    "/calibration",
    summary="Calibrate",
    response_model=CalibrationOut,
    response_description="Measured and kept, and the microscope as it was.",
    responses={
        202: {
            "model": CalibrationProgress,
            "description": "With `wait: false`: it has begun.",
            "headers": {
                "Location": {"description": "Where to look.", "schema": {"type": "string"}}
            },
        },
        **described(409, 422, 500, 503, 504, 507),
    },
)
async def calibrate(
    conductor: TheConductor,
    body: Annotated[
        CalibrationBody, Body(default_factory=CalibrationBody, openapi_examples=_EXAMPLES)
    ],
) -> CalibrationOut | JSONResponse:
    """Measure the rig with the objective, channel and scorer in use, and put everything back.

    **This moves the objective**: by default 10 depths of field to each side of where the stage is.
    Focus first, on a thin specimen that does not bleach fast: with 41 planes some 170 frames are
    exposed. What would leave the rig's limits is refused with 422 before anything moves. Without a
    proven peak, or with one at the edge, nothing is kept: 409 `no-focus-curve` says why.
    `POST /stop` ends it.
    """
    live = await run_in_threadpool(conductor.start_calibration, body.calibration_request())
    if body.wait:
        return CalibrationOut.of(await asyncio.wrap_future(live.done))
    begun = CalibrationProgress.of(live).model_dump(mode="json")
    where = f"/calibration/{live.calibration_id}"
    return JSONResponse(begun, status_code=202, headers={"Location": where})


@router.get(
    "/calibration",
    summary="List calibrations",
    response_description="Newest first, and how far the last one is.",
    responses=described(422, 507),
)
def list_calibrations(
    conductor: TheConductor,
    limit: Annotated[int, Query(ge=1, le=1000, description="At most so many.")] = 20,
) -> CalibrationList:
    """List what was measured, newest first. Touches no hardware."""
    kept, last = conductor.calibrations, conductor.calibration
    return CalibrationList(
        calibrations=[CalibrationOut.of(record) for record in islice(kept, limit)],
        total=len(kept.ids()),
        last=CalibrationProgress.of(last) if last else None,
    )


@router.get(
    "/calibration/{calibration_id}",
    summary="Show one calibration",
    response_description="What was measured; or how far it is, or why it has no result.",
    responses=described(404, 507),
)
def show_calibration(
    conductor: TheConductor, calibration_id: str
) -> CalibrationOut | CalibrationProgress:
    """Show a calibration: `status` says which of the two answers it is. Touches no hardware."""
    last = conductor.calibration
    if last and last.calibration_id == calibration_id:
        progress = CalibrationProgress.of(last)
        if progress.status is not RunStatus.DONE:
            return progress
    return CalibrationOut.of(conductor.calibrations.read(calibration_id))


@router.get(
    "/calibration/{calibration_id}/report.png",
    summary="Look at a calibration",
    response_class=Response,
    responses={
        200: {
            "description": "Passes, focus curve, responses to moves, arrivals.",
            "content": {"image/png": {}},
        },
        **described(404),
    },
)
def show_calibration_report(conductor: TheConductor, calibration_id: str) -> FileResponse:
    """Give the picture of a calibration: what was measured beside the readings behind it."""
    return FileResponse(conductor.calibrations.report(calibration_id), media_type="image/png")
