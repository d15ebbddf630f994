"""One batch on its way through a provider: what waits, what may still be committed, and what came of each message."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from notifier_channels.contract import MessageId, Misconfigured, Outcome, Outgoing, Withheld, Witness

ENOUGH = 3  #: so often in a row the same no about our side, and the rest of the batch gets it unasked

ContentT = TypeVar("ContentT")


class Identified(Protocol):
    """A message in whatever form the channel carries it."""

    @property
    def id(self) -> MessageId:
        """Whose outcome it will be."""


class Sending(Generic[ContentT]):
    """One call of `send`, and the witness beside it."""

    def __init__(self, batch: Sequence[Outgoing[ContentT]], witness: Witness) -> None:
        self.in_doubt = 0  #: committed to the wire and not answered
        self._waiting = deque(batch)
        self._witness = witness
        self._settled: deque[tuple[MessageId, Outcome]] = deque()
        self._news = asyncio.Event()
        self._bug: Exception | None = None
        self._stopped: Outcome | None = None
        self._in_a_row: tuple[type[Outcome] | None, int] = (None, 0)

    async def next(self) -> tuple[MessageId, Outcome]:
        """The next outcome."""
        while not self._settled:
            if self._bug is not None:
                raise self._bug
            self._news.clear()
            await self._news.wait()
        return self._settled.popleft()

    def pop(self) -> Outgoing[ContentT] | None:
        """The next message that waits; None when there is none left."""
        return self._waiting.popleft() if self._waiting else None

    def stop(self, outcome: Outcome) -> None:
        """Commit nothing more: this is the outcome of everything that is not on the wire."""
        if self._stopped is None:
            self._stopped = outcome
        for message in self._take_back():
            self._put(message, self._stopped)

    def may_commit(self, one: Identified) -> bool:
        """Ask the witness, unless the batch has been stopped."""
        if self._stopped is not None:
            self._put(one.id, self._stopped)
            return False
        if not self._witness.about_to_commit(one.id):
            self.settle(one, Withheld())
            return False
        self.in_doubt += 1
        return True

    def answered(self, one: Identified, outcome: Outcome) -> None:
        """What was committed is answered: the witness hears it first."""
        self.in_doubt -= 1
        self._witness.answered(one.id, outcome)
        self._put(one.id, outcome)

    def lost(self, one: Identified, outcome: Outcome) -> None:
        """What was committed will not be answered any more."""
        self.in_doubt -= 1
        self._put(one.id, outcome)

    def settle(self, one: Identified, outcome: Outcome) -> None:
        """What came of a message that was not committed."""
        self._put(one.id, outcome)

    def crashed(self, bug: Exception) -> None:
        """Our own code failed: `next` raises it."""
        self._bug = bug
        self._news.set()

    async def answers_due(self) -> None:
        """Wait for the answers to what is on the wire."""
        while self.in_doubt and self._bug is None:
            self._news.clear()
            await self._news.wait()

    def _take_back(self) -> list[MessageId]:
        """Everything that is not on the wire."""
        waiting = [outgoing.id for outgoing in self._waiting]
        self._waiting.clear()
        return waiting

    def _put(self, message: MessageId, outcome: Outcome) -> None:
        self._settled.append((message, outcome))
        self._news.set()
        kind, count = self._in_a_row
        self._in_a_row = (type(outcome), count + 1 if type(outcome) is kind else 1)
        if self._stopped is None and self._in_a_row[1] >= ENOUGH:
            rest = self._of_the_rest(outcome)
            if rest is not None:
                self.stop(rest)

    def _of_the_rest(self, outcome: Outcome) -> Outcome | None:
        """What the same answer again and again means for messages that were not asked about; mostly nothing.

        A no about our side is the same for each: asking on would only cost time and our good name.
        """
        return outcome if isinstance(outcome, Misconfigured | Withheld) else None
