"""What a provider tells later, told to Notifier over HTTP: delivered, deferred, bounced, complained.

A report waits in memory until Notifier has taken it, and is given up after some minutes: this is a stand-in, and
Notifier must live with reports that come twice, late or never anyway.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import random
import secrets
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from types import TracebackType
from typing import Self
from uuid import UUID

import httpx

from notifier.sandbox import simulators
from notifier.sandbox.mails import Mail, Told

PATH = "/hooks/sandbox"
SIGNATURE = "X-Sandbox-Signature"
AT_ONCE = 8
MOST_WAITING = 50_000
GIVE_UP_AFTER = 300.0
FIRST_WAIT, LONGEST_WAIT = 0.5, 15.0


@dataclass(frozen=True, slots=True)
class Due:
    """A report that is to be told, and those that follow it for the same mail."""

    mail: Mail
    message: UUID
    report: simulators.Report
    following: Sequence[simulators.Report]
    told: Told
    body: bytes
    since: float
    tries: int = 0


class Reports:
    """Tells Notifier what came of the mails, a few at once, each until it is taken."""

    def __init__(self, client: httpx.AsyncClient, public_url: str, secret: str | None, *, pace: float = 1.0) -> None:
        self._client = client
        self._url = public_url.rstrip("/") + PATH
        self._secret = secret.encode() if secret else None
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

    def tell(self, mail: Mail) -> None:
        """Report on a mail as its simulator wants it. A mail that is none of Notifier's is not reported."""
        message = mail.headers.message
        if self._secret is not None and message is not None and mail.simulator.reports:
            self._plan(mail, message, mail.simulator.reports)

    def _plan(self, mail: Mail, message: UUID, reports: Sequence[simulators.Report]) -> None:
        if self.waiting >= MOST_WAITING:
            self.counts["dropped"] += 1
            return
        report, following = reports[0], reports[1:]
        told = Told(report.kind, datetime.now(UTC))
        mail.told.append(told)
        self.waiting += 1
        after = report.after.total_seconds() * self._pace
        due = Due(mail, message, report, following, told, b"", time.monotonic() + after)
        self._later(after, due)

    def _later(self, seconds: float, due: Due) -> None:
        asyncio.get_running_loop().call_later(seconds, self._queue.put_nowait, due)

    async def _work(self) -> None:
        while True:
            due = await self._queue.get()
            await self._try(due if due.body else replace(due, body=_body(due)))

    async def _try(self, due: Due) -> None:
        status = await self._post(due.body)
        if status is not None and 200 <= status < 300:
            self._settle(due, "told", "told")
            if due.following:
                self._plan(due.mail, due.message, due.following)
        elif status is not None and status != httpx.codes.NOT_FOUND and status < 500:
            self._settle(due, "refused", f"refused with {status}")
        elif time.monotonic() - due.since > GIVE_UP_AFTER:
            self._settle(due, "gave_up", "gave up")
        else:
            due.told.status = f"trying again ({status or 'no answer'})"
            longest = min(FIRST_WAIT * 2**due.tries, LONGEST_WAIT) * self._pace
            self._later(longest * random.uniform(0.5, 1), replace(due, tries=due.tries + 1))

    def _settle(self, due: Due, count: str, status: str) -> None:
        self.waiting -= 1
        self.counts[count] += 1
        due.told.status = status
        due.told.at = datetime.now(UTC)

    async def _post(self, body: bytes) -> int | None:
        """The status of the answer; None when there was none."""
        assert self._secret is not None  # noqa: S101 -- `tell` looked
        signature = hmac.new(self._secret, body, sha256).hexdigest()
        headers = {"Content-Type": "application/json", SIGNATURE: signature}
        try:
            return (await self._client.post(self._url, content=body, headers=headers)).status_code
        except httpx.HTTPError:
            return None


def _body(due: Due) -> bytes:
    """Made when the report happens; every repeat is the same to the byte, with the same id."""
    return json.dumps(
        {
            "id": secrets.token_hex(16),
            "message_id": str(due.message),
            "attempt": None,
            "kind": due.report.kind,
            "occurred_at": datetime.now(UTC).isoformat(),
            "code": due.report.code,
        }
    ).encode()
