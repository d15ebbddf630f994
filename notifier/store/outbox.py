"""The outbox: what product code is told, written by triggers in the transaction of what happened, read in one order.

A reader goes by (transaction id, number) and never beyond the oldest transaction that still runs
(`pg_snapshot_xmin`): nothing new can appear below that, however long a transaction waits between drawing a number and
its commit. So who reads on from a cursor misses nothing and reads nothing twice.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from notifier.domain.events import Event, EventType, Position, told
from notifier.store.database import Connection, rows

KEPT = "interval '30 days'"

COLUMNS = """o.xid::text AS xid, o.number, o.type, o.subject, o.notification_id, o.channel, o.topic, o.detail,
       o.granted, o.ledger_number, o.occurred_at, o.told_at"""

_READ = f"""
SELECT h.xid::text AS horizon, {COLUMNS}, r.external_id AS recipient
FROM (SELECT pg_snapshot_xmin(pg_current_snapshot()) AS xid) AS h
LEFT JOIN LATERAL (
    SELECT * FROM outbox
    WHERE (xid, number) > (%(xid)s::text::xid8, %(number)s::bigint) AND xid < h.xid AND type = ANY(%(types)s)
    ORDER BY xid, number LIMIT %(limit)s
) AS o ON true
LEFT JOIN recipients once ON once.id = o.recipient_id
LEFT JOIN recipients r ON r.id = coalesce(once.merged_into, once.id)
ORDER BY o.xid, o.number
"""


@dataclass(frozen=True, slots=True)
class Page:
    """A piece of the order of events."""

    events: Sequence[Event]
    cursor: Position  #: read on from here
    more: bool  #: there may be more already


async def read(c: Connection, after: Position, types: Collection[EventType], limit: int) -> Page:
    """The first events of these types behind a position; an adopted recipient goes by the id of today."""
    wanted = {"xid": str(after.xid), "number": after.number, "types": [str(one) for one in types], "limit": limit}
    found = await rows(c, _READ, wanted)
    events = [told(row) for row in found if row["xid"] is not None]
    if len(events) == limit:
        return Page(events, events[-1].at, more=True)
    return Page(events, max(after, Position(int(found[0]["horizon"]))), more=False)


async def horizon(c: Connection) -> Position:
    """The present: everything that is told from now on lies behind it."""
    found = await rows(c, "SELECT pg_snapshot_xmin(pg_current_snapshot())::text AS xid")
    return Position(int(found[0]["xid"]))


async def forget(c: Connection, limit: int) -> int:
    """Delete up to `limit` of the oldest lines that are out of date; how many there were."""
    query = f"""
        DELETE FROM outbox USING (SELECT xid, number FROM outbox ORDER BY xid, number LIMIT %s) AS oldest
        WHERE (outbox.xid, outbox.number) = (oldest.xid, oldest.number) AND outbox.told_at <= now() - {KEPT}"""
    return (await c.execute(query, (limit,))).rowcount
