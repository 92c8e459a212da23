"""Who may do what (GUARANTEES.md G9): every kind of caller against every route and every command of the registries.

Routes and commands come from `server.app.MODULES`; what each of them answers to whom stands in ROUTES and COMMANDS
below. A handler without a row fails, and so does a row without a handler. To add one, name who may do it:

    "POST /api/chat/rooms/{room_id}/polls": Row(STAFF, body=lambda cell: {"question": "?"}),

Each cell of the matrix has a course of its own, in which everybody has the role that they are named after and a victim
has raised a hand, so that no cell can disturb another. Allowed means: not refused for who one is; what the handler does
is tested elsewhere.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import jwt
import orjson
import pytest
import socketio

from modules.auth import tokens
from modules.classroom import initial_state
from server.app import MODULES, Server
from server.gateway.endpoint import PLACEHOLDER, Route
from server.realtime.namespace import Command
from server.settings import PLANTED_BUGS
from tests.people import PASSWORD, People, Person

# Who calls: each kind is somebody of the demo school. The stranger owns another course.
MEMBERS_BY_ROLE = {
    "observer": "student2",
    "learner": "student3",
    "assistant": "student4",
    "instructor": "student5",
    "owner": "student6",
}
SIGNED_IN_KINDS = {"stranger": "student1", **MEMBERS_BY_ROLE, "admin": "admin"}
# Nobody to us: all were a member of the course, and each lacks one thing. What each of them is told:
NOBODIES = {
    "anonymous": "unauthenticated",
    "forged token": "unauthenticated",
    "expired token": "session_expired",
    "ended session": "unauthenticated",
    "disabled account": "unauthenticated",
}
VICTIM, BYSTANDER, DISABLED, LOGGED_OUT = "student7", "student8", "student9", "student10"
KINDS = (*NOBODIES, *SIGNED_IN_KINDS)
ALLOWED = "allowed"
# The codes of a refusal for who one is; any other answer means that the caller was let through.
REFUSALS = frozenset(("unauthenticated", "session_expired", "forbidden", "not_found", "step_up_required"))

Level = Mapping[str, str]  # what each kind is told


def _level(*kinds: str, stranger: str = "not_found", others: str = "forbidden") -> Level:
    """Allow some kinds of those who are signed in. A stranger cannot tell the course from none."""
    refused = {kind: stranger if kind == "stranger" else others for kind in SIGNED_IN_KINDS}
    return {**NOBODIES, **refused, **dict.fromkeys(kinds, ALLOWED)}


EVERYBODY: Level = dict.fromkeys(KINDS, ALLOWED)
SIGNED_IN = _level(*SIGNED_IN_KINDS)
MEMBERS = _level(*MEMBERS_BY_ROLE, "admin")
SPEAKERS = _level("learner", "assistant", "instructor", "owner", "admin")
STAFF = _level("assistant", "instructor", "owner", "admin")
MANAGERS = _level("instructor", "owner", "admin")
OWNERS = _level("owner", "admin")
ADMINS = _level("admin", stranger="forbidden")
NOT_THEIRS = _level(others="not_found")

NEW_PASSWORD = "a passphrase of orange tin"
WRONG_TOKEN = "A" * 43


@dataclass
class Cell:
    """One caller with a course of their own."""

    person: Person | None
    token: str | None
    victim: Person
    bystander: Person
    course_id: str
    room_id: str
    join_code: str

    def fill(self, path: str, *, of_others: bool) -> str:
        """Put the ids of this cell into the placeholders of a path."""
        values = {
            "course_id": self.course_id,
            "room_id": self.room_id,
            "user_id": self.victim.id,
            "session_id": session_of(self.victim if of_others else self.person or self.bystander),
        }
        return PLACEHOLDER.sub(lambda match: values[match[1]], path)


@dataclass(frozen=True)
class Row:
    """Who may send a request or a command, and with what; `case` tells rows of one handler apart."""

    level: Level
    body: Callable[[Cell], Any] | None = None
    query: str = ""
    joined: bool = False  # the command works only behind join_room
    of_others: bool = False  # what is the caller's own by default is the victim's
    hollow: bool = False  # who is let in has nothing there, and is told that it is not found
    case: str = ""


def _message(cell: Cell) -> dict[str, Any]:
    return {"id": str(uuid4()), "text": "hello"}


def _own_refresh_token(cell: Cell) -> dict[str, Any]:
    return {"refresh_token": (cell.person or cell.bystander).refresh_token}


def _bystanders_address(cell: Cell) -> dict[str, Any]:
    return {"email": f"{BYSTANDER}@example.com"}


def _own_password(cell: Cell) -> dict[str, Any]:
    return {"password": PASSWORD}


COURSE = "/api/classroom/courses/{course_id}"
ROOM = "/api/classroom/rooms/{room_id}"
CHAT_ROOM = "/api/chat/rooms/{room_id}"

ROUTES: Mapping[str, Row | tuple[Row, ...]] = {
    "POST /api/auth/register": Row(
        EVERYBODY,
        lambda cell: {"email": f"{uuid4().hex}@example.com", "password": NEW_PASSWORD, "name": "New"},
    ),
    "POST /api/auth/login": Row(EVERYBODY, lambda cell: {"email": f"{BYSTANDER}@example.com", "password": PASSWORD}),
    "POST /api/auth/refresh": Row(EVERYBODY, _own_refresh_token),
    "POST /api/auth/verify-email": Row(EVERYBODY, lambda cell: {"token": WRONG_TOKEN}),
    "POST /api/auth/verify-email/resend": Row(EVERYBODY, _bystanders_address),
    "POST /api/auth/password/forgot": Row(EVERYBODY, _bystanders_address),
    "POST /api/auth/password/reset": Row(EVERYBODY, lambda cell: {"token": WRONG_TOKEN, "password": NEW_PASSWORD}),
    "POST /api/auth/password/change": Row(
        SIGNED_IN, lambda cell: {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    ),
    "POST /api/auth/email/change": Row(SIGNED_IN, lambda cell: {"email": f"{uuid4().hex}@example.com"}),
    "POST /api/auth/email/confirm": Row(EVERYBODY, lambda cell: {"token": WRONG_TOKEN}),
    "GET /api/auth/sessions": Row(SIGNED_IN),
    "DELETE /api/auth/sessions": Row(SIGNED_IN),
    "GET /api/auth/sessions/{session_id}": (Row(SIGNED_IN), Row(NOT_THEIRS, of_others=True, case="another's")),
    "DELETE /api/auth/sessions/{session_id}": (Row(SIGNED_IN), Row(NOT_THEIRS, of_others=True, case="another's")),
    "GET /api/auth/mfa": Row(SIGNED_IN),
    "POST /api/auth/mfa/totp": Row(SIGNED_IN),
    "POST /api/auth/mfa/totp/confirm": Row(SIGNED_IN, lambda cell: {"code": "000000"}, hollow=True),
    "DELETE /api/auth/mfa/totp": Row(SIGNED_IN, hollow=True),
    "POST /api/auth/mfa/recovery-codes": Row(SIGNED_IN, hollow=True),
    "POST /api/auth/step-up": Row(SIGNED_IN, _own_password),
    "GET /api/auth/users": Row(ADMINS, query="?q=a"),
    "PATCH /api/auth/users/{user_id}": Row(ADMINS, lambda cell: {"disabled": False}),
    "POST /api/auth/logout": Row(SIGNED_IN),
    "POST /api/auth/logout-all": Row(SIGNED_IN),
    "GET /api/auth/me": Row(SIGNED_IN),
    "GET /api/auth/.well-known/jwks.json": Row(EVERYBODY),
    "GET /api/profile/me": Row(SIGNED_IN),
    "PATCH /api/profile/me": Row(SIGNED_IN, lambda cell: {"bio": "hello"}),
    "DELETE /api/profile/me": Row(SIGNED_IN, _own_password),
    "GET /api/profile/me/preferences": Row(SIGNED_IN),
    "PATCH /api/profile/me/preferences": Row(SIGNED_IN, lambda cell: {"theme": "dark"}),
    "GET /api/profile/me/export": Row(SIGNED_IN),
    "GET /api/profile/search": Row(SIGNED_IN, query="?q=a"),
    "GET /api/profile/users/{user_id}": Row(MEMBERS),
    "POST /api/classroom/courses": Row(SIGNED_IN, lambda cell: {"title": "New"}),
    "GET /api/classroom/courses": Row(SIGNED_IN),
    "POST /api/classroom/courses/join": Row(SIGNED_IN, lambda cell: {"code": cell.join_code}),
    f"GET {COURSE}": Row(MEMBERS),
    f"PATCH {COURSE}": Row(MANAGERS, lambda cell: {"title": "New"}),
    f"DELETE {COURSE}": Row(OWNERS),
    f"GET {COURSE}/members": Row(MEMBERS),
    f"POST {COURSE}/members": (
        Row(MANAGERS, lambda cell: {"user_id": cell.bystander.id}),
        Row(OWNERS, lambda cell: {"user_id": cell.bystander.id, "role": "owner"}, case="an owner"),
    ),
    f"PATCH {COURSE}/members/{{user_id}}": (
        Row(MANAGERS, lambda cell: {"role": "observer"}),
        Row(OWNERS, lambda cell: {"role": "instructor"}, case="to instructor"),
    ),
    f"DELETE {COURSE}/members/{{user_id}}": Row(MANAGERS),
    f"GET {COURSE}/rooms": Row(MEMBERS),
    f"POST {COURSE}/rooms": Row(MANAGERS, lambda cell: {"name": "New", "kind": "class"}),
    f"GET {ROOM}": Row(MEMBERS),
    f"PATCH {ROOM}": Row(MANAGERS, lambda cell: {"name": "New"}),
    f"DELETE {ROOM}": Row(MANAGERS),
    f"GET {ROOM}/state": Row(MEMBERS),
    f"GET {ROOM}/events": Row(MEMBERS),
    f"GET {ROOM}/participants": Row(MEMBERS),
    f"GET {CHAT_ROOM}/messages": Row(MEMBERS),
    f"POST {CHAT_ROOM}/messages": Row(SPEAKERS, _message),
    f"PUT {CHAT_ROOM}/read": Row(MEMBERS, lambda cell: {"seq": 0}),
    "GET /api/chat/unread": Row(SIGNED_IN),
}

# The room of the cell is part of every payload.
COMMANDS: Mapping[str, Row | tuple[Row, ...]] = {
    "join_room": Row(MEMBERS),
    "leave_room": Row(SIGNED_IN),  # leaving what one is not in does nothing
    "start_class": Row(STAFF),
    "end_class": Row(STAFF),
    "raise_hand": Row(SPEAKERS),
    "lower_hand": (
        Row(SPEAKERS),
        Row(STAFF, lambda cell: {"user_id": cell.victim.id}, case="another's"),
    ),
    "call_on": Row(STAFF, lambda cell: {"user_id": cell.victim.id}),
    "message": Row(SPEAKERS, _message),
    "history": Row(MEMBERS),
    "typing": Row({**SPEAKERS, "stranger": "forbidden"}, lambda cell: {"on": True}, joined=True),
    "read": Row(MEMBERS, lambda cell: {"seq": 0}),
}

# What the server itself answers, for everybody: documents, health, the web client, and the door of Socket.IO, which
# asks for a token when a client connects to a namespace.
OWN_PATHS = ("/health/", "/metrics", "/api/docs", "/api/openapi.json", "/api/events.json", "/socket.io/")


def routes() -> dict[str, Route]:
    return {f"{route.method} {route.path}": route for module in MODULES for route in module.routes}


def commands() -> dict[str, Command]:
    return {command.name: command for module in MODULES for command in module.commands}


def rows_of(entry: Row | tuple[Row, ...]) -> tuple[Row, ...]:
    return (entry,) if isinstance(entry, Row) else entry


def matrix(table: Mapping[str, Row | tuple[Row, ...]], known: Iterable[str]) -> list[Any]:
    """The rows of handlers that exist, as parameters of a test."""
    found = [(name, row) for name in known for row in rows_of(table.get(name, ()))]
    return [pytest.param(name, row, id=f"{name} {row.case}".strip()) for name, row in found]


# Who cannot even see the room gets nothing through a room of two people, whatever place they have in courses.
ROOM_ROUTES = [item for item in matrix(ROUTES, routes()) if "{room_id}" in item.values[0]]
ROOM_COMMANDS = [item for item in matrix(COMMANDS, commands()) if item.values[1].level is not SIGNED_IN]


def session_of(person: Person) -> str:
    """The id of the login session behind somebody's token."""
    return str(jwt.decode(person.token, options={"verify_signature": False})["sid"])


class World:
    """The callers, and courses for them."""

    def __init__(self, server: Server, people: People) -> None:
        self._rt = server.rt
        self._people = people
        self._signed_in: dict[str, Person] = {}

    async def person(self, name: str) -> Person:
        if name not in self._signed_in:
            self._signed_in[name] = await self._people.sign_in(name)
        return self._signed_in[name]

    async def open(self) -> None:
        """Sign everybody in, and take away what the nobodies lack."""
        for name in (*SIGNED_IN_KINDS.values(), VICTIM, BYSTANDER, DISABLED, LOGGED_OUT):
            await self.person(name)
        async with self._rt.database.connection() as conn:
            await conn.execute("UPDATE users SET disabled_at = now() WHERE email = $1", f"{DISABLED}@example.com")
            await conn.execute(
                "UPDATE auth_sessions SET revoked_at = now(), revoked_why = 'logout' WHERE user_id = $1",
                UUID(self._signed_in[LOGGED_OUT].id),
            )
            await conn.execute("DELETE FROM course_members")  # nobody knows anybody from anywhere else
        await self._add_course({"student1": "owner"})

    async def cell(self, kind: str) -> Cell:
        """A caller, with a course of its own in which they have their place."""
        everybody = {name: role for role, name in MEMBERS_BY_ROLE.items()}
        victims = dict.fromkeys((VICTIM, DISABLED, LOGGED_OUT), "learner")
        course_id, room_id, code = await self._add_course({**everybody, **victims})
        person = self._signed_in[SIGNED_IN_KINDS[kind]] if kind in SIGNED_IN_KINDS else None
        token = person.token if person else self._token_of_nobody(kind)
        victim, bystander = self._signed_in[VICTIM], self._signed_in[BYSTANDER]
        return Cell(person, token, victim, bystander, str(course_id), str(room_id), code)

    async def direct_room(self) -> str:
        """The id of a room of two people outside of all courses."""
        room_id = self._rt.clock.uuid7()
        pair = [UUID(self._signed_in[name].id) for name in (VICTIM, BYSTANDER)]
        async with self._rt.database.transaction() as conn:
            await conn.execute(
                "INSERT INTO rooms (id, name, kind, created_by) VALUES ($1, '', 'direct', $2)", room_id, pair[0]
            )
            await conn.execute(
                "INSERT INTO room_members (room_id, user_id, role)"
                " SELECT $1, p, 'learner' FROM unnest($2::uuid[]) AS p",
                room_id,
                pair,
            )
        return str(room_id)

    def _token_of_nobody(self, kind: str) -> str | None:
        if kind == "anonymous":
            return None
        if kind == "forged token":
            head, _, signature = self._signed_in["student6"].token.rpartition(".")
            return f"{head}.{'A' * len(signature)}"
        if kind == "expired token":
            return self._expired_token("student6")
        return self._signed_in[{"disabled account": DISABLED, "ended session": LOGGED_OUT}[kind]].token

    def _expired_token(self, name: str) -> str:
        keys, now = tokens.keyring(self._rt.settings), self._rt.clock.unix()
        claims = keys.verify(self._signed_in[name].token, now=now)
        before = now - self._rt.settings.auth.access_token_seconds - 60
        return keys.sign(user_id=claims.sub, session_id=claims.sid, token_id=uuid4(), now=before)

    async def _add_course(self, roles: Mapping[str, str]) -> tuple[UUID, UUID, str]:
        """A course with a live class, in which the victim has raised a hand."""
        course_id, room_id, code = self._rt.clock.uuid7(), self._rt.clock.uuid7(), uuid4().hex[:12].upper()
        victim = self._signed_in[VICTIM]
        hand = {"user_id": victim.id, "name": victim.user["name"], "raised_at": "2026-01-01T00:00:00.000Z"}
        state = {**initial_state("class"), "status": "live", "hands": [hand]}
        ids = {name: UUID(self._signed_in[name].id) for name in roles}
        async with self._rt.database.transaction() as conn:
            await conn.execute(
                "INSERT INTO courses (id, title, join_code, created_by) VALUES ($1, 'Cell', $2, $3)",
                course_id,
                code,
                next(iter(ids.values())),
            )
            await conn.execute(
                "INSERT INTO course_members (course_id, user_id, role)"
                " SELECT $1, * FROM unnest($2::uuid[], $3::text[])",
                course_id,
                list(ids.values()),
                list(roles.values()),
            )
            await conn.execute(
                "INSERT INTO rooms (id, course_id, name, kind, state, created_by)"
                " VALUES ($1, $2, 'Class', 'class', $3::text::json, $4)",
                room_id,
                course_id,
                orjson.dumps(state).decode(),
                UUID(victim.id),
            )
        return course_id, room_id, code


@pytest.fixture
async def world(server: Server, people: People) -> World:
    world = World(server, people)
    await world.open()
    return world


@pytest.fixture
async def client(url: str) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(url, cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield session


async def request(session: aiohttp.ClientSession, cell: Cell, name: str, row: Row) -> str:
    """Send the request of a row: ALLOWED, or the code of the refusal."""
    method, path = name.split(" ")
    headers = {"Authorization": f"Bearer {cell.token}"} if cell.token else {}
    body = row.body(cell) if row.body else None
    async with session.request(
        method, cell.fill(path, of_others=row.of_others) + row.query, json=body, headers=headers
    ) as answer:
        text = await answer.text()
        assert answer.status < 500, f"{name}: {answer.status} {text}"
        assert answer.status != 429, f"{name}: a limit hides what the matrix asks for: {text}"
        code = str(orjson.loads(text)["code"]) if answer.status >= 400 else ""
    if row.hollow and code == "not_found":
        return ALLOWED
    return code if code in REFUSALS else ALLOWED


async def command(person: Person, cell: Cell, name: str, namespace: str, row: Row) -> str:
    """Send the command of a row: ALLOWED, or the code of the refusal."""
    socket = await person.connect(namespace)
    if row.joined:
        await socket.send("join_room", room_id=cell.room_id)
    ack = await socket.send(name, room_id=cell.room_id, **(row.body(cell) if row.body else {}))
    await socket.close()
    person.clients.remove(socket)
    code = "" if ack["ok"] else ack["error"]["code"]
    assert code not in ("internal", "unavailable", "rate_limited"), f"{name}: {ack}"
    return code if code in REFUSALS else ALLOWED


def test_every_route_has_a_row_and_every_row_a_route():
    assert set(ROUTES) == set(routes())


def test_every_command_has_a_row_and_every_row_a_command():
    assert set(COMMANDS) == set(commands())


def test_only_routes_of_everybody_are_declared_public():
    for name, route in routes().items():
        assert route.endpoint.public == all(row.level is EVERYBODY for row in rows_of(ROUTES[name])), name


async def test_nothing_is_served_beside_the_registries(server):
    known = {route.split(" ")[1] for route in ROUTES}
    for route in server.application.router.routes():
        assert route.resource is not None
        path = route.resource.canonical
        if path in known or path.startswith(OWN_PATHS):
            continue
        # What is left is the web client: files, for reading.
        assert not path.startswith("/api/"), path
        assert route.method in ("GET", "HEAD"), f"{route.method} {path}"


@pytest.mark.parametrize(("name", "row"), matrix(ROUTES, routes()))
async def test_a_route_lets_in_whom_it_should(world, client, name, row):
    told = {}
    for kind in KINDS:
        told[kind] = await request(client, await world.cell(kind), name, row)
    assert told == dict(row.level)


async def test_the_matrix_notices_a_check_that_is_missing(world, client, monkeypatch):
    monkeypatch.setenv(PLANTED_BUGS, "anybody-manages")
    name = f"PATCH {COURSE}"
    [row] = rows_of(ROUTES[name])
    told = {kind: await request(client, await world.cell(kind), name, row) for kind in KINDS}
    assert {kind for kind in KINDS if told[kind] != row.level[kind]} == {"observer", "learner", "assistant"}


@pytest.mark.parametrize(("name", "row"), matrix(COMMANDS, commands()))
async def test_a_command_lets_in_whom_it_should(world, name, row):
    for namespace in commands()[name].namespaces:
        told = dict(NOBODIES)  # who never gets a socket, see the next test
        for kind in SIGNED_IN_KINDS:
            cell = await world.cell(kind)
            told[kind] = await command(cell.person, cell, name, namespace, row)
        assert told == dict(row.level), namespace


@pytest.mark.parametrize("kind", NOBODIES)
async def test_nobody_gets_no_socket(world, server, url, kind):
    for namespace in server.namespaces:
        cell = await world.cell(kind)
        refused: list[Any] = []
        socket = socketio.AsyncClient(reconnection=False, handle_sigint=False)
        socket.on("connect_error", refused.append, namespace=namespace)
        auth = {"token": cell.token} if cell.token else None
        with pytest.raises(socketio.exceptions.ConnectionError):
            await socket.connect(url, auth=auth, namespaces=[namespace], transports=["websocket"], wait_timeout=5)
        assert refused[0]["data"]["code"] == NOBODIES[kind], namespace
        await socket.disconnect()


@pytest.mark.parametrize(("name", "row"), ROOM_ROUTES)
async def test_a_room_of_two_is_closed_to_everybody_else(world, client, name, row):
    for kind in ("admin", "owner", "stranger"):
        cell = await world.cell(kind)
        cell.room_id = await world.direct_room()
        assert await request(client, cell, name, row) == "not_found", kind


@pytest.mark.parametrize(("name", "row"), ROOM_COMMANDS)
async def test_the_commands_of_a_room_of_two_are_closed_to_everybody_else(world, name, row):
    for kind in ("admin", "owner", "stranger"):
        cell = await world.cell(kind)
        cell.room_id = await world.direct_room()
        for namespace in commands()[name].namespaces:
            assert await command(cell.person, cell, name, namespace, row) == row.level["stranger"], kind
