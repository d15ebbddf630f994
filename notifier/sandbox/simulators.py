"""Addresses that play a provider's moods: what the sandbox does with a mail that is sent to one of them.

The table is data: the catcher obeys it, the page shows it, and `docs/reference/sandbox.md` lists the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal, TypeAlias

DOMAIN = "simulator.notifier.test"

Kind: TypeAlias = Literal["delivered", "deferred", "bounced", "complained"]


@dataclass(frozen=True, slots=True)
class RefuseRecipient:
    """Answers RCPT with this reply; after a 421 the line is closed (RFC 5321 3.8)."""

    reply: str


@dataclass(frozen=True, slots=True)
class RefuseContent:
    """Answers the final dot with this reply."""

    reply: str
    only_once: bool = False  #: per Message-ID


@dataclass(frozen=True, slots=True)
class CutLine:
    """Closes the line without an answer: at DATA, or after the final dot with the mail stored."""

    after_dot: bool


@dataclass(frozen=True, slots=True)
class Take:
    """Stores the mail and answers the final dot with 250, at once or after a while."""

    wait: timedelta = timedelta(0)


Behaviour: TypeAlias = RefuseRecipient | RefuseContent | CutLine | Take


@dataclass(frozen=True, slots=True)
class Report:
    """What is told to Notifier after a mail was taken; `after` counts from the taking, or from the report before it."""

    kind: Kind
    after: timedelta
    code: str | None = None


DELIVERED = Report("delivered", timedelta(milliseconds=500))


@dataclass(frozen=True, slots=True)
class Simulator:
    """One row of the table."""

    name: str  #: the local part; `+anything` may follow it
    behaviour: Behaviour
    does: str
    then: str  #: what Notifier makes of it
    reports: Sequence[Report] = field(default=())

    @property
    def address(self) -> str:
        """Where to send."""
        return f"{self.name}@{DOMAIN}"


EVERYBODY_ELSE = Simulator(
    name="anybody",
    behaviour=Take(),
    does="Takes the mail with 250 and reports it as delivered.",
    then="accepted, then delivered",
    reports=(DELIVERED,),
)

SIMULATORS: tuple[Simulator, ...] = (
    Simulator(
        name="bounce",
        behaviour=RefuseRecipient("550 5.1.1 No such mailbox here"),
        does="Refuses the recipient with 550 5.1.1.",
        then="failed; the address is suppressed as a hard bounce",
    ),
    Simulator(
        name="mailbox-full",
        behaviour=RefuseRecipient("552 5.2.2 Mailbox full"),
        does="Refuses the recipient with 552 5.2.2.",
        then="failed; the address stays usable",
    ),
    Simulator(
        name="over-quota",
        behaviour=RefuseRecipient("452 4.2.2 Mailbox over quota, try again later"),
        does="Refuses the recipient for now with 452 4.2.2, every time.",
        then="queued again with backoff, until it has expired or was tried often enough",
    ),
    Simulator(
        name="greylist",
        behaviour=RefuseContent("451 4.7.1 Greylisted, try again later", only_once=True),
        does="Answers the first try of each message with 451 4.7.1 and takes the second.",
        then="queued again once, then accepted and delivered",
        reports=(DELIVERED,),
    ),
    Simulator(
        name="throttle",
        behaviour=RefuseRecipient("421 4.7.0 Too many messages, slow down"),
        does="Answers 421 4.7.0 and closes the line, every time.",
        then="queued again after a pause",
    ),
    Simulator(
        name="reject",
        behaviour=RefuseContent("554 5.7.1 Message content rejected"),
        does="Reads the mail and refuses its content with 554 5.7.1.",
        then="failed; the address stays usable",
    ),
    Simulator(
        name="slow",
        behaviour=Take(wait=timedelta(seconds=5)),
        does="Stores the mail at once, but answers the final dot only after five seconds.",
        then="accepted and delivered, with nothing else held up behind it",
        reports=(Report("delivered", timedelta(seconds=6)),),
    ),
    Simulator(
        name="drop-before-dot",
        behaviour=CutLine(after_dot=False),
        does="Closes the line at DATA, before any of the mail was read.",
        then="queued again with backoff: it was definitely not taken",
    ),
    Simulator(
        name="drop-after-dot",
        behaviour=CutLine(after_dot=True),
        does="Stores the mail, then closes the line without the 250. Reports nothing.",
        then="unknown; transactional mail is sent once more with the same Message-ID, marketing never",
    ),
    Simulator(
        name="deferred",
        behaviour=Take(),
        does="Takes the mail, reports it as deferred and a little later as delivered.",
        then="accepted, a line in its timeline, then delivered",
        reports=(Report("deferred", timedelta(milliseconds=500), "4.4.1"), Report("delivered", timedelta(seconds=3))),
    ),
    Simulator(
        name="late-bounce",
        behaviour=Take(),
        does="Takes the mail and reports two seconds later that it bounced with 5.1.1.",
        then="accepted, then bounced; the address is suppressed as a hard bounce",
        reports=(Report("bounced", timedelta(seconds=2), "5.1.1"),),
    ),
    Simulator(
        name="complaint",
        behaviour=Take(),
        does="Takes the mail, reports it as delivered and two seconds later that the reader called it spam.",
        then="delivered, then complained; marketing to this address stops",
        reports=(DELIVERED, Report("complained", timedelta(seconds=2))),
    ),
)

_BY_NAME = {simulator.name: simulator for simulator in SIMULATORS}


def find(address: str) -> Simulator:
    """Who answers for this address."""
    local, _, domain = address.lower().rpartition("@")
    if domain != DOMAIN:
        return EVERYBODY_ELSE
    return _BY_NAME.get(local.partition("+")[0], EVERYBODY_ELSE)


def choose(recipients: Sequence[str]) -> Simulator:
    """Who decides over a mail with several recipients: the first that is not like everybody else."""
    found = (find(recipient) for recipient in recipients)
    return next((simulator for simulator in found if simulator is not EVERYBODY_ELSE), EVERYBODY_ELSE)
