"""The address of the client: the peer of the connection, or what proxies that the settings trust say about it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from aiohttp import hdrs, web

Address = IPv4Address | IPv6Address
LOOPBACK = "127.0.0.1"  # a unix socket has no address; whoever may open it is on this machine


class TrustedProxies:
    """Addresses and networks whose `X-Forwarded-For` is believed."""

    def __init__(self, trusted: Sequence[str]) -> None:
        self._networks = tuple(ip_network(item, strict=False) for item in trusted)
        # A proxy is asked about with every request; parsing its address each time costs more than the rest.
        self._trusts = lru_cache(1024)(self._is_trusted)

    def client_ip(self, request: web.Request) -> str:
        """The nearest address that is not a trusted proxy's: everything left of it may be invented."""
        # A socket that listens for IPv6 too shows IPv4 peers as ::ffff:192.0.2.1.
        peer = (request.remote or LOOPBACK).removeprefix("::ffff:")
        if not self._networks or not self._trusts(peer):
            return peer
        hops = ",".join(request.headers.getall(hdrs.X_FORWARDED_FOR, ())).split(",")
        nearest = peer
        for hop in reversed(hops):
            address = _parse(hop)
            if address is None:
                return nearest
            nearest = str(address)
            if not self._trusts(nearest):
                return nearest
        return nearest

    def _is_trusted(self, peer: str) -> bool:
        address = _parse(peer)
        return address is not None and any(address in network for network in self._networks)


def _parse(text: str) -> Address | None:
    """Read `192.0.2.1`, `192.0.2.1:443`, `2001:db8::1` or `[2001:db8::1]:443`."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
