"""PostgreSQL: a FIFO pool with deadlines over asyncpg connections, and the transaction that every write goes through.

It owns connections and nothing else: statements live in the stores. asyncpg's own pool lets a newcomer overtake the
waiters (PERFORMANCE.md section 1: p99 of 700 ms against 8 ms) and resets each connection with a query of its own; here
waiters are served in order, and nothing may change the state of a session.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any
from uuid import UUID

import asyncpg

from server.errors import Unavailable
from server.settings import Database as DatabaseSettings

logger = logging.getLogger(__name__)

# What asyncpg, the socket or a deadline raise when PostgreSQL is away, restarts or hangs.
CONNECTION_ERRORS = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the state in which uvloop's RuntimeError (below) leaves a connection
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    OSError,
    TimeoutError,
)
# The server answered, but could not do the work now: the same statement may succeed later.
BUSY_ERRORS = (
    asyncpg.QueryCanceledError,
    asyncpg.LockNotAvailableError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.IdleInTransactionSessionTimeoutError,
)
STATEMENT_MARGIN = 1.0  # seconds that the client waits longer than the server's own statement_timeout

Connection = asyncpg.Connection
# Runs inside every transaction of the context just before its COMMIT: what it writes stands or falls with the effect.
before_commit: ContextVar[Callable[[Connection], Awaitable[None]] | None] = ContextVar("before_commit", default=None)


class Database:
    """A fixed number of connections, made when first needed, lent in the order of asking."""

    def __init__(self, settings: DatabaseSettings) -> None:
        self._settings = settings
        self._idle: list[Connection] = []
        self._waiting: deque[asyncio.Future[Connection | None]] = deque()
        self._made = 0
        self._closed = False

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lend a connection for single statements.

        Raises:
            Unavailable: none became free in time, or PostgreSQL was lost meanwhile.
        """
        conn = await self._acquire()
        broken = True  # also when the caller is cancelled in the middle of a statement
        try:
            yield conn
            broken = False
        except CONNECTION_ERRORS as error:
            raise Unavailable("The database does not answer. Try again in a moment.") from error
        except BUSY_ERRORS as error:
            broken = False
            raise Unavailable("The database is busy. Try again in a moment.") from error
        except Exception as error:
            if _is_closed_transport(error):
                raise Unavailable("The database does not answer. Try again in a moment.") from error
            broken = False  # the statement or the caller was at fault, not the connection
            raise
        finally:
            self._release(conn, broken=broken)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Lend a connection inside BEGIN … COMMIT (READ COMMITTED); any exception rolls back.

        Raises:
            Unavailable: as for `connection`. When COMMIT itself was lost, the outcome is unknown.
        """
        async with self.connection() as conn:
            transaction = conn.transaction()
            await transaction.start()
            try:
                yield conn
                confirm = before_commit.get()
                if confirm is not None:
                    await confirm(conn)
            except BaseException:
                if not conn.is_closed():
                    await self._roll_back(conn, transaction)
                raise
            await transaction.commit()

    async def ping(self) -> None:
        """Ask PostgreSQL for a sign of life.

        Raises:
            Unavailable: it gave none.
        """
        async with self.connection() as conn:
            await conn.execute("SELECT 1")

    async def close(self) -> None:
        """Close what is idle; what is lent is closed when it comes back."""
        self._closed = True
        while self._waiting:
            self._wake(self._waiting.popleft(), None)
        idle, self._idle = self._idle, []
        for conn in idle:
            await self._end(conn)

    async def _acquire(self) -> Connection:
        if self._closed:
            raise Unavailable("The server is stopping.")
        while self._idle:
            conn = self._idle.pop()
            if not conn.is_closed():
                return conn
            self._made -= 1
        if self._made < self._settings.pool_size:
            return await self._connect()
        return await self._wait()

    async def _wait(self) -> Connection:
        waiter: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            async with asyncio.timeout(self._settings.acquire_timeout):
                conn = await waiter
        except TimeoutError as error:
            raise Unavailable("The database is busy. Try again in a moment.") from error
        except asyncio.CancelledError:
            self._take_back(waiter)
            raise
        finally:
            if not waiter.done():
                waiter.cancel()
        return conn if conn is not None else await self._acquire()

    def _take_back(self, waiter: asyncio.Future[Connection | None]) -> None:
        """A connection was handed over in the same turn in which its waiter was cancelled: pass it on."""
        if waiter.done() and not waiter.cancelled() and (conn := waiter.result()) is not None:
            self._release(conn, broken=False)

    def _release(self, conn: Connection, *, broken: bool) -> None:
        if broken or self._closed or conn.is_closed():
            self._made -= 1
            if not conn.is_closed():
                conn.terminate()  # closing politely may hang for as long as the network does (asyncpg#1326)
            self._hand_over(None)
        else:
            self._hand_over(conn)

    def _hand_over(self, conn: Connection | None) -> None:
        """Give a connection, or the right to make one, to whoever has waited longest."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                self._wake(waiter, conn)
                return
        if conn is not None:
            self._idle.append(conn)

    @staticmethod
    def _wake(waiter: asyncio.Future[Connection | None], conn: Connection | None) -> None:
        if not waiter.done():
            waiter.set_result(conn)

    async def _connect(self) -> Connection:
        self._made += 1
        made = False
        try:
            async with asyncio.timeout(self._settings.connect_timeout):
                conn = await open_connection(self._settings)
            made = True
            return conn
        except CONNECTION_ERRORS as error:
            raise Unavailable("The database does not answer. Try again in a moment.") from error
        finally:
            if not made:
                self._made -= 1
                self._hand_over(None)

    @staticmethod
    async def _roll_back(conn: Connection, transaction: Any) -> None:
        try:
            await transaction.rollback()
        except (*CONNECTION_ERRORS, asyncpg.PostgresError):
            conn.terminate()

    @staticmethod
    async def _end(conn: Connection) -> None:
        try:
            await conn.close(timeout=2)
        except CONNECTION_ERRORS:
            conn.terminate()


async def open_connection(settings: DatabaseSettings) -> Connection:
    """Open one connection with the deadlines of the settings and our codecs.

    Deadlines are set on the server, where they also end a statement whose client is gone; `command_timeout` is the
    client's own, for a server that hangs.
    """
    conn: Connection = await asyncpg.connect(
        settings.url,
        timeout=settings.connect_timeout,
        command_timeout=settings.statement_timeout + STATEMENT_MARGIN,
        server_settings={
            "application_name": "lectern",
            "statement_timeout": str(int(settings.statement_timeout * 1000)),
            "lock_timeout": str(int(settings.lock_timeout * 1000)),
            "idle_in_transaction_session_timeout": str(int(settings.statement_timeout * 2000)),
            "tcp_user_timeout": "10000",
            "jit": "off",
        },
    )
    # asyncpg gives a UUID class of its own, which orjson does not know.
    await conn.set_type_codec("uuid", encoder=_uuid_bytes, decoder=_uuid_from, schema="pg_catalog", format="binary")
    return conn


def _is_closed_transport(error: Exception) -> bool:
    """What uvloop raises, where asyncio raises OSError, when a transport was closed a moment ago."""
    return type(error) is RuntimeError and str(error).startswith("unable to perform operation on")


def _uuid_bytes(value: UUID) -> bytes:
    return value.bytes


def _uuid_from(value: bytes) -> UUID:
    return UUID(bytes=value)
