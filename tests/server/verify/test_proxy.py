"""The proxy: each mode does what it says, to what is open and to what comes."""

import asyncio

import pytest

from server.verify.proxy import Proxy, free_ports
from tests.waiting import eventually


@pytest.fixture
async def proxy():
    async def echo(reader, writer):
        try:
            while data := await reader.read(1000):
                writer.write(data)
            writer.write(b"bye")
        except OSError:
            pass
        finally:
            writer.close()

    target, port = free_ports(2, 29_000)
    server = await asyncio.start_server(echo, "127.0.0.1", target)
    proxy = Proxy(port, ("127.0.0.1", target))
    await proxy.start()
    yield proxy
    await proxy.stop()
    server.close()


async def call(proxy):
    return await asyncio.open_connection("127.0.0.1", proxy.port)


async def says(streams, text=b"hello", seconds=1.0):
    """Whether the other side still answers in time."""
    streams[1].write(text)
    try:
        async with asyncio.timeout(seconds):
            return await streams[0].readexactly(len(text)) == text
    except (OSError, asyncio.IncompleteReadError, TimeoutError):
        return False


@pytest.mark.parametrize("mode", ["pass", "delay", "rate", "slices"])
async def test_gentle_modes_bring_every_byte(proxy, mode):
    streams = await call(proxy)
    await proxy.set_mode(mode)
    assert await says(streams, bytes(range(256)) * 4, seconds=3.0)
    streams[1].close()


async def test_a_black_hole_keeps_sockets_open_and_loses_bytes_for_ever(proxy):
    old = await call(proxy)
    assert await says(old)
    await proxy.set_mode("blackhole")
    new = await call(proxy)
    assert not await says(old, seconds=0.1)
    assert not await says(new, seconds=0.1)
    assert not old[0].at_eof()
    await proxy.set_mode("pass")
    assert not await says(old, seconds=0.3)  # bytes are missing, so the stream must not go on
    third = await call(proxy)
    assert await says(third)
    for streams in (old, new, third):
        streams[1].close()


async def test_the_end_of_a_connection_is_not_told_through_a_black_hole(proxy):
    streams = await call(proxy)
    assert await says(streams)
    await proxy.set_mode("blackhole")
    streams[1].transport.abort()
    await asyncio.sleep(0.1)
    assert proxy.connections == 1
    await proxy.set_mode("pass")
    await eventually(lambda: proxy.connections == 0)


async def test_a_reset_ends_what_is_open_and_nothing_else(proxy):
    streams = await call(proxy)
    assert await says(streams)
    await proxy.set_mode("reset")
    assert not await says(streams)
    again = await call(proxy)
    assert await says(again)
    for opened in (streams, again):
        opened[1].close()


async def test_a_half_closed_connection_still_brings_what_the_other_side_says(proxy):
    streams = await call(proxy)
    assert await says(streams)
    await proxy.set_mode("half-close")
    async with asyncio.timeout(1.0):
        assert await streams[0].read() == b""  # our side was told first that nothing more comes
    streams[1].close()


async def test_who_stops_to_accept_refuses_newcomers_and_keeps_the_others(proxy):
    streams = await call(proxy)
    await proxy.set_mode("stop-accept")
    assert await says(streams)
    with pytest.raises(OSError):  # noqa: PT011 - refused, whatever the system calls it
        await call(proxy)
    await proxy.set_mode("pass")
    again = await call(proxy)
    assert await says(again)
    for opened in (streams, again):
        opened[1].close()
