"""The migration runner: numbered SQL files, each once and in one transaction, forward only.

A file is never edited after it was applied (its checksum is kept), and a replica refuses to serve a schema that it does
not know (`check_schema`), so an old program cannot write into new tables.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from server.database import CONNECTION_ERRORS, Connection, open_connection
from server.settings import ROOT, ConfigurationError
from server.settings import Database as DatabaseSettings

MIGRATIONS = ROOT / "migrations"
LOCK_KEY = 0x4C45_4354  # "LECT": the advisory lock of whoever migrates
LOCK_WAIT = "60s"
POLL = 0.05  # seconds
DDL_LOCK_TIMEOUT = "5s"  # a migration that waits for a hot table longer than this gives up: it would stop all writers
DDL_STATEMENT_TIMEOUT = "60s"


class SchemaBehind(ConfigurationError):
    """The database lacks migrations that this program needs."""


@dataclass(frozen=True, slots=True)
class Migration:
    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def read_migrations(directory: Path = MIGRATIONS) -> list[Migration]:
    """All files `NNNN_name.sql`, in order.

    Raises:
        ConfigurationError: a number is missing or there twice.
    """
    found = []
    for path in sorted(directory.glob("*.sql")):
        number, _, name = path.stem.partition("_")
        found.append(Migration(int(number), name, path.read_text()))
    if [migration.version for migration in found] != list(range(1, len(found) + 1)):
        raise ConfigurationError(f"migrations: the numbers in {directory} are not 1, 2, 3, … without gaps")
    return found


async def migrate(settings: DatabaseSettings, migrations: list[Migration] | None = None) -> int:
    """Bring the schema up to date; several processes may call this at once. Returns how many files were applied.

    Raises:
        ConfigurationError: PostgreSQL cannot be reached, or an applied file differs from ours.
    """
    migrations = read_migrations() if migrations is None else migrations
    conn = await _connect(settings)
    try:
        await conn.execute("SELECT set_config('lock_timeout', $1, false)", LOCK_WAIT)
        await conn.execute("SELECT set_config('statement_timeout', $1, false)", LOCK_WAIT)
        await conn.execute("SELECT pg_advisory_lock($1)", LOCK_KEY)
        await conn.execute(
            "CREATE TABLE IF NOT EXISTS schema_migrations (version integer PRIMARY KEY, name text NOT NULL,"
            " checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        applied = _compare(await _applied(conn), migrations)
        for migration in migrations[applied:]:
            await _apply(conn, migration)
        return len(migrations) - applied
    finally:
        await conn.close()  # ends the advisory lock with the session


async def check_schema(settings: DatabaseSettings, migrations: list[Migration] | None = None) -> None:
    """Make sure that the schema is exactly the one this program was written for.

    Raises:
        ConfigurationError: PostgreSQL cannot be reached, or its schema is behind, ahead or of another program.
    """
    migrations = read_migrations() if migrations is None else migrations
    conn = await _connect(settings)
    try:
        known = await _applied(conn)
    except asyncpg.UndefinedTableError as error:
        raise SchemaBehind("the database has no schema yet: run `python -m server migrate`") from error
    finally:
        await conn.close()
    applied = _compare(known, migrations)
    if applied < len(migrations):
        raise SchemaBehind(
            f"the schema of the database is at {applied}, this program needs {len(migrations)}:"
            " run `python -m server migrate`"
        )


async def await_schema(settings: DatabaseSettings, patience: float) -> None:
    """Like `check_schema`, but somebody else gets `patience` seconds to migrate first."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return await check_schema(settings)
        except SchemaBehind:
            if time.monotonic() >= deadline:
                raise
        await asyncio.sleep(POLL)


async def _connect(settings: DatabaseSettings) -> Connection:
    try:
        return await open_connection(settings)
    except (*CONNECTION_ERRORS, asyncpg.PostgresError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigurationError(f"database: PostgreSQL cannot be reached: {reason}") from error


async def _applied(conn: Connection) -> dict[int, str]:
    rows = await conn.fetch("SELECT version, checksum FROM schema_migrations ORDER BY version")
    return {row["version"]: row["checksum"] for row in rows}


def _compare(applied: dict[int, str], migrations: list[Migration]) -> int:
    """How many of our files are applied; refuses a schema that was made by other files, or by a newer program."""
    if len(applied) > len(migrations):
        raise ConfigurationError(
            f"the schema of the database is at {len(applied)}, which this program does not know"
            f" (it knows {len(migrations)})"
        )
    for migration in migrations[: len(applied)]:
        if applied.get(migration.version) != migration.checksum:
            raise ConfigurationError(
                f"migration {migration.version:04d}_{migration.name} was changed after it was applied"
            )
    return len(applied)


async def _apply(conn: Connection, migration: Migration) -> None:
    async with conn.transaction():
        await conn.execute("SELECT set_config('lock_timeout', $1, true)", DDL_LOCK_TIMEOUT)
        await conn.execute("SELECT set_config('statement_timeout', $1, true)", DDL_STATEMENT_TIMEOUT)
        try:
            await conn.execute(migration.sql)
        except asyncpg.PostgresError as error:
            raise ConfigurationError(f"migration {migration.version:04d}_{migration.name} failed: {error}") from error
        await conn.execute(
            "INSERT INTO schema_migrations (version, name, checksum) VALUES ($1, $2, $3)",
            migration.version,
            migration.name,
            migration.checksum,
        )
