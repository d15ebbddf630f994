"""What became of a campaign's messages: added up for whoever decides, and person by person for whoever must prove it.

The table leaves in pieces, and holds no connection while a piece is on its way: a reader may be slow, and a million
people take no more memory than a thousand. Each person is as they stand when their piece is read.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias, TypeVar
from uuid import UUID

from notifier.domain import spreadsheets
from notifier.domain.reports import Progress, Report
from notifier.errors import NotFound
from notifier.store import reports
from notifier.store.database import Connection

T = TypeVar("T")
Connect: TypeAlias = Callable[[], AbstractAsyncContextManager[Connection]]

PIECE = 2_000  #: lines, about
MOST_BATCHES = 500  #: that one piece is read from: those of a slow campaign are small


async def report(c: Connection, id_: UUID) -> Report:
    """What became of it; raises NotFound."""
    return _found(await reports.report(c, id_))


async def progress(c: Connection, id_: UUID) -> Progress:
    """How far it has come; raises NotFound."""
    return _found(await reports.progress(c, id_))


async def table(connect: Connect, id_: UUID) -> AsyncGenerator[str, None]:
    """A CSV of a line for each person who is in a batch and each channel, in pieces; addresses are not in it.

    Raises NotFound before the first piece.
    """
    async with connect() as c:
        _found(await reports.progress(c, id_))
    yield spreadsheets.line(reports.LINE)
    after, batches = 0, 1
    while True:
        async with connect() as c:
            found = await reports.lines(c, id_, after, batches)
        if not found:
            return
        yield "".join(spreadsheets.line(row[name] for name in reports.LINE) for row in found)
        after, batches = found[-1]["n"], max(1, min(MOST_BATCHES, batches * PIECE // len(found)))


def _found(what: T | None) -> T:
    if what is None:
        raise NotFound("There is no campaign with this id.")
    return what
