"""What came in by text message and by mail, and has been acted on: a repetition changes and answers nothing."""

from __future__ import annotations

from notifier.store.database import Connection

KEPT = "interval '7 days'"  #: longer than a webhook is repeated, and than a mail waits in a queue (5 days)


async def take(c: Connection, reference: str, keyword: str) -> bool:
    """Take a text in hand; False when it was taken before. Of two at once, the second waits for the first one's end."""
    cursor = await c.execute(
        "INSERT INTO inbound_sms (reference, keyword) VALUES (%s, %s) ON CONFLICT (reference) DO NOTHING",
        (reference, keyword),
    )
    return cursor.rowcount == 1


async def take_mail(c: Connection, digest: bytes) -> bool:
    """Take a mail in hand, as `take` does."""
    cursor = await c.execute(
        "INSERT INTO inbound_mails (digest) VALUES (%s) ON CONFLICT (digest) DO NOTHING", (digest,)
    )
    return cursor.rowcount == 1


async def forget(c: Connection) -> int:
    """Delete those that nobody repeats any more; how many there were."""
    texts = await c.execute(f"DELETE FROM inbound_sms WHERE received_at <= now() - {KEPT}")
    mails = await c.execute(f"DELETE FROM inbound_mails WHERE received_at <= now() - {KEPT}")
    return texts.rowcount + mails.rowcount
