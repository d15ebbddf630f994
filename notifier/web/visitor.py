"""What is read of whoever comes to a public page: the fields of our forms, their languages, and a trace as proof."""

from __future__ import annotations

import ipaddress
from urllib.parse import parse_qsl

from fastapi import Request

from notifier.web.pages import accepted_languages

MOST_READ = 128 * 1024  #: bytes of a body: our own forms are smaller, and of others nothing needs to be read
LONGEST_AGENT = 200
FORM = "application/x-www-form-urlencoded"


async def read_form(request: Request) -> list[tuple[str, str]]:
    """The fields of our own forms. Everything else, of whatever type and size, has none."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MOST_READ:
            return []
    if not request.headers.get("content-type", "").lower().startswith(FORM):
        return []
    pairs = parse_qsl(body.decode("utf-8", "replace"), max_num_fields=None)
    return [(name, value) for name, value in pairs if "\0" not in value]


def languages(request: Request) -> list[str]:
    """What the browser asks for, the most wanted first."""
    return accepted_languages(request.headers.get("accept-language", ""))


def traces(request: Request) -> dict[str, str]:
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
