"""How an outcome is written, by the worker that got it and by the sweep that finds its worker dead."""

from __future__ import annotations

from collections.abc import Sequence

from notifier.domain.messages import Category, State
from notifier.domain.retry import Settlement, Tried
from notifier.store import events, messages
from notifier.store.database import Connection, Row
from notifier.store.messages import Settled
from notifier_channels.contract import Channel, Outcome, Receipt


def tried(row: Row) -> Tried:
    """The message as the retry table needs it."""
    return Tried(Category(row["category"]), Channel(row["channel"]), row["tries"], row["repeated"], row["expires_at"])


def settled(row: Row, settlement: Settlement, outcome: Outcome | None = None) -> Settled:
    """What is written on the message and on its attempt; the outcome is the provider's own word, where there is one."""
    if outcome is None:
        return Settled(row["id"], row["n"], settlement)
    if isinstance(outcome, Receipt):
        return Settled(row["id"], row["n"], settlement, outcome.code, outcome.reference)
    return Settled(row["id"], row["n"], settlement, outcome.code, detail=outcome.detail)


async def write(c: Connection, outcomes: Sequence[Settled]) -> None:
    """Write them on rows that this transaction has locked, and apply what was reported before."""
    await messages.settle(c, outcomes)
    await events.apply_pending(c, [one.id for one in outcomes if _may_have_moved_on(one)])


def _may_have_moved_on(one: Settled) -> bool:
    """Something may be reported of this attempt; or, while it was under way, of an earlier one that it repeats."""
    return one.settlement.state in events.TAKEN or (one.settlement.state in (State.QUEUED, State.FAILED) and one.n > 1)
