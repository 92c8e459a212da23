"""What Lectern is measured beside in its own language: python-socketio as its documentation shows it, on uvloop.

`python -m scripts.benches.stock '{"port": …, "ping_interval": …, "ping_timeout": …}'` speaks the dialect of
peers_node/server.mjs and checks as little: a token is whatever the client says.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import socketio
import uvloop
from aiohttp import web

NAMESPACE = "/classroom"
NAME = "Student of the school"

Json = dict[str, Any]  # Any: whatever a client sends


def make_app(options: Json) -> web.Application:
    sio = socketio.AsyncServer(
        async_mode="aiohttp", ping_interval=options["ping_interval"], ping_timeout=options["ping_timeout"]
    )
    users: dict[str, str] = {}

    async def connect(sid: str, _environ: Json, auth: Json) -> None:
        users[sid] = auth["token"]

    async def disconnect(sid: str, _reason: str) -> None:
        users.pop(sid, None)

    async def join_room(sid: str, data: Json) -> Json:
        await sio.enter_room(sid, data["room_id"], namespace=NAMESPACE)
        return {"ok": True}

    async def typing(sid: str, data: Json) -> Json:
        event = {"room_id": data["room_id"], "user_id": users[sid], "name": NAME, "on": data["on"]}
        await sio.emit("typing", event, to=data["room_id"], skip_sid=sid, namespace=NAMESPACE)
        return {"ok": True}

    for handler in (connect, disconnect, join_room, typing):
        sio.on(handler.__name__, handler, namespace=NAMESPACE)
    app = web.Application()
    sio.attach(app)
    return app


def main() -> None:
    options = json.loads(sys.argv[1])
    uvloop.install()  # aiohttp's runner makes its loop by the policy
    web.run_app(make_app(options), host="127.0.0.1", port=options["port"], access_log=None, print=None, backlog=4096)


if __name__ == "__main__":
    main()
