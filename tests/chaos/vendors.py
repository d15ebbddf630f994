"""Twilio and FCM in the test's own process: the sandbox's stand-ins behind one door, and the door that Twilio calls.

What was sent is counted from what the stand-ins took, never from our tables.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from uuid import UUID

import httpx
from fastapi import FastAPI
from pydantic import SecretStr

from notifier.app import App
from notifier.domain.tokens import Links
from notifier.sandbox import fcm, twilio
from notifier.sandbox.fcm_account import PREFIX, Account, write_service_account
from notifier.sandbox.pushes import Pushes
from notifier.settings import Settings
from notifier.web.server import create_app
from notifier_channels.contract import Channel
from tests.servers.door import Door
from tests.servers.twilio import SENDER, SID, TOKEN
from tests.world import KEYS, MARKETING, TEMPLATES, TRANSACTIONAL, World

PUBLIC_URL = "https://acme.test"
DELAY = 0.02  #: seconds
AT_ONCE = 20  #: pushes in one call
CONNECTIONS = 4  #: to Twilio per worker process, the default
FAST = "10000"  #: segments a second: the sender's rate holds nothing up
SENDER_SETTINGS = {
    "NOTIFIER_TWILIO_ACCOUNT_SID": SID,
    "NOTIFIER_TWILIO_AUTH_TOKENS": TOKEN,
    "NOTIFIER_TWILIO_SENDER": SENDER,
    "NOTIFIER_TWILIO_CONNECTIONS": str(CONNECTIONS),
}


@dataclass
class Vendors:
    """Both of them."""

    world: World
    door: Door
    twilio: twilio.StandIn
    pushes: Pushes
    account: Path  #: the key of FCM's service account

    @property
    def settings(self) -> dict[str, str]:
        """What a process needs to find them."""
        return SENDER_SETTINGS | {
            "NOTIFIER_PUBLIC_URL": PUBLIC_URL,
            "NOTIFIER_TWILIO_API_URL": f"{self.door.url}{twilio.PREFIX}",
            "NOTIFIER_TWILIO_SEGMENTS_PER_SECOND": FAST,
            "NOTIFIER_FCM_CREDENTIALS": str(self.account),
            "NOTIFIER_FCM_API_URL": f"{self.door.url}{PREFIX}",
            "NOTIFIER_FCM_AT_ONCE": str(AT_ONCE),
        }

    def accepted(self) -> Counter[UUID]:
        """How often each message was taken: a text names it in its callback's URL, a push in its tag."""
        texts = (message_of(self.world.links, text.callback_url) for text in self.twilio.texts if text.callback_url)
        return Counter(texts) + Counter(by_tag(push.tag) for push in self.pushes)


by_tag = cache(UUID)  # both are asked again and again while somebody waits for the next message


@cache
def message_of(links: Links, callback_url: str) -> UUID:
    """Whose callback this is."""
    reference = links.read_report(callback_url.rpartition("/")[2].partition("#")[0])
    assert reference is not None
    return reference.message


@asynccontextmanager
async def vendors(world: World, directory: Path, client: httpx.AsyncClient) -> AsyncIterator[Vendors]:
    """Both stand-ins, serving. `client` carries what Twilio calls us for; STOP is left to us."""
    app, account, pushes = FastAPI(), directory / "fcm.json", Pushes()
    door = Door(app)
    keys = twilio.Keys(SID, (TOKEN,))
    async with twilio.stand_in(client, keys, PUBLIC_URL, answers_keywords=False, pace=0.01) as texts, door.open():
        write_service_account(account, door.url)
        app.include_router(texts.routes)
        app.include_router(fcm.router(pushes, Account.read(account)))
        yield Vendors(world, door, texts, pushes, account)


@asynccontextmanager
async def front_door(
    world: World, redis_url: str, is_lost: Callable[[httpx.URL], bool] = lambda _: False
) -> AsyncIterator[httpx.AsyncClient]:
    """The public routes, as mailbox providers and Twilio reach them; some of their calls are lost on the way."""

    class Reached(httpx.ASGITransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            return httpx.Response(204) if is_lost(request.url) else await super().handle_async_request(request)

    keys = {name: SecretStr(secret.decode()) for name, secret in KEYS.items()}
    settings = Settings(
        DATABASE_URL=world.database.url, REDIS_URL=redis_url, link_keys=keys, hash_keys=keys, templates_dir=TEMPLATES,
        public_url=PUBLIC_URL, twilio_account_sid=SID, twilio_auth_tokens=TOKEN, twilio_sender=SENDER,
        twilio_answers_keywords=False,
    )  # fmt: skip
    async with (
        App.open(settings) as app,
        httpx.AsyncClient(transport=Reached(create_app(app)), base_url=PUBLIC_URL) as client,
    ):
        yield client


async def audience(world: World, people: Sequence[UUID], channel: Channel) -> list[UUID]:
    """A number or a device for each, and their yes to marketing; the ids of the address rows."""
    await world.grant(people, f"topic:{MARKETING}", channel)
    return await (world.phones(people) if channel is Channel.SMS else world.devices(people))


async def queue_both(world: World, people: Sequence[UUID], channel: Channel) -> None:
    """One transactional and one marketing message to each."""
    addresses = await audience(world, people, channel)
    await world.queue(people, TRANSACTIONAL, by=channel, to=addresses)
    await world.queue(people, MARKETING, by=channel, to=addresses)
