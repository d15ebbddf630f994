"""Before any message: what product code says of its recipients is kept, one by one or from a list.

An import may carry consent that people gave elsewhere, with the time and the proof. It never opts in an address that is
suppressed, and an old grant never beats a later withdrawal: the consent rule goes by when things occurred.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from notifier.domain.consent import Suppression
from notifier.domain.messages import Ids
from notifier.domain.recipients import Hasher
from notifier.domain.who import Given, Held, Plan, Rule
from notifier.errors import InvalidInput, Problem
from notifier.store import consent, suppressions, who
from notifier.store.addresses import restore
from notifier.store.consent import NewEvent
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


@dataclass(frozen=True, slots=True)
class Line:
    """One good line of an import."""

    number: int
    recipient: Given
    grants: Sequence[Grant] = ()


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
    problems: tuple[LineProblem, ...] = ()


@dataclass(frozen=True, slots=True)
class Register:
    """Keeps recipients: what is said replaces what was said before, and what is not mentioned stays."""

    database: Database
    hasher: Hasher
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
        events, refused = self._weigh(kept, planned, await self._suppressed(c, kept, planned))
        await consent.record(c, events)
        return Imported(len(kept), len(planned.created), len(events), tuple(problems + refused))

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
    ) -> tuple[list[NewEvent], list[LineProblem]]:
        events, refused = [], []
        for line, person in kept:
            for position, grant in enumerate(line.grants):
                hashes = self._hashes(planned.reach[person].get(grant.channel))
                if standing := [one for digest in hashes for one in suppressed.get(digest, ())]:
                    detail = f"the address is suppressed ({standing[0].reason}); an import cannot opt it in"
                    refused.append(LineProblem(line.number, f"/grants/{position}", detail))
                else:
                    events.append(_event(person, grant))
        return events, refused

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


_EXPLAINED = {
    Rule.SEVERAL_HOLDERS: "several recipients hold this address; name the id",
    Rule.NO_ADDRESS: "names neither an id nor an address; give one of them",
    Rule.OTHER_ADDRESS: "holds another address",
    Rule.UNKNOWN_ID: "no such recipient",
}
