"""Somebody signs up, a mail asks in the sandbox's inbox, scanners look, a person presses the button, and news goes."""

from __future__ import annotations

import html
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from notifier.domain.access import ApiKey, Scope
from notifier.domain.messages import Lane
from notifier.rendering import bundled_directory
from notifier.sandbox.server import Running, open_sandbox
from notifier.settings import SandboxSettings
from notifier.store import keys
from tests.servers.api import NEWS, once
from tests.servers.service import SECRET, Service, running

pytestmark = pytest.mark.anyio

FORM = {"Content_Type": "application/x-www-form-urlencoded"}


@dataclass
class House:
    service: Service
    sandbox: Running
    product: httpx.AsyncClient

    async def ask(self) -> httpx.Response:
        body = {"topic": "newsletter", "wording": "Yes, the newsletter.", "wording_version": "footer-3"}
        return await self.product.post("/v1/recipients/ann/confirmations", json=body)

    async def send_news(self) -> str:
        """One issue of the newsletter; what became of it."""
        body = {"template": "newsletter", "recipient": {"id": "ann"}, "data": NEWS}
        answer = await self.product.post("/v1/notifications", json=body, headers=once())
        assert answer.status_code == 202, answer.text
        [message] = answer.json()["messages"]
        await self.deliver(Lane.MARKETING)
        state = (await self.product.get(f"/v1/messages/{message['id']}")).json()["state"]
        return str(state)

    async def deliver(self, lane: Lane) -> None:
        async with self.service.app.hands(lane) as hands:
            await hands.deliver(())

    async def inbox(self) -> list[dict[str, Any]]:
        async with httpx.AsyncClient(base_url=self.sandbox.http_url) as client:
            mails = (await client.get("/api/mails")).json()["mails"]
            return [(await client.get(f"/api/mails/{mail['id']}")).json() for mail in mails]

    async def ledger(self) -> list[dict[str, Any]]:
        return await self.service.town.ledger()


@pytest.fixture
async def house(anyio_backend, database_url, tmp_path) -> AsyncIterator[House]:
    settings = SandboxSettings(public_url="http://127.0.0.1:9", sandbox_secret=SECRET)
    async with open_sandbox(settings, http_port=0, smtp_port=0) as sandbox:
        relay = f"smtp://127.0.0.1:{sandbox.smtp_port}?tls=none"
        async with running(database_url, tmp_path, smtp_url=relay, templates_dir=bundled_directory()) as service:
            key = ApiKey.new()
            async with service.app.database.connection() as c:
                await keys.create(c, key.id, "test", key.secret_hash, [str(scope) for scope in Scope])
            headers = {"Authorization": f"Bearer {key}"}
            async with httpx.AsyncClient(base_url=service.url, headers=headers) as product:
                put = await product.put("/v1/recipients/ann", json={"email": "ann@example.test", "locale": "de"})
                assert put.status_code == 201, put.text
                yield House(service, sandbox, product)


async def test_only_the_button_of_the_mail_that_asks_lets_the_newsletter_go(house: House) -> None:
    assert await house.send_news() == "suppressed"
    assert (await house.ask()).status_code == 202
    await house.deliver(Lane.TRANSACTIONAL)
    [mail] = await house.inbox()
    assert mail["subject"] == "Bitte bestätige: Newsletter"
    assert "list-unsubscribe" not in str(mail["headers"]).lower()

    [path] = set(re.findall(r"/c/[\w.-]+", html.unescape(mail["text"])))
    for method in ("GET", "HEAD", "OPTIONS"):
        assert (await house.service.ask(method, path)).status in (200, 204)
    await house.service.ask("POST", path, b"List-Unsubscribe=One-Click", **FORM)
    await house.service.ask("POST", path)
    assert await house.ledger() == []
    assert await house.send_news() == "suppressed"

    page = await house.service.ask("POST", path, b"language=de&confirm=yes", **FORM)
    assert (page.status, "Danke" in page.text) == (200, True)
    [line] = await house.ledger()
    assert (line["source"], line["evidence"]["confirmed"]["wording"]) == (
        "double_opt_in",
        "Ja, das möchte ich bekommen",
    )
    assert await house.send_news() == "accepted"
    assert len(await house.inbox()) == 2

    assert (await house.ask()).status_code == 429
    await house.deliver(Lane.TRANSACTIONAL)
    assert len(await house.inbox()) == 2


async def test_while_the_database_is_away_the_page_asks_and_the_button_says_that_nothing_was_saved(
    house: House, monkeypatch
) -> None:
    import psycopg

    await house.ask()
    await house.deliver(Lane.TRANSACTIONAL)
    [path] = set(re.findall(r"/c/[\w.-]+", (await house.inbox())[0]["text"]))

    async def away(*_: object) -> None:
        raise psycopg.OperationalError("away")

    with monkeypatch.context() as patch:
        patch.setattr("notifier.store.confirmations.find", away)
        page = await house.service.ask("GET", path)
        assert (page.status, "confirm" in page.text) == (200, True)
        answer = await house.service.ask("POST", path, b"confirm=yes", **FORM)
        assert (answer.status, answer.headers["retry-after"]) == (503, "120")
        assert 'name="confirm"' in answer.text
    assert await house.ledger() == []
    assert (await house.service.ask("POST", path, b"confirm=yes", **FORM)).status == 200
    assert len(await house.ledger()) == 1
