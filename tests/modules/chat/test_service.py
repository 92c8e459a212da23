"""Use cases of chat on a real database."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest

from modules.chat import service
from modules.chat.schemas import MessageIn
from modules.classroom import Span
from modules.classroom import service as classroom
from server.errors import Conflict, Forbidden, IdempotencyKeyReused, Invalid, NotFound, RateLimited
from server.metrics import REGISTRY
from tests.modules.classroom.actors import actor_of, add_room, room_of


def draft(text: str = "hello", **fields: Any) -> MessageIn:
    return MessageIn(id=fields.pop("id", uuid4()), text=text, **fields)


async def texts(rt, room_id: UUID) -> list[str]:
    return [orjson.loads(event.body)["data"]["text"] for event in await rt.log.read(room_id, after=0, limit=100)]


async def test_a_message_is_in_the_log_as_the_contract_has_it(rt):
    anna, room_id = await actor_of(rt, "student1"), await room_of(rt, "Lounge")
    first, mention = draft(), uuid4()
    await service.send_message(rt, anna, room_id, first)
    second = draft("and\nso on ", reply_to=first.id, mentions=(mention,))
    receipt = await service.send_message(rt, anna, room_id, second)
    event = orjson.loads((await service.get_event(rt, room_id, receipt.seq)).json(rt.log.epoch))
    assert (event["seq"], event["type"], event["cmd_id"]) == (2, "message", str(second.id))
    assert event["actor"] == {"id": str(anna.user_id), "name": anna.name, "avatar_url": None}
    assert event["data"] == {
        "id": str(second.id),
        "text": "and\nso on ",
        "reply_to": str(first.id),
        "attachments": [],
        "mentions": [str(mention)],
    }


async def test_the_same_message_again_is_the_first_one(rt):
    anna, room_id, message = await actor_of(rt, "student1"), await room_of(rt, "Lounge"), draft()
    counted = REGISTRY.get_sample_value("chat_messages_total") or 0
    first = await service.send_message(rt, anna, room_id, message)
    again = await service.send_message(rt, anna, room_id, message)
    assert (again.seq, again.duplicate) == (first.seq, True)
    assert await texts(rt, room_id) == ["hello"]
    assert REGISTRY.get_sample_value("chat_messages_total") == counted + 1
    with pytest.raises(IdempotencyKeyReused):
        await service.send_message(rt, anna, room_id, draft("other", id=message.id))


async def test_the_id_of_another_is_taken(rt):
    anna, ben, room_id = await actor_of(rt, "student1"), await actor_of(rt, "student2"), await room_of(rt, "Lounge")
    message = draft()
    await service.send_message(rt, anna, room_id, message)
    with pytest.raises(Conflict):
        await service.send_message(rt, ben, room_id, message)


async def test_an_answer_needs_a_message_of_the_same_room(rt):
    anna, room_id, elsewhere = await actor_of(rt, "student1"), await room_of(rt, "Lounge"), draft()
    await service.send_message(rt, anna, await room_of(rt, "Live class"), elsewhere)
    for reply_to in (uuid4(), elsewhere.id):
        with pytest.raises(Invalid) as refused:
            await service.send_message(rt, anna, room_id, draft(reply_to=reply_to))
        assert refused.value.errors[0].loc == ("reply_to",)


async def test_length_is_counted_in_characters(rt):
    anna, room_id, most = (
        await actor_of(rt, "student1"),
        await room_of(rt, "Lounge"),
        rt.settings.chat.message_max_length,
    )
    await service.send_message(rt, anna, room_id, draft("🪐" * most))
    with pytest.raises(Invalid) as refused:
        await service.send_message(rt, anna, room_id, draft("x" * (most + 1)))
    assert refused.value.errors[0].loc == ("text",)


async def test_attachments_wait_for_files(rt):
    anna, room_id = await actor_of(rt, "student1"), await room_of(rt, "Lounge")
    with pytest.raises(Invalid) as refused:
        await service.send_message(rt, anna, room_id, draft(attachments=(uuid4(),)))
    assert refused.value.errors[0].loc == ("attachments",)


async def test_who_writes_too_fast_is_slowed_down_in_that_room_only(rt):
    anna, ben = await actor_of(rt, "student1"), await actor_of(rt, "student2")
    room_id, other = await room_of(rt, "Lounge"), await room_of(rt, "Live class")
    for _ in range(rt.settings.chat.message_burst):
        await service.send_message(rt, anna, room_id, draft())
    with pytest.raises(RateLimited) as refused:
        await asyncio.gather(*(service.send_message(rt, anna, room_id, draft()) for _ in range(20)))
    assert refused.value.retry_after is not None
    assert 0 < refused.value.retry_after <= 0.1
    await service.send_message(rt, anna, other, draft())
    await service.send_message(rt, ben, room_id, draft())


async def test_a_room_of_others_is_not_there(rt):
    anna, ben, eve = [await actor_of(rt, f"student{number}") for number in (1, 2, 3)]
    room_id = await add_room(rt, "direct", anna, ben)
    await service.send_message(rt, anna, room_id, draft())
    attempts = [
        service.send_message(rt, eve, room_id, draft()),
        service.read_history(rt, eve, room_id, before=None, limit=10),
        service.list_messages(rt, eve, room_id, Span(None, None, 10)),
        service.mark_read(rt, eve, room_id, 1),
        service.announce_typing(rt, eve, room_id, on=True),
    ]
    for attempt in attempts:
        with pytest.raises(NotFound):
            await attempt


async def test_observers_write_nothing(rt):
    anna, room_id = await actor_of(rt, "student1"), await room_of(rt, "Live class")
    async with rt.database.connection() as conn:
        await conn.execute("UPDATE course_members SET role = 'observer' WHERE user_id = $1", anna.user_id)
    with pytest.raises(Forbidden):
        await service.send_message(rt, anna, room_id, draft())


async def unread_in(rt, actor, room_id: UUID) -> tuple[int, int, int]:
    [found] = [item for item in await service.list_unread(rt, actor) if item.room_id == room_id]
    return found.last_seq, found.read_seq, found.unread


async def test_a_read_mark_moves_forward_and_not_beyond_the_end(rt):
    anna, ben, room_id = await actor_of(rt, "student1"), await actor_of(rt, "student2"), await room_of(rt, "Lounge")
    for _ in range(4):
        await service.send_message(rt, anna, room_id, draft())
    assert await unread_in(rt, ben, room_id) == (4, 0, 4)
    await service.mark_read(rt, ben, room_id, 3)
    assert await unread_in(rt, ben, room_id) == (4, 3, 1)
    await service.mark_read(rt, ben, room_id, 1)
    assert await unread_in(rt, ben, room_id) == (4, 3, 1)
    await service.mark_read(rt, ben, room_id, 99)
    assert await unread_in(rt, ben, room_id) == (4, 4, 0)


async def test_only_messages_of_others_are_unread(rt):
    teacher, anna, room_id = (
        await actor_of(rt, "teacher"),
        await actor_of(rt, "student1"),
        await room_of(rt, "Live class"),
    )
    await classroom.start_class(rt, teacher, room_id, None)
    await service.send_message(rt, anna, room_id, draft())
    assert await unread_in(rt, anna, room_id) == (2, 0, 0)
    assert await unread_in(rt, teacher, room_id) == (2, 0, 1)


async def test_unread_lists_my_rooms_inside_and_outside_of_courses(rt):
    anna, ben, admin = [await actor_of(rt, name) for name in ("student1", "student2", "admin")]
    group = await add_room(rt, "group", anna, ben)
    mine = {item.room_id for item in await service.list_unread(rt, anna)}
    assert mine == {group, await room_of(rt, "Lounge"), await room_of(rt, "Live class")}
    assert await service.list_unread(rt, admin) == []


async def test_messages_are_read_forwards_and_backwards_past_other_events(rt):
    teacher, room_id = await actor_of(rt, "teacher"), await room_of(rt, "Live class")
    for _ in range(3):  # messages have the seqs 1, 4 and 7
        await service.send_message(rt, teacher, room_id, draft())
        await classroom.start_class(rt, teacher, room_id, None)
        await classroom.end_class(rt, teacher, room_id, None)

    async def seqs(after: int | None, before: int | None, limit: int) -> list[int]:
        return [event.seq for event in await service.list_messages(rt, teacher, room_id, Span(after, before, limit))]

    assert await seqs(None, None, 10) == [1, 4, 7]
    assert await seqs(1, None, 10) == [4, 7]
    assert await seqs(0, 7, 10) == [1, 4]
    assert await seqs(0, None, 1) == [1, 4]  # one more, which says that there is more
    assert await seqs(None, 7, 1) == [1, 4]
    history = await service.read_history(rt, teacher, room_id, before=4, limit=2)
    assert [(event.seq, event.type) for event in history] == [(2, "class_started"), (3, "class_ended")]


async def test_history_is_bounded_by_the_settings(rt):
    anna, room_id = await actor_of(rt, "student1"), await room_of(rt, "Lounge")
    with pytest.raises(Invalid):
        await service.read_history(rt, anna, room_id, before=None, limit=rt.settings.realtime.join_limit + 1)
