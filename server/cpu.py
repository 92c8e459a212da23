"""CPU: threads for work that would stop the loop (password hashing). Low priority, a bounded queue, and nothing else.

They are apart from the loop's default threads, which also resolve host names: a login flood must not stop look-ups.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from server.errors import Unavailable

P = ParamSpec("P")
T = TypeVar("T")

NICENESS = 10  # on Linux a thread's own; keeps the loop ahead of the hashing (PERFORMANCE.md section 5)


class CpuThreads:
    """max(1, cores − 1) threads that serve at most `queue` waiting calls."""

    def __init__(self, *, queue: int) -> None:
        threads = max(1, (os.cpu_count() or 1) - 1)
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="cpu", initializer=_be_nice)
        self._free = threads + queue

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a pure function in a thread.

        Raises:
            Unavailable: too many calls wait already.
        """
        if not self._free:
            raise Unavailable("The server is busy. Try again in a moment.", retry_after=2)
        self._free -= 1
        future = self._executor.submit(function, *args, **kwargs)
        future.add_done_callback(self._release_from(asyncio.get_running_loop()))
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Drop what waits; a call that runs ends by itself."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _release_from(self, loop: asyncio.AbstractEventLoop) -> Callable[[object], None]:
        # A caller that is cancelled leaves its call running: the slot is given back by the thread, not by the caller.
        def release(_: object) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._add_one)

        return release

    def _add_one(self) -> None:
        self._free += 1


def _be_nice() -> None:
    if sys.platform == "linux":  # elsewhere the id of a thread would be taken for that of a process
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
