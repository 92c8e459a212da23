"""The migration runner: each file once, whoever starts it, and nothing served on a schema that is not ours."""

import asyncio

import pytest

from server.database import open_connection
from server.migrate import Migration, SchemaBehind, await_schema, check_schema, migrate, read_migrations
from server.settings import ConfigurationError

EXTRA = "CREATE TABLE extra (id integer); INSERT INTO extra VALUES (1);"


def with_extra(sql=EXTRA):
    ours = read_migrations()
    return [*ours, Migration(len(ours) + 1, "extra", sql)]


async def value(settings, query):
    conn = await open_connection(settings.database)
    try:
        return await conn.fetchval(query)
    finally:
        await conn.close()


async def test_a_schema_that_is_up_to_date_is_left_alone_and_served(settings):
    assert await migrate(settings.database) == 0
    await check_schema(settings.database)


async def test_several_processes_may_migrate_at_once_and_each_file_is_applied_once(settings):
    applied = await asyncio.gather(*(migrate(settings.database, with_extra()) for _ in range(4)))
    assert sorted(applied) == [0, 0, 0, 1]
    assert await value(settings, "SELECT count(*) FROM extra") == 1


async def test_a_file_that_fails_leaves_nothing_of_itself(settings):
    broken = with_extra("CREATE TABLE half (id integer); SELECT 1 / 0;")
    with pytest.raises(ConfigurationError, match="extra failed"):
        await migrate(settings.database, broken)
    assert await value(settings, "SELECT to_regclass('half')") is None
    await check_schema(settings.database)


async def test_a_schema_behind_is_refused_until_somebody_migrates(settings):
    with pytest.raises(SchemaBehind):
        await check_schema(settings.database, with_extra())
    # Somebody else migrates while a replica waits.
    last = read_migrations()[-1]
    await value(settings, f"DELETE FROM schema_migrations WHERE version = {last.version} RETURNING 1")
    waiting = asyncio.ensure_future(await_schema(settings.database, patience=5))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    row = f"({last.version}, '{last.name}', '{last.checksum}', now())"
    await value(settings, f"INSERT INTO schema_migrations VALUES {row} RETURNING 1")
    await waiting


async def test_a_schema_of_a_newer_program_is_refused(settings):
    await migrate(settings.database, with_extra())
    with pytest.raises(ConfigurationError, match="does not know"):
        await check_schema(settings.database)
    with pytest.raises(ConfigurationError, match="does not know"):
        await migrate(settings.database)


async def test_a_file_that_was_changed_after_it_was_applied_is_refused(settings):
    changed = [Migration(1, "school", "SELECT 1"), *read_migrations()[1:]]
    with pytest.raises(ConfigurationError, match="was changed"):
        await migrate(settings.database, changed)


async def test_a_database_without_a_schema_is_refused(settings):
    await value(settings, "DROP TABLE schema_migrations")
    with pytest.raises(ConfigurationError, match="no schema yet"):
        await check_schema(settings.database)


def test_numbers_must_follow_each_other(tmp_path):
    (tmp_path / "0001_a.sql").write_text("SELECT 1")
    (tmp_path / "0003_b.sql").write_text("SELECT 1")
    with pytest.raises(ConfigurationError, match="without gaps"):
        read_migrations(tmp_path)
