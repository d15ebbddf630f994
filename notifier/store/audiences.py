"""The people of a campaign's audience: counted and shown while it is a draft, walked through in batches to be sent."""

from __future__ import annotations

from uuid import UUID

from notifier.domain.audience import Audience
from notifier.store.conditions import condition
from notifier.store.database import Connection, Row, rows

PAGE = 10_000  #: people looked at in one statement, at most

FIRST = UUID(int=0)  #: before everybody

# The filter stands on top of a page of people, so that it cannot change how they are found: by the primary key, in
# order, however few the planner believes to fit. As soon as enough are found, no more are looked at.
_WALK = """
SELECT fitting, CASE WHEN cardinality(fitting) < %(wanted)s THEN ({last}) END AS last
FROM (
    SELECT ARRAY(SELECT r.id FROM {people} WHERE {condition} ORDER BY {key} LIMIT %(wanted)s) AS fitting OFFSET 0
) AS f
"""
_IDS = "SELECT id FROM recipients WHERE id > %(after)s::uuid ORDER BY id"
_IDS_OF_LIST = """
SELECT recipient_id FROM list_members WHERE list_id = %(list)s::uuid AND recipient_id > %(after)s::uuid
ORDER BY recipient_id"""
_PAGE = "(SELECT * FROM recipients WHERE id > %(after)s::uuid ORDER BY id LIMIT %(page)s) AS r"
_PAGE_OF_LIST = f"""({_IDS_OF_LIST} LIMIT %(page)s) AS l
CROSS JOIN LATERAL (SELECT * FROM recipients WHERE id = l.recipient_id OFFSET 0) AS r"""

_EVERYBODY = "recipients AS r"
_LIST = "list_members AS l JOIN recipients AS r ON r.id = l.recipient_id AND l.list_id = %(list)s::uuid"


async def walk(
    c: Connection, audience: Audience, after: UUID | None, limit: int, zone: str | None = None
) -> list[UUID]:
    """The next people of the audience by id, at most `limit`; fewer mean that nobody comes after them.

    `zone`: only people of this time zone; '' are those of whom none is known. Where few fit, many are looked at, page
    by page: memory stays flat and no statement runs long.
    """
    asked = condition(audience)
    query = _WALK.format(
        people=_PAGE_OF_LIST if audience.list else _PAGE,
        condition=asked.sql + ("" if zone is None else " AND coalesce(r.timezone, '') = %(zone)s::text"),
        key="l.recipient_id" if audience.list else "r.id",
        last=f"{_IDS_OF_LIST if audience.list else _IDS} OFFSET %(page)s - 1 LIMIT 1",
    )
    parameters = {**asked.parameters, "list": audience.list, "zone": zone, "page": PAGE}
    found: list[UUID] = []
    position: UUID | None = after or FIRST
    while position and len(found) < limit:
        [row] = await rows(c, query, parameters | {"after": position, "wanted": limit - len(found)})
        found += row["fitting"]
        position = row["last"]
    return found


async def count(c: Connection, audience: Audience) -> int:
    """How many people the audience has now."""
    [row] = await _of(c, audience, "count(*) AS people")
    people: int = row["people"]
    return people


async def sample(c: Connection, audience: Audience, n: int) -> list[Row]:
    """Some of its people, the same each time: `external_id` (None: only an address is known), `locale`, `timezone`."""
    return await _of(c, audience, "r.external_id, r.locale, r.timezone", f"ORDER BY uuid_hash(r.id), r.id LIMIT {n:d}")


async def zones(c: Connection, audience: Audience) -> dict[str, int]:
    """How many of its people are in each time zone; '' are those of whom none is known."""
    found = await _of(c, audience, "coalesce(r.timezone, '') AS zone, count(*) AS people", "GROUP BY 1 ORDER BY 1")
    return {row["zone"]: row["people"] for row in found}


async def _of(c: Connection, audience: Audience, what: str, tail: str = "") -> list[Row]:
    asked = condition(audience)
    query = f"SELECT {what} FROM {_LIST if audience.list else _EVERYBODY} WHERE {asked.sql} {tail}"
    return await rows(c, query, {**asked.parameters, "list": audience.list})
