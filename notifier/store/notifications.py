"""What callers asked for, the keys they asked under, and what they may read back of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from notifier.store.database import Connection, Row, rows

KEPT = "interval '7 days'"  #: how long an idempotency key is remembered


@dataclass(frozen=True, slots=True)
class NewNotification:
    """A notification as it is accepted, with the key it came under and the answer its caller gets."""

    id: UUID
    recipient_id: UUID
    template_version: int
    data: Mapping[str, Any]
    api_key_id: str | None
    created_at: datetime
    key_hash: bytes
    body_hash: bytes
    answer: Mapping[str, Any]  #: names its messages, in order


@dataclass(frozen=True, slots=True)
class FirstAnswer:
    """What was answered when a key was first used, and to which body."""

    body_hash: bytes
    answer: Mapping[str, Any]


async def first_answers(c: Connection, key_hashes: Collection[bytes]) -> tuple[datetime, dict[bytes, FirstAnswer]]:
    """The database's clock, and the answers given under these keys in the last 7 days."""
    found = await rows(
        c,
        "SELECT clock_timestamp() AS now, k.key_hash, k.body_hash, k.answer FROM (VALUES (1)) AS always"
        f" LEFT JOIN idempotency_keys k ON k.key_hash = ANY(%s) AND k.created_at > now() - {KEPT}",
        (list(key_hashes),),
    )
    answers = {row["key_hash"]: FirstAnswer(row["body_hash"], row["answer"]) for row in found if row["key_hash"]}
    return found[0]["now"], answers


# In the keys' order, so that two batches that share keys wait for one another and never in a circle. A key older than
# 7 days is as good as new.
_INSERT = f"""
WITH kept AS (
    INSERT INTO idempotency_keys (key_hash, body_hash, notification_id, answer)
    SELECT * FROM unnest(%(keys)s::bytea[], %(bodies)s::bytea[], %(ids)s::uuid[], %(answers)s::jsonb[])
                  AS v (key_hash, body_hash, id, answer)
    ORDER BY key_hash
    ON CONFLICT (key_hash) DO UPDATE SET body_hash = excluded.body_hash, notification_id = excluded.notification_id,
        answer = excluded.answer, created_at = excluded.created_at
    WHERE idempotency_keys.created_at <= now() - {KEPT}
    RETURNING 1
), stored AS (
    INSERT INTO notifications (id, recipient_id, template_version, data, message_ids, api_key_id, created_at)
    SELECT id, recipient_id, template_version, data,
           ARRAY(SELECT (message ->> 'id')::uuid FROM jsonb_array_elements(answer -> 'messages') AS message),
           api_key_id, created_at
    FROM unnest(%(ids)s::uuid[], %(recipients)s::uuid[], %(versions)s::int[], %(data)s::jsonb[], %(answers)s::jsonb[],
                %(api_keys)s::text[], %(created)s::timestamptz[])
         AS v (id, recipient_id, template_version, data, answer, api_key_id, created_at)
)
SELECT count(*) AS kept FROM kept
"""


async def insert(c: Connection, new: Sequence[NewNotification]) -> bool:
    """Store them with their keys. False: another transaction was first with one of the keys; roll back, start over."""
    found = await rows(
        c,
        _INSERT,
        {
            "ids": [one.id for one in new],
            "keys": [one.key_hash for one in new],
            "bodies": [one.body_hash for one in new],
            "answers": [Jsonb(dict(one.answer)) for one in new],
            "recipients": [one.recipient_id for one in new],
            "versions": [one.template_version for one in new],
            "data": [Jsonb(dict(one.data)) for one in new],
            "api_keys": [one.api_key_id for one in new],
            "created": [one.created_at for one in new],
        },
    )
    return bool(found[0]["kept"] == len(new))


async def keep_answer(c: Connection, id_: UUID, key_hash: bytes, body_hash: bytes, answer: Mapping[str, Any]) -> bool:
    """Keep the first answer to a request that makes something else, `id_`. False: as with `insert`."""
    cursor = await c.execute(
        "INSERT INTO idempotency_keys (key_hash, body_hash, notification_id, answer) VALUES (%s, %s, %s, %s)"
        " ON CONFLICT (key_hash) DO UPDATE SET body_hash = excluded.body_hash,"
        " notification_id = excluded.notification_id, answer = excluded.answer, created_at = excluded.created_at"
        f" WHERE idempotency_keys.created_at <= now() - {KEPT}",
        (key_hash, body_hash, id_, Jsonb(dict(answer))),
    )
    return cursor.rowcount == 1


async def forget_keys(c: Connection) -> int:
    """Delete the keys that are older than 7 days; how many there were."""
    return (await c.execute(f"DELETE FROM idempotency_keys WHERE created_at <= now() - {KEPT}")).rowcount


# Reading back ---------------------------------------------------------------------------------------------------------


async def find(c: Connection, id_: UUID) -> Row | None:
    """A notification with its template and recipient; never its data, which may hold codes and names."""
    found = await rows(
        c,
        "SELECT n.id, n.created_at, n.cancelled_at, n.message_ids, t.key AS template, t.category,"
        " r.external_id AS recipient"
        " FROM notifications n JOIN template_versions t ON t.id = n.template_version"
        " JOIN recipients r ON r.id = n.recipient_id WHERE n.id = %s",
        (id_,),
    )
    return found[0] if found else None


async def messages_of(c: Connection, ids: Sequence[UUID]) -> list[Row]:
    """These messages as their caller may see them."""
    return await rows(
        c,
        "SELECT m.id, m.notification_id, m.channel, m.topic, m.category, m.state, m.reason, m.due_at, m.expires_at,"
        " m.decision, r.external_id AS recipient, t.key AS template, n.created_at AS accepted_at"
        " FROM messages m JOIN recipients r ON r.id = m.recipient_id"
        " JOIN template_versions t ON t.id = m.template_version"
        " LEFT JOIN notifications n ON n.id = m.notification_id WHERE m.id = ANY(%s) ORDER BY m.id",
        (list(ids),),
    )


async def latest_of(c: Connection, recipient: UUID, topic: str | None, template: str | None, limit: int) -> list[UUID]:
    """The latest messages of one recipient about a topic or of a template, the latest first."""
    found = await rows(
        c,
        "SELECT m.id FROM messages m JOIN template_versions t ON t.id = m.template_version"
        " WHERE m.recipient_id = %s AND coalesce(m.topic = %s, true) AND coalesce(t.key = %s, true)"
        " ORDER BY m.id DESC LIMIT %s",
        (recipient, topic, template, limit),
    )
    return [row["id"] for row in found]


async def attempts_of(c: Connection, message: UUID) -> list[Row]:
    """Every try to hand it to a provider, first one first."""
    return await rows(
        c,
        "SELECT n, provider, state, code, reference, detail, started_at, settled_at FROM attempts"
        " WHERE message_id = %s ORDER BY n",
        (message,),
    )


async def reports_of(c: Connection, message: UUID) -> list[Row]:
    """Everything that providers reported of it later."""
    return await rows(
        c,
        "SELECT attempt, kind, source, code, occurred_at FROM delivery_events"
        " WHERE message_id = %s ORDER BY occurred_at, received_at",
        (message,),
    )


async def cancel(c: Connection, id_: UUID, messages: Sequence[UUID]) -> dict[UUID, str]:
    """Cancel what is still queued: the state in which each message is afterwards."""
    found = await rows(
        c,
        "SELECT id, state FROM messages WHERE id = ANY(%s) ORDER BY id FOR NO KEY UPDATE",
        (list(messages),),
    )
    states: dict[UUID, str] = {row["id"]: row["state"] for row in found}
    queued = [message for message, state in states.items() if state == "queued"]
    await c.execute(
        "UPDATE messages SET state = 'cancelled', reason = 'cancelled_by_api', due_at = NULL"
        " WHERE id = ANY(%s) AND state = 'queued'",
        (queued,),
    )
    await c.execute(
        "UPDATE notifications SET cancelled_at = coalesce(cancelled_at, clock_timestamp()) WHERE id = %s", (id_,)
    )
    return states | dict.fromkeys(queued, "cancelled")
