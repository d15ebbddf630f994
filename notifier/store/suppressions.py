"""Addresses that must not be used: read by the gate before every send, written when one turns out dead or unwilling."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from notifier.domain.consent import Suppression, SuppressionReason
from notifier.domain.messages import Category
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
    only: Category | None = None  #: for `manual`: the one category that it stops

    @property
    def blocks(self) -> str:
        """What it stops, as the row says it."""
        stops_all = all(Suppression(0, self.reason, self.only).blocks(category) for category in Category)
        return "all" if stops_all else str(Category.MARKETING)


async def in_force(c: Connection, addresses: Collection[tuple[str, bytes]]) -> dict[bytes, list[Suppression]]:
    """What stands against each of these addresses now, by hash, oldest first; an unsuppressed one has no entry."""
    found = await rows(
        c,
        """SELECT s.address_hash, s.number, s.reason, s.blocks
           FROM suppressions s
           JOIN unnest(%s::text[], %s::bytea[]) AS asked (channel, address_hash) USING (address_hash, channel)
           WHERE s.lifted_at IS NULL
           ORDER BY s.number""",
        _columns(set(addresses)),
    )
    standing: dict[bytes, list[Suppression]] = {}
    for row in found:
        standing.setdefault(row["address_hash"], []).append(suppression_of(row))
    return standing


def suppression_of(row: Row) -> Suppression:
    """What the consent rule is told of a stored one."""
    only = None if row["blocks"] == "all" else Category(row["blocks"])
    return Suppression(row["number"], SuppressionReason(row["reason"]), only)


async def add(c: Connection, new: Sequence[NewSuppression]) -> list[int]:
    """Suppress these addresses; the numbers of those that were not yet suppressed for that reason.

    The caller has locked the holders, so that the number tells which came first, this or an attempt.
    """
    created = await rows(
        c,
        """INSERT INTO suppressions (channel, address_hash, hash_key, reason, evidence, blocks)
           SELECT DISTINCT ON (address_hash, channel, reason) *
           FROM unnest(%s::text[], %s::bytea[], %s::text[], %s::text[], %s::jsonb[], %s::text[])
                AS new (channel, address_hash, hash_key, reason, evidence, blocks)
           ORDER BY address_hash, channel, reason
           ON CONFLICT (address_hash, channel, reason) WHERE lifted_at IS NULL DO NOTHING
           RETURNING number""",
        (
            [str(one.channel) for one in new],
            [one.address.digest for one in new],
            [one.address.key for one in new],
            [str(one.reason) for one in new],
            [Jsonb(dict(one.evidence)) for one in new],
            [one.blocks for one in new],
        ),
    )
    return [row["number"] for row in created]


async def add_evidence(
    c: Connection, addresses: Collection[tuple[Channel, bytes]], reason: SuppressionReason, said: Mapping[str, Any]
) -> None:
    """Write beside the suppressions of these addresses that stand for this reason what was said since."""
    await c.execute(
        """UPDATE suppressions s SET evidence = s.evidence || %s
           FROM unnest(%s::text[], %s::bytea[]) AS asked (channel, address_hash)
           WHERE s.address_hash = asked.address_hash AND s.channel = asked.channel
             AND s.reason = %s AND s.lifted_at IS NULL""",
        (Jsonb(dict(said)), *_columns(set(addresses)), str(reason)),
    )


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


async def lift_one(c: Connection, number: int, why: str) -> bool:
    """End this one; False when it stands no longer. `why` stays on the row."""
    query = (
        "UPDATE suppressions SET lifted_at = clock_timestamp(), lifted_why = %s"
        " WHERE number = %s AND lifted_at IS NULL RETURNING 1"
    )
    return bool(await rows(c, query, (why, number)))


async def lifted_since(
    c: Connection, reason: SuppressionReason, attempts: Collection[tuple[UUID, int, bytes]]
) -> frozenset[UUID]:
    """Of these attempts, by message, number and a hash of the address: the messages where one was lifted since then.

    The holders are locked.
    """
    ids, ns, digests = (list(column) for column in zip(*attempts, strict=True))
    found = await rows(
        c,
        "SELECT t.message_id FROM unnest(%s::uuid[], %s::int[], %s::bytea[]) AS v (id, n, digest)"
        " JOIN attempts t ON (t.message_id, t.n) = (v.id, v.n) JOIN messages m ON m.id = v.id"
        " JOIN suppressions s ON s.channel = m.channel AND s.address_hash = v.digest"
        " WHERE s.reason = %s AND s.lifted_at > t.started_at",
        (ids, ns, digests, str(reason)),
    )
    return frozenset(row["message_id"] for row in found)


async def find(c: Connection, number: int) -> Row | None:
    """One of them, lifted or not."""
    found = await rows(c, "SELECT * FROM suppressions WHERE number = %s", (number,))
    return found[0] if found else None


_PAGE = """
SELECT number, channel, reason, blocks, evidence, created_at, lifted_at, lifted_why FROM suppressions
WHERE number < coalesce(%(before)s, 9223372036854775807)
  AND (%(channel)s::text IS NULL OR channel = %(channel)s) AND (%(reason)s::text IS NULL OR reason = %(reason)s)
  AND (%(lifted)s OR lifted_at IS NULL)
ORDER BY number DESC LIMIT %(limit)s
"""


async def page(
    c: Connection,
    *,
    before: int | None,
    limit: int,
    channel: Channel | None = None,
    reason: SuppressionReason | None = None,
    lifted: bool = False,
) -> list[Row]:
    """The newest of them, without their hashes: those with a smaller number than `before`, at most `limit`."""
    asked = {"before": before, "limit": limit, "channel": channel, "reason": reason, "lifted": lifted}
    return await rows(c, _PAGE, asked)


async def history(c: Connection, channel: Channel, hashes: Collection[bytes]) -> list[Row]:
    """Everything that ever stood against an address, lifted or not, oldest first."""
    query = "SELECT * FROM suppressions WHERE channel = %s AND address_hash = ANY(%s) ORDER BY number"
    return await rows(c, query, (channel, list(hashes)))


def _columns(addresses: Collection[tuple[str, bytes]]) -> tuple[list[str], list[bytes]]:
    return [str(channel) for channel, _ in addresses], [digest for _, digest in addresses]
