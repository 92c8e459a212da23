"""HTTP: the page and its static files. It reads no database and knows no user.

Only files that exist at the start are served, each under its exact name: no listing, no way out of the directory.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from html import escape
from pathlib import Path

from aiohttp import web

STATIC = Path(__file__).resolve().parent / "static"
INDEX = "index.html"
# The type of each suffix that is served; the tables of the machine are not asked, they differ.
CONTENT_TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".webmanifest": "application/manifest+json",
    ".txt": "text/plain; charset=utf-8",
}
HOST = re.compile(r"(?P<name>[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?")
SERVERS_META = '<meta name="lectern-servers" content="">'
REVALIDATE = "no-cache"  # names carry no version, so a browser asks each time and mostly gets 304

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def add_static(app: web.Application, *, replica_ports: Iterable[int] = ()) -> None:
    """Serve the web client: `/` is the page, `/static/…` its files.

    `replica_ports` are the ports of all replicas on this host; the page may try the others when its own does not
    answer. Behind a load balancer there are none.
    """
    app.router.add_get("/", _index_handler(frozenset(replica_ports)))
    app.router.add_get("/static/{path:.+}", _file_handler(_files()))


def content_security_policy(servers: Iterable[str] = ()) -> str:
    """The policy of the page: its own files, its own server and `servers`, nothing inline, no HTML from strings."""
    connect = ["'self'"]
    for server in servers:
        connect += [server, server.replace("http", "ws", 1)]
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' data: blob:",
            f"connect-src {' '.join(connect)}",
            "manifest-src 'self'",
            "base-uri 'none'",
            "form-action 'self'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


def _files() -> dict[str, Path]:
    found = (path for path in STATIC.rglob("*") if path.is_file() and path.suffix in CONTENT_TYPES)
    return {path.relative_to(STATIC).as_posix(): path for path in found}


def _index_handler(replica_ports: frozenset[int]) -> Handler:
    page = (STATIC / INDEX).read_text(encoding="utf-8")

    async def index(request: web.Request) -> web.StreamResponse:
        servers = _siblings(request, replica_ports)
        text = page.replace(SERVERS_META, SERVERS_META.replace('""', f'"{escape(",".join(servers))}"'))
        headers = {
            "Cache-Control": REVALIDATE,
            "Content-Security-Policy": content_security_policy(servers),
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }
        return web.Response(text=text, content_type="text/html", headers=headers)

    return index


def _siblings(request: web.Request, replica_ports: frozenset[int]) -> list[str]:
    """Origins of the other replicas, under the name by which the browser found this one."""
    host = HOST.fullmatch(request.host)
    if host is None:  # it goes into a header and into the page, so it must look like one
        return []
    ports = sorted(replica_ports - {int(host["port"] or 80)})
    return [f"{request.scheme}://{host['name']}:{port}" for port in ports]


def _file_handler(files: dict[str, Path]) -> Handler:
    async def static_file(request: web.Request) -> web.StreamResponse:
        path = files.get(request.match_info["path"])
        if path is None:
            raise web.HTTPNotFound
        headers = {
            "Cache-Control": REVALIDATE,
            "Content-Type": CONTENT_TYPES[path.suffix],
            "X-Content-Type-Options": "nosniff",
        }
        return web.FileResponse(path, headers=headers)

    return static_file
