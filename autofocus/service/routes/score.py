"""``/score``: score a frame or a z-stack that was taken elsewhere."""

from __future__ import annotations

from typing import Any, BinaryIO

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool

from autofocus.scorers import LoadScorer
from autofocus.scoring import is_in_order, score_planes
from autofocus.service.dependencies import TheConductor
from autofocus.service.frames import RawFormat, read_frames
from autofocus.service.problems import described
from autofocus.service.scores import ScoreForm, ScoresOut
from autofocus.service.uploads import Uploads

router = APIRouter(tags=["score"])

_FILE = {
    "type": "string",
    "format": "binary",
    "contentMediaType": "application/octet-stream",
    "description": "TIFF, OME-TIFF or PNG, or raw counts; a stack gives one entry a plane.",
}


def _request_body() -> dict[str, Any]:
    schema = ScoreForm.model_json_schema()
    schema["properties"] = {"file": _FILE, **schema["properties"]}
    # In a form, JSON is text as well.
    schema["properties"]["anchor"] |= {"anyOf": [{"type": "string"}, {"type": "null"}]}
    schema["required"] = ["file"]
    return {"required": True, "content": {"multipart/form-data": {"schema": schema}}}


@router.post(
    "/score",
    summary="Score an image or a z-stack",
    response_description="One score a plane, and who scored.",
    responses=described(413, 422, 500),
    openapi_extra={"requestBody": _request_body()},
)
async def score(conductor: TheConductor, request: Request) -> ScoresOut:
    """Score the planes of an uploaded file; touches no hardware and answers during a run too.

    Counts are scored as they are in the file; of colour images the mean of R, G and B. With its
    z, each entry is a reading for a program that moves its own microscope. Send the `anchor` of
    the first answer with the next frames of the same run, and all of them are compared on the
    same pixels; without one every plane is scored by itself, as runs of this service do.
    Uploads are scored one after the other.
    """
    uploads: Uploads = request.app.state.uploads
    async with uploads.received(request, ScoreForm) as (file, form), uploads.turn:
        return await run_in_threadpool(_score, conductor.load_scorer, file, form)


def _score(load_scorer: LoadScorer, file: BinaryIO, form: ScoreForm) -> ScoresOut:
    anchor = form.anchored()
    scorer = load_scorer(form.scorer, form.head)
    raw = None
    if form.width and form.height and form.dtype:
        raw = RawFormat(form.width, form.height, form.dtype)
    stack = read_frames(file, raw)
    scored = score_planes(
        scorer,
        stack.planes,
        bit_depth=form.bit_depth,
        sampling=form.sampling,
        anchor=anchor,
        in_order=is_in_order(stack.z_um or ()),
    )
    return ScoresOut.of(scorer, scored, stack.z_um)
