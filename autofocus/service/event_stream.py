"""Server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator

from fastapi.responses import StreamingResponse
from pydantic import BaseModel


def stream(events: AsyncIterator[str]) -> StreamingResponse:
    """Answer with events as they come."""
    headers = {"Cache-Control": "no-store"}
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


def event(name: str, body: BaseModel) -> str:
    """Give one event as it goes over the wire."""
    return f"event: {name}\ndata: {body.model_dump_json(by_alias=True)}\n\n"
