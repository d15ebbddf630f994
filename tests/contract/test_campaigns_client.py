"""The client's campaigns against the real application: both clients ask the same and read the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from notifier.client import AsyncNotifier, Notifier, Refused
from tests.servers.api import NEWS, Api
from tests.servers.campaigns import PLAN, foresee

pytestmark = pytest.mark.anyio


class Sync:
    """The client for ordinary code in a thread of its own, each call awaited."""

    def __init__(self, api: Api) -> None:
        loop = asyncio.get_running_loop()

        def carry(request: httpx.Request) -> httpx.Response:
            asked = api.client.request(
                request.method, str(request.url), content=request.content, headers=dict(request.headers)
            )
            answer = asyncio.run_coroutine_threadsafe(asked, loop).result()
            return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

        key = api.client.headers["Authorization"].removeprefix("Bearer ")
        self.notifier = Notifier("http://notifier.test", key, tries=1, transport=httpx.MockTransport(carry))

    async def do(self, name: str, *said: Any, **more: Any) -> Any:
        return await asyncio.to_thread(getattr(self.notifier.campaigns, name), *said, **more)

    async def all(self, *said: Any) -> list[Any]:
        return await asyncio.to_thread(lambda: list(self.notifier.campaigns.list(*said)))

    async def close(self) -> None:
        self.notifier.close()


class Async:
    """The client for asyncio."""

    def __init__(self, api: Api) -> None:
        key = api.client.headers["Authorization"].removeprefix("Bearer ")
        transport = httpx.ASGITransport(api.web)
        self.notifier = AsyncNotifier("http://notifier.test", key, tries=1, transport=transport)

    async def do(self, name: str, *said: Any, **more: Any) -> Any:
        return await getattr(self.notifier.campaigns, name)(*said, **more)

    async def all(self, *said: Any) -> list[Any]:
        return [one async for one in self.notifier.campaigns.list(*said)]

    async def close(self) -> None:
        await self.notifier.close()


@pytest.fixture(params=[Sync, Async])
async def client(api: Api, request: pytest.FixtureRequest) -> AsyncIterator[Sync | Async]:
    one = request.param(api)
    yield one
    await one.close()


async def test_a_campaign_goes_its_whole_way(api: Api, client: Sync | Async) -> None:
    when = (datetime.now(UTC) + timedelta(days=1)).replace(microsecond=0)
    said = {"template": "newsletter", "data": NEWS, "schedule": {"at": when}, "idempotency_key": "december"}
    made = await client.do("create", "December", **said)
    assert (made.state, made.data, made.schedule["at"]) == ("draft", NEWS, when.isoformat().replace("+00:00", "Z"))
    assert await client.do("create", "December", **said) == made
    edited = await client.do("edit", made.id, rate=4.5)
    assert (edited.rate, edited.revision) == (4.5, 2)
    asked = await client.do("preview", made.id)
    assert (await client.do("plan", made.id)).id == asked
    hash_ = await foresee(api, str(made.id))
    plan = await client.do("plan", made.id)
    assert plan.plan is not None
    assert (plan.plan.items() >= PLAN.items(), plan.hash, plan.problem) == (True, hash_, None)
    assert (await client.do("schedule", made.id, plan=hash_)).state == "scheduled"
    assert (await client.do("unschedule", made.id)).state == "draft"
    await client.do("schedule", made.id, plan=hash_)
    await api.execute("UPDATE campaigns SET state = 'sending'")
    assert (await client.do("pause", made.id, why="Wrong price")).pause_reason == "Wrong price"
    assert (await client.do("resume", made.id)).pause_reason is None
    assert (await client.do("pause", made.id)).pause_reason == "asked"
    assert (await client.do("cancel", made.id)).state == "cancelled"
    assert (await client.do("get", made.id)).ended_at
    with pytest.raises(Refused, match="`cancelled`"):
        await client.do("resume", made.id)


async def test_tests_go_once_per_key(api: Api, client: Sync | Async) -> None:
    made = await client.do("create", "December", template="newsletter", data=NEWS)
    sent = [
        await client.do("test", made.id, to=[{"email": "ann@example.test"}], idempotency_key=key)
        for key in ("one", "one", "two")
    ]
    assert "Consent" in sent[0].note
    assert [one.messages[0].channel for one in sent] == ["email"] * 3
    assert sent[0] == sent[1] != sent[2]
    assert await api.count("messages") == 2


async def test_the_list_goes_on_to_its_end(api: Api, client: Sync | Async, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("notifier.client.calls.CAMPAIGNS_AT_ONCE", 2)
    made = [await client.do("create", f"n{n}", template="newsletter", data=NEWS) for n in range(5)]
    await client.do("cancel", made[0].id)
    assert [one.name for one in await client.all()] == ["n4", "n3", "n2", "n1", "n0"]
    assert [one.name for one in await client.all("cancelled")] == ["n0"]
