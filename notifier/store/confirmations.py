"""Who was asked to confirm what, how often, and what came of it. Written under the recipient's lock."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from notifier.store.database import Connection, rows
from notifier_channels.contract import Channel

KEPT = "interval '30 days'"  #: beyond the end of a link that nobody confirmed: for questions about who had asked


@dataclass(frozen=True, slots=True)
class Confirmation:
    """One time that somebody was asked."""

    id: UUID
    recipient: UUID
    topic: str
    channel: Channel
    address_hash: bytes = field(repr=False)
    requested_at: datetime
    expires_at: datetime
    evidence: Mapping[str, Any] = field(default_factory=dict)
    number: int | None = None  #: the ledger's line, once it is confirmed


async def add(c: Connection, new: Confirmation) -> None:
    """Remember that somebody is asked."""
    await c.execute(
        "INSERT INTO confirmations (id, recipient_id, topic, channel, address_hash, requested_at, expires_at, evidence)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
        (
            new.id,
            new.recipient,
            new.topic,
            str(new.channel),
            new.address_hash,
            new.requested_at,
            new.expires_at,
            Jsonb(dict(new.evidence)),
        ),
    )


async def find(c: Connection, id_: UUID) -> Confirmation | None:
    """One of them."""
    query = (
        "SELECT id, recipient_id AS recipient, topic, channel, address_hash, requested_at, expires_at, evidence, number"
        " FROM confirmations WHERE id = %s"
    )
    found = await rows(c, query, (id_,))
    return Confirmation(**{**found[0], "channel": Channel(found[0]["channel"])}) if found else None


async def asked_of(c: Connection, recipient: UUID, back: timedelta) -> list[datetime]:
    """When this person was asked, as far back as that."""
    query = "SELECT requested_at FROM confirmations WHERE recipient_id = %s AND requested_at > clock_timestamp() - %s"
    return [row["requested_at"] for row in await rows(c, query, (recipient, back))]


async def asked_at(c: Connection, hashes: Collection[bytes], back: timedelta) -> list[datetime]:
    """When this address was asked, whoever held it then; by all of `Hasher.all`."""
    query = (
        "SELECT requested_at FROM confirmations WHERE address_hash = ANY(%s) AND requested_at > clock_timestamp() - %s"
    )
    return [row["requested_at"] for row in await rows(c, query, (list(hashes), back))]


@dataclass(frozen=True, slots=True)
class Ended:
    """What a no ends: the links that ask one person about one topic."""

    recipient: UUID
    topic: str
    channel: str  #: or `any`
    said_at: datetime | None = None  #: None: now


_END = """
UPDATE confirmations c SET expires_at = clock_timestamp()
FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::timestamptz[]) AS no (recipient_id, topic, channel, said_at)
WHERE c.recipient_id = no.recipient_id AND c.topic = no.topic AND no.channel IN (c.channel, 'any')
  AND c.requested_at < coalesce(no.said_at, 'infinity') AND c.expires_at > clock_timestamp() AND c.number IS NULL
"""


async def end(c: Connection, ended: Collection[Ended]) -> None:
    """Let no link go on asking what its reader has refused since it was sent. The people are locked."""
    columns = [[getattr(one, name) for one in ended] for name in ("recipient", "topic", "channel", "said_at")]
    await c.execute(_END, columns)


async def confirm(c: Connection, one: Confirmation, number: int) -> None:
    """Its link, and every other one that still asks this address the same, has done its work."""
    await c.execute(
        "UPDATE confirmations SET confirmed_at = clock_timestamp(), number = %s"
        " WHERE expires_at > clock_timestamp() AND confirmed_at IS NULL"
        " AND address_hash = %s AND recipient_id = %s AND topic = %s AND channel = %s",
        (number, one.address_hash, one.recipient, one.topic, str(one.channel)),
    )


async def forget(c: Connection, limit: int) -> int:
    """Delete up to `limit` that ended long ago without a yes, with what is known of who had asked; how many."""
    query = f"""
        DELETE FROM confirmations WHERE id IN (
            SELECT id FROM confirmations WHERE number IS NULL AND expires_at <= now() - {KEPT}
            ORDER BY expires_at LIMIT %s)"""
    return (await c.execute(query, (limit,))).rowcount
