import asyncio
import os
import sys
import threading

import pytest

from server.cpu import NICENESS, CpuThreads
from server.errors import Unavailable
from tests.waiting import eventually


async def test_too_many_waiting_calls_are_refused_and_a_cancelled_caller_keeps_no_slot():
    threads = CpuThreads(queue=2)
    release = threading.Event()
    capacity = max(1, (os.cpu_count() or 1) - 1) + 2
    calls = [asyncio.ensure_future(threads.run(release.wait)) for _ in range(capacity)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await threads.run(int)
    calls[0].cancel()
    release.set()
    await asyncio.gather(*calls[1:])

    async def all_free():
        try:
            return await asyncio.gather(*(threads.run(int) for _ in range(capacity))) == [0] * capacity
        except Unavailable:
            return False

    await eventually(all_free)
    threads.close()


@pytest.mark.skipif(sys.platform != "linux", reason="a thread has a niceness of its own only on Linux")
async def test_the_threads_give_way_to_the_loop():
    threads = CpuThreads(queue=1)
    assert await threads.run(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id())) == NICENESS
    assert os.getpriority(os.PRIO_PROCESS, 0) < NICENESS
    threads.close()
