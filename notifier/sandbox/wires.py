"""The stand-ins that speak HTTP, each on only when it is given what the real provider would be known by."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import httpx
from fastapi import APIRouter

from notifier.errors import NotConfigured
from notifier.sandbox.pushes import Pushes
from notifier.sandbox.texts import Texts
from notifier.settings import SandboxSettings


class Row(Protocol):
    """One line in the table of those that play a provider's moods."""

    @property
    def name(self) -> str:
        """The number, or how the device's id begins."""

    @property
    def does(self) -> str:
        """What the sandbox does."""

    @property
    def then(self) -> str:
        """What Notifier makes of it."""


class Phones(Protocol):
    """Where somebody can type; the stand-in for Twilio."""

    async def type_on_phone(self, phone: str, body: str) -> object:
        """Hand it to Notifier as an inbound message, and keep the answer."""


@dataclass(frozen=True, slots=True)
class Wire:
    """One stand-in that is on."""

    router: APIRouter
    url: str  #: what Notifier is told as the provider's address
    moods: Sequence[Row]
    phones: Phones | None = None


@dataclass(frozen=True, slots=True)
class Wires:
    """Those that are on."""

    twilio: Wire | None = None
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
    async with AsyncExitStack() as stack:
        twilio = fcm = None
        if settings.fcm_credentials is not None:
            fcm = _fcm(settings.fcm_credentials, pushes, url)
        yield Wires(twilio, fcm)


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
    return Wire(fcm.router(pushes, account), f"{url}{PREFIX}", fcm.SIMULATORS)
