"""People, addresses and messages, put straight into a database for tests that begin in the middle of a life."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field
from uuid import UUID

from psycopg.types.json import Jsonb

from notifier.domain.consent import Default, Topic
from notifier.domain.messages import Category, Ids
from notifier.domain.recipients import Hasher
from notifier.store.database import Database, Row, rows
from notifier_channels.addresses import EmailAddress, PhoneNumber
from notifier_channels.contract import Channel

HASHER = Hasher({"h1": b"h" * 32})

TOPICS = {
    topic.key: topic
    for topic in (
        Topic(
            "newsletter",
            Category.MARKETING,
            {Channel.EMAIL: Default.OPT_OUT},
            names={"en": "Newsletter", "de": "Rundbrief"},
            descriptions={"en": "Once a month."},
        ),
        Topic("offers", Category.MARKETING, {Channel.EMAIL: Default.OPT_IN}, names={"en": "Offers"}),
        Topic(
            "orders",
            Category.TRANSACTIONAL,
            {Channel.EMAIL: Default.OPT_OUT, Channel.SMS: Default.OPT_OUT},
            names={"en": "Orders"},
        ),
        Topic("security", Category.TRANSACTIONAL, {Channel.EMAIL: Default.OPT_OUT}, True, names={"en": "Security"}),
    )
}

_ids = Ids()
_versions = itertools.count(1)


def new_id() -> UUID:
    return _ids.new(time.time_ns() // 1_000_000)


@dataclass
class Town:
    """Writes rows as the parts that are not under test would have."""

    database: Database
    hasher: Hasher = HASHER
    worker: int = 0
    versions: dict[str, int] = field(default_factory=dict)

    async def person(self, *emails: str, locale: str | None = None, merged_into: UUID | None = None) -> UUID:
        person = new_id()
        external = None if merged_into else f"user-{person.hex}"
        await self.execute(
            "INSERT INTO recipients (id, external_id, locale, merged_into) VALUES (%s, %s, %s, %s)",
            (person, external, locale, merged_into),
        )
        for email in emails:
            await self.address(person, email)
        return person

    async def address(self, person: UUID, email: str, hasher: Hasher | None = None) -> UUID:
        hashed = (hasher or self.hasher).current(EmailAddress.parse(email, allow_test_domains=True))
        address = new_id()
        await self.execute(
            "INSERT INTO addresses (id, recipient_id, channel, address, address_hash, hash_key)"
            " VALUES (%s, %s, 'email', %s, %s, %s)",
            (address, person, email, hashed.digest, hashed.key),
        )
        return address

    async def phone(self, person: UUID, number: str, hasher: Hasher | None = None) -> UUID:
        hashed = (hasher or self.hasher).current(PhoneNumber(number))
        address = new_id()
        await self.execute(
            "INSERT INTO addresses (id, recipient_id, channel, address, address_hash, hash_key)"
            " VALUES (%s, %s, 'sms', %s, %s, %s)",
            (address, person, number, hashed.digest, hashed.key),
        )
        return address

    async def message(
        self, person: UUID, topic: str = "newsletter", state: str = "accepted", channel: str = "email"
    ) -> UUID:
        """A message to the person's first address of a channel; what was handed over has its attempt."""
        message = new_id()
        category = str(TOPICS[topic].category) if topic in TOPICS else "marketing"
        [address] = await self.rows(
            "SELECT id FROM addresses WHERE recipient_id = %s AND channel = %s ORDER BY id LIMIT 1", (person, channel)
        )
        in_hand = state in ("claimed", "sending")
        await self.execute(
            "INSERT INTO messages (id, recipient_id, address_id, channel, lane, category, topic, template_version,"
            " state, reason, due_at, expires_at, worker_id)"
            " VALUES (%(id)s, %(person)s, %(address)s, %(channel)s, %(category)s, %(category)s, %(topic)s, %(version)s,"
            " %(state)s, %(reason)s, CASE WHEN %(state)s = 'queued' THEN now() END, now() + interval '1 day',"
            " %(worker)s)",
            {
                "id": message,
                "channel": channel,
                "person": person,
                "address": address["id"],
                "category": category,
                "topic": topic,
                "version": await self.version(topic, category),
                "state": state,
                "reason": None if state in ("queued", "accepted", "delivered") or in_hand else "for_a_test",
                "worker": await self.a_worker() if in_hand else None,
            },
        )
        attempt = {"sending": "started", "accepted": "accepted", "delivered": "accepted", "unknown": "unknown"}.get(
            state
        )
        if attempt:
            await self.execute(
                "INSERT INTO attempts (message_id, n, worker_id, provider, state, settled_at)"
                " VALUES (%(message)s, 1, %(worker)s, 'smtp', %(state)s,"
                " CASE WHEN %(state)s <> 'started' THEN now() END)",
                {"message": message, "worker": await self.a_worker(), "state": attempt},
            )
        return message

    async def version(self, topic: str, category: str) -> int:
        if topic not in self.versions:
            [row] = await self.rows(
                "INSERT INTO template_versions (key, hash, topic, category, sources) VALUES (%s, %s, %s, %s, %s)"
                " RETURNING id",
                (topic, f"hash-{next(_versions)}", topic, category, Jsonb({})),
            )
            self.versions[topic] = row["id"]
        return self.versions[topic]

    async def a_worker(self) -> int:
        if not self.worker:
            query = "INSERT INTO workers (lane, boot_id, journal) VALUES ('marketing', 'b', 'j') RETURNING id"
            self.worker = (await self.rows(query))[0]["id"]
        return self.worker

    async def ledger(self, *people: UUID) -> list[Row]:
        query = "SELECT * FROM consent_events"
        if people:
            return await self.rows(query + " WHERE recipient_id = ANY(%s) ORDER BY number", (list(people),))
        return await self.rows(query + " ORDER BY number")

    async def state(self, message: UUID) -> str:
        state: str = (await self.rows("SELECT state FROM messages WHERE id = %s", (message,)))[0]["state"]
        return state

    async def execute(self, query: str, parameters: object = None) -> None:
        async with self.database.connection() as c:
            await c.execute(query, parameters)

    async def rows(self, query: str, parameters: object = None) -> list[Row]:
        async with self.database.connection() as c:
            return await rows(c, query, parameters)
