"""What a provider's later report means for its message and its address: two tables that feedback obeys."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta

from notifier.domain.messages import NEXT, State
from notifier_channels.contract import EventKind, Strike

_MOVES = (  # the gravest report comes first
    (EventKind.COMPLAINED, State.COMPLAINED),
    (EventKind.BOUNCED, State.BOUNCED),
    (EventKind.DELIVERED, State.DELIVERED),
)
_ARRIVED = frozenset({EventKind.DELIVERED, EventKind.COMPLAINED})

# RFC 3463 and the IANA registry of enhanced status codes: no such mailbox, bad syntax, mailbox has moved, null MX,
# mailbox disabled. Not 5.2.2 (full), 5.2.3 and 5.3.4 (too big) or 5.7.x (our reputation): there the address is good.
_NOBODY_THERE = frozenset({"5.1.1", "5.1.3", "5.1.6", "5.1.10", "5.2.1"})
_ENHANCED = re.compile(r"(?<![\d.])[245]\.\d{1,3}\.\d{1,3}(?!\.?\d)")


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How many bounces that prove nothing are borne, of one address, with no delivery in between."""

    soft: int = 0  #: of unknown reason; 0: any number
    domain: int = 3  #: whose domain was not found
    unreachable: int = 10  #: of a phone; many, since suppressing it stops its sign-in codes, too
    within: timedelta = timedelta(days=30)

    def is_spent(self, strike: Strike, count: int) -> bool:
        """Whether so many are enough to leave the address alone."""
        most = {Strike.DOMAIN: self.domain, Strike.SOFT: self.soft, Strike.UNREACHABLE: self.unreachable}[strike]
        return 0 < most <= count


def advance(state: State, reported: Collection[EventKind], *, may_go_again: bool = False) -> State:
    """Where a message stands after everything that was reported of it, in whatever order.

    A message that is still in our hands stays where it is: the reports wait until it settles. Of a bounce and a
    complaint, the first that was applied stands: both are final. A bounce after which it may go again (`retry`) ends
    nothing: it is queued, or stays where it is when it has arrived all the same.
    """
    if may_go_again:
        reported = set(reported) - {EventKind.BOUNCED}
        if state is State.ACCEPTED and not reported & _ARRIVED:
            return State.QUEUED
    return next((to for kind, to in _MOVES if kind in reported and to in NEXT[state]), state)


def proves_nobody_there(code: str | None) -> bool:
    """True when a bounce's code says that the mailbox does not exist. Without a code nothing is proven."""
    found = _ENHANCED.search(code or "")
    return found is not None and found.group() in _NOBODY_THERE
