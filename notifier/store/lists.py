"""Uploaded lists of people: filled while one streams in, named by audiences, removed when nobody needs them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from notifier.domain.audience import Audience
from notifier.domain.campaigns import NEXT
from notifier.errors import InvalidInput, Problem
from notifier.store.database import Connection, Row, rows

_LIST = "id, name, report, is_ready, created_at"
_UNFINISHED = [str(state) for state, following in NEXT.items() if following]

# Campaigns that name a list: `exclude` is a list of ids, and `?` asks whether it holds one.
_USED_BY = """
SELECT id, name FROM campaigns
WHERE state = ANY(%(states)s) AND (audience ->> 'list' = %(list)s OR audience -> 'exclude' ? %(list)s)
ORDER BY id
"""


async def create(c: Connection, id_: UUID, name: str) -> None:
    """Begin a list: not ready, and nobody on it."""
    await c.execute("INSERT INTO lists (id, name) VALUES (%s, %s)", (id_, name))


async def keep(c: Connection, id_: UUID) -> bool:
    """Whether the list is there, and from now to the end of the transaction nobody removes it."""
    return bool(await rows(c, "SELECT 1 FROM lists WHERE id = %s FOR KEY SHARE", (id_,)))


async def ids_of(c: Connection, external_ids: Collection[str]) -> list[tuple[str, UUID]]:
    """Who has these ids of the product's own; ids that nobody has are left out."""
    query = "SELECT external_id, id FROM recipients WHERE external_id = ANY(%s)"
    return [(row["external_id"], row["id"]) for row in await rows(c, query, (list(external_ids),))]


async def add(c: Connection, id_: UUID, people: Collection[UUID]) -> set[UUID]:
    """Put people on a list; those who were not on it before. The caller has locked them and the list."""
    query = (
        "INSERT INTO list_members (list_id, recipient_id) SELECT %s, person FROM unnest(%s::uuid[]) AS person"
        " ORDER BY person ON CONFLICT DO NOTHING RETURNING recipient_id"
    )
    return {row["recipient_id"] for row in await rows(c, query, (id_, list(people)))}


async def finish(c: Connection, id_: UUID, report: Mapping[str, Any]) -> Row | None:
    """The upload came to its end: the list as it stands now. None: it was removed meanwhile."""
    query = f"UPDATE lists SET is_ready = true, report = %s WHERE id = %s RETURNING {_LIST}"
    found = await rows(c, query, (Jsonb(dict(report)), id_))
    return found[0] if found else None


async def find(c: Connection, id_: UUID) -> Row | None:
    """One of them, ready or not."""
    found = await rows(c, f"SELECT {_LIST} FROM lists WHERE id = %s", (id_,))
    return found[0] if found else None


async def page(c: Connection, before: UUID | None, limit: int) -> list[Row]:
    """The lists that came before one, the newest first."""
    query = f"SELECT {_LIST} FROM lists WHERE %s::uuid IS NULL OR id < %s ORDER BY id DESC LIMIT %s"
    return await rows(c, query, (before, before, limit))


async def lock(c: Connection, id_: UUID) -> bool:
    """Whether the list is there; whoever wants to keep it waits until the transaction ends."""
    return bool(await rows(c, "SELECT 1 FROM lists WHERE id = %s FOR UPDATE", (id_,)))


async def used_by(c: Connection, id_: UUID) -> list[Row]:
    """The campaigns, `id` and `name`, that name the list and have not come to their end."""
    return await rows(c, _USED_BY, {"states": _UNFINISHED, "list": str(id_)})


async def remove(c: Connection, id_: UUID) -> None:
    """Remove it with all who are on it."""
    await c.execute("DELETE FROM lists WHERE id = %s", (id_,))


async def hold(c: Connection, audience: Audience, pointer: str = "/audience") -> None:
    """Keep the lists of an audience from being removed until the transaction ends, as whoever stores it must.

    Raises:
        InvalidInput: one of them is not there, or not ready.

    """
    query = "SELECT id, is_ready FROM lists WHERE id = ANY(%s) ORDER BY id FOR KEY SHARE"
    found = {row["id"]: row["is_ready"] for row in await rows(c, query, (list(audience.lists.values()),))}
    missing, broken = "is no list that is there; `GET /v1/lists` shows all", "is not ready; upload it to its end"
    problems = [
        Problem(f"{pointer}{place}", broken if one in found else missing)
        for place, one in audience.lists.items()
        if not found.get(one)
    ]
    if problems:
        raise InvalidInput(problems)
