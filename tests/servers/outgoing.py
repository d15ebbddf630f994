"""What tests hand to a provider, and a witness who remembers everything."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from notifier_channels.addresses import EmailAddress
from notifier_channels.contract import EmailContent, Mailbox, Outcome, Outgoing, Provider

CONTENT = EmailContent(Mailbox("Acme", EmailAddress("hello", "example.com")), "Hello", "text\n.\n", "<p>html</p>")
NOW = datetime(2026, 11, 3, tzinfo=UTC)


def message(local: str = "ann", content: EmailContent = CONTENT, **fields) -> Outgoing[EmailContent]:
    to = EmailAddress(local, "secret-domain.example")
    return Outgoing(uuid4(), 1, to, content, NOW, NOW + timedelta(days=1), **fields)


def batch_of(*locals_: str) -> list[Outgoing[EmailContent]]:
    return [message(local) for local in locals_]


@dataclass
class Notebook:
    """A witness who remembers everything, and says no to some."""

    says_no_to: set[UUID] = field(default_factory=set)
    is_over: bool = False  #: no to everything, and it says so
    lines: list[tuple[str, UUID]] = field(default_factory=list)
    answers: dict[UUID, Outcome] = field(default_factory=dict)
    most_in_doubt: int = 0
    committed: asyncio.Event = field(default_factory=asyncio.Event)

    def about_to_commit(self, message: UUID) -> bool:
        if self.is_over or message in self.says_no_to:
            return False
        self.lines.append(("before", message))
        self.most_in_doubt = max(self.most_in_doubt, len(self.in_doubt))
        self.committed.set()
        return True

    def answered(self, message: UUID, outcome: Outcome) -> None:
        self.lines.append(("after", message))
        self.answers[message] = outcome

    @property
    def allowed(self) -> set[UUID]:
        return {message for kind, message in self.lines if kind == "before"}

    @property
    def in_doubt(self) -> set[UUID]:
        return self.allowed - self.answers.keys()


class Turnstile:
    """A pace (`contract.Pace`) that lets as many through as it is told to, and counts who asked."""

    def __init__(self, free: float = 0, together: int = 1) -> None:
        self.together = together
        self.free = free
        self.asked: list[int] = []
        self.waiting = 0
        self._changed = asyncio.Condition()

    async def turn(self, units: int) -> None:
        self.asked.append(units)
        async with self._changed:
            self.waiting += 1
            self._changed.notify_all()
            await self._changed.wait_for(lambda: self.free >= units)
            self.waiting -= 1
            self.free -= units
            self._changed.notify_all()

    async def let(self, units: float) -> None:
        """So many more may go."""
        async with self._changed:
            self.free += units
            self._changed.notify_all()

    async def until_all_wait(self, count: int) -> None:
        """Wait until so many stand before it, and no place is free."""
        async with asyncio.timeout(30), self._changed:
            await self._changed.wait_for(lambda: self.waiting == count and not self.free)


async def sent(provider: Provider[Any], batch: list[Outgoing[Any]], witness: Notebook) -> dict[UUID, Outcome]:
    pairs = [pair async for pair in provider.send(batch, witness)]
    outcomes = dict(pairs)
    assert len(pairs) == len(outcomes) == len(batch), "one outcome for each"
    assert outcomes.keys() == {outgoing.id for outgoing in batch}
    return outcomes
