"""The SMTP provider: a pool of lines to one relay that lives as long as its worker, and one outcome for each message.

`relay` reads the URL, `lines` keeps the connections, `mail` and `mime` write a message down, `pipeline` carries mails
over a line, `replies` says what an answer means, `sending` collects what came of a batch.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Sequence

from notifier_channels.contract import (
    Email,
    MessageId,
    Outcome,
    Outgoing,
    Unavailable,
    Withheld,
    Witness,
)
from notifier_channels.email.connection import CannotOpen
from notifier_channels.email.lines import Lines
from notifier_channels.email.pipeline import Pipeline
from notifier_channels.email.relay import InvalidRelayUrl, Relay, Timeouts
from notifier_channels.email.replies import blames_policy
from notifier_channels.email.sending import MailSending
from notifier_channels.sending import Blame, Doubts

FRUITLESS = 2  #: so many new lines in a row lost without an answer, and the rest of the batch is not tried

_DOMAIN = re.compile(r"[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+")


class SmtpProvider:
    """A relay as a way out for email (`contract.Provider[Email]`)."""

    def __init__(self, relay: Relay, *, name: str, connections: int, message_id_domain: str) -> None:
        self._relay = relay
        self._name = name
        self._domain = message_id_domain
        self._lines = Lines(relay, connections)
        self._policy = Blame(blames_policy)
        self._doubts = Doubts()
        self._running: set[MailSending] = set()

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

    @property
    def most_at_once(self) -> int:
        """As many as the service ever has in one hand."""
        return 500

    async def send(
        self, batch: Sequence[Outgoing[Email]], witness: Witness
    ) -> AsyncGenerator[tuple[MessageId, Outcome], None]:
        """Try each message once and yield one outcome for each, as they come.

        Closed early, it waits up to `Timeouts.close` for answers to final dots already written; no other dot follows.
        """
        sending = MailSending(batch, witness, self._doubts, self._domain, self._policy)
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

    async def _carry(self, sending: MailSending) -> None:
        try:
            await self._carry_all(sending)
        except CannotOpen as problem:
            sending.lane_ended(problem.outcome)
        except Exception as bug:  # noqa: BLE001  # whoever called `send` must get it, not the event loop's log
            sending.crashed(bug)
        else:
            sending.lane_ended()

    async def _carry_all(self, sending: MailSending) -> None:
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
