"""One batch on its way: what waits, what may still be committed, and what came of each message."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from notifier_channels.contract import (
    EmailContent,
    MessageId,
    Misconfigured,
    Outcome,
    Outgoing,
    Receipt,
    Withheld,
    Witness,
)
from notifier_channels.email.mail import Mail, write
from notifier_channels.email.replies import blames_policy

ENOUGH = 3  #: so often in a row the same no about our side, and the rest of the batch gets it unasked
POLICY_REFUSALS = 5  #: so many in a row with nothing taken between, and it is our policy, not the mail


class Sending:
    """One call of `send`: what waits, what came of it, and the witness beside it (`pipeline.Source`)."""

    def __init__(self, batch: Sequence[Outgoing[EmailContent]], witness: Witness, domain: str, policy: Policy) -> None:
        self.lanes = 0
        self.in_doubt = 0  #: final dots written and not answered
        self._waiting = deque(batch)
        self._ready: deque[Mail] = deque()
        self._witness = witness
        self._domain = domain
        self._policy = policy
        self._settled: deque[tuple[MessageId, Outcome]] = deque()
        self._news = asyncio.Event()
        self._bug: Exception | None = None
        self._stopped: Outcome | None = None
        self._in_a_row: tuple[type[Outcome] | None, int] = (None, 0)

    @property
    def has_more(self) -> bool:
        """True while something waits for a line."""
        return bool(self._ready or self._waiting)

    async def next(self) -> tuple[MessageId, Outcome]:
        """The next outcome."""
        while not self._settled:
            if self._bug is not None:
                raise self._bug
            self._news.clear()
            await self._news.wait()
        return self._settled.popleft()

    def stop(self, outcome: Outcome) -> None:
        """Commit nothing more: this is the outcome of everything that is not on the wire."""
        if self._stopped is None:
            self._stopped = outcome
        waiting = [*(mail.id for mail in self._ready), *(outgoing.id for outgoing in self._waiting)]
        self._ready.clear()
        self._waiting.clear()
        for message in waiting:
            self._put(message, self._stopped)

    def lane_ended(self, problem: Outcome | None = None) -> None:
        """When the last lane has ended, nothing can go on any more."""
        self.lanes -= 1
        if problem is not None and self.lanes == 0:
            self.stop(problem)

    # pipeline.Source --------------------------------------------------------------------------------------------------

    def take(self) -> Mail | None:
        """The next mail, made now if it is not ready."""
        while not self._ready and self._waiting:
            self._make()
        return self._ready.popleft() if self._ready else None

    def prepare(self) -> None:
        """Make the next mail while the server reads the last one."""
        if self._waiting and len(self._ready) < self.lanes:
            self._make()

    def give_back(self, mail: Mail) -> None:
        """Nothing of it was answered: the next line takes it first."""
        if self._stopped is None:
            self._ready.appendleft(mail)
        else:
            self._put(mail.id, self._stopped)

    def may_commit(self, mail: Mail) -> bool:
        """Ask the witness, unless the batch has been stopped."""
        if self._stopped is not None:
            self._put(mail.id, self._stopped)
            return False
        if not self._witness.about_to_commit(mail.id):
            self.settle(mail, Withheld())
            return False
        self.in_doubt += 1
        return True

    def answered(self, mail: Mail, outcome: Outcome) -> None:
        """The answer to its final dot: the witness hears it first."""
        self.in_doubt -= 1
        outcome = self._policy.judge(outcome)
        self._witness.answered(mail.id, outcome)
        self._put(mail.id, outcome)

    def settle(self, mail: Mail, outcome: Outcome) -> None:
        """What came of a mail whose final dot was not sent, or not answered."""
        self._put(mail.id, self._policy.judge(outcome))

    def crashed(self, bug: Exception) -> None:
        """Our own code failed: `next` raises it."""
        self._bug = bug
        self._news.set()

    def _make(self) -> None:
        outgoing = self._waiting.popleft()
        mail = write(outgoing, self._domain)
        if isinstance(mail, Mail):
            self._ready.append(mail)
        else:
            self._put(outgoing.id, mail)

    def _put(self, message: MessageId, outcome: Outcome) -> None:
        self._settled.append((message, outcome))
        self._news.set()
        if self._stopped is None and self._is_enough(outcome):
            self.stop(outcome)

    def _is_enough(self, outcome: Outcome) -> bool:
        """The same no about our side again and again: asking on would only cost time and our good name."""
        kind, count = self._in_a_row
        count = count + 1 if type(outcome) is kind else 1
        self._in_a_row = (type(outcome), count)
        return isinstance(outcome, Misconfigured | Withheld) and count >= ENOUGH


class Policy:
    """Tells a mail that a relay's policy refuses from a relay whose policy refuses us.

    Such a reply (5.7.1 and its like) is worded the same in both cases. Alone it fails its message, so that no single
    mail can pause the provider for ever; several in a row with nothing taken between are taken for a fault of ours.
    """

    def __init__(self) -> None:
        self._in_a_row = 0

    def judge(self, outcome: Outcome) -> Outcome:
        """The same outcome, or what it means after several like it."""
        if isinstance(outcome, Receipt):
            self._in_a_row = 0
        elif blames_policy(outcome):
            self._in_a_row += 1
            if self._in_a_row > POLICY_REFUSALS:
                return Misconfigured(outcome.code, outcome.detail)
        return outcome
