"""Where product code wants to be told: endpoints are added, listed, removed, and sent to again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from notifier.domain.events import EVERY, Position, chosen
from notifier.domain.messages import Ids
from notifier.domain.webhooks import Signer, what_is_wrong
from notifier.errors import Conflict, InvalidInput, NotFound, Problem
from notifier.store import webhooks
from notifier.store.database import Connection
from notifier.store.webhooks import Standing


@dataclass(frozen=True, slots=True)
class Added:
    """A new endpoint, and the secret that its receiver verifies with: shown this once."""

    id: UUID
    types: tuple[str, ...]
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Keeps the endpoints."""

    signer: Signer
    is_production: bool
    writes_events: bool
    _ids: Ids = field(default_factory=Ids)

    async def add(self, c: Connection, url: str, names: Sequence[str]) -> Added:
        """Keep an endpoint for these types, or for all when none is named. It hears of what happens from now on.

        Raises:
            InvalidInput: the URL or a type cannot be used.
            Conflict: events are switched off.

        """
        types, unknown = chosen(names)
        problems = [Problem("/types", "names an unknown type; docs/reference/events.md lists all")] if unknown else []
        if wrong := what_is_wrong(url, is_production=self.is_production):
            problems.append(Problem("/url", wrong))
        if problems:
            raise InvalidInput(problems)
        if not self.writes_events:
            raise Conflict("NOTIFIER_EVENTS is false, so nothing would be sent; set it to true first.")
        id_, key = self._ids.new(time.time_ns() // 1_000_000), self.signer.newest
        secret = self.signer.secret(id_, key)
        if secret is None:
            raise AssertionError("the newest key is one of the keys")
        await webhooks.add(c, id_, url, [name.strip() for name in names] or [EVERY], key)
        return Added(id_, tuple(sorted(types)), secret)

    async def all(self, c: Connection) -> list[Standing]:
        """Every endpoint and how it stands."""
        return await webhooks.standing(c)

    async def remove(self, c: Connection, id_: UUID) -> None:
        """Forget an endpoint and what waits for it; raises NotFound."""
        if not await webhooks.remove(c, id_):
            raise NotFound(_NO_ENDPOINT)

    async def replay(self, c: Connection, id_: UUID, *, event: str | None = None, after: str | None = None) -> None:
        """Send one event again, or everything after one; the latter also ends a disabling.

        Raises:
            InvalidInput: not exactly one of them is given, or it is no event's id.
            NotFound: no such endpoint, or the event is not kept any more.

        """
        if (event is None) == (after is None):
            raise InvalidInput([Problem("", "must name exactly one of `event` and `after`")])
        place = Position.parse(event or after or "")
        if place is None:
            raise InvalidInput([Problem("/event" if event else "/after", "is not the id of an event")])
        if event is not None and not await webhooks.replay_one(c, id_, place):
            raise NotFound("There is no such endpoint, or the event is not kept any more.")
        if after is not None and not await webhooks.replay_after(c, id_, place):
            raise NotFound(_NO_ENDPOINT)


_NO_ENDPOINT = "There is no such endpoint; `notifier webhooks list` shows all."
