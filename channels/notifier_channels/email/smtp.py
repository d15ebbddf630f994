"""The SMTP provider: a pool of lines to one relay that lives as long as its worker, and one outcome for each message.

`mail` makes a message ready for the wire, `connection` opens a line, `pipeline` carries mails over it, `replies` says
what an answer means. Here a batch is spread over the lines, and what befalls one line is kept from the rest.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncGenerator, Sequence

from notifier_channels.contract import (
    EmailContent,
    MessageId,
    Misconfigured,
    Outcome,
    Outgoing,
    Receipt,
    Unavailable,
    Withheld,
    Witness,
)
from notifier_channels.email.connection import CannotOpen, Connection, connect
from notifier_channels.email.mail import Mail, write
from notifier_channels.email.pipeline import Pipeline
from notifier_channels.email.relay import InvalidRelayUrl, Relay, Timeouts
from notifier_channels.email.replies import blames_policy

ENOUGH = 3  #: so often in a row the same no about our side, and the rest of the batch gets it unasked
FRUITLESS = 2  #: so many new lines in a row lost without an answer, and the rest of the batch is not tried
POLICY_REFUSALS = 5  #: so many in a row with nothing taken between, and it is our policy, not the mail

_DOMAIN = re.compile(r"[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+")


class SmtpProvider:
    """A relay as a way out for email (`contract.Provider[EmailContent]`)."""

    def __init__(self, relay: Relay, *, name: str, connections: int, message_id_domain: str) -> None:
        self._relay = relay
        self._name = name
        self._domain = message_id_domain
        self._lines = _Lines(relay, connections)
        self._policy = _Policy()
        self._running: set[_Sending] = set()

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        name: str = "smtp",
        connections: int = 2,
        message_id_domain: str,
        timeouts: Timeouts | None = None,
    ) -> SmtpProvider:
        """See `Relay.from_url` for the URL. `message_id_domain` is a domain that we own; it also stands in EHLO.

        Raises:
            InvalidRelayUrl: says what is wrong, without repeating the URL.

        """
        if not _DOMAIN.fullmatch(message_id_domain):
            raise InvalidRelayUrl("The domain of Message-ID must be a domain name, such as lists.example.com.")
        relay = Relay.from_url(url, hello=message_id_domain, timeouts=timeouts)
        return cls(relay, name=name, connections=connections, message_id_domain=message_id_domain)

    @property
    def name(self) -> str:
        """What stands on attempts, in metrics and in pauses."""
        return self._name

    async def send(
        self, batch: Sequence[Outgoing[EmailContent]], witness: Witness
    ) -> AsyncGenerator[tuple[MessageId, Outcome], None]:
        """Try each message once and yield one outcome for each, as they come.

        Closed early, it waits up to `Timeouts.close` for answers to final dots already written; no other dot follows.
        """
        sending = _Sending(batch, witness, self._domain, self._policy)
        if self._lines.are_closed:
            sending.stop(Unavailable("closed", "the provider was closed"))
        self._running.add(sending)
        lanes = [asyncio.create_task(self._carry(sending)) for _ in range(min(self._lines.size, len(batch)))]
        sending.lanes = len(lanes)
        try:
            for _ in batch:
                yield await sending.next()
        finally:
            sending.stop(Withheld("closed", "send was closed early"))
            if sending.in_doubt:
                await asyncio.wait(lanes, timeout=self._relay.timeouts.close)
            for lane in lanes:
                lane.cancel()
            await asyncio.gather(*lanes, return_exceptions=True)
            self._running.discard(sending)

    async def close(self) -> None:
        """Give the lines back. What has no final dot yet is not sent."""
        for sending in self._running:
            sending.stop(Unavailable("closed", "the provider was closed"))
        await self._lines.close()

    async def _carry(self, sending: _Sending) -> None:
        try:
            await self._carry_all(sending)
        except CannotOpen as problem:
            sending.lane_ended(problem.outcome)
        except Exception as bug:  # noqa: BLE001  # whoever called `send` must get it, not the event loop's log
            sending.crashed(bug)
        else:
            sending.lane_ended()

    async def _carry_all(self, sending: _Sending) -> None:
        fruitless = 0
        while sending.has_more:
            connection = await self._lines.take()
            was_new = connection.begun == 0
            pipeline = Pipeline(connection, sending)
            try:
                await pipeline.run()
            finally:
                self._lines.give_back(connection)
            if pipeline.why_lost is not None and was_new:
                fruitless = 0 if pipeline.has_carried else fruitless + 1
                if fruitless == FRUITLESS:
                    raise CannotOpen(pipeline.why_lost)


class _Sending:
    """One call of `send`: what waits, what came of it, and the witness beside it (`pipeline.Source`)."""

    def __init__(self, batch: Sequence[Outgoing[EmailContent]], witness: Witness, domain: str, policy: _Policy) -> None:
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
        while not self._ready and self._waiting:
            self._make()
        return self._ready.popleft() if self._ready else None

    def prepare(self) -> None:
        if self._waiting and len(self._ready) < self.lanes:
            self._make()

    def give_back(self, mail: Mail) -> None:
        if self._stopped is None:
            self._ready.appendleft(mail)
        else:
            self._put(mail.id, self._stopped)

    def may_commit(self, mail: Mail) -> bool:
        if self._stopped is not None:
            self._put(mail.id, self._stopped)
            return False
        if not self._witness.about_to_commit(mail.id):
            self.settle(mail, Withheld())
            return False
        self.in_doubt += 1
        return True

    def answered(self, mail: Mail, outcome: Outcome) -> None:
        self.in_doubt -= 1
        outcome = self._policy.judge(outcome)
        self._witness.answered(mail.id, outcome)
        self._put(mail.id, outcome)

    def settle(self, mail: Mail, outcome: Outcome) -> None:
        self._put(mail.id, self._policy.judge(outcome))

    def crashed(self, bug: Exception) -> None:
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


class _Policy:
    """Tells a mail that a relay's policy refuses from a relay whose policy refuses us.

    Such a reply (5.7.1 and its like) is worded the same in both cases. Alone it fails its message, so that no single
    mail can pause the provider for ever; several in a row with nothing taken between are taken for a fault of ours.
    """

    def __init__(self) -> None:
        self._in_a_row = 0

    def judge(self, outcome: Outcome) -> Outcome:
        if isinstance(outcome, Receipt):
            self._in_a_row = 0
        elif blames_policy(outcome):
            self._in_a_row += 1
            if self._in_a_row > POLICY_REFUSALS:
                return Misconfigured(outcome.code, outcome.detail)
        return outcome


class _Lines:
    """The pool: at most so many lines at once, each used by one batch at a time."""

    def __init__(self, relay: Relay, size: int) -> None:
        self.size = size
        self.are_closed = False
        self._relay = relay
        self._free = asyncio.Semaphore(size)
        self._idle: list[Connection] = []

    async def take(self) -> Connection:
        """A line that is ready for mail: the one last used, else a new one.

        Raises:
            CannotOpen: with the outcome for whatever waits.

        """
        await self._free.acquire()
        try:
            return self._last_used() or await self._open()
        except BaseException:
            self._free.release()
            raise

    def give_back(self, connection: Connection) -> None:
        """Keep it for the next batch, if it is still good for one."""
        if connection.is_usable and not self.are_closed:
            self._idle.append(connection)
        else:
            connection.quit()
        self._free.release()

    async def close(self) -> None:
        """Say goodbye on every line, and wait a little for those in use to come back."""
        self.are_closed = True
        while self._idle:
            self._idle.pop().quit()
        returned = 0
        try:
            async with asyncio.timeout(self._relay.timeouts.close):
                while returned < self.size:
                    await self._free.acquire()
                    returned += 1
        except TimeoutError:
            pass  # its batch has been told to stop, and cuts the line when its time is over
        finally:
            for _ in range(returned):
                self._free.release()

    def _last_used(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable:
                return connection
            connection.quit()
        return None

    async def _open(self) -> Connection:
        if self.are_closed:
            raise CannotOpen(Unavailable("closed", "the provider was closed"))
        return await connect(self._relay)
