"""Collects what is stored of a message, its person's consent and its address, so that it can be put into words (I6)."""

from __future__ import annotations

from uuid import UUID

from notifier.domain.consent import ALL, ANY, MARKETING
from notifier.domain.explanation import Block, Line, Reported, Story, Try
from notifier.domain.messages import Category, State
from notifier.domain.recipients import Hasher
from notifier.errors import NotFound
from notifier.store import addresses, consent, notifications, recipients, suppressions
from notifier.store.addresses import Reached
from notifier.store.database import Connection


async def stories_of(c: Connection, hasher: Hasher, id_: UUID) -> list[Story]:
    """The story of a message, or of every message of a notification. Empty when the id is neither."""
    notification = await notifications.find(c, id_)
    ids = list(notification["message_ids"]) if notification else [id_]
    reached = await addresses.reached_by(c, ids)
    return [await _story(c, hasher, reached[one]) for one in ids if one in reached]


async def stories_for(
    c: Connection, hasher: Hasher, recipient: str, *, topic: str | None, template: str | None, limit: int
) -> list[Story]:
    """What became of the latest messages of a recipient about a topic or of a template, the latest first.

    Raises:
        NotFound: there is no recipient with this id.

    """
    person = (await recipients.by_external_ids(c, [recipient])).get(recipient)
    if person is None:
        raise NotFound("There is no recipient with this id.")
    ids = await notifications.latest_of(c, person.id, topic, template, limit)
    reached = await addresses.reached_by(c, ids)
    return [await _story(c, hasher, reached[one]) for one in ids if one in reached]


async def _story(c: Connection, hasher: Hasher, reached: Reached) -> Story:
    [row] = await notifications.messages_of(c, [reached.message])
    return Story(
        id=reached.message,
        recipient=row["recipient"],
        address=reached.address.masked if reached.address else None,
        channel=row["channel"],
        topic=row["topic"],
        category=row["category"],
        template=row["template"],
        state=State(row["state"]),
        reason=row["reason"],
        decision=row["decision"],
        due_at=row["due_at"],
        expires_at=row["expires_at"],
        accepted_at=row["accepted_at"],
        tries=[
            Try(one["n"], one["provider"], one["state"], one["code"], one["started_at"], one["settled_at"])
            for one in await notifications.attempts_of(c, reached.message)
        ],
        reports=[
            Reported(one["kind"], one["source"], one["code"], one["occurred_at"])
            for one in await notifications.reports_of(c, reached.message)
        ],
        lines=await _lines(c, reached, row["category"]),
        blocks=await _blocks(c, hasher, reached),
    )


async def _lines(c: Connection, reached: Reached, category: str) -> list[Line]:
    """The part of the ledger that speaks of this topic on this channel."""
    scopes = {f"topic:{reached.topic}", ALL} | ({MARKETING} if category == Category.MARKETING else set())
    person = (await recipients.by_ids(c, [reached.recipient]))[reached.recipient]
    ledger = await consent.ledger_of(c, person.merged_into or person.id)
    return [
        Line(
            number=row["number"],
            scope=row["scope"],
            channel=row["channel"],
            granted=row["granted"],
            source=row["source"],
            occurred_at=row["occurred_at"],
            recorded_at=row["recorded_at"],
            expires_at=row["expires_at"],
            evidence=row["evidence"],
        )
        for row in ledger
        if row["scope"] in scopes and row["channel"] in (reached.channel, ANY)
    ]


async def _blocks(c: Connection, hasher: Hasher, reached: Reached) -> list[Block]:
    digests = {reached.hashed.digest, *(hasher.all(reached.address) if reached.address else ())}
    return [
        Block(row["number"], row["reason"], row["evidence"], row["created_at"], row["lifted_at"], row["lifted_why"])
        for row in await suppressions.history(c, reached.channel, digests)
    ]
