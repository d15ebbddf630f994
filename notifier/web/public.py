"""What people reach without a login: the page behind a link, the one click of RFC 8058, and the way back.

This path needs PostgreSQL and nothing else. GET, HEAD and OPTIONS change nothing (I7): scanners open links long before
people see them. A POST acts on its URL alone, whatever its body, and says "done" only after the commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
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
from notifier.domain.tokens import ManageLink, OptOutLink, PageLink
from notifier.rendering.locales import pick
from notifier.web.confirming import confirmation_pages
from notifier.web.hooks import sandbox_hook
from notifier.web.mail_hooks import mail_hooks
from notifier.web.pages import Pages, Words
from notifier.web.pages.brand import brand_of
from notifier.web.preferences import FIELDS, Beside, PreferenceDesk
from notifier.web.visitor import languages, read_form, traces

log = structlog.get_logger(__name__)

ALLOW = "GET, HEAD, POST, OPTIONS"
RETRY_AFTER = 120  #: seconds
OWN = {"scope", "undo", "language", *FIELDS}  #: the fields of our own forms: what is posted again after a failure
LOOK_TIMEOUT = 3.0  #: seconds that a page waits for the database before it is shown without details


def public_router(app: App) -> APIRouter:
    """Every route that needs no key: a token in the URL or a signature is the proof. No redirect, ever (RFC 8058)."""
    settings = app.settings
    pages = Pages(brand_of(settings))
    preferences = PreferenceDesk(
        app.preferences, app.fresh_links, pages, settings.default_locale, settings.default_timezone
    )
    desk = Desk(app.opt_out, preferences, pages, settings.default_locale)
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
    router.include_router(mail_hooks(app))
    return router


async def options() -> Response:
    """What may be done with a link."""
    return Response(status_code=204, headers={"Allow": ALLOW})


@dataclass(frozen=True, slots=True)
class Desk:
    """Where people say no."""

    opt_out: OptOut
    preferences: PreferenceDesk  #: behind a manage link
    pages: Pages
    default_locale: str

    async def show(self, request: Request, token: str) -> Response:
        """The page that asks."""
        link = self.opt_out.read(token)
        match link:
            case None:
                return self._invalid(request)
            case ManageLink():
                return await self._show_preferences(request, link)
            case OptOutLink():
                return await self._ask(request, link)

    async def act(self, request: Request, token: str) -> Response:
        """The button, the undo, a mail client's one click, or what else a page of ours asks for."""
        pairs = await read_form(request)
        fields = dict(pairs)
        link = self.opt_out.read(token)
        if link is None:
            return self._invalid(request)
        try:
            if asked := PreferenceDesk.asked(link, fields):
                return await self.preferences.act(request, link, asked, pairs) or self._invalid(request)
            if isinstance(link, ManageLink) and not fields.keys() & {"scope", "undo"}:
                return await self._show_preferences(request, link)  # nobody's one-click: no List-Unsubscribe names it
            answer = await self._answer(request, link, fields)
        except psycopg.Error as error:
            log.error("opt_out.not_saved", error=type(error).__name__)
            return self._unavailable(request, link, pairs)
        return self._invalid(request) if answer is None else self._said(request, link, answer)

    async def _ask(self, request: Request, link: OptOutLink) -> Response:
        sight = await self._look(link)
        if sight is None:
            return self._invalid(request)
        if not sight.choices:
            return self._page(request, 200, "notice", sight, part="mandatory")
        choices = [choice for choice in sight.choices if not (sight.refused and choice is Choice.TOPIC)]
        words = self._words(request, sight)
        more = await self.preferences.beside(link, words) if sight.known else Beside()
        return self._page(request, 200, "ask", sight, part="ask", choices=choices, beside=more)

    async def _show_preferences(self, request: Request, link: ManageLink) -> Response:
        """Without the database: what can be refused altogether, as that page needs to know nothing."""
        try:
            async with asyncio.timeout(LOOK_TIMEOUT):
                return await self.preferences.show(request, link) or self._invalid(request)
        except (psycopg.Error, TimeoutError) as error:
            log.warning("opt_out.shown_without_details", error=type(error).__name__)
        sight = self.opt_out.guess(link)
        return self._page(request, 200, "ask", sight, part="ask", choices=sight.choices, beside=Beside())

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
        return await self.opt_out(link, None, Way.ONE_CLICK, {**evidence, **traces(request)})

    def _evidence(self, request: Request, fields: Mapping[str, str], button: str) -> dict[str, str]:
        """What was read before the button was pressed, as exactly as the wording can be found again."""
        words = self.pages.words([fields.get("language", ""), *languages(request), self.default_locale])
        wording = {"wording": words.sentences[button], "wording_version": f"{words.language}:{words.version}"}
        return {**wording, **traces(request)}

    def _said(self, request: Request, link: PageLink, answer: Answer) -> Response:
        back = isinstance(link, ManageLink)
        match answer:
            case Refused(sight=sight, scope=scope, undo=undo):
                choice = "topic" if scope.startswith("topic:") else scope
                return self._page(request, 200, "done", sight, part="done", choice=choice, undo=undo, back=back)
            case NotRefusable(sight=sight):
                return self._page(request, 409, "notice", sight, part="mandatory")
            case Restored(sight=sight):
                return self._page(request, 200, "notice", sight, part="restored", back=back)
            case NotRestored(sight=sight):
                return self._page(request, 409, "notice", sight, part="not_restored", back=back)

    def _invalid(self, request: Request) -> Response:
        """The same for everything that is not a link of ours, and for links of people we do not know: no oracle."""
        return self._page(request, 404, "notice", None, part="invalid")

    def _unavailable(self, request: Request, link: PageLink, pairs: Sequence[tuple[str, str]]) -> Response:
        again = [pair for pair in pairs if pair[0] in OWN]
        sight = self.opt_out.guess(link)
        response = self._page(request, 503, "notice", sight, part="unavailable", again=again)
        response.headers["Retry-After"] = str(RETRY_AFTER)
        return response

    def _words(self, request: Request, sight: Sight | None) -> Words:
        known = [sight.locale] if sight and sight.locale else []
        return self.pages.words([*known, *languages(request), self.default_locale])

    def _page(self, request: Request, status: int, page: str, sight: Sight | None, **values: Any) -> Response:
        words = self._words(request, sight)
        topic = sight.topic if sight else None
        name = self._say(topic.names, words) or topic.key if topic else ""
        about = self._say(topic.descriptions, words) if topic else ""
        shown = {"again": None, "back": False} | values
        html = self.pages.render(page, words, sight=sight, topic=name, about=about, **shown)
        return HTMLResponse(html, status, headers={**self.pages.headers, "Content-Language": words.language})

    def _say(self, by_locale: Mapping[str, str], words: Words) -> str:
        """A topic's own text, in the page's language if it has one."""
        return pick(by_locale, words.language, self.default_locale) or next(iter(by_locale.values()), "")


def _choice(text: str) -> Choice | None:
    return Choice(text) if text in set(Choice) else None
