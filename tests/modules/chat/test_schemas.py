"""What a message may look like."""

from __future__ import annotations

from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from modules.chat.schemas import MENTIONS, History, MessageIn


def message(**fields: object) -> MessageIn:
    return MessageIn.model_validate({"id": str(uuid4()), "text": "hello", **fields})


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
def test_text_is_kept_as_it_was_written(text):
    if text.strip():
        assert message(text=text).text == text
    else:
        with pytest.raises(ValidationError):
            message(text=text)


@pytest.mark.parametrize("text", ["", " ", "\n\t\u2003", "a\0b", "\ud800", None, 7])
def test_what_nobody_can_read_or_store_is_refused(text):
    with pytest.raises(ValidationError):
        message(text=text)


def test_unknown_fields_are_refused():
    with pytest.raises(ValidationError):
        message(colour="red")


def test_mentions_are_bounded():
    assert len(message(mentions=[str(uuid4())] * MENTIONS).mentions) == MENTIONS
    with pytest.raises(ValidationError):
        message(mentions=[str(uuid4())] * (MENTIONS + 1))


@pytest.mark.parametrize("before", [-1, 2**63, "x"])
def test_history_begins_at_a_seq(before):
    with pytest.raises(ValidationError):
        History.model_validate({"room_id": str(uuid4()), "before": before})
