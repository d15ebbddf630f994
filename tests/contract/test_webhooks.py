"""Webhooks arrive, signed, whatever goes wrong on the way, and at public addresses only; nobody waits for another."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import socket
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from enum import StrEnum
from functools import partial
from uuid import UUID

import psycopg
import pytest
import trustme
from structlog.testing import capture_logs

from notifier.dispatch import posting
from notifier.dispatch.endpoints import Endpoints
from notifier.dispatch.posting import Answer, Post
from notifier.dispatch.webhooks import LEASE, Webhooks
from notifier.domain import events
from notifier.domain.access import Scope
from notifier.domain.events import EventType, Position
from notifier.domain.webhooks import Signer
from notifier.errors import Conflict, InvalidInput, NotFound
from notifier.store import webhooks
from tests.servers.receiver import Receiver, receiving
from tests.world import KEYS, MARKETING, World

pytestmark = pytest.mark.anyio

SIGNER = Signer(KEYS)
NEW = {"MESSAGE_READ": "message.read"}  #: a type that a later release knows
ENDPOINTS = Endpoints(SIGNER, is_production=False, writes_events=True)


@pytest.fixture
def world(database, tmp_path) -> World:
    return World(database, tmp_path)


async def add(world: World, receiver: Receiver, *types: str) -> UUID:
    async with world.database.connection() as c:
        added = await ENDPOINTS.add(c, receiver.url, types)
    receiver.secret = added.secret
    return added.id


@asynccontextmanager
async def telling(world: World, **changes) -> AsyncIterator[Webhooks]:
    one = Webhooks(world.database, changes.pop("signer", SIGNER), lambda url: Post(url, is_production=False, **changes))
    try:
        yield one
    finally:
        await one.close()


async def tell(world: World, **changes) -> None:
    async with telling(world, **changes) as work:
        await work()
        await work.settled()


async def happen(world: World, count: int = 1) -> list[UUID]:
    people = await world.people(count, prefix="p")
    for person in people:
        await world.withdraw([person])
    return people


async def hurry(world: World) -> None:
    """As if all waits were over."""
    await world.execute("UPDATE webhook_deliveries SET due_at = now()")
    await world.execute("UPDATE webhook_endpoints SET paused_until = '-infinity'")


# Arriving -------------------------------------------------------------------------------------------------------------


async def test_what_happens_arrives_in_order_and_a_receiver_can_verify_it(world):
    async with receiving() as receiver:
        await add(world, receiver)
        people = await happen(world, 20)
        await tell(world)
        assert [event.data["recipient"] for event in sorted(receiver.events, key=lambda one: one.sequence)] == [
            str(person) for person in people
        ]
        assert receiver.forged == 0
        assert receiver.connections <= 8
        head = receiver.heads[0]
        assert head.startswith("POST /hook?shop=1 HTTP/1.1\r\n")
        assert f"Host: 127.0.0.1:{receiver.port}\r\n" in head
        assert await world.one("SELECT count(*) FROM webhook_deliveries") == 0
        await tell(world)
        assert len(receiver.events) == 20


async def test_what_had_happened_before_is_not_told_and_only_the_types_that_were_chosen(world):
    await happen(world)
    async with receiving() as receiver, receiving() as other:
        await add(world, receiver, "preference.*")
        await add(world, other, "device.removed")
        await happen(world)
        await world.queue(await world.people(1, prefix="q"), MARKETING)
        await world.execute("UPDATE messages SET state = 'cancelled', reason = 'x', due_at = NULL")
        await tell(world)
        assert [event.type for event in receiver.events] == ["preference.updated"]
        assert other.events == []


async def test_who_asked_for_all_hears_of_what_a_later_release_can_tell_as_well(world, monkeypatch):
    async with receiving() as receiver, receiving() as messages, receiving() as one:
        await add(world, receiver)
        await add(world, messages, "message.*")
        await add(world, one, "message.delivered")
        later = StrEnum("EventType", {name: str(kind) for name, kind in EventType.__members__.items()} | NEW)
        for module in (events, webhooks):
            monkeypatch.setattr(module, "EventType", later)
        await world.execute("INSERT INTO outbox (type, recipient_id) VALUES ('message.read', gen_random_uuid())")
        await tell(world)
        assert [[event.type for event in who.events] for who in (receiver, messages, one)] == [
            ["message.read"],
            ["message.read"],
            [],
        ]


async def test_the_same_event_has_the_same_id_in_the_api_and_in_a_webhook(api):
    async with receiving() as receiver:
        added = (await api.client.post("/v1/webhooks", json={"url": receiver.url})).json()
        receiver.secret = added["secret"]
        await api.put("a", email="a@example.test")
        await api.execute(
            "INSERT INTO consent_events (recipient_id, scope, channel, granted, occurred_at, source)"
            " SELECT id, 'all', 'any', false, now(), 'api' FROM recipients"
        )
        async with api.app.telling() as work:
            await work()
            await work.settled()
        [event] = (await api.client.get("/v1/events")).json()["events"]
        assert receiver.events[0].model_dump(mode="json") == event


# When it goes wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (500, "500"),
        (404, "404"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", "302"),
        (b"nonsense\r\n\r\n", "broken"),
        (None, "timeout"),
    ],
)
async def test_what_is_not_taken_comes_again_later(world, monkeypatch, answer, code):
    monkeypatch.setattr(posting, "TIMEOUT", 0.3)
    async with receiving(answer=lambda _event: answer) as receiver:
        endpoint = await add(world, receiver)
        await happen(world)
        with capture_logs() as logs:
            await tell(world)
        assert [one["event"] for one in logs] == ["webhook.not_taken"]
        assert "example" not in json.dumps(logs)
        assert "hook" not in json.dumps(logs).replace("webhook", "")
        await tell(world)  # paused: it is left alone
        assert len(receiver.events) == 1
        assert await world.one("SELECT code FROM webhook_deliveries") == code
        assert await world.one("SELECT due_at > now() + interval '2 seconds' FROM webhook_deliveries")
        receiver.answer = lambda _event: 204
        await hurry(world)
        await tell(world)
        assert [event.id for event in receiver.events] == [receiver.events[0].id] * 2
        assert await world.one("SELECT failures FROM webhook_endpoints WHERE id = %s", endpoint) == 0


async def test_an_endpoint_where_nobody_listens_is_tried_again(world):
    async with receiving() as receiver:
        await add(world, receiver)
    await happen(world)
    await tell(world)
    assert await world.one("SELECT code FROM webhook_deliveries") == "connect"


async def test_an_endpoint_that_is_down_delays_nobody(world):
    async with receiving(answer=lambda _event: None) as stuck, receiving() as quick:
        await add(world, stuck)
        await add(world, quick)
        await happen(world, 3)
        async with telling(world) as work:
            await work()
            await stuck.until(3)
            await quick.until(3)
            await happen(world)
            async with asyncio.timeout(20):
                while len(quick.events) < 4:
                    await work()  # the stuck one is still at work, and no look waits for it
        assert len(stuck.events) == 3


async def test_one_event_that_is_never_taken_does_not_hold_up_the_others(world):
    async with receiving() as receiver:
        await add(world, receiver)
        people = await happen(world, 12)
        receiver.answer = lambda event: 500 if event.data["recipient"] == str(people[0]) else 204
        await tell(world)
        assert {event.data["recipient"] for event in receiver.events} == {str(person) for person in people}
        assert await world.one("SELECT count(*) FROM webhook_deliveries") == 1


async def test_while_it_is_down_one_event_tries_it(world):
    async with receiving(answer=lambda _event: 503) as receiver:
        await add(world, receiver)
        await happen(world, 12)
        await tell(world)
        assert len(receiver.events) == 8
        await world.execute("UPDATE webhook_endpoints SET paused_until = '-infinity'")
        await tell(world)
        assert len(receiver.events) == 9
        receiver.answer = lambda _event: 204
        await hurry(world)
        await tell(world)
        assert await world.one("SELECT count(*) FROM webhook_deliveries") == 0


async def test_after_three_days_it_is_given_up_and_listed_and_can_be_sent_again(world):
    async with receiving(answer=lambda _event: 500) as receiver:
        endpoint = await add(world, receiver)
        await happen(world)
        await tell(world)
        await world.execute("UPDATE webhook_deliveries SET planned_at = now() - interval '3 days', due_at = now()")
        await hurry(world)
        with capture_logs() as logs:
            await tell(world)
        assert [one["event"] for one in logs] == ["webhook.not_taken", "webhook.gave_up"]
        await hurry(world)
        await tell(world)
        assert len(receiver.events) == 2
        async with world.database.connection() as c:
            [standing] = await ENDPOINTS.all(c)
            [lost] = await webhooks.given_up(c, endpoint, 10)
        assert (standing.waiting, standing.given_up) == (0, 1)
        assert (lost["tries"], lost["code"]) == (2, "500")
        receiver.answer = lambda _event: 204
        async with world.database.connection() as c:
            await ENDPOINTS.replay(c, endpoint, event=receiver.events[0].id)
        await tell(world)
        assert [event.id for event in receiver.events] == [receiver.events[0].id] * 3
        assert await world.one("SELECT count(*) FROM webhook_deliveries") == 0


async def test_one_that_waits_for_hours_is_sent_again_at_once_when_that_is_asked(world):
    async with receiving(answer=lambda _event: 500) as receiver:
        endpoint = await add(world, receiver)
        await happen(world)
        await tell(world)
        await world.execute("UPDATE webhook_endpoints SET paused_until = '-infinity'")
        receiver.answer = lambda _event: 204
        async with world.database.connection() as c:
            await ENDPOINTS.replay(c, endpoint, event=receiver.events[0].id)
        await tell(world)
        assert [event.id for event in receiver.events] == [receiver.events[0].id] * 2


@pytest.mark.parametrize("room", [webhooks.PLANNED_AT_ONCE, 3])
async def test_what_waited_at_an_endpoint_that_was_disabled_for_long_is_replayed_with_three_days_before_it(
    world, monkeypatch, room
):
    monkeypatch.setattr(webhooks, "PLANNED_AT_ONCE", room)
    async with receiving(answer=lambda _event: 410) as receiver:
        endpoint = await add(world, receiver)
        await happen(world, 3)
        await tell(world)
        await world.execute(
            "UPDATE webhook_deliveries SET planned_at = now() - interval '4 days', due_at = now() + interval '6 hours'"
        )
        receiver.answer = lambda _event: 500
        async with world.database.connection() as c:
            await ENDPOINTS.replay(c, endpoint, after=str(Position()))
        await tell(world)
        async with world.database.connection() as c:
            [standing] = await ENDPOINTS.all(c)
        assert (len(receiver.events), standing.waiting, standing.given_up) == (6, 3, 0)


async def test_410_ends_it_until_it_is_replayed(world):
    async with receiving(answer=lambda _event: 410) as receiver:
        endpoint = await add(world, receiver)
        await happen(world, 2)
        await tell(world)
        await hurry(world)
        await tell(world)
        assert len(receiver.events) == 2
        async with world.database.connection() as c:
            [standing] = await ENDPOINTS.all(c)
            assert standing.endpoint.disabled_why == "gone"
            receiver.answer = lambda _event: 204
            await ENDPOINTS.replay(c, endpoint, after=str(Position()))
        await hurry(world)
        await tell(world)
        assert len({event.id for event in receiver.events}) == 2
        assert len(receiver.events) == 4


async def test_what_was_taken_beside_a_410_is_not_sent_again(world):
    async with receiving(answer=lambda event: 410 if event.sequence % 2 else 204) as receiver:
        endpoint = await add(world, receiver)
        await happen(world, 4)
        await tell(world)
        [last] = [event.id for event in receiver.events if event.sequence == 4]
        receiver.answer = lambda _event: 204
        async with world.database.connection() as c:
            assert [one.endpoint.disabled_why for one in await ENDPOINTS.all(c)] == ["gone"]
            await ENDPOINTS.replay(c, endpoint, after=last)
        await hurry(world)
        await tell(world)
        assert sorted(event.sequence for event in receiver.events) == [1, 1, 2, 3, 3, 4]


async def test_an_endpoint_whose_key_is_gone_is_disabled_and_said_so(world):
    async with receiving() as receiver:
        await add(world, receiver)
        await happen(world)
        with capture_logs() as logs:
            await tell(world, signer=Signer({"k2": b"2" * 32}))
        assert [(one["event"], one["why"]) for one in logs] == [("webhook.disabled", "key_missing")]
        assert receiver.events == []


async def test_after_a_rotation_an_old_endpoint_goes_on_under_its_own_key(world):
    async with receiving() as receiver:
        await add(world, receiver)
        await happen(world)
        await tell(world, signer=Signer({"k2": b"2" * 32, **KEYS}))
        assert len(receiver.events) == 1
        assert receiver.forged == 0


async def test_a_scheduler_that_dies_between_sending_and_writing_repeats_under_the_same_id(world, monkeypatch):
    async with receiving() as receiver:
        await add(world, receiver)
        await happen(world)

        async def dies(*_):
            raise psycopg.OperationalError

        with monkeypatch.context() as patch:
            patch.setattr(webhooks, "worked", dies)
            with capture_logs() as logs:
                await tell(world)
        assert [one["event"] for one in logs] == ["webhook.waits"]
        assert len(receiver.events) == 1
        await tell(world)
        assert len(receiver.events) == 1  # still under its lease
        await hurry(world)
        await tell(world)
        assert [event.id for event in receiver.events] == [receiver.events[0].id] * 2


async def test_two_schedulers_send_nothing_twice(world):
    async with receiving() as receiver:
        await add(world, receiver)
        await happen(world, 30)
        async with telling(world) as one, telling(world) as two:
            await asyncio.gather(one(), two())
            await asyncio.gather(one.settled(), two.settled())
            await asyncio.gather(one(), two())
            await asyncio.gather(one.settled(), two.settled())
        assert len(receiver.events) == len({event.id for event in receiver.events}) == 30


async def test_what_one_scheduler_plans_or_has_in_hand_another_leaves_alone_and_does_not_wait_for(world):
    async with receiving() as receiver:
        endpoint = await add(world, receiver)
    await happen(world, 3)
    async with world.database.connection() as one, world.database.connection() as two:
        await two.execute("SET lock_timeout = '5s'")
        async with one.transaction():
            await webhooks.plan(one, endpoint)
            assert not await webhooks.plan(two, endpoint)
        async with one.transaction():
            first = await webhooks.claim(one, endpoint, 2, LEASE)
            second = await webhooks.claim(two, endpoint, 3, LEASE)
        assert [len(first), len(second)] == [2, 1]
        assert await webhooks.claim(two, endpoint, 3, LEASE) == []
        await two.execute("RESET lock_timeout")


async def test_a_mistake_with_one_endpoint_is_logged_and_the_others_go_on(world, monkeypatch):
    async with receiving() as receiver, receiving() as other:
        broken = await add(world, receiver)
        await add(world, other)
        await happen(world)
        plan = webhooks.plan

        async def breaks(c, id_):
            if id_ == broken:
                raise ZeroDivisionError
            return await plan(c, id_)

        monkeypatch.setattr(webhooks, "plan", breaks)
        with capture_logs() as logs:
            await tell(world)
        assert [one["event"] for one in logs] == ["webhook.broke"]
        assert len(other.events) == 1


async def test_planning_stops_where_there_is_no_room(world, monkeypatch):
    monkeypatch.setattr(webhooks, "PLANNED_AT_ONCE", 5)
    async with receiving(answer=lambda _event: 500) as receiver:
        await add(world, receiver)
        await happen(world, 12)
        await tell(world)
        assert await world.one("SELECT count(*) FROM webhook_deliveries") == 5
        receiver.answer = lambda _event: 204
        await hurry(world)
        await tell(world)
        assert len({event.id for event in receiver.events}) == 12


async def test_what_a_newer_release_has_planned_and_this_one_does_not_know_holds_up_nothing(world):
    """As after a step back to the release before."""
    async with receiving(answer=lambda _event: 500) as receiver:
        await add(world, receiver)
        await happen(world, 2)
        await tell(world)
        await world.execute("UPDATE outbox SET type = 'message.read' WHERE number = (SELECT min(number) FROM outbox)")
        receiver.answer = lambda _event: 204
        await hurry(world)
        with capture_logs() as logs:
            await tell(world)
        assert sorted(event.sequence for event in receiver.events) == [1, 2, 2]
        assert logs == []
        assert await world.one("SELECT array_agg(number) FROM webhook_deliveries WHERE given_up_at IS NULL") == [1]


async def test_what_has_left_the_outbox_is_dropped(world):
    async with receiving(answer=lambda _event: 500) as receiver:
        await add(world, receiver)
        await happen(world)
        await tell(world)
        await world.execute("DELETE FROM outbox")
        await hurry(world)
        await tell(world)
        assert await world.one("SELECT count(*) FROM webhook_deliveries") == 0


# Where it must not go -------------------------------------------------------------------------------------------------


def resolver(*answers: str | list[str]):
    given = iter(answers)

    async def resolve(_host, _port):
        found = next(given)
        return [found] if isinstance(found, str) else found

    return resolve


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/", "https://2130706433/", "https://0x7f000001/", "https://0177.0.0.1/", "https://127.1/",
        "https://[::1]/", "https://[::ffff:127.0.0.1]/", "https://[::ffff:a00:1]/", "https://10.0.0.1/",
        "https://169.254.169.254/latest/meta-data", "https://localhost/", "https://0.0.0.0/", "https://[fe80::1]/",
        "https://[64:ff9b::7f00:1]/",
    ],
)  # fmt: skip
async def test_in_production_no_inner_address_is_connected_to(url):
    async with Post(url, is_production=True) as post:
        assert await post({}, b"{}") in (Answer("refused_address"), Answer("refused_url"), Answer("name"))


@pytest.mark.parametrize("found", [[], ["93.184.216.34", "10.0.0.1"], ["::1"], ["169.254.169.254"]])
async def test_a_name_that_leads_inside_is_not_connected_to(found):
    async with Post("https://hooks.example/", is_production=True, resolve=resolver(found)) as post:
        assert await post({}, b"{}") == Answer("refused_address")


async def test_what_cannot_be_a_name_has_no_address():
    async def resolve(_host, _port):
        return [("a" * 64).encode("idna")]  # so names are encoded before they are looked up: it raises UnicodeError

    async with Post("https://hooks.example/", is_production=True, resolve=resolve) as post:
        assert await post({}, b"{}") == Answer("name")


async def test_a_try_at_a_name_that_cannot_be_is_counted_so_that_it_is_given_up_in_the_end(world):
    async with world.database.connection() as c:
        await ENDPOINTS.add(c, "https://example.com/", [])
    await world.execute("UPDATE webhook_endpoints SET url = 'https://a..b.example/'")  # stored by an earlier version
    await happen(world)
    await tell(world)
    assert await world.one("SELECT (tries, code)::text FROM webhook_deliveries") == "(1,refused_url)"


async def test_names_that_nobody_answers_for_leave_the_process_its_threads(monkeypatch):
    """A look-up cannot be broken off; the sweep waits for a thread every second."""
    loop, asked, answered = asyncio.get_running_loop(), asyncio.Semaphore(0), threading.Event()

    def unanswered(*_, **__):
        loop.call_soon_threadsafe(asked.release)
        answered.wait(20)
        raise socket.gaierror(socket.EAI_AGAIN, "nobody answers")

    monkeypatch.setattr(socket, "getaddrinfo", unanswered)
    loop.set_default_executor(own := ThreadPoolExecutor(2))
    async with Post("http://hooks.example/", is_production=False) as post:
        tries = [asyncio.create_task(post({}, b"{}")) for _ in range(2)]
        try:
            for _ in tries:
                await asked.acquire()
            assert await asyncio.wait_for(asyncio.to_thread(lambda: "swept"), 5) == "swept"
        finally:
            answered.set()
        assert await asyncio.gather(*tries) == [Answer("name")] * 2
    own.shutdown()


async def test_plain_http_is_refused_in_production_even_if_it_was_stored(world):
    async with receiving() as receiver, Post(receiver.url, is_production=True) as post:
        assert await post({}, b"{}") == Answer("refused_url")
        assert receiver.connections == 0


async def test_a_name_that_is_bound_anew_is_connected_to_where_it_was_checked(world):
    """The resolver is asked once for each request, and the connection does not ask again."""
    async with receiving() as receiver:
        asked = []

        async def rebinding(host, _port):
            asked.append(host)
            return ["127.0.0.1"] if len(asked) == 1 else ["10.0.0.1"]

        url = f"http://rebinding.invalid:{receiver.port}/"
        receiver.secret = SIGNER.secret(UUID(int=1), "k1")
        async with Post(url, is_production=False, resolve=rebinding) as post:
            assert await post({}, b"{}") == Answer("401")  # it was reached, and unsigned
            assert await post({}, b"{}") == Answer("refused_address")
        assert asked == ["rebinding.invalid"] * 2
        assert f"Host: rebinding.invalid:{receiver.port}\r\n" in receiver.heads[0]


async def test_of_several_addresses_the_one_where_somebody_listens_is_reached():
    """`localhost` is also ::1, and a receiver mostly listens on one of them."""
    async with receiving(secret=SIGNER.secret(UUID(int=1), "k1")) as receiver:
        many = resolver(["::1", "127.0.0.2", "127.0.0.1"], ["127.0.0.2", "::1"])
        url = f"http://hooks.example:{receiver.port}/"
        async with Post(url, is_production=False, resolve=many) as post:
            assert await post({}, b"{}") == Answer("401")  # it was reached, and unsigned
            assert await post({}, b"{}") == Answer("connect")
        assert receiver.forged == 1


async def test_a_proxy_of_the_environment_is_not_asked(monkeypatch):
    async with receiving() as receiver:
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        receiver.secret = SIGNER.secret(UUID(int=1), "k1")
        async with Post(receiver.url, is_production=False) as post:
            assert await post({}, b"{}") == Answer("401")


@pytest.mark.parametrize(("name", "code"), [("hooks.example", "204"), ("other.example", "certificate")])
async def test_the_certificate_is_held_to_the_name_although_the_address_is_connected_to(name, code):
    import ssl

    authority = trustme.CA()
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("hooks.example").configure_cert(server_side)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_side)
    port = server.sockets[0].getsockname()[1]
    async with (
        server,
        Post(f"https://{name}:{port}/", is_production=False, resolve=resolver("127.0.0.1"), verify=trusting) as post,
    ):
        assert await post({}, b"{}") == Answer(code)


async def test_a_long_answer_is_not_read_to_its_end():
    endless = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n" + b"x" * 100_000
    async with receiving(secret=SIGNER.secret(UUID(int=1), "k1")) as receiver:

        async def take(*_):
            return endless

        receiver._take = take
        async with Post(receiver.url, is_production=False) as post:
            assert await post({}, b"{}") == Answer("200")


async def test_a_2xx_counts_although_its_end_never_comes(world, monkeypatch):
    """Else an event that was taken would be sent again for three days."""
    monkeypatch.setattr(posting, "LINGER", 0.01)
    async with receiving(answer=lambda _event: b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n") as receiver:
        await add(world, receiver)
        await happen(world)
        await tell(world)
        assert len(receiver.events) == 1
        assert await world.one("SELECT count(*) FROM webhook_deliveries") == 0


async def test_what_an_answer_wants_to_be_remembered_is_not(world):
    """Cookies would be sent along with every event, and be more with each answer."""
    async with receiving(
        answer=lambda event: b"HTTP/1.1 204 X\r\nSet-Cookie: n%d=x\r\n\r\n" % event.sequence
    ) as receiver:
        await add(world, receiver)
        await happen(world, 20)
        await tell(world)
        assert len(receiver.events) == 20
        assert not any("\r\ncookie:" in head.lower() for head in receiver.heads)


# Endpoints ------------------------------------------------------------------------------------------------------------


async def test_an_endpoint_that_cannot_be_is_refused(world):
    async with world.database.connection() as c:
        with pytest.raises(InvalidInput, match="/url"):
            await ENDPOINTS.add(c, "ftp://x", [])
        with pytest.raises(InvalidInput, match="/types"):
            await ENDPOINTS.add(c, "https://example.com/", ["message.*", "nonsense"])
        with pytest.raises(InvalidInput, match="/url"):
            await dataclasses.replace(ENDPOINTS, is_production=True).add(c, "http://example.com/", [])
        with pytest.raises(Conflict, match="NOTIFIER_EVENTS"):
            await dataclasses.replace(ENDPOINTS, writes_events=False).add(c, "https://example.com/", [])
        with pytest.raises(NotFound):
            await ENDPOINTS.remove(c, UUID(int=5))
        for wrong in ({}, {"event": "evt_1_1", "after": "evt_1_1"}, {"event": "x"}):
            with pytest.raises(InvalidInput):
                await ENDPOINTS.replay(c, UUID(int=5), **wrong)
        for unknown in ({"event": "evt_1_1"}, {"after": "evt_1_1"}):
            with pytest.raises(NotFound):
                await ENDPOINTS.replay(c, UUID(int=5), **unknown)


async def test_the_database_alone_can_sign_nothing(world):
    async with receiving() as receiver:
        await add(world, receiver)
    stored = str(await world.one("SELECT to_jsonb(e)::text FROM webhook_endpoints e"))
    assert receiver.secret
    assert receiver.secret.removeprefix("whsec_")[:10] not in stored


async def test_endpoints_are_kept_through_the_api(api):
    added = await api.client.post("/v1/webhooks", json={"url": "https://example.com/x", "types": ["device.removed"]})
    assert added.status_code == 201
    id_ = added.json()["id"]
    assert added.json()["secret"].startswith("whsec_")
    [one] = (await api.client.get("/v1/webhooks")).json()["endpoints"]
    assert (one["id"], one["types"], one["disabled_why"]) == (id_, ["device.removed"], None)
    assert "secret" not in one
    assert (await api.client.get(f"/v1/webhooks/{id_}/given-up")).json() == {"deliveries": []}
    assert (await api.client.post(f"/v1/webhooks/{id_}/replay", json={"after": "evt_0_0"})).status_code == 204
    assert (await api.client.post(f"/v1/webhooks/{id_}/replay", json={"event": "evt_0_0"})).status_code == 404
    assert (await api.client.post(f"/v1/webhooks/{id_}/replay", json={})).status_code == 422
    refused = await api.client.post("/v1/webhooks", json={"url": "ftp://example.com"})
    assert refused.json()["errors"][0]["pointer"] == "/url"
    assert (await api.client.delete(f"/v1/webhooks/{id_}")).status_code == 204
    assert (await api.client.delete(f"/v1/webhooks/{id_}")).status_code == 404
    headers = await api.key(Scope.READ, Scope.RECIPIENTS)
    assert (await api.client.get("/v1/webhooks", headers=headers)).status_code == 403


async def test_endpoints_are_kept_on_the_command_line(world, typed):
    run = partial(typed, "webhooks")
    added = await run("add", "https://example.com/x", "--types", "message.*", "--types", "device.removed")
    assert added.exit_code == 0, added.output
    assert added.stdout.startswith("whsec_")
    id_ = str(await world.one("SELECT id FROM webhook_endpoints"))
    await world.execute(
        "INSERT INTO webhook_deliveries (endpoint_id, xid, number, tries, code, given_up_at)"
        " VALUES (%s, '7', 8, 19, '500', now())", id_
    )  # fmt: skip
    listed = await run("list")
    assert f"{id_}  ok" in listed.output
    assert "given up: evt_7_8 after 19 tries, the last one 500" in listed.output
    assert "whsec_" not in listed.output
    assert (await run("replay", id_, "--after", "evt_0_0")).exit_code == 0
    for wrong in (
        ["replay", id_],
        ["replay", id_, "--event", "evt_1_1"],
        ["add", "ftp://x"],
        ["remove", str(UUID(int=1))],
    ):
        refused = await run(*wrong)
        assert refused.exit_code == 1
        assert refused.output.startswith("notifier: ")
    assert (await run("remove", id_)).exit_code == 0
    assert (await run("list")).output == ""
