"""A misbehaving way to the Redis of the test run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from server.verify.proxy import Proxy, free_ports


@asynccontextmanager
async def redis_edge(redis_url: str) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy before Redis, and the URL that leads through it."""
    parts = urlsplit(redis_url)
    target = parts.path if parts.scheme == "unix" else (parts.hostname or "127.0.0.1", parts.port or 6379)
    [port] = free_ports(1, 29_000)
    proxy = Proxy(port, target)
    await proxy.start()
    try:
        yield proxy, f"redis://127.0.0.1:{port}/0"
    finally:
        await proxy.stop()
