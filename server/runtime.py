"""Runtime (`rt`): the open connections, the room log, the live rooms, the clock. Never a feature, never global."""

from __future__ import annotations

from dataclasses import dataclass

from redis.asyncio import Redis

from server.clock import Clock
from server.cpu import CpuThreads
from server.database import Database
from server.limits import Limits
from server.realtime.fanout import Rooms
from server.realtime.log import RoomLog
from server.settings import Settings


@dataclass(frozen=True, slots=True)
class Runtime:
    """What every service function gets as its first argument; made once by server/app.py."""

    settings: Settings
    clock: Clock
    database: Database
    redis: Redis
    cpu: CpuThreads
    limits: Limits
    log: RoomLog
    rooms: Rooms
