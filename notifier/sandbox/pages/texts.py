"""The text messages: a list of phones, and the thread that the chosen one shows, with a field to type into."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, quote, urlencode

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from notifier.sandbox.desk import Desk, latest
from notifier.sandbox.pages.rendering import PAGE, Render
from notifier.sandbox.texts import LONGEST, read_number

MOST_BYTES = 16_384  #: of a form
MOST_BUBBLES = 200
NO_NUMBER = "That is no phone number: write it with its country, as in +49 151 12345678."
NOTHING = f"Type something, at most {LONGEST:,} characters."


def router(desk: Desk, render: Render) -> APIRouter:
    """The routes below `/texts`."""
    routes = APIRouter(default_response_class=HTMLResponse)

    @routes.get("/texts")
    def phones(q: str = "") -> Response:
        """The list of phones, and beside it how to type on one."""
        return render("texts.html.j2", **_list(desk, q), wrong="", typed={})

    @routes.get("/parts/texts")
    def parts(q: str = "", phone: str = "") -> Response:
        """What changes: the list and, when a phone is chosen, its thread."""
        return render("texts.part.j2", **_list(desk, q, phone), **_thread(desk, phone))

    @routes.post("/texts/clear")
    async def clear() -> Response:
        """The button that throws all texts away."""
        desk.texts.clear()
        return RedirectResponse("/texts", 303)

    @routes.get("/texts/{phone}")
    def thread(phone: str, q: str = "") -> Response:
        """One phone, opened."""
        return render(
            "thread.html.j2", **_list(desk, q, _known(desk, phone)), **_thread(desk, phone), wrong="", typed={}
        )

    _typing(desk, render, routes)
    return routes


def _typing(desk: Desk, render: Render, routes: APIRouter) -> None:
    @routes.post("/texts/type")
    async def type_on_another(request: Request) -> Response:
        """Type on a phone that nobody has written to yet."""
        typed = await _form(request)
        phone = read_number(typed.get("phone", ""))
        wrong = "" if phone else NO_NUMBER
        if phone and not (wrong := _wrong(typed)):
            return await send(phone, typed)
        return render("texts.html.j2", status=422, **_list(desk, ""), wrong=wrong, typed=typed)

    @routes.post("/texts/{phone}/type")
    async def type_on_phone(phone: str, request: Request) -> Response:
        """The field below the thread, and the quick buttons."""
        typed = await _form(request)
        if not (wrong := _wrong(typed)):
            return await send(_known(desk, phone), typed)
        known = _list(desk, "", _known(desk, phone)) | _thread(desk, phone)
        return render("thread.html.j2", status=422, **known, wrong=wrong, typed=typed)

    async def send(phone: str, typed: dict[str, str]) -> Response:
        await desk.type_on(phone, typed["body"].strip())
        return RedirectResponse(f"/texts/{quote(phone)}", 303)


def _known(desk: Desk, phone: str) -> str:
    """Any number may be typed on; what is none is here only if something was sent to it."""
    if read_number(phone) != phone and not desk.texts.thread(phone):
        raise HTTPException(404, NO_NUMBER)
    return phone


def _wrong(typed: dict[str, str]) -> str:
    return "" if 0 < len(typed.get("body", "").strip()) <= LONGEST else NOTHING


def _list(desk: Desk, q: str, phone: str = "") -> dict[str, Any]:
    wanted = q.strip()
    found = latest(list(desk.texts), lambda text: text.phone)
    if wanted:
        digits = read_number(wanted) or wanted
        found = [row for row in found if digits in row[0].phone or wanted.lower() in row[0].body.lower()]
    return {
        "phones": found[:PAGE],
        "more": len(found) - PAGE,
        "query": wanted,
        "opened": phone,
        "look": "/parts/texts?" + urlencode({"q": wanted, "phone": phone}),
    }


def _thread(desk: Desk, phone: str) -> dict[str, Any]:
    found = desk.texts.thread(phone) if phone else []
    return {
        "phone": phone,
        "thread": found[-MOST_BUBBLES:],
        "earlier": max(0, len(found) - MOST_BUBBLES),
        "ours": found[-1].ours if found else "",
    }


async def _form(request: Request) -> dict[str, str]:
    """The fields of a form, each once."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MOST_BYTES:
            raise HTTPException(413, "This form is too big.")
    fields = parse_qs(body.decode(errors="replace"), max_num_fields=10)
    return {name: values[-1] for name, values in fields.items()}
