"""Text messages that came in: which have been acted on, so that a repeated webhook changes and answers nothing."""

from __future__ import annotations

from notifier.store.database import Connection

KEPT = "interval '7 days'"


async def take(c: Connection, reference: str, keyword: str) -> bool:
    """Take one in hand; False when it was taken before. Of two at once, the second waits for the first one's end."""
    cursor = await c.execute(
        "INSERT INTO inbound_sms (reference, keyword) VALUES (%s, %s) ON CONFLICT (reference) DO NOTHING",
        (reference, keyword),
    )
    return cursor.rowcount == 1


async def forget(c: Connection) -> int:
    """Delete those that no webhook repeats any more; how many there were."""
    return (await c.execute(f"DELETE FROM inbound_sms WHERE received_at <= now() - {KEPT}")).rowcount
