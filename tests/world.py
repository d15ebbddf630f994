"""A small world for tests: people, templates and messages in a real database, made in bulk through the real store."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from notifier.dispatch.composing import Composer
from notifier.dispatch.consequences import Consequences
from notifier.dispatch.deliver import Deliver
from notifier.dispatch.gate import Gate
from notifier.dispatch.ingredients import Personal
from notifier.dispatch.judging import Judge
from notifier.dispatch.refusals import Withdrawal, withdraw
from notifier.dispatch.shelf import Shelf
from notifier.dispatch.timing import Timing
from notifier.dispatch.turns import Turns
from notifier.dispatch.witness import Hold
from notifier.domain.messages import Category, Ids, Lane
from notifier.domain.recipients import Hasher
from notifier.domain.tokens import Links
from notifier.journal import Journal, boot_id
from notifier.limits import Limits
from notifier.rendering import Identity, Template, Templates
from notifier.store import messages, recipients, templates, workers
from notifier.store.batches import PlannedBatch
from notifier.store.consent import NewEvent, record
from notifier.store.database import Connection, Database, rows
from notifier.store.messages import Claimed, NewMessage
from notifier_channels.addresses import Device, DeviceKind, EmailAddress, PhoneNumber, Platform
from notifier_channels.contract import (
    Address,
    Channel,
    EmailContent,
    Mailbox,
    MessageId,
    Outcome,
    Outgoing,
    Receipt,
    Witness,
)

KEYS = {"k1": b"a key for tests of thirty-two bytes"}  #: as it can stand in an environment variable
IDENTITY = Identity(
    Mailbox("Acme", EmailAddress("hello", "acme.test")), None, "Acme, 1 Road", "lists.acme.test", "acmeid"
)
TRANSACTIONAL = "order-shipped"
MANDATORY = "password-reset"
MARKETING = "product-news"
TEMPLATES = Path(__file__).parent / "templates"

_ids = Ids()
_numbers = itertools.count(1)
_loaded: list[Templates] = []


async def claim(deliver: Deliver, turn: int = 0) -> Sequence[Claimed]:
    """What a worker takes in hand next, as a test that goes on by itself needs it."""
    with ExitStack() as hand:
        batch = await deliver._claim((), turn, hand)
    if batch is None:
        return []
    assert not isinstance(batch.claimed, PlannedBatch)
    return batch.claimed


def new_id() -> UUID:
    return _ids.new(time.time_ns() // 1_000_000)


def small_templates() -> Templates:
    """Templates of a line each, loaded once per test process."""
    if not _loaded:
        _loaded.append(Templates.load(TEMPLATES, IDENTITY, "en"))
    return _loaded[0]


@dataclass(slots=True)
class World:
    """One database with people in it."""

    database: Database
    journals: Path
    templates: Templates = field(default_factory=small_templates)
    hasher: Hasher = field(default_factory=lambda: Hasher(KEYS))
    links: Links = field(default_factory=lambda: Links(KEYS, "https://acme.test", "in.acme.test"))

    @property
    def consequences(self) -> Consequences:
        return Consequences(self.hasher, self.templates.topics)

    async def people(self, count: int, *, prefix: str = "person") -> list[UUID]:
        """Named recipients with one email address each."""
        ids = [new_id() for _ in range(count)]
        addresses = [EmailAddress(f"{prefix}-{n}", "example.test") for n in range(count)]
        hashes = [self.hasher.current(address) for address in addresses]
        async with self.database.connection() as c, c.transaction():
            await c.execute(
                "INSERT INTO recipients (id, external_id, locale) SELECT id, id::text, 'en' FROM unnest(%s::uuid[]) id",
                (ids,),
            )
            await c.execute(
                "INSERT INTO addresses (id, recipient_id, channel, address, address_hash, hash_key)"
                " SELECT id, id, 'email', address, digest, 'k1' FROM unnest(%s::uuid[], %s::text[], %s::bytea[])"
                " AS a (id, address, digest)",
                (ids, [str(address) for address in addresses], [hashed.digest for hashed in hashes]),
            )
            await c.execute("ANALYZE recipients, addresses")
        return ids

    async def phones(self, people: Sequence[UUID]) -> list[UUID]:
        """A phone number for each; the ids of the address rows."""
        numbers = [PhoneNumber(f"+49301{next(_numbers):06}") for _ in people]
        return await self._addresses(people, Channel.SMS, numbers)

    async def devices(self, people: Sequence[UUID], each: int = 1, platform: Platform = Platform.WEB) -> list[UUID]:
        """So many devices for each; the ids of the address rows."""
        owners = [person for person in people for _ in range(each)]
        held = [Device(DeviceKind.FID, f"device-{next(_numbers):015}") for _ in owners]
        ids = await self._addresses(owners, Channel.PUSH, held)
        insert = "INSERT INTO devices (address_id, kind, platform) SELECT id, 'fid', %s FROM unnest(%s::uuid[]) id"
        await self.execute(insert, platform, ids)
        return ids

    async def _addresses(self, people: Sequence[UUID], channel: Channel, addresses: Sequence[Address]) -> list[UUID]:
        ids = [new_id() for _ in people]
        digests = [self.hasher.current(address).digest for address in addresses]
        await self.execute(
            "INSERT INTO addresses (id, recipient_id, channel, address, address_hash, hash_key)"
            " SELECT id, person, %s, address, digest, 'k1'"
            " FROM unnest(%s::uuid[], %s::uuid[], %s::text[], %s::bytea[]) AS a (id, person, address, digest)",
            channel, ids, list(people), [str(address) for address in addresses], digests,
        )  # fmt: skip
        return ids

    async def queue(
        self,
        people: Sequence[UUID],
        key: str = TRANSACTIONAL,
        *,
        expires: timedelta = timedelta(hours=1),
        due: float = 0,
        by: Channel = Channel.EMAIL,
        to: Sequence[UUID] = (),
    ) -> list[UUID]:
        """One message of a template to each, due `due` seconds from now; its data is the template's sample.

        `to`: the rows of their addresses, as `phones` and `devices` give them; those of `people` need no naming.
        """
        template = self.templates.find(key)
        assert template is not None
        now = datetime.now(UTC)
        async with self.database.connection() as c, c.transaction():
            number = await templates.register(c, template)
            whom = zip(people, to or people, strict=True)
            new = [
                replace(self._message(person, template, number, now, expires, due), channel=by, address_id=address)
                for person, address in whom
            ]
            await self._notifications(c, template, number, new)
            await messages.insert(c, new)
        return [one.id for one in new]

    async def campaign(
        self,
        people: Sequence[UUID],
        key: str = MARKETING,
        *,
        size: int = 500,
        data: Mapping[str, object] | None = None,
        expires: timedelta = timedelta(hours=1),
        by: Channel = Channel.EMAIL,
        step: int = 0,
        rate: float | None = None,
        state: str = "sending",
    ) -> UUID:
        """A campaign that is being sent to these people, planned in batches; its data is the template's sample."""
        from psycopg.types.json import Jsonb

        template = self.templates.find(key)
        assert template is not None
        id_ = new_id()
        async with self.database.connection() as c, c.transaction():
            number = await templates.register(c, template)
            await c.execute(
                "INSERT INTO campaigns (id, name, state, template, data, audience, schedule, created_by,"
                " template_version, topic, category, expires_at, started_at, audience_size, rate)"
                " VALUES (%s, 'Spring', %s, %s, %s, '{}', '{}', 'operator', %s, %s, %s,"
                " clock_timestamp() + %s, clock_timestamp(), %s, %s)",
                (id_, state, key, Jsonb(dict(template.sample if data is None else data)), number, template.topic.key,
                 template.topic.category, expires, len(people), rate),
            )  # fmt: skip
            for start in range(0, len(people), size):
                await c.execute(
                    "INSERT INTO campaign_batches (campaign_id, channel, step, recipients, starts_at, due_at)"
                    " VALUES (%s, %s, %s, %s, clock_timestamp(), clock_timestamp())",
                    (id_, by, step, list(people[start : start + size])),
                )
        return id_

    async def of_campaign(self, campaign: UUID) -> dict[UUID, tuple[str, str | None]]:
        """State and reason of its messages, by recipient."""
        query = "SELECT recipient_id, state, reason FROM messages WHERE campaign_id = %s"
        async with self.database.connection() as c:
            found = await rows(c, query, (campaign,))
        assert len({row["recipient_id"] for row in found}) == len(found)
        return {row["recipient_id"]: (row["state"], row["reason"]) for row in found}

    def _message(
        self, person: UUID, template: Template, number: int, now: datetime, expires: timedelta, due: float
    ) -> NewMessage:
        category = template.topic.category
        lane = Lane.MARKETING if category is Category.MARKETING else Lane.TRANSACTIONAL
        id_ = new_id()
        return NewMessage(
            id_, id_, person, person, Channel.EMAIL, lane, category, template.topic.key, number,
            now + timedelta(seconds=due), now + expires,
        )  # fmt: skip

    async def _notifications(self, c: Connection, template: Template, number: int, new: Sequence[NewMessage]) -> None:
        from psycopg.types.json import Jsonb

        await c.execute(
            "INSERT INTO notifications (id, recipient_id, template_version, data, message_ids)"
            " SELECT id, recipient, %s, %s, ARRAY[id] FROM unnest(%s::uuid[], %s::uuid[]) AS n (id, recipient)",
            (number, Jsonb(dict(template.sample)), [one.id for one in new], [one.recipient_id for one in new]),
        )

    async def withdraw(self, people: Sequence[UUID], scope: str = "marketing", channel: str = "any") -> list[int]:
        """Each of them says no."""
        return await self._say(people, scope, channel, granted=False)

    async def grant(self, people: Sequence[UUID], scope: str, channel: str) -> list[int]:
        """Each of them says yes."""
        return await self._say(people, scope, channel, granted=True)

    async def _say(self, people: Sequence[UUID], scope: str, channel: str, *, granted: bool) -> list[int]:
        """In a transaction of its own order: lock, then record."""

        async def work(c: Connection) -> list[int]:
            await recipients.lock(c, people)
            said = [NewEvent(person, scope, channel, granted=granted, source="api") for person in people]
            return await record(c, said)

        return await self.database.transact(work)

    async def withdraw_and_cancel(self, people: Sequence[UUID], scope: str, channel: str) -> None:
        """The same as every door does it: with what is queued."""
        said = [Withdrawal(person, scope, channel, "api") for person in people]

        async def work(c: Connection) -> None:
            await recipients.lock(c, people)
            await withdraw(c, said, self.templates.topics)

        await self.database.transact(work)

    @asynccontextmanager
    async def worker(
        self,
        provider: Scripted | Mapping[Channel, Scripted],
        lane: Lane = Lane.TRANSACTIONAL,
        **changes: object,
    ) -> AsyncIterator[Deliver]:
        """A worker's hands in this process: a lock, a journal, and `deliver` over the provider given, or several."""
        import psycopg

        providers = provider if isinstance(provider, Mapping) else {Channel.EMAIL: provider}

        async with await psycopg.AsyncConnection.connect(self.database.url, autocommit=True) as lock:
            entered = await workers.register(lock, lane, boot_id(), self.journals)
            shelf, journal = Shelf(self.templates), Journal(entered.journal)
            templates, timing = changes.pop("templates", self.templates), changes.pop("timing", Timing())
            judge = Judge(templates, shelf, timing, self.hasher)  # type: ignore[arg-type]  # both popped as objects
            names = {channel: one.name for channel, one in providers.items()}
            settings: dict[str, object] = {
                "database": self.database,
                "gate": Gate(entered.id, judge, names),
                "compose": Composer(shelf, Personal(self.links, "en", "UTC"), journal), "providers": providers,
                "throttles": dict.fromkeys(providers, FreeThrottle()), "turns": Turns(providers, 4),
                "limits": Limits("redis://127.0.0.1:1"),
                "consequences": self.consequences, "journal": journal, "hold": Hold(), "lane": lane,
                "worker": entered.id, "batch_size": 500, "send_timeout": timedelta(seconds=30),
            }  # fmt: skip
            yield Deliver(**(settings | changes))  # type: ignore[arg-type]  # by name
        # The server gives a closed session's lock back in its own time: wait for it.
        key = (workers.LOCK_CLASS, entered.id)
        await self.one("SELECT pg_advisory_lock(%s, %s)::text, pg_advisory_unlock(%s, %s)", *key, *key)

    async def states(self, ids: Sequence[UUID]) -> list[tuple[str, str | None]]:
        """State and reason of each, in the order asked for."""
        async with self.database.connection() as c:
            found = await rows(c, "SELECT id, state, reason FROM messages WHERE id = ANY(%s)", (list(ids),))
        by_id = {row["id"]: (row["state"], row["reason"]) for row in found}
        return [by_id[id_] for id_ in ids]

    async def attempts(self, id_: UUID) -> list[tuple[int, str]]:
        """Number and state of a message's attempts."""
        async with self.database.connection() as c:
            found = await rows(c, "SELECT n, state FROM attempts WHERE message_id = %s ORDER BY n", (id_,))
        return [(row["n"], row["state"]) for row in found]

    async def one(self, query: str, *parameters: object) -> object:
        """The first column of the first row."""
        async with self.database.connection() as c:
            return next(iter((await rows(c, query, parameters))[0].values()))

    async def execute(self, query: str, *parameters: object) -> None:
        async with self.database.connection() as c:
            await c.execute(query, parameters)


class FreeThrottle:
    """Nobody is throttled; remembers what was learned."""

    def __init__(self) -> None:
        self.learned: list[tuple[int, int]] = []

    async def most(self, size: int) -> int:
        return size

    async def turn(self, messages: int) -> float:  # noqa: ARG002
        return 0.0

    async def learn(self, taken: int, told: int) -> None:
        self.learned.append((taken, told))


Script = Callable[[Outgoing[EmailContent], Witness], Outcome]


def take(message: Outgoing[EmailContent], witness: Witness) -> Outcome:
    """A relay that takes everything."""
    if not witness.about_to_commit(message.id):
        from notifier_channels.contract import Withheld

        return Withheld()
    receipt = Receipt(f"ref-{message.id.hex[-6:]}", "250")
    witness.answered(message.id, receipt)
    return receipt


@dataclass(slots=True)
class Scripted:
    """A provider in memory: asks its script for each outcome, and remembers what was sent to it."""

    script: Script = take
    name: str = "scripted"
    sent: list[Outgoing[EmailContent]] = field(default_factory=list)
    most_at_once: int = 500

    async def send(
        self, batch: Sequence[Outgoing[EmailContent]], witness: Witness
    ) -> AsyncIterator[tuple[MessageId, Outcome]]:
        for message in batch:
            self.sent.append(message)
            yield message.id, self.script(message, witness)

    async def close(self) -> None:
        """Nothing to give back."""
