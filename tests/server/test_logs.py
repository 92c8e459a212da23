"""Log lines: one per record, with what identifies the work, never forged by a value."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import UUID

import pytest

from server import logs
from server.settings import Log

logger = logging.getLogger("lectern.test")


class Capture:
    """What was written to standard error so far."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self._text = ""

    @property
    def text(self) -> str:
        self._text += self._capsys.readouterr().err
        return self._text

    @property
    def lines(self) -> list[str]:
        return self.text.split("\n")[:-1]


@pytest.fixture
def stderr(capsys: pytest.CaptureFixture[str]) -> Iterator[Capture]:
    """Let a test configure logging, and put everything back afterwards."""
    root = logging.getLogger()
    before = root.handlers[:], root.level, logging.logThreads, logging.logProcesses, logging.logMultiprocessing
    yield Capture(capsys)
    root.handlers[:], level, logging.logThreads, logging.logProcesses, logging.logMultiprocessing = before
    root.setLevel(level)
    logging.captureWarnings(False)


def test_json_line_holds_message_values_and_context(stderr):
    logs.configure_logging(Log(level="INFO", format="json"))
    token = logs.request_context.set("r-1")
    try:
        logger.info("course created", extra={"course_id": UUID(int=7), "seats": 3, "at_once": {1: "x"}})
    finally:
        logs.request_context.reset(token)
    (line,) = stderr.lines
    record = json.loads(line)
    assert record.pop("at").endswith("Z")
    assert record == {
        "level": "INFO",
        "logger": "lectern.test",
        "message": "course created",
        "course_id": str(UUID(int=7)),
        "seats": 3,
        "at_once": {"1": "x"},
        "request_id": "r-1",
    }


def test_trace_is_part_of_its_line(stderr):
    for form in ("json", "text"):
        logs.configure_logging(Log(level="INFO", format=form))
        try:
            try:
                raise ValueError("first\nline")
            except ValueError as error:
                raise RuntimeError("second") from error
        except RuntimeError:
            logger.exception("request failed")
    json_line, text_line = stderr.lines
    assert "RuntimeError: second" in json.loads(json_line)["trace"]
    assert "RuntimeError: second" in text_line
    assert "caused by ValueError" in text_line
    assert "test_trace_is_part_of_its_line" in text_line


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize("value", ["two\nlines", "\x1b[2J", "a=b c", 'quote"', "\u2028", "\ud800"])
def test_value_can_neither_end_a_line_nor_forge_a_field(stderr, form, value):
    logs.configure_logging(Log(level="INFO", format=form))
    logger.info("name changed", extra={"given": value, "status": 200})
    (line,) = stderr.lines
    if form == "text":
        assert line.endswith(" status=200")
        assert line.count("=") - value.count("=") == 2
        assert line.isprintable()


def test_text_line_is_readable(stderr):
    logs.configure_logging(Log(level="INFO", format="text"))
    logger.info("course created", extra={"seats": 3})
    (line,) = stderr.lines
    moment, rest = line.split(" ", 1)
    assert abs((datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()) < 5
    assert rest == "INFO lectern.test course created seats=3"


def test_level_decides_what_is_written(stderr):
    logs.configure_logging(Log(level="WARNING", format="text"))
    logger.info("not this")
    logger.warning("but this")
    assert len(stderr.lines) == 1


def test_configuring_twice_writes_each_record_once(stderr):
    logs.configure_logging(Log(level="INFO", format="text"))
    logs.configure_logging(Log(level="INFO", format="text"))
    logger.info("once")
    assert len(stderr.lines) == 1


def test_noisy_message_is_summed_up(stderr, monkeypatch):
    logs.configure_logging(Log(level="INFO", format="text"))
    now = 1000.0
    monkeypatch.setattr("server.logs.time.monotonic", lambda: now)
    noise = logs.RateLimitedLog(logger, lines=2, interval=10.0)
    for _ in range(5):
        noise.info("malformed packet", extra={"sid": "a"})
    noise.info("another message")
    assert [line.split(" ", 3)[3] for line in stderr.lines] == [
        "malformed packet sid=a",
        "malformed packet sid=a",
        "another message",
    ]
    now += 10.0
    noise.info("malformed packet", extra={"sid": "b"})
    assert stderr.lines[-1].endswith("malformed packet sid=b suppressed=3")


def test_filter_quietens_a_logger_of_somebody_else(stderr):
    logs.configure_logging(Log(level="INFO", format="text"))
    foreign = logging.getLogger("foreign.library")
    limit = logs.RateLimit(lines=1, interval=60.0)
    foreign.addFilter(limit)
    for number in range(3000):
        foreign.error("bad frame %d", number)
        foreign.error(f"bad frame {number}")
    foreign.removeFilter(limit)
    assert sum("bad frame 7" in line for line in stderr.lines) >= 1
    assert sum("bad frame %d" in str(key) for key in limit._windows) <= 1
    assert len(limit._windows) <= 1001
