"""Endpoints of product code, and what is still to be sent to each: planned from the outbox, due, tried, given up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from notifier.domain.events import Event, EventType, Position, chosen, told
from notifier.domain.webhooks import GIVE_UP_AFTER
from notifier.store import outbox
from notifier.store.database import Connection, Row, rows

PLANNED_AT_ONCE = 1000  #: deliveries that an endpoint has waiting at most; the rest waits in the outbox
KEPT = "interval '30 days'"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where events are sent."""

    id: UUID
    url: str
    types: frozenset[EventType]
    key_id: str
    failures: int
    created_at: datetime
    disabled_at: datetime | None
    disabled_why: str | None


@dataclass(frozen=True, slots=True)
class Standing:
    """An endpoint with how many of its deliveries wait, and how many were given up."""

    endpoint: Endpoint
    waiting: int
    given_up: int


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event that is to be sent to one endpoint now, and how often that has been tried, this time included."""

    event: Event
    tries: int


_ENDPOINT = "e.id, e.url, e.types, e.key_id, e.failures, e.created_at, e.disabled_at, e.disabled_why"


def _endpoint(row: Row) -> Endpoint:
    types, _ = chosen(row["types"])
    return Endpoint(**{**{name: row[name] for name in Endpoint.__slots__}, "types": types})


# Endpoints ------------------------------------------------------------------------------------------------------------


async def add(c: Connection, id_: UUID, url: str, names: Sequence[str], key_id: str) -> None:
    """Store an endpoint that hears of everything from now on, by the names for it: a later release knows more types."""
    now = await outbox.horizon(c)
    await c.execute(
        "INSERT INTO webhook_endpoints (id, url, types, key_id, xid) VALUES (%s, %s, %s, %s, %s::text::xid8)",
        (id_, url, list(names), key_id, str(now.xid)),
    )


async def standing(c: Connection) -> list[Standing]:
    """Every endpoint, the first one first."""
    found = await rows(
        c,
        f"SELECT {_ENDPOINT}, count(d.*) FILTER (WHERE d.given_up_at IS NULL) AS waiting, count(d.given_up_at) AS gone"
        " FROM webhook_endpoints e LEFT JOIN webhook_deliveries d ON d.endpoint_id = e.id"
        " GROUP BY e.id ORDER BY e.created_at, e.id",
    )
    return [Standing(_endpoint(row), row["waiting"], row["gone"]) for row in found]


async def ready(c: Connection) -> list[Endpoint]:
    """Those that may be sent to now."""
    found = await rows(
        c,
        f"SELECT {_ENDPOINT} FROM webhook_endpoints e"
        " WHERE disabled_at IS NULL AND paused_until <= clock_timestamp() ORDER BY id",
    )
    return [_endpoint(row) for row in found]


async def remove(c: Connection, id_: UUID) -> bool:
    """Forget an endpoint and what waits for it; False when there is none."""
    return (await c.execute("DELETE FROM webhook_endpoints WHERE id = %s", (id_,))).rowcount == 1


async def disable(c: Connection, id_: UUID, why: str) -> None:
    """Send nothing there any more."""
    await c.execute(
        "UPDATE webhook_endpoints SET disabled_at = clock_timestamp(), disabled_why = %s"
        " WHERE id = %s AND disabled_at IS NULL",
        (why, id_),
    )


async def worked(c: Connection, id_: UUID) -> None:
    """It has taken something."""
    await c.execute(
        "UPDATE webhook_endpoints SET failures = 0, paused_until = '-infinity' WHERE id = %s AND failures > 0", (id_,)
    )


async def failed(c: Connection, id_: UUID, wait: timedelta) -> None:
    """It has taken nothing of a batch: leave it alone for a while."""
    await c.execute(
        "UPDATE webhook_endpoints SET failures = failures + 1, paused_until = clock_timestamp() + %s WHERE id = %s",
        (wait, id_),
    )


# Deliveries -----------------------------------------------------------------------------------------------------------


async def plan(c: Connection, id_: UUID) -> bool:
    """Plan what the endpoint has not heard of yet, as far as there is room; True when there may be more.

    In one transaction: each event is planned once, whoever else plans at the same time.
    """
    found = await rows(
        c,
        "SELECT xid::text AS xid, number, types, (SELECT count(*) FROM webhook_deliveries d"
        "   WHERE d.endpoint_id = e.id AND d.given_up_at IS NULL) AS waiting"
        " FROM webhook_endpoints e WHERE id = %s AND disabled_at IS NULL FOR NO KEY UPDATE SKIP LOCKED",
        (id_,),
    )
    if not found or found[0]["waiting"] >= PLANNED_AT_ONCE:
        return False
    [row] = found
    types, _ = chosen(row["types"])
    after = Position(int(row["xid"]), row["number"])
    page = await outbox.read(c, after, types, PLANNED_AT_ONCE - row["waiting"])
    await _queue(c, id_, [event.at for event in page.events])
    await c.execute(
        "UPDATE webhook_endpoints SET xid = %s::text::xid8, number = %s WHERE id = %s",
        (str(page.cursor.xid), page.cursor.number, id_),
    )
    return page.more


async def _queue(c: Connection, id_: UUID, places: Sequence[Position]) -> None:
    """Due now; one that was given up begins anew."""
    if places:
        await c.execute(
            "INSERT INTO webhook_deliveries (endpoint_id, xid, number)"
            " SELECT %s, xid::xid8, number FROM unnest(%s::text[], %s::bigint[]) AS v (xid, number)"
            " ON CONFLICT (endpoint_id, xid, number) DO UPDATE SET due_at = clock_timestamp(), tries = 0, code = NULL,"
            "   planned_at = clock_timestamp(), given_up_at = NULL WHERE webhook_deliveries.given_up_at IS NOT NULL",
            (id_, [str(place.xid) for place in places], [place.number for place in places]),
        )


_CLAIM = f"""
WITH due AS MATERIALIZED (
    SELECT endpoint_id, xid, number FROM webhook_deliveries w
    WHERE endpoint_id = %(endpoint)s AND given_up_at IS NULL AND due_at <= statement_timestamp()
      AND NOT coalesce((SELECT o.type <> ALL(%(types)s) FROM outbox o
                        WHERE (o.xid, o.number) = (w.xid, w.number)), false)
    ORDER BY due_at, xid, number LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), taken AS (
    UPDATE webhook_deliveries d SET due_at = clock_timestamp() + %(lease)s, tries = d.tries + 1
    FROM due WHERE (d.endpoint_id, d.xid, d.number) = (due.endpoint_id, due.xid, due.number)
    RETURNING d.xid, d.number, d.tries
)
SELECT taken.tries, taken.xid::text AS place, taken.number AS place_number, {outbox.COLUMNS}, r.external_id AS recipient
FROM taken LEFT JOIN outbox o ON (o.xid, o.number) = (taken.xid, taken.number)
LEFT JOIN recipients once ON once.id = o.recipient_id
LEFT JOIN recipients r ON r.id = coalesce(once.merged_into, once.id)
ORDER BY taken.xid, taken.number
"""


async def claim(c: Connection, id_: UUID, limit: int, lease: timedelta) -> list[Delivery]:
    """Take what is due in hand, in the order of events. Who dies with it gives it back when the lease runs out.

    An event of a type that only a newer release knows is left to that one, which has planned it.
    """
    types = [str(one) for one in EventType]
    found = await rows(c, _CLAIM, {"endpoint": id_, "limit": limit, "lease": lease, "types": types})
    lost = [Position(int(row["place"]), row["place_number"]) for row in found if row["xid"] is None]
    await delivered(c, id_, lost)  # out of the outbox: there is nothing left to say
    return [Delivery(told(row), row["tries"]) for row in found if row["xid"] is not None]


async def delivered(c: Connection, id_: UUID, places: Sequence[Position]) -> None:
    """These are done."""
    if places:
        await c.execute(
            "DELETE FROM webhook_deliveries d USING unnest(%s::text[], %s::bigint[]) AS v (xid, number)"
            " WHERE d.endpoint_id = %s AND d.xid = v.xid::xid8 AND d.number = v.number",
            ([str(place.xid) for place in places], [place.number for place in places], id_),
        )


@dataclass(frozen=True, slots=True)
class Missed:
    """A delivery that was not taken: why, and how long it waits now."""

    at: Position
    code: str
    wait: timedelta


async def missed(c: Connection, id_: UUID, these: Sequence[Missed]) -> list[Position]:
    """Try these again later; those for which later is too late are given up, and returned."""
    found = await rows(
        c,
        "UPDATE webhook_deliveries d SET code = v.code, due_at = clock_timestamp() + v.wait,"
        " given_up_at = CASE WHEN clock_timestamp() + v.wait > d.planned_at + %s THEN clock_timestamp() END"
        " FROM unnest(%s::text[], %s::bigint[], %s::text[], %s::interval[]) AS v (xid, number, code, wait)"
        " WHERE d.endpoint_id = %s AND d.xid = v.xid::xid8 AND d.number = v.number"
        " RETURNING d.xid::text AS xid, d.number, d.given_up_at",
        (
            GIVE_UP_AFTER,
            [str(one.at.xid) for one in these],
            [one.at.number for one in these],
            [one.code for one in these],
            [one.wait for one in these],
            id_,
        ),
    )
    return [Position(int(row["xid"]), row["number"]) for row in found if row["given_up_at"]]


async def given_up(c: Connection, id_: UUID, limit: int) -> list[Row]:
    """The latest that were given up, with the code of the last try."""
    return await rows(
        c,
        "SELECT d.xid::text AS xid, d.number, d.tries, d.code, d.given_up_at FROM webhook_deliveries d"
        " WHERE d.endpoint_id = %s AND d.given_up_at IS NOT NULL ORDER BY d.given_up_at DESC LIMIT %s",
        (id_, limit),
    )


# Replay ---------------------------------------------------------------------------------------------------------------


async def replay_one(c: Connection, id_: UUID, at: Position) -> bool:
    """Send one event again; False when it is not kept any more, or there is no such endpoint."""
    found = await rows(
        c,
        "SELECT 1 FROM outbox o, webhook_endpoints e"
        " WHERE e.id = %s AND (o.xid, o.number) = (%s::text::xid8, %s::bigint)",
        (id_, str(at.xid), at.number),
    )
    if found:
        await delivered(c, id_, [at])  # whatever came of it before
        await _queue(c, id_, [at])
    return bool(found)


async def replay_after(c: Connection, id_: UUID, after: Position) -> bool:
    """Send everything behind this position again, and end a disabling; False when there is no such endpoint.

    What waits begins anew as well: its three days may have run out while nothing was sent.
    """
    await c.execute(
        "UPDATE webhook_deliveries SET due_at = statement_timestamp(), planned_at = clock_timestamp(), tries = 0,"
        " code = NULL WHERE endpoint_id = %s AND given_up_at IS NULL",
        (id_,),
    )
    cursor = await c.execute(
        "UPDATE webhook_endpoints SET xid = v.xid::xid8, number = v.number, disabled_at = NULL, disabled_why = NULL,"
        " failures = 0, paused_until = '-infinity' FROM (VALUES (%s::text, %s::bigint)) AS v (xid, number)"
        " WHERE id = %s",
        (str(after.xid), after.number, id_),
    )
    return cursor.rowcount == 1


async def forget(c: Connection, limit: int) -> int:
    """Delete up to `limit` deliveries that were given up long ago; how many there were."""
    query = f"""
        DELETE FROM webhook_deliveries d USING (
            SELECT endpoint_id, xid, number FROM webhook_deliveries
            WHERE given_up_at <= now() - {KEPT} LIMIT %s) AS old
        WHERE (d.endpoint_id, d.xid, d.number) = (old.endpoint_id, old.xid, old.number)"""
    return (await c.execute(query, (limit,))).rowcount
