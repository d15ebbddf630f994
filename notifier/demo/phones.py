"""The people's phones: their text messages, what is typed on them, and what their lock screens show."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

import httpx

MOST = 5000
UNDELIVERED = "undelivered"


@dataclass(frozen=True, slots=True)
class Text:
    """A text message as the phone has it."""

    sid: str
    at: datetime
    phone: str
    body: str
    is_typed: bool  #: by the person
    has_arrived: bool  #: a dead number has a text on record that nobody sees


@dataclass(frozen=True, slots=True)
class Push:
    """A push as the lock screen shows it."""

    id: int
    message: str | None
    device: str
    title: str
    body: str
    link: str | None


class Phones:
    """The sandbox's phones and lock screens, from a certain moment on."""

    def __init__(self, url: str) -> None:
        self._client = httpx.AsyncClient(base_url=url, timeout=30)
        self._after_text = ""
        self._after_push = 0
        self._answers: set[str] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def begin(self) -> None:
        """Leave out what is already there."""
        self._after_text = next(iter([text.sid for text in await self.texts(limit=1)]), "")
        self._after_push = next(iter([push.id for push in await self.pushes(limit=1)]), 0)

    async def texts(self, limit: int = MOST) -> list[Text]:
        """What has been sent and typed since, newest first."""
        return [_text(one) for one in (await self._get("/api/texts", after=self._after_text, limit=limit))["texts"]]

    async def sent(self) -> list[Text]:
        """What product code had sent since, without answers to what was typed."""
        return [text for text in await self.texts() if not text.is_typed and text.sid not in self._answers]

    async def thread(self, phone: str) -> list[Text]:
        """One phone's, oldest first."""
        return [text for text in reversed(await self.texts()) if text.phone == phone]

    async def type_on(self, phone: str, body: str) -> list[str]:
        """Type something; what was answered."""
        answer = await self._client.post(f"/api/phones/{phone}/type", json={"body": body})
        back = [_text(one) for one in answer.raise_for_status().json()["texts"]]
        answers = [text for text in back if not text.is_typed]
        self._answers |= {text.sid for text in answers}
        return [text.body for text in answers]

    async def pushes(self, limit: int = MOST) -> list[Push]:
        """What has come since, newest first."""
        found = (await self._get("/api/pushes", after=self._after_push, limit=limit))["pushes"]
        return [
            Push(one["id"], one["message_id"], one["device"].partition(":")[2], one["title"], one["body"], one["link"])
            for one in found
        ]

    async def remove_app(self, device: str) -> None:
        """Do what somebody does who deletes the app."""
        (await self._client.post(f"/api/devices/fid:{device}/remove")).raise_for_status()

    async def refused(self, device: str) -> int:
        """How often a push to the device came to nothing, because the app is gone."""
        return int((await self._get(f"/api/devices/fid:{device}"))["refused"])

    async def _get(self, path: str, **query: str | int) -> dict[str, Any]:
        body: dict[str, Any] = (await self._client.get(path, params=query)).raise_for_status().json()
        return body


def _text(one: dict[str, Any]) -> Text:
    at = datetime.fromisoformat(one["at"])
    return Text(one["sid"], at, one["phone"], one["body"], one["inbound"], one["status"] != UNDELIVERED)
