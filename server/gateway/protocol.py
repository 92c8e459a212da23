"""How aiohttp's server is run: its limits, and answers of our own shape for what it cannot read as a request.

aiohttp's defaults keep silent connections for an hour, decompress whatever is sent, log every malformed request with a
trace, and answer it as plain text. This subclasses classes of aiohttp (pinned); test_protocol.py holds a canary for
each behaviour.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from server.gateway.edge import Edge
from server.settings import Http

EDGE = web.AppKey("edge", Edge)
LINGER = 2.0  # seconds that the rest of a refused body is read and thrown away, so that the client sees the answer


class GatewayProtocol(RequestHandler):
    """One connection; its own errors are problem+json too."""

    __slots__ = ("_edge",)

    def __init__(
        self, manager: GatewayServer, *, loop: asyncio.AbstractEventLoop, **options: Any
    ) -> None:  # Any: aiohttp's
        super().__init__(manager, loop=loop, **options)
        self._edge = manager.edge

    def connection_lost(self, exc: BaseException | None) -> None:
        """End the task of a connection that only waits for the rest of a refused body: nobody sends it any more."""
        idle = not self._request_in_progress and self._waiter is None and not self._messages
        task = self._task_handler
        super().connection_lost(exc)
        if idle and task is not None:
            task.cancel()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer instead of a handler.

        Raises:
            ConnectionError: half of an answer is on its way, so only the end of the connection can tell.
        """
        if isinstance(exc, ConnectionError) or request.writer.output_size > 0:
            raise ConnectionAbortedError("the answer had begun") from exc
        return self._edge.refuse(request, status, type(exc).__name__)


class GatewayServer(web.Server):
    """Makes a protocol for each connection."""

    def __init__(self, handler: Any, *, edge: Edge, **options: Any) -> None:  # Any: aiohttp's own
        super().__init__(handler, **options)
        self.edge = edge

    def __call__(self) -> RequestHandler:
        return GatewayProtocol(self, loop=self._loop, **self._kwargs)


class GatewayRunner(web.AppRunner):
    """Runs an application of `build_application` on one or more sites."""

    __slots__ = ()

    def __init__(self, application: web.Application, http: Http) -> None:
        super().__init__(
            application,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=http.keepalive_timeout,
            lingering_time=LINGER,
            shutdown_timeout=http.drain_timeout,
        )

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return GatewayServer(
            made.request_handler,
            edge=self.app[EDGE],
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            loop=made._loop,
            **made._kwargs,
        )
