"""Background work: named, held, logged when it fails, and gone after stop."""

import asyncio
import logging

from server.tasks import Tasks
from tests.waiting import eventually


async def test_a_failed_task_is_logged_with_its_name(caplog):
    tasks = Tasks()

    async def fail():
        raise ZeroDivisionError

    tasks.start(fail(), name="the failing one")
    await eventually(lambda: not len(tasks))
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.__dict__["task"] == "the failing one"


async def test_a_loop_goes_on_after_a_failed_turn(monkeypatch, caplog):
    monkeypatch.setattr("server.tasks.RESTART_DELAY", 0.0)
    tasks, turns = Tasks(), []

    async def turn():
        turns.append(1)
        if len(turns) == 1:
            raise ZeroDivisionError

    tasks.forever(turn, name="turning", pause=lambda: 0.0)
    await eventually(lambda: len(turns) > 3)
    await tasks.stop()
    assert not len(tasks)


async def test_a_task_that_swallows_its_cancellation_is_cancelled_again(monkeypatch):
    monkeypatch.setattr("server.tasks.STOP_PATIENCE", 0.01)
    tasks, swallowed = Tasks(), []

    async def stubborn():
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                swallowed.append(1)
                if len(swallowed) == 2:
                    raise

    tasks.start(stubborn(), name="stubborn")
    await asyncio.sleep(0)
    await tasks.stop()
    assert len(swallowed) == 2
