"""The inbox pages: what a mail client would show of the mails that were caught.

A mail is untrusted: its HTML is shown only in a frame that may run no script, send no form and load nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal
from zlib import crc32

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from notifier.sandbox import one_click
from notifier.sandbox.api import Desk
from notifier.sandbox.mails import Filter, Mail
from notifier.sandbox.reading import read_source
from notifier.sandbox.simulators import EVERYBODY_ELSE, SIMULATORS

ASSETS = Path(__file__).parent / "assets"
PAGE = 50
HUES = 8

FRAME = "allow-popups allow-popups-to-escape-sandbox"  #: a link opens a tab of its own; nothing else is allowed
FRAME_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; form-action 'none'; "
    f"base-uri 'none'; frame-ancestors 'self'; sandbox {FRAME}"
)
_HEAD = re.compile(r"<head(\s[^>]*)?>", re.IGNORECASE)

View = Literal["html", "text", "headers", "source"]
Render = Callable[..., HTMLResponse]


def router(desk: Desk) -> APIRouter:
    """The routes that a person opens."""
    routes = APIRouter(default_response_class=HTMLResponse)
    render = _templates(desk)

    @routes.get("/")
    def inbox(q: str = "", before: Annotated[int | None, Query()] = None) -> Response:
        """The list of mails, and beside it how to fill it."""
        return render("inbox.html.j2", **_list(desk, q, before))

    @routes.get("/list")
    def fragment(q: str = "", before: Annotated[int | None, Query()] = None, open: int = 0) -> Response:  # noqa: A002
        """The list alone: the page puts it in place when new mail has come."""
        return render("_list.html.j2", **_list(desk, q, before, opened=open))

    @routes.get("/simulators")
    def simulators() -> Response:
        """The table of simulated recipients."""
        return render("simulators.html.j2")

    @routes.get("/mails/{number}")
    def mail(number: int, view: View | None = None, q: str = "") -> Response:
        """One mail, opened."""
        found = desk.inbox.get(number)
        if found is None:
            return render("missing.html.j2", status=404, **_list(desk, q))
        found.is_read = True
        return render("mail.html.j2", **_list(desk, q, opened=number), **_opened(found, view))

    @routes.get("/mails/{number}/html")
    def frame(number: int) -> Response:
        """The mail's HTML for the frame; safe as well when it is opened by itself."""
        markup = desk.get(number).bodies.html or ""
        return HTMLResponse(in_frame(markup), headers={"Content-Security-Policy": FRAME_POLICY})

    @routes.get("/mails/{number}/raw")
    def raw(number: int) -> Response:
        """The mail as a file."""
        name = f'attachment; filename="mail-{number}.eml"'
        return Response(desk.get(number).raw, media_type="message/rfc822", headers={"Content-Disposition": name})

    @routes.post("/mails/{number}/unsubscribe")
    async def unsubscribe(number: int) -> Response:
        """The button beside the sender."""
        await desk.leave(desk.get(number))
        return RedirectResponse(f"/mails/{number}", 303)

    @routes.post("/clear")
    async def clear() -> Response:
        """The button that empties the inbox."""
        desk.inbox.clear()
        return RedirectResponse("/", 303)

    return routes


def in_frame(markup: str) -> str:
    """Let links open in a tab of their own: in the frame, nothing may be opened."""
    base = '<base target="_blank">'
    head = _HEAD.search(markup)
    return markup[: head.end()] + base + markup[head.end() :] if head else base + markup


def _list(desk: Desk, q: str, before: int | None = None, *, opened: int = 0) -> dict[str, Any]:
    found = desk.find(Filter(anywhere=q.strip(), before=before), PAGE + 1)
    return {
        "mails": found[:PAGE],
        "older": found[PAGE - 1].id if len(found) > PAGE else None,
        "query": q.strip(),
        "before": before,
        "opened": opened,
        "stats": desk.stats(),
    }


def _opened(mail: Mail, view: View | None) -> dict[str, Any]:
    bodies, offer = mail.bodies, mail.offer
    has = {"html": bodies.html is not None, "text": bodies.text is not None, "headers": True, "source": True}
    checks = (*offer.checks, one_click.body_link(offer, bodies)) if offer else ()
    return {
        "mail": mail,
        "bodies": bodies,
        "offer": offer,
        "checks": checks,
        "all_ok": all(check.ok for check in checks),
        "views": has,
        "view": view or next(name for name, there in has.items() if there),
        "source": read_source(mail.raw) if view == "source" else "",
        "frame": FRAME,
    }


def _templates(desk: Desk) -> Render:
    environment = Environment(
        loader=FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"clock": _clock, "hue": _hue, "initial": _initial, "size": _size}
    environment.globals |= {
        "simulators": SIMULATORS,
        "everybody_else": EVERYBODY_ELSE,
        "smtp": desk.smtp,
        "public_url": desk.public_url,
    }

    def render(template: str, *, status: int = 200, **values: object) -> HTMLResponse:
        return HTMLResponse(environment.get_template(template).render(values), status)

    return render


def _clock(moment: datetime) -> str:
    """The time of day; with the date when it is not today's."""
    local, today = moment.astimezone(), datetime.now().astimezone().date()
    return local.strftime("%H:%M" if local.date() == today else "%d %b %H:%M")


def _hue(text: str) -> int:
    """The same colour for the same address."""
    return crc32(text.lower().encode()) % HUES


def _initial(text: str) -> str:
    return next((letter for letter in text if letter.isalnum()), "?").upper()


def _size(octets: int) -> str:
    return f"{octets} B" if octets < 1024 else f"{octets / 1024:.0f} KB"
