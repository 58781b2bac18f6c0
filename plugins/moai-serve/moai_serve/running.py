"""Run the application by uvicorn, with limits that uvicorn itself has not: of slow headers and open connections."""

from __future__ import annotations

import asyncio
import logging
import math
from typing import Any

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from moai.errors import MoaiError
from moai_serve.access import HEADER_BYTES, is_loopback
from moai_serve.answers import to_json
from moai_serve.errors import ApiError
from moai_serve.settings import Settings

PHRASES = {400: b"Bad Request", 408: b"Request Timeout", 503: b"Service Unavailable"}


def check_address(host: str, settings: Settings) -> None:
    """Refuse an address that others reach, unless a key or an explicit word protects it.

    Raises:
        MoaiError: names both.
    """
    if not is_loopback(host) and settings.api_key is None and not settings.any_host:
        raise MoaiError(
            f"{host} can be reached from other machines, and without a key anybody there may ask; give --api-key "
            "(or MOAI_API_KEY), or say --without-key"
        )


def build_server(app: Starlette, host: str, port: int) -> uvicorn.Server:
    """Build uvicorn's server for an application of :func:`moai_serve.application.application`.

    SIGTERM and Ctrl-C let it take no more connections, and end it when all that runs and waits is answered.
    """
    settings = app.state.server.settings
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=_protocol(settings),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        h11_max_incomplete_event_size=HEADER_BYTES,
        timeout_keep_alive=math.ceil(settings.header_timeout),
        timeout_graceful_shutdown=math.ceil(settings.timeout),
    )
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    return uvicorn.Server(config)


def _protocol(settings: Settings) -> type[H11Protocol]:
    class Protocol(LimitedProtocol):
        header_timeout = settings.header_timeout
        max_connections = settings.max_connections

    return Protocol


class LimitedProtocol(H11Protocol):
    """uvicorn's HTTP with a time limit for headers, a limit of connections, and errors in OpenAI's form."""

    header_timeout = 10.0
    max_connections = 512
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin a connection, or refuse it."""
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            self._refuse(ApiError(503, "too many connections are open; close some, or ask again later", "overloaded"))
        else:
            self._expect_headers()

    def data_received(self, data: bytes) -> None:
        """Take bytes; headers that are begun have to be whole in time."""
        if self.transport.is_closing():
            return
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._unset_late()
        elif self._late is None and (self.cycle is None or self.cycle.response_complete):
            self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """End a connection."""
        self._unset_late()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP."""
        self._refuse(ApiError(400, "this is no HTTP request that can be read", "invalid_http"))

    def _expect_headers(self) -> None:
        self._unset_late()
        self._late = self.loop.call_later(self.header_timeout, self._headers_late)

    def _headers_late(self) -> None:
        self._late = None
        if not self.transport.is_closing():
            self._refuse(ApiError(408, f"the headers took longer than {self.header_timeout:g} s", "headers_too_slow"))

    def _unset_late(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _refuse(self, error: ApiError) -> None:
        """Write an error past the state of the connection, which ends with it."""
        body = to_json(error.body())
        head = (
            b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
            % (error.status, PHRASES[error.status], len(body))
        )
        self.transport.write(head + body)
        self.transport.close()
