"""Text messages as phones have them: what was sent to each number and what was typed on it, newest last."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

MOST_TEXTS = 5_000
LONGEST = 1_600  #: characters of one text at Twilio
_NUMBER = re.compile(r"\+[1-9][0-9]{6,14}")  #: E.164, by its form alone: magic numbers are nobody's
_BETWEEN = re.compile(r"[\s().\-/]+")  #: what people write between the digits


def read_number(typed: str) -> str | None:
    """A number as somebody types it in E.164; None when it is none."""
    number = _BETWEEN.sub("", typed)
    return number if _NUMBER.fullmatch(number) else None


@dataclass(slots=True)
class Text:
    """One text message, to a phone or from it."""

    sid: str  #: as Twilio numbers it: `SM` and 32 hex digits
    at: datetime
    phone: str  #: the person's number, E.164
    ours: str  #: who we are to them: a number, a Messaging Service or a name
    body: str
    segments: int
    is_inbound: bool = False  #: typed on the phone
    is_reply: bool = False  #: answers what was typed, through TwiML or by Twilio itself
    status: str = "queued"  #: in Twilio's words
    error_code: int | None = None
    callback_url: str | None = None
    told: list[str] = field(default_factory=list)  #: the statuses that Notifier has been told


class Texts:
    """All of them, by Twilio's id. Belongs to one event loop."""

    def __init__(self, *, most: int = MOST_TEXTS) -> None:
        self._most = most
        self._texts: dict[str, Text] = {}
        self.taken = 0  #: ever, from Notifier

    def __len__(self) -> int:
        return len(self._texts)

    def __iter__(self) -> Iterator[Text]:
        """Newest first, over a copy."""
        return reversed(list(self._texts.values()))

    def keep(self, text: Text) -> Text:
        """Keep one; the oldest make room."""
        self._texts[text.sid] = text
        self.taken += not text.is_inbound
        while len(self._texts) > self._most:
            self._texts.pop(next(iter(self._texts)))
        return text

    def get(self, sid: str) -> Text | None:
        """One, if it is still here."""
        return self._texts.get(sid)

    def thread(self, phone: str) -> list[Text]:
        """One phone's, oldest first."""
        return [text for text in list(self._texts.values()) if text.phone == phone]

    def clear(self) -> int:
        """Throw all away and say how many there were."""
        count = len(self._texts)
        self._texts.clear()
        return count
