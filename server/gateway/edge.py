"""The edge: the one middleware that every HTTP request passes, and the one place that answers for errors.

In order: request id → client address → CORS preflight → handler → errors as problem+json → metrics and one access line.
Requests of Socket.IO are let through as they are: engine.io answers, times and names them itself.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from aiohttp import web
from prometheus_client import Counter, Histogram

from server import logs
from server.errors import DeadlineExceeded, DomainError, Internal
from server.gateway.headers import REQUEST_ID_HEADER, Headers
from server.gateway.problems import from_status, http_problem, problem
from server.gateway.proxies import TrustedProxies
from server.limits import Quota
from server.metrics import HTTP_DURATION, HTTP_REQUESTS

logger = logging.getLogger(__name__)
noise = logs.RateLimitedLog(logger)

REQUEST_ID = web.RequestKey("request_id", str)
CLIENT_IP = web.RequestKey("client_ip", str)
QUOTA = web.RequestKey("quota", Quota)

SOCKET_IO_PATH = "/socket.io/"
SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
CLIENT_CLOSED_REQUEST = 499  # nginx's number for: nobody is there any more to be answered
UNMATCHED = "unmatched"
SERVICE = "server"  # `service` of what no module serves
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_LOGGED_PATH = 200  # characters
# Request ids are unique and no secret; asking the system for random bytes costs a system call each time.
_REPLICA = os.urandom(10).hex()
_numbers = itertools.count(1)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(slots=True, eq=False)
class Watch:
    """How requests of one route are counted and logged."""

    service: str
    route: str
    level: int = logging.INFO
    # False where a part of the path may be a secret, e.g. the token of a link: then the template is logged.
    show_path: bool = True
    duration: Histogram = field(init=False)
    # Finding a child by its labels takes longer than counting; there are a few per route.
    counters: dict[tuple[str, int], Counter] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.duration = HTTP_DURATION.labels(self.service, self.route)

    def count(self, method: str, status: int, seconds: float) -> None:
        """Count one request."""
        counter = self.counters.get((method, status))
        if counter is None:
            label = method if method in _METHODS else "OTHER"
            counter = HTTP_REQUESTS.labels(self.service, label, self.route, str(status))
            if label == method:
                self.counters[method, status] = counter
        counter.inc()
        self.duration.observe(seconds)


class Edge:
    """The middleware and what it needs to know."""

    def __init__(self, proxies: TrustedProxies, headers: Headers) -> None:
        self._proxies = proxies
        self._headers = headers
        self._unmatched = Watch(SERVICE, UNMATCHED)
        self._watches: dict[Handler, Watch] = {}

    def watch(self, handler: Handler, watch: Watch) -> None:
        """Say how the requests of a handler are counted; others are counted under the path of their resource."""
        self._watches[handler] = watch

    async def prepare(self, request: web.Request, response: web.StreamResponse) -> None:
        """Complete the headers of any answer, streamed ones included (signal `on_response_prepare`)."""
        request_id = request.get(REQUEST_ID)
        if request_id is not None:
            self._headers.add(request, response, request_id)
            self._headers.add_quota(response, request.get(QUOTA))

    def refuse(self, request: web.BaseRequest, status: int, reason: str) -> web.Response:
        """Answer what aiohttp could not read as a request, or failed to serve outside of the middleware."""
        request_id = _new_request_id()
        noise.info("request refused", extra={"status": status, "reason": reason, "request_id": request_id})
        self._unmatched.count(request.method, status, 0.0)
        response = problem(from_status(status), request_id, status=status)
        self._headers.add(request, response, request_id)
        response.force_close()
        return response

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Pass a request on and answer for it."""
        if request.path.startswith(SOCKET_IO_PATH):
            return await handler(request)
        started = time.perf_counter()
        self._identify(request)
        status = CLIENT_CLOSED_REQUEST  # unless an answer or an error replaces it: the request was cancelled
        try:
            response = self._headers.preflight(request) or await handler(request)
            status = response.status
        except web.HTTPException as error:
            status = error.status
            if status < 400:
                raise
            response = http_problem(error, request[REQUEST_ID])
        except Exception as error:
            response = self._answer_error(request, error)
            status = response.status
        finally:
            self._finish(request, status, time.perf_counter() - started)
        return response

    def _identify(self, request: web.Request) -> None:
        given = request.headers.get(REQUEST_ID_HEADER)
        request_id = given if given and SANE_REQUEST_ID.fullmatch(given) else _new_request_id()
        request[REQUEST_ID] = request_id
        request[CLIENT_IP] = self._proxies.client_ip(request)
        logs.request_context.set(request_id)
        logs.user_context.set(None)

    def _answer_error(self, request: web.Request, error: Exception) -> web.Response:
        """Translate what a handler raised; log what is our fault, once.

        Raises:
            ConnectionError: there is nobody to answer, or half of an answer is on its way.
        """
        if isinstance(error, ConnectionError) and _is_gone(request):
            raise error
        refusal = _refusal(error)
        if refusal.status == 500:
            logger.error("request failed", extra={"route": self._watch(request).route}, exc_info=error)
        elif refusal.status > 500:
            cause = repr(error.__cause__ or error)
            noise.warning("request not served", extra={"code": refusal.code, "cause": cause})
        if request.writer.output_size > 0:
            raise ConnectionAbortedError("the answer had begun") from error
        return problem(refusal, request[REQUEST_ID])

    def _finish(self, request: web.Request, status: int, seconds: float) -> None:
        watch = self._watch(request)
        watch.count(request.method, status, seconds)
        if logger.isEnabledFor(watch.level):
            _log_access(watch, request, status, seconds)

    def _watch(self, request: web.Request) -> Watch:
        handler = request.match_info.handler
        watch = self._watches.get(handler)
        if watch is None:
            resource = request.match_info.route.resource
            if resource is None:
                return self._unmatched  # 404 and 405 have a handler per request; none of them may be kept
            watch = self._watches[handler] = Watch(SERVICE, resource.canonical)
        return watch


def _log_access(watch: Watch, request: web.Request, status: int, seconds: float) -> None:
    extra = {
        "method": request.method,
        "path": request.path[:_LOGGED_PATH] if watch.show_path else watch.route,
        "status": status,
        "ms": round(seconds * 1000, 2),
        "ip": request[CLIENT_IP],
    }
    # `logger.info` would look for its caller in the stack, which is always this line.
    logger.handle(logger.makeRecord(logger.name, watch.level, "", 0, "request", (), None, extra=extra))


def _refusal(error: Exception) -> DomainError:
    if isinstance(error, DomainError):
        return error
    return DeadlineExceeded() if isinstance(error, TimeoutError) else Internal()


def _is_gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


def _new_request_id() -> str:
    return f"{_REPLICA}{next(_numbers):012x}"
