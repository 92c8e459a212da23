"""Shared wire types: cursors, text, integers."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from uuid import UUID

import pytest
from pydantic import ValidationError

from server.errors import Invalid
from server.gateway.schema import Int64, Line, Schema, Text, decode_cursor, encode_cursor

MOMENT = datetime(2026, 11, 22, 19, 30, 0, 123456, tzinfo=UTC)
POSITION = (MOMENT, UUID(int=7))


class Shape(Schema):
    text: Text = ""
    line: Line = ""
    number: Int64 = 0
    ratio: float = 0.0


def test_cursor_carries_a_position_exactly():
    cursor = encode_cursor(POSITION)
    assert decode_cursor(cursor, tuple[datetime, UUID]) == POSITION
    assert cursor.isascii()
    assert not set(cursor) & set("+/=&?")
    assert decode_cursor(encode_cursor((5, "ä")), tuple[int, str]) == (5, "ä")


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "!",
        "ä",
        "\x00",
        encode_cursor(POSITION)[:-4],
        encode_cursor(POSITION) + "AAAA",
        encode_cursor((MOMENT,)),
        encode_cursor((MOMENT, "no id")),
        encode_cursor(("now", UUID(int=7))),
        base64.urlsafe_b64encode(b"{}").decode(),
        base64.urlsafe_b64encode(b"[" * 300).decode(),
    ],
)
def test_cursor_that_was_tampered_with_is_invalid(cursor):
    with pytest.raises(Invalid) as refusal:
        decode_cursor(cursor, tuple[datetime, UUID])
    assert [error.loc for error in refusal.value.errors] == [("cursor",)]


@pytest.mark.parametrize("text", ["two\nlines\tand a tab", "smile 🙂", "e\u0301", ""])
def test_text_may_have_several_lines(text):
    assert Shape(text=text).text == text


@pytest.mark.parametrize("text", ["nul\x00", "escape\x1b[2J", "bell\x07", "delete\x7f", "\ud800"])
def test_text_with_control_characters_is_refused(text):
    with pytest.raises(ValidationError):
        Shape(text=text)
    with pytest.raises(ValidationError):
        Shape(line=text)


@pytest.mark.parametrize("line", ["two\nlines", "tab\there", "next\x85line", "separator\u2028here"])
def test_line_is_one_line(line):
    with pytest.raises(ValidationError):
        Shape(line=line)


def test_line_is_cut_to_its_text():
    assert Shape(line="  Ada  ").line == "Ada"


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**400])
def test_integer_that_no_column_can_hold_is_refused(number):
    with pytest.raises(ValidationError):
        Shape(number=number)


@pytest.mark.parametrize("ratio", ["NaN", "Infinity", "-Infinity"])
def test_number_that_json_does_not_know_is_refused(ratio):
    with pytest.raises(ValidationError):
        Shape.model_validate_json(f'{{"ratio": {ratio}}}')


def test_shape_does_not_change():
    with pytest.raises(ValidationError):
        Shape().text = "other"  # type: ignore[misc]
