"""One batch on its way through a provider: what waits, what may still be committed, and what came of each message.

What a provider learns over all its batches, however small they are, is kept by `Doubts` and `Blame`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from notifier_channels.contract import (
    Ambiguous,
    MessageId,
    Misconfigured,
    Outcome,
    Outgoing,
    Receipt,
    Rejected,
    Unavailable,
    Withheld,
    Witness,
)

ENOUGH = 3  #: so often in a row the same no about our side, and the rest of the batch gets it unasked
REFUSALS = 5  #: so many that may be the message's fault or ours, with nothing taken between, and it is ours

TOGETHER = 50  #: so many receipts are told of at once

ContentT = TypeVar("ContentT")


class Doubts:
    """Counts the answers that a provider has left out in a row; lives as long as the provider does.

    A lost answer puts its message in doubt, and marketing in doubt is never sent again. So from `ENOUGH` on the rest of
    the batch, or else the next one, is not tried: that it is `Unavailable` pauses the provider, and a probe follows,
    whose answer may be lost as well. Only a receipt ends the row: a front that still refuses bad numbers takes nothing.
    """

    def __init__(self) -> None:
        self._in_a_row = 0
        self._away: Unavailable | None = None

    @property
    def are_many(self) -> bool:
        """True until something is taken again: what is tried now is a probe."""
        return self._in_a_row >= ENOUGH

    def add(self, *outcomes: Outcome) -> None:
        """What came of messages that were on the wire together."""
        for outcome in outcomes:
            if isinstance(outcome, Receipt):
                self._in_a_row, self._away = 0, None
                return
        lost = [outcome.code for outcome in outcomes if isinstance(outcome, Ambiguous)]
        self._in_a_row += len(lost)
        if lost and self.are_many:
            self._away = Unavailable(lost[-1], "too many answers in a row were lost", is_away=True)

    def rest(self) -> Unavailable | None:
        """What is to be said of messages that have not left, if anything. It is said once: then comes the probe."""
        away, self._away = self._away, None
        return away


class Blame:
    """Tells a message that is refused from a provider that refuses us, where one answer alone does not say which.

    Alone such a refusal fails its message, so that no single one can pause the provider for ever; several with nothing
    taken between are taken for a fault of ours. Lives as long as the provider does.
    """

    def __init__(self, may_be_ours: Callable[[Outcome], bool]) -> None:
        self._may_be_ours = may_be_ours
        self._in_a_row = 0

    def judge(self, outcome: Outcome) -> Outcome:
        """The same outcome, or what it means after several like it."""
        if isinstance(outcome, Receipt):
            self._in_a_row = 0
        elif isinstance(outcome, Rejected) and self._may_be_ours(outcome):
            self._in_a_row += 1
            if self._in_a_row > REFUSALS:
                return Misconfigured(outcome.code, outcome.detail)
        return outcome


class Identified(Protocol):
    """A message in whatever form the channel carries it."""

    @property
    def id(self) -> MessageId:
        """Whose outcome it will be."""


class Sending(Generic[ContentT]):
    """One call of `send`, and the witness beside it."""

    def __init__(self, batch: Sequence[Outgoing[ContentT]], witness: Witness, doubts: Doubts) -> None:
        self.in_doubt = 0  #: committed to the wire and not answered
        self._waiting = deque(batch)
        self._witness = witness
        self._doubts = doubts
        self._left = len(batch)  #: without an outcome
        self._settled: deque[tuple[MessageId, Outcome]] = deque()
        self._news = asyncio.Event()
        self._no_doubt = asyncio.Event()
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
        """Ask the witness, unless the batch has been stopped, or the provider leaves too much in doubt."""
        if self._stopped is None and (away := self._doubts.rest()) is not None:
            self.stop(away)
        if self._stopped is not None:
            self._put(one.id, self._stopped)
            return False
        if not self._witness.about_to_commit(one.id):
            self.settle(one, Withheld())
            if self._witness.is_over:
                self.stop(Withheld())
            return False
        self.in_doubt += 1
        return True

    def answered(self, one: Identified, outcome: Outcome) -> None:
        """What was committed is answered: the witness hears it first."""
        self._leave_doubt()
        self._witness.answered(one.id, outcome)
        self._doubts.add(outcome)
        self._put(one.id, outcome)

    def lost(self, one: Identified, outcome: Outcome) -> None:
        """What was committed will not be answered any more."""
        self._leave_doubt()
        self._doubts.add(outcome)
        self._put(one.id, outcome)

    def settle(self, one: Identified, outcome: Outcome) -> None:
        """What came of a message that was not committed."""
        self._put(one.id, outcome)

    def crashed(self, bug: Exception) -> None:
        """Our own code failed: `next` raises it."""
        self._bug = bug
        self._news.set()
        self._no_doubt.set()

    async def answers_due(self) -> None:
        """Wait for the answers to what is on the wire."""
        while self.in_doubt and self._bug is None:
            self._no_doubt.clear()
            await self._no_doubt.wait()

    def _leave_doubt(self) -> None:
        self.in_doubt -= 1
        if not self.in_doubt:
            self._no_doubt.set()

    def _take_back(self) -> list[MessageId]:
        """Everything that is not on the wire."""
        waiting = [outgoing.id for outgoing in self._waiting]
        self._waiting.clear()
        return waiting

    def _put(self, message: MessageId, outcome: Outcome) -> None:
        self._settled.append((message, outcome))
        self._left -= 1
        # A receipt, which the witness knows, waits for some others: waking whoever asks costs as much as it does.
        if not self._left or len(self._settled) >= TOGETHER or not isinstance(outcome, Receipt):
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
        return outcome if isinstance(outcome, Misconfigured) else None
