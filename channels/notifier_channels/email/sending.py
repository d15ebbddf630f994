"""One batch of mails on its way: made just before a line needs it, and judged beside those before it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from notifier_channels.contract import Email, MessageId, Outcome, Outgoing, Witness
from notifier_channels.email.mail import Mail, write
from notifier_channels.sending import Blame, Doubts, Identified, Sending


class MailSending(Sending[Email]):
    """One call of `send`, as its lanes see it (`pipeline.Source`)."""

    def __init__(
        self,
        batch: Sequence[Outgoing[Email]],
        witness: Witness,
        doubts: Doubts,
        domain: str,
        policy: Blame,
    ) -> None:
        super().__init__(batch, witness, doubts)
        self.lanes = 0
        self._ready: deque[Mail] = deque()
        self._domain = domain
        self._policy = policy

    @property
    def has_more(self) -> bool:
        """True while something waits for a line."""
        return bool(self._ready or self._waiting)

    def lane_ended(self, problem: Outcome | None = None) -> None:
        """When the last lane has ended, nothing can go on any more."""
        self.lanes -= 1
        if problem is not None and self.lanes == 0:
            self.stop(problem)

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

    def answered(self, one: Identified, outcome: Outcome) -> None:
        """The answer to its final dot, or what it means after several like it."""
        super().answered(one, self._policy.judge(outcome))

    def settle(self, one: Identified, outcome: Outcome) -> None:
        """What came of a mail whose final dot was not sent, or not answered."""
        super().settle(one, self._policy.judge(outcome))

    def _make(self) -> None:
        outgoing = self._waiting.popleft()
        mail = write(outgoing, self._domain)
        if isinstance(mail, Mail):
            self._ready.append(mail)
        else:
            self._put(outgoing.id, mail)

    def _take_back(self) -> list[MessageId]:
        ready = [mail.id for mail in self._ready]
        self._ready.clear()
        return ready + super()._take_back()
