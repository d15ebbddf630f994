"""Where a push leads. Its author may name the app's own scheme; what data brings is a whole https address or a part.

While a link is rendered its values are marked, so that what the author wrote and what data brought can be told apart
afterwards, whatever conditions stood between them.
"""

from __future__ import annotations

import re
from urllib.parse import quote

from jinja2 import Undefined

from notifier.rendering.environment import printable

REFUSED = frozenset(
    {
        *("http", "javascript", "data", "file", "vbscript", "blob", "about", "filesystem", "view-source", "ws", "wss"),
        *("intent", "content", "android-app", "mailto", "tel", "sms", "smsto", "ftp", "urn", "cid"),
    }
)
"""Schemes that run something, read something, or belong to others than the app."""

_MARKS = re.compile("[\ue000\ue001]")
_BLANK = re.compile(r"\s+")
_HOST = r"(?:[a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z]([a-z0-9-]*[a-z0-9])?(:[0-9]{1,5})?"
_WEB = re.compile(rf"https://{_HOST}(?P<rest>[/?#].*)?", re.IGNORECASE)
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):", re.IGNORECASE)
_UNSAFE = re.compile(r"""[^\x21-\x7e]|["'<>\\^`{|}]""")
_MEANT = "!#$%&()*+,/:;=?@[]~"  #: what a whole address is written with, besides letters, digits, `-`, `.` and `_`


def marked(value: object) -> object:
    """Wrapped around every value that a link prints."""
    shown = printable(value)
    if isinstance(shown, Undefined):
        return shown
    if _MARKS.search(str(shown)):
        raise ValueError("holds a character that stands in no link")
    return f"\ue000{shown}\ue001"


def finished(rendered: str, *, web_only: bool) -> str | None:
    """The link with its values encoded; None when conditions left nothing.

    A value that begins the link is a whole https address. One that stands later is percent-encoded: it can neither end
    the part in which it was put nor begin another, nor lengthen the name of the host.

    Raises:
        ValueError: with the reason, which holds no data.

    """
    link = ""
    for position, part in enumerate(_MARKS.split(rendered)):
        is_value = position % 2 == 1
        if not is_value:
            link += _BLANK.sub("", part)
        elif not link:
            link = _whole(part)
        elif _takes_values(link, web_only=web_only):
            link += quote(part, safe="")
        else:
            raise ValueError("a value stands before the path; write the host out, with a `/` behind it")
    return _sound(link, web_only=web_only) if link else None


def _whole(address: str) -> str:
    written = quote(address, safe=_MEANT)
    if _UNSAFE.search(written) or _BLANK.search(address) or not _WEB.fullmatch(written):
        raise ValueError("an address that data brings is a whole one, with https and the name of a host")
    return written


def _takes_values(link: str, *, web_only: bool) -> bool:
    """True when what precedes a value is so far complete that no value can change where it leads."""
    web = _WEB.match(link)
    return web["rest"] is not None if web else _is_own(link) and not web_only


def _sound(link: str, *, web_only: bool) -> str:
    if _UNSAFE.search(link):
        raise ValueError("a character stands in it that no link has")
    if not (_WEB.fullmatch(link) or (_is_own(link) and not web_only)):
        raise ValueError(
            "begins with https and the name of a host" + ("" if web_only else ", or with the app's scheme")
        )
    if {".", ".."} & set(re.split(r"[?#]", link, maxsplit=1)[0].split("/")):
        raise ValueError("climbs out of its path")
    return link


def _is_own(link: str) -> bool:
    scheme = _SCHEME.match(link)
    return scheme is not None and scheme[1].lower() not in REFUSED | {"https"}
