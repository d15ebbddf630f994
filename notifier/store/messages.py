"""The rows of messages and attempts: each transition names the state it expects, and takes a whole batch at once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from psycopg.types.json import Jsonb

from notifier.domain.consent import Decision, Topic, judge
from notifier.domain.messages import MAX_CLAIMS, Category, Lane, State
from notifier.domain.retry import Settlement
from notifier.store.consent import events_of
from notifier.store.database import Connection, Row, rows, tuples
from notifier_channels.contract import Channel


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message as it is accepted or planned: queued until `due_at`."""

    id: UUID
    notification_id: UUID | None
    recipient_id: UUID
    address_id: UUID
    channel: Channel
    lane: Lane
    category: Category
    topic: str
    template_version: int
    due_at: datetime
    expires_at: datetime
    step: int = 0  #: of a notification's channels in their order (`domain.routing`)
    turn_at: datetime | None = None  #: of a later step: when its turn comes at the latest
    is_followed: bool = False  #: another one waits for what becomes of this one
    campaign_id: UUID | None = None
    is_test: bool = False  #: of a campaign, to somebody who was named


async def insert(c: Connection, messages: Sequence[NewMessage]) -> None:
    """Store them queued; one statement whatever their number."""
    await c.execute(
        "INSERT INTO messages (id, notification_id, recipient_id, address_id, channel, lane, category, topic,"
        " template_version, due_at, expires_at, step, turn_at, is_followed, campaign_id, is_test)"
        " SELECT * FROM unnest(%s::uuid[], %s::uuid[], %s::uuid[], %s::uuid[], %s::text[], %s::text[], %s::text[],"
        " %s::text[], %s::int[], %s::timestamptz[], %s::timestamptz[], %s::int[], %s::timestamptz[], %s::bool[],"
        " %s::uuid[], %s::bool[])",
        (
            [message.id for message in messages],
            [message.notification_id for message in messages],
            [message.recipient_id for message in messages],
            [message.address_id for message in messages],
            [str(message.channel) for message in messages],
            [str(message.lane) for message in messages],
            [str(message.category) for message in messages],
            [message.topic for message in messages],
            [message.template_version for message in messages],
            [message.due_at for message in messages],
            [message.expires_at for message in messages],
            [message.step for message in messages],
            [message.turn_at for message in messages],
            [message.is_followed for message in messages],
            [message.campaign_id for message in messages],
            [message.is_test for message in messages],
        ),
    )


async def clock(c: Connection) -> datetime:
    """The database's clock, now: what leases, expiry and decisions go by."""
    moment: datetime = (await rows(c, "SELECT clock_timestamp() AS now"))[0]["now"]
    return moment


# Claim ----------------------------------------------------------------------------------------------------------------

# The ids that were rung for come first, by primary key; then whatever else of the lane has waited longest. A message
# that has been in the hands of two workers that died is left out: it travels alone (claim_suspect). The clock is the
# statement's: an index cannot look for clock_timestamp(), so that all that is due later would be read each time.
_CLAIM = f"""
WITH rung AS MATERIALIZED (
    SELECT id FROM messages
    WHERE id = ANY(%(rung)s) AND lane = %(lane)s AND channel = %(channel)s AND state = 'queued'
      AND due_at <= statement_timestamp() AND claims < {MAX_CLAIMS - 1}
    LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED
), others AS MATERIALIZED (
    SELECT id FROM messages
    WHERE lane = %(lane)s AND channel = %(channel)s AND state = 'queued'
      AND due_at <= statement_timestamp() AND claims < {MAX_CLAIMS - 1} AND id <> ALL(%(rung)s)
    ORDER BY due_at LIMIT %(limit)s - (SELECT count(*) FROM rung) FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE messages SET state = 'claimed', worker_id = %(worker)s, due_at = NULL, claims = claims + 1
WHERE id IN (SELECT id FROM rung UNION ALL SELECT id FROM others) AND state = 'queued'
RETURNING id, recipient_id
"""

_CLAIM_SUSPECT = f"""
UPDATE messages SET state = 'claimed', worker_id = %(worker)s, due_at = NULL, claims = claims + 1
WHERE state = 'queued' AND id = (
    SELECT id FROM messages
    WHERE lane = %(lane)s AND channel = %(channel)s AND state = 'queued'
      AND due_at <= statement_timestamp() AND claims >= {MAX_CLAIMS - 1}
    ORDER BY due_at LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED)
RETURNING id, recipient_id
"""


async def waiting(c: Connection, lane: Lane, channels: Sequence[Channel]) -> set[Channel]:
    """Those of these channels that have something due: one look at the head of each, however long its queue."""
    found = await rows(
        c,
        "SELECT channel FROM unnest(%s::text[]) AS asked (channel) WHERE EXISTS ("
        " SELECT 1 FROM messages m WHERE m.lane = %s AND m.channel = asked.channel AND m.state = 'queued'"
        " AND m.due_at <= statement_timestamp())",
        ([str(channel) for channel in channels], lane),
    )
    return {Channel(row["channel"]) for row in found}


@dataclass(frozen=True, slots=True)
class Claimed:
    """A message that this worker has in hand."""

    id: UUID
    recipient_id: UUID


async def claim(
    c: Connection, lane: Lane, worker: int, channel: Channel, rung: Sequence[UUID], limit: int
) -> list[Claimed]:
    """Take up to `limit` due messages in hand: `queued` -> `claimed`. Two workers never get the same one."""
    found = await rows(
        c,
        _CLAIM,
        {
            "lane": lane,
            "worker": worker,
            "channel": channel,
            "rung": list(rung),
            "limit": limit,
        },
    )
    return [Claimed(**row) for row in found]


async def claim_suspect(c: Connection, lane: Lane, worker: int, channel: Channel) -> list[Claimed]:
    """Take one message that two dead workers had in hand, alone: if it is poison, nothing else goes down with it."""
    found = await rows(c, _CLAIM_SUSPECT, {"lane": lane, "worker": worker, "channel": channel})
    return [Claimed(**row) for row in found]


async def release(c: Connection, worker: int, ids: Sequence[UUID], state: State) -> None:
    """Give back unharmed what this worker still holds in `state` without intent: it counts as not taken in hand."""
    await c.execute(
        "UPDATE messages SET state = 'queued', worker_id = NULL, due_at = clock_timestamp(), claims = claims - 1"
        " WHERE id = ANY(%s) AND worker_id = %s AND state = %s",
        (list(ids), worker, state),
    )


# Gate -----------------------------------------------------------------------------------------------------------------

_FACTS = """
SELECT m.id, m.recipient_id, m.channel, m.category, m.topic, m.template_version, m.expires_at, m.step, m.turn_at,
       m.is_followed, m.campaign_id, m.is_test, r.locale, r.timezone, r.snoozed_until, a.address, a.address_hash,
       a.hash_key, a.removed_at, n.data, CASE WHEN m.campaign_id IS NOT NULL THEN r.attributes END AS attributes,
       CASE WHEN m.channel = 'push' THEN (SELECT d.platform FROM devices d WHERE d.address_id = m.address_id) END
           AS platform,
       m.campaign_id IS NOT NULL AND m.step > 0 AND EXISTS (
           SELECT 1 FROM addresses o WHERE o.channel = a.channel AND o.address_hash = a.address_hash
           AND o.removed_at IS NULL AND o.recipient_id <> m.recipient_id) AS is_shared,
       clock_timestamp() AS now
FROM messages m
JOIN recipients r ON r.id = m.recipient_id
JOIN addresses a ON a.id = m.address_id
LEFT JOIN notifications n ON n.id = m.notification_id
WHERE m.id = ANY(%s)
"""


async def lock_claimed(c: Connection, worker: int, ids: Sequence[UUID]) -> list[UUID]:
    """Lock those that are still in this worker's hands; one that lost its lock no longer finds them."""
    found = await rows(
        c,
        "SELECT id FROM messages WHERE id = ANY(%s) AND worker_id = %s AND state = 'claimed'"
        " ORDER BY id FOR NO KEY UPDATE",
        (list(ids), worker),
    )
    return [row["id"] for row in found]


async def facts_of(c: Connection, ids: Sequence[UUID]) -> list[Row]:
    """All that the gate and the rendering need to know of each message but consent and suppressions."""
    return await rows(c, _FACTS, (list(ids),))


async def expire_at(c: Connection, instants: Mapping[UUID, datetime]) -> None:
    """Let these messages, which are locked, expire at another instant."""
    await c.execute(
        "UPDATE messages m SET expires_at = v.at FROM unnest(%s::uuid[], %s::timestamptz[]) AS v (id, at)"
        " WHERE m.id = v.id",
        (list(instants), list(instants.values())),
    )


async def earlier_of(c: Connection, ids: Sequence[UUID]) -> list[Row]:
    """For each of these messages of a later step, how those of the earlier steps stand."""
    return await rows(
        c,
        "SELECT m.id, e.channel, e.state, e.reason, e.due_at FROM messages m"
        " JOIN notifications n ON n.id = m.notification_id"
        " JOIN messages e ON e.id = ANY(n.message_ids) AND e.step < m.step"
        " WHERE m.id = ANY(%(ids)s)"
        " UNION ALL SELECT m.id, e.channel, e.state, e.reason, e.due_at FROM messages m"
        " JOIN messages e ON e.campaign_id = m.campaign_id AND e.recipient_id = m.recipient_id AND e.step < m.step"
        " AND NOT e.is_test WHERE m.id = ANY(%(ids)s)",
        {"ids": list(ids)},
    )


async def marketing_sent_to(
    c: Connection, recipients: Sequence[UUID], since: timedelta, at: datetime | None = None
) -> list[Row]:
    """The attempts of the `since` up to `at`, or now, by which marketing reached these people, or may have.

    They are locked.
    """
    return await rows(
        c,
        "SELECT m.recipient_id, m.topic, m.channel, a.number, a.started_at"
        " FROM (SELECT coalesce(%s::timestamptz, statement_timestamp()) AS at) AS asked CROSS JOIN messages m"
        " JOIN attempts a ON a.message_id = m.id"
        " WHERE m.recipient_id = ANY(%s) AND m.category = 'marketing' AND m.expires_at > asked.at - %s"
        " AND a.started_at > asked.at - %s AND a.started_at <= coalesce(%s::timestamptz, 'infinity')"
        " AND a.state IN ('started', 'accepted', 'unknown')",
        (at, list(recipients), since, since, at),
    )


async def wake_followers(c: Connection, ids: Sequence[UUID], due: Mapping[UUID, datetime] | None = None) -> None:
    """Let those that wait for these messages look now what has become of them. One that is not woken looks later.

    `due`: of those that ended before their own time, when that was. What follows them does not go earlier.
    """
    if ids:
        await c.execute(
            "UPDATE messages f SET due_at = GREATEST(clock_timestamp(), v.due)"
            " FROM unnest(%s::uuid[], %s::timestamptz[]) AS v (id, due) JOIN messages m USING (id)"
            " LEFT JOIN notifications n ON n.id = m.notification_id"
            " CROSS JOIN LATERAL (SELECT unnest(n.message_ids) AS id UNION ALL SELECT o.id FROM messages o"
            "   WHERE o.campaign_id = m.campaign_id AND o.recipient_id = m.recipient_id AND NOT o.is_test) AS beside"
            " WHERE m.is_followed AND f.id = beside.id AND f.step > m.step"
            " AND f.state = 'queued' AND f.due_at > GREATEST(clock_timestamp(), v.due)",
            (list(ids), [(due or {}).get(id_) for id_ in ids]),
        )


class Ruling(NamedTuple):
    """What the gate writes on a message."""

    id: UUID
    state: State
    decision: str | None  #: as JSON; None: the gate did not get that far, and an earlier one stands
    reason: str | None = None
    due_at: datetime | None = None


_RULE = """
UPDATE messages m
SET state = v.state, decision = COALESCE(v.decision::jsonb, m.decision), reason = v.reason, due_at = v.due_at,
    worker_id = CASE WHEN v.state = 'sending' THEN m.worker_id END,
    claims = CASE WHEN v.state = 'sending' THEN m.claims ELSE 0 END
FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::text[], %s::timestamptz[])
     AS v (id, state, decision, reason, due_at)
WHERE m.id = v.id AND m.state = 'claimed' AND m.worker_id = %s
"""


async def rule(c: Connection, worker: int, rulings: Sequence[Ruling]) -> None:
    """Write the gate's decisions: `claimed` -> `sending`, `suppressed`, `expired`, `failed` or deferred to `queued`."""
    await c.execute(
        _RULE,
        (
            [ruling.id for ruling in rulings],
            [str(ruling.state) for ruling in rulings],
            [ruling.decision for ruling in rulings],
            [ruling.reason for ruling in rulings],
            [ruling.due_at for ruling in rulings],
            worker,
        ),
    )


class Intent(NamedTuple):
    """An attempt that is committed: from now on a byte may leave."""

    message_id: UUID
    n: int
    number: int  #: from the ledger's sequence, drawn under the recipient's lock
    first_attempted_at: datetime


async def intend(c: Connection, worker: int, ids: Sequence[UUID], provider_of: Mapping[Channel, str]) -> list[Intent]:
    """Insert the attempts of messages that are `sending`. A repeat supersedes the attempt that is in doubt."""
    chosen = list(ids)
    await c.execute(
        "UPDATE attempts SET state = 'superseded' WHERE message_id = ANY(%s) AND state = 'unknown'", (chosen,)
    )
    found = await tuples(
        c,
        "INSERT INTO attempts (message_id, n, worker_id, provider)"
        " SELECT m.id, COALESCE(past.n, 0) + 1, %s, %s::jsonb ->> m.channel"
        " FROM messages m CROSS JOIN LATERAL (SELECT max(n) AS n FROM attempts a WHERE a.message_id = m.id) AS past"
        " WHERE m.id = ANY(%s) AND m.state = 'sending'"
        " RETURNING message_id, n, number, COALESCE((SELECT min(first.started_at) FROM attempts first"
        "   WHERE first.message_id = attempts.message_id), started_at) AS first_attempted_at",
        (worker, Jsonb({str(channel): name for channel, name in provider_of.items()}), chosen),
    )
    return [Intent(*row) for row in found]


# Settle ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Settled:
    """One outcome as it is written on a message and its attempt."""

    id: UUID
    n: int
    settlement: Settlement
    code: str = ""
    reference: str = ""
    detail: str = ""


_SETTLE_MESSAGES = """
UPDATE messages m
SET state = v.state, reason = v.reason, due_at = v.due_at, worker_id = NULL, claims = 0,
    tries = m.tries + v.counts::int
FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::timestamptz[], %s::bool[]) AS v (id, state, reason, due_at, counts)
WHERE m.id = v.id AND m.state IN ('sending', 'unknown')
"""

_SETTLE_ATTEMPTS = """
UPDATE attempts a
SET state = v.state, code = NULLIF(v.code, ''), reference = NULLIF(v.reference, ''), detail = NULLIF(v.detail, ''),
    settled_at = clock_timestamp()
FROM unnest(%s::uuid[], %s::int[], %s::text[], %s::text[], %s::text[], %s::text[])
     AS v (message_id, n, state, code, reference, detail)
WHERE a.message_id = v.message_id AND a.n = v.n
"""


async def lock(c: Connection, ids: Collection[UUID]) -> None:
    """Lock these in id order until the transaction ends."""
    await c.execute("SELECT 1 FROM messages WHERE id = ANY(%s) ORDER BY id FOR NO KEY UPDATE", (list(ids),))


async def lock_attempted(c: Connection, worker: int, attempts: Mapping[UUID, int]) -> list[Row]:
    """Lock the messages whose attempt by this worker still waits for its outcome, be they `sending` or in doubt.

    A fenced worker's late answer still finds its message `unknown`; one that was repeated meanwhile it does not find.
    """
    # Two statements: after a wait for a sweep, one would see the message as it is and the attempt as it was.
    await lock(c, attempts)
    return await rows(
        c,
        "SELECT m.id, m.state, m.recipient_id, m.channel, m.category, m.tries, m.repeated, m.claims, m.expires_at,"
        " m.is_followed, a.n, a.provider, clock_timestamp() AS now"
        " FROM unnest(%s::uuid[], %s::int[]) AS v (id, n)"
        " JOIN messages m ON m.id = v.id"
        " JOIN attempts a ON a.message_id = v.id AND a.n = v.n"
        " WHERE a.worker_id = %s AND (a.state, m.state) IN (('started', 'sending'), ('unknown', 'unknown'))"
        " ORDER BY m.id",
        (list(attempts), list(attempts.values()), worker),
    )


# Nearly all of a batch, and there is little to say of each.
_TAKE = """
WITH taken AS (
    UPDATE messages m SET state = 'accepted', reason = NULL, due_at = NULL, worker_id = NULL, claims = 0
    FROM unnest(%(ids)s::uuid[], %(ns)s::int[]) AS v (id, n)
    JOIN attempts a ON a.message_id = v.id AND a.n = v.n AND a.worker_id = %(worker)s
    WHERE m.id = v.id AND (a.state, m.state) IN (('started', 'sending'), ('unknown', 'unknown'))
    RETURNING m.id, m.is_followed
), written AS (
    UPDATE attempts a SET state = 'accepted', code = NULLIF(v.code, ''), reference = NULLIF(v.reference, ''),
        detail = NULL, settled_at = clock_timestamp()
    FROM unnest(%(ids)s::uuid[], %(ns)s::int[], %(codes)s::text[], %(references)s::text[])
        AS v (id, n, code, reference) JOIN taken USING (id)
    WHERE a.message_id = v.id AND a.n = v.n
)
SELECT id, is_followed, EXISTS (SELECT 1 FROM delivery_events e WHERE e.message_id = taken.id) AS is_reported FROM taken
"""


class Taken(NamedTuple):
    """An attempt that a provider took."""

    id: UUID
    n: int
    code: str
    reference: str


class Accepted(NamedTuple):
    """A message that was settled so."""

    id: UUID
    is_followed: bool  #: another message waits for what becomes of it
    is_reported: bool  #: what the provider says of it came before our own commit


async def take(c: Connection, worker: int, taken: Sequence[Taken]) -> list[Accepted]:
    """Settle attempts of this worker that a provider took; the messages are locked.

    Returns those that it still had to be told of: see `lock_attempted`.
    """
    ids, ns, codes, references = (list(column) for column in zip(*taken, strict=True))
    asked = {"worker": worker, "ids": ids, "ns": ns, "codes": codes, "references": references}
    return [Accepted(*row) for row in await tuples(c, _TAKE, asked)]


async def settle(c: Connection, settled: Sequence[Settled]) -> None:
    """Write outcomes on messages that `lock_attempted` locked in this transaction, and on their attempts."""
    await c.execute(
        _SETTLE_MESSAGES,
        (
            [one.id for one in settled],
            [str(one.settlement.state) for one in settled],
            [one.settlement.reason for one in settled],
            [one.settlement.due_at for one in settled],
            [one.settlement.counts for one in settled],
        ),
    )
    await c.execute(
        _SETTLE_ATTEMPTS,
        (
            [one.id for one in settled],
            [one.n for one in settled],
            [str(one.settlement.attempt) for one in settled],
            [one.code for one in settled],
            [one.reference for one in settled],
            [one.detail for one in settled],
        ),
    )


# Opt-out --------------------------------------------------------------------------------------------------------------


async def cancel_refused(
    c: Connection, recipients: Sequence[UUID], topics: Mapping[str, Topic], at: datetime
) -> list[UUID]:
    """Cancel what is queued for these people and what their consent, as it stands now, refuses. They are locked."""
    chosen = list(recipients)
    waiting = await rows(
        c,
        "SELECT id, recipient_id, topic, channel, is_followed, due_at FROM messages"
        " WHERE recipient_id = ANY(%s) AND state = 'queued' ORDER BY id FOR NO KEY UPDATE",
        (chosen,),
    )
    events = await events_of(c, chosen)
    refused: dict[UUID, Decision] = {}
    for row in waiting:
        if (topic := topics.get(row["topic"])) is None:
            continue  # of a newer or older release: the gate decides
        allowed, decision = judge(topic, Channel(row["channel"]), events[row["recipient_id"]], at)
        if not allowed:
            refused[row["id"]] = decision
    await c.execute(
        "UPDATE messages m SET state = 'cancelled', due_at = NULL, reason = v.reason, decision = v.decision::jsonb"
        " FROM unnest(%s::uuid[], %s::text[], %s::text[]) AS v (id, reason, decision)"
        " WHERE m.id = v.id AND m.state = 'queued'",
        (
            list(refused),
            [decision.reason for decision in refused.values()],
            [decision.written for decision in refused.values()],
        ),
    )
    due = {row["id"]: row["due_at"] for row in waiting if row["is_followed"] and row["id"] in refused}
    await wake_followers(c, list(due), due)
    return list(refused)
