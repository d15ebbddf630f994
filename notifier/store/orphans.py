"""What nobody has in hand any more: messages that dead workers left, and attempts that stayed in doubt."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from notifier.domain.messages import Lane
from notifier.store.database import Connection, Row, rows
from notifier_channels.contract import Channel

# A message that was born in a batch is in the hands of whoever has the batch. Its person may have been adopted since.
_BORN = """
SELECT m.id FROM campaign_batches b CROSS JOIN unnest(b.recipients) AS who (id) JOIN recipients r ON r.id = who.id
JOIN messages m ON m.campaign_id = b.campaign_id AND m.recipient_id = ANY (ARRAY[r.id, r.merged_into])
    AND m.channel = b.channel AND NOT m.is_test AND m.worker_id IS NULL AND m.state = 'sending'
WHERE b.worker_id = %(worker)s AND b.decided_at IS NOT NULL
"""
_ORPHAN = "SELECT m.id, m.state, m.channel, m.category, m.tries, m.repeated, m.expires_at, m.is_followed, a.n"


async def orphans_of(c: Connection, worker: int) -> list[Row]:
    """Lock and list what a dead worker left in hand, with the attempt that is under way, if intent was committed."""
    # Locks are statements of their own: the server may still be committing the worker's last gate, and one statement
    # would miss its attempts. Batches come first, as in that gate.
    asked: dict[str, object] = {"worker": worker}
    await c.execute("SELECT 1 FROM campaign_batches WHERE worker_id = %(worker)s FOR NO KEY UPDATE", asked)
    # What is found is locked by its id: while the lock is waited for, an adoption may change whose message it is.
    asked["born"] = [row["id"] for row in await rows(c, _BORN, asked)]
    await c.execute("SELECT 1 FROM messages WHERE worker_id = %(worker)s ORDER BY id FOR NO KEY UPDATE", asked)
    await c.execute("SELECT 1 FROM messages WHERE id = ANY(%(born)s) ORDER BY id FOR NO KEY UPDATE", asked)
    # Somebody's message may have been born in another worker's batch, and be at the provider now.
    return await rows(
        c,
        f"{_ORPHAN}, m.claims FROM messages m LEFT JOIN attempts a ON a.message_id = m.id AND a.state = 'started'"
        " WHERE m.worker_id = %(worker)s"
        f" UNION ALL {_ORPHAN}, 1 FROM messages m"
        " JOIN attempts a ON a.message_id = m.id AND a.state = 'started' AND a.worker_id = %(worker)s"
        " WHERE m.id = ANY(%(born)s) AND m.worker_id IS NULL AND m.state = 'sending' ORDER BY id",
        asked,
    )


async def requeue(c: Connection, claims: Mapping[UUID, int]) -> None:
    """Put orphans without intent back: `claimed` -> `queued`, with the claims they keep."""
    await c.execute(
        "UPDATE messages m SET state = 'queued', worker_id = NULL, due_at = clock_timestamp(), claims = v.claims,"
        " reason = 'worker_died'"
        " FROM unnest(%s::uuid[], %s::int[]) AS v (id, claims) WHERE m.id = v.id AND m.state = 'claimed'",
        (list(claims), list(claims.values())),
    )


async def keep_claims(c: Connection, claims: Mapping[UUID, int]) -> None:
    """Remember on messages that settled back to `queued` how often a worker died with them in hand."""
    await c.execute(
        "UPDATE messages m SET claims = v.claims FROM unnest(%s::uuid[], %s::int[]) AS v (id, claims)"
        " WHERE m.id = v.id AND m.state = 'queued'",
        (list(claims), list(claims.values())),
    )


async def poison(c: Connection, ids: Sequence[UUID]) -> None:
    """Set aside what has brought down its worker too often: `claimed` -> `failed`."""
    await c.execute(
        "UPDATE messages SET state = 'failed', reason = 'poison', worker_id = NULL"
        " WHERE id = ANY(%s) AND state = 'claimed'",
        (list(ids),),
    )


_REPEAT = """
UPDATE messages m SET repeated = m.expires_at > clock_timestamp(),
    state = CASE WHEN m.expires_at > clock_timestamp() THEN 'queued' ELSE 'unknown' END,
    due_at = CASE WHEN m.expires_at > clock_timestamp() THEN clock_timestamp() END
"""


async def repeat_unknown(c: Connection, channels: Sequence[Channel], limit: int) -> int:
    """Queue the one repeat of transactional messages that nobody could settle; what has expired stays `unknown`.

    Only one lane is looked through: doubt about marketing is never repeated, and its backlog may be long.
    """
    cursor = await c.execute(
        "WITH due AS MATERIALIZED ("
        "  SELECT id FROM messages WHERE lane = %s AND channel = ANY(%s) AND due_at <= statement_timestamp()"
        "  AND state = 'unknown' LIMIT %s FOR NO KEY UPDATE SKIP LOCKED)"
        f"{_REPEAT} FROM due WHERE m.id = due.id",
        (Lane.TRANSACTIONAL, [str(channel) for channel in channels], limit),
    )
    return cursor.rowcount


async def count_due(c: Connection, lane: Lane, at_most: int) -> int:
    """How many messages of the lane wait to be claimed, counted no further than `at_most`."""
    found = await rows(
        c,
        "SELECT count(*) AS due FROM (SELECT 1 FROM messages"
        " WHERE lane = %s AND channel = ANY(%s) AND due_at <= statement_timestamp() AND state = 'queued' LIMIT %s)"
        " AS waiting",
        (lane, [str(channel) for channel in Channel], at_most),
    )
    due: int = found[0]["due"]
    return due


# Doubt that the provider can be asked about ---------------------------------------------------------------------------


async def doubtful(c: Connection, channel: Channel, limit: int) -> list[Row]:
    """Attempts whose provider is to be asked now."""
    return await rows(
        c,
        "SELECT m.id, a.n, a.started_at, a.settled_at, d.address, d.address_hash"
        " FROM messages m JOIN attempts a ON a.message_id = m.id AND a.state = 'unknown'"
        " JOIN addresses d ON d.id = m.address_id"
        " WHERE m.lane = ANY(%s) AND m.channel = %s AND m.due_at <= statement_timestamp() AND m.state = 'unknown'"
        " ORDER BY m.due_at LIMIT %s",
        ([str(lane) for lane in Lane], channel, limit),
    )


@dataclass(frozen=True, slots=True)
class Beside:
    """What else of ours went to the address of an attempt in doubt, whoever's message it was."""

    taken: frozenset[str] = frozenset()  #: the provider's references
    is_under_way: bool = False  #: another attempt is at the provider now: it may be what is found there
    is_in_doubt: bool = False  #: another one of about that time is in doubt: what is found may be its trace


# Everybody who holds the address or has held it, under each key; then their messages to it. A message may have got its
# person after its address: through adoption.
_BESIDE = """
WITH asked AS MATERIALIZED (
    SELECT id, digest FROM unnest(%(ids)s::uuid[], %(digests)s::bytea[]) AS v (id, digest)
), people AS MATERIALIZED (
    SELECT asked.id, d.recipient_id FROM asked JOIN addresses d
    ON d.channel = %(channel)s AND d.address_hash = asked.digest AND d.removed_at IS NULL
    UNION
    SELECT asked.id, d.recipient_id FROM asked JOIN addresses d
    ON d.channel = %(channel)s AND d.address_hash = asked.digest AND d.removed_at IS NOT NULL
    UNION
    SELECT m.id, m.recipient_id FROM asked JOIN messages m USING (id)
)
SELECT a.message_id AS id,
       COALESCE(array_agg(o.reference) FILTER (WHERE o.reference IS NOT NULL), '{}') AS taken,
       bool_or(o.state = 'started') AS is_under_way,
       bool_or(o.state IN ('unknown', 'superseded') AND o.reference IS NULL AND o.message_id <> a.message_id
               AND o.started_at - %(blur)s < a.settled_at AND a.started_at - %(blur)s < o.settled_at) AS is_in_doubt
FROM people
JOIN attempts a ON a.message_id = people.id AND a.state = 'unknown'
JOIN messages s ON s.recipient_id = people.recipient_id AND s.channel = %(channel)s
JOIN addresses d ON d.id = s.address_id
JOIN asked ON (asked.id, asked.digest) = (people.id, d.address_hash)
JOIN attempts o ON o.message_id = s.id AND (o.message_id, o.n) <> (a.message_id, a.n)
WHERE o.started_at > a.started_at - interval '1 hour'
GROUP BY a.message_id
"""
_BLUR = timedelta(minutes=2)  #: a request that was given up may be carried out later, and clocks differ


async def beside(c: Connection, channel: Channel, hashes: Mapping[UUID, Collection[bytes]]) -> dict[UUID, Beside]:
    """By message in doubt, given every hash of its address: `Hasher.all`, for keys are rotated."""
    pairs = [(id_, digest) for id_, digests in hashes.items() for digest in digests]
    asked = {"ids": [id_ for id_, _ in pairs], "digests": [digest for _, digest in pairs]}
    found = await rows(c, _BESIDE, {**asked, "channel": channel, "blur": _BLUR})
    known = {
        row["id"]: Beside(frozenset(row["taken"]), bool(row["is_under_way"]), bool(row["is_in_doubt"])) for row in found
    }
    return {id_: known.get(id_, Beside()) for id_ in hashes}


async def lock_doubtful(c: Connection, ids: Sequence[UUID]) -> list[Row]:
    """Lock those of these messages that are still in doubt, with the attempt that is."""
    # Two statements, as everywhere: after a wait, one would see the message as it is and the attempt as it was.
    await c.execute("SELECT 1 FROM messages WHERE id = ANY(%s) ORDER BY id FOR NO KEY UPDATE", (list(ids),))
    return await rows(
        c,
        "SELECT m.id, m.category, m.repeated, m.is_followed, a.n FROM messages m"
        " JOIN attempts a ON a.message_id = m.id AND a.state = 'unknown'"
        " WHERE m.id = ANY(%s) AND m.state = 'unknown' ORDER BY m.id",
        (list(ids),),
    )


async def leave_in_doubt(c: Connection, ids: Sequence[UUID]) -> None:
    """Nobody looks at these again; a late report still settles them. They are locked."""
    await c.execute("UPDATE messages SET due_at = NULL WHERE id = ANY(%s) AND state = 'unknown'", (list(ids),))


async def repeat(c: Connection, ids: Sequence[UUID]) -> None:
    """Queue the one repeat of these messages, unless they have expired. They are locked."""
    await c.execute(f"{_REPEAT} WHERE m.id = ANY(%s) AND m.state = 'unknown'", (list(ids),))


async def ask_later(c: Connection, ids: Sequence[UUID], wait: timedelta) -> None:
    """Nothing is known of these yet."""
    await c.execute(
        "UPDATE messages SET due_at = clock_timestamp() + %s WHERE id = ANY(%s) AND state = 'unknown'",
        (wait, list(ids)),
    )
