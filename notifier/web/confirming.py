"""What people reach through the link of a mail that asks whether it was really them. Only the button is a yes (I7)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
import structlog
from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, Response

from notifier.dispatch.confirm import Confirm, Confirmed, Outdated, Pending, Standing
from notifier.domain.tokens import ConfirmLink
from notifier.rendering.locales import pick
from notifier.web.pages import Pages
from notifier.web.visitor import languages, read_form, traces

log = structlog.get_logger(__name__)

ALLOW = "GET, HEAD, POST, OPTIONS"
RETRY_AFTER = 120  #: seconds
LOOK_TIMEOUT = 3.0  #: seconds that the page waits for the database before it is shown without details


def confirmation_pages(confirm: Confirm, pages: Pages, default_locale: str) -> APIRouter:
    """The routes below `/c/`; a token in the URL is the proof."""
    counter = Counter(confirm, pages, default_locale)
    router = APIRouter(include_in_schema=False)
    for path in ("/c/{token}", "/c/{token}/"):
        router.add_api_route(path, counter.show, methods=["GET", "HEAD"])
        router.add_api_route(path, counter.act, methods=["POST"])
        router.add_api_route(path, options, methods=["OPTIONS"])
    return router


async def options() -> Response:
    """What may be done with a link."""
    return Response(status_code=204, headers={"Allow": ALLOW})


@dataclass(frozen=True, slots=True)
class Counter:
    """Where people confirm."""

    confirm: Confirm
    pages: Pages
    default_locale: str

    async def show(self, request: Request, token: str) -> Response:
        """The page that asks."""
        link = self.confirm.read(token)
        if link is None:
            return self._page(request, 404, "notice", None, part="invalid", again=None, back=False)
        try:
            async with asyncio.timeout(LOOK_TIMEOUT):
                standing = await self.confirm.look(link)
        except (psycopg.Error, TimeoutError) as error:
            log.warning("confirm.shown_without_details", error=type(error).__name__)
            standing = self.confirm.guess(link) or Outdated(None)
        return self._say(request, standing)

    async def act(self, request: Request, token: str) -> Response:
        """The button. A POST that is not our own form is no yes: it only shows the page."""
        fields = dict(await read_form(request))
        link = self.confirm.read(token)
        if link is None or "confirm" not in fields:
            return await self.show(request, token)
        try:
            standing = await self.confirm(link, self._evidence(request, fields))
        except psycopg.Error as error:
            log.error("confirm.not_saved", error=type(error).__name__)
            return self._unavailable(request, link, fields)
        return self._say(request, standing)

    def _evidence(self, request: Request, fields: Mapping[str, str]) -> dict[str, str]:
        """What stood on the button, as exactly as it can be found again, and who pressed it."""
        words = self.pages.words([fields.get("language", ""), *languages(request), self.default_locale])
        wording = {"wording": words.sentences["confirm.button"], "wording_version": f"{words.language}:{words.version}"}
        return {**wording, **traces(request)}

    def _say(self, request: Request, standing: Standing) -> Response:
        match standing:
            case Pending():
                return self._page(request, 200, "confirm", standing, part="confirm", masked=standing.masked)
            case Confirmed(pending=pending):
                return self._page(request, 200, "confirmed", pending, part="confirmed")
            case Outdated(pending=pending):
                return self._page(request, 409, "notice", pending, part="not_confirmed", again=None, back=False)

    def _unavailable(self, request: Request, link: ConfirmLink, fields: Mapping[str, str]) -> Response:
        again = [(name, fields[name]) for name in ("confirm", "language") if name in fields]
        pending = self.confirm.guess(link)
        response = self._page(request, 503, "notice", pending, part="unavailable", again=again, back=False)
        response.headers["Retry-After"] = str(RETRY_AFTER)
        return response

    def _page(self, request: Request, status: int, page: str, pending: Pending | None, **values: Any) -> Response:
        known = [pending.locale] if pending and pending.locale else []
        words = self.pages.words([*known, *languages(request), self.default_locale])
        names, about = (pending.topic.names, pending.topic.descriptions) if pending else ({}, {})
        said = [
            pick(texts, words.language, self.default_locale) or next(iter(texts.values()), "")
            for texts in (names, about)
        ]
        html = self.pages.render(page, words, topic=said[0], about=said[1], **values)
        return HTMLResponse(html, status, headers={**self.pages.headers, "Content-Language": words.language})
