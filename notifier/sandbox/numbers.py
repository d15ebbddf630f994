"""Numbers that play a phone company's moods: what the stand-in for Twilio does with a message to one of them.

The table is data: the stand-in obeys it, the page shows it. Those that begin with +1500555 are Twilio's own
(its page on test credentials, November 2026); the others are ours, from the range kept free for fiction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error answer instead of a message."""

    status: int
    code: int
    says: str
    only_once: bool = False  #: for the same text to the same number
    is_taken: bool = False  #: the message is kept and goes on its way all the same


@dataclass(frozen=True, slots=True)
class Step:
    """One status that a message comes to, counted from the one before."""

    status: str
    after: timedelta
    error_code: int | None = None


SENT = Step("sent", timedelta(milliseconds=200))
DELIVERED = (SENT, Step("delivered", timedelta(milliseconds=400)))


def _undelivered(code: int) -> Sequence[Step]:
    return (SENT, Step("undelivered", timedelta(milliseconds=400), code))


@dataclass(frozen=True, slots=True)
class Number:
    """One row of the table."""

    e164: str
    does: str
    then: str  #: what Notifier makes of it
    refusal: Refusal | None = None
    steps: Sequence[Step] = field(default=DELIVERED)
    wait: timedelta = timedelta(0)  #: before the answer


NUMBERS: Sequence[Number] = (
    Number("+12025550100", "Takes it and delivers it, as every other number does.", "delivered"),
    Number(
        "+15005550001",
        "21211: no valid number.",
        "failed, and the number is suppressed",
        Refusal(400, 21211, "Invalid 'To' Phone Number"),
    ),
    Number(
        "+15005550002",
        "21612: no route to it.",
        "failed",
        Refusal(400, 21612, "The 'To' phone number is not currently reachable via SMS"),
    ),
    Number(
        "+15005550003",
        "21408: the country is not enabled.",
        "failed",
        Refusal(400, 21408, "Permission to send an SMS has not been enabled for the region of the 'To' number"),
    ),
    Number(
        "+15005550004",
        "21610: has replied STOP.",
        "suppressed, and the opt-out is kept",
        Refusal(400, 21610, "Attempt to send to unsubscribed recipient"),
    ),
    Number(
        "+15005550009",
        "21614: no mobile number.",
        "failed, and the number is suppressed",
        Refusal(400, 21614, "'To' number is not a valid mobile number"),
    ),
    Number("+12025550131", "30005: unknown.", "bounced, and the number is suppressed", steps=_undelivered(30005)),
    Number("+12025550132", "30006: a landline.", "bounced, and the number is suppressed", steps=_undelivered(30006)),
    Number(
        "+12025550133",
        "30003: switched off.",
        "sent once more after 30 minutes and after an hour, then bounced; marketing bounces at once",
        steps=_undelivered(30003),
    ),
    Number("+12025550134", "30007: filtered by the carrier.", "bounced", steps=_undelivered(30007)),
    Number(
        "+12025550135",
        "20429 the first time: too many requests.",
        "sent again after a second",
        Refusal(429, 20429, "Too Many Requests", only_once=True),
    ),
    Number(
        "+12025550136",
        "20429 every time.",
        "tried until it expires",
        Refusal(429, 20429, "Too Many Requests"),
    ),
    Number(
        "+12025550137",
        "Takes it and answers 500.",
        "unknown, until the delivery is reported",
        Refusal(500, 20500, "An internal server error has occurred", is_taken=True),
    ),
    Number("+12025550138", "Takes five seconds to answer.", "delivered", wait=timedelta(seconds=5)),
)
BY_E164 = {number.e164: number for number in NUMBERS}


def number_of(e164: str) -> Number:
    """The row for this number; the first one for all that are not in the table."""
    return BY_E164.get(e164, NUMBERS[0])
