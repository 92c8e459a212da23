"""The metrics: their names, their formats, their own port."""

from __future__ import annotations

import socket

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from server.metrics import CHAT_MESSAGES, REGISTRY, start_metrics_site

NAMES = {
    "http_requests",
    "http_request_duration_seconds",
    "user_registrations",
    "active_users_current",
    "socket_connections_current",
    "chat_messages",
    "room_event_delivery_seconds",
    "room_event_deliveries",
    "room_log_append_seconds",
    "room_gap_repairs",
    "slow_consumers",
    "event_loop_lag_seconds",
    "dependency_up",
    "rate_limited",
}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_registry_has_the_metrics_of_the_contract():
    assert {metric.name for metric in REGISTRY.collect()} >= NAMES


async def test_metrics_are_served_on_a_port_of_their_own():
    port = _free_port()
    runner = await start_metrics_site("127.0.0.1", port)
    try:
        CHAT_MESSAGES.inc()
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/metrics") as answer:
            text = await answer.text()
            assert answer.headers["Content-Type"].startswith("text/plain")
    finally:
        await runner.cleanup()
    families = {family.name for family in text_string_to_metric_families(text)}
    assert families >= NAMES | {"process_resident_memory_bytes"}


async def test_taken_port_is_an_error_that_leaves_nothing_behind():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="address already in use"):
            await start_metrics_site("127.0.0.1", taken.getsockname()[1])
