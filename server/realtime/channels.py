"""News between replicas: one Redis channel per room, and a watch over the connection that carries them.

Only hints travel here. What is lost is found in PostgreSQL (fanout.py compares heads), so publishing is never awaited
by a command, and a Redis that is away makes the server slower to hear, not wrong.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Callable
from typing import Any
from uuid import UUID

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from server.settings import planted_bugs
from server.tasks import Tasks

logger = logging.getLogger(__name__)

QUEUE_LIMIT = 20_000  # payloads that wait for Redis; older ones are dropped, the heads tell of them
PIPELINE_LIMIT = 500  # payloads in one round trip
RECONNECT_PAUSE = 0.5  # seconds
NONCE_INTERVAL = 2.0  # seconds between two letters to ourselves
NONCE_PATIENCE = 5.0  # seconds without hearing one until the subscription is taken for dead
SUBSCRIBE_TIMEOUT = 1.0  # seconds until a room is opened without its channel
# RuntimeError: what uvloop raises where asyncio raises OSError, on a transport that was closed a moment ago.
REDIS_ERRORS = (RedisError, OSError, TimeoutError, RuntimeError)


class Channels:
    """The publisher and the subscriber of one replica.

    `on_payload(room_id, payload)` gets what was published on a subscribed room, also by this replica; `on_restore()` is
    called when the subscriptions stand again after a loss: news may have been missed.
    """

    def __init__(
        self,
        redis: Redis,
        prefix: str,
        tasks: Tasks,
        *,
        on_payload: Callable[[UUID, bytes], None],
        on_restore: Callable[[], None],
    ) -> None:
        self._redis = redis
        self._prefix = prefix
        self._tasks = tasks
        self._on_payload = on_payload
        self._on_restore = on_restore
        self._nonce_channel = f"{prefix}:nonce:{secrets.token_hex(8)}"
        self._outgoing: deque[tuple[str, bytes]] = deque(maxlen=QUEUE_LIMIT)
        self._outgoing_wake = asyncio.Event()
        self._rooms: dict[UUID, asyncio.Future[None]] = {}  # wanted subscriptions; done when confirmed
        self._pubsub: PubSub | None = None
        self._heard_at = 0.0
        self._bugs = planted_bugs()
        self.up = False
        self.on_up: Callable[[bool], None] = lambda up: None  # told of each change

    def start(self) -> None:
        """Start to publish, to listen and to watch; needs no Redis to be there."""
        self._tasks.forever(self._publish, name="channels:publish", pause=lambda: 0.0)
        self._tasks.forever(self._listen, name="channels:listen", pause=lambda: RECONNECT_PAUSE)
        self._tasks.forever(self._send_nonce, name="channels:nonce", pause=lambda: NONCE_INTERVAL)

    def publish(self, room_id: UUID, payload: bytes) -> None:
        """Queue a payload for all replicas; payloads of one room arrive in the order of these calls, or not at all."""
        self._outgoing.append((self._channel(room_id), payload))
        self._outgoing_wake.set()

    async def subscribe(self, room_id: UUID) -> None:
        """Hear of a room from now on; returns when Redis has confirmed it, or without it when Redis is away."""
        confirmed = self._rooms.get(room_id)
        if confirmed is None:
            confirmed = self._rooms[room_id] = asyncio.get_running_loop().create_future()
            await self._ask(room_id, subscribe=True)
        if self.up and not confirmed.done():
            await asyncio.wait([confirmed], timeout=SUBSCRIBE_TIMEOUT)

    async def unsubscribe(self, room_id: UUID) -> None:
        """Hear no more of a room."""
        if self._rooms.pop(room_id, None) is not None:
            await self._ask(room_id, subscribe=False)

    async def _ask(self, room_id: UUID, *, subscribe: bool) -> None:
        pubsub = self._pubsub
        if pubsub is None:
            return  # asked for again, with all others, when the connection stands
        try:
            async with asyncio.timeout(SUBSCRIBE_TIMEOUT):
                await (pubsub.subscribe if subscribe else pubsub.unsubscribe)(self._channel(room_id))
        except REDIS_ERRORS as error:
            logger.warning("subscription failed", extra={"reason": repr(error)})

    async def _publish(self) -> None:
        await self._outgoing_wake.wait()
        self._outgoing_wake.clear()
        while self._outgoing:
            try:
                async with self._redis.pipeline(transaction=False) as pipeline:
                    for _ in range(min(len(self._outgoing), PIPELINE_LIMIT)):
                        pipeline.publish(*self._outgoing.popleft())
                    await pipeline.execute()
            except REDIS_ERRORS as error:
                logger.warning("news could not be published", extra={"reason": repr(error)})
                self._outgoing.clear()
                self._set_up(False)

    async def _listen(self) -> None:
        """Serve one life of the subscription connection: all subscriptions anew, then everything it brings."""
        pubsub = self._redis.pubsub()
        try:
            await self._subscribe_all(pubsub)
            self._pubsub = pubsub
            self._heard_at = asyncio.get_running_loop().time()
            while not self._is_deaf():
                message = await pubsub.get_message(timeout=NONCE_INTERVAL)
                if message is not None:
                    self._take(message)
            logger.warning("the subscription is deaf and is made anew")
        except REDIS_ERRORS as error:
            logger.warning("the subscription was lost", extra={"reason": repr(error)})
        finally:
            self._pubsub = None
            self._set_up(False)
            for room_id, confirmed in self._rooms.items():
                if confirmed.done():
                    self._rooms[room_id] = asyncio.get_running_loop().create_future()
            await _close(pubsub)

    async def _subscribe_all(self, pubsub: PubSub) -> None:
        """Subscribe to the nonce and to every room, also to those that are wanted only meanwhile."""
        asked: set[UUID] = set()
        async with asyncio.timeout(NONCE_PATIENCE):
            await pubsub.subscribe(self._nonce_channel)
            while missing := self._rooms.keys() - asked:
                await pubsub.subscribe(*map(self._channel, missing))
                asked |= missing

    def _take(self, message: dict[str, Any]) -> None:  # Any: redis-py's messages, of bytes and numbers
        name, data = message["channel"].decode(), message["data"]
        if name == self._nonce_channel:
            self._heard_at = asyncio.get_running_loop().time()
            self._set_up(True)
            return
        room_id = UUID(name.rpartition(":")[2])
        if message["type"] == "subscribe":
            confirmed = self._rooms.get(room_id)
            if confirmed is not None and not confirmed.done():
                confirmed.set_result(None)
        elif isinstance(data, bytes):
            self._on_payload(room_id, data)

    async def _send_nonce(self) -> None:
        """Write to ourselves through Redis: a connection that is open but dead is noticed only so (PITFALLS.md 12)."""
        try:
            await self._redis.publish(self._nonce_channel, b"")
        except REDIS_ERRORS:
            self._set_up(False)

    def _is_deaf(self) -> bool:
        return asyncio.get_running_loop().time() - self._heard_at > NONCE_PATIENCE

    def _set_up(self, up: bool) -> None:
        if up == self.up or (not up and "never_degraded" in self._bugs):
            return
        self.up = up
        self.on_up(up)
        if up:
            self._on_restore()

    def _channel(self, room_id: UUID) -> str:
        return f"{self._prefix}:room:{room_id}"


async def _close(pubsub: PubSub) -> None:
    try:
        async with asyncio.timeout(1):
            await pubsub.aclose()  # type: ignore[no-untyped-call]  # redis-py
    except REDIS_ERRORS as error:
        logger.info("the lost subscription did not close", extra={"reason": repr(error)})
