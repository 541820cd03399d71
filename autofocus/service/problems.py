"""The one table that turns errors into HTTP, and the answers it makes (RFC 9457 problem+json)."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from autofocus import errors
from autofocus.service.answers import Problem
from devices import errors as devices
from models import errors as models

MEDIA_TYPE = "application/problem+json"

# Error class -> status, short name on the wire. A subclass that is absent answers as its base.
TABLE: dict[type[Exception], tuple[int, str]] = {
    errors.RunNotFound: (404, "run-not-found"),
    errors.StackNotFound: (404, "stack-not-found"),
    errors.HeadNotFound: (404, "head-not-found"),
    errors.CalibrationNotFound: (404, "calibration-not-found"),
    errors.BusyError: (409, "busy"),
    errors.NoFocusCurve: (409, "no-focus-curve"),
    errors.FittingBusy: (409, "head-being-fitted"),
    errors.UploadTooLarge: (413, "upload-too-large"),
    errors.RequestError: (422, "refused-by-rig"),
    errors.DataError: (422, "training-data"),
    errors.StorageError: (507, "storage"),
    errors.ConfigError: (500, "rig-file"),
    errors.ClusterError: (500, "cluster"),
    devices.LimitError: (422, "outside-limits"),
    devices.Halted: (409, "stopped"),
    devices.MoveRefused: (409, "move-refused"),
    devices.SettingRefused: (422, "setting-refused"),
    devices.SpecimenMoved: (409, "specimen-moved"),
    devices.DeviceTimeout: (504, "device-timeout"),
    devices.DeviceError: (503, "device-fault"),
    models.UnknownScorer: (422, "unknown-scorer"),
    models.HeadError: (422, "head-mismatch"),
    models.ImageError: (422, "image"),
    models.ModelError: (500, "model"),
}


def install(app: FastAPI) -> None:
    """Answer every error, ours or the framework's, with a problem document."""
    for kind in TABLE:
        app.add_exception_handler(kind, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unforeseen)


def described(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route that may answer with these problems."""
    return {status: {"model": Problem, "description": _DESCRIPTIONS[status]} for status in statuses}


def response(request: Request, problem: Problem, **headers: str) -> JSONResponse:
    """A problem document as a response."""
    body = problem.model_copy(update={"instance": request.url.path})
    return JSONResponse(
        body.model_dump(mode="json", exclude_none=True),
        status_code=problem.status,
        headers=headers,
        media_type=MEDIA_TYPE,
    )


def problem_of(error: Exception) -> Problem:
    """The problem document of one of our errors."""
    kind = next(cls for cls in type(error).__mro__ if cls in TABLE)
    status, name = TABLE[kind]
    if isinstance(error, errors.BusyError):
        return make(status, name, str(error), **error.who)
    return make(status, name, str(error))


def make(status: int, name: str, detail: str, **extra: Any) -> Problem:
    """A problem document; ``name`` becomes its type and title."""
    title = name.replace("-", " ").capitalize()
    kind = f"urn:reiqa-autofocus:problem:{name}"
    return Problem(type=kind, title=title, status=status, detail=detail, **extra)


_DESCRIPTIONS = {
    404: "Nothing has this id or name.",
    409: "A run, z-stack or calibration has the microscope (`run_id`, `stack_id` or "
    "`calibration_id` says which), moves were stopped, or what is in the light path forbids it.",
    413: "The request has more bytes than the service takes.",
    422: "A value that is malformed, not a finite number, or that this rig must refuse.",
    500: "A rig file, model file or program at fault; the server's log has more.",
    503: "The hardware reported a fault; the stage was put back where that was possible.",
    504: "A device did not answer in time.",
    507: "The folder of results cannot be written, or holds what was not written by this service.",
}


async def _known(request: Request, error: Exception) -> JSONResponse:
    return response(request, problem_of(error))


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    # The offending input is not echoed: NaN, the likeliest one, cannot be written as JSON.
    found = [
        {"where": "/".join(map(str, item["loc"])), "what": item["msg"]} for item in error.errors()
    ]
    detail = "; ".join(f"{item['where']}: {item['what']}" for item in found)
    return response(request, make(422, "invalid-request", detail, errors=found))


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    name = HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
    detail = f"{request.method} {request.url.path}: {error.detail}"
    return response(request, make(error.status_code, name, detail), **(error.headers or {}))


async def _unforeseen(request: Request, error: Exception) -> JSONResponse:
    # Starlette raises the error again after this answer, so the server's log has the traceback.
    # Then the server drops the connection; a client that was not told would use it again.
    problem = make(500, "internal-error", f"{type(error).__name__}: {error}")
    return response(request, problem, Connection="close")
