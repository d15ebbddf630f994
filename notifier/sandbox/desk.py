"""What the sandbox's pages and JSON work with: everything that the stand-ins took, and what may be done with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import Any, TypeVar
from uuid import UUID

import httpx
from fastapi import HTTPException

from notifier.sandbox import one_click
from notifier.sandbox.mails import Filter, Inbox, Mail
from notifier.sandbox.pushes import Push, Pushes
from notifier.sandbox.reports import Reports
from notifier.sandbox.texts import Text, Texts
from notifier.sandbox.wires import Wires

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Desk:
    """One for all views."""

    inbox: Inbox
    reports: Reports
    client: httpx.AsyncClient
    public_url: str
    smtp: str  #: host and port, as a person types them
    texts: Texts
    pushes: Pushes
    wires: Wires

    # Mail

    def find(self, wanted: Filter, limit: int) -> list[Mail]:
        """The newest mails that match."""
        return list(islice((mail for mail in self.inbox if wanted.matches(mail)), limit))

    def get(self, mail: int) -> Mail:
        """One mail, or 404."""
        found = self.inbox.get(mail)
        if found is None:
            raise HTTPException(404, "This mail is not here: the inbox was cleared, or newer mails took its place.")
        return found

    async def leave(self, mail: Mail) -> one_click.Answer:
        """Press the mail's unsubscribe button."""
        offer = mail.offer
        if offer is None or offer.url is None:
            raise HTTPException(409, "This mail offers no one-click unsubscribe.")
        mail.left = await one_click.leave(self.client, offer.url, only=self.public_url)
        return mail.left

    # Texts

    def find_texts(self, phone: str, after: str, limit: int) -> list[Text]:
        """The newest texts of a phone, or of all; `after` is the last that is already known."""
        new = takewhile(lambda text: text.sid != after, self.texts)
        return list(islice((text for text in new if phone in ("", text.phone)), limit))

    async def type_on(self, phone: str, body: str) -> None:
        """Type something as the person who holds this phone would."""
        if self.wires.twilio is None:
            raise HTTPException(409, "Text messages are off: the sandbox has no NOTIFIER_TWILIO_ACCOUNT_SID.")
        await self.wires.twilio.phones.type_on_phone(phone, body)

    # Pushes

    def find_pushes(self, device: str, message: UUID | None, after: int, limit: int) -> list[Push]:
        """The newest pushes to a device or of a message; `after` leaves out one and all that came before it."""
        new = takewhile(lambda push: push.id > after, self.pushes)
        wanted = (push for push in new if device in ("", push.device) and message in (None, message_of(push)))
        return list(islice(wanted, limit))

    # All

    def stats(self) -> dict[str, Any]:
        """Counts since the start, and what is here now. Whatever a page shows anew changes a number in it."""
        return {
            "mails": len(self.inbox),
            "unread": self.inbox.unread,
            "bytes": self.inbox.bytes,
            "taken": self.inbox.taken,
            "refused": dict(self.inbox.refused),
            "reports": {"waiting": self.reports.waiting, **self.reports.counts},
            "texts": self._text_stats(),
            "pushes": {
                "here": len(self.pushes),
                "devices": len({push.device for push in self.pushes}),
                "taken": self.pushes.taken,
                "dead": len(self.pushes.dead),
            },
        }

    def _text_stats(self) -> dict[str, Any]:
        texts = list(self.texts)
        return {
            "here": len(texts),
            "phones": len({text.phone for text in texts}),
            "taken": self.texts.taken,
            "typed": sum(text.is_inbound for text in texts),
            "told": sum(len(text.told) for text in texts),
            "statuses": dict(Counter(text.status for text in texts if not text.is_inbound)),
        }


def message_of(push: Push) -> UUID | None:
    """Notifier's message, which is the tag of its pushes."""
    try:
        return UUID(push.tag)
    except ValueError:
        return None


def latest(found: Sequence[T], key: Callable[[T], str]) -> list[tuple[T, int]]:
    """Of things newest first: the newest for each key, with how many share it."""
    counts = Counter(map(key, found))
    newest: dict[str, T] = {}
    for one in found:
        newest.setdefault(key(one), one)
    return [(one, counts[name]) for name, one in newest.items()]
