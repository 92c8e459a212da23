"""Assembly of the HTTP side: the edge, the modules' routes and the server's own, in one readable place.

Which modules there are, how a token is verified and what health means is decided by server/app.py.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from aiohttp import hdrs, web

from server.gateway.admission import Admission
from server.gateway.body import promise_continue
from server.gateway.dispatch import Authenticate, Dispatch
from server.gateway.documents import add_documents
from server.gateway.edge import SERVICE, Edge, Handler, Watch
from server.gateway.endpoint import Route
from server.gateway.headers import Headers
from server.gateway.idempotency import LEASE_MARGIN, Idempotency
from server.gateway.protocol import EDGE
from server.gateway.proxies import TrustedProxies
from server.health import Health, live, ready
from server.metrics import metrics

if TYPE_CHECKING:
    from server.module import Module
    from server.runtime import Runtime


def build_application(
    rt: Runtime,
    modules: Sequence[Module],
    authenticate: Authenticate,
    *,
    health: Health,
    admission: Admission,
    events_document: Mapping[str, object],
) -> web.Application:
    """Build what answers HTTP. `authenticate` finds the actor behind an access token or raises a DomainError.

    Raises:
        ValueError: two routes have the same method and path.
    """
    settings = rt.settings
    headers = Headers(settings.public_url, settings.http.cors_origins)
    edge = Edge(TrustedProxies(settings.http.trusted_proxies), headers)
    application = web.Application(middlewares=[edge.middleware], client_max_size=settings.http.body_limit)
    application[EDGE] = edge
    application.on_response_prepare.append(edge.prepare)
    _refuse_duplicates(modules)
    lease = settings.http.request_timeout + LEASE_MARGIN
    idempotency = Idempotency(rt.database, settings.secret, lease, headers)
    dispatch = Dispatch(rt, authenticate, headers, admission, idempotency)
    for module in modules:
        for route in module.routes:
            _add_route(application, dispatch, module.name, route)
    _add_own(application, settings.metrics.port, health)
    add_documents(application, modules, events_document)
    return application


def _add_route(application: web.Application, dispatch: Dispatch, service: str, route: Route) -> None:
    handler = dispatch.serve(route)
    application[EDGE].watch(handler, Watch(service, route.path, show_path=not route.endpoint.discreet))
    methods = [hdrs.METH_HEAD, hdrs.METH_GET] if route.method == hdrs.METH_GET else [route.method]
    for method in methods:
        application.router.add_route(method, route.path, handler, expect_handler=promise_continue)


def _add_own(application: web.Application, metrics_port: int, health: Health) -> None:
    own: dict[str, Handler] = {"/health/live": live, "/health/ready": ready(health)}
    if not metrics_port:
        own["/metrics"] = metrics
    for path, handler in own.items():
        application[EDGE].watch(handler, Watch(SERVICE, path, level=logging.DEBUG))
        application.router.add_get(path, handler)


def _refuse_duplicates(modules: Sequence[Module]) -> None:
    seen: set[tuple[str, str]] = set()
    for module in modules:
        for route in module.routes:
            if (route.method, route.path) in seen:
                raise ValueError(f"{route.method} {route.path} is served twice")
            seen.add((route.method, route.path))
