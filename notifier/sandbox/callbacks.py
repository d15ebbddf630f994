"""What Twilio tells later, told to Notifier as Twilio does it: signed forms, in order, and seldom twice.

A callback that is not taken comes again only as the fragment of its URL asks, within 15 seconds; without one, once, and
only when nobody could be reached (Twilio's page on connection overrides, November 2026; how long it waits in between
stands nowhere). Then it is lost, and Notifier must live with that. 4xx is `refused`, all else `gave_up`.
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
from urllib.parse import parse_qsl

import httpx

from notifier.sandbox.numbers import Step
from notifier.sandbox.texts import Text
from notifier_channels.sms.twilio import SERVICE

AT_ONCE = 8
MOST_WAITING = 50_000
GIVE_UP_AFTER = 15.0  #: seconds, whatever the fragment says
MOST_AGAIN = 5
FIRST_WAIT = 0.4  #: seconds; doubled each time
ALL = frozenset({"4xx", "5xx", "ct", "rt"})


@dataclass(frozen=True, slots=True)
class Policy:
    """How often a callback comes again, and after which failures: Twilio's connection overrides `rc` and `rp`."""

    again: int = 1
    after: frozenset[str] = frozenset({"ct"})

    @classmethod
    def of(cls, fragment: str) -> Self:
        """What a URL's fragment asks for; what cannot be read stays as it is by default."""
        asked = dict(parse_qsl(fragment))
        count = asked.get("rc", "")
        again = min(int(count), MOST_AGAIN) if count.isascii() and count.isdecimal() else cls().again
        after = frozenset(asked["rp"].split(",")) if "rp" in asked else cls().after
        return cls(again, ALL if "all" in after else after & ALL)


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
        try:
            return await self._post(url, form)
        except httpx.HTTPError:
            return None

    async def _post(self, url: str, form: Mapping[str, str]) -> httpx.Response:
        from twilio.request_validator import RequestValidator

        signature = RequestValidator(self._token).compute_signature(url, form)
        headers = {"X-Twilio-Signature": signature, "I-Twilio-Idempotency-Token": form.get("MessageSid", "")}
        return await self._client.post(url, data=dict(form), headers=headers)

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
        url, _, fragment = (due.text.callback_url or "").partition("#")
        if not url.startswith(self._origin):  # the stand-in talks to Notifier and to nobody else
            self._settle(due, None)
            return
        failure, policy = await self._failure(url, due.form or {}), Policy.of(fragment)
        wait = FIRST_WAIT * 2**due.tries * random.uniform(0.5, 1) * self._pace
        if failure is None:
            self._settle(due, "told")
        elif failure in policy.after and due.tries < policy.again and self._has_time(due, wait):
            self._later(wait, replace(due, tries=due.tries + 1))
        else:
            self._settle(due, "refused" if failure == "4xx" else "gave_up")

    async def _failure(self, url: str, form: Mapping[str, str]) -> str | None:
        """Why it was not taken, in the words of `rp`; None when it was."""
        try:
            answer = await self._post(url, form)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            return "ct"
        except httpx.HTTPError:
            return "rt"
        return None if answer.is_success else "5xx" if answer.is_server_error else "4xx"

    @staticmethod
    def _has_time(due: Due, wait: float) -> bool:
        return time.monotonic() + wait <= due.since + GIVE_UP_AFTER

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
        form["MessagingServiceSid" if SERVICE.fullmatch(text.ours) else "From"] = text.ours
        if text.error_code is not None:
            form["ErrorCode"] = str(text.error_code)
        if text.status in {"delivered", "undelivered"}:
            form["RawDlrDoneDate"] = datetime.now(UTC).strftime("%y%m%d%H%M")
        return form
