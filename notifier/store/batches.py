"""Batches of campaigns: slices of an audience that are planned together, decided together and sent together.

A batch waits until a worker takes it in hand. Its messages become rows when it is decided, with their attempts, in one
transaction; until then a death costs nothing, and afterwards its messages are like any others.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from notifier.domain.campaigns import CampaignState, Failures, may_become
from notifier.domain.messages import Category, Lane, State
from notifier.store.database import Connection, Row, rows, tuples
from notifier.store.messages import Intent
from notifier_channels.contract import Channel


@dataclass(frozen=True, slots=True)
class Campaign:
    """A campaign as far as its messages need it."""

    id: UUID
    state: CampaignState
    data: Mapping[str, Any]
    sender: str | None
    expires_at: datetime | None  #: None: a draft
    spoiled_in_row: int  #: the last so many messages failed by our own fault


@dataclass(frozen=True, slots=True)
class PlannedBatch:
    """A slice of the audience that this worker has in hand."""

    campaign_id: UUID
    n: int
    channel: Channel
    step: int
    recipients: Sequence[UUID]
    starts_at: datetime
    is_paced: bool
    rate: float | None  #: of the campaign, in messages a second
    template_version: int
    topic: str
    category: Category


_CAMPAIGNS = "SELECT id, state, data, sender, expires_at, spoiled_in_row FROM campaigns WHERE id = ANY(%s)"


async def campaigns(c: Connection, ids: Collection[UUID]) -> dict[UUID, Campaign]:
    """These campaigns, as they stand now. One that is paused stays so until the transaction ends.

    Whoever resumes it wakes what waits for that: also what this transaction is laying aside.
    """
    found = await _campaigns(c, _CAMPAIGNS, ids)
    if paused := [id_ for id_, campaign in found.items() if campaign.state is CampaignState.PAUSED]:
        # Not when it is sent: a pause would have to wait until no gate is open anywhere.
        found |= await _campaigns(c, f"{_CAMPAIGNS} FOR SHARE", paused)
    return found


async def _campaigns(c: Connection, query: str, ids: Collection[UUID]) -> dict[UUID, Campaign]:
    found = await rows(c, query, (list(ids),))
    return {row["id"]: Campaign(**{**row, "state": CampaignState(row["state"])}) for row in found}


# In hand --------------------------------------------------------------------------------------------------------------

# One that was taken in hand several times and never decided may be what brings workers down: it is not taken again, and
# whoever finds the last of them dead pauses its campaign (`requeue`).
_CLAIM = """
WITH taken AS MATERIALIZED (
    SELECT w.campaign_id, w.n, w.due_at
    FROM campaign_batches w JOIN campaigns s ON s.id = w.campaign_id AND s.state = 'sending'
    WHERE w.channel = %(channel)s AND w.due_at <= statement_timestamp() AND w.claims < %(claims)s
    ORDER BY w.due_at, w.campaign_id, w.n LIMIT 1 FOR NO KEY UPDATE OF w SKIP LOCKED
)
UPDATE campaign_batches b SET worker_id = %(worker)s, due_at = NULL, claims = b.claims + 1
FROM campaigns c, taken
WHERE (b.campaign_id, b.n) = (taken.campaign_id, taken.n) AND c.id = b.campaign_id
RETURNING b.campaign_id, b.n, b.channel, b.step, b.recipients, b.starts_at, b.is_paced,
          c.rate, c.template_version, c.topic, c.category, taken.due_at
"""
MAX_CLAIMS = 3


async def claim(c: Connection, worker: int, channel: Channel, limit: int) -> PlannedBatch | None:
    """Take up to `limit` people in hand, of the batch that has waited longest and whose campaign is being sent."""
    asked = {"worker": worker, "channel": channel, "claims": MAX_CLAIMS, "limit": limit}
    found = await rows(c, _CLAIM, asked)
    if not found:
        return None
    row = found[0]
    due_at: datetime = row.pop("due_at")
    batch = PlannedBatch(**{**row, "channel": Channel(row["channel"]), "category": Category(row["category"])})
    return await _split(c, worker, batch, limit, due_at) if len(batch.recipients) > limit else batch


# Whoever cancels a campaign puts aside what waits, and would not see what a claim is about to leave: they take turns.
_SPLIT = """
WITH held AS MATERIALIZED (
    SELECT b.*, s.state, s.is_over
    FROM (SELECT id, state, state IN ('cancelled', 'finished') AS is_over FROM campaigns WHERE id = %(campaign)s
          FOR SHARE) AS s
    JOIN campaign_batches b ON b.campaign_id = s.id AND b.n = %(n)s AND b.worker_id = %(worker)s
    FOR NO KEY UPDATE OF b
), rest AS (
    INSERT INTO campaign_batches (campaign_id, channel, step, recipients, starts_at, is_paced, due_at, decided_at,
        left_out)
    SELECT campaign_id, channel, step, recipients[%(limit)s + 1 :], starts_at, is_paced,
        CASE WHEN NOT is_over THEN %(due_at)s END, CASE WHEN is_over THEN clock_timestamp() END,
        CASE WHEN is_over THEN state END
    FROM held
)
UPDATE campaign_batches b SET recipients = b.recipients[: %(limit)s]
FROM held WHERE (b.campaign_id, b.n) = (held.campaign_id, held.n)
"""


async def _split(c: Connection, worker: int, batch: PlannedBatch, limit: int, due_at: datetime) -> PlannedBatch:
    """What is more than the provider takes at once goes on waiting as a batch of its own, since `due_at`."""
    asked = {"campaign": batch.campaign_id, "n": batch.n, "worker": worker, "limit": limit, "due_at": due_at}
    await c.execute(_SPLIT, asked)
    return replace(batch, recipients=batch.recipients[:limit])


async def waiting(c: Connection, channels: Sequence[Channel]) -> set[Channel]:
    """Those of these channels for which a batch waits."""
    found = await rows(
        c,
        "SELECT channel FROM unnest(%s::text[]) AS asked (channel) WHERE EXISTS (SELECT 1 FROM campaign_batches b"
        " JOIN campaigns c ON c.id = b.campaign_id AND c.state = 'sending'"
        " WHERE b.channel = asked.channel AND b.due_at <= statement_timestamp() AND b.claims < %s)",
        ([str(channel) for channel in channels], MAX_CLAIMS),
    )
    return {Channel(row["channel"]) for row in found}


# Whoever cancels a campaign puts aside what waits: what comes back meanwhile must see it.
_BACK = """
UPDATE campaign_batches b SET worker_id = NULL, claims = b.claims - %(spared)s,
    is_paced = coalesce(%(is_paced)s, b.is_paced),
    due_at = CASE WHEN NOT s.is_over THEN clock_timestamp() + %(wait)s * interval '1 second' END,
    decided_at = CASE WHEN s.is_over THEN clock_timestamp() END, left_out = CASE WHEN s.is_over THEN s.state END
FROM (SELECT id, state, state IN ('cancelled', 'finished') AS is_over FROM campaigns WHERE id = ANY(%(campaigns)s)
      ORDER BY id FOR SHARE) AS s
WHERE b.campaign_id = s.id AND b.worker_id = %(worker)s AND b.decided_at IS NULL
"""


async def give_back(c: Connection, worker: int, batch: PlannedBatch, wait: float = 0.0, *, is_paced: bool) -> None:
    """Let it wait again, unharmed: it counts as not taken in hand. `wait`: seconds until it is due.

    Of a campaign that has ended it is left out.
    """
    asked = {"worker": worker, "campaigns": [batch.campaign_id], "n": batch.n}
    await c.execute(f"{_BACK} AND b.n = %(n)s", {**asked, "wait": wait, "is_paced": is_paced, "spared": 1})


async def requeue(c: Connection, worker: int) -> None:
    """What a dead worker did not decide waits again. What brought down several of them stops its campaign."""
    found = await rows(
        c,
        "SELECT id FROM campaigns WHERE id IN (SELECT campaign_id FROM campaign_batches"
        "  WHERE worker_id = %s AND decided_at IS NULL) ORDER BY id FOR NO KEY UPDATE",  # it may be stopped
        (worker,),
    )
    asked = {"worker": worker, "campaigns": [row["id"] for row in found]}
    back = await rows(
        c, f"{_BACK} RETURNING b.campaign_id, b.claims", {**asked, "wait": 0, "is_paced": None, "spared": 0}
    )
    for campaign in {row["campaign_id"] for row in back if row["claims"] >= MAX_CLAIMS}:
        await stop(c, campaign, "poison")


async def let_go(c: Connection, worker: int) -> None:
    """What a dead worker had decided is settled now."""
    await c.execute("UPDATE campaign_batches SET worker_id = NULL WHERE worker_id = %s", (worker,))


# Decided --------------------------------------------------------------------------------------------------------------

_FACTS = """
SELECT r.id AS recipient_id, r.external_id, r.locale, r.timezone, r.snoozed_until, r.attributes,
       a.id AS address_id, a.address, a.address_hash, a.hash_key, a.removed_at,
       statement_timestamp() AS now,
       EXISTS (SELECT 1 FROM addresses o WHERE o.channel = a.channel AND o.address_hash = a.address_hash
               AND o.removed_at IS NULL AND o.recipient_id <> a.recipient_id) AS is_shared,
       CASE WHEN a.channel = 'push' THEN (SELECT d.platform FROM devices d WHERE d.address_id = a.id) END AS platform
FROM recipients r JOIN addresses a ON a.recipient_id = r.id AND a.channel = %s AND a.removed_at IS NULL
WHERE r.id = ANY(%s)
ORDER BY r.id, a.id
"""


async def facts_of(c: Connection, channel: Channel, people: Collection[UUID]) -> list[Row]:
    """All that gate and rendering need to know of each of their addresses, in one order: of two the first goes.

    They are locked, unless nothing is going to be sent.
    """
    return await rows(c, _FACTS, (channel, list(people)))


# Who holds an address is found by one index, and who held it by another: asked together, all addresses are read.
_TAKEN = """
WITH held AS MATERIALIZED (
    SELECT id, recipient_id, address_hash FROM addresses
    WHERE channel = %(channel)s AND address_hash = ANY(%(hashes)s) AND removed_at IS NULL
    UNION ALL
    SELECT id, recipient_id, address_hash FROM addresses
    WHERE channel = %(channel)s AND address_hash = ANY(%(hashes)s) AND removed_at IS NOT NULL
)
SELECT DISTINCT a.address_hash FROM held a JOIN messages m ON m.address_id = a.id AND m.recipient_id = a.recipient_id
    AND m.channel = %(channel)s AND m.campaign_id = %(campaign)s AND NOT m.is_test
WHERE m.state NOT IN ('suppressed', 'expired', 'cancelled') AND (m.step = 0 OR m.state NOT IN ('queued', 'claimed'))
"""


async def lock_shared(
    c: Connection, campaign: UUID, channel: Channel, hashes: Collection[bytes]
) -> set[tuple[UUID, bytes]]:
    """Of these addresses, which several people hold: those at which the campaign has gone to somebody already.

    Two batches with two holders of one address take turns until they commit. What waits in the queue may go, unless it
    is of a later step: that is not decided before its turn.
    """
    chosen = sorted(hashes)
    # Everywhere in one order: a sorted subquery is not flattened, so that the locks are taken row by row as they come.
    await c.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended(%s || encode(digest, 'hex'), 0))"
        " FROM (SELECT digest FROM unnest(%s::bytea[]) AS asked (digest) ORDER BY digest) AS ordered",
        (campaign.hex, chosen),
    )
    found = await rows(c, _TAKEN, {"campaign": campaign, "channel": channel, "hashes": chosen})
    return {(campaign, row["address_hash"]) for row in found}


class Born(NamedTuple):
    """A message of a campaign as it is decided."""

    id: UUID
    recipient_id: UUID
    address_id: UUID
    state: State
    decision: str | None  #: as JSON: most of a batch rest on the same
    reason: str | None = None
    due_at: datetime | None = None


# Marketing's lane for notices, too: whatever goes to everybody. A notice's one repeat counts as spent, so that it is
# sent at most once. Whoever has a message of this campaign keeps that one; where two of its people have become one, the
# other counts among those who were not reached, also when the one has another address by now. Asked of each by itself:
# what is joined may be read as a whole.
_BEAR = f"""
WITH born AS (
    INSERT INTO messages (id, campaign_id, recipient_id, address_id, channel, lane, category, topic, template_version,
        expires_at, repeated, step, turn_at, is_followed, state, reason, due_at, decision)
    SELECT v.id, %(campaign)s, v.recipient_id, v.address_id, %(channel)s, '{Lane.MARKETING}', %(category)s, %(topic)s,
        %(version)s, %(expires_at)s, %(category)s = '{Category.TRANSACTIONAL}', %(step)s, %(turn_at)s, %(is_followed)s,
        v.state, v.reason, v.due_at, v.decision::jsonb
    FROM unnest(%(ids)s::uuid[], %(recipients)s::uuid[], %(addresses)s::uuid[], %(states)s::text[], %(reasons)s::text[],
        %(due)s::timestamptz[], %(decisions)s::text[])
        AS v (id, recipient_id, address_id, state, reason, due_at, decision)
    WHERE (SELECT true FROM messages o WHERE o.campaign_id = %(campaign)s AND o.recipient_id = v.recipient_id
           AND o.channel = %(channel)s AND NOT o.is_test AND o.state NOT IN ('suppressed', 'expired', 'cancelled')
           LIMIT 1) IS NULL
    ON CONFLICT (campaign_id, recipient_id, channel, address_id) WHERE campaign_id IS NOT NULL AND NOT is_test
        DO NOTHING
    RETURNING id, recipient_id, state
), decided AS (
    UPDATE campaign_batches SET decided_at = clock_timestamp(),
        unreachable = cardinality(recipients) - (SELECT count(DISTINCT recipient_id) FROM born)
    WHERE campaign_id = %(campaign)s AND n = %(n)s
)
INSERT INTO attempts (message_id, n, worker_id, provider)
SELECT id, 1, %(worker)s, %(provider)s FROM born WHERE state = 'sending'
RETURNING message_id, n, number, started_at AS first_attempted_at
"""


@dataclass(frozen=True, slots=True)
class Times:
    """How long a batch's messages are of use; and of one on several channels, how they stand to those on the others."""

    expires_at: datetime
    turn_at: datetime | None = None  #: of a later step
    is_followed: bool = False


async def bear(
    c: Connection, worker: int, batch: PlannedBatch, times: Times, born: Sequence[Born], provider: str
) -> list[Intent]:
    """Insert the batch's messages as they were decided, with an attempt for each that may go.

    It is decided with that, and in hand until they are settled.
    """
    found = await tuples(
        c,
        _BEAR,
        {
            "campaign": batch.campaign_id,
            "n": batch.n,
            "channel": batch.channel,
            "category": batch.category,
            "topic": batch.topic,
            "version": batch.template_version,
            "expires_at": times.expires_at,
            "step": batch.step,
            "turn_at": times.turn_at,
            "is_followed": times.is_followed,
            "worker": worker,
            "provider": provider,
            "ids": [one.id for one in born],
            "recipients": [one.recipient_id for one in born],
            "addresses": [one.address_id for one in born],
            "states": [str(one.state) for one in born],
            "reasons": [one.reason for one in born],
            "due": [one.due_at for one in born],
            "decisions": [one.decision for one in born],
        },
    )
    return [Intent(*row) for row in found]


async def hold(c: Connection, worker: int, batch: PlannedBatch) -> bool:
    """Lock the batch; False when it is no longer in this worker's hands, and nothing of it may be decided."""
    found = await rows(
        c,
        "SELECT 1 FROM campaign_batches WHERE campaign_id = %s AND n = %s AND worker_id = %s FOR NO KEY UPDATE",
        (batch.campaign_id, batch.n, worker),
    )
    return bool(found)


async def awaits(c: Connection, batch: PlannedBatch, people: Collection[UUID]) -> bool:
    """True while one of these people, or somebody nameless whom they adopted, is undecided on an earlier channel.

    What was not decided there has no message yet that a later one could wait for.
    """
    found = await rows(
        c,
        "SELECT 1 FROM campaign_batches b WHERE b.campaign_id = %s AND b.decided_at IS NULL AND b.step < %s"
        " AND b.recipients && ARRAY(SELECT id FROM recipients WHERE id = ANY(%s) OR merged_into = ANY(%s)) LIMIT 1",
        (batch.campaign_id, batch.step, list(people), list(people)),
    )
    return bool(found)


async def done(c: Connection, batch: PlannedBatch) -> None:
    """Nobody has it in hand any more: its messages are settled."""
    await c.execute(
        "UPDATE campaign_batches SET worker_id = NULL WHERE campaign_id = %s AND n = %s", (batch.campaign_id, batch.n)
    )


async def leave_out(c: Connection, batch: PlannedBatch, reason: str) -> None:
    """Put aside a batch of a campaign that has ended. It stays: its people are part of what the report adds up."""
    await c.execute(
        "UPDATE campaign_batches SET worker_id = NULL, decided_at = clock_timestamp(), left_out = %s"
        " WHERE campaign_id = %s AND n = %s",
        (reason, batch.campaign_id, batch.n),
    )


# Stopped by itself ----------------------------------------------------------------------------------------------------


async def note_failures(c: Connection, campaign: UUID, failures: Failures) -> tuple[int, int, int]:
    """Count them: failed in all, failed in a row, and people decided about so far."""
    found = await rows(
        c,
        "UPDATE campaigns SET spoiled = spoiled + %(count)s,"
        " spoiled_in_row = coalesce(%(trailing)s, spoiled_in_row + %(count)s) WHERE id = %(id)s"
        " RETURNING spoiled, spoiled_in_row, (SELECT coalesce(sum(cardinality(recipients)), 0)::int"
        "   FROM campaign_batches WHERE campaign_id = %(id)s AND decided_at IS NOT NULL AND step = 0) AS decided",
        {"count": failures.count, "trailing": failures.trailing, "id": campaign},
    )
    return found[0]["spoiled"], found[0]["spoiled_in_row"], found[0]["decided"]


async def note_success(c: Connection, campaign: UUID) -> None:
    """The row of failures is broken."""
    await c.execute("UPDATE campaigns SET spoiled_in_row = 0 WHERE id = %s", (campaign,))


async def stop(c: Connection, campaign: UUID, reason: str) -> bool:
    """Pause it until a person has looked; False when it is not being sent any more."""
    cursor = await c.execute(
        "UPDATE campaigns SET state = 'paused', pause_reason = %s WHERE id = %s AND state = ANY(%s)",
        (reason, campaign, [str(state) for state in may_become(CampaignState.PAUSED)]),
    )
    return cursor.rowcount == 1
