"""Dry-runs that are asked for and under way: taken up by the scheduler, oldest first, until a plan or a problem stands.

Each write expects that nobody was faster, and that the campaign is still the one that was asked about.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from notifier.store.database import Connection, rows


@dataclass(frozen=True, slots=True)
class Asked:
    """A dry-run that is to be reckoned, and its campaign as it is now."""

    id: UUID
    campaign_id: UUID
    template_version: int
    template: str
    data: Mapping[str, Any]
    audience: Mapping[str, Any]
    schedule: Mapping[str, Any]
    sender: str | None
    rate: float | None
    expires_at: datetime | None
    now: datetime


_OPEN = "p.plan IS NULL AND p.problem IS NULL"
_CURRENT = f"""
p.id = %(id)s AND {_OPEN} AND EXISTS (SELECT 1 FROM campaigns c
    WHERE c.id = p.campaign_id AND c.revision = p.revision AND c.state IN ('draft', 'scheduled'))
"""


async def oldest(c: Connection) -> Asked | None:
    """The dry-run that has waited longest."""
    found = await rows(
        c,
        f"""SELECT p.id, p.campaign_id, p.template_version, c.template, c.data, c.audience, c.schedule, c.sender,
                   c.rate, c.expires_at, clock_timestamp() AS now
            FROM campaign_plans p JOIN campaigns c ON c.id = p.campaign_id
            WHERE {_OPEN} ORDER BY p.asked_at, p.id LIMIT 1""",
    )
    return Asked(**found[0]) if found else None


async def progress(c: Connection, id_: UUID, looked_at: int, of: int) -> bool:
    """Say how far it is; False: the campaign is another by now, or the dry-run is done."""
    return await _write(c, id_, "progress = %(progress)s", {"progress": Jsonb({"looked_at": looked_at, "of": of})})


async def finish(c: Connection, id_: UUID, plan: Mapping[str, Any], hash_: str) -> bool:
    """Write the plan down; False: as for `progress`."""
    return await _write(c, id_, "plan = %(plan)s, hash = %(hash)s", {"plan": Jsonb(dict(plan)), "hash": hash_})


async def give_up(c: Connection, id_: UUID, problem: str) -> None:
    """End it without a plan."""
    await c.execute(f"UPDATE campaign_plans p SET problem = %s WHERE p.id = %s AND {_OPEN}", (problem, id_))


async def _write(c: Connection, id_: UUID, assignments: str, values: Mapping[str, Any]) -> bool:
    cursor = await c.execute(f"UPDATE campaign_plans p SET {assignments} WHERE {_CURRENT}", {"id": id_, **values})
    return cursor.rowcount == 1
