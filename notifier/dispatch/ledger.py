"""What a person wants, read and written by product code: the page of switches in the product's own account settings.

A change is a line in the ledger with the wording that was shown. What changes nothing is not written; what is refused
is refused as a whole; a no cancels what is queued at the same moment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from notifier.dispatch.refusals import Withdrawal, Withdrawn, end_asking, not_yet_their_own, topic_named, withdraw
from notifier.domain.basis import TERMS, Basis, Unfounded, end_of
from notifier.domain.consent import ANY, ConsentEvent, Suppression, Topic
from notifier.domain.recipients import Hasher
from notifier.domain.standing import Change, Standing, news, refusing, scopes, standings
from notifier.errors import Conflict, InvalidInput, NotFound, Problem
from notifier.store import consent, messages, recipients, suppressions
from notifier.store.addresses import restore
from notifier.store.consent import NewEvent
from notifier.store.database import Connection, Database, Row
from notifier_channels.contract import Channel

SOURCE = "api"  #: of such ledger lines
BY_HAND = "admin"  #: of those that an operator writes
HERE = -1  #: the number of a no that is said in the same request: it has none yet
A_MOMENT = timedelta(microseconds=1)  #: a yes stands beside a wider no of the same request: at a tie the no comes last


@dataclass(frozen=True, slots=True)
class Said:
    """What a person said to product code, all at once."""

    changes: Sequence[Change]
    basis: Basis = Basis.EXPRESS
    occurred_at: datetime | None = None  #: None: now
    expires_at: datetime | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Seen:
    """What holds for a person at an instant."""

    at: datetime
    standings: Sequence[Standing]
    lines: Mapping[int, Row]  #: by number, those that decide
    suppressed: Mapping[Channel, Sequence[Suppression]]  #: what stands against the addresses that they hold now
    snoozed_until: datetime | None


@dataclass(frozen=True, slots=True)
class Changed:
    """What came of a change, and what holds now."""

    numbers: Sequence[int]  #: of the lines that are new
    cancelled: Sequence[UUID]
    seen: Seen


@dataclass(frozen=True, slots=True)
class Look:
    """Reads what holds for one person, on a connection of whoever asks."""

    hasher: Hasher
    topics: Mapping[str, Topic]

    async def __call__(
        self, c: Connection, person: UUID, at: datetime | None = None, known_at: datetime | None = None
    ) -> Seen:
        """What holds at an instant, and with `known_at` only as far as it had been written down by then."""
        moment = at or await messages.clock(c)
        if at is None and known_at is None:
            events: Sequence[ConsentEvent] = (await consent.events_of(c, [person])).get(person, [])
        else:
            events = await consent.state_at(c, person, moment, known_at)
        held = standings(self.topics, events, moment)
        numbers = sorted({number for one in held for number in one.decision.numbers})
        return Seen(
            at=moment,
            standings=held,
            lines={line["number"]: line for line in await consent.lines_of(c, numbers)},
            suppressed=await self._suppressed(c, person),
            snoozed_until=(await recipients.by_ids(c, [person]))[person].snoozed_until,
        )

    async def _suppressed(self, c: Connection, person: UUID) -> dict[Channel, list[Suppression]]:
        hashes = {
            (held.channel, digest)
            for held in await recipients.addresses_of(c, [person])
            if (address := restore(held.channel, held.address))
            for digest in {held.address_hash, *self.hasher.all(address)}
        }
        standing = await suppressions.in_force(c, hashes) if hashes else {}
        found: dict[Channel, list[Suppression]] = {}
        for channel, digest in sorted(hashes):
            found.setdefault(channel, []).extend(standing.get(digest, ()))
        return found


@dataclass(frozen=True, slots=True)
class Ledger:
    """Keeps what people want, as product code asks for it and passes it on."""

    database: Database
    look: Look

    async def see(self, recipient: str, at: datetime | None = None, known_at: datetime | None = None) -> Seen:
        """What holds, or held, for the recipient with this id.

        Raises:
            NotFound: there is no such recipient.

        """
        async with self.database.connection() as c:
            return await self.look(c, await person_of(c, recipient), at, known_at)

    async def change(self, recipient: str, said: Said) -> Changed:
        """Write down what is news of what was said, all or nothing.

        Raises:
            NotFound: there is no such recipient.
            InvalidInput: a time or a basis does not carry what was said.

        """
        return await self.database.transact(lambda c: self._change(c, recipient, said))

    async def _change(self, c: Connection, recipient: str, said: Said) -> Changed:
        person = await person_of(c, recipient)
        await recipients.lock(c, [person])
        events = (await consent.events_of(c, [person])).get(person, [])
        now = await messages.clock(c)
        ends = _end(said, now)
        self._refuse_unfounded(said, events, now)
        refused = _refused(person, said)
        own = await not_yet_their_own(c, [*refused.values()])
        anew = [one for one, no in refused.items() if no in own]
        new = news(said.changes, events, ends, said.occurred_at, anew)
        noes = [no for one, no in refused.items() if one in new]
        withdrawn = await withdraw(c, noes, self.look.topics)
        await end_asking(c, [no for one, no in refused.items() if one not in new], self.look.topics)
        yes_at = said.occurred_at + A_MOMENT if said.occurred_at and noes else said.occurred_at
        proof = {**said.evidence, "basis": str(said.basis)}
        numbers = await consent.record(
            c,
            [NewEvent(person, one.scope, one.channel, True, SOURCE, yes_at, ends, proof) for one in new if one.granted],
        )
        return Changed(sorted((*withdrawn.numbers, *numbers)), withdrawn.cancelled, await self.look(c, person))

    def _refuse_unfounded(self, said: Said, events: Sequence[ConsentEvent], now: datetime) -> None:
        """What the law infers from a purchase never overrules what the person said."""
        if said.basis is Basis.EXPRESS:
            return
        at = said.occurred_at or now
        noes = [ConsentEvent(HERE, one.scope, one.channel, False, at) for one in said.changes if not one.granted]
        problems = []
        for position, change in enumerate(said.changes):
            if not change.granted:
                continue
            topic = topic_named(change.scope, self.look.topics)
            if topic is None:
                detail = f"is wider than a topic; a yes on the basis {said.basis} names topics"
                problems.append(Problem(f"/preferences/{position}/scope", detail))
            elif number := refusing(topic, change.channel, [*events, *noes], now):
                where = "beside it" if number == HERE else f"line {number}"
                detail = f"was refused by the person ({where}); only an express yes ends that"
                problems.append(Problem(f"/preferences/{position}", detail))
        if problems:
            raise InvalidInput(problems)


async def withdraw_by_hand(  # noqa: PLR0913  # each is said by name
    c: Connection, recipient: str, scope: str, channel: str, topics: Mapping[str, Topic], *, why: str, by: str
) -> Withdrawn:
    """A no that came by phone or letter, in the caller's transaction.

    Raises:
        NotFound: there is no such recipient.
        Conflict: this scope cannot be refused, or not on this channel.

    """
    channels = scopes(topics).get(scope)
    if channels is None:
        raise Conflict("There is no such topic, or it is mandatory; see topics.toml for all.")
    if channel != ANY and channel not in channels:
        raise Conflict(f"It has no channel {channel}.")
    person = await person_of(c, recipient)
    await recipients.lock(c, [person])
    return await withdraw(c, [Withdrawal(person, scope, channel, BY_HAND, {"why": why, "by": by})], topics)


def _refused(person: UUID, said: Said) -> dict[Change, Withdrawal]:
    """What is refused in this, as what every no becomes."""
    return {
        one: Withdrawal(person, one.scope, one.channel, SOURCE, dict(said.evidence), said.occurred_at)
        for one in said.changes
        if not one.granted
    }


def _end(said: Said, now: datetime) -> datetime | None:
    """When each yes of this ends."""
    if said.occurred_at and said.occurred_at > now:
        raise InvalidInput([Problem("/occurred_at", "lies in the future; say when they said it, or leave it out")])
    try:
        ends = end_of(said.basis, said.occurred_at or now, said.expires_at)
    except Unfounded as error:
        raise InvalidInput([Problem("/expires_at", str(error))]) from None
    if ends is not None and ends <= now:
        if said.expires_at:
            raise InvalidInput([Problem("/expires_at", "has passed; leave it out")])
        lasts = TERMS[said.basis].months
        raise InvalidInput([Problem("/occurred_at", f"is more than {lasts} months ago: the basis has ended")])
    return ends


async def person_of(c: Connection, recipient: str) -> UUID:
    """The recipient with the product's own id; raises NotFound."""
    found = (await recipients.by_external_ids(c, [recipient])).get(recipient)
    if found is None:
        raise NotFound("There is no recipient with this id; PUT /v1/recipients/{id} first.")
    return found.id
