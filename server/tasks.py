"""Tasks: the only place that starts background work on the loop. Holds each task, names it and logs how it failed.

Work that must survive the process is a durable event (the outbox), never a task.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from server.errors import Unavailable

logger = logging.getLogger(__name__)

RESTART_DELAY = 1.0  # seconds between a failed turn of a loop and the next
STOP_PATIENCE = 0.5  # seconds that a cancelled task gets before it is cancelled again
STOP_ATTEMPTS = 10


class Tasks:
    """The background tasks of one process.

    The loop itself keeps only weak references to tasks, so one that nobody holds can vanish in the middle.
    """

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()
        self._stopping = False

    def __len__(self) -> int:
        return len(self._running)

    def start(self, work: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
        """Run a coroutine in the background; an exception is logged, never lost."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._finished)
        return task

    def forever(self, turn: Callable[[], Awaitable[None]], *, name: str, pause: Callable[[], float]) -> None:
        """Run `turn` again and again, `pause()` seconds apart; a turn that fails is logged and the loop goes on."""
        self.start(self._loop(turn, name, pause), name=name)

    async def stop(self) -> None:
        """Cancel all that still runs and wait until it has ended.

        Cancels again what goes on: asyncio loses a cancellation that meets the end of a timeout (cpython#86296), and
        the clients of other servers are full of timeouts.
        """
        self._stopping = True
        for _ in range(STOP_ATTEMPTS):
            if not self._running:
                return
            for task in self._running:
                task.cancel()
            await asyncio.wait(self._running, timeout=STOP_PATIENCE)
        logger.error("tasks do not end", extra={"tasks": sorted(task.get_name() for task in self._running)})

    async def _loop(self, turn: Callable[[], Awaitable[None]], name: str, pause: Callable[[], float]) -> None:
        while not self._stopping:
            try:
                await turn()
            except Unavailable as error:  # no fault of ours: tried again like all else that waits for a dependency
                logger.warning("background work has to wait", extra={"task": name, "reason": error.message})
                await asyncio.sleep(RESTART_DELAY)
            except Exception:
                logger.exception("background work failed", extra={"task": name})
                await asyncio.sleep(RESTART_DELAY)
            await asyncio.sleep(pause())

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("task failed", exc_info=task.exception(), extra={"task": task.get_name()})
