"""Devices: registered again and again, moved, removed, and forgotten; each has one owner at a time."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

import psycopg
import pytest

from notifier.domain.access import Scope
from notifier.domain.consent import SuppressionReason
from notifier.domain.devices import MOST
from notifier.domain.recipients import Hasher
from notifier.store import devices, recipients, suppressions
from notifier.store.suppressions import NewSuppression
from notifier_channels.addresses import Device, DeviceKind
from notifier_channels.contract import Channel
from tests.servers.api import Api, pointers
from tests.world import new_id

pytestmark = pytest.mark.anyio

FID = "cKJ3yYTfS0mG1aBcDeFgHi"
TOKEN = "cKJ3yYTfS0mG1aBcDeFgHi:APA91b" + "x" * 120


def fid(n: int = 0) -> str:
    return f"{FID[:-3]}{n:03}"


async def register(api: Api, owner: str = "ann", **body):
    said = {"platform": "android"} | (body if {"fid", "token"} & body.keys() else body | {"fid": FID})
    return await api.client.post(f"/v1/recipients/{owner}/devices", json=said)


async def listed(api: Api, owner: str = "ann") -> list[dict]:
    return (await api.client.get(f"/v1/recipients/{owner}/devices")).json()["devices"]


async def remove(api: Api, id_: str | UUID, owner: str = "ann") -> int:
    return (await api.client.delete(f"/v1/recipients/{owner}/devices/{id_}")).status_code


@pytest.fixture
async def people(api: Api) -> None:
    for name in ("ann", "bob"):
        await api.put(name, email=f"{name}@example.test")


pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("people")]


# Register -------------------------------------------------------------------------------------------------------------


async def test_a_device_is_kept_and_what_reaches_it_is_never_answered(api: Api) -> None:
    made = await register(api, token=TOKEN, platform="ios", name="Ann's phone")
    assert made.status_code == 201
    answer = made.json()
    assert (answer["platform"], answer["kind"], answer["name"]) == ("ios", "token", "Ann's phone")
    assert answer["registered_at"] <= answer["refreshed_at"]
    assert await listed(api) == [answer]
    assert TOKEN not in made.text
    [row] = await api.rows("SELECT channel, address FROM addresses WHERE id = %s", [answer["id"]])
    assert (row["channel"], row["address"]) == ("push", f"token:{TOKEN}")


async def test_the_same_device_again_is_refreshed_with_its_new_name_and_platform(api: Api) -> None:
    first = (await register(api, name="old", platform="android")).json()
    again = await register(api, name="new", platform="web")
    assert again.status_code == 200
    second = again.json()
    assert (second["id"], second["registered_at"]) == (first["id"], first["registered_at"])
    assert second["refreshed_at"] > first["refreshed_at"]
    assert (second["name"], second["platform"]) == ("new", "web")
    assert (await register(api)).json()["name"] is None
    assert len(await listed(api)) == 1


async def test_a_device_that_somebody_else_holds_moves_and_what_waits_for_the_old_owner_stays_with_the_old_row(
    api: Api,
) -> None:
    of_ann = (await register(api, "ann")).json()
    moved = await register(api, "bob")
    assert moved.status_code == 201
    assert moved.json()["id"] != of_ann["id"]
    assert (await listed(api, "ann"), len(await listed(api, "bob"))) == ([], 1)
    [old] = await api.rows("SELECT removed_at FROM addresses WHERE id = %s", [of_ann["id"]])
    assert old["removed_at"] is not None


async def test_a_device_hashed_under_an_old_key_is_the_same_device(api: Api) -> None:
    first = (await register(api)).json()
    object.__setattr__(api.app.devices, "hasher", Hasher({"new": b"n" * 32, "h1": b"h" * 32}))
    assert (await register(api)).json()["id"] == first["id"]


async def test_registering_proves_life_and_lifts_no_other_suppression(api: Api) -> None:
    hashed = api.app.hasher.current(Device(DeviceKind.FID, FID))
    reasons = (SuppressionReason.DEAD_DEVICE, SuppressionReason.MANUAL)

    async def block(c) -> None:
        await suppressions.add(c, [NewSuppression(Channel.PUSH, hashed, reason) for reason in reasons])

    await api.app.database.transact(block)
    await register(api)
    left = await api.rows("SELECT reason, lifted_why FROM suppressions ORDER BY number")
    assert [(row["reason"], row["lifted_why"]) for row in left] == [
        ("dead_device", "registered again"),
        ("manual", None),
    ]


async def test_a_dead_device_that_is_registered_again_is_held_again(api: Api) -> None:
    first = (await register(api)).json()
    hashed = api.app.hasher.current(Device(DeviceKind.FID, FID))
    await api.app.database.transact(lambda c: devices.remove_dead(c, [hashed.digest]))
    assert await listed(api) == []
    again = await register(api)
    assert again.status_code == 201
    assert again.json()["id"] != first["id"]


async def test_of_more_than_fifty_the_one_refreshed_longest_ago_goes(api: Api) -> None:
    for n in range(MOST):
        await register(api, fid=fid(n))
    await register(api, fid=fid(0))  # the oldest is refreshed
    await register(api, fid=fid(MOST))
    held = await api.rows("SELECT address FROM addresses WHERE channel = 'push' AND removed_at IS NULL")
    assert {row["address"] for row in held} == {f"fid:{fid(n)}" for n in range(MOST + 1) if n != 1}
    assert await api.count("devices") == MOST


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"platform": "ios"}, ""),
        ({"platform": "ios", "fid": FID, "token": TOKEN}, "/token"),
        ({"platform": "ios", "fid": "short"}, "/fid"),
        ({"platform": "ios", "token": "not a token at all, with blanks in it"}, "/token"),
        ({"platform": "ios", "token": "x" * 4097}, "/token"),
        ({"fid": FID}, "/platform"),
        ({"platform": "fridge", "fid": FID}, "/platform"),
        ({"platform": "ios", "fid": FID, "name": ""}, "/name"),
        ({"platform": "ios", "fid": FID, "owner": "bob"}, "/owner"),
    ],
)
async def test_each_refusal_names_its_field_and_repeats_no_value(api: Api, body, pointer) -> None:
    response = await api.client.post("/v1/recipients/ann/devices", json=body)
    assert response.status_code == 422
    assert pointers(response) == [pointer]
    assert not any(value in response.text for value in (FID, TOKEN, "short", "blanks"))
    assert await api.count("devices") == 0


async def test_an_unknown_recipient_is_told_to_be_put_first(api: Api) -> None:
    response = await register(api, "nobody")
    assert response.status_code == 404
    assert "PUT /v1/recipients/{id} first" in response.json()["detail"]
    assert (await api.client.get("/v1/recipients/nobody/devices")).status_code == 404
    assert await remove(api, uuid4(), "nobody") == 404


@pytest.mark.parametrize(("scope", "statuses"), [(Scope.READ, (403, 200, 403)), (Scope.RECIPIENTS, (201, 200, 204))])
async def test_writing_needs_recipients_and_listing_may_read(api: Api, scope, statuses) -> None:
    held = (await register(api, fid=fid(9))).json()["id"]
    headers, path = await api.key(scope), "/v1/recipients/ann/devices"
    written = await api.client.post(path, json={"fid": FID, "platform": "web"}, headers=headers)
    seen = await api.client.get(path, headers=headers)
    removed = await api.client.delete(f"{path}/{held}", headers=headers)
    assert (written.status_code, seen.status_code, removed.status_code) == statuses


# Remove ---------------------------------------------------------------------------------------------------------------


async def test_a_removed_device_is_gone_and_removing_it_again_changes_nothing(api: Api) -> None:
    kept, gone = (await register(api, fid=fid(1))).json(), (await register(api, fid=fid(2))).json()
    assert [await remove(api, gone["id"]), await remove(api, gone["id"])] == [204, 204]
    assert await listed(api) == [kept]
    assert await api.count("devices") == 1


async def test_what_is_no_device_of_this_person_is_not_found_and_stays(api: Api) -> None:
    of_ann = (await register(api)).json()
    [mail] = await api.rows("SELECT id FROM addresses WHERE address = 'ann@example.test'")
    assert await remove(api, of_ann["id"], "bob") == 404
    assert await remove(api, mail["id"]) == 404
    assert await remove(api, uuid4()) == 404
    assert await api.rows("SELECT 1 FROM addresses WHERE removed_at IS NOT NULL") == []


async def test_devices_of_which_nothing_was_heard_for_270_days_are_forgotten_batch_by_batch(
    api: Api, monkeypatch
) -> None:
    monkeypatch.setattr("notifier.dispatch.sweep.BATCH", 2)
    held = [(await register(api, "ann" if n % 2 else "bob", fid=fid(n))).json()["id"] for n in range(6)]
    days = "UPDATE devices SET refreshed_at = now() - interval '270 days' {} WHERE address_id = ANY(%s::uuid[])"
    await api.execute(days.format("- interval '1 minute'"), [held[:5]])
    await api.execute(days.format("+ interval '1 minute'"), [held[5:]])
    await api.app.sweep.forget()
    left = await api.rows("SELECT id FROM addresses WHERE channel = 'push' AND removed_at IS NULL")
    assert [str(row["id"]) for row in left] == held[5:]
    assert await api.count("devices") == 1


async def test_a_device_that_is_refreshed_while_it_is_being_forgotten_stays(api: Api) -> None:
    held = UUID((await register(api)).json()["id"])
    await api.execute("UPDATE devices SET refreshed_at = now() - interval '271 days'")

    async def forget(c) -> None:
        found = await devices.stale(c, timedelta(days=270), 10)
        assert list(found) == [held]
        await register(api)  # the person is not locked yet
        await recipients.lock(c, list(found.values()))
        await devices.remove_stale(c, list(found), timedelta(days=270))

    await api.app.database.transact(forget)
    assert [one["id"] for one in await listed(api)] == [str(held)]


# At once --------------------------------------------------------------------------------------------------------------


async def test_two_people_who_register_one_device_at_once_leave_it_with_one_of_them(api: Api) -> None:
    for n in range(10):
        answers = await asyncio.gather(*(register(api, owner, fid=fid(n)) for owner in ("ann", "bob") * 3))
        assert {answer.status_code for answer in answers} <= {200, 201}
    assert len(await listed(api, "ann")) + len(await listed(api, "bob")) == 10
    [held] = await api.rows("SELECT count(*) AS n FROM addresses WHERE channel = 'push' AND removed_at IS NULL")
    assert held["n"] == 10


async def test_one_person_who_registers_one_device_many_times_at_once_has_it_once(api: Api) -> None:
    answers = await asyncio.gather(*(register(api) for _ in range(12)))
    assert sorted(answer.status_code for answer in answers) == [200] * 11 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1


async def test_a_device_moves_after_the_gate_that_holds_its_owner(api: Api) -> None:
    """What is decided under the lock stands: the move waits, and the next gate sees it."""
    of_ann = (await register(api)).json()["id"]
    [ann] = await api.rows("SELECT id FROM recipients WHERE external_id = 'ann'")
    async with await psycopg.AsyncConnection.connect(api.app.database.url) as gate:
        await recipients.lock(gate, [ann["id"]])
        moving = asyncio.create_task(register(api, "bob"))
        await _until_somebody_waits(api)
        [held] = await api.rows("SELECT removed_at FROM addresses WHERE id = %s", [of_ann])
        assert held["removed_at"] is None
    assert (await moving).status_code == 201
    assert await listed(api, "ann") == []


async def test_a_device_that_moves_while_a_registration_waits_is_taken_from_its_new_owner_under_their_lock(
    api: Api,
) -> None:
    await api.put("cleo", email="cleo@example.test")
    await register(api, "ann")
    owners = {row["external_id"]: row["id"] for row in await api.rows("SELECT id, external_id FROM recipients")}
    device, hashed = Device(DeviceKind.FID, FID), api.app.hasher.current(Device(DeviceKind.FID, FID))
    of_cleo = devices.NewDevice(new_id(), owners["cleo"], device, hashed, devices.Platform.WEB)
    async with await psycopg.AsyncConnection.connect(api.app.database.url) as gate:
        await recipients.lock(gate, [owners["cleo"]])
        async with await psycopg.AsyncConnection.connect(api.app.database.url) as first:
            await recipients.lock(first, [owners["ann"]])
            moving = asyncio.create_task(register(api, "bob"))
            await _until_somebody_waits(api)
            await devices.remove_dead(first, [hashed.digest])
            await devices.add(first, of_cleo)
        await asyncio.wait([moving, asyncio.create_task(_until_somebody_waits(api))], return_when="FIRST_COMPLETED")
        assert not moving.done()
    assert (await moving).status_code == 201
    assert [len(await listed(api, name)) for name in ("ann", "bob", "cleo")] == [0, 1, 0]


async def _until_somebody_waits(api: Api) -> None:
    waiting = (
        "SELECT count(*) AS n FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    for _ in range(500):
        if (await api.rows(waiting))[0]["n"]:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("nobody waits")


# Adoption -------------------------------------------------------------------------------------------------------------


async def test_all_devices_of_a_nameless_recipient_go_to_the_adopter(api: Api) -> None:
    await api.send(recipient={"email": "ann@new.test"})
    [nameless] = await api.rows("SELECT id FROM recipients WHERE external_id IS NULL")

    async def give(c) -> None:
        for n in (1, 2):
            device = Device(DeviceKind.FID, fid(n))
            hashed = api.app.hasher.current(device)
            await devices.add(c, devices.NewDevice(new_id(), nameless["id"], device, hashed, devices.Platform.WEB))

    await api.app.database.transact(give)
    own = (await register(api, fid=fid(3))).json()
    assert (await api.put("ann", email="ann@new.test")).status_code == 200
    assert len(held := await listed(api)) == 3
    assert own in held
