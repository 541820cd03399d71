"""Who may talk to the service: this machine, or whoever holds the token."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Annotated

from fastapi import Depends, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from autofocus.service import problems

_bearer = HTTPBearer(auto_error=False, description="The token `autofocus serve` was started with.")


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only mean this machine."""
    name = host.strip("[]").lower()
    if name == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def token_required(token: str) -> Callable[..., Awaitable[None]]:
    """A dependency that refuses requests without this bearer token."""

    async def check(
        given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    ) -> None:
        sent = given.credentials if given else ""
        if not hmac.compare_digest(sent.encode(), token.encode()):
            raise HTTPException(
                401,
                "send the header `Authorization: Bearer <token>`",
                headers={"WWW-Authenticate": "Bearer"},
            )

    return check


class LocalPagesOnly:
    """Refuses what a web page from elsewhere makes a browser on this machine send.

    Binding to loopback keeps other machines out, but not a page open in the operator's browser:
    it can post here directly (its ``Origin`` gives it away) or through a host name of its own
    that resolves to 127.0.0.1 (the ``Host`` header gives that away).
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 403."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        if reason := _foreign(headers.get("host", ""), headers.get("origin")):
            refusal = problems.make(403, "foreign-page", reason)
            return await problems.response(Request(scope), refusal)(scope, receive, send)
        return await self._app(scope, receive, send)


class OwnFilesOnly:
    """Tells the browser to load nothing from elsewhere into our pages.

    ReDoc's script fetches a logo from its maker's site; on a microscope PC without internet that
    request hangs, and on one with internet it tells somebody that we exist.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and add the policy to a page."""

        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if headers.get("content-type", "").startswith("text/html"):
                    headers["Content-Security-Policy"] = _POLICY
            await send(message)

        await self._app(scope, receive, send_with_policy)


_POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' blob:; "
    "style-src 'self' 'unsafe-inline'; frame-ancestors 'none'"
)


def _foreign(host: str, origin: str | None) -> str | None:
    if not is_loopback(_without_port(host)):
        return f"Host {host!r} is not this machine; use 127.0.0.1, or start with --token"
    if origin is not None and origin.partition("://")[2] != host:
        return f"a page from {origin} may not drive this microscope"
    return None


def _without_port(host: str) -> str:
    return host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
