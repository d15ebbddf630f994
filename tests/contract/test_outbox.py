"""What happened is told exactly once, when and if it commits, in one order, and to whoever polls without a gap."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from notifier.client import AsyncNotifier, Notifier, Refused
from notifier.dispatch.devices import Devices, Registration
from notifier.dispatch.feedback import Feedback
from notifier.domain.access import Scope
from notifier.domain.events import EventType, Position
from notifier.domain.messages import Lane
from notifier.store import devices, outbox, recipients
from notifier.store.consent import NewEvent, record
from notifier.store.database import Database
from notifier_channels.addresses import Device, DeviceKind, Platform
from notifier_channels.contract import (
    Ambiguous,
    DeliveryEvent,
    EventKind,
    Rejected,
)
from tests.world import MARKETING, TRANSACTIONAL, Scripted, World

pytestmark = pytest.mark.anyio

ALL = frozenset(EventType)
START = Position()


@pytest.fixture
def world(database, tmp_path) -> World:
    return World(database, tmp_path)


async def told(world: World, after: Position = START, types=ALL, limit: int = 500):
    async with world.database.connection() as c:
        return (await outbox.read(c, after, types, limit)).events


async def kinds(world: World) -> list[str]:
    return [str(event.type) for event in await told(world)]


async def deliver(world: World, lane: Lane = Lane.MARKETING, script=None) -> None:
    async with world.worker(Scripted(script) if script else Scripted(), lane) as work:
        await work()


# What is told ---------------------------------------------------------------------------------------------------------


async def test_a_message_is_told_from_accepted_to_complained(world):
    [person] = await world.people(1)
    [message] = await world.queue([person], MARKETING)
    await deliver(world)
    feedback = Feedback(world.database, world.hasher, world.templates.topics)
    now = datetime.now(UTC)
    await feedback([DeliveryEvent(message, EventKind.DELIVERED, "scripted", "r1", now)])
    await feedback([DeliveryEvent(message, EventKind.DELIVERED, "scripted", "r1", now)])
    await feedback([DeliveryEvent(message, EventKind.COMPLAINED, "scripted", "r2", now)])
    assert await kinds(world) == [
        "message.accepted", "message.delivered", "message.complained", "preference.updated"
    ]  # fmt: skip
    first, _, complaint, no = await told(world)
    assert first.data == {
        "message": str(message),
        "notification": str(message),
        "recipient": str(person),
        "channel": "email",
        "topic": "product-news",
        "reason": None,
    }
    assert complaint.data["reason"] == "complained"
    assert no.data == {
        "recipient": str(person),
        "scope": "marketing",
        "channel": "email",
        "granted": False,
        "source": "complaint",
        "number": await world.one("SELECT max(number) FROM consent_events"),
        "occurred_at": no.data["occurred_at"],
    }


async def test_a_message_that_is_not_sent_is_told_with_its_reason(world):
    refused, late, dropped, broken, doubted = await world.people(5)
    await world.withdraw([refused])
    await world.queue([refused], MARKETING)
    await world.queue([late], MARKETING, expires=timedelta(0))
    await world.queue([dropped], MARKETING, due=60)
    await world.withdraw_and_cancel([dropped], "marketing", "any")
    await deliver(world)
    await world.queue([broken], MARKETING)
    await deliver(world, script=lambda _message, _witness: Rejected("550 5.6.0"))
    await world.queue([doubted], MARKETING)

    def lose(message, witness):
        witness.about_to_commit(message.id)
        return Ambiguous("closed")

    await deliver(world, script=lose)
    said = {event.data["recipient"]: (str(event.type), event.data["reason"]) for event in await told(world, types={
        one for one in EventType if one.startswith("message.")})}  # fmt: skip
    assert said == {
        str(refused): ("message.suppressed", "withdrawn:marketing/any"),
        str(late): ("message.expired", "expired"),
        str(dropped): ("message.cancelled", "withdrawn:marketing/any"),
        str(broken): ("message.failed", "rejected:550 5.6.0"),
        str(doubted): ("message.unknown", "in_doubt:closed"),
    }


async def test_what_an_operator_changes_by_hand_is_told_as_well(world):
    await world.queue(await world.people(1), MARKETING)
    await world.execute("UPDATE messages SET state = 'cancelled', reason = 'stopped_by_operator', due_at = NULL")
    assert await kinds(world) == ["message.cancelled"]


async def test_waiting_claiming_and_trying_again_tell_nothing(world):
    from notifier_channels.contract import Unavailable

    await world.queue(await world.people(2), TRANSACTIONAL)
    await deliver(world, Lane.TRANSACTIONAL, lambda _message, _witness: Unavailable("451"))
    assert await kinds(world) == []


async def test_every_line_of_the_ledger_is_told_in_its_order(world):
    [person] = await world.people(1)

    async def work(c):
        await recipients.lock(c, [person])
        old = datetime(2020, 1, 1, tzinfo=UTC)
        grant = NewEvent(person, "topic:product-news", "email", granted=True, source="import", occurred_at=old)
        return await record(c, [grant, NewEvent(person, "all", "any", granted=False, source="admin")])

    numbers = await world.database.transact(work)
    said = await told(world)
    assert [(one.data["number"], one.data["granted"], one.data["source"]) for one in said] == [
        (numbers[0], True, "import"),
        (numbers[1], False, "admin"),
    ]
    assert said[0].data["occurred_at"] == "2020-01-01T00:00:00Z"
    assert said[0].told_at.year > 2020
    async with world.database.connection() as c:
        assert await outbox.forget(c, 100) == 0  # what happened long ago has been told only now


async def test_a_device_that_is_gone_is_told_with_the_cause(world):
    ann, bob = await world.people(2)
    keeper = Devices(world.database, world.hasher)
    said = Registration(Device(DeviceKind.FID, "device-000000000000001"), Platform.IOS)
    first = await keeper.register(str(ann), said)
    await keeper.register(str(ann), said)
    assert await kinds(world) == []
    second = await keeper.register(str(bob), said)
    await keeper.remove(str(bob), second.device.id)
    await keeper.remove(str(bob), second.device.id)
    [stale] = await world.devices([ann])
    await world.execute("UPDATE devices SET refreshed_at = now() - interval '400 days' WHERE address_id = %s", stale)
    [dead] = await world.devices([ann])
    async with world.database.connection() as c:
        await devices.remove_stale(c, [stale, dead], timedelta(days=270))
        row = await (await c.execute("SELECT address_hash FROM addresses WHERE id = %s", (dead,))).fetchone()
        await devices.remove_dead(c, [row[0]])
    assert [event.data for event in await told(world)] == [
        {"device": str(first.device.id), "recipient": str(ann), "reason": "moved"},
        {"device": str(second.device.id), "recipient": str(bob), "reason": "asked"},
        {"device": str(stale), "recipient": str(ann), "reason": "stale"},
        {"device": str(dead), "recipient": str(ann), "reason": "dead"},
    ]


async def test_an_adopted_person_goes_by_the_id_of_today(world):
    ann, nameless = await world.people(2)
    await world.withdraw([nameless])
    await world.execute("UPDATE recipients SET external_id = NULL, merged_into = %s WHERE id = %s", ann, nameless)
    [event] = await told(world)
    assert event.data["recipient"] == str(ann)


# Exactly with the commit ----------------------------------------------------------------------------------------------


async def test_what_is_rolled_back_is_not_told(world):
    [person] = await world.people(1)

    async def work(c):
        await recipients.lock(c, [person])
        await record(c, [NewEvent(person, "all", "any", granted=False, source="api")])
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await world.database.transact(work)
    assert await kinds(world) == []


async def test_switched_off_nothing_is_written(world, database_url):
    quiet = Database(database_url, writes_events=False)
    await quiet.open()
    try:
        silent = World(quiet, world.journals)
        [person, device_owner] = await silent.people(2)
        await silent.queue([person], MARKETING)
        await deliver(silent)
        await silent.withdraw([person])
        async with quiet.connection() as c:
            [device] = await silent.devices([device_owner])
            await devices.remove(c, [device], "asked")
        assert await silent.one("SELECT count(*) FROM outbox") == 0
        assert await silent.one("SELECT count(*) FROM consent_events") == 1
        lock = await quiet.connect()
        async with lock:
            assert not (await (await lock.execute("SELECT events_are_written()")).fetchone())[0]
    finally:
        await quiet.close()


# In one order, without gaps -------------------------------------------------------------------------------------------


async def test_what_commits_late_is_not_skipped_by_a_reader_who_came_in_between(world, database_url):
    ann, bob = await world.people(2)
    insert = "INSERT INTO outbox (type, recipient_id) VALUES ('message.failed', %s)"
    async with await psycopg.AsyncConnection.connect(database_url) as slow:
        await slow.execute(insert, (ann,))  # has drawn its number, and takes its time
        await world.execute(insert, bob)  # a later number, committed
        async with world.database.connection() as c:
            early = await outbox.read(c, Position(), ALL, 10)
        assert early.events == []
        await slow.commit()
    assert [one.data["recipient"] for one in await told(world, early.cursor)] == [str(ann), str(bob)]


@pytest.mark.parametrize("seed", range(5))
async def test_a_reader_who_polls_while_commits_interleave_hears_each_event_once(world, database_url, seed):
    chance = random.Random(seed)
    [person] = await world.people(1)
    insert = "INSERT INTO outbox (type, recipient_id, detail, topic) VALUES (%s, %s, %s, 'x')"
    expected: set[str] = set()
    heard: list[str] = []
    places: list[Position] = []
    cursor = Position()
    async with AsyncExitStack() as stack:
        connections = [
            await stack.enter_async_context(await psycopg.AsyncConnection.connect(database_url)) for _ in range(5)
        ]
        pending: dict[int, list[str]] = {}
        for step in range(150):
            which = chance.randrange(5)
            match chance.random():
                case p if p < 0.55:
                    await connections[which].execute(insert, ("message.failed", person, str(step)))
                    pending.setdefault(which, []).append(str(step))
                case p if p < 0.75:
                    await connections[which].commit()
                    expected.update(pending.pop(which, ()))
                case p if p < 0.82:
                    await connections[which].rollback()
                    pending.pop(which, None)
                case _:
                    async with world.database.connection() as c:
                        page = await outbox.read(c, cursor, ALL, chance.choice([1, 2, 100]))
                    heard += [event.data["reason"] for event in page.events]
                    places += [event.at for event in page.events]
                    assert page.cursor >= cursor
                    cursor = page.cursor
        for which, connection in enumerate(connections):
            await connection.commit()
            expected.update(pending.pop(which, ()))
    for event in await told(world, cursor):
        heard.append(event.data["reason"])
        places.append(event.at)
    assert sorted(heard) == sorted(expected)
    assert places == sorted(places)


async def test_a_reader_of_a_rare_type_does_not_read_the_same_again(world):
    [person] = await world.people(1)
    await world.queue([person], MARKETING)
    await deliver(world)
    async with world.database.connection() as c:
        page = await outbox.read(c, Position(), {EventType.DEVICE_REMOVED}, 10)
        assert page.events == []
        assert (await outbox.read(c, page.cursor, ALL, 10)).events == []
        assert len((await outbox.read(c, Position(), ALL, 10)).events) == 1


# The API --------------------------------------------------------------------------------------------------------------


async def no_to_all(api, name: str) -> None:
    await api.put(name, email=f"{name}@example.test")
    await api.execute(
        "INSERT INTO consent_events (recipient_id, scope, channel, granted, occurred_at, source)"
        " SELECT id, 'all', 'any', false, now(), 'api' FROM recipients WHERE external_id = %s",
        (name,),
    )


async def test_product_code_reads_on_from_a_cursor(api):
    for name in ("a", "b", "c"):
        await no_to_all(api, name)
    first = (await api.client.get("/v1/events", params={"limit": 2})).json()
    assert [one["data"]["recipient"] for one in first["events"]] == ["a", "b"]
    assert first["more"]
    assert first["cursor"] == first["events"][-1]["id"]
    rest = (await api.client.get("/v1/events", params={"after": first["cursor"], "types": "preference.*"})).json()
    assert [one["data"]["recipient"] for one in rest["events"]] == ["c"]
    assert not rest["more"]
    again = (await api.client.get("/v1/events", params={"after": rest["cursor"]})).json()
    assert again["events"] == []
    latest = (await api.client.get("/v1/events", params={"after": "latest"})).json()
    await no_to_all(api, "d")
    now = (await api.client.get("/v1/events", params={"after": latest["cursor"]})).json()
    assert [one["data"]["recipient"] for one in now["events"]] == ["d"]
    none = (await api.client.get("/v1/events", params={"types": "device.removed,message.*"})).json()
    assert none["events"] == []


@pytest.mark.parametrize("query", ["after=x", "types=x", "limit=0", "limit=501", "after=evt_99999999999999999999_1"])
async def test_what_is_no_question_is_refused(api, query):
    assert (await api.client.get(f"/v1/events?{query}")).status_code == 422


async def test_events_want_the_scope_read(api):
    headers = await api.key(Scope.ADMIN, Scope.RECIPIENTS)
    assert (await api.client.get("/v1/events", headers=headers)).status_code == 403


async def test_the_client_reads_all_pages(api, monkeypatch):
    from notifier.client import client

    monkeypatch.setattr(client, "PIECE", 2)
    for name in ("a", "b", "c", "d", "e"):
        await no_to_all(api, name)
    key = api.client.headers["authorization"].removeprefix("Bearer ")
    async with AsyncNotifier("http://notifier.test", key, transport=api.client._transport) as notifier:
        events = [event async for event in notifier.events()]
        assert [event.data["recipient"] for event in events] == ["a", "b", "c", "d", "e"]
        assert [event async for event in notifier.events(after=events[-1].id)] == []
        assert [event.id async for event in notifier.events(events[2].id, ["preference.*"])] == [
            event.id for event in events[3:]
        ]
        with pytest.raises(Refused):
            [event async for event in notifier.events(after="nonsense")]


def test_the_other_client_asks_the_same():
    import httpx

    pages = [
        {"events": [{"id": "evt_1_1", "type": "message.failed", "timestamp": "2026-11-23T10:00:00Z", "sequence": 1,
                     "data": {}}], "cursor": "evt_1_1", "more": True},
        {"events": [], "cursor": "evt_9_0", "more": False},
    ]  # fmt: skip
    asked = []

    def answer(request):
        asked.append(str(request.url.query, "ascii"))
        return httpx.Response(200, json=pages[len(asked) - 1])

    with Notifier("http://n.test", "nk_a_b", transport=httpx.MockTransport(answer)) as notifier:
        assert [event.id for event in notifier.events(types=["message.*"])] == ["evt_1_1"]
    assert asked == ["types=message.%2A&limit=500", "after=evt_1_1&types=message.%2A&limit=500"]


# Forgetting -----------------------------------------------------------------------------------------------------------


async def test_what_is_older_than_thirty_days_is_forgotten_in_pieces(world):
    [person] = await world.people(1)
    await world.execute(
        "INSERT INTO outbox (type, recipient_id, told_at)"
        " SELECT 'message.failed', %s, now() - make_interval(days => n) FROM generate_series(40, 26, -1) n", person
    )  # fmt: skip
    async with world.database.connection() as c:
        assert [await outbox.forget(c, 4) for _ in range(4)] == [4, 4, 3, 0]
    assert await world.one("SELECT count(*) FROM outbox") == 4


async def test_the_scheduler_forgets(api):
    await no_to_all(api, "a")
    await api.execute("UPDATE outbox SET told_at = now() - interval '31 days'")
    await no_to_all(api, "b")
    await api.app.sweep.forget()
    assert await api.count("outbox") == 1


# An opt-out depends on none of this -----------------------------------------------------------------------------------


async def test_an_opt_out_is_written_while_the_outbox_is_read_and_forgotten(world):
    people = await world.people(20)
    stop = asyncio.Event()

    async def disturb():
        while not stop.is_set():
            async with world.database.connection() as c:
                await outbox.read(c, Position(), ALL, 100)
                await outbox.forget(c, 100)

    busy = asyncio.create_task(disturb())
    await asyncio.gather(*(world.withdraw([person]) for person in people))
    stop.set()
    await busy
    assert len(await told(world)) == 20
