"""The web server around the service."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from socket import socket

import uvicorn
from fastapi import FastAPI

# After that, clients that still wait for an answer are cut off; the hardware is put back anyway.
_PATIENCE_S = 10


class Server(uvicorn.Server):
    """Uvicorn that tells where it listens and, when it is told to end, stops the run first.

    Parameters
    ----------
    service : FastAPI
        Made by `service.app.create_app`.
    host, port
        Where to listen; port 0 takes a free one.
    on_listening : callable, optional
        Told the URL once requests are answered.
    """

    def __init__(
        self,
        service: FastAPI,
        *,
        host: str,
        port: int,
        on_listening: Callable[[str], None] = lambda url: None,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                service,
                host=host,
                port=port,
                log_level="warning",
                timeout_graceful_shutdown=_PATIENCE_S,
            )
        )
        self._conductor = service.state.conductor
        self._on_listening = on_listening

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Listen, then say where."""
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            self._on_listening(f"http://{f'[{host}]' if ':' in host else host}:{port}")

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Stop whatever runs or moves, or its caller would be waited for; then close."""
        if self._conductor.busy:
            await asyncio.to_thread(self._conductor.stop)
        await super().shutdown(sockets)
