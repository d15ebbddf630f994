"""What providers report after they took a message, and what it makes of the message once that has settled."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from notifier.domain.feedback import advance
from notifier.domain.messages import Category, Ids, State
from notifier.domain.retry import CameBack, tried_again_at
from notifier.store.database import Connection, Row, rows
from notifier.store.messages import wake_followers
from notifier_channels.contract import Again, DeliveryEvent, EventKind, Strike

TAKEN = frozenset({State.ACCEPTED, State.UNKNOWN})
"""What a message may settle to that a report which came early moves on."""

_ids = Ids()

_INSERT = """
INSERT INTO delivery_events (id, message_id, attempt, kind, source, source_id, code, reference, occurred_at, strike,
                             again_after, again_most)
SELECT * FROM unnest(%s::uuid[], %s::uuid[], %s::int[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[],
                     %s::timestamptz[], %s::text[], %s::interval[], %s::int[])
     AS new (id, message_id, attempt, kind, source, source_id, code, reference, occurred_at, strike, again_after,
             again_most)
ORDER BY source, source_id
ON CONFLICT (source, source_id) DO NOTHING
RETURNING source, source_id
"""


async def lock_messages(c: Connection, ids: Collection[UUID]) -> None:
    """Lock the messages that are reported on, in id order, after the recipients. Their state is read later."""
    await c.execute("SELECT 1 FROM messages WHERE id = ANY(%s) ORDER BY id FOR NO KEY UPDATE", (list(ids),))


async def add(c: Connection, events: Sequence[DeliveryEvent]) -> list[DeliveryEvent]:
    """Store reports on messages that exist, each once; those that are new, in the order given."""
    now_ms = time.time_ns() // 1_000_000
    created = await rows(
        c,
        _INSERT,
        (
            [_ids.new(now_ms) for _ in events],
            [event.message for event in events],
            [event.attempt for event in events],
            [str(event.kind) for event in events],
            [event.source for event in events],
            [event.source_id for event in events],
            [event.code for event in events],
            [event.reference for event in events],
            [event.occurred_at for event in events],
            [event.strike for event in events],
            [event.again and event.again.after for event in events],
            [event.again and event.again.most for event in events],
        ),
    )
    new = {(row["source"], row["source_id"]) for row in created}
    firsts = {(event.source, event.source_id): event for event in reversed(events)}
    return [event for event in events if (event.source, event.source_id) in new and event is firsts[_key(event)]]


_STRIKES = """
WITH mine AS (
    SELECT w.id AS asked, o.id
    FROM unnest(%s::uuid[]) AS w (id)
    JOIN messages m ON m.id = w.id
    JOIN addresses a ON a.id = m.address_id
    JOIN messages o ON o.recipient_id = m.recipient_id
    JOIN addresses b ON b.id = o.address_id AND (b.channel, b.address_hash) = (a.channel, a.address_hash)
), reached AS (
    SELECT mine.asked, max(e.received_at) AS at
    FROM mine JOIN delivery_events e ON e.message_id = mine.id AND e.kind = 'delivered' GROUP BY mine.asked
)
SELECT mine.asked, e.strike, count(DISTINCT e.message_id) AS count
FROM mine JOIN delivery_events e ON e.message_id = mine.id LEFT JOIN reached USING (asked)
WHERE e.strike IS NOT NULL AND e.received_at > clock_timestamp() - %s
  AND (reached.at IS NULL OR e.received_at > reached.at)
GROUP BY mine.asked, e.strike
"""


async def strikes(c: Connection, messages: Collection[UUID], within: timedelta) -> dict[tuple[UUID, Strike], int]:
    """By message: how many messages to its address have bounced for such a reason since one was last delivered."""
    found = await rows(c, _STRIKES, (list(messages), within))
    return {(row["asked"], Strike(row["strike"])): row["count"] for row in found}


async def of_message(c: Connection, message: UUID) -> list[Row]:
    """All that was reported of one message, as it happened."""
    query = "SELECT * FROM delivery_events WHERE message_id = %s ORDER BY occurred_at, id"
    return await rows(c, query, (message,))


# A repeat is on its way for an attempt that was superseded: that one bounced says nothing of the repeat. Of an attempt
# that has bounced itself, so that it is repeated, nothing counts any more but that it has arrived all the same.
_COUNTS = """
NOT (e.kind NOT IN ('delivered', 'complained') AND EXISTS (
    SELECT FROM attempts s WHERE s.message_id = e.message_id AND s.n = e.attempt
    AND (s.state = 'bounced' OR s.state = 'superseded' AND e.kind = 'bounced')))
"""

# Whoever reports on a message has taken it, so that its repeat need not leave. It may do so up to the gate, and after
# the repeat has failed; the attempt reported on is in doubt, or was superseded by a try that was not taken; or it had
# bounced.
_BELIEVE = f"""
UPDATE messages m SET state = 'accepted', reason = NULL, due_at = NULL, worker_id = NULL, claims = 0
WHERE m.id = ANY(%s)
  AND (m.state = 'unknown' AND EXISTS (SELECT FROM delivery_events e WHERE e.message_id = m.id AND {_COUNTS})
       OR m.state IN ('queued', 'claimed', 'failed') AND EXISTS (
           SELECT FROM delivery_events e JOIN attempts a USING (message_id)
           WHERE e.message_id = m.id AND a.n = COALESCE(e.attempt, a.n)
             AND (a.state = 'bounced' OR m.repeated AND a.state IN ('unknown', 'superseded')) AND {_COUNTS}))
RETURNING m.id
"""

# The attempt that was in doubt is the one reported on, if one is named.
_BELIEVE_ATTEMPTS = f"""
UPDATE attempts a SET state = 'accepted', reference = COALESCE(a.reference, (
    SELECT e.reference FROM delivery_events e
    WHERE e.message_id = a.message_id AND COALESCE(e.attempt, a.n) = a.n AND e.reference IS NOT NULL LIMIT 1))
WHERE a.message_id = ANY(%s)
  AND (a.state = 'unknown' OR a.state = 'superseded' AND NOT EXISTS (
       SELECT FROM attempts l WHERE l.message_id = a.message_id AND l.state IN ('started', 'accepted', 'unknown')))
  AND EXISTS (SELECT FROM delivery_events e
              WHERE e.message_id = a.message_id AND COALESCE(e.attempt, a.n) = a.n AND {_COUNTS})
"""

_REPORTED = f"""
SELECT m.id, m.state, m.is_followed, array_agg(DISTINCT e.kind) AS kinds,
       (array_agg(e.code ORDER BY e.occurred_at, e.id) FILTER (WHERE e.kind = 'bounced'))[1] AS bounce_code
FROM messages m JOIN delivery_events e ON e.message_id = m.id
WHERE m.id = ANY(%s) AND m.state IN ('accepted', 'delivered') AND {_COUNTS}
GROUP BY m.id
"""

_ADVANCE = """
UPDATE messages m SET state = v.after, reason = v.reason, due_at = v.due
FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::text[], %s::timestamptz[]) AS v (id, before, after, reason, due)
WHERE m.id = v.id AND m.state = v.before
"""

# The cause of every bounce of the attempt that was taken must be one that may pass.
_CAME_BACK = """
SELECT m.id, m.category, m.is_followed, m.expires_at, clock_timestamp() AS now,
       max(e.again_after) AS after, min(e.again_most) AS most,
       (SELECT count(*) FROM attempts b WHERE b.message_id = m.id AND b.state = 'bounced') AS times
FROM messages m JOIN attempts a ON a.message_id = m.id AND a.state = 'accepted'
JOIN delivery_events e ON e.message_id = m.id AND COALESCE(e.attempt, a.n) = a.n AND e.kind = 'bounced'
WHERE m.id = ANY(%s)
GROUP BY m.id HAVING bool_and(e.again_most IS NOT NULL)
"""


async def apply_pending(c: Connection, message_ids: Collection[UUID]) -> None:
    """Move these messages to where all reports on them lead. Does nothing twice, and nothing while one is being sent.

    The caller holds the messages' locks. Settle calls it too: a report may come before our own commit.
    """
    if not message_ids:
        return
    believed = await rows(c, _BELIEVE, (list(message_ids),))
    if believed:
        await c.execute(_BELIEVE_ATTEMPTS, ([row["id"] for row in believed],))
    reported = await rows(c, _REPORTED, (list(message_ids),))
    due = await _tried_again(c, [row["id"] for row in reported if EventKind.BOUNCED in row["kinds"]])
    moves = [(row, _after(row, may_go_again=row["id"] in due)) for row in reported]
    await _move(c, [(row, after) for row, after in moves if after != row["state"]], due)


async def _tried_again(c: Connection, bounced: Sequence[UUID]) -> dict[UUID, datetime]:
    """Of messages that came back: those that go again, and when."""
    found = await rows(c, _CAME_BACK, (bounced,)) if bounced else []
    due = {row["id"]: tried_again_at(Again(row["after"], row["most"]), _came_back(row), row["now"]) for row in found}
    return {id_: at for id_, at in due.items() if at}


async def _move(c: Connection, moves: Sequence[tuple[Row, State]], due: Mapping[UUID, datetime]) -> None:
    if not moves:
        return
    again = [row["id"] for row, after in moves if after is State.QUEUED]
    await c.execute(
        _ADVANCE,
        (
            [row["id"] for row, _ in moves],
            [row["state"] for row, _ in moves],
            [str(after) for _, after in moves],
            [_reason(row, after) for row, after in moves],
            [due[row["id"]] if after is State.QUEUED else None for row, after in moves],
        ),
    )
    if again:
        await c.execute(
            "UPDATE attempts SET state = 'bounced' WHERE message_id = ANY(%s) AND state = 'accepted'", (again,)
        )
    await wake_followers(c, [row["id"] for row, _ in moves if row["is_followed"]])


def _after(row: Row, *, may_go_again: bool) -> State:
    kinds = {EventKind(kind) for kind in row["kinds"]}
    return advance(State(row["state"]), kinds, may_go_again=may_go_again)


def _came_back(row: Row) -> CameBack:
    return CameBack(Category(row["category"]), row["is_followed"], row["times"], row["expires_at"])


def _reason(row: Row, after: State) -> str | None:
    match after:
        case State.QUEUED:
            return f"came_back:{row['bounce_code'] or 'no_code'}"
        case State.BOUNCED:
            return f"bounced:{row['bounce_code'] or 'no_code'}"
        case State.COMPLAINED:
            return "complained"
        case _:
            return None


def _key(event: DeliveryEvent) -> tuple[str, str]:
    return event.source, event.source_id
