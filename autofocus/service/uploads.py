"""Files that clients send: how they arrive, how large they may be, and one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, BinaryIO, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Message

from autofocus.errors import UploadTooLarge

Form = TypeVar("Form", bound=BaseModel)

MAX_UPLOAD_BYTES = 512 << 20

_MAX_FIELDS = 32


class Uploads:
    """Receives files, and lets one at a time be worked on.

    Parameters
    ----------
    max_bytes : int
        Largest request body.

    Attributes
    ----------
    turn : asyncio.Lock
        Held while a file is decoded and scored: a run that goes on meanwhile shares the processor
        with one upload, however many clients there are, and memory holds one stack.
    """

    def __init__(self, max_bytes: int = MAX_UPLOAD_BYTES) -> None:
        self.max_bytes = max_bytes
        self.turn = asyncio.Lock()

    @asynccontextmanager
    async def received(
        self, request: Request, fields: type[Form]
    ) -> AsyncIterator[tuple[BinaryIO, Form]]:
        """The multipart field ``file`` and the other fields of a request, read to the end.

        Read here rather than by FastAPI, which would store the whole body before it looks at the
        token. Large files wait on disk, not in memory.

        Raises
        ------
        UploadTooLarge
            As soon as it is known.
        RequestValidationError
            For a body that is not such a form.
        """
        limited = self._limited(request)
        try:
            form = await limited.form(max_files=1, max_fields=_MAX_FIELDS)
        except HTTPException as error:
            raise _refused(("body",), error.detail) from error
        except ClientDisconnect as error:
            raise _refused(("body",), "the upload was broken off") from error
        try:
            yield _file(form), _fields(form, fields)
        finally:
            await form.close()

    def _limited(self, request: Request) -> Request:
        received = 0

        async def receive() -> Message:
            nonlocal received
            message = await request.receive()
            received += len(message.get("body", b""))
            self._require_small(received)
            return message

        length = request.headers.get("content-length", "0")
        self._require_small(int(length) if length.isdecimal() else 0)
        return Request(request.scope, receive)

    def _require_small(self, size: int) -> None:
        if size > self.max_bytes:
            raise UploadTooLarge(
                f"the request has more than {self.max_bytes} bytes; send fewer planes at a time"
            )


def _file(form: FormData) -> BinaryIO:
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise _refused(
            ("body", "file"), "send the image as the field `file` of a multipart/form-data body"
        )
    return file.file


def _fields(form: FormData, fields: type[Form]) -> Form:
    # A browser sends the fields that a person left empty, as empty text.
    values = {name: value for name, value in form.items() if name != "file" and value != ""}
    try:
        return fields.model_validate(values)
    except ValidationError as error:
        raise RequestValidationError(
            [{**item, "loc": ("body", *item["loc"])} for item in error.errors()]
        ) from error


def _refused(where: tuple[str, ...], what: str) -> RequestValidationError:
    problem: dict[str, Any] = {"loc": where, "msg": what, "type": "value_error"}
    return RequestValidationError([problem])
