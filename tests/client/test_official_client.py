"""The official JavaScript client from npm, run by the Node of the pinned wheel, against the whole server."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).resolve().parent.parent / "node"
NODE = Path(sys.executable).with_name("node")
PATIENCE = 60  # seconds


@pytest.fixture(scope="module", autouse=True)
def installed():
    if not (PROGRAMS / "node_modules" / "socket.io-client").is_dir():
        pytest.skip("socket.io-client is not installed: run the tests by scripts/test")
    if not NODE.exists():
        pytest.skip("the wheel with Node is not installed: run the tests by scripts/test")


@pytest.fixture
def settings_changes():
    return {
        "chat": {"message_rate": 1000.0, "message_burst": 1000},  # it talks faster than people do
        "realtime": {"connections_per_user": 100},  # and has more windows open
    }


async def run(*arguments: str):
    process = await asyncio.create_subprocess_exec(
        NODE, *arguments, cwd=PROGRAMS, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(PATIENCE):
        output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return json.loads(output)


async def test_everything_that_the_official_client_does_works(people, url):
    student = await people.sign_in("student1")
    room_id = await student.class_room()
    report = await run("classroom.mjs", url, student.token, room_id)
    assert report["transports"] == {"upgrading": "websocket", "websocket": "websocket", "polling": "polling"}
    assert report["acked"] == 300
    assert report["ack_seqs"] == list(range(1, 301))
    for seqs in report["received"].values():
        assert seqs == list(range(1, 301))
    assert report["texts_whole"]
    assert report["refused"]["data"]["code"] == "unauthenticated"
    assert report["unknown_namespace"] == "Invalid namespace"
    assert report["one_connection"]
    assert report["retried"]["ok"]
    assert report["resumed"] == {"resumed": True, "texts": ["with retries", "while you were away"]}
    assert report["disconnect_reason"] == "io client disconnect"


async def test_what_the_official_client_can_do_beyond_a_conversation_works(people, url):
    student = await people.sign_in("student1")
    report = await run("behaviours.mjs", url, student.token, await student.class_room())
    assert report == {
        "upgraded": True,
        "upgrade_contiguous": True,
        "ack_in_time": True,
        "ack_too_late": "operation has timed out",
        "after_late_ack": True,
        "first_refusal": "unauthenticated",
        "auth_asked": 3,
        "while_away": ["buffered", "buffered again", "volatile, here"],
        "retried": [True] * 5,
        "retried_once": True,
        "retried_refusal": "not_found",
        "unknown_beside": "Invalid namespace",
        "other_stays": True,
        "same_connection": True,
        "polling": True,
        "polled_contiguous": True,
        "binary": ["transport close", 1008],
    }
