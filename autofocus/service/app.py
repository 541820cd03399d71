"""The app factory: the one place of the service that names concrete parts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline

from autofocus import __version__
from autofocus.conductor import Conductor
from autofocus.config import Rig
from autofocus.heads import Heads
from autofocus.runs import RunStore
from autofocus.scorers import Scorers
from autofocus.service import problems, routes
from autofocus.service.access import LocalPagesOnly, OwnFilesOnly, token_required
from autofocus.service.uploads import MAX_UPLOAD_BYTES, Uploads
from devices import Microscope

_DESCRIPTION = """\
Focuses a Micro-Manager microscope and says whether it can prove it.

**First steps.** `GET /microscope` shows what is connected. `POST /autofocus/plan` says where a run
would go without moving anything. `POST /autofocus` focuses. `POST /stop` halts everything.
`POST /score` scores images that were taken elsewhere. `POST /stacks`, `PUT /stacks/{id}/label`,
`POST /heads` and `PUT /heads/active` make a score of your own specimens and use it.

Lengths are in um, exposures in ms. A focus `score` is higher the sharper the image. Errors are
`application/problem+json`; branch on their `type`.
"""


def create_app(
    rig: Rig,
    microscope: Microscope,
    scorers: Scorers,
    runs: RunStore,
    *,
    token: str | None = None,
    max_upload_bytes: int = MAX_UPLOAD_BYTES,
) -> FastAPI:
    """Build the service around an open microscope, which it closes when it ends.

    Parameters
    ----------
    rig : Rig
        What the microscope is and may do.
    microscope : Microscope
        Open; nobody else may use it from now on.
    scorers : Scorers
        Who may score; the head in use is theirs.
    runs : RunStore
        Where runs are kept.
    token : str, optional
        Bearer token that every request but ``GET /health`` and the documentation must carry.
        Without one, only this machine's own pages and programs are answered.
    max_upload_bytes : int
        Largest request with a file in it.
    """
    conductor = Conductor(rig, microscope, scorers, runs)
    heads = Heads(rig, conductor, scorers)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(heads.close)
        await run_in_threadpool(conductor.close)

    app = FastAPIOffline(
        title="reiqa-autofocus",
        version=__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        generate_unique_id_function=_operation_id,
        swagger_ui_parameters={"validatorUrl": None, "displayRequestDuration": True},
    )
    app.state.conductor = conductor
    app.state.heads = heads
    app.state.uploads = Uploads(max_upload_bytes)
    guarded = [Depends(token_required(token))] if token else []
    for router in routes.GUARDED:
        app.include_router(router, dependencies=guarded)
    app.include_router(routes.OPEN)
    problems.install(app)
    app.add_middleware(OwnFilesOnly)
    if not token:
        app.add_middleware(LocalPagesOnly)
    app.openapi = _truthful(app.openapi)
    return app


def _operation_id(route: APIRoute) -> str:
    return route.name


def _truthful(generate: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
    """Correct what FastAPI says of errors: it knows only its own, and only as plain JSON."""

    def openapi() -> dict[str, Any]:
        document = generate()
        for path in document["paths"].values():
            for operation in path.values():
                operation["responses"] = {
                    status: _as_problem(answer)
                    for status, answer in operation["responses"].items()
                    if _schema(answer) != "HTTPValidationError"
                }
        for name in ("HTTPValidationError", "ValidationError"):
            document["components"]["schemas"].pop(name, None)
        return document

    return openapi


def _as_problem(answer: dict[str, Any]) -> dict[str, Any]:
    if _schema(answer) != "Problem":
        return answer
    return {**answer, "content": {problems.MEDIA_TYPE: next(iter(answer["content"].values()))}}


def _schema(answer: dict[str, Any]) -> str:
    content = answer.get("content", {}).get("application/json", {})
    return str(content.get("schema", {}).get("$ref", "")).rpartition("/")[2]
