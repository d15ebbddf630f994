"""The page behind a manage link: a form of switches that works without a script, and what it says afterwards.

Only what a person has changed on it is asked for: each switch says beside itself how it was shown.
"""

from __future__ import annotations

import asyncio
import json
import zoneinfo
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from uuid import UUID

import structlog
from fastapi import Request
from markupsafe import Markup
from starlette.responses import HTMLResponse, Response

from notifier.dispatch.fresh_links import FreshLinks
from notifier.dispatch.preferences import PreferencePage, Saved, Seen, Wished
from notifier.domain.preferences import Pause, wishes
from notifier.domain.tokens import ManageLink, OptOutLink, PageLink
from notifier.telemetry import where
from notifier.web.pages import Pages, Words
from notifier.web.sentences import Mistake, Said, Sentences, field_of
from notifier.web.visitor import languages, traces

log = structlog.get_logger(__name__)

FIELDS = frozenset(
    {
        *("preferences", "export", "fresh", "shown", "on", "stop", "pause"),
        *("locale", "shown_locale", "timezone", "shown_timezone"),
    }
)
BESIDE_TIMEOUT = 1.5  #: seconds that a page waits for what merely stands beside its button

_REGIONS = ("Africa", "America", "Antarctica", "Arctic", "Asia", "Atlantic", "Australia", "Europe", "Indian", "Pacific")


@lru_cache(maxsize=1)
def zones() -> dict[str, list[str]]:
    """Every time zone that is named after a place, by its region."""
    known = sorted(zoneinfo.available_timezones())
    return {"UTC": ["UTC"]} | {region: [zone for zone in known if zone.startswith(f"{region}/")] for region in _REGIONS}


class Ask(StrEnum):
    """What a form of ours asks for, beside a plain no: the name of the field that says so."""

    SAVE = "preferences"
    EXPORT = "export"
    FRESH = "fresh"


@dataclass(frozen=True, slots=True)
class Beside:
    """What stands beside the button of an unsubscribe page."""

    because: Sequence[Markup] = ()
    offers_link: bool = False


@dataclass(frozen=True, slots=True)
class Form:
    """What was posted."""

    wished: Wished
    mistakes: Sequence[Mistake] = ()


@dataclass(frozen=True, slots=True)
class PreferenceDesk:
    """Where people choose."""

    page: PreferencePage
    fresh_links: FreshLinks
    pages: Pages
    default_locale: str
    default_timezone: str
    zones: Mapping[str, Sequence[str]] = field(default_factory=zones)

    @staticmethod
    def asked(link: PageLink, fields: Mapping[str, str]) -> Ask | None:
        """What a post asks for. Of an unsubscribe link, a fresh link and nothing else."""
        able = list(Ask) if isinstance(link, ManageLink) else [Ask.FRESH]
        return next((ask for ask in able if ask in fields), None)

    async def show(self, request: Request, link: ManageLink) -> Response | None:
        """The page. None: nobody is known by this link."""
        seen = await self.page.look(link)
        return await self._page(request, link, seen) if seen else None

    async def act(
        self, request: Request, link: PageLink, ask: Ask, pairs: Sequence[tuple[str, str]]
    ) -> Response | None:
        """Do what a form asks for. None: nobody is known by this link."""
        match ask, link:
            case Ask.SAVE, ManageLink():
                return await self._save(request, link, pairs)
            case Ask.EXPORT, ManageLink():
                return await self._export(request, link)
            case _:
                await self.fresh_links(link)
                return self._sent(request, pairs)

    async def beside(self, link: OptOutLink, words: Words) -> Beside:
        """Why the message came, and that there is more to choose."""
        return Beside(await self._because(link.message, words), self.fresh_links.template is not None)

    async def _because(self, message: UUID, words: Words) -> Sequence[Markup]:
        """Why it came. Whatever goes wrong here, the button must not wait for it nor suffer from it."""
        try:
            async with asyncio.timeout(BESIDE_TIMEOUT):
                because = await self.page.why(message)
        except Exception as error:  # noqa: BLE001  # the way out is worth more than the reason
            log.warning("preferences.no_reason", error=type(error).__name__, at=where(error))
            return ()
        return self._sentences(words).because(because) if because else ()

    # Act --------------------------------------------------------------------------------------------------------------

    async def _save(self, request: Request, link: ManageLink, pairs: Sequence[tuple[str, str]]) -> Response | None:
        form = self._read(pairs)
        read_in = self._words(request, dict(pairs).get("language"))
        say = self._sentences(read_in)
        proof = {"wording_version": f"{read_in.language}:{read_in.version}", **traces(request)}
        saved = await self.page.save(link, form.wished, lambda switch: {"wording": say.name(switch), **proof})
        return await self._page(request, link, saved.seen, saved, form.mistakes) if saved else None

    def _read(self, pairs: Sequence[tuple[str, str]]) -> Form:
        """The wishes of a form: what it showed, against what is ticked. A tick at a wide switch says `stop`."""
        fields = dict(pairs)
        shown = {
            key: state == "on" for key, _, state in (value.rpartition("=") for name, value in pairs if name == "shown")
        }
        ticked = {value for name, value in pairs if name == "on"}
        stopped = {value for name, value in pairs if name == "stop"}
        ticked |= {key for key in shown if not key.startswith("topic:") and key not in stopped}
        locale = _changed(fields, "locale")
        timezone = _changed(fields, "timezone")
        is_locale = locale is None or locale in self.pages.languages
        is_timezone = timezone is None or any(timezone in names for names in self.zones.values())
        pause = fields.get("pause")
        wished = Wished(
            wishes(shown, ticked),
            Pause(pause) if pause in set(Pause) else None,
            locale if is_locale else None,
            timezone if is_timezone else None,
        )
        mistakes = [] if is_locale else [Mistake("preferences.bad_language", "locale")]
        mistakes += [] if is_timezone else [Mistake("preferences.bad_zone", "timezone")]
        return Form(wished, mistakes)

    async def _export(self, request: Request, link: ManageLink) -> Response | None:
        everything = await self.page.export(link)
        if everything is None:
            seen = await self.page.look(link)
            return await self._page(request, link, seen, is_data_held_back=True) if seen else None
        text = json.dumps(everything, default=_as_text, ensure_ascii=False, indent=2)
        headers = {**self.pages.headers, "Content-Disposition": 'attachment; filename="my-data.json"'}
        return Response(text, media_type="application/json", headers=headers)

    def _sent(self, request: Request, pairs: Sequence[tuple[str, str]]) -> Response:
        """The same whether it was sent or not: whoever asked is told nothing of whom we know."""
        words = self._words(request, dict(pairs).get("language"))
        html = self.pages.render("notice", words, part="fresh_sent", topic="", again=None, back=False)
        return HTMLResponse(html, headers={**self.pages.headers, "Content-Language": words.language})

    # Show -------------------------------------------------------------------------------------------------------------

    async def _page(
        self,
        request: Request,
        link: ManageLink,
        seen: Seen,
        saved: Saved | None = None,
        mistakes: Sequence[Mistake] = (),
        *,
        is_data_held_back: bool = False,
    ) -> Response:
        words = self._words(request, seen.preferences.profile.locale)
        say = self._sentences(words)
        said = say.said(saved, mistakes) if saved else say.data_held_back() if is_data_held_back else None
        html = self.pages.render(
            "preferences",
            words,
            part="preferences",
            said=said,
            seen=seen,
            shown=seen.preferences,
            groups=say.groups(seen.preferences),
            locked=[say.named(topic) for topic in seen.preferences.locked],
            places=[(place, say.note(place)) for place in seen.preferences.places],
            offers_link=self.fresh_links.template is not None and not seen.is_fresh,
            paused_until=say.paused_until(seen),
            because=await self._because(link.message, words) if link.message else (),
            languages=self.pages.languages,
            zones=self.zones,
            name=say.name,
            field_of=field_of,
        )
        return HTMLResponse(html, _status(said), headers={**self.pages.headers, "Content-Language": words.language})

    def _words(self, request: Request, known: str | None) -> Words:
        return self.pages.words([*([known] if known else []), *languages(request), self.default_locale])

    def _sentences(self, words: Words) -> Sentences:
        return Sentences(words, self.pages.languages, self.default_locale, self.default_timezone)


def _changed(fields: Mapping[str, str], name: str) -> str | None:
    """What was chosen, where it is something else than what was shown."""
    chosen = fields.get(name, "")
    return chosen if chosen != fields.get(f"shown_{name}", "") else None


def _status(said: Said | None) -> int:
    if said is None:
        return 200
    return 422 if said.mistakes else 409 if said.held_back else 200


def _as_text(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
