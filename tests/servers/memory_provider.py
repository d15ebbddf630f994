"""A provider without a wire, for tests of what stands above it; it keeps the same contract as the real ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from notifier_channels.contract import (
    Ambiguous,
    EmailContent,
    MessageId,
    Outcome,
    Outgoing,
    Receipt,
    Unavailable,
    Withheld,
    Witness,
)


def _accept(outgoing: Outgoing[EmailContent]) -> Outcome:
    return Receipt(f"memory-{outgoing.id.hex[:8]}")


@dataclass(eq=False)
class MemoryProvider:
    """Accepts what `answer` says. `Ambiguous` was accepted, and its answer lost."""

    name: str = "memory"
    answer: Callable[[Outgoing[EmailContent]], Outcome] = _accept
    accepted: list[Outgoing[EmailContent]] = field(default_factory=list)
    is_closed: bool = False
    most_at_once: int = 500

    async def send(
        self, batch: Sequence[Outgoing[EmailContent]], witness: Witness
    ) -> AsyncIterator[tuple[MessageId, Outcome]]:
        for outgoing in batch:
            await asyncio.sleep(0)
            yield outgoing.id, self._try(outgoing, witness)

    async def close(self) -> None:
        self.is_closed = True

    def _try(self, outgoing: Outgoing[EmailContent], witness: Witness) -> Outcome:
        if self.is_closed:
            return Unavailable("closed", "the provider was closed")
        if not witness.about_to_commit(outgoing.id):
            return Withheld()
        outcome = self.answer(outgoing)
        if isinstance(outcome, Receipt | Ambiguous):
            self.accepted.append(outgoing)
        if not isinstance(outcome, Ambiguous):
            witness.answered(outgoing.id, outcome)
        return outcome
