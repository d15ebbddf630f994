"""Operators block, look up and lift; no address leaves, and what is not theirs to lift says why."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from notifier.domain.access import Scope
from notifier.domain.consent import SuppressionReason
from notifier.domain.messages import Category, Lane
from notifier.domain.recipients import Hasher
from notifier.store import suppressions
from notifier.store.suppressions import NewSuppression
from notifier_channels.addresses import EmailAddress, PhoneNumber
from notifier_channels.contract import Channel
from tests.servers.api import Api, pointers
from tests.world import MANDATORY, MARKETING, Scripted, World

pytestmark = pytest.mark.anyio

ANN = {"channel": "email", "address": "Ann@Example.test"}
PATH = "/v1/suppressions"


async def block(api: Api, **changes: Any):
    return await api.client.post(PATH, json=ANN | {"why": "Letter of 3 May"} | changes)


async def look_up(api: Api, **changes: Any):
    return await api.client.post(f"{PATH}/lookup", json=ANN | changes)


async def lift(api: Api, number: int, **changes: Any):
    return await api.client.post(f"{PATH}/{number}/lift", json={"why": "Asked again"} | changes)


async def suppress(api: Api, reason: SuppressionReason, evidence: dict[str, Any] | None = None) -> int:
    hashed = api.app.hasher.current(EmailAddress("ann", "example.test"))
    async with api.app.database.connection() as c:
        return (await suppressions.add(c, [NewSuppression(Channel.EMAIL, hashed, reason, evidence or {})]))[0]


async def test_an_address_is_blocked_found_and_lifted(api: Api) -> None:
    assert (await look_up(api)).json() == {"is_suppressed": False, "suppressions": []}
    added = await block(api)
    assert added.status_code == 201
    made = added.json()
    assert (made["reason"], made["blocks"], made["evidence"]["why"]) == ("manual", "all", "Letter of 3 May")
    assert made["evidence"]["by"].startswith("key:")
    found = (await look_up(api, address="ann@example.test")).json()
    assert (found["is_suppressed"], found["suppressions"]) == (True, [made])
    lifted = (await lift(api, made["number"])).json()
    assert lifted["lifted_why"].startswith("Asked again (key:")
    assert (await look_up(api)).json() == {"is_suppressed": False, "suppressions": [lifted]}
    again = await lift(api, made["number"])
    assert (again.status_code, again.json()["type"]) == (409, "urn:notifier:problem:conflict")


async def test_a_wider_block_takes_the_place_of_a_narrower_one_and_not_the_other_way_round(api: Api) -> None:
    narrow = (await block(api, blocks="marketing")).json()
    assert (await block(api, blocks="marketing")).status_code == 409
    wide = (await block(api, blocks="all")).json()
    assert (await block(api, blocks="marketing")).status_code == (await block(api)).status_code == 409
    found = (await look_up(api)).json()["suppressions"]
    assert [(one["number"], one["blocks"], one["lifted_at"] is None) for one in found] == [
        (narrow["number"], "marketing", False),
        (wide["number"], "all", True),
    ]


async def test_of_two_operators_who_block_what_nobody_holds_one_was_first(api: Api) -> None:
    async with api.app.database.connection() as c:
        async with c.transaction():
            first = await api.app.block.add(
                c, Channel.EMAIL, EmailAddress("ann", "example.test"), only=None, why="Letter", by="operator"
            )
            second = asyncio.create_task(block(api))
            while not await api.rows("SELECT 1 FROM pg_locks WHERE NOT granted"):  # ends with the test
                await asyncio.sleep(0.01)
        answer = await second
    assert answer.status_code == 409
    assert f"number {first.number}" in answer.json()["detail"]


@pytest.mark.parametrize("reason", [SuppressionReason.STOP, SuppressionReason.ERASED])
async def test_what_only_its_owner_may_end_is_lifted_by_those_who_repeat_it(api: Api, reason) -> None:
    number = await suppress(api, reason)
    for despite in (None, "hard_bounce"):
        answer = await lift(api, number, despite=despite)
        assert answer.status_code == 409
        assert "owner" in answer.json()["detail"]
    assert (await look_up(api)).json()["is_suppressed"]
    assert (await lift(api, number, despite=str(reason))).status_code == 200
    assert not (await look_up(api)).json()["is_suppressed"]


@pytest.mark.parametrize("reason", ["hard_bounce", "complaint", "dead_device", "manual"])
async def test_everything_else_is_lifted_with_a_reason(api: Api, reason) -> None:
    assert (await lift(api, await suppress(api, SuppressionReason(reason)))).status_code == 200


async def test_the_list_is_read_page_by_page_without_an_address_or_a_hash(api: Api) -> None:
    phone = api.app.hasher.current(PhoneNumber("+4930123456"))
    evidence = {"wording": "stop it, ann@example.test", "code": "21610", "provider": "twilio", "email": "a@b.test"}
    async with api.app.database.connection() as c:
        await suppressions.add(c, [NewSuppression(Channel.SMS, phone, SuppressionReason.STOP, evidence)])
        for n in range(4):
            hashed = api.app.hasher.current(EmailAddress(f"u{n}", "example.test"))
            await suppressions.add(c, [NewSuppression(Channel.EMAIL, hashed, SuppressionReason.HARD_BOUNCE)])
    seen, before = [], None
    while True:
        query = {"limit": 2} | ({"before": before} if before else {})
        page = (await api.client.get(PATH, params=query)).json()
        seen += page["suppressions"]
        if (before := page["next"]) is None:
            break
    numbers = [one["number"] for one in seen]
    assert len(numbers) == 5
    assert numbers == sorted(numbers, reverse=True)
    assert seen[-1]["evidence"] == {"code": "21610", "provider": "twilio"}
    assert {key for one in seen for key in one} == {
        "number", "channel", "reason", "blocks", "evidence", "created_at", "lifted_at", "lifted_why",
    }  # fmt: skip
    only = (await api.client.get(PATH, params={"reason": "stop", "channel": "sms"})).json()
    assert [one["number"] for one in only["suppressions"]] == [numbers[-1]]
    await lift(api, numbers[0])
    assert len((await api.client.get(PATH)).json()["suppressions"]) == 4
    assert len((await api.client.get(PATH, params={"lifted": "true"})).json()["suppressions"]) == 5


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        ("", {"address": "nonsense"}, "/address"),
        ("", {"channel": "sms", "address": "030 12"}, "/address"),
        ("", {"channel": "push"}, "/channel"),
        ("", {"blocks": "transactional"}, "/blocks"),
        ("", {"why": ""}, "/why"),
        ("", {"why": None}, "/why"),
        ("/lookup", {"address": "nonsense", "why": ...}, "/address"),
        ("/lookup", {}, "/why"),
        ("/1/lift", {"channel": ..., "address": ..., "despite": "weather"}, "/despite"),
        ("/1/lift", {"channel": ..., "address": ..., "why": ""}, "/why"),
    ],
)
async def test_each_refusal_names_its_field_and_repeats_no_address(api: Api, path, body, pointer) -> None:
    whole = {name: value for name, value in (ANN | {"why": "w"} | body).items() if value is not ...}
    answer = await api.client.post(PATH + path, json=whole)
    assert (answer.status_code, pointers(answer)) == (422, [pointer])
    assert "example.test" not in answer.text
    assert await api.count("suppressions") == 0


async def test_what_is_not_there_is_not_lifted(api: Api) -> None:
    assert (await lift(api, 4711)).status_code == 404
    assert (await lift(api, 2**63)).status_code == 422


@pytest.mark.parametrize(
    ("scopes", "reads", "writes"),
    [([Scope.READ], 200, 403), ([Scope.ADMIN], 200, 201), ([Scope.PREFERENCES, Scope.RECIPIENTS], 403, 403)],
)
async def test_reading_and_changing_need_their_scopes(api: Api, scopes, reads, writes) -> None:
    number = await suppress(api, SuppressionReason.COMPLAINT)
    api.client.headers.update(await api.key(*scopes))
    assert (await api.client.get(PATH)).status_code == (await look_up(api)).status_code == reads
    assert (await block(api)).status_code == writes
    assert (await lift(api, number)).status_code == (200 if writes == 201 else 403)


async def test_what_was_blocked_under_an_old_key_is_found_after_a_rotation(api: Api) -> None:
    made = (await block(api)).json()
    rotated = Hasher({"h2": b"another key for the hashes, 32 bytes", **api.app.hasher._keys})
    object.__setattr__(api.app.block, "hasher", rotated)
    assert (await look_up(api)).json()["suppressions"] == [made]
    assert (await block(api)).status_code == 409


@pytest.mark.parametrize(
    ("only", "category", "sent"),
    [(Category.MARKETING, MARKETING, 0), (Category.MARKETING, MANDATORY, 1), (None, MANDATORY, 0)],
)
async def test_a_block_of_marketing_lets_the_rest_go(database, tmp_path, only, category, sent) -> None:
    world = World(database, tmp_path / "journals")
    [person] = await world.people(1)
    hashed = world.hasher.current(EmailAddress("person-0", "example.test"))
    new = NewSuppression(Channel.EMAIL, hashed, SuppressionReason.MANUAL, only=only)
    async with database.connection() as c:
        await suppressions.add(c, [new])
    lane = Lane.MARKETING if category == MARKETING else Lane.TRANSACTIONAL
    [message] = await world.queue([person], category)
    provider = Scripted()
    async with world.worker(provider, lane) as deliver:
        await deliver(())
    assert len(provider.sent) == sent
    [(state, reason)] = await world.states([message])
    assert (state, reason) == (("accepted", None) if sent else ("suppressed", "suppressed_address:manual"))
