"""A person says no through a link: one click in the mail client, or the page behind the link. And takes it back.

Needs PostgreSQL and nothing else. Everything here may be repeated: what was said within the hour is not written twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeAlias
from uuid import UUID

from notifier.dispatch.refusals import Withdrawal, lock_bound, topic_named, withdraw
from notifier.domain.consent import ALL, ANY, MARKETING, ConsentEvent, Topic, judge
from notifier.domain.messages import Category
from notifier.domain.recipients import Hasher
from notifier.domain.tokens import UNDO_FOR, Links, ManageLink, OptOutLink, PageLink, UndoLink
from notifier.domain.withdrawals import lasts_until, still_undoable, was_undone
from notifier.store import addresses, consent, recipients
from notifier.store.addresses import Reached
from notifier.store.consent import NewEvent
from notifier.store.database import Connection, Database, Row
from notifier_channels.contract import Channel

MOST_UNDONE = 200  #: ledger lines in an undo token; a refusal that bound more people is not undone by a button


class Way(StrEnum):
    """How a link's no reached us: the ledger's `source`."""

    ONE_CLICK = "one_click"  #: RFC 8058: a mail client posts what the header says
    PAGE = "unsubscribe_page"  #: a person pressed the page's button
    PREFERENCES = "preference_page"  #: a person turned a switch off (`dispatch.preferences`); it is undone here, too


class Choice(StrEnum):
    """What a person says no to."""

    TOPIC = "topic"  #: what the message was about
    MARKETING = "marketing"
    ALL = "all"  #: everything that is not mandatory


@dataclass(frozen=True, slots=True)
class Sight:
    """What the page may show to whoever holds a link."""

    topic: Topic | None  #: None when the link names none, or one that has vanished
    channel: str  #: or `any`
    masked: str | None = None
    locale: str | None = None
    refused: bool = False  #: the topic is refused already
    known: bool = True  #: False: the database could not be asked

    @property
    def choices(self) -> tuple[Choice, ...]:
        """What can be refused here, the least first."""
        if self.topic is None:
            return (Choice.MARKETING, Choice.ALL)
        if self.topic.mandatory:
            return ()
        if self.topic.category is Category.MARKETING:
            return (Choice.TOPIC, Choice.MARKETING, Choice.ALL)
        return (Choice.TOPIC, Choice.ALL)

    def scope(self, choice: Choice | None) -> str | None:
        """The ledger's scope of a choice; of none, the least there is. None: it cannot be refused."""
        chosen = choice if choice in self.choices else next(iter(self.choices), None)
        match chosen:
            case Choice.TOPIC if self.topic is not None:
                return self.topic.scope
            case Choice.ALL:
                return ALL
            case None:
                return None
            case _:
                return MARKETING


@dataclass(frozen=True, slots=True)
class Refused:
    """The no is written down and binds from now on."""

    sight: Sight
    scope: str
    undo: str | None  #: a token, when there is something that may be taken back


@dataclass(frozen=True, slots=True)
class NotRefusable:
    """The topic is mandatory: nothing has changed."""

    sight: Sight


@dataclass(frozen=True, slots=True)
class Restored:
    """What had been allowed is allowed again."""

    sight: Sight


@dataclass(frozen=True, slots=True)
class NotRestored:
    """Too late, or something else was said since: nothing has changed."""

    sight: Sight


Answer: TypeAlias = Refused | NotRefusable | Restored | NotRestored


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class OptOut:
    """Every no that comes through a link ends here."""

    database: Database
    links: Links
    hasher: Hasher
    topics: Mapping[str, Topic]
    now: Callable[[], datetime] = field(default=_utc_now)

    def read(self, token: str) -> PageLink | None:
        """What the link says, from its signature alone; None when it is not one of ours."""
        return self.links.read_page(token, self.now())

    def guess(self, link: PageLink) -> Sight:
        """What is known without the database."""
        match link:
            case OptOutLink():
                return Sight(self.topics.get(link.topic), link.channel, known=False)
            case ManageLink():
                return Sight(None, ANY, known=False)

    async def look(self, link: PageLink) -> Sight | None:
        """What the page shows. Changes nothing (I7). None: nobody is known by this link."""
        async with self.database.connection() as c:
            return await self._see(c, link, (await self._reached(c, link)))

    async def __call__(
        self, link: PageLink, choice: Choice | None, way: Way, evidence: Mapping[str, Any]
    ) -> Refused | NotRefusable | None:
        """Say no, for everybody who holds the address that the message went to."""
        return await self.database.transact(lambda c: self._refuse(c, link, choice, way, evidence))

    async def undo(self, link: PageLink, token: str, evidence: Mapping[str, Any]) -> Restored | NotRestored | None:
        """Take back exactly what the page has just confirmed, where it had been allowed before."""
        undo = self.links.read_undo(token, self.now())
        return await self.database.transact(lambda c: self._restore(c, link, undo, evidence))

    # Refuse -----------------------------------------------------------------------------------------------------------

    async def _refuse(
        self, c: Connection, link: PageLink, choice: Choice | None, way: Way, evidence: Mapping[str, Any]
    ) -> Refused | NotRefusable | None:
        reached = await self._reached(c, link)
        sight = await self._see(c, link, reached)
        if sight is None:
            return None
        scope = sight.scope(choice)
        if scope is None:
            return NotRefusable(sight)
        bound = await lock_bound(c, self.hasher, [reached] if reached else [], [link.recipient])
        proof = {**link.trace, **evidence}
        said = [Withdrawal(person, scope, sight.channel, way, proof) for person in sorted(bound.everybody)]
        withdrawn = await withdraw(c, said, self.topics)
        return Refused(sight, scope, await self._undo_token(c, link, withdrawn.numbers))

    async def _undo_token(self, c: Connection, link: PageLink, numbers: tuple[int, ...]) -> str | None:
        """For the lines that this link wrote within the hour: a second click must not lose the first one's undo."""
        now = self.now()
        lines = [line["number"] for line in await consent.lines_of(c, numbers) if self._is_own(line, link, now)]
        return self.links.undo_token(link.recipient, lines, now) if 0 < len(lines) <= MOST_UNDONE else None

    def _is_own(self, line: Row, link: PageLink, now: datetime) -> bool:
        """A no that came through this very link, within the hour, to something that had been allowed.

        Not an adopter's copy of it: what had been allowed to the nameless one was not to them.
        """
        said = line["evidence"]
        recent = line["recorded_at"] > now - UNDO_FOR and "adopted_from" not in said
        return recent and link.trace.items() <= said.items() and line["source"] in set(Way) and said["allowed_before"]

    # Undo -------------------------------------------------------------------------------------------------------------

    async def _restore(
        self, c: Connection, link: PageLink, undo: UndoLink | None, evidence: Mapping[str, Any]
    ) -> Restored | NotRestored | None:
        sight = await self._see(c, link, await self._reached(c, link))
        if sight is None:
            return None
        if undo is None or undo.recipient != link.recipient:
            return NotRestored(sight)
        now = self.now()
        lines = [line for line in await consent.lines_of(c, undo.numbers) if self._is_own(line, link, now)]
        survivors = await recipients.lock_survivors(c, [line["recipient_id"] for line in lines])
        # Of somebody who was adopted meanwhile, what holds stands in the adopter's ledger, who may have refused before.
        lines = [line for line in lines if survivors.get(line["recipient_id"]) == line["recipient_id"]]
        known = await consent.whole_ledgers(c, [line["recipient_id"] for line in lines])
        grants = self._grants(lines, known, evidence)
        await consent.record(c, grants)
        twice = any(was_undone(known[line["recipient_id"]], line["number"]) for line in lines)
        return Restored(sight) if grants or twice else NotRestored(sight)

    def _grants(
        self, lines: list[Row], known: Mapping[UUID, list[ConsentEvent]], evidence: Mapping[str, Any]
    ) -> list[NewEvent]:
        """The wide ones first: one form may refuse a topic and all marketing, and each alone would keep the other."""
        grants: list[NewEvent] = []
        undone: set[int] = set()
        for line in sorted(lines, key=lambda line: topic_named(line["scope"], self.topics) is not None):
            stand = [event for event in known[line["recipient_id"]] if event.number not in undone]
            if grant := self._grant(line, stand, evidence):
                grants.append(grant)
                undone.add(line["number"])
        return grants

    def _grant(self, line: Row, events: list[ConsentEvent], evidence: Mapping[str, Any]) -> NewEvent | None:
        scope, channel = line["scope"], line["channel"]
        topic, now = topic_named(scope, self.topics), self.now()
        if not still_undoable(events, line["number"], topic, now):
            return None
        proof = {**evidence, "message": line["evidence"].get("message"), "undoes": line["number"]}
        ends = lasts_until(events, line["number"], topic, now)
        return NewEvent(
            line["recipient_id"], scope, channel, granted=True, source=Way.PAGE, expires_at=ends, evidence=proof
        )

    # See --------------------------------------------------------------------------------------------------------------

    async def _reached(self, c: Connection, link: PageLink) -> Reached | None:
        match link:
            case OptOutLink(message=message):
                return (await addresses.reached_by(c, [message])).get(message)
            case ManageLink():
                return None

    async def _see(self, c: Connection, link: PageLink, reached: Reached | None) -> Sight | None:
        found = await recipients.by_ids(c, [link.recipient])
        person = found.get(link.recipient)
        if person is None:
            return None
        survivor = person.merged_into or person.id
        guess = self.guess(link)
        return Sight(
            topic=guess.topic,
            channel=guess.channel,
            masked=reached.address.masked if reached and reached.address else None,
            locale=person.locale,
            refused=await self._has_refused(c, survivor, guess),
        )

    async def _has_refused(self, c: Connection, person: UUID, sight: Sight) -> bool:
        if sight.topic is None or sight.channel == ANY:
            return False
        events = (await consent.events_of(c, [person]))[person]
        return not judge(sight.topic, Channel(sight.channel), events, self.now())[0]
