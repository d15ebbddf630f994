"""The readers' side of the scenario: their inbox, the unsubscribe button of their client, and a scanner of links."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

import httpx

ONE_CLICK = b"List-Unsubscribe=One-Click"  #: RFC 8058 3.2
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
MOST = 5000


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail as its reader's client sees it."""

    id: int
    message: str | None
    to: str
    subject: str
    one_click: str | None  #: the link behind the unsubscribe button
    at: datetime = field(default_factory=lambda: datetime.now(UTC))


class Inbox:
    """The sandbox's inbox, from a certain mail on."""

    def __init__(self, url: str) -> None:
        self._client = httpx.AsyncClient(base_url=url, timeout=30)
        self._after = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def begin(self) -> None:
        """Leave out what is already there."""
        self._after = max((mail.id for mail in await self.mails(limit=1)), default=0)

    async def mails(self, limit: int = MOST) -> list[Mail]:
        """What has come since, newest first."""
        answer = await self._client.get("/api/mails", params={"after": self._after, "limit": limit})
        found = answer.raise_for_status().json()["mails"]
        return [
            Mail(
                mail["id"],
                mail["message_id"],
                mail["to"][0],
                mail["subject"],
                mail["list_unsubscribe"],
                datetime.fromisoformat(mail["received_at"]),
            )
            for mail in found
        ]

    async def read(self, mail: Mail) -> Mapping[str, Any]:
        """Open one."""
        body: Mapping[str, Any] = (await self._client.get(f"/api/mails/{mail.id}")).raise_for_status().json()
        return body

    async def press_unsubscribe(self, mails: Iterable[Mail]) -> Counter[int]:
        """What a mail client sends when its reader presses the button; the answers by status."""
        answers: Counter[int] = Counter()
        for mail in mails:
            answer = await self._client.post(mail.one_click or "", content=ONE_CLICK, headers=FORM)
            answers[answer.status_code] += 1
        return answers

    async def scan(self, mails: Iterable[Mail]) -> Counter[int]:
        """What a security scanner does: opens each link, long before the reader has seen the mail."""
        answers: Counter[int] = Counter()
        for mail in mails:
            answer = await self._client.get(mail.one_click or "")
            answers[answer.status_code] += 1
        return answers
