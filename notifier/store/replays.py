"""Messages that have failed, as an operator finds them and queues them once more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from notifier.domain.messages import State, first_id
from notifier.domain.routing import ENDED
from notifier.store.database import Connection, Row, rows
from notifier_channels.contract import Channel

# By their ids, which begin with the time: there is no index on the state, and one for this alone would cost every send.
_THESE = """
m.id >= %(first)s AND m.id < %(last)s AND m.state = 'failed'
AND (%(channel)s::text IS NULL OR m.channel = %(channel)s) AND (%(reason)s::text IS NULL OR m.reason = %(reason)s)
AND (%(template)s::text IS NULL OR m.template_version IN (SELECT id FROM template_versions WHERE key = %(template)s))
"""


@dataclass(frozen=True, slots=True)
class Which:
    """What has failed, of the messages that were made from `since` on and before `until`."""

    since: datetime
    until: datetime
    template: str | None = None
    channel: Channel | None = None
    reason: str | None = None  #: the whole reason, as it is counted

    @property
    def asked(self) -> dict[str, object]:
        """As the queries name it."""
        return {
            "first": first_id(self.since),
            "last": first_id(self.until),
            "template": self.template,
            "channel": self.channel,
            "reason": self.reason,
        }


async def counted(c: Connection, which: Which) -> list[Row]:
    """How many have failed for the same reason, and how many of those have expired; the most first."""
    return await rows(
        c,
        "SELECT t.key AS template, m.channel, m.reason, count(*) AS messages,"
        " count(*) FILTER (WHERE m.expires_at <= statement_timestamp()) AS expired"
        f" FROM messages m JOIN template_versions t ON t.id = m.template_version WHERE {_THESE}"
        " GROUP BY t.key, m.channel, m.reason ORDER BY messages DESC, t.key, m.channel, m.reason",
        which.asked,
    )


async def page(c: Connection, which: Which, after: UUID | None, limit: int) -> list[UUID]:
    """The next of them, in the order of their ids."""
    asked = which.asked | {"after": after or UUID(int=0), "limit": limit}
    query = f"SELECT m.id FROM messages m WHERE m.id > %(after)s AND {_THESE} ORDER BY m.id LIMIT %(limit)s"
    return [row["id"] for row in await rows(c, query, asked)]


_GOING = sorted(set(State) - ENDED)
_TAKES_OVER = (
    "f.step <> m.step"
    " AND (f.state = ANY(%(going)s) OR (f.step < m.step AND f.state = 'failed' AND f.id = ANY(%(ids)s)))"
)


async def standing(c: Connection, ids: Sequence[UUID]) -> list[Row]:
    """How each of these stands. They are locked.

    `is_taken_over`: another channel of its route went, or is about to, or is an earlier one among these.
    """
    return await rows(
        c,
        "SELECT m.id, m.state, m.expires_at <= statement_timestamp() AS has_expired, EXISTS ("
        "  SELECT 1 FROM notifications n WHERE n.id = m.notification_id AND n.cancelled_at IS NOT NULL)"
        " AS is_called_back, EXISTS ("
        "  SELECT 1 FROM notifications n JOIN messages f ON f.id = ANY(n.message_ids)"
        f"  WHERE n.id = m.notification_id AND {_TAKES_OVER}"
        "  UNION ALL SELECT 1 FROM messages f WHERE f.campaign_id = m.campaign_id AND f.recipient_id = m.recipient_id"
        f"  AND NOT f.is_test AND NOT m.is_test AND {_TAKES_OVER}) AS is_taken_over"
        " FROM messages m WHERE m.id = ANY(%(ids)s) ORDER BY m.id",
        {"ids": list(ids), "going": _GOING},
    )


async def queue(c: Connection, ids: Sequence[UUID], start: float, rate: float) -> None:
    """`failed` -> `queued` of locked ones, as if nobody had tried yet: due from `start` seconds on, `rate` a second."""
    await c.execute(
        "UPDATE messages m SET state = 'queued', reason = NULL, claims = 0, tries = 0,"
        " due_at = statement_timestamp() + (%s + v.place / %s) * interval '1 second'"
        " FROM unnest(%s::uuid[]) WITH ORDINALITY AS v (id, place) WHERE m.id = v.id AND m.state = 'failed'",
        (start, rate, list(ids)),
    )
