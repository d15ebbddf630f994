"""Addresses that must not be used: read by the gate before every send, written when one turns out dead or unwilling."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from psycopg.types.json import Jsonb

from notifier.domain.consent import Suppression, SuppressionReason
from notifier.domain.recipients import HashedAddress
from notifier.store.database import Connection, Row, rows
from notifier_channels.contract import Channel


@dataclass(frozen=True, slots=True)
class NewSuppression:
    """One address to suppress. Evidence says on what grounds, e.g. the message and the provider's code."""

    channel: Channel
    address: HashedAddress
    reason: SuppressionReason
    evidence: Mapping[str, Any] = field(default_factory=dict)


async def in_force(c: Connection, addresses: Collection[tuple[Channel, bytes]]) -> dict[bytes, list[Suppression]]:
    """What stands against each of these addresses now, by hash, oldest first; an unsuppressed one has no entry."""
    found = await rows(
        c,
        """SELECT s.address_hash, s.number, s.reason
           FROM suppressions s
           JOIN unnest(%s::text[], %s::bytea[]) AS asked (channel, address_hash) USING (address_hash, channel)
           WHERE s.lifted_at IS NULL
           ORDER BY s.number""",
        _columns(set(addresses)),
    )
    standing: dict[bytes, list[Suppression]] = {}
    for row in found:
        suppression = Suppression(row["number"], SuppressionReason(row["reason"]))
        standing.setdefault(row["address_hash"], []).append(suppression)
    return standing


async def add(c: Connection, new: Sequence[NewSuppression]) -> list[int]:
    """Suppress these addresses; the numbers of those that were not yet suppressed for that reason.

    The caller has locked the holders, so that the number tells which came first, this or an attempt.
    """
    created = await rows(
        c,
        """INSERT INTO suppressions (channel, address_hash, hash_key, reason, evidence)
           SELECT DISTINCT ON (address_hash, channel, reason) *
           FROM unnest(%s::text[], %s::bytea[], %s::text[], %s::text[], %s::jsonb[])
                AS new (channel, address_hash, hash_key, reason, evidence)
           ORDER BY address_hash, channel, reason
           ON CONFLICT (address_hash, channel, reason) WHERE lifted_at IS NULL DO NOTHING
           RETURNING number""",
        (
            [str(one.channel) for one in new],
            [one.address.digest for one in new],
            [one.address.key for one in new],
            [str(one.reason) for one in new],
            [Jsonb(dict(one.evidence)) for one in new],
        ),
    )
    return [row["number"] for row in created]


async def lift(
    c: Connection, addresses: Collection[tuple[Channel, bytes]], reason: SuppressionReason, *, why: str
) -> list[int]:
    """End the suppressions of these addresses that stand for this reason; their numbers. `why` stays on the row."""
    lifted = await rows(
        c,
        """UPDATE suppressions s SET lifted_at = clock_timestamp(), lifted_why = %s
           FROM unnest(%s::text[], %s::bytea[]) AS asked (channel, address_hash)
           WHERE s.address_hash = asked.address_hash AND s.channel = asked.channel
             AND s.reason = %s AND s.lifted_at IS NULL
           RETURNING s.number""",
        (why, *_columns(set(addresses)), str(reason)),
    )
    return sorted(row["number"] for row in lifted)


async def history(c: Connection, channel: Channel, hashes: Collection[bytes]) -> list[Row]:
    """Everything that ever stood against an address, lifted or not, oldest first."""
    query = "SELECT * FROM suppressions WHERE channel = %s AND address_hash = ANY(%s) ORDER BY number"
    return await rows(c, query, (channel, list(hashes)))


def _columns(addresses: Collection[tuple[Channel, bytes]]) -> tuple[list[str], list[bytes]]:
    return [str(channel) for channel, _ in addresses], [digest for _, digest in addresses]
