"""The API without a socket in between: a real application on a real database, and keys as a test needs them."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from fastapi import FastAPI

from notifier.app import App
from notifier.domain.access import ApiKey, Scope
from notifier.settings import Settings
from notifier.store import keys
from notifier.store.database import Row, rows
from notifier.web.server import create_app

EVERYTHING = tuple(Scope)
RESET = {"reset_url": "https://shop.test/reset?token=abc", "valid_minutes": 30}
NEWS = {
    "title": "News",
    "published_on": "2026-11-23",
    "opening": ["Hello."],
    "stories": [{"title": "One", "text": "Two", "url": "https://shop.test/one"}],
}

_numbers = itertools.count(1)


@dataclass
class Api:
    app: App
    web: FastAPI
    client: httpx.AsyncClient

    async def key(self, *scopes: Scope) -> dict[str, str]:
        """The header that carries a new key."""
        key = ApiKey.new()
        async with self.app.database.connection() as c:
            await keys.create(c, key.id, "test", key.secret_hash, [str(scope) for scope in scopes])
        return {"Authorization": f"Bearer {key}"}

    async def send(self, key: str | None = None, **changes: Any) -> httpx.Response:
        return await self.client.post("/v1/notifications", json=a_body(**changes), headers=once(key))

    async def put(self, external_id: str, **body: Any) -> httpx.Response:
        return await self.client.put(f"/v1/recipients/{external_id}", json=body)

    async def batch(self, items: Sequence[Mapping[str, Any]]) -> httpx.Response:
        return await self.client.post("/v1/notifications/batch", json={"notifications": items})

    async def rows(self, query: str, parameters: Sequence[Any] = ()) -> list[Row]:
        async with self.app.database.connection() as c:
            return await rows(c, query, parameters)

    async def execute(self, query: str, parameters: Sequence[Any] = ()) -> None:
        async with self.app.database.connection() as c:
            await c.execute(query, parameters)

    async def count(self, table: str) -> int:
        return (await self.rows(f"SELECT count(*) AS n FROM {table}"))[0]["n"]


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Api]:
    async with App.open(settings) as app:
        web = create_app(app)
        transport = httpx.ASGITransport(web)
        async with httpx.AsyncClient(transport=transport, base_url="http://notifier.test") as client:
            api = Api(app, web, client)
            client.headers.update(await api.key(*EVERYTHING))
            yield api
        await web.state.keys.close()


def settings_for(database_url: str, redis_url: str, **more: Any) -> Settings:
    return Settings(
        database_url=database_url,
        redis_url=redis_url,
        link_keys="l1:" + "l" * 32,
        hash_keys="h1:" + "h" * 32,
        **more,
    )


def a_body(**changes: Any) -> dict[str, Any]:
    body = {"template": "password-reset", "recipient": {"email": "ann@example.test"}, "data": RESET} | changes
    return {name: value for name, value in body.items() if value is not ...}


def an_item(**changes: Any) -> dict[str, Any]:
    return a_body(**{"idempotency_key": f"item-{next(_numbers)}"} | changes)


def once(key: str | None = None) -> dict[str, str]:
    return {"Idempotency-Key": key or f"key-{next(_numbers)}"}


def pointers(response: httpx.Response) -> list[str]:
    return [error["pointer"] for error in response.json()["errors"]]
