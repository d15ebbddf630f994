"""Tests of a campaign: real messages to people who are named, once per key, in the lane of their category."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from notifier.store import templates
from tests.servers.api import NEWS, Api, once, pointers
from tests.servers.campaigns import NOTICE, PATH, draft, edit, post, standing

pytestmark = pytest.mark.anyio

ANN = {"email": "ann@example.test"}
PRODUCT_NEWS = {
    "template": "product-news",
    "data": {
        "headline": "New lamps",
        "lead": "They glow.",
        "features": [{"title": "Bright", "text": "Very."}],
        "action": {"label": "Look", "url": "https://shop.test/lamps"},
    },
}


async def send(api: Api, id_: str, *people: dict[str, Any], key: str | None = None) -> httpx.Response:
    return await api.client.post(f"{PATH}/{id_}/test", json={"recipients": people}, headers=once(key))


async def test_those_who_are_named_get_a_message_marked_as_a_test(api: Api) -> None:
    await api.put("user-17", email="bob@example.test")
    id_ = await draft(api)
    sent = await send(api, id_, ANN, {"id": "user-17"})
    assert sent.status_code == 202
    assert "Consent" in sent.json()["note"]
    found = await api.rows(
        "SELECT m.id, m.campaign_id, m.is_test, m.state, m.lane, m.category, m.topic, m.step, m.notification_id,"
        " m.expires_at - m.due_at AS lives, t.key, a.address FROM messages m JOIN addresses a ON a.id = m.address_id"
        " JOIN template_versions t ON t.id = m.template_version ORDER BY m.id"
    )
    assert [str(row["id"]) for row in found] == [one["id"] for one in sent.json()["messages"]]
    assert [row["address"] for row in found] == ["ann@example.test", "bob@example.test"]
    for row in found:
        assert (str(row["campaign_id"]), row["is_test"], row["state"], row["key"]) == (
            id_,
            True,
            "queued",
            "newsletter",
        )
        assert (row["lane"], row["category"], row["topic"]) == ("marketing", "marketing", "newsletter")
        assert (row["step"], row["notification_id"]) == (0, None)
        assert row["lives"] == api.app.templates.find("newsletter").expires_after
    assert (await api.client.get(f"/v1/messages/{found[0]['id']}")).status_code == 200


async def test_a_test_of_a_notice_goes_in_the_transactional_lane(api: Api) -> None:
    await send(api, await draft(api, **NOTICE), ANN)
    assert [row["lane"] for row in await api.rows("SELECT lane FROM messages")] == ["transactional"]


async def test_it_may_be_tested_as_often_as_one_likes_and_once_per_key(api: Api) -> None:
    id_ = await draft(api)
    first = await asyncio.gather(*(send(api, id_, ANN, key="one") for _ in range(4)))
    assert len({answer.text for answer in first}) == 1
    assert await api.count("messages") == 1
    assert (await send(api, id_, ANN, key="two")).status_code == 202
    assert await api.count("messages") == 2
    assert (await send(api, id_, {"email": "bob@example.test"}, key="one")).status_code == 422


async def test_somebody_who_is_named_twice_gets_it_once(api: Api) -> None:
    await api.put("user-17", **ANN)
    assert len((await send(api, await draft(api), ANN, {"id": "user-17"})).json()["messages"]) == 1


async def test_it_goes_out_on_every_channel_that_reaches_them_at_once(api: Api) -> None:
    object.__setattr__(api.app.rehearse, "channels", frozenset({"email", "sms"}))
    object.__setattr__(api.app.campaigns, "channels", frozenset({"email", "sms"}))
    await api.put("user-17", **ANN, phone="+4930123456")
    sent = await send(api, await draft(api, **PRODUCT_NEWS), {"id": "user-17"})
    assert sorted(one["channel"] for one in sent.json()["messages"]) == ["email", "sms"]


async def test_attributes_make_up_for_the_data_or_it_is_said_before_anything_goes(api: Api) -> None:
    id_ = await draft(api, data={name: NEWS[name] for name in ("title", "published_on", "opening")})
    await api.put("user-17", **ANN, attributes={"stories": NEWS["stories"], "unknown": 1})
    await api.put("user-18", email="bob@example.test")
    refused = await send(api, id_, {"id": "user-17"}, {"id": "user-18"})
    assert (refused.status_code, pointers(refused)) == (422, ["/recipients/1"])
    assert "`/stories`" in refused.json()["errors"][0]["detail"]
    assert await api.count("messages") == 0
    assert (await send(api, id_, {"id": "user-17"})).status_code == 202


@pytest.mark.parametrize(
    ("people", "status", "pointer"),
    [
        ([{"id": "nobody"}], 422, "/recipients/0/id"),
        ([ANN, {"email": "nonsense"}], 422, "/recipients/1/email"),
        ([ANN, {}], 422, "/recipients/1"),
        ([ANN, {"phone": "+4930123456"}], 422, "/recipients/1"),
        ([{"id": "user-17", "email": "other@example.test"}], 409, "/recipients/0"),
        ([], 422, "/recipients"),
        ([ANN] * 21, 422, "/recipients"),
    ],
)
async def test_whoever_cannot_be_reached_is_named_by_place(api: Api, people, status, pointer) -> None:
    await api.put("user-17", email="bob@example.test")
    id_ = await draft(api)
    refused = await send(api, id_, *people)
    assert (refused.status_code, pointers(refused)) == (status, [pointer]), refused.text
    assert await api.count("messages") == 0


@pytest.mark.parametrize("state", ["draft", "scheduled", "sending", "paused"])
async def test_it_can_be_tested_until_it_is_over(api: Api, state) -> None:
    assert (await send(api, await standing(api, state), ANN)).status_code == 202


@pytest.mark.parametrize("state", ["finished", "cancelled"])
async def test_what_is_over_is_not_tested(api: Api, state) -> None:
    refused = await send(api, await standing(api, state), ANN)
    assert (refused.status_code, f"`{state}`" in refused.json()["detail"]) == (409, True)


async def test_what_is_pinned_is_tested(api: Api) -> None:
    id_ = await standing(api, "scheduled")
    [pinned] = await api.rows("SELECT template_version FROM campaigns")
    await api.execute("UPDATE template_versions SET hash = 'as it was before'")
    async with api.app.database.connection() as c:
        current = await templates.register(c, api.app.templates.find("newsletter"))
    await send(api, id_, ANN)
    other = await draft(api)
    await send(api, other, ANN)
    versions = [row["template_version"] for row in await api.rows("SELECT template_version FROM messages ORDER BY id")]
    assert versions == [pinned["template_version"], current]


async def test_tests_that_wait_end_with_their_campaign(api: Api) -> None:
    id_ = await draft(api)
    await edit(api, id_, name="x")
    await send(api, id_, ANN)
    await post(api, id_, "cancel")
    assert [row["reason"] for row in await api.rows("SELECT reason FROM messages")] == ["campaign_cancelled"]
