"""How often somebody may be asked whether it was really them, or mailed a link, so that no form can flood a mailbox."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class Limit:
    """So many within so long, rolling."""

    most: int
    within: timedelta


LIMITS = (Limit(1, timedelta(minutes=10)), Limit(3, timedelta(days=1)))
"""For one address and for one recipient, over all topics, channels and callers."""

LINK_LIMITS = (Limit(3, timedelta(hours=1)), Limit(5, timedelta(days=1)))
"""For the links to one's own settings, likewise: whoever holds a mail that was passed on can ask for them."""


TEMPLATE = "confirm-subscription"  #: its key, and that of the system topic
LOOK_BACK = max(limit.within for limit in (*LIMITS, *LINK_LIMITS))


def wait(asked: Sequence[datetime], now: datetime, limits: Sequence[Limit] = LIMITS) -> timedelta | None:
    """How long until one more may be asked, given when it was asked before; None: now."""
    newest_first = sorted(asked, reverse=True)
    frees = [newest_first[limit.most - 1] + limit.within - now for limit in limits if len(newest_first) >= limit.most]
    longest = max(frees, default=timedelta(0))
    return longest if longest > timedelta(0) else None


def remaining(asked: Sequence[datetime], now: datetime) -> int:
    """How many more there may be within a day, each after its wait."""
    longest = max(LIMITS, key=lambda limit: limit.within)
    return max(0, longest.most - sum(moment > now - longest.within for moment in asked))
