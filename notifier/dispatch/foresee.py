"""Would this be sent to this person, now or at another time? Asks the same `decide` as the gate, and locks nothing.

The answer holds for the moment it is given. For a past moment the ledger, the suppressions and what had been sent are
read as they stood then. What else the gate looks at is not kept: a snooze, quiet hours and caps are taken as they stand
now, the order of channels not at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from notifier.dispatch.timing import Timing
from notifier.domain.caps import Sent
from notifier.domain.consent import (
    ALL,
    ANY,
    MARKETING,
    ConsentEvent,
    Facts,
    Question,
    Topic,
    Verdict,
    decide,
    state_at,
)
from notifier.domain.explanation import Block, Line
from notifier.domain.foresight import NOBODY, Foresight, best
from notifier.domain.messages import Category
from notifier.domain.recipients import Hasher
from notifier.errors import InvalidInput, NotFound, Problem
from notifier.rendering import Templates
from notifier.store import addresses, consent, messages, recipients, suppressions
from notifier.store.database import Connection, Row
from notifier.store.recipients import Recipient
from notifier_channels.contract import Channel

AGES = timedelta(days=366)  #: how long something of a topic alone, without a template, is taken to be of use
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)  #: that may be asked about
FURTHEST = timedelta(days=3653)  #: ten years ahead; further off no rule of today says anything, and calendars end


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked: a recipient by the product's id, exactly one of topic and template, a channel, an instant."""

    recipient: str
    channel: Channel
    topic: str | None = None
    template: str | None = None
    at: datetime | None = None  #: None: now


@dataclass(frozen=True, slots=True)
class _Held:
    """An address at the time that is asked about, with what stood against it."""

    id: UUID | None
    address: str | None  #: None: erased, or none is held
    masked: str | None
    blocks: Sequence[Row]


@dataclass(frozen=True, slots=True)
class Foresee:
    """Knows the topics, the templates, the hours and caps, and under what an address may be suppressed."""

    hasher: Hasher
    templates: Templates
    timing: Timing

    async def __call__(self, c: Connection, asked: Asked) -> Foresight:
        """Decide about a message that does not exist.

        Raises:
            InvalidInput: the topic, the template or the channel is none of ours, or the instant is too far off.
            NotFound: there is no such recipient.

        """
        topic, lasts = self._topic(asked)
        person = (await recipients.by_external_ids(c, [asked.recipient])).get(asked.recipient)
        if person is None:
            raise NotFound("There is no recipient with this id.")
        now = await messages.clock(c)
        at = _near(asked.at or now, now)
        ledger = await consent.ledger_of(c, person.id)
        held = {one.id: one for one in await self._held(c, person.id, asked.channel, at)} or {None: _NOWHERE}
        caps = self.timing.caps_of(topic, asked.channel)
        sent = await self.timing.sent(c, [(person.id, caps)], at)
        question = Question(NOBODY, topic, asked.channel, at + lasts, caps=caps, spread=self.timing.spread)
        verdicts: Mapping[UUID | None, Verdict] = {
            id_: decide(question, self._facts(person, ledger, one, question, sent[person.id], at), at)
            for id_, one in held.items()
        }
        chosen = best(verdicts)
        return Foresight(
            recipient=asked.recipient,
            topic=topic,
            template=asked.template,
            channel=asked.channel,
            address=held[chosen].masked,
            at=at,
            is_past=at < now,
            expires_at=question.expires_at,
            verdict=verdicts[chosen],
            lines=[_line(row) for row in ledger if _speaks_of(row, topic, asked.channel)],
            blocks=[_block(row) for row in held[chosen].blocks],
        )

    def _topic(self, asked: Asked) -> tuple[Topic, timedelta]:
        """What it is about, and how long it would be of use."""
        if (asked.topic is None) == (asked.template is None):
            raise InvalidInput([Problem("/topic", "must be there, or `template`, and not both")])
        template = self.templates.find(asked.template) if asked.template else None
        topic = template.topic if template else self.templates.topics.get(asked.topic or "")
        if topic is None:
            raise InvalidInput([Problem("/template" if asked.template else "/topic", "is not one that there is")])
        if asked.channel not in (template.channels if template else topic.defaults):
            raise InvalidInput([Problem("/channel", "is none of its channels")])
        return topic, template.expires_after if template else AGES

    async def _held(self, c: Connection, person: UUID, channel: Channel, at: datetime) -> list[_Held]:
        """The addresses that the person held at that time, each with the history of its suppressions."""
        held = []
        for row in await recipients.held_at(c, person, channel, at):
            address = addresses.restore(channel, row["address"])
            digests = self.hasher.all(address) if address else [row["address_hash"]]
            history = await suppressions.history(c, channel, digests)
            held.append(_Held(row["id"], row["address"], address.masked if address else None, history))
        return held

    def _facts(
        self, person: Recipient, ledger: Sequence[Row], held: _Held, asked: Question, sent: Sequence[Sent], at: datetime
    ) -> Facts:
        """All that `decide` is told of the person and the address: as the gate reads it, but for the locks."""
        where = {"timezone": person.timezone, "channel": asked.channel, "address": held.address}
        return Facts(
            state_at([_said(row) for row in ledger], at),
            [suppressions.suppression_of(row) for row in held.blocks if _stood(row, at)],
            held.id is not None,
            person.snoozed_until,
            self.timing.hours_of(asked.topic, where),
            sent,
        )


def _near(at: datetime, now: datetime) -> datetime:
    """The instant, if it can be reckoned with."""
    if EARLIEST <= at <= now + FURTHEST:
        return at
    raise InvalidInput([Problem("/at", "is too far off; ask about an instant from 1970 to ten years from now")])


_NOWHERE = _Held(None, None, None, ())


def _said(row: Row) -> ConsentEvent:
    return ConsentEvent(
        row["number"], row["scope"], row["channel"], row["granted"], row["occurred_at"], row["expires_at"]
    )


def _stood(row: Row, at: datetime) -> bool:
    return row["created_at"] <= at and (row["lifted_at"] is None or row["lifted_at"] > at)


def _speaks_of(row: Row, topic: Topic, channel: Channel) -> bool:
    above = {topic.scope, ALL} | ({MARKETING} if topic.category is Category.MARKETING else set())
    return row["scope"] in above and row["channel"] in (channel, ANY)


def _line(row: Row) -> Line:
    return Line(**{name: row[name] for name in Line.__slots__})


def _block(row: Row) -> Block:
    return Block(**{name: row[name] for name in Block.__slots__})
