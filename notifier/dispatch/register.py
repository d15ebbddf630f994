"""Before any message: what product code says of its recipients is kept, one by one or from a list.

An import may carry what people said elsewhere, yes and no, with the time and the proof. It never opts in an address
that is suppressed, and an old grant never beats a later withdrawal: the consent rule goes by when things occurred.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from notifier.domain.basis import Basis
from notifier.domain.consent import ConsentEvent, Suppression, Topic
from notifier.domain.messages import Ids
from notifier.domain.recipients import Hasher
from notifier.domain.standing import refusing
from notifier.domain.who import Given, Held, Plan, Rule
from notifier.errors import InvalidInput, Problem
from notifier.store import consent, messages, suppressions, who
from notifier.store.addresses import restore
from notifier.store.consent import NewEvent, Said
from notifier.store.database import Connection, Database
from notifier_channels.contract import Channel

IMPORT = "import"  #: the source of such ledger lines


@dataclass(frozen=True, slots=True)
class Grant:
    """A yes that somebody gave elsewhere, before."""

    topic: str
    channel: Channel
    occurred_at: datetime
    evidence: Mapping[str, Any] = field(default_factory=dict)
    expires_at: datetime | None = None
    basis: Basis = Basis.EXPRESS


@dataclass(frozen=True, slots=True)
class No:
    """A no that somebody said elsewhere, before."""

    scope: str
    channel: str
    occurred_at: datetime
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Line:
    """One good line of an import."""

    number: int
    recipient: Given
    grants: Sequence[Grant] = ()
    withdrawals: Sequence[No] = ()


@dataclass(frozen=True, slots=True)
class LineProblem:
    """What is wrong with one line; with a place below it, only that part of the line was left out."""

    line: int
    pointer: str
    detail: str


@dataclass(frozen=True, slots=True)
class Imported:
    """What came of one batch of lines."""

    stored: int = 0
    created: int = 0
    grants: int = 0
    withdrawals: int = 0
    problems: tuple[LineProblem, ...] = ()


@dataclass(frozen=True, slots=True)
class Register:
    """Keeps recipients: what is said replaces what was said before, and what is not mentioned stays."""

    database: Database
    hasher: Hasher
    topics: Mapping[str, Topic]
    _ids: Ids = field(default_factory=Ids)

    async def put(self, given: Given) -> bool:
        """Keep what is said of one recipient by id; True when they are new."""
        planned = await self.database.transact(lambda c: self._settle(c, [given]))
        match planned.answers[0]:
            case UUID() as person:
                return person in planned.created
            case rule:
                raise InvalidInput([Problem("", _EXPLAINED[rule])])

    async def lines(self, lines: Sequence[Line]) -> Imported:
        """Keep a batch of an import's good lines; what only the database knows to be wrong is reported by line."""
        if not lines:
            return Imported()
        return await self.database.transact(lambda c: self._lines(c, lines))

    async def _settle(self, c: Connection, given: Sequence[Given]) -> Plan:
        return await who.settle(c, given, lambda: self._ids.new(time.time_ns() // 1_000_000), replace=True)

    async def _lines(self, c: Connection, lines: Sequence[Line]) -> Imported:
        planned = await self._settle(c, [line.recipient for line in lines])
        meant = list(zip(lines, planned.answers, strict=True))
        kept = [(line, person) for line, person in meant if isinstance(person, UUID)]
        problems = [LineProblem(line.number, "", _EXPLAINED[rule]) for line, rule in meant if isinstance(rule, Rule)]
        people = [person for _, person in kept]
        known = await consent.events_of(c, people) if any(line.grants for line, _ in kept) else {}
        events, refused = self._weigh(kept, planned, await self._suppressed(c, kept, planned), known)
        new = await self._record(c, events)
        yeses = sum(event.granted for event in new)
        return Imported(len(kept), len(planned.created), yeses, len(new) - yeses, tuple(problems + refused))

    async def _record(self, c: Connection, events: Sequence[NewEvent]) -> Sequence[NewEvent]:
        """Those that no earlier import has recorded, in the order in which they occurred; a no stops what is queued."""
        before = await consent.said_before(c, {event.recipient for event in events}) if events else frozenset()
        new = {_said(event): event for event in events if _said(event) not in before}
        await consent.record(c, sorted(new.values(), key=lambda event: (event.occurred_at, not event.granted)))
        if refusing_now := {event.recipient for event in new.values() if not event.granted}:
            await messages.cancel_refused(c, sorted(refusing_now), self.topics, await messages.clock(c))
        return list(new.values())

    async def _suppressed(
        self, c: Connection, kept: Sequence[tuple[Line, UUID]], planned: Plan
    ) -> Mapping[bytes, Sequence[Suppression]]:
        asked = {
            (grant.channel, digest)
            for line, person in kept
            for grant in line.grants
            for digest in self._hashes(planned.reach[person].get(grant.channel))
        }
        return await suppressions.in_force(c, asked) if asked else {}

    def _weigh(
        self,
        kept: Sequence[tuple[Line, UUID]],
        planned: Plan,
        suppressed: Mapping[bytes, Sequence[Suppression]],
        known: Mapping[UUID, Sequence[ConsentEvent]],
    ) -> tuple[list[NewEvent], list[LineProblem]]:
        events, refused = [], []
        said = {person: [*known.get(person, ())] for _, person in kept}
        for line, person in kept:
            said[person] += _lines_of(line.withdrawals)
        for line, person in kept:
            events += [_no(person, no) for no in line.withdrawals]
            for position, grant in enumerate(line.grants):
                hashes = self._hashes(planned.reach[person].get(grant.channel))
                if standing := [one for digest in hashes for one in suppressed.get(digest, ())]:
                    detail = f"the address is suppressed ({standing[0].reason}); an import cannot opt it in"
                    refused.append(LineProblem(line.number, f"/grants/{position}", detail))
                elif self._overrules(grant, said[person]):
                    detail = "is implied, and the person had said no; an import cannot overrule that"
                    refused.append(LineProblem(line.number, f"/grants/{position}", detail))
                else:
                    events.append(_event(person, grant))
        return events, refused

    def _overrules(self, grant: Grant, events: Sequence[ConsentEvent]) -> bool:
        """Whether it is implied and would end a no that the person had said."""
        if grant.basis is Basis.EXPRESS:
            return False
        before = [event for event in events if event.occurred_at <= grant.occurred_at]
        return refusing(self.topics[grant.topic], grant.channel, before, grant.occurred_at) is not None

    def _hashes(self, held: Held | None) -> list[bytes]:
        address = restore(held.channel, held.text) if held else None
        return self.hasher.all(address) if address else []


def _event(person: UUID, grant: Grant) -> NewEvent:
    return NewEvent(
        recipient=person,
        scope=f"topic:{grant.topic}",
        channel=str(grant.channel),
        granted=True,
        source=IMPORT,
        occurred_at=grant.occurred_at,
        expires_at=grant.expires_at,
        evidence=grant.evidence,
    )


def _no(person: UUID, no: No) -> NewEvent:
    return NewEvent(
        person, no.scope, no.channel, granted=False, source=IMPORT, occurred_at=no.occurred_at, evidence=no.evidence
    )


def _lines_of(withdrawals: Sequence[No]) -> list[ConsentEvent]:
    """As the rule reads them; they have no numbers yet."""
    return [ConsentEvent(-1, no.scope, no.channel, granted=False, occurred_at=no.occurred_at) for no in withdrawals]


def _said(event: NewEvent) -> Said:
    return event.recipient, event.scope, event.channel, event.granted, event.occurred_at, event.expires_at


_EXPLAINED = {
    Rule.SEVERAL_HOLDERS: "several recipients hold this address; name the id",
    Rule.NO_ADDRESS: "names neither an id nor an address; give one of them",
    Rule.OTHER_ADDRESS: "holds another address",
    Rule.UNKNOWN_ID: "no such recipient",
}
