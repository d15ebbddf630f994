"""The inbox as JSON, for tests and for the demo: find a mail, read it, press its unsubscribe button."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Annotated, Any

import httpx
from fastapi import APIRouter, HTTPException, Query

from notifier.sandbox import one_click
from notifier.sandbox.mails import MOST_MAILS, Filter, Inbox, Mail
from notifier.sandbox.reports import Reports
from notifier.sandbox.simulators import EVERYBODY_ELSE


@dataclass(frozen=True, slots=True)
class Desk:
    """What the pages and the JSON work with."""

    inbox: Inbox
    reports: Reports
    client: httpx.AsyncClient
    public_url: str
    smtp: str  #: host and port, as a person types them

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

    def stats(self) -> dict[str, Any]:
        """Counts since the start, and what is here now."""
        return {
            "mails": len(self.inbox),
            "unread": self.inbox.unread,
            "bytes": self.inbox.bytes,
            "taken": self.inbox.taken,
            "refused": dict(self.inbox.refused),
            "reports": {"waiting": self.reports.waiting, **self.reports.counts},
        }


def router(desk: Desk) -> APIRouter:
    """The routes under `/api`."""
    routes = APIRouter(prefix="/api")

    @routes.get("/mails")
    def find_mails(
        to: str = "",
        subject: str = "",
        after: int = 0,
        limit: Annotated[int, Query(ge=1, le=MOST_MAILS)] = 50,
    ) -> dict[str, Any]:
        """The newest first; `after` leaves out a mail and all that came before it."""
        return {"mails": _summaries(desk.find(Filter(to=to, subject=subject, after=after), limit))}

    @routes.get("/mails/{mail}")
    def read_mail(mail: int) -> dict[str, Any]:
        """One mail with its head and both bodies."""
        return _detail(desk.get(mail))

    @routes.post("/mails/{mail}/unsubscribe")
    async def unsubscribe(mail: int) -> dict[str, Any]:
        """What a mail client does when the reader presses "unsubscribe"."""
        return asdict(await desk.leave(desk.get(mail)))

    @routes.get("/stats")
    def stats() -> dict[str, Any]:
        """How much was taken, refused and reported."""
        return desk.stats()

    @routes.delete("/mails")
    async def clear() -> dict[str, int]:
        """Empty the inbox."""
        return {"deleted": desk.inbox.clear()}

    return routes


def _summaries(mails: Iterable[Mail]) -> list[dict[str, Any]]:
    return [_summary(mail) for mail in mails]


def _summary(mail: Mail) -> dict[str, Any]:
    headers, offer = mail.headers, mail.offer
    return {
        "id": mail.id,
        "received_at": mail.received_at.isoformat(),
        "from": headers.first("From"),
        "to": list(mail.recipients),
        "subject": headers.subject,
        "size": len(mail.raw),
        "read": mail.is_read,
        "message_id": str(headers.message) if headers.message else None,
        "simulator": None if mail.simulator is EVERYBODY_ELSE else mail.simulator.name,
        "list_unsubscribe": offer.url if offer else None,
    }


def _detail(mail: Mail) -> dict[str, Any]:
    bodies, offer = mail.bodies, mail.offer
    checks = (*offer.checks, one_click.body_link(offer, bodies)) if offer else ()
    return {
        **_summary(mail),
        "envelope_from": mail.sender,
        "headers": mail.headers.fields,
        "text": bodies.text,
        "html": bodies.html,
        "one_click": [asdict(check) for check in checks],
        "unsubscribed": asdict(mail.left) if mail.left else None,
        "reports": [asdict(told) for told in mail.told],
    }
