"""What Twilio tells later, told to Notifier as Twilio does it: signed forms, each until it is taken, in order.

A callback waits in memory until Notifier has taken it, and is given up after some minutes: this is a stand-in, and
Notifier must live with callbacks that come twice, late or never anyway.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

import httpx

from notifier.sandbox.numbers import Step
from notifier.sandbox.texts import Text

AT_ONCE = 8
MOST_WAITING = 50_000
GIVE_UP_AFTER = 300.0
FIRST_WAIT, LONGEST_WAIT = 0.5, 15.0


@dataclass(frozen=True, slots=True)
class Due:
    """A status that is to be told, and those that follow it for the same text."""

    text: Text
    step: Step
    following: Sequence[Step]
    since: float
    form: Mapping[str, str] | None = None  #: made when it happens; every repeat is the same
    tries: int = 0


class Callbacks:
    """Moves texts along and tells Notifier, a few at once."""

    def __init__(
        self, client: httpx.AsyncClient, account_sid: str, token: str, public_url: str, *, pace: float = 1.0
    ) -> None:
        self._client = client
        self._account_sid = account_sid
        self._token = token
        self._origin = public_url.rstrip("/") + "/"
        self._pace = pace
        self._queue: asyncio.Queue[Due] = asyncio.Queue()
        self._workers: list[asyncio.Task[None]] = []
        self.waiting = 0
        self.counts: Counter[str] = Counter(told=0, refused=0, gave_up=0, dropped=0)

    async def __aenter__(self) -> Self:
        self._workers = [asyncio.create_task(self._work()) for _ in range(AT_ONCE)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)

    def follow(self, text: Text, steps: Sequence[Step]) -> None:
        """Let the text come to each status in turn; the next one waits until the last was told."""
        if not steps:
            return
        if self.waiting >= MOST_WAITING:
            self.counts["dropped"] += 1
            return
        self.waiting += 1
        after = steps[0].after.total_seconds() * self._pace
        self._later(after, Due(text, steps[0], steps[1:], time.monotonic() + after))

    async def post(self, url: str, form: Mapping[str, str]) -> httpx.Response | None:
        """Post a form as Twilio does, signed; None when nobody answered."""
        from twilio.request_validator import RequestValidator

        signature = RequestValidator(self._token).compute_signature(url, form)
        headers = {"X-Twilio-Signature": signature, "I-Twilio-Idempotency-Token": form.get("MessageSid", "")}
        try:
            return await self._client.post(url, data=dict(form), headers=headers)
        except httpx.HTTPError:
            return None

    def _later(self, seconds: float, due: Due) -> None:
        asyncio.get_running_loop().call_later(seconds, self._queue.put_nowait, due)

    async def _work(self) -> None:
        while True:
            due = await self._queue.get()
            await self._try(due if due.form is not None else replace(due, form=self._happen(due)))

    def _happen(self, due: Due) -> Mapping[str, str]:
        due.text.status, due.text.error_code = due.step.status, due.step.error_code
        return self._form(due.text)

    async def _try(self, due: Due) -> None:
        url = (due.text.callback_url or "").partition("#")[0]
        if not url.startswith(self._origin):  # the stand-in talks to Notifier and to nobody else
            self._settle(due, None)
            return
        answer = await self.post(url, due.form or {})
        status = None if answer is None else answer.status_code
        if status is not None and 200 <= status < 300:
            self._settle(due, "told")
        elif status is not None and status != httpx.codes.NOT_FOUND and status < 500:
            self._settle(due, "refused")
        elif time.monotonic() - due.since > GIVE_UP_AFTER:
            self._settle(due, "gave_up")
        else:
            longest = min(FIRST_WAIT * 2**due.tries, LONGEST_WAIT) * self._pace
            self._later(longest * random.uniform(0.5, 1), replace(due, tries=due.tries + 1))

    def _settle(self, due: Due, count: str | None) -> None:
        self.waiting -= 1
        if count is not None:
            self.counts[count] += 1
        if count == "told":
            due.text.told.append(due.step.status)
        self.follow(due.text, due.following)

    def _form(self, text: Text) -> Mapping[str, str]:
        form = {
            "AccountSid": self._account_sid,
            "ApiVersion": "2010-04-01",
            "MessageSid": text.sid,
            "MessageStatus": text.status,
            "SmsSid": text.sid,
            "SmsStatus": text.status,
            "To": text.phone,
        }
        form["MessagingServiceSid" if text.ours.startswith("MG") else "From"] = text.ours
        if text.error_code is not None:
            form["ErrorCode"] = str(text.error_code)
        if text.status in {"delivered", "undelivered"}:
            form["RawDlrDoneDate"] = datetime.now(UTC).strftime("%y%m%d%H%M")
        return form
