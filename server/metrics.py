"""Metrics: every Prometheus metric of this process in one registry, and how it is scraped.

Names are the contract's. No label may hold an id or text from a user: each distinct value is kept for ever.
"""

from __future__ import annotations

from aiohttp import web
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.exposition import choose_encoder

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)

# Seconds. A request that waits for nothing takes half a millisecond; the deadline is at 3 s.
_REQUEST_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_FAST_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5, 5.0, 10.0)

HTTP_REQUESTS = Counter(
    "http_requests_total", "Requests answered.", ("service", "method", "route", "status"), registry=REGISTRY
)
HTTP_DURATION = Histogram(
    "http_request_duration_seconds",
    "From the headers of a request to its answer.",
    ("service", "route"),
    registry=REGISTRY,
    buckets=_REQUEST_BUCKETS,
)
USER_REGISTRATIONS = Counter("user_registrations_total", "Accounts created.", registry=REGISTRY)
ACTIVE_USERS = Gauge("active_users_current", "Users with an open socket on this replica.", registry=REGISTRY)
SOCKET_CONNECTIONS = Gauge(
    "socket_connections_current", "Sockets connected to a namespace.", ("namespace",), registry=REGISTRY
)
CHAT_MESSAGES = Counter("chat_messages_total", "Messages committed to a room log.", registry=REGISTRY)
ROOM_EVENT_DELIVERY = Histogram(
    "room_event_delivery_seconds",
    "From the commit of an event to its write to a socket.",
    registry=REGISTRY,
    buckets=_FAST_BUCKETS,
)
ROOM_EVENT_DELIVERIES = Counter(
    "room_event_deliveries_total", "Room events written to sockets, one per event and socket.", registry=REGISTRY
)
ROOM_LOG_APPEND = Histogram(
    "room_log_append_seconds",
    "From queueing work for a room log to its commit.",
    registry=REGISTRY,
    buckets=_FAST_BUCKETS,
)
ROOM_GAP_REPAIRS = Counter(
    "room_gap_repairs_total", "Gaps in what Redis carried that were read from PostgreSQL.", registry=REGISTRY
)
SLOW_CONSUMERS = Counter("slow_consumers_total", "Sockets cut loose because they did not read.", registry=REGISTRY)
EVENT_LOOP_LAG = Histogram(
    "event_loop_lag_seconds", "How late the event loop runs a timer.", registry=REGISTRY, buckets=_FAST_BUCKETS
)
EVENT_LOOP_TASKS = Gauge("event_loop_tasks_current", "Tasks on the event loop.", registry=REGISTRY)
EMAILS_SENT = Counter("emails_sent_total", "Letters that a mail server took.", ("type",), registry=REGISTRY)
JOBS = Counter("jobs_total", "Durable events carried to a consumer.", ("name", "outcome"), registry=REGISTRY)
JOB_DURATION = Histogram(
    "job_duration_seconds", "How long a consumer worked.", ("name",), registry=REGISTRY, buckets=_REQUEST_BUCKETS
)
OUTBOX_BACKLOG = Gauge("outbox_backlog", "Durable events that wait for a consumer.", registry=REGISTRY)
DEPENDENCY_UP = Gauge("dependency_up", "1 while a dependency answers, else 0.", ("name",), registry=REGISTRY)
RATE_LIMITED = Counter("rate_limited_total", "Requests refused by a rate limit.", ("group",), registry=REGISTRY)


async def metrics(request: web.Request) -> web.Response:
    """Answer a scrape, as text or as OpenMetrics, whichever the scraper prefers."""
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    return web.Response(body=encode(REGISTRY), headers={"Content-Type": content_type})


async def start_metrics_site(host: str, port: int) -> web.AppRunner:
    """Serve `/metrics` on a port of its own; the caller cleans the runner up.

    Raises:
        OSError: the port is taken.
    """
    application = web.Application()
    application.router.add_get("/metrics", metrics)
    runner = web.AppRunner(application, access_log=None, keepalive_timeout=20.0, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError:
        await runner.cleanup()
        raise
    return runner
