"""The Twilio provider: one request for each message, and one outcome for each, with the vendor's own SDK.

`transport` carries a request, `codes` says what an answer means and `segments` what a text costs; what Twilio reports
later is read by `webhooks`.
Twilio has no idempotency key: a request whose answer is lost is in doubt, is never repeated here, and is settled by the
status callback or by `look_up`. The same API carries WhatsApp, with `whatsapp:` before both numbers.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from notifier_channels.contract import (
    EXPIRED,
    Ambiguous,
    Doubt,
    MessageId,
    Outcome,
    Outgoing,
    Pace,
    RateLimited,
    Receipt,
    SmsContent,
    Unavailable,
    Withheld,
    Witness,
)
from notifier_channels.sending import ENOUGH, Blame, Doubts, Sending
from notifier_channels.sms import codes, segments
from notifier_channels.sms.transport import Account, outcome_of, transport

if TYPE_CHECKING:
    from twilio.rest.api.v2010.account.message import MessageInstance, MessageList

SERVICE = re.compile(r"MG[0-9a-fA-F]{32}")  #: a Messaging Service; a name may begin so, too
LONGEST_VALIDITY = 36_000  #: seconds, Twilio's own default
MOST_LISTED = 200  #: messages of one number that are looked through
CLOCKS_DIFFER = timedelta(seconds=10)  #: ours and Twilio's
LATE = timedelta(seconds=60)  #: a request that was given up may still be carried out


class MissingExtra(ImportError):
    """The vendor's SDK is not installed. The message says what to install."""


class TwilioProvider:
    """One sender at Twilio as a way out for text messages (`contract.Provider[SmsContent]`, `contract.LooksUp`)."""

    def __init__(  # noqa: PLR0913  # one sender's settings
        self,
        account: Account,
        sender: str,
        pace: Pace,
        *,
        name: str = "twilio",
        connections: int,
        most_at_once: int,
        other_senders: Collection[str] = (),
    ) -> None:
        """`sender` is a number, a name or a Messaging Service (`MG...`); who calls waits for its `pace`.

        `other_senders`: of ours, too; what they sent is looked up as well.

        Raises:
            MissingExtra: the SDK is not installed.

        """
        try:
            import twilio.rest  # noqa: F401  # here, so that a process without it does not start
        except ImportError:
            raise MissingExtra("Text messages need Twilio's SDK: install notifier-dispatch[sms].") from None
        self._account = account
        self._from = {"messaging_service_sid" if SERVICE.fullmatch(sender) else "from_": sender}
        self._senders = frozenset({sender, *other_senders})
        self._pace = pace
        self._name = name
        self._most_at_once = most_at_once
        self._size = connections
        self._lines = asyncio.Semaphore(connections)
        self._http: Any = None
        self._api: MessageList | None = None
        self._running: set[TextSending] = set()
        self._doubts = Doubts()
        self._blame = Blame(codes.may_be_ours)
        self._is_closed = False

    @property
    def name(self) -> str:
        """What stands on attempts, in metrics and in pauses."""
        return self._name

    @property
    def most_at_once(self) -> int:
        """As many as the sender's rate lets go in a reasonable time."""
        return self._most_at_once

    async def send(
        self, batch: Sequence[Outgoing[SmsContent]], witness: Witness
    ) -> AsyncGenerator[tuple[MessageId, Outcome], None]:
        """Try each message once and yield one outcome for each, as they come.

        Closed early, it waits for answers to requests that have left, as long as `Account.timeout` each; none follows.
        """
        sending = TextSending(batch, witness, self._doubts)
        if self._is_closed:
            sending.stop(Unavailable("closed", "the provider was closed"))
        self._running.add(sending)
        workers = [asyncio.create_task(self._carry(sending)) for _ in range(min(self._size, len(batch)))]
        try:
            for _ in batch:
                yield await sending.next()
        finally:
            sending.stop(Withheld("closed", "send was closed early"))
            try:
                await sending.answers_due()
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)
                self._running.discard(sending)

    async def look_up(self, doubts: Sequence[Doubt]) -> Mapping[MessageId, Receipt | None]:
        """A receipt for those of which exactly one message at Twilio can be the trace.

        A question that fails leaves its doubt out; several in a row leave out the rest.
        """
        found: dict[MessageId, list[MessageInstance]] = {}
        failed = 0
        for doubt in doubts:
            try:
                found[doubt.message] = await self._candidates(doubt)
            except Exception:  # noqa: BLE001  # whatever it was: no proof, and no answer either
                failed += 1
                if failed == ENOUGH:
                    break
            else:
                failed = 0
        sids = Counter(one.sid for candidates in found.values() for one in candidates)
        return {message: _proof(candidates, sids) for message, candidates in found.items()}

    async def close(self) -> None:
        """Give the connections back. What has not left is not sent."""
        self._is_closed = True
        for sending in list(self._running):
            sending.stop(Unavailable("closed", "the provider was closed"))
            await sending.answers_due()
        if self._http is not None:
            await self._http.close()

    # One message after the other --------------------------------------------------------------------------------------

    async def _carry(self, sending: TextSending) -> None:
        try:
            while (outgoing := sending.pop()) is not None:
                await self._pace.turn(segments.count(outgoing.content.text).segments)
                async with self._lines:
                    await self._try(outgoing, sending)
        except Exception as bug:  # noqa: BLE001  # whoever called `send` must get it, not the event loop's log
            sending.crashed(bug)

    async def _try(self, outgoing: Outgoing[SmsContent], sending: TextSending) -> None:
        left = (outgoing.expires_at - datetime.now(UTC)).total_seconds()
        if left <= 0:  # while it waited for its turn; the gate writes down why it was not sent
            sending.settle(outgoing, EXPIRED)
            return
        validity = max(1, min(int(left), LONGEST_VALIDITY))  # Twilio advises 5 and more, but later it is worth nothing
        if not sending.may_commit(outgoing):
            return
        outcome = self._blame.judge(await self._create(outgoing, validity))
        if isinstance(outcome, Ambiguous):
            sending.lost(outgoing, outcome)
        else:
            sending.answered(outgoing, outcome)

    async def _create(self, outgoing: Outgoing[SmsContent], validity: int) -> Outcome:
        fields: dict[str, Any] = {"body": outgoing.content.text, "validity_period": validity, "smart_encoded": False}
        if outgoing.callback_url is not None:
            fields["status_callback"] = outgoing.callback_url
        messages = self._messages()
        try:
            message = await messages.create_async(to=str(outgoing.to), **self._from, **fields)
        except Exception as error:  # noqa: BLE001  # whatever came back, the request has left or it has not
            return outcome_of(error)
        if not message.sid:
            return Ambiguous("protocol", "Twilio's answer names no message")
        return Receipt(message.sid, str(message.status))

    async def _candidates(self, doubt: Doubt) -> list[MessageInstance]:
        """What may be its trace. `DateSent` is no help: what still waits at Twilio has none."""
        since, until = doubt.started_at - CLOCKS_DIFFER, doubt.settled_at + LATE + CLOCKS_DIFFER
        candidates: list[MessageInstance] = []
        seen = 0
        async for one in await self._messages().stream_async(to=str(doubt.to), limit=MOST_LISTED + 1):
            created = one.date_created  # newest first
            if created is not None and created < since:
                return candidates
            seen += 1
            if self._is_ours(one) and one.sid not in doubt.taken and (created is None or created <= until):
                candidates.append(one)
        return candidates if seen <= MOST_LISTED else []

    def _is_ours(self, one: MessageInstance) -> bool:
        """Sent by one of our senders, and not by another application of the account."""
        return one.direction == "outbound-api" and (one.messaging_service_sid or one.from_) in self._senders

    def _messages(self) -> MessageList:
        """The SDK, made when there is an event loop for its connections."""
        if self._api is None:
            from twilio.rest import Client

            self._http = transport(self._account)
            account = self._account
            self._api = Client(account.username, account.password, account.sid, http_client=self._http).messages
        return self._api


def _proof(candidates: Sequence[MessageInstance], sids: Counter[str | None]) -> Receipt | None:
    """The one candidate that is nobody else's."""
    if len(candidates) != 1 or sids[candidates[0].sid] != 1:
        return None
    return Receipt(candidates[0].sid or "", str(candidates[0].status))


class TextSending(Sending[SmsContent]):
    """One call of `send`; knows when asking on would only annoy Twilio."""

    def _of_the_rest(self, outcome: Outcome) -> Outcome | None:
        match outcome:
            case Unavailable(is_away=True) | RateLimited():
                return outcome
            case _:
                return super()._of_the_rest(outcome)
