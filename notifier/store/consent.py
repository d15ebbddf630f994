"""The ledger and its projection. Whoever calls `record` has locked the recipients (`store.recipients.lock`) before."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias
from uuid import UUID

from psycopg.types.json import Jsonb

from notifier.domain.consent import ConsentEvent, fold
from notifier.domain.consent import state_at as state_of
from notifier.store.database import Connection, Row, rows, tuples


@dataclass(frozen=True, slots=True)
class NewEvent:
    """A yes or a no that is about to enter the ledger."""

    recipient: UUID
    scope: str  #: `topic:<key>`, `marketing` or `all`
    channel: str  #: a channel, or `any`
    granted: bool
    source: str
    occurred_at: datetime | None = None  #: None: now
    expires_at: datetime | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)


# What happens now happens after all that is known of the person, even when the database's clock has stepped back: a
# withdrawal must never be beaten by a grant that came before it. What is said to lie in the future happens now.
_APPEND = """
INSERT INTO consent_events
    (recipient_id, scope, channel, granted, occurred_at, recorded_at, expires_at, source, evidence)
SELECT e.recipient, e.scope, e.channel, e.granted, LEAST(COALESCE(e.occurred_at, n.moment), n.moment), n.moment,
       e.expires_at, e.source, e.evidence
FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::bool[], %s::timestamptz[], %s::timestamptz[], %s::text[],
            %s::jsonb[])
     WITH ORDINALITY AS e (recipient, scope, channel, granted, occurred_at, expires_at, source, evidence, position)
CROSS JOIN LATERAL (
    SELECT GREATEST(clock_timestamp(), max(c.occurred_at)) AS moment FROM consents c WHERE c.recipient_id = e.recipient
) AS n
ORDER BY e.position
RETURNING number, recipient_id, scope, channel, granted, occurred_at, expires_at
"""

_PROJECT = """
INSERT INTO consents (number, recipient_id, scope, channel, granted, occurred_at, expires_at)
SELECT number, recipient_id, scope, channel, granted, occurred_at, expires_at
FROM consent_events WHERE number = ANY(%s)
"""

# domain.consent.outlasts in SQL; a property test holds the two together.
_DROP_OUTLASTED = """
DELETE FROM consents AS earlier USING consents AS later
WHERE earlier.recipient_id = ANY(%s)
  AND (later.recipient_id, later.scope, later.channel, later.granted)
    = (earlier.recipient_id, earlier.scope, earlier.channel, earlier.granted)
  AND (later.occurred_at, later.number) > (earlier.occurred_at, earlier.number)
  AND (later.expires_at IS NULL OR later.expires_at >= earlier.expires_at)
"""


_WITHDRAWN = "withdrawn"  # what workers listen to: a no reaches those who have the person's message in hand

# By every id that the person may have in hand: of somebody nameless who was adopted meanwhile, by the one from before.
_TELL = f"""
SELECT pg_notify('{_WITHDRAWN}', json_build_array(e.number, who.id, e.scope, e.channel)::text)
FROM consent_events e
CROSS JOIN LATERAL (SELECT e.recipient_id UNION ALL SELECT id FROM recipients WHERE merged_into = e.recipient_id)
    AS who (id)
WHERE e.number = ANY(%s) AND NOT e.granted
"""


@dataclass(frozen=True, slots=True)
class Heard:
    """A withdrawal that another process has just recorded."""

    number: int
    recipient: UUID
    scope: str
    channel: str

    @classmethod
    def parse(cls, payload: str) -> Heard:
        """Read a notification's payload."""
        number, recipient, scope, channel = json.loads(payload)
        return cls(number, UUID(recipient), scope, channel)


async def record(c: Connection, events: Sequence[NewEvent]) -> list[int]:
    """Append to the ledger and bring the projection up to it. The one function that records consent.

    Returns the events' numbers, in the order given.
    """
    if not events:
        return []
    appended = await rows(
        c,
        _APPEND,
        (
            [event.recipient for event in events],
            [event.scope for event in events],
            [event.channel for event in events],
            [event.granted for event in events],
            [event.occurred_at for event in events],
            [event.expires_at for event in events],
            [event.source for event in events],
            [Jsonb(dict(event.evidence)) for event in events],
        ),
    )
    numbers = [row["number"] for row in appended]
    await c.execute(_PROJECT, (numbers,))
    await c.execute(_DROP_OUTLASTED, (list({event.recipient for event in events}),))
    await c.execute(_TELL, (numbers,))
    return numbers


async def listen(c: Connection) -> None:
    """Have this connection hear of every withdrawal as it commits; `Heard.parse` reads what comes."""
    await c.execute(f"LISTEN {_WITHDRAWN}")


async def events_of(c: Connection, recipients: Sequence[UUID]) -> dict[UUID, list[ConsentEvent]]:
    """The projection of each recipient: all that `decide` needs. Those who never said anything have an empty list."""
    found = await tuples(
        c,
        "SELECT recipient_id, number, scope, channel, granted, occurred_at, expires_at FROM consents"
        " WHERE recipient_id = ANY(%s)",
        (list(recipients),),
    )
    events: dict[UUID, list[ConsentEvent]] = defaultdict(list)
    for recipient, *event in found:
        events[recipient].append(ConsentEvent(*event))
    return events


async def sources_of(c: Connection, numbers: Collection[int]) -> dict[int, str]:
    """By number, which way each of these lines came in."""
    if not numbers:
        return {}
    found = await rows(c, "SELECT number, source FROM consent_events WHERE number = ANY(%s)", (list(numbers),))
    return {row["number"]: row["source"] for row in found}


async def sources_of_noes(
    c: Connection, recipients: Collection[UUID], scope: str, channel: str
) -> dict[UUID, frozenset[str]]:
    """By person, every way in which exactly this no came in that no yes to exactly the same has ended."""
    found = await rows(
        c,
        "SELECT n.recipient_id, array_agg(DISTINCT n.source) AS sources FROM consent_events n"
        " WHERE n.recipient_id = ANY(%s) AND n.scope = %s AND n.channel = %s AND NOT n.granted"
        " AND NOT EXISTS (SELECT FROM consent_events y WHERE y.recipient_id = n.recipient_id"
        "  AND (y.scope, y.channel) = (n.scope, n.channel) AND y.granted AND y.occurred_at > n.occurred_at"
        "  AND (y.expires_at IS NULL OR y.expires_at > clock_timestamp()))"
        " GROUP BY n.recipient_id",
        (list(recipients), scope, channel),
    )
    return {row["recipient_id"]: frozenset(row["sources"]) for row in found}


async def ledger_of(c: Connection, recipient: UUID) -> list[Row]:
    """Every line of one person's ledger with its evidence, oldest number first."""
    return await rows(c, "SELECT * FROM consent_events WHERE recipient_id = %s ORDER BY number", (recipient,))


async def lines_of(c: Connection, numbers: Sequence[int]) -> list[Row]:
    """These lines of the ledger with their evidence, oldest number first."""
    return await rows(c, "SELECT * FROM consent_events WHERE number = ANY(%s) ORDER BY number", (list(numbers),))


Said: TypeAlias = tuple[UUID, str, str, bool, datetime | None, datetime | None]
"""Recipient, scope, channel, whether it was a yes, when it occurred, when it ends: what makes two lines the same."""


async def said_before(c: Connection, recipients: Collection[UUID]) -> frozenset[Said]:
    """Everything that imports have recorded of these people, so that a list that comes again writes nothing."""
    found = await rows(
        c,
        "SELECT recipient_id, scope, channel, granted, occurred_at, expires_at FROM consent_events"
        " WHERE recipient_id = ANY(%s) AND source = 'import'",
        (list(recipients),),
    )
    return frozenset(tuple(row.values()) for row in found)


async def state_at(
    c: Connection, recipient: UUID, moment: datetime, known_at: datetime | None = None
) -> tuple[ConsentEvent, ...]:
    """A person's consent as it stood at `moment`, by when things occurred: all that `judge` needs to say it again.

    With `known_at`, as far as it had been written down by then: what we could have known.
    """
    found = await rows(
        c,
        "SELECT number, scope, channel, granted, occurred_at, expires_at FROM consent_events"
        " WHERE recipient_id = %s AND occurred_at <= %s AND recorded_at <= coalesce(%s::timestamptz, 'infinity')",
        (recipient, moment, known_at),
    )
    return state_of((ConsentEvent(**row) for row in found), moment)


async def people_after(c: Connection, after: UUID | None, limit: int) -> list[UUID]:
    """The next people by id, so that all of them are walked through in batches."""
    query = "SELECT id FROM recipients WHERE %s::uuid IS NULL OR id > %s ORDER BY id LIMIT %s"
    return [row["id"] for row in await rows(c, query, (after, after, limit))]


async def whole_ledgers(c: Connection, recipients: Sequence[UUID]) -> dict[UUID, list[ConsentEvent]]:
    """Every line of each of these, as the rule needs it."""
    lines: dict[UUID, list[ConsentEvent]] = defaultdict(list)
    query = (
        "SELECT recipient_id, number, scope, channel, granted, occurred_at, expires_at FROM consent_events"
        " WHERE recipient_id = ANY(%s)"
    )
    for row in await rows(c, query, (list(recipients),)):
        lines[row.pop("recipient_id")].append(ConsentEvent(**row))
    return lines


async def wrong_projections(c: Connection, recipients: Sequence[UUID]) -> list[UUID]:
    """Those whose projection is not the fold of their ledger. The recipients are locked."""
    lines = await whole_ledgers(c, recipients)
    kept = await events_of(c, recipients)
    return [person for person in recipients if set(kept.get(person, ())) != set(fold(lines.get(person, ())))]


async def rebuild(c: Connection, recipients: Sequence[UUID]) -> None:
    """Make the projection anew from the ledger. The recipients are locked."""
    chosen = list(recipients)
    await c.execute("DELETE FROM consents WHERE recipient_id = ANY(%s)", (chosen,))
    await c.execute(
        "INSERT INTO consents (number, recipient_id, scope, channel, granted, occurred_at, expires_at)"
        " SELECT number, recipient_id, scope, channel, granted, occurred_at, expires_at"
        " FROM consent_events WHERE recipient_id = ANY(%s)",
        (chosen,),
    )
    await c.execute(_DROP_OUTLASTED, (chosen,))
