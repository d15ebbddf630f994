"""Stands between the gate and the wire: the process's right to send, and what is written down beside each byte.

The gate has decided, but the last message of a batch leaves some time later. Until its accepting byte a message is held
back when the process has lost its lock, when the batch has run out of time, and when the person has said no since. Held
back, it goes to the gate again, which then refuses it with the reason.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

import structlog

from notifier.domain.consent import ANY, Topic
from notifier.journal import Journal
from notifier.store.consent import Heard
from notifier_channels.contract import Ambiguous, Channel, MessageId, Outcome, Unavailable, Withheld

log = structlog.get_logger(__name__)

REMEMBERED = 100_000  #: people whose withdrawals are kept in mind; far more than can be in hand at once


class Attempt(NamedTuple):
    """One try that is committed, as far as the witness needs it."""

    n: int
    number: int  #: from the sequence that the ledger draws from, too: a withdrawal above it came later
    recipient: UUID
    topic: Topic
    channel: Channel


@dataclass(slots=True)
class Hold:
    """This process's right to send. Once lost it never comes back: a fresh process takes over."""

    lost: bool = False
    closing: bool = False  #: no further batch is claimed
    drained_by: float = float("inf")  #: on the monotonic clock; nothing is committed to the wire after it
    _withdrawn: dict[UUID, list[Heard]] = field(default_factory=lambda: defaultdict(list))

    def may_commit(self) -> bool:
        """True while an accepting byte may leave."""
        return not self.lost and time.monotonic() < self.drained_by

    def hear(self, said: Heard) -> None:
        """Somebody has said no, just now."""
        if len(self._withdrawn) >= REMEMBERED:
            del self._withdrawn[next(iter(self._withdrawn))]
        self._withdrawn[said.recipient].append(said)

    def was_withdrawn(self, attempt: Attempt) -> bool:
        """True when a no that covers the attempt was recorded after it."""
        if not self._withdrawn:
            return False
        return any(
            said.number > attempt.number
            and said.scope in attempt.topic.scopes_above
            and said.channel in (ANY, attempt.channel)
            for said in self._withdrawn.get(attempt.recipient, ())
        )


@dataclass(slots=True)
class BatchWitness:
    """The witness of one batch on one channel (`contract.Witness`)."""

    journal: Journal
    hold: Hold
    attempts: Mapping[MessageId, Attempt]
    deadline: float  #: on the monotonic clock
    is_deaf: bool = False  #: nothing can be written down
    committed: set[MessageId] = field(default_factory=set)
    answers: dict[MessageId, Outcome] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        """Time, the process's right to send or the journal is gone; one person's no is not."""
        return self.is_deaf or time.monotonic() >= self.deadline or not self.hold.may_commit()

    def about_to_commit(self, message: MessageId) -> bool:
        """Write the line before the byte; False when it must not leave any more."""
        attempt = self.attempts[message]
        if self.is_over or self.hold.was_withdrawn(attempt):
            return False
        try:
            self.journal.before(message, attempt.n)
        except OSError as error:  # the disk is full: what cannot be written down is not sent
            log.error("journal.not_written", error=error.strerror)
            self.is_deaf = True
            return False
        self.committed.add(message)
        return True

    def answered(self, message: MessageId, outcome: Outcome) -> None:
        """Write the line after the answer. Without it, the answer is known as long as this process lives."""
        self.answers[message] = outcome
        try:
            self.journal.after(message, self.attempts[message].n, outcome)
        except OSError as error:
            log.error("journal.not_written", error=error.strerror)

    def outcome_of(self, message: MessageId, said: Outcome | None = None) -> Outcome:
        """What became of a message: what the channel `said`, or, when it was cut off before, what is known here.

        What was held back because nothing can be written down has to wait: released, it would be back in no time.
        """
        if self.is_deaf and isinstance(said, Withheld):
            return Unavailable("not_written")
        if said is not None:
            return said
        if message in self.answers:
            return self.answers[message]
        return Ambiguous("cut_off") if message in self.committed else Unavailable("cut_off")
