"""Idempotency-Key: a POST that is sent again, to whichever replica, has one effect and one answer for a day.

A request claims its key in PostgreSQL, for as long as a lease. Whoever comes second waits for the answer, or is told to
come again. The claim is confirmed inside the transaction that has the effect (`Database.before_commit`): a request
whose lease has ended and was taken over by another cannot commit any more, and one that died between its commit and its
answer is known to have been carried out, so it is never done twice. Refusals are not kept: the key is free again.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import orjson
from aiohttp import hdrs, web

from server.database import Connection, Database, before_commit
from server.errors import Conflict, DomainError, FieldError, IdempotencyKeyReused, Invalid
from server.gateway.answer import JsonAnswer
from server.gateway.headers import Headers
from server.settings import planted_bugs

logger = logging.getLogger(__name__)

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"
KEPT = timedelta(hours=24)
LEASE_MARGIN = 5.0  # seconds that a claim outlives the deadline of its request
PAUSES = (0.02, 0.05, 0.1, 0.2)  # seconds between looks for the answer of the first request; the last one repeats
SWEPT = 1000  # rows in one statement
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
# Headers of an answer that say something about it and not about the moment or the connection.
_REMEMBERED = frozenset(name.lower() for name in (hdrs.ETAG, hdrs.LOCATION, hdrs.CACHE_CONTROL, hdrs.CONTENT_TYPE))

Answer = Callable[[], Awaitable[web.StreamResponse]]


class RequestInProgress(Conflict):
    retryable = True
    message = "The first request with this key is still being carried out. Send it again in a moment."

    def __init__(self) -> None:
        super().__init__(retry_after=1.0)


class AnswerLost(Conflict):
    message = "A request with this key was carried out, but its answer was lost. Look at what is there."


class TakenOver(Conflict):
    message = "This request took too long, and the same one sent again was carried out instead."


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked: under which key, and a digest of the request that tells another one of the same key."""

    id: bytes
    actor_id: UUID | None
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class _Found:
    fingerprint: bytes
    status: int | None
    headers: Mapping[str, str]
    body: bytes
    lost: bool


class Idempotency:
    """Carries requests out once."""

    def __init__(self, database: Database, secret: str, lease_seconds: float, headers: Headers) -> None:
        self._database = database
        self._key = hashlib.blake2b(secret.encode(), digest_size=32, person=b"lectern idem").digest()
        self._lease = timedelta(seconds=lease_seconds)
        self._headers = headers
        self._bugs = planted_bugs()

    def read_key(self, request: web.Request, route: str, actor_id: UUID | None, body: bytes) -> Asked | None:
        """What the request asks for; None when it carries no key.

        Raises:
            Invalid: the key is not 1 to 255 visible ASCII characters.
        """
        given = request.headers.get(HEADER)
        if given is None:
            return None
        if not _KEY.fullmatch(given):
            raise Invalid(errors=[FieldError((HEADER,), "Send 1 to 255 visible ASCII characters, e.g. a UUID.")])
        body = orjson.dumps(orjson.loads(body), option=orjson.OPT_SORT_KEYS) if body else b""
        identity = self._digest(str(actor_id).encode(), route.encode(), given.encode())
        return Asked(identity, actor_id, self._digest(request.raw_path.encode(errors="replace"), body))

    async def once(self, asked: Asked, claim: UUID, carry_out: Answer) -> web.StreamResponse:
        """Carry a request out, or give the answer that it got before.

        Raises:
            IdempotencyKeyReused: the key belongs to another request.
            RequestInProgress: the first one still runs.
            AnswerLost: it was carried out and nobody knows its answer.
        """
        if "no_idempotency" in self._bugs:
            return await carry_out()
        for pause in (*PAUSES, *[PAUSES[-1]] * 8):
            found = await self._claim(asked, claim)
            if found is None:
                return await self._carry_out(asked, claim, carry_out)
            if found.fingerprint != asked.fingerprint:
                raise IdempotencyKeyReused
            if found.status is not None:
                return self._replay(found, found.status)
            if found.lost:
                raise AnswerLost
            await asyncio.sleep(pause)
        raise RequestInProgress

    async def _claim(self, asked: Asked, claim: UUID) -> _Found | None:
        """Make the request ours; what is there when it is somebody else's."""
        async with self._database.connection() as conn:
            if await _insert_claim(conn, asked, claim, self._lease):
                return None
            return await _read(conn, asked)

    async def _carry_out(self, asked: Asked, claim: UUID, carry_out: Answer) -> web.StreamResponse:
        confirmation = _Confirmation(asked.id, claim)
        token = before_commit.set(confirmation)
        try:
            response = await carry_out()
        except DomainError as refusal:
            # Of a failure of ours nobody knows what it has done: the row does, since the commit would have told it.
            await self._release(asked, claim, whatever=refusal.status < 500)
            raise
        except Exception:
            await self._release(asked, claim, whatever=False)
            raise
        finally:
            confirmation.over = True
            before_commit.reset(token)
        await self._remember(asked, claim, response)
        return response

    async def _remember(self, asked: Asked, claim: UUID, response: web.StreamResponse) -> None:
        headers = {str(name): value for name, value in response.headers.items() if name.lower() in _REMEMBERED}
        body = response.body if isinstance(response, web.Response) and isinstance(response.body, bytes) else b""
        try:
            async with self._database.connection() as conn:
                await _write_answer(conn, asked.id, claim, response.status, orjson.dumps(headers).decode(), body)
        except DomainError as error:  # the sender gets its answer; only somebody who asks again does not
            logger.warning("an answer was not kept", extra={"reason": error.message})

    async def _release(self, asked: Asked, claim: UUID, *, whatever: bool) -> None:
        async with self._database.connection() as conn:
            await _delete_claim(conn, asked.id, claim, whatever=whatever)

    def _replay(self, found: _Found, status: int) -> web.StreamResponse:
        empty = not found.body
        response = web.Response(status=status) if empty else JsonAnswer(status, found.body, self._headers)
        response.headers.update(found.headers)
        response.headers[REPLAYED] = "true"
        return response

    def _digest(self, *parts: bytes) -> bytes:
        """Keyed, so that a body with a password cannot be guessed from what is stored."""
        digest = hashlib.blake2b(key=self._key, digest_size=32)
        for part in parts:
            digest.update(len(part).to_bytes(8))
            digest.update(part)
        return digest.digest()


class _Confirmation:
    """Runs before each COMMIT of a claimed request: says in the first one that the effect happens, if it still may."""

    __slots__ = ("_claim", "_id", "_said", "over")

    def __init__(self, identity: bytes, claim: UUID) -> None:
        self._id = identity
        self._claim = claim
        self._said = False
        self.over = False  # a background task of the request may outlive it with its context

    async def __call__(self, conn: Connection) -> None:
        if self._said or self.over:
            return
        if not await _confirm(conn, self._id, self._claim):
            raise TakenOver
        self._said = True


async def sweep(database: Database) -> None:
    """Delete what is over its time; replicas that sweep at once pass by one another's rows."""
    while True:
        async with database.connection() as conn:
            if await _delete_old(conn) < SWEPT:
                return


async def erase_answers(conn: Connection, user_id: UUID) -> None:
    """Forget the answers that somebody got, which may tell about them."""
    await conn.execute("DELETE FROM idempotency_keys WHERE actor_id = $1", user_id)


async def _insert_claim(conn: Connection, asked: Asked, claim: UUID, lease: timedelta) -> bool:
    """Claim a key that is new, over its time, or abandoned before it had an effect."""
    found = await conn.fetchval(
        """
        INSERT INTO idempotency_keys AS k (id, actor_id, fingerprint, claim, lease_until)
        VALUES ($1, $2, $3, $4, now() + $5)
        ON CONFLICT (id) DO UPDATE SET
            actor_id = excluded.actor_id, fingerprint = excluded.fingerprint, claim = excluded.claim,
            lease_until = excluded.lease_until, committed = false,
            status = NULL, headers = NULL, body = NULL, created_at = now()
        WHERE k.created_at < now() - $6::interval
            OR (k.status IS NULL AND NOT k.committed AND k.lease_until < now() AND k.fingerprint = excluded.fingerprint)
        RETURNING claim
        """,
        asked.id,
        asked.actor_id,
        asked.fingerprint,
        claim,
        lease,
        KEPT,
    )
    return found is not None


async def _read(conn: Connection, asked: Asked) -> _Found:
    row = await conn.fetchrow(
        """
        SELECT fingerprint, status, headers, body, committed AND lease_until < now() AS lost
        FROM idempotency_keys WHERE id = $1
        """,
        asked.id,
    )
    if row is None:  # freed since: as if it were being carried out, the next look finds it free
        return _Found(asked.fingerprint, None, {}, b"", lost=False)
    return _Found(
        row["fingerprint"], row["status"], orjson.loads(row["headers"] or "{}"), row["body"] or b"", lost=row["lost"]
    )


async def _confirm(conn: Connection, identity: bytes, claim: UUID) -> bool:
    found = await conn.fetchval(
        "UPDATE idempotency_keys SET committed = true WHERE id = $1 AND claim = $2 RETURNING true", identity, claim
    )
    return found is not None


async def _write_answer(conn: Connection, identity: bytes, claim: UUID, status: int, headers: str, body: bytes) -> None:
    await conn.execute(
        """
        UPDATE idempotency_keys SET committed = true, status = $3, headers = $4::jsonb, body = $5
        WHERE id = $1 AND claim = $2
        """,
        identity,
        claim,
        status,
        headers,
        body,
    )


async def _delete_claim(conn: Connection, identity: bytes, claim: UUID, *, whatever: bool) -> None:
    await conn.execute(
        "DELETE FROM idempotency_keys WHERE id = $1 AND claim = $2 AND (NOT committed OR $3)", identity, claim, whatever
    )


async def _delete_old(conn: Connection) -> int:
    done: str = await conn.execute(
        """
        DELETE FROM idempotency_keys WHERE id IN (
            SELECT id FROM idempotency_keys WHERE created_at < now() - $1::interval
            ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED
        )
        """,
        KEPT,
        SWEPT,
    )
    return int(done.rpartition(" ")[2])
