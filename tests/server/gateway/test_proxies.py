"""The client's address behind proxies that are trusted, and behind those that are not."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from server.gateway.endpoint import Call, endpoint, route
from server.gateway.proxies import TrustedProxies
from server.gateway.schema import Schema

PROXIES = ("127.0.0.1", "10.0.0.0/8", "2001:db8:1::/48")


class Address(Schema):
    ip: str


@endpoint(summary="Tell my address.", public=True)
async def address(call: Call) -> Address:
    return Address(ip=call.client_ip)


def _client(peer: str, *forwarded: str, trusted: tuple[str, ...] = PROXIES) -> str:
    headers = CIMultiDict([("X-Forwarded-For", value) for value in forwarded])
    request = make_mocked_request("GET", "/", headers=headers)
    return TrustedProxies(trusted).client_ip(request.clone(remote=peer))


@pytest.mark.parametrize(
    ("forwarded", "expected"),
    [
        ((), "127.0.0.1"),
        (("203.0.113.7",), "203.0.113.7"),
        (("198.51.100.1, 203.0.113.7",), "203.0.113.7"),
        (("203.0.113.7, 10.1.2.3, 10.1.2.4",), "203.0.113.7"),
        (("198.51.100.1", "203.0.113.7", "10.1.2.3"), "203.0.113.7"),
        (("203.0.113.7:4711",), "203.0.113.7"),
        (("[2001:db8:2::7]:4711, 2001:db8:1::1",), "2001:db8:2::7"),
        (("::ffff:203.0.113.7",), "203.0.113.7"),
        (("10.9.9.9",), "10.9.9.9"),
        (("203.0.113.7, unknown, 10.1.2.3",), "10.1.2.3"),
        (("<script>",), "127.0.0.1"),
    ],
)
def test_rightmost_address_that_is_no_trusted_proxy_is_the_client(forwarded, expected):
    assert _client("127.0.0.1", *forwarded) == expected


def test_header_of_a_peer_that_is_not_trusted_is_ignored():
    assert _client("192.0.2.1", "203.0.113.7") == "192.0.2.1"
    assert _client("127.0.0.1", "203.0.113.7", trusted=()) == "127.0.0.1"


def test_ipv4_peer_of_a_dual_stack_socket_is_recognised():
    assert _client("::ffff:10.0.0.1", "203.0.113.7") == "203.0.113.7"
    assert _client("::ffff:192.0.2.1", trusted=()) == "192.0.2.1"


async def test_handler_gets_the_address_of_the_client(serve):
    headers = {"X-Forwarded-For": "203.0.113.7"}
    where = route("GET", "/api/school/address", address)
    behind = await serve(where, http={"trusted_proxies": PROXIES})
    assert await behind.json("GET", "/api/school/address", headers=headers) == (200, {"ip": "203.0.113.7"})
    alone = await serve(where)
    assert await alone.json("GET", "/api/school/address", headers=headers) == (200, {"ip": "127.0.0.1"})
