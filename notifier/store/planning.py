"""Before a campaign's batches are in anybody's hands: its walks over the audience, what is cut from them, and its end.

Who plans locks the campaign, then its walks, then its batches. A look takes no lock: what is then written names what
was seen, and nothing is written when that has changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from notifier.domain.campaigns import CampaignState
from notifier.store.batches import MAX_CLAIMS
from notifier.store.database import Connection, rows
from notifier_channels.contract import Channel

EVERYBODY = ""  #: the zone of a walk that is the only one; beside walks of zones: those of whom none is known
MOVED = "*"  #: of the walk after those of all zones: for whom none of them has met, because they moved meanwhile


@dataclass(frozen=True, slots=True)
class Alive:
    """A campaign that is scheduled, sending or paused, as the planner sees it."""

    id: UUID
    state: CampaignState
    revision: int
    template_version: int
    audience: Mapping[str, Any]
    schedule: Mapping[str, Any]
    rate: float | None
    expires_at: datetime | None
    scheduled_at: datetime
    last_occurrence: datetime | None  #: of a recurring one
    now: datetime


@dataclass(frozen=True, slots=True)
class Walk:
    """How far the audience, or its people of one zone, has been walked."""

    zone: str
    due_at: datetime
    size: int  #: people, when it began
    position: UUID | None = None  #: the last one who is in a batch
    planned: int = 0  #: people who are


@dataclass(frozen=True, slots=True)
class Slice:
    """A batch that is to be: these of the people who come next in a walk, on one channel."""

    channel: Channel
    step: int
    first: int  #: the place of its first person among them
    end: int  #: and the one after its last
    starts_at: datetime
    due_at: datetime


@dataclass(frozen=True, slots=True)
class Page:
    """The people who come next in a walk, and the batches that are made of them."""

    people: Sequence[UUID]
    slices: Sequence[Slice]
    position: UUID | None  #: where it ends; None: nobody was met
    is_last: bool  #: nobody comes after them


async def alive(c: Connection) -> list[Alive]:
    """Every campaign that something may have to be done for, those that began first at the head."""
    async with c.cursor(row_factory=class_row(Alive)) as cursor:
        await cursor.execute(
            "SELECT id, state, revision, template_version, audience, schedule, rate, expires_at, scheduled_at,"
            " (SELECT max(o.occurs_at) FROM campaigns o WHERE o.series_id = s.id) AS last_occurrence,"
            " clock_timestamp() AS now"
            " FROM campaigns s WHERE state IN ('scheduled', 'sending', 'paused') ORDER BY started_at NULLS LAST, id"
        )
        return await cursor.fetchall()


async def begin(c: Connection, campaign: Alive, walks: Sequence[Walk]) -> bool:
    """`scheduled` -> `sending`, with its walks; False when it is no longer as it was seen."""
    moved = await c.execute(
        "UPDATE campaigns SET state = 'sending', started_at = clock_timestamp(), starts_at = %s, audience_size = %s"
        " WHERE id = %s AND state = 'scheduled' AND revision = %s AND scheduled_at = %s",
        (
            min((walk.due_at for walk in walks), default=campaign.now),
            sum(walk.size for walk in walks),
            campaign.id,
            campaign.revision,
            campaign.scheduled_at,
        ),
    )
    if not moved.rowcount:
        return False
    await c.execute(
        "INSERT INTO campaign_walks (campaign_id, zone, due_at, size)"
        " SELECT %s, v.* FROM unnest(%s::text[], %s::timestamptz[], %s::int[]) AS v (zone, due_at, size)",
        (campaign.id, [w.zone for w in walks], [w.due_at for w in walks], [w.size for w in walks]),
    )
    return True


async def give_up(c: Connection, campaign: Alive, people: int) -> bool:
    """`scheduled` -> `finished`, for it expired before it began, and so many `people` were left out.

    A recurring one only comes to its end: it has nobody.
    """
    moved = await c.execute(
        "UPDATE campaigns SET state = 'finished', ended_at = clock_timestamp(), audience_size = %s, left_out = %s"
        " WHERE id = %s AND state = 'scheduled' AND revision = %s AND scheduled_at = %s",
        (people, Jsonb({"expired": people} if people else {}), campaign.id, campaign.revision, campaign.scheduled_at),
    )
    return bool(moved.rowcount)


async def open_walks(c: Connection, campaign: UUID) -> list[Walk]:
    """Its walks that have not ended, the one that is due first at the head."""
    async with c.cursor(row_factory=class_row(Walk)) as cursor:
        await cursor.execute(
            "SELECT zone, due_at, size, position, planned FROM campaign_walks"
            " WHERE campaign_id = %s AND ended_at IS NULL ORDER BY due_at, zone",
            (campaign,),
        )
        return await cursor.fetchall()


async def waiting(c: Connection, campaign: UUID) -> dict[Channel, int]:
    """How many batches wait on each channel, not counting those whose turn comes after another channel's."""
    found = await rows(
        c,
        "SELECT channel, count(*) AS batches FROM campaign_batches"
        " WHERE campaign_id = %s AND decided_at IS NULL AND due_at IS NOT NULL AND step = 0 GROUP BY channel",
        (campaign,),
    )
    return {Channel(row["channel"]): row["batches"] for row in found}


async def changed(c: Connection, campaign: UUID, people: Sequence[UUID]) -> dict[UUID, bool]:
    """Who of these people has changed since the campaign began; and whether they are in a batch of it already."""
    found = await rows(
        c,
        "SELECT id FROM recipients WHERE id = ANY(%s)"
        " AND updated_at > (SELECT started_at - interval '1 minute' FROM campaigns WHERE id = %s)",
        (list(people), campaign),
    )
    if not found:
        return {}  # as nearly always: the batches are not looked through
    ids = [row["id"] for row in found]
    planned = await rows(
        c,
        "SELECT DISTINCT person FROM campaign_batches, unnest(recipients) AS person"
        " WHERE campaign_id = %s AND person = ANY(%s)",
        (campaign, ids),
    )
    are_planned = {row["person"] for row in planned}
    return {id_: id_ in are_planned for id_ in ids}


async def cut(c: Connection, campaign: UUID, walk: Walk, page: Page) -> bool:
    """Put the next people of a walk into batches, all or none; False: it is not being sent, or another was first."""
    if not await rows(c, "SELECT 1 FROM campaigns WHERE id = %s AND state = 'sending' FOR SHARE", (campaign,)):
        return False
    moved = await c.execute(
        "UPDATE campaign_walks SET position = COALESCE(%(last)s, position), planned = planned + %(people)s,"
        " size = CASE WHEN %(is_last)s THEN planned + %(people)s ELSE size END,"
        " ended_at = CASE WHEN %(is_last)s THEN clock_timestamp() END"
        " WHERE campaign_id = %(id)s AND zone = %(zone)s AND position IS NOT DISTINCT FROM %(position)s"
        " AND ended_at IS NULL",
        {
            "id": campaign,
            "zone": walk.zone,
            "position": walk.position,
            "last": page.position,
            "people": len(page.people),
            "is_last": page.is_last,
        },
    )
    if moved.rowcount and page.slices:
        await _insert(c, campaign, page.people, page.slices)
    return bool(moved.rowcount)


async def _insert(c: Connection, campaign: UUID, people: Sequence[UUID], slices: Sequence[Slice]) -> None:
    await c.execute(
        "INSERT INTO campaign_batches (campaign_id, channel, step, recipients, starts_at, due_at)"
        " SELECT %(campaign)s, v.channel, v.step, people.ids[v.first + 1:v.final], v.starts_at, v.due_at"
        " FROM (SELECT %(people)s::uuid[] AS ids) AS people,"
        " unnest(%(channels)s::text[], %(steps)s::int[], %(firsts)s::int[], %(ends)s::int[],"
        "  %(starts)s::timestamptz[], %(dues)s::timestamptz[]) WITH ORDINALITY"
        " AS v (channel, step, first, final, starts_at, due_at, n) ORDER BY v.n",
        {
            "campaign": campaign,
            "people": list(people),
            "channels": [str(one.channel) for one in slices],
            "steps": [one.step for one in slices],
            "firsts": [one.first for one in slices],
            "ends": [one.end for one in slices],
            "starts": [one.starts_at for one in slices],
            "dues": [one.due_at for one in slices],
        },
    )


async def due(c: Connection, at_most: int) -> int:
    """How many batches of campaigns that are being sent wait to be claimed, counted no further than `at_most`."""
    found = await rows(
        c,
        "SELECT count(*) AS due FROM (SELECT 1 FROM campaign_batches b"
        " JOIN campaigns s ON s.id = b.campaign_id AND s.state = 'sending'"
        " WHERE b.channel = ANY(%s) AND b.due_at <= statement_timestamp() AND b.claims < %s LIMIT %s) AS waiting",
        ([str(channel) for channel in Channel], MAX_CLAIMS, at_most),
    )
    batches: int = found[0]["due"]
    return batches


async def poisonous(c: Connection, worker: int) -> list[UUID]:
    """The campaigns of which a dead worker has a batch in hand that brought down others before it."""
    found = await rows(
        c,
        "SELECT DISTINCT campaign_id FROM campaign_batches"
        " WHERE worker_id = %s AND decided_at IS NULL AND claims >= %s",
        (worker, MAX_CLAIMS),
    )
    return [row["campaign_id"] for row in found]


async def leave_out(c: Connection, campaign: UUID, reason: str) -> int:
    """End its walks and put its batches that wait aside, for the campaign is `expired` or `cancelled`. It is locked.

    Returns how many people were left out by that. Those in no batch are added to its `left_out`, the batches are
    marked. What is in hand goes its way.

    While it is not known who has moved out of a zone that has been walked, whoever was counted is taken to be there.
    """
    [row] = await rows(
        c,
        "WITH ended AS (UPDATE campaign_walks SET ended_at = clock_timestamp()"
        "  WHERE campaign_id = %(id)s AND ended_at IS NULL RETURNING zone, GREATEST(size - planned, 0) AS people),"
        " waiting AS MATERIALIZED (SELECT n FROM campaign_batches"
        "  WHERE campaign_id = %(id)s AND decided_at IS NULL AND due_at IS NOT NULL FOR UPDATE SKIP LOCKED),"
        " dropped AS (UPDATE campaign_batches b"
        "  SET due_at = NULL, decided_at = clock_timestamp(), left_out = %(reason)s"
        "  FROM waiting WHERE b.campaign_id = %(id)s AND b.n = waiting.n RETURNING b.recipients)"
        " SELECT GREATEST((SELECT COALESCE(sum(people), 0) FROM ended),"
        "   (SELECT s.audience_size - sum(w.planned) FROM campaigns s JOIN campaign_walks w ON w.campaign_id = s.id"
        "    WHERE s.id = %(id)s AND EXISTS (SELECT 1 FROM ended WHERE zone = %(moved)s) GROUP BY s.id)"
        "  )::int AS unplanned,"
        "  (SELECT count(DISTINCT person) FROM dropped, unnest(dropped.recipients) AS person) AS planned",
        {"id": campaign, "reason": reason, "moved": MOVED},
    )
    people: int = row["unplanned"]
    if people:
        await c.execute(
            "UPDATE campaigns SET left_out = jsonb_set(left_out, ARRAY[%(reason)s],"
            "  to_jsonb(COALESCE((left_out ->> %(reason)s)::int, 0) + %(people)s)) WHERE id = %(id)s",
            {"id": campaign, "reason": reason, "people": people},
        )
    return people + int(row["planned"])


# People who left the audience before they were walked are none of it.
_WALKED = "(SELECT sum(GREATEST(size, planned)) FROM campaign_walks w WHERE w.campaign_id = s.id)"


async def count_again(c: Connection, campaign: UUID) -> None:
    """Who was in a campaign that has just been cancelled, if it had begun."""
    await c.execute(
        f"UPDATE campaigns s SET audience_size = COALESCE({_WALKED}, audience_size) WHERE id = %s", (campaign,)
    )


async def expire(c: Connection, campaign: UUID) -> int:
    """Leave out whom a campaign had not got to when it expired; how many they are."""
    expired = "id = %s AND state IN ('sending', 'paused') AND expires_at <= clock_timestamp()"
    if not await rows(c, f"SELECT 1 FROM campaigns WHERE {expired} FOR NO KEY UPDATE", (campaign,)):
        return 0
    return await leave_out(c, campaign, "expired")


async def finish(c: Connection, campaign: UUID) -> bool:
    """-> `finished`, when nobody is left to be planned and no message on its way; a paused one only when it expired."""
    # In hand, and waiting: two small indexes. By the campaign alone, every message that it ever had would be looked at;
    # and without an order, all that waits of other campaigns.
    moved = await c.execute(
        "WITH in_hand AS MATERIALIZED (SELECT campaign_id FROM messages WHERE worker_id IS NOT NULL)"
        " UPDATE campaigns s SET state = 'finished', ended_at = clock_timestamp(), pause_reason = NULL,"
        f" audience_size = COALESCE({_WALKED}, 0)"
        " WHERE s.id = %s AND (s.state = 'sending' OR s.state = 'paused' AND s.expires_at <= clock_timestamp())"
        " AND NOT EXISTS (SELECT 1 FROM campaign_walks w WHERE w.campaign_id = s.id AND w.ended_at IS NULL)"
        " AND NOT EXISTS (SELECT 1 FROM campaign_batches b WHERE b.campaign_id = s.id"
        "  AND (b.decided_at IS NULL OR b.worker_id IS NOT NULL))"
        " AND NOT EXISTS (SELECT 1 FROM in_hand WHERE in_hand.campaign_id = s.id)"
        " AND (SELECT true FROM messages m WHERE m.campaign_id = s.id AND m.due_at IS NOT NULL"
        "  AND m.state = 'queued' AND NOT m.is_test ORDER BY m.id LIMIT 1) IS NULL",
        (campaign,),
    )
    return bool(moved.rowcount)


# What was approved: every occurrence of a series is sent like that.
_APPROVED = (
    "name, revision, template, data, audience, sender, rate, is_notice, created_by, template_version, topic, category,"
    " scheduled_by, scheduled_at, plan_hash"
)


async def occur(
    c: Connection, series: Alive, new: UUID, occurs_at: datetime, schedule: Mapping[str, Any], expires_at: datetime
) -> bool:
    """Make an occurrence of a recurring campaign of what was approved; False when it is there, or the series is not."""
    made = await c.execute(
        f"INSERT INTO campaigns (id, series_id, occurs_at, state, schedule, expires_at, {_APPROVED})"
        f" SELECT %s, id, %s, 'scheduled', %s, %s, {_APPROVED}"
        " FROM campaigns WHERE id = %s AND state = 'scheduled' AND revision = %s AND scheduled_at = %s"
        " FOR NO KEY UPDATE"
        " ON CONFLICT (series_id, occurs_at) WHERE series_id IS NOT NULL DO NOTHING",
        (new, occurs_at, Jsonb(dict(schedule)), expires_at, series.id, series.revision, series.scheduled_at),
    )
    return bool(made.rowcount)
