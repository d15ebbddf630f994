"""What every no does, whichever way it came in: it binds each holder, is written down, and stops what is queued."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from notifier.domain.consent import ALL, SuppressionReason, Topic
from notifier.domain.recipients import Hasher
from notifier.domain.withdrawals import ECHO, may_be_undone, standing
from notifier.store import confirmations, consent, messages, recipients, suppressions
from notifier.store.addresses import Reached
from notifier.store.confirmations import Ended
from notifier.store.consent import NewEvent
from notifier.store.database import Connection
from notifier_channels.contract import Address, Channel

KEYWORD, PROVIDER = "sms_keyword", "provider"  #: the sources of what somebody wrote to us, and to the provider
FROM_THE_NUMBER = frozenset({KEYWORD, PROVIDER})  #: said for everybody who holds the number, and so taken back for all


@dataclass(frozen=True, slots=True)
class Bound:
    """Whom a no binds. All of them are locked."""

    by_message: Mapping[UUID, frozenset[UUID]]  #: to whom each message went, and everybody who holds that address now
    everybody: frozenset[UUID]


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """A person's no: to what, over which channel, and how it reached us."""

    recipient: UUID
    scope: str
    channel: str
    source: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    occurred_at: datetime | None = None  #: None: now


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """What came of it."""

    numbers: tuple[int, ...]  #: the ledger lines that say so: new ones, and those that said the same before
    cancelled: tuple[UUID, ...]  #: messages that were waiting


async def lock_bound(
    c: Connection, hasher: Hasher, reached: Collection[Reached], named: Collection[UUID] = ()
) -> Bound:
    """Lock, in id order, those who are named and everybody whom a no from these messages' addresses binds."""
    found = await _holders(c, hasher, reached)
    await recipients.lock_survivors(c, [*named, *_everybody(found)])
    found = await _holders(c, hasher, reached)  # somebody may have taken the address on while we waited
    survivors = await recipients.lock_survivors(c, [*named, *_everybody(found)])
    by_message = {
        message: frozenset(survivors[person] for person in people if person in survivors)
        for message, people in found.items()
    }
    return Bound(by_message, frozenset(survivors.values()))


async def lock_holders(c: Connection, hasher: Hasher, address: Address, channel: Channel) -> frozenset[UUID]:
    """Lock everybody who holds this address, from which somebody wrote to us; the adopted as who they are now."""

    async def holders() -> dict[UUID, UUID]:
        held = await recipients.holders(c, channel, hasher.all(address))
        return await recipients.lock_survivors(c, [one.recipient_id for one in held])

    await holders()
    return frozenset((await holders()).values())  # somebody may have taken the address on while we waited


async def taken_back(
    c: Connection, hasher: Hasher, reached: Mapping[UUID, Reached], attempts: Collection[tuple[UUID, int]]
) -> frozenset[UUID]:
    """Of attempts that the provider refused because of a STOP: the messages whose number has said START since then.

    Such a no is older than the yes, however late it is heard. If it still holds there, the next message is refused too.
    """
    hashed = [(id_, n, digest) for id_, n in attempts for digest in _hashes(hasher, reached[id_])]
    return await suppressions.lifted_since(c, SuppressionReason.STOP, hashed) if hashed else frozenset()


async def withdraw(c: Connection, said: Sequence[Withdrawal], topics: Mapping[str, Topic]) -> Withdrawn:
    """Write down each no that is news, cancel what it stops, and end what still asks. The people are locked."""
    people = list({one.recipient for one in said})
    known = await consent.events_of(c, people)
    now = await messages.clock(c)
    stand = [standing(known[one.recipient], one.scope, one.channel) for one in said]
    sources = await consent.sources_of(c, [line.number for line in stand if line])
    news: dict[tuple[UUID, str, str], NewEvent] = {}
    old: list[int] = []
    for one, line in zip(said, stand, strict=True):
        events = known[one.recipient]
        is_echo = line is not None and (one.occurred_at or now) - line.occurred_at <= ECHO
        if line and is_echo and not _makes_it_their_own(one.source, sources[line.number]):
            old.append(line.number)
            continue
        undoable = may_be_undone(events, one.scope, one.channel, topic_named(one.scope, topics), now)
        evidence = {**one.evidence, "allowed_before": undoable}
        event = NewEvent(one.recipient, one.scope, one.channel, False, one.source, one.occurred_at, evidence=evidence)
        news.setdefault((one.recipient, one.scope, one.channel), event)
    numbers = await consent.record(c, list(news.values()))
    cancelled = await messages.cancel_refused(c, people, topics, now)
    await end_asking(c, said, topics)
    return Withdrawn((*numbers, *old), tuple(cancelled))


async def not_yet_their_own(c: Connection, said: Sequence[Withdrawal]) -> list[Withdrawal]:
    """Those of these noes that only the number has said and that a START from it would end: news, though they stand."""
    asked = [one for one in said if (one.scope, one.channel) == (ALL, Channel.SMS)]
    known = await consent.sources_of_noes(c, [one.recipient for one in asked], ALL, Channel.SMS) if asked else {}
    return [one for one in asked if one.recipient in known and known[one.recipient] <= FROM_THE_NUMBER]


async def end_asking(c: Connection, said: Sequence[Withdrawal], topics: Mapping[str, Topic]) -> None:
    """End the confirmations that were asked for before these noes, also before one that only says again what stands."""
    ended = {
        Ended(one.recipient, topic.key, one.channel, one.occurred_at)
        for one in said
        for topic in topics.values()
        if one.scope in topic.scopes_above
    }
    if ended:
        await confirmations.end(c, ended)


def topic_named(scope: str, topics: Mapping[str, Topic]) -> Topic | None:
    """The topic whose own scope this is; None for `marketing` and `all`."""
    return topics.get(scope.removeprefix("topic:")) if scope.startswith("topic:") else None


def _makes_it_their_own(source: str, known: str) -> bool:
    """Whether somebody says for themselves what only their number has said: a START from it must not end that."""
    return known in FROM_THE_NUMBER and source not in FROM_THE_NUMBER


async def _holders(c: Connection, hasher: Hasher, reached: Collection[Reached]) -> dict[UUID, set[UUID]]:
    """By message, whom it went to and who holds its address now, under whichever key the address was hashed."""
    people = {one.message: {one.recipient} for one in reached}
    messages_of: dict[tuple[Channel, bytes], list[UUID]] = defaultdict(list)
    for one in reached:
        for digest in _hashes(hasher, one):
            messages_of[one.channel, digest].append(one.message)
    for channel in {channel for channel, _ in messages_of}:
        digests = [digest for of, digest in messages_of if of is channel]
        for held in await recipients.holders(c, channel, digests):
            for message in messages_of[channel, held.address_hash]:
                people[message].add(held.recipient_id)
    return people


def _hashes(hasher: Hasher, reached: Reached) -> set[bytes]:
    return {reached.hashed.digest, *(hasher.all(reached.address) if reached.address else ())}


def _everybody(found: Mapping[UUID, Collection[UUID]]) -> set[UUID]:
    return {person for people in found.values() for person in people}
