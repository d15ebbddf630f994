"""A list of people streams in: one column of a CSV file says who is meant, whatever else stands in it.

The list is a row from the first batch on, and ready after the last line: what breaks off in between can be removed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Protocol, TypeVar
from uuid import UUID

from notifier.dispatch import lists
from notifier.dispatch.lists import Lists, Name, Report
from notifier.errors import InvalidInput, Problem
from notifier.store.database import Connection, Row
from notifier.web.lists import Bad, cells, cut
from notifier_channels.addresses import EmailAddress, InvalidAddress, PhoneNumber
from notifier_channels.contract import Channel

T = TypeVar("T")

BATCH = 1000  #: lines
LONGEST_ID = 255

COLUMNS = {"id": None, "email": Channel.EMAIL, "phone": Channel.SMS}


class Transact(Protocol):
    """Runs work in one transaction, as `Database.transact` does."""

    def __call__(self, work: Callable[[Connection], Awaitable[T]], /) -> Awaitable[T]:
        """What the work gives."""


@dataclass(frozen=True, slots=True)
class Column:
    """Where in a file the names stand, and of what kind they are."""

    position: int
    width: int
    channel: Channel | None  #: None: they are the product's own ids
    allow_test: bool = False  #: addresses of test domains

    @classmethod
    def described(cls, header: bytes, *, allow_test: bool = False) -> Column:
        """Read the first line.

        Raises:
            InvalidInput: says what is wrong with it, and repeats nothing of it: it may be somebody's address.

        """
        names = [name.strip().lower() for name in cells(header) or ()]
        known = [name for name in names if name in COLUMNS]
        wanted = "one of its columns must be called `id`, `email` or `phone`"
        if not known:
            raise InvalidInput([Problem("", f"the first line must name the columns: {wanted}{_guess(header, names)}")])
        if len(known) > 1:
            raise InvalidInput(
                [Problem("", f"the first line names more than one of id, email and phone: only {wanted}")]
            )
        return cls(names.index(known[0]), len(names), COLUMNS[known[0]], allow_test)

    def read(self, line: bytes | Bad) -> Name | Bad:
        """Whom one line names."""
        if isinstance(line, Bad):
            return line
        found = cells(line)
        if found is None:
            return Bad.because("is not CSV in UTF-8")
        if len(found) != self.width:
            return Bad.because(f"has {len(found)} cells where the first line names {self.width}")
        text = found[self.position].strip()
        try:
            return self._name(text) if text else Bad.because("names nobody: the cell is empty")
        except InvalidAddress as error:
            return Bad.because(f"is no address: {error}")

    def _name(self, text: str) -> Name | Bad:
        match self.channel:
            case None:
                is_id = len(text) <= LONGEST_ID and "\0" not in text
                return text if is_id else Bad.because(f"is no id: at most {LONGEST_ID} characters")
            case Channel.EMAIL:
                return EmailAddress.parse(text, allow_test_domains=self.allow_test)
            case _:
                return PhoneNumber.parse(text)


def _guess(header: bytes, names: Sequence[str]) -> str:
    if any("@" in name or name.lstrip("+").isdigit() for name in names):
        return "; this one looks like data: put a line with the column's name above it"
    if b";" in header or b"\t" in header:
        return "; this one is divided by semicolons or tabs: divide it by commas"
    return ""


@dataclass(slots=True)
class Upload:
    """One list while it streams in. Memory does not grow with it."""

    lists: Lists
    transact: Transact
    allow_test: bool
    report: Report = field(default_factory=Report)

    async def take(self, name: str, stream: AsyncIterator[bytes]) -> Row:
        """Read it to its end: the list as it stands then.

        Raises:
            InvalidInput: the first line does not say where the names are; there is no list then.
            NotFound: it was removed meanwhile.

        """
        lines = cut(stream, quoted=True)
        header = b""
        async for _, first in lines:  # not `anext` with a default: of nothing at all CPython 3.11 makes a SystemError
            header = first if isinstance(first, bytes) else b""
            break
        column = Column.described(header, allow_test=self.allow_test)
        list_id = await self.transact(lambda c: self.lists.begin(c, name))
        batch: list[tuple[int, bytes | Bad]] = []
        async for line in lines:
            batch.append(line)
            if len(batch) == BATCH:
                await self._keep(list_id, column, batch)
                batch = []
        await self._keep(list_id, column, batch)
        return await self.transact(lambda c: lists.finish(c, list_id, asdict(self.report)))

    async def _keep(self, list_id: UUID, column: Column, batch: Sequence[tuple[int, bytes | Bad]]) -> None:
        """Reading is work for the processor, so it leaves the event loop alone."""
        read = await asyncio.to_thread(lambda: [(number, column.read(line)) for number, line in batch])
        names = {number: name for number, name in read if not isinstance(name, Bad)}
        for number, name in read:
            if isinstance(name, Bad):
                self.report.cannot_read(number, name.problems[0].detail)
        if names:
            added = await self.transact(lambda c: self.lists.add(c, list_id, column.channel, names))
            self.report.count(added.meant, added.new)
