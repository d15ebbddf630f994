"""Sandbox and service together: a mail goes out by SMTP, its report comes back by HTTP, and so does its one click."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import httpx
import pytest

from notifier.sandbox.server import Running, open_sandbox
from notifier.settings import SandboxSettings
from notifier_channels.addresses import EmailAddress
from notifier_channels.contract import EmailContent, ListHeaders, Mailbox, Outgoing
from notifier_channels.email.smtp import SmtpProvider
from tests.servers.outgoing import Notebook, sent
from tests.servers.service import SECRET, Service, running

pytestmark = pytest.mark.anyio


@dataclass
class House:
    service: Service
    sandbox: Running
    provider: SmtpProvider

    async def send(self, address: str) -> tuple[UUID, UUID]:
        """A marketing message that was accepted, as far as our own rows know; the person and the message."""
        person = await self.service.town.person(address)
        message = await self.service.town.message(person, "product-news")
        link = self.service.url + self.service.link(person, message)
        now = datetime.now(UTC)
        content = EmailContent(
            Mailbox("Notifier", EmailAddress("hello", "notifier.test")),
            "News",
            f"Hi. Leave: {link}",
            subscription=ListHeaders("product-news.lists.notifier.test", "Product news", link),
        )
        to = EmailAddress.parse(address, allow_test_domains=True)
        await sent(self.provider, [Outgoing(message, 1, to, content, now, now + timedelta(hours=1))], Notebook())
        return person, message

    async def state(self, message: UUID) -> str:
        [row] = await self.service.town.rows("SELECT state FROM messages WHERE id = %s", (message,))
        return str(row["state"])

    async def becomes(self, message: UUID, state: str) -> None:
        async with asyncio.timeout(30):
            while await self.state(message) != state:
                await asyncio.sleep(0.02)


@pytest.fixture
async def house(anyio_backend, database_url, tmp_path) -> AsyncIterator[House]:
    async with running(database_url, tmp_path) as service:
        settings = SandboxSettings(public_url=service.url, sandbox_secret=SECRET)
        async with open_sandbox(settings, http_port=0, smtp_port=0, pace=0.05) as sandbox:
            url = f"smtp://127.0.0.1:{sandbox.smtp_port}?tls=none"
            provider = SmtpProvider.from_url(url, message_id_domain="lists.notifier.test")
            yield House(service, sandbox, provider)
            await provider.close()


@pytest.mark.parametrize(
    ("name", "state", "suppressed"),
    [("ann", "delivered", None), ("late-bounce", "bounced", "hard_bounce"), ("complaint", "complained", "complaint")],
)
async def test_what_the_sandbox_reports_arrives(house: House, name: str, state: str, suppressed: str | None) -> None:
    _, message = await house.send(f"{name}@simulator.notifier.test")
    await house.becomes(message, state)
    rows = await house.service.town.rows("SELECT reason FROM suppressions")
    assert [row["reason"] for row in rows] == ([suppressed] if suppressed else [])


async def test_the_button_in_the_inbox_stops_what_is_queued(house: House) -> None:
    person, _ = await house.send("ann@example.test")
    waiting = await house.service.town.message(person, "product-news", "queued")
    async with httpx.AsyncClient(base_url=house.sandbox.http_url) as inbox:
        [mail] = (await inbox.get("/api/mails")).json()["mails"]
        shown = (await inbox.get(f"/api/mails/{mail['id']}")).json()
        assert [check["demand"] for check in shown["one_click"] if not check["ok"]] == []
        assert await house.state(waiting) == "queued"
        answer = (await inbox.post(f"/api/mails/{mail['id']}/unsubscribe")).json()
    assert (answer["ok"], answer["status"]) == (True, 200)
    assert await house.state(waiting) == "cancelled"
