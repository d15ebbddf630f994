"""A mail to an unsubscribe address of ours: somebody wants to leave, unless a machine answered by itself.

Mail clients write it by themselves: Apple's has an empty subject and a fixed sentence, Gmail's says that it was made
automatically, others are empty. None of it matters, since the address carries all that is to be known, signed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from notifier_channels.email.inbound import automatic
from notifier_channels.email.inbound.parts import header, parse
from notifier_channels.email.inbound.report import MOST_READ, Nothing, Why

LONGEST = 200  #: characters of a header that is kept as evidence

_ADDRESS = re.compile(r"""[^\s<>"(),;:@]{1,64}@[^\s<>"(),;:@]{1,255}""")  # Python's reader of addresses recurses


@dataclass(frozen=True, slots=True)
class Wish:
    """Somebody wants to leave. What is kept of the mail as evidence; never its body."""

    message_id: str
    date: str
    sender: str  #: the address in From, which anybody can write there


def read_wish(raw: bytes, sender: str | None) -> Wish | Nothing:
    """Say whether it counts. `sender` is the envelope's where it is known; `<>`, that of automatic mail, is empty."""
    mail = parse(raw[:MOST_READ])
    if automatic.is_answer(mail, sender):
        return Nothing(Why.AUTOMATIC)
    return Wish(_kept(header(mail, "Message-ID")), _kept(header(mail, "Date")), _address(header(mail, "From")))


def _kept(text: str) -> str:
    return text.replace("\0", "").encode("utf-8", "replace").decode()[:LONGEST]


def _address(text: str) -> str:
    found = _ADDRESS.search(text)
    return found.group() if found else ""
