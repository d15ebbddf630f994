"""Before a campaign: a list of people comes in, line by line, and each line is looked up: it creates nobody.

A line names whoever has its id, or everybody who holds its address. Addresses are hashed at once and none is kept.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from uuid import UUID

from notifier.domain.messages import Ids
from notifier.domain.recipients import Hasher
from notifier.errors import Conflict, NotFound
from notifier.store import lists, recipients
from notifier.store.database import Connection, Row
from notifier_channels.contract import Address, Channel

SHOWN = 100  #: of the lines that name nobody, and of those that cannot be read
NAMED = 5  #: campaigns in a sentence

Name: TypeAlias = str | Address  #: an id of the product's own, or an address

_GONE = "There is no such list; `GET /v1/lists` shows all."


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A line that can name nobody, and why."""

    line: int
    detail: str


@dataclass(slots=True)
class Report:
    """What came of the lines, beginning after the first, which names the columns."""

    lines: int = 0
    people: int = 0  #: on the list
    doubled: int = 0  #: lines that name only people whom an earlier one has named
    unknown: int = 0  #: lines that name nobody
    unknown_lines: list[int] = field(default_factory=list)  #: the first of them
    unreadable: int = 0
    unreadable_lines: list[Unreadable] = field(default_factory=list)  #: the first of them

    def cannot_read(self, line: int, detail: str) -> None:
        """Count a line that is no name of this kind."""
        self.lines += 1
        self.unreadable += 1
        if len(self.unreadable_lines) < SHOWN:
            self.unreadable_lines.append(Unreadable(line, detail))

    def count(self, meant: Mapping[int, set[UUID]], new: set[UUID]) -> None:
        """Count a batch of lines, and whom each of them means. `new`: those who were not on the list before."""
        self.lines += len(meant)
        self.people += len(new)
        to_come = set(new)
        for line, people in meant.items():
            if not people:
                self.unknown += 1
                self.unknown_lines += [line] if len(self.unknown_lines) < SHOWN else []
            elif not people & to_come:
                self.doubled += 1
            to_come -= people


@dataclass(frozen=True, slots=True)
class Lists:
    """Keeps lists. Each function is one transaction, which the caller opens."""

    hasher: Hasher
    _ids: Ids = field(default_factory=Ids)

    async def begin(self, c: Connection, name: str) -> UUID:
        """A new list with nobody on it. It is not ready until it is finished."""
        id_ = self._ids.new(time.time_ns() // 1_000_000)
        await lists.create(c, id_, name)
        return id_

    async def add(self, c: Connection, list_id: UUID, channel: Channel | None, names: Mapping[int, Name]) -> Added:
        """Put on the list whom these lines mean. `channel`: of their addresses; None: they are ids.

        Raises:
            NotFound: the list was removed meanwhile.

        """
        if not await lists.keep(c, list_id):
            raise NotFound(_GONE)
        keys = {line: self._keys(name) for line, name in names.items()}
        found = await self._look_up(c, channel, [key for each in keys.values() for key in each])
        # Under their locks, so that nobody is adopted by another between being found and being on the list.
        survivors = await recipients.lock_survivors(c, sorted({person for each in found.values() for person in each}))
        meant = {
            line: {survivors[person] for key in each for person in found.get(key, ())} for line, each in keys.items()
        }
        return Added(meant, await lists.add(c, list_id, set().union(*meant.values())))

    def _keys(self, name: Name) -> Sequence[str | bytes]:
        return [name] if isinstance(name, str) else self.hasher.all(name)

    async def _look_up(self, c: Connection, channel: Channel | None, keys: Sequence[Any]) -> Mapping[Any, set[UUID]]:
        found: dict[Any, set[UUID]] = defaultdict(set)
        if channel is None:
            for external_id, person in await lists.ids_of(c, keys):
                found[external_id].add(person)
        else:
            for held in await recipients.holders(c, channel, keys):
                found[held.address_hash].add(held.recipient_id)
        return found


@dataclass(frozen=True, slots=True)
class Added:
    """Whom each line means, and who of them is new on the list."""

    meant: Mapping[int, set[UUID]]
    new: set[UUID]


async def get(c: Connection, list_id: UUID) -> Row:
    """A list as it stands.

    Raises:
        NotFound: there is none.

    """
    found = await lists.find(c, list_id)
    if found is None:
        raise NotFound(_GONE)
    return found


async def finish(c: Connection, list_id: UUID, report: Mapping[str, Any]) -> Row:
    """The upload came to its end: the list as it stands from now on.

    Raises:
        NotFound: it was removed meanwhile.

    """
    found = await lists.finish(c, list_id, report)
    if found is None:
        raise NotFound(_GONE)
    return found


async def remove(c: Connection, list_id: UUID) -> None:
    """Remove a list, ready or not.

    Raises:
        NotFound: there is none.
        Conflict: a campaign that has not come to its end names it.

    """
    if not await lists.lock(c, list_id):
        raise NotFound(_GONE)
    if using := await lists.used_by(c, list_id):
        shown = ", ".join(str(one["id"]) for one in using[:NAMED])
        raise Conflict(f"{len(using)} campaigns that are not over name this list; end them, or edit them: {shown}")
    await lists.remove(c, list_id)
