"""What people set themselves on their page, and how many links to it went out."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from uuid import UUID

from notifier.domain.preferences import Profile
from notifier.store.database import Connection, rows


async def choose(c: Connection, recipient: UUID, profile: Profile) -> None:
    """Keep what a person chose beside their consent. The recipient is locked."""
    await c.execute(
        "UPDATE recipients SET locale = %s, timezone = %s, snoozed_until = %s, updated_at = clock_timestamp()"
        " WHERE id = %s",
        (profile.locale, profile.timezone, profile.snoozed_until, recipient),
    )


_NEWEST = """
SELECT m.notification_id, m.recipient_id, a.address_hash, n.created_at
FROM messages m JOIN addresses a ON a.id = m.address_id JOIN notifications n ON n.id = m.notification_id
WHERE m.recipient_id = ANY(%s) AND m.id >= %s AND m.topic = %s AND n.created_at > clock_timestamp() - %s
"""


async def newest(
    c: Connection, recipients: Collection[UUID], topic: str, age: timedelta, oldest_id: UUID
) -> list[tuple[UUID, UUID, bytes, datetime]]:
    """The messages of a topic that these people were sent so recently: notification, recipient, address's hash, when.

    No id below `oldest_id` is looked at: ids carry their time.
    """
    found = await rows(c, _NEWEST, (list(recipients), oldest_id, topic, age))
    return [(row["notification_id"], row["recipient_id"], row["address_hash"], row["created_at"]) for row in found]
