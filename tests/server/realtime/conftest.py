"""The bare engine in this process, as the protocols' own suites see it (tests/protocol_server.py)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from server.settings import Realtime
from tests.protocol_server import ENGINE, PATHS, listening, protocol_application, protocol_settings

PATIENCE = 3.0  # seconds


class Bare:
    """A client of the bare engine: plain requests and WebSockets."""

    def __init__(self, session: aiohttp.ClientSession, path: str, engine: Any) -> None:
        self.session = session
        self.path = path
        self.engine = engine

    def params(self, transport: str, sid: str | None = None) -> dict[str, str]:
        return {"EIO": "4", "transport": transport, **({"sid": sid} if sid else {})}

    async def request(self, method: str, params: dict[str, str], data: Any = None) -> tuple[int, str]:
        async with self.session.request(method, self.path, params=params, data=data) as response:
            return response.status, await response.text()

    async def open_polling(self) -> str:
        """Open a session that polls; its sid."""
        status, text = await self.request("GET", self.params("polling"))
        assert status == 200
        return str(json.loads(text[1:])["sid"])

    async def poll(self, sid: str) -> tuple[int, str]:
        return await self.request("GET", self.params("polling", sid))

    async def post(self, sid: str, data: str | bytes) -> tuple[int, str]:
        return await self.request("POST", self.params("polling", sid), data)

    async def open_websocket(self, sid: str | None = None) -> aiohttp.ClientWebSocketResponse:
        """Open a WebSocket; without a sid, past the greeting."""
        websocket = await self.session.ws_connect(self.path, params=self.params("websocket", sid), max_msg_size=0)
        if sid is None:
            assert (await websocket.receive_str(timeout=PATIENCE))[0] == "0"
        return websocket

    async def upgrade(self, sid: str) -> aiohttp.ClientWebSocketResponse:
        websocket = await self.open_websocket(sid)
        await websocket.send_str("2probe")
        assert await websocket.receive_str(timeout=PATIENCE) == "3probe"
        await websocket.send_str("5")
        return websocket


@pytest.fixture
def bare_settings() -> Realtime:
    """What the suites expect; a test file may define this fixture to change it."""
    return protocol_settings()


@pytest.fixture
async def eio(bare_settings: Realtime) -> AsyncIterator[Bare]:
    """The bare Engine.IO server, which sends every message back."""
    async with _serving("eio", bare_settings) as bare:
        yield bare


@pytest.fixture
async def sio(bare_settings: Realtime) -> AsyncIterator[Bare]:
    """The bare Socket.IO server with the namespaces `/` and `/custom`."""
    async with _serving("sio", bare_settings) as bare:
        yield bare


@asynccontextmanager
async def _serving(mode: str, settings: Realtime) -> AsyncIterator[Bare]:
    async with (
        protocol_application(mode, settings) as application,
        listening(application) as url,
        aiohttp.ClientSession(url) as session,
    ):
        yield Bare(session, PATHS[mode], application[ENGINE])
