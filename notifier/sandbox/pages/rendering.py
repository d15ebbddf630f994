"""How a page is made: the templates, what they all know, and the filters that make untrusted text safe to look at."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit
from zlib import crc32

from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from notifier.sandbox.desk import Desk
from notifier.sandbox.simulators import EVERYBODY_ELSE, SIMULATORS

ASSETS = Path(__file__).parent.parent / "assets"
PAGE = 50  #: rows of a list
HUES = 8
_LINK = re.compile(r"https?://[^\s<>\"]*[^\s<>\"'.,;:!?)\]]")

Render = Callable[..., HTMLResponse]


def renderer(desk: Desk) -> Render:
    """Makes pages; every one knows the counts of all views."""
    environment = Environment(
        loader=FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "clock": _clock,
        "host": host,
        "hue": _hue,
        "initial": _initial,
        "linked": linked,
        "size": _size,
    }
    environment.globals |= {
        "simulators": SIMULATORS,
        "everybody_else": EVERYBODY_ELSE,
        "smtp": desk.smtp,
        "twilio": desk.wires.twilio,
        "fcm": desk.wires.fcm,
        "public_url": desk.public_url,
        "look": "",  # where a page that is live asks for its changing parts
    }

    def render(template: str, *, status: int = 200, **values: object) -> HTMLResponse:
        return HTMLResponse(environment.get_template(template).render(stats=desk.stats(), **values), status)

    return render


def linked(text: str) -> Markup:
    """Text in which web addresses can be pressed, as phones show it."""
    parts: list[str] = []
    end = 0
    for found in _LINK.finditer(text):
        url = escape(found[0])
        parts += escape(text[end : found.start()]), _ANCHOR.format(url, url)
        end = found.end()
    return Markup("").join([*parts, escape(text[end:])])


_ANCHOR = Markup('<a href="{}" target="_blank" rel="noopener noreferrer">{}</a>')


def host(url: str) -> str:
    """Where a picture would come from."""
    try:
        return urlsplit(url).hostname or url
    except ValueError:
        return url


def _clock(moment: datetime) -> str:
    """The time of day; with the date when it is not today's."""
    local, today = moment.astimezone(), datetime.now().astimezone().date()
    return local.strftime("%H:%M" if local.date() == today else "%d %b %H:%M")


def _hue(text: str) -> int:
    """The same colour for the same address."""
    return crc32(text.lower().encode(errors="replace")) % HUES


def _initial(text: str) -> str:
    return next((letter for letter in text if letter.isalnum()), "?").upper()


def _size(octets: int) -> str:
    return f"{octets} B" if octets < 1024 else f"{octets / 1024:.0f} KB"
