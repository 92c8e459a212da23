"""The pool: first come, first served; a connection that may be broken is never lent again."""

import asyncio

import asyncpg
import pytest

from server.database import Database
from server.errors import Unavailable


@pytest.fixture
async def database(settings):
    limits = settings.database.model_copy(update={"pool_size": 4, "acquire_timeout": 0.3, "lock_timeout": 0.2})
    database = Database(limits)
    yield database
    await database.close()


async def test_who_waits_longest_is_served_first(database):
    order = []

    async def use(number):
        async with database.connection() as conn:
            order.append(number)
            await conn.fetchval("SELECT pg_sleep(0.01)")

    await asyncio.gather(*(use(number) for number in range(20)))
    assert sorted(order[:4]) == [0, 1, 2, 3]  # these open a connection each, and one may be quicker
    assert order[4:] == list(range(4, 20))


async def test_no_more_connections_are_made_than_the_pool_has(database):
    async def backend():
        async with database.connection() as conn:
            await conn.fetchval("SELECT pg_sleep(0.02)")
            return await conn.fetchval("SELECT pg_backend_pid()")

    assert len(set(await asyncio.gather(*(backend() for _ in range(12))))) == 4


async def hold(database, count, until):
    async def one():
        async with database.connection():
            await until.wait()

    tasks = [asyncio.ensure_future(one()) for _ in range(count)]
    await asyncio.sleep(0.1)
    return tasks


async def test_waiting_for_a_connection_ends_in_unavailable_and_leaks_none(database):
    until = asyncio.Event()
    holders = await hold(database, 4, until)
    for _ in range(3):
        with pytest.raises(Unavailable):
            await database.ping()
    until.set()
    await asyncio.gather(*holders)
    await asyncio.gather(*(database.ping() for _ in range(8)))


async def test_a_cancelled_waiter_hands_its_connection_on(database):
    until = asyncio.Event()
    holders = await hold(database, 4, until)
    waiters = [asyncio.ensure_future(database.ping()) for _ in range(6)]
    await asyncio.sleep(0)
    until.set()
    for waiter in waiters[::2]:
        waiter.cancel()
    await asyncio.gather(*holders)
    assert [await waiter for waiter in waiters[1::2]] == [None] * 3


async def test_a_query_that_is_cancelled_gives_its_answer_to_nobody_else(database):
    """The connection of a cancelled caller is thrown away: its answer may still be on the wire."""

    async def echo(number, seconds):
        async with database.connection() as conn:
            return await conn.fetchval("SELECT $1::int + 0 * length(pg_sleep($2)::text)", number, seconds)

    for _ in range(10):
        slow = [asyncio.ensure_future(echo(-1, 0.2)) for _ in range(4)]
        await asyncio.sleep(0.01)
        for task in slow:
            task.cancel()
        assert await asyncio.gather(*(echo(number, 0.0) for number in range(4))) == [0, 1, 2, 3]


async def test_killed_connections_are_replaced(database):
    async def killed():
        async with database.connection() as conn:
            await conn.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    for _ in range(6):
        with pytest.raises((Unavailable, asyncpg.PostgresError)):
            await killed()
    assert await asyncio.gather(*(database.ping() for _ in range(8))) == [None] * 8


async def test_an_error_in_a_transaction_rolls_it_back_and_keeps_the_connection(database):
    async def fail():
        async with database.transaction() as conn:
            await conn.execute("CREATE TABLE half (id integer)")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    async with database.connection() as conn:
        assert await conn.fetchval("SELECT to_regclass('half')") is None


async def test_a_lock_that_is_not_obtained_is_unavailable_not_an_error(database):
    async def count():
        async with database.connection() as other:
            return await other.fetchval("SELECT count(*) FROM users")

    async with database.transaction() as conn:
        await conn.execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(Unavailable):
            await count()


async def test_a_server_that_is_not_there_is_unavailable(settings):
    database = Database(settings.database.model_copy(update={"url": "postgresql://x@127.0.0.1:1/x"}))
    for _ in range(20):
        with pytest.raises(Unavailable):
            await database.ping()
    await database.close()
