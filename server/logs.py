"""Logging: one line per record, as text or JSON, with the request, socket and user at hand.

Messages are constant and values travel in `extra`, so lines can be counted by message. What identifies the work at
hand is taken from context variables. This file never decides what is logged; no token, password or text of a message
may get here.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
import traceback
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice
from types import TracebackType
from typing import Any
from uuid import UUID

import orjson

from server.settings import Log

request_context: ContextVar[str | None] = ContextVar("request_id", default=None)
sid_context: ContextVar[str | None] = ContextVar("sid", default=None)
user_context: ContextVar[UUID | str | None] = ContextVar("user_id", default=None)

_CONTEXT = (("request_id", request_context), ("sid", sid_context), ("user_id", user_context))
_ATTRIBUTES = len(logging.makeLogRecord({}).__dict__)
_STANDARD = frozenset(("message", "asctime"))
_SAFE = re.compile(r"[!#-<>-~]+")  # printable ASCII without the blank, `"` and `=`
_TRACE_FRAMES = 12  # innermost frames in a line of text; JSON has the whole trace
_REMEMBERED = 1000  # messages that a rate limit keeps apart
# Libraries that tell at INFO what is either in our own line or of no interest.
_QUIET = ("aiohttp.access", "aiormq", "aio_pika", "asyncio", "engineio", "socketio")

Fields = dict[str, Any]  # Any: whatever a caller put into `extra`


def configure_logging(settings: Log) -> None:
    """Send every record of this process to standard error; a second call replaces the first."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    # Neither is in our lines, and each costs a system call or a walk per record.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.captureWarnings(True)


class JsonFormatter(logging.Formatter):
    """`{"at": "…", "level": "INFO", "logger": "…", "message": "…", …}`; a trace is the string `trace`."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": _moment(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        try:
            return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
        except TypeError:  # a lone surrogate in a value, which orjson refuses; the line matters more
            return json.dumps(line, default=str)


class TextFormatter(logging.Formatter):
    """`2026-11-22T19:30:00.123Z INFO server.gateway.edge request method=GET status=200`; a trace is one more value."""

    def format(self, record: logging.LogRecord) -> str:
        fields = _fields(record)
        if record.exc_info and record.exc_info[1]:
            fields["trace"] = _short_trace(record.exc_info[1])
        values = [str(value) for value in fields.values()]
        if "" in values or not _SAFE.fullmatch("".join(values)):  # one look at all of them: nearly always they are
            values = [_plain(value) for value in values]
        pairs = "".join([f" {name}={value}" for name, value in zip(fields, values, strict=True)])
        message = record.getMessage()
        message = message if message.isprintable() else json.dumps(message)
        return f"{_moment(record)} {record.levelname} {record.name} {message}{pairs}"


@dataclass(slots=True)
class _Window:
    ends: float = 0.0
    lines: int = 0
    suppressed: int = 0


class RateLimit(logging.Filter):
    """Let at most `lines` records of one message pass in `interval` seconds.

    The first that passes afterwards carries `suppressed`, the number of those that did not. For a logger of somebody
    else's whose noise clients can cause: `logging.getLogger("engineio.server").addFilter(RateLimit())`.
    """

    def __init__(self, lines: int = 5, interval: float = 10.0) -> None:
        super().__init__()
        self._lines = lines
        self._interval = interval
        self._windows: dict[tuple[str, str], _Window] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        suppressed = self.admit((record.name, str(record.msg)))
        if suppressed:
            record.suppressed = suppressed
        return suppressed is not None

    def admit(self, key: tuple[str, str]) -> int | None:
        """Return how many were suppressed before this one, or None if this one is suppressed too."""
        if len(self._windows) > _REMEMBERED:  # messages that are not constant; forgetting only costs a few lines more
            self._windows.clear()
        window = self._windows.setdefault(key, _Window())
        now, suppressed = time.monotonic(), 0
        if now >= window.ends:
            suppressed = window.suppressed
            window.ends, window.lines, window.suppressed = now + self._interval, 0, 0
        if window.lines >= self._lines:
            window.suppressed += 1
            return None
        window.lines += 1
        return suppressed


class RateLimitedLog:
    """A logger for faults that clients can cause as often as they like."""

    def __init__(self, logger: logging.Logger, *, lines: int = 5, interval: float = 10.0) -> None:
        self._logger = logger
        self._limit = RateLimit(lines, interval)

    def log(
        self,
        level: int,
        message: str,
        *,
        extra: Mapping[str, object] | None = None,
        exc_info: BaseException | None = None,
    ) -> None:
        """Log a constant message unless it was logged too often lately."""
        if not self._logger.isEnabledFor(level):
            return
        suppressed = self._limit.admit((self._logger.name, message))
        if suppressed is None:
            return
        values = {**(extra or {}), **({"suppressed": suppressed} if suppressed else {})}
        self._logger.log(level, message, extra=values, exc_info=exc_info)

    def info(self, message: str, *, extra: Mapping[str, object] | None = None) -> None:
        """Log what a client did wrong."""
        self.log(logging.INFO, message, extra=extra)

    def warning(
        self, message: str, *, extra: Mapping[str, object] | None = None, exc_info: BaseException | None = None
    ) -> None:
        """Log what an operator may want to look at."""
        self.log(logging.WARNING, message, extra=extra, exc_info=exc_info)


def _moment(record: logging.LogRecord) -> str:
    return f"{_second(int(record.created))}.{int(record.msecs):03d}Z"


@lru_cache(2)
def _second(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _fields(record: logging.LogRecord) -> Fields:
    # `extra` follows what every record has; what formatters of others have put behind it is not ours.
    extra = islice(record.__dict__.items(), _ATTRIBUTES, None)
    fields = {name: value for name, value in extra if name not in _STANDARD}
    for name, variable in _CONTEXT:
        value = variable.get()
        if value is not None:
            fields.setdefault(name, value)
    return fields


def _plain(text: str) -> str:
    """Write a value so that it can neither end the line nor look like another field."""
    return text if _SAFE.fullmatch(text) else json.dumps(text)


def _short_trace(error: BaseException) -> str:
    parts: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(parts) < _TRACE_FRAMES:
        parts.append(f"{type(cause).__name__}: {cause}{_frames(cause.__traceback__)}")
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return " | caused by ".join(parts)


def _frames(trace: TracebackType | None) -> str:
    frames = traceback.extract_tb(trace)[-_TRACE_FRAMES:]
    return "".join(f" < {frame.filename}:{frame.lineno} {frame.name}" for frame in reversed(frames))
