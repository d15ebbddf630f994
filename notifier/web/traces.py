"""What a request to a public page leaves behind: the fields of our own forms, and as much of who asked as proves it."""

from __future__ import annotations

import ipaddress
from urllib.parse import parse_qsl

from fastapi import Request

MOST_READ = 16 * 1024  #: bytes of a body: our own forms are smaller, and of others nothing needs to be read
LONGEST_AGENT = 200
FORM = "application/x-www-form-urlencoded"


async def fields_of(request: Request) -> dict[str, str]:
    """The fields of our own forms. Everything else, of whatever type and size, has none."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MOST_READ:
            return {}
    if not request.headers.get("content-type", "").lower().startswith(FORM):
        return {}
    return dict(parse_qsl(body.decode("utf-8", "replace"), max_num_fields=None))


def traces_of(request: Request) -> dict[str, str]:
    """As much of who asked as proves something, and no more: the network, not the device."""
    traces = {}
    if request.client and (network := network_of(request.client.host)):
        traces["ip"] = network
    if agent := request.headers.get("user-agent", "").replace("\0", "")[:LONGEST_AGENT]:
        traces["user_agent"] = agent
    return traces


def network_of(host: str) -> str | None:
    """The network around an IP address (IPv4 /24, IPv6 /48); None when it is none."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return str(ipaddress.ip_network((address, 24 if address.version == 4 else 48), strict=False))
