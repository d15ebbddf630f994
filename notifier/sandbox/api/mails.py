"""The inbox as JSON: find a mail, read it, press its unsubscribe button."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query

from notifier.sandbox import one_click
from notifier.sandbox.desk import Desk
from notifier.sandbox.mails import MOST_MAILS, Filter, Mail
from notifier.sandbox.simulators import EVERYBODY_ELSE


def router(desk: Desk) -> APIRouter:
    """The routes under `/api/mails`."""
    routes = APIRouter()

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
