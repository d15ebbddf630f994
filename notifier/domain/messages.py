"""A message's states, who may move it where, and the words used along its life. DESIGN.md section 3 in code."""

from __future__ import annotations

import os
import threading
from datetime import datetime
from enum import StrEnum
from uuid import UUID


class Category(StrEnum):
    """A topic's category; never set by a request."""

    TRANSACTIONAL = "transactional"
    MARKETING = "marketing"


class Lane(StrEnum):
    """Each lane has its own queue, processes, connections and rate budget (I10)."""

    TRANSACTIONAL = "transactional"
    MARKETING = "marketing"


class State(StrEnum):
    """Where a message stands. The comment says who moves it out."""

    QUEUED = "queued"  #: deliver (claim), opt_out and the API (cancel), feedback (it need not be repeated)
    CLAIMED = "claimed"  #: deliver (gate), sweep (its worker died), feedback (as above)
    SENDING = "sending"  #: deliver (settle), sweep (its worker died)
    ACCEPTED = "accepted"  #: feedback
    DELIVERED = "delivered"  #: feedback
    UNKNOWN = "unknown"  #: sweep (reconcile, the one repeat), feedback, a late receipt
    FAILED = "failed"  #: an operator (replay), feedback (an earlier try was taken)
    SUPPRESSED = "suppressed"  #: nobody
    EXPIRED = "expired"  #: nobody
    CANCELLED = "cancelled"  #: nobody
    BOUNCED = "bounced"  #: nobody
    COMPLAINED = "complained"  #: nobody


NEXT: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.CLAIMED, State.CANCELLED, State.EXPIRED, State.ACCEPTED}),
    State.CLAIMED: frozenset(
        {State.SENDING, State.SUPPRESSED, State.EXPIRED, State.FAILED, State.QUEUED, State.ACCEPTED}
    ),
    State.SENDING: frozenset({State.ACCEPTED, State.UNKNOWN, State.FAILED, State.QUEUED, State.SUPPRESSED}),
    State.UNKNOWN: frozenset({State.ACCEPTED, State.FAILED, State.QUEUED}),
    State.ACCEPTED: frozenset({State.DELIVERED, State.BOUNCED, State.COMPLAINED, State.QUEUED}),
    State.DELIVERED: frozenset({State.BOUNCED, State.COMPLAINED}),
    State.FAILED: frozenset({State.QUEUED, State.ACCEPTED}),
    State.SUPPRESSED: frozenset(),
    State.EXPIRED: frozenset(),
    State.CANCELLED: frozenset(),
    State.BOUNCED: frozenset(),
    State.COMPLAINED: frozenset(),
}

FINAL = frozenset(state for state, following in NEXT.items() if not following)


class AttemptState(StrEnum):
    """How one try to hand a message to a provider stands."""

    STARTED = "started"  #: intent is committed; the wire may be in use
    ACCEPTED = "accepted"  #: the provider took it
    NOT_TAKEN = "not_taken"  #: it definitely did not
    REFUSED = "refused"  #: it refused for good
    UNKNOWN = "unknown"  #: it may have taken it
    SUPERSEDED = "superseded"  #: was unknown until the one repeat of a transactional message
    BOUNCED = "bounced"  #: was accepted, until it came back and its transactional message was queued again


LIVE = frozenset({AttemptState.STARTED, AttemptState.ACCEPTED, AttemptState.UNKNOWN})
"""A message never has two of these (I3); a partial unique index forbids it."""

MAX_CLAIMS = 3
"""After so many claims that ended in a dead worker a message is poison."""


class Ids:
    """Makes UUIDv7s (RFC 9562 5.7) that ascend within the process: 48 bits of milliseconds, a counter, random bits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def new(self, now_ms: int) -> UUID:
        """The next id. When the clock stands still or steps back, the 12-bit counter carries on from the last id."""
        noise = int.from_bytes(os.urandom(9), "big")
        with self._lock:
            self._last = max(now_ms << 12 | noise & 0xFF, self._last + 1)
            stamp, counter = self._last >> 12, self._last & 0xFFF
        tail = noise >> 8 & (1 << 62) - 1
        return UUID(int=stamp << 80 | 0x7 << 76 | counter << 64 | 0b10 << 62 | tail)


def first_id(at: datetime) -> UUID:
    """No id that was made at that instant or later is smaller. None was made before 1970."""
    return UUID(int=max(int(at.timestamp() * 1000), 0) << 80)
