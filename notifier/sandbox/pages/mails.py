"""The mails: what a mail client would show of those that were caught.

A mail is untrusted: its HTML is shown only in a frame that may run no script, send no form and load nothing.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from notifier.sandbox import one_click
from notifier.sandbox.desk import Desk
from notifier.sandbox.mails import Filter, Mail
from notifier.sandbox.pages.rendering import PAGE, Render
from notifier.sandbox.reading import read_source

FRAME = "allow-popups allow-popups-to-escape-sandbox"  #: a link opens a tab of its own; nothing else is allowed
FRAME_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; form-action 'none'; "
    f"base-uri 'none'; frame-ancestors 'self'; sandbox {FRAME}"
)
_HEAD = re.compile(r"<head(\s[^>]*)?>", re.IGNORECASE)

View = Literal["html", "text", "headers", "source"]


def router(desk: Desk, render: Render) -> APIRouter:
    """The routes of the inbox."""
    routes = APIRouter(default_response_class=HTMLResponse)

    @routes.get("/")
    def inbox(q: str = "", before: Annotated[int | None, Query()] = None) -> Response:
        """The list of mails, and beside it how to fill it."""
        return render("inbox.html.j2", **_list(desk, q, before))

    @routes.get("/parts/mails")
    def parts(q: str = "", before: Annotated[int | None, Query()] = None, opened: int = 0) -> Response:
        """What changes: the page puts it in place when new mail has come."""
        return render("mails.part.j2", **_list(desk, q, before, opened=opened))

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
        "look": "/parts/mails?"
        + urlencode({"q": q.strip(), "opened": opened, **({"before": before} if before else {})}),
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
