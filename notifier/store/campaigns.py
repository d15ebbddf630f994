"""Campaigns as rows: what is sent to many, whom it is for, and each step of its life by compare-and-set.

Whoever changes one locks its row first, then its batches and messages. The planner and the workers meet it there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from notifier.domain.campaigns import CampaignState, may_become
from notifier.domain.messages import Category
from notifier.store.database import Connection, Row, rows
from notifier.store.planning import count_again, leave_out


@dataclass(frozen=True, slots=True)
class Content:
    """What somebody says of a campaign: all of it may be edited while it is a draft."""

    name: str
    template: str
    data: Mapping[str, Any]
    audience: Mapping[str, Any]  #: as `domain.audience` writes it
    schedule: Mapping[str, Any]  #: as `domain.schedules` writes it
    sender: str | None
    rate: float | None  #: messages a second
    expires_at: datetime | None
    is_notice: bool  #: by its template's topic


@dataclass(frozen=True, slots=True)
class Campaign:
    """A campaign as it stands."""

    id: UUID
    state: CampaignState
    revision: int
    content: Content
    series_id: UUID | None
    occurs_at: datetime | None
    created_by: str
    created_at: datetime
    template_version: int | None
    topic: str | None
    category: Category | None
    scheduled_by: str | None
    scheduled_at: datetime | None
    plan_hash: str | None
    starts_at: datetime | None
    started_at: datetime | None
    audience_size: int | None
    spoiled: int
    pause_reason: str | None
    ended_at: datetime | None
    left_out: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Approval:
    """What scheduling writes: the version that is pinned, and the plan that is approved, by whom."""

    plan: UUID
    plan_hash: str
    template_version: int
    topic: str
    category: Category
    is_notice: bool
    starts_at: datetime | None
    expires_at: datetime | None
    by: str


_CONTENT = tuple(Content.__slots__)
_OTHERS = tuple(name for name in Campaign.__slots__ if name != "content")
_COLUMNS = ", ".join((*_OTHERS, *_CONTENT))


async def insert(c: Connection, id_: UUID, content: Content, by: str) -> None:
    """Store a draft."""
    names = ", ".join(_CONTENT)
    places = ", ".join(f"%({name})s" for name in _CONTENT)
    await c.execute(
        f"INSERT INTO campaigns (id, created_by, {names}) VALUES (%(id)s, %(by)s, {places})",
        {"id": id_, "by": by, **_values(content)},
    )


async def edit(c: Connection, campaign: Campaign, content: Content, *, is_another: bool) -> bool:
    """Store other content; False: its state is another by now. `is_another`: what was approved no longer counts."""
    assignments = ", ".join(f"{name} = %({name})s" for name in _CONTENT)
    cursor = await c.execute(
        f"UPDATE campaigns SET {assignments}, revision = revision + %(more)s WHERE id = %(id)s AND state = %(state)s",
        {"id": campaign.id, "state": campaign.state, "more": int(is_another), **_values(content)},
    )
    return cursor.rowcount == 1


_EXPIRE_QUEUED = """
WITH waiting AS MATERIALIZED (
    SELECT id FROM messages WHERE campaign_id = %(id)s AND due_at IS NOT NULL AND state = 'queued' AND NOT is_test
    ORDER BY id FOR NO KEY UPDATE
)
UPDATE messages m SET expires_at = %(at)s, due_at = LEAST(m.due_at, %(at)s) FROM waiting WHERE m.id = waiting.id
"""


async def expire_queued(c: Connection, id_: UUID, at: datetime | None) -> None:
    """Its messages that wait in the queue expire when it does now. It is locked."""
    await c.execute(_EXPIRE_QUEUED, {"id": id_, "at": at})


async def unpace(c: Connection, id_: UUID) -> None:
    """Its batches that wait for their place in its rate ask for one anew. It is locked."""
    await c.execute(
        "UPDATE campaign_batches SET is_paced = false, due_at = LEAST(due_at, clock_timestamp())"
        " WHERE campaign_id = %s AND decided_at IS NULL AND due_at IS NOT NULL AND is_paced AND step = 0",
        (id_,),
    )


async def find(c: Connection, id_: UUID) -> Campaign | None:
    """One of them."""
    found = await rows(c, f"SELECT {_COLUMNS} FROM campaigns WHERE id = %s", (id_,))
    return _campaign(found[0]) if found else None


async def lock(c: Connection, id_: UUID) -> Campaign | None:
    """One of them, which nobody else moves until the transaction ends."""
    found = await rows(c, f"SELECT {_COLUMNS} FROM campaigns WHERE id = %s FOR NO KEY UPDATE", (id_,))
    return _campaign(found[0]) if found else None


async def page(c: Connection, *, before: UUID | None, limit: int, state: CampaignState | None = None) -> list[Campaign]:
    """The newest first: those that were made before one, at most `limit`."""
    found = await rows(
        c,
        f"SELECT {_COLUMNS} FROM campaigns WHERE (%(before)s::uuid IS NULL OR id < %(before)s)"
        " AND (%(state)s::text IS NULL OR state = %(state)s) ORDER BY id DESC LIMIT %(limit)s",
        {"before": before, "state": state, "limit": limit},
    )
    return [_campaign(row) for row in found]


def _campaign(row: Row) -> Campaign:
    content = Content(**{name: row[name] for name in _CONTENT})
    others = {name: row[name] for name in _OTHERS}
    others["state"] = CampaignState(row["state"])
    others["category"] = Category(row["category"]) if row["category"] else None
    return Campaign(content=content, **others)


def _values(content: Content) -> dict[str, Any]:
    values = {name: getattr(content, name) for name in _CONTENT}
    return {name: Jsonb(dict(value)) if isinstance(value, Mapping) else value for name, value in values.items()}


# Its states -----------------------------------------------------------------------------------------------------------


async def schedule(c: Connection, id_: UUID, approval: Approval) -> bool:
    """`draft` -> `scheduled`, with the version that is pinned and the plan that was approved."""
    moved = await _move(
        c,
        id_,
        CampaignState.SCHEDULED,
        "template_version = %(version)s, topic = %(topic)s, category = %(category)s, is_notice = %(is_notice)s,"
        " plan_hash = %(hash)s, starts_at = %(starts_at)s, expires_at = %(expires_at)s, scheduled_by = %(by)s,"
        " scheduled_at = clock_timestamp()",
        {
            "version": approval.template_version,
            "topic": approval.topic,
            "category": approval.category,
            "is_notice": approval.is_notice,
            "hash": approval.plan_hash,
            "starts_at": approval.starts_at,
            "expires_at": approval.expires_at,
            "by": approval.by,
        },
    )
    if moved:
        await c.execute(
            "UPDATE campaign_plans SET approved_by = %s, approved_at = clock_timestamp() WHERE id = %s",
            (approval.by, approval.plan),
        )
    return moved


async def unschedule(c: Connection, id_: UUID) -> bool:
    """`scheduled` -> `draft`: nothing is pinned and nothing approved any more.

    An expiry that was left to the template, as the approved plan says, is left to it again.
    """
    return await _move(
        c,
        id_,
        CampaignState.DRAFT,
        "template_version = NULL, topic = NULL, category = NULL, plan_hash = NULL, starts_at = NULL,"
        " scheduled_by = NULL, scheduled_at = NULL, expires_at = CASE WHEN EXISTS (SELECT 1 FROM campaign_plans p"
        "  WHERE p.campaign_id = campaigns.id AND p.hash = campaigns.plan_hash AND p.approved_at IS NOT NULL"
        "  AND p.plan -> 'definition' -> 'expires_at' = 'null') THEN NULL ELSE expires_at END",
    )


async def pause(c: Connection, id_: UUID, why: str) -> bool:
    """`sending` -> `paused`."""
    return await _move(c, id_, CampaignState.PAUSED, "pause_reason = %(why)s", {"why": why})


async def resume(c: Connection, id_: UUID) -> bool:
    """`paused` -> `sending`; batches that were left alone are tried again. `wake` what had waited for that."""
    moved = await _move(
        c, id_, CampaignState.SENDING, "pause_reason = NULL, spoiled = 0, spoiled_in_row = 0", only=CampaignState.PAUSED
    )
    if moved:
        await c.execute(
            "UPDATE campaign_batches SET claims = 0"
            " WHERE campaign_id = %s AND decided_at IS NULL AND due_at IS NOT NULL AND claims > 0",
            (id_,),
        )
    return moved


async def cancel(c: Connection, id_: UUID) -> bool:
    """Whatever is not over -> `cancelled`, with every batch that nobody has in hand. `cancel_queued` the messages.

    Whoever holds a batch, or takes a message, finds the campaign cancelled at the gate.
    """
    moved = await _move(c, id_, CampaignState.CANCELLED, "ended_at = clock_timestamp(), pause_reason = NULL")
    if moved:
        await leave_out(c, id_, "cancelled")
        await count_again(c, id_)
    return moved


# A campaign may have a million messages in the queue: they follow its state in pieces, a transaction each.
_QUEUED = """
WITH waiting AS MATERIALIZED (
    SELECT id FROM messages
    WHERE campaign_id = %(campaign)s AND due_at IS NOT NULL AND state = 'queued' AND id > %(after)s AND {also}
    ORDER BY id LIMIT %(limit)s FOR NO KEY UPDATE
), changed AS (UPDATE messages m SET {assignments} FROM waiting WHERE m.id = waiting.id)
SELECT id FROM waiting ORDER BY id DESC LIMIT 1
"""
_WAKE = _QUEUED.format(
    also="reason = 'campaign_paused' AND due_at > clock_timestamp()", assignments="due_at = clock_timestamp()"
)
_CANCEL_QUEUED = _QUEUED.format(
    also="true", assignments="state = 'cancelled', reason = 'campaign_cancelled', due_at = NULL"
)


async def wake(c: Connection, campaign: UUID, after: UUID, limit: int) -> UUID | None:
    """Let the next of its messages that wait for a resume be due; the last one of them, None: there are no more."""
    return await _each_queued(c, _WAKE, campaign, after, limit)


async def cancel_queued(c: Connection, campaign: UUID, after: UUID, limit: int) -> UUID | None:
    """Cancel the next of its messages that wait in the queue; returns as `wake`."""
    return await _each_queued(c, _CANCEL_QUEUED, campaign, after, limit)


async def _each_queued(c: Connection, query: str, campaign: UUID, after: UUID, limit: int) -> UUID | None:
    found = await rows(c, query, {"campaign": campaign, "after": after, "limit": limit})
    return found[0]["id"] if found else None


async def _move(
    c: Connection,
    id_: UUID,
    to: CampaignState,
    also: str,
    values: Mapping[str, Any] | None = None,
    *,
    only: CampaignState | None = None,
) -> bool:
    """Compare and set; False: it is not in a state from which it may go there."""
    expected = may_become(to) if only is None else may_become(to) & {only}
    cursor = await c.execute(
        f"UPDATE campaigns SET state = %(to)s, {also} WHERE id = %(id)s AND state = ANY(%(expected)s)",
        {"id": id_, "to": to, "expected": [str(state) for state in expected], **(values or {})},
    )
    return cursor.rowcount == 1


# Dry-runs -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Plan:
    """A dry-run, under way or done."""

    id: UUID
    revision: int
    template_version: int
    asked_at: datetime
    progress: Mapping[str, Any]
    plan: Mapping[str, Any] | None
    hash: str | None
    problem: str | None
    approved_by: str | None
    approved_at: datetime | None


_PLAN = ", ".join(Plan.__slots__)


async def ask_plan(c: Connection, id_: UUID, campaign: Campaign, version: int) -> UUID:
    """Ask for a dry-run, or for the one that is under way. The campaign is locked; the scheduler reckons."""
    under_way = await rows(
        c,
        "SELECT id FROM campaign_plans WHERE campaign_id = %s AND revision = %s AND template_version = %s"
        " AND plan IS NULL AND problem IS NULL",
        (campaign.id, campaign.revision, version),
    )
    if under_way:
        found: UUID = under_way[0]["id"]
        return found
    await c.execute(
        "INSERT INTO campaign_plans (id, campaign_id, revision, template_version) VALUES (%s, %s, %s, %s)",
        (id_, campaign.id, campaign.revision, version),
    )
    return id_


async def latest_plan(c: Connection, campaign: UUID) -> Plan | None:
    """The dry-run that was asked for last."""
    query = f"SELECT {_PLAN} FROM campaign_plans WHERE campaign_id = %s ORDER BY asked_at DESC, id DESC LIMIT 1"
    found = await rows(c, query, (campaign,))
    return Plan(**found[0]) if found else None


async def plans_with(c: Connection, campaign: UUID, hash_: str) -> Sequence[Plan]:
    """The finished dry-runs of a campaign that have this hash, the newest first."""
    query = f"SELECT {_PLAN} FROM campaign_plans WHERE campaign_id = %s AND hash = %s ORDER BY asked_at DESC"
    return [Plan(**row) for row in await rows(c, query, (campaign, hash_))]
