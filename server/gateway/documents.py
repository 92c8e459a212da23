"""What Lectern says about itself: the OpenAPI document, the event reference, and a page to browse them without a CDN.

The viewer in `docs/` is Swagger UI as published (Apache-2.0); this file never fetches anything from elsewhere.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
from aiohttp import hdrs, web

from server.errors import DomainError
from server.gateway.edge import SERVICE, Handler, Watch
from server.gateway.openapi import openapi_document
from server.gateway.problems import title
from server.gateway.protocol import EDGE

if TYPE_CHECKING:
    from server.module import Module

_FOLDER = Path(__file__).parent / "docs"
_FILES: Mapping[str, str] = {
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
    "start.js": "text/javascript; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
}
_MARK = "<!-- errors -->"  # in index.html
# Images are part of the viewer's style sheet; it needs neither inline scripts nor inline styles.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def add_documents(
    application: web.Application, modules: Sequence[Module], events_document: Mapping[str, object]
) -> None:
    """Serve `/api/openapi.json`, `/api/events.json` and `/api/docs`."""
    pages: dict[str, Handler] = {
        "/api/openapi.json": _json(openapi_document(modules)),
        "/api/events.json": _json(events_document),
        "/api/docs": _index(),
        **{f"/api/docs/{name}": _file(name, content_type) for name, content_type in _FILES.items()},
    }
    for path, handler in pages.items():
        application[EDGE].watch(handler, Watch(SERVICE, path))
        application.router.add_get(path, handler)


def _json(document: Mapping[str, object]) -> Handler:
    body = orjson.dumps(document)

    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=body, headers={hdrs.CONTENT_TYPE: "application/json"})

    return answer


def _index() -> Handler:
    page = (_FOLDER / "index.html").read_text().replace(_MARK, _describe(_refusals(DomainError))).encode()

    async def answer(_request: web.Request) -> web.StreamResponse:
        headers = {hdrs.CONTENT_TYPE: "text/html; charset=utf-8", "Content-Security-Policy": _POLICY}
        return web.Response(body=page, headers=headers)

    return answer


def _file(name: str, content_type: str) -> Handler:
    path = _FOLDER / name

    async def answer(_request: web.Request) -> web.StreamResponse:
        headers = {hdrs.CONTENT_TYPE: content_type, hdrs.CACHE_CONTROL: "public, max-age=3600"}
        return web.FileResponse(path, headers=headers)

    return answer


def _refusals(kind: type[DomainError]) -> Iterator[type[DomainError]]:
    """Find every refusal of the program, those included that only a socket answers."""
    for child in kind.__subclasses__():
        yield child
        yield from _refusals(child)


def _describe(kinds: Iterable[type[DomainError]]) -> str:
    """Describe each code once, where the `type` of a problem document points to."""
    by_code: dict[str, list[type[DomainError]]] = {}
    for kind in kinds:
        by_code.setdefault(kind.code, []).append(kind)
    return "\n".join(_describe_code(code, by_code[code]) for code in sorted(by_code))


def _describe_code(code: str, kinds: Sequence[type[DomainError]]) -> str:
    messages = sorted({f"{kind.status}: {html.escape(kind.message)}" for kind in kinds})
    lines = "".join(f"<dd>{message}</dd>" for message in messages)
    return f'<dt id="errors-{code}"><code>{code}</code> {title(code)}</dt>{lines}'
