"""The stand-ins that speak HTTP, each on only when it is given what the real provider would be known by."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from fastapi import APIRouter

from notifier.errors import NotConfigured
from notifier.sandbox import twilio
from notifier.sandbox.callbacks import Callbacks
from notifier.sandbox.numbers import NUMBERS
from notifier.sandbox.phones import Phones
from notifier.sandbox.pushes import Pushes
from notifier.sandbox.texts import Texts
from notifier.settings import SandboxSettings


@dataclass(frozen=True, slots=True)
class Mood:
    """One line in the table of those that play a provider's moods."""

    to: str  #: the number, or how the device's id begins
    does: str
    then: str  #: what Notifier makes of it


@dataclass(frozen=True, slots=True)
class Wire:
    """One stand-in that is on."""

    router: APIRouter
    url: str  #: what Notifier is told as the provider's address
    moods: Sequence[Mood]


@dataclass(frozen=True, slots=True)
class TwilioWire(Wire):
    """With phones to type on."""

    phones: Phones


@dataclass(frozen=True, slots=True)
class Wires:
    """Those that are on."""

    twilio: TwilioWire | None = None
    fcm: Wire | None = None

    @property
    def routers(self) -> list[APIRouter]:
        """What the web server serves beside the pages."""
        return [wire.router for wire in (self.twilio, self.fcm) if wire is not None]


@asynccontextmanager
async def open_wires(
    settings: SandboxSettings, texts: Texts, pushes: Pushes, client: httpx.AsyncClient, url: str, *, pace: float
) -> AsyncIterator[Wires]:
    """Let them answer below `url` until the block ends.

    Raises:
        NotConfigured: a setting names something that cannot be used.

    """
    fcm = None if settings.fcm_credentials is None else _fcm(settings.fcm_credentials, pushes, url)
    async with AsyncExitStack() as stack:
        texting = None
        if settings.twilio_account_sid and settings.twilio_auth_tokens:
            texting = await stack.enter_async_context(_twilio(settings, texts, client, url, pace))
        yield Wires(texting, fcm)


@asynccontextmanager
async def _twilio(
    settings: SandboxSettings, texts: Texts, client: httpx.AsyncClient, url: str, pace: float
) -> AsyncIterator[TwilioWire]:
    account, public_url = settings.twilio_account_sid or "", settings.public_url
    tokens = tuple(token.get_secret_value() for token in settings.twilio_auth_tokens or ())
    key = settings.twilio_api_key.get_secret_value() if settings.twilio_api_key else None
    async with Callbacks(client, account, tokens[0], public_url, pace=pace) as callbacks:
        phones = Phones(texts, callbacks, account, public_url, answers_keywords=settings.twilio_answers_keywords)
        api = twilio.Api(twilio.Keys(account, tokens, key), phones, callbacks, pace=pace)
        moods = [Mood(number.e164, number.does, number.then) for number in NUMBERS]
        yield TwilioWire(twilio.router(api), f"{url}{twilio.PREFIX}", moods, phones)


def _fcm(path: Path, pushes: Pushes, url: str) -> Wire:
    try:
        from notifier.sandbox import fcm
        from notifier.sandbox.fcm_account import PREFIX, Account
    except ImportError:
        raise NotConfigured("NOTIFIER_FCM_CREDENTIALS: the sandbox needs the extra `push` for it") from None
    try:
        account = Account.read(path)
    except (OSError, ValueError, KeyError, TypeError):
        raise NotConfigured("NOTIFIER_FCM_CREDENTIALS: this is not the JSON key of a service account") from None
    moods = [Mood(f"{one.name}-…", one.does, one.then) for one in fcm.SIMULATORS]
    return Wire(fcm.router(pushes, account), f"{url}{PREFIX}", moods)
