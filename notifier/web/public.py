"""What people reach without a login: the page behind a link, the one click of RFC 8058, and the way back.

This path needs PostgreSQL and nothing else. GET, HEAD and OPTIONS change nothing (I7): scanners open links long before
people see them. A POST acts on its URL alone, whatever its body, and says "done" only after the commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
import structlog
from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, Response

from notifier.app import App
from notifier.dispatch.opt_out import (
    Answer,
    Choice,
    NotRefusable,
    NotRestored,
    OptOut,
    Refused,
    Restored,
    Sight,
    Way,
)
from notifier.domain.tokens import ManageLink, PageLink
from notifier.rendering.locales import pick
from notifier.web.confirming import confirmation_pages
from notifier.web.hooks import sandbox_hook
from notifier.web.pages import Brand, Pages, Words, accepted_languages
from notifier.web.traces import fields_of, traces_of

log = structlog.get_logger(__name__)

ALLOW = "GET, HEAD, POST, OPTIONS"
RETRY_AFTER = 120  #: seconds
LOOK_TIMEOUT = 3.0  #: seconds that a page waits for the database before it is shown without details


def public_router(app: App) -> APIRouter:
    """Every route that needs no key: a token in the URL or a signature is the proof. No redirect, ever (RFC 8058)."""
    settings = app.settings
    pages = Pages(Brand(settings.sender_name, settings.postal_address))
    desk = Desk(app.opt_out, pages, settings.default_locale)
    router = APIRouter(include_in_schema=False)
    router.include_router(confirmation_pages(app.confirm, pages, settings.default_locale))
    for path in ("/u/{token}", "/u/{token}/"):
        router.add_api_route(path, desk.show, methods=["GET", "HEAD"])
        router.add_api_route(path, desk.act, methods=["POST"])
        router.add_api_route(path, options, methods=["OPTIONS"])
    if settings.sandbox_secret is not None:
        router.include_router(sandbox_hook(settings.sandbox_secret.get_secret_value().encode(), app.feedback))
    if settings.twilio_account_sid is not None:
        from notifier.web.twilio import twilio_hooks  # needs the extra [sms]

        router.include_router(twilio_hooks(settings, app.links, app.feedback, app.replies))
    return router


async def options() -> Response:
    """What may be done with a link."""
    return Response(status_code=204, headers={"Allow": ALLOW})


@dataclass(frozen=True, slots=True)
class Desk:
    """Where people say no."""

    opt_out: OptOut
    pages: Pages
    default_locale: str

    async def show(self, request: Request, token: str) -> Response:
        """The page that asks."""
        link = self.opt_out.read(token)
        if link is None:
            return self._invalid(request)
        sight = await self._look(link)
        if sight is None:
            return self._invalid(request)
        if not sight.choices:
            return self._page(request, 200, "notice", sight, part="mandatory", again=None)
        choices = [choice for choice in sight.choices if not (sight.refused and choice is Choice.TOPIC)]
        return self._page(request, 200, "ask", sight, part="ask", choices=choices)

    async def act(self, request: Request, token: str) -> Response:
        """The button, the undo, or a mail client's one click."""
        fields = await fields_of(request)
        link = self.opt_out.read(token)
        if link is None:
            return self._invalid(request)
        if isinstance(link, ManageLink) and not fields.keys() & {"scope", "undo"}:
            return await self.show(request, token)  # no List-Unsubscribe names it, so this is no one-click
        try:
            answer = await self._answer(request, link, fields)
        except psycopg.Error as error:
            log.error("opt_out.not_saved", error=type(error).__name__)
            return self._unavailable(request, link, fields)
        return self._invalid(request) if answer is None else self._said(request, answer)

    async def _look(self, link: PageLink) -> Sight | None:
        """Details help, but whoever wants to leave must find the button while the database is away, too."""
        try:
            async with asyncio.timeout(LOOK_TIMEOUT):
                return await self.opt_out.look(link)
        except (psycopg.Error, TimeoutError) as error:
            log.warning("opt_out.shown_without_details", error=type(error).__name__)
            return self.opt_out.guess(link)

    async def _answer(self, request: Request, link: PageLink, fields: Mapping[str, str]) -> Answer | None:
        if "undo" in fields:
            return await self.opt_out.undo(link, fields["undo"], self._evidence(request, fields, "done.undo"))
        if "scope" in fields:
            choice = _choice(fields["scope"])
            return await self.opt_out(link, choice, Way.PAGE, self._evidence(request, fields, "ask.button"))
        evidence = {"wording": "List-Unsubscribe=One-Click", "wording_version": "RFC 8058"}
        return await self.opt_out(link, None, Way.ONE_CLICK, {**evidence, **traces_of(request)})

    def _evidence(self, request: Request, fields: Mapping[str, str], button: str) -> dict[str, str]:
        """What was read before the button was pressed, as exactly as the wording can be found again."""
        words = self.pages.words([fields.get("language", ""), *_languages(request), self.default_locale])
        wording = {"wording": words.sentences[button], "wording_version": f"{words.language}:{words.version}"}
        return {**wording, **traces_of(request)}

    def _said(self, request: Request, answer: Answer) -> Response:
        match answer:
            case Refused(sight=sight, scope=scope, undo=undo):
                choice = "topic" if scope.startswith("topic:") else scope
                return self._page(request, 200, "done", sight, part="done", choice=choice, undo=undo)
            case NotRefusable(sight=sight):
                return self._page(request, 409, "notice", sight, part="mandatory", again=None)
            case Restored(sight=sight):
                return self._page(request, 200, "notice", sight, part="restored", again=None)
            case NotRestored(sight=sight):
                return self._page(request, 409, "notice", sight, part="not_restored", again=None)

    def _invalid(self, request: Request) -> Response:
        """The same for everything that is not a link of ours, and for links of people we do not know: no oracle."""
        return self._page(request, 404, "notice", None, part="invalid", again=None)

    def _unavailable(self, request: Request, link: PageLink, fields: Mapping[str, str]) -> Response:
        again = {name: fields[name] for name in ("scope", "undo", "language") if name in fields}
        sight = self.opt_out.guess(link)
        response = self._page(request, 503, "notice", sight, part="unavailable", again=again)
        response.headers["Retry-After"] = str(RETRY_AFTER)
        return response

    def _page(self, request: Request, status: int, page: str, sight: Sight | None, **values: Any) -> Response:
        known = [sight.locale] if sight and sight.locale else []
        words = self.pages.words([*known, *_languages(request), self.default_locale])
        topic = sight.topic if sight else None
        name = self._say(topic.names, words) or topic.key if topic else ""
        about = self._say(topic.descriptions, words) if topic else ""
        html = self.pages.render(page, words, sight=sight, topic=name, about=about, **values)
        return HTMLResponse(html, status, headers={**self.pages.headers, "Content-Language": words.language})

    def _say(self, by_locale: Mapping[str, str], words: Words) -> str:
        """A topic's own text, in the page's language if it has one."""
        return pick(by_locale, words.language, self.default_locale) or next(iter(by_locale.values()), "")


def _choice(text: str) -> Choice | None:
    return Choice(text) if text in set(Choice) else None


def _languages(request: Request) -> list[str]:
    return accepted_languages(request.headers.get("accept-language", ""))
