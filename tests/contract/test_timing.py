"""Quiet hours and caps at the gate, on a real database: what waits, until when, and that no race slips through."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from pydantic import SecretStr

from notifier.dispatch.explain import stories_of
from notifier.dispatch.timing import Timing
from notifier.domain import explanation
from notifier.domain.caps import Cap
from notifier.domain.clocks import Window
from notifier.domain.messages import Lane
from notifier.domain.timing import Pack
from notifier.errors import NotConfigured
from notifier.settings import Settings
from notifier.store import messages, recipients
from notifier.store.consent import NewEvent, record
from notifier_channels.contract import Ambiguous, Channel, Rejected, Unavailable
from tests.world import KEYS, MARKETING, TRANSACTIONAL, Scripted, World, claim

pytestmark = pytest.mark.anyio

ONCE = Timing(caps=(Cap.read("1/24h"),))
HOUR = timedelta(hours=1)


@pytest.fixture
def world(database, tmp_path) -> World:
    return World(database, tmp_path / "journals")


def closed_now(zone: str, channel: Channel = Channel.EMAIL) -> Timing:
    """A pack that is closed by the clocks of this zone, and opens there in two hours or so. Elsewhere it is open."""
    hour = datetime.now(ZoneInfo(zone)).hour
    opens = (hour + 2) % 24
    window = Window(opens * 60, min(opens * 60 + 120, 1440))
    pack = Pack("test", "test", frozenset({channel}), (window,) * 7, frozenset(), (), "", datetime.now(UTC).date())
    return Timing(packs=(pack,), default_zone=zone)


async def deliver(world: World, timing: Timing, provider: Scripted | None = None, **more: object) -> Scripted:
    provider = provider or Scripted()
    async with world.worker(provider, Lane.MARKETING, timing=timing, **more) as work:
        await work()
    return provider


async def test_what_comes_in_quiet_hours_waits_until_they_end_and_says_so(world):
    [id_] = await world.queue(await world.people(1), MARKETING, expires=30 * HOUR)
    timing = closed_now("Asia/Kolkata")
    provider = await deliver(world, timing)
    assert provider.sent == []
    assert await world.states([id_]) == [("queued", "quiet_hours:test/Asia/Kolkata")]
    due = await world.one("SELECT due_at FROM messages")
    local = due.astimezone(ZoneInfo("Asia/Kolkata"))
    assert local.hour * 60 == timing.packs[0].week[0].opens
    assert local.minute < 30


async def test_what_would_expire_before_they_end_expires_at_once(world):
    [id_] = await world.queue(await world.people(1), MARKETING, expires=HOUR / 2)
    await deliver(world, closed_now("UTC"))
    assert await world.states([id_]) == [("expired", "expired:quiet_hours:test/UTC")]


async def test_quiet_hours_are_those_of_the_persons_own_zone_and_a_password_reset_knows_none(world):
    people = await world.people(2)
    there = datetime.now(ZoneInfo("UTC")) + 2 * HOUR  # where it is open now
    zone = f"Etc/GMT-{2}"
    assert there.hour == datetime.now(ZoneInfo(zone)).hour
    await world.execute("UPDATE recipients SET timezone = %s WHERE id = %s", zone, people[0])
    timing = closed_now("UTC")
    ids = await world.queue(people, MARKETING, expires=30 * HOUR)
    provider = await deliver(world, timing)
    assert [message.id for message in provider.sent] == ids[:1]
    [reset] = await world.queue(people[1:], TRANSACTIONAL)
    async with world.worker(Scripted(), timing=timing) as work:
        await work()
    assert await world.states([reset]) == [("accepted", None)]


async def test_a_text_message_waits_in_the_zone_of_its_number(world):
    people = await world.people(1)
    phones = await world.phones(people)  # in Berlin
    await say_yes(world, people, "sms")
    [id_] = await world.queue(people, MARKETING, expires=30 * HOUR, by=Channel.SMS, to=phones)
    timing = replace(closed_now("Europe/Berlin", Channel.SMS), default_zone="Pacific/Auckland")
    async with world.worker({Channel.SMS: Scripted()}, Lane.MARKETING, timing=timing) as work:
        await work()
    assert await world.states([id_]) == [("queued", "quiet_hours:test/Europe/Berlin")]


async def say_yes(world: World, people, channel: str) -> None:
    async def work(c) -> None:
        await recipients.lock(c, people)
        await record(
            c, [NewEvent(person, "topic:product-news", channel, granted=True, source="api") for person in people]
        )

    await world.database.transact(work)


# Caps -----------------------------------------------------------------------------------------------------------------


async def test_of_two_messages_in_one_batch_a_cap_of_one_lets_the_older_one_go(world):
    people = await world.people(3)
    first, second = (
        await world.queue(people, MARKETING, expires=48 * HOUR),
        await world.queue(people, MARKETING, expires=48 * HOUR),
    )
    provider = await deliver(world, ONCE)
    assert {message.id for message in provider.sent} == set(first)
    assert await world.states(second) == [("queued", "frequency_cap:marketing 1/24h")] * 3
    earliest = await world.one("SELECT min(due_at) - clock_timestamp() FROM messages WHERE state = 'queued'")
    assert timedelta(hours=23, minutes=59) < earliest < timedelta(hours=24, minutes=31)


async def test_what_was_sent_before_counts_and_the_decision_names_it(world):
    people = await world.people(1)
    await world.queue(people, MARKETING)
    await deliver(world, ONCE)
    [second] = await world.queue(people, MARKETING, expires=48 * HOUR)
    assert (await deliver(world, ONCE)).sent == []
    decision = await world.one("SELECT decision FROM messages WHERE id = %s", second)
    assert decision["numbers"] == [await world.one("SELECT number FROM attempts")]
    async with world.database.connection() as c:
        [story] = await stories_of(c, world.hasher, second)
    said = explanation.explain(story)
    assert said.why[0].startswith(
        "The person had had as much as they are to get: at most 1 of all marketing in 24 hours."
    )


async def test_what_left_the_window_no_longer_counts(world):
    people = await world.people(1)
    await world.queue(people, MARKETING)
    await deliver(world, ONCE)
    await world.execute("UPDATE attempts SET started_at = started_at - interval '24 hours'")
    await world.queue(people, MARKETING)
    assert len((await deliver(world, ONCE)).sent) == 1


@pytest.mark.parametrize(
    ("outcome", "counts"), [(Unavailable("451"), False), (Rejected("550"), False), (Ambiguous("closed"), True)]
)
async def test_what_was_not_taken_does_not_count_and_what_may_have_been_does(world, outcome, counts):
    people = await world.people(1)
    await world.queue(people, MARKETING)
    await deliver(world, ONCE, Scripted(lambda _message, _witness: outcome))
    [second] = await world.queue(people, MARKETING, expires=48 * HOUR)
    provider = await deliver(world, ONCE)
    assert (provider.sent == []) == counts
    assert (await world.states([second]))[0][0] == ("queued" if counts else "accepted")


async def test_transactional_messages_neither_count_nor_wait(world):
    people = await world.people(1)
    ids = await world.queue(people) + await world.queue(people)
    async with world.worker(Scripted(), timing=ONCE) as work:
        await work()
    assert await world.states(ids) == [("accepted", None)] * 2
    await world.queue(people, MARKETING)
    assert len((await deliver(world, ONCE)).sent) == 1


async def test_a_topics_own_cap_counts_that_topic_alone(world):
    people = await world.people(1)
    topic = world.templates.topics["product-news"]
    capped = replace(topic, caps=(Cap.read("1/day", "product-news"), Cap.read("sms 1/day", "product-news")))
    templates = replace(world.templates, topics={**world.templates.topics, "product-news": capped})
    await world.queue(people, "newsletter")
    await world.queue(people, MARKETING, expires=72 * HOUR)
    [third] = await world.queue(people, MARKETING, expires=72 * HOUR)
    await say_yes(world, people, "email")
    await deliver(world, Timing(), templates=templates)
    assert await world.states([third]) == [("queued", "frequency_cap:product-news 1/day")]


async def test_two_workers_and_one_person_with_a_cap_of_one_send_one(world):
    [person] = await world.people(1)
    ids = [id_ for _ in range(12) for id_ in await world.queue([person], MARKETING, expires=48 * HOUR)]
    one, other = Scripted(), Scripted()
    await asyncio.gather(deliver(world, ONCE, one, batch_size=1), deliver(world, ONCE, other, batch_size=1))
    assert len(one.sent) + len(other.sent) == 1
    states = await world.states(ids)
    assert states.count(("accepted", None)) == 1
    assert states.count(("queued", "frequency_cap:marketing 1/24h")) == 11


async def gate_two_at_once(world: World, monkeypatch) -> None:
    """One gate has counted and is held there, while another one counts for the same person."""
    [person] = await world.people(1)
    await world.queue([person], MARKETING, expires=48 * HOUR)
    await world.queue([person], MARKETING, expires=48 * HOUR)
    count, both = messages.marketing_sent_to, asyncio.Barrier(2)

    async def slow_count(*given):
        found = await count(*given)
        try:
            async with asyncio.timeout(0.3):  # with the lock, the other one waits for us
                await both.wait()
        except TimeoutError:
            await both.abort()
        except asyncio.BrokenBarrierError:
            pass
        return found

    async def gate() -> None:
        async with world.worker(Scripted(), Lane.MARKETING, timing=ONCE, batch_size=1) as work:
            await work._gate(await claim(work))

    monkeypatch.setattr(messages, "marketing_sent_to", slow_count)
    await asyncio.gather(gate(), gate())


async def test_what_another_gate_is_about_to_send_is_counted(world, monkeypatch):
    await gate_two_at_once(world, monkeypatch)
    assert await world.one("SELECT count(*) FROM attempts") == 1


async def test_without_the_lock_both_are_sent(world, monkeypatch):
    async def no_lock(_c, _ids) -> None:
        """Stands where the lock is taken."""

    monkeypatch.setattr(recipients, "lock", no_lock)
    await gate_two_at_once(world, monkeypatch)
    assert await world.one("SELECT count(*) FROM attempts") == 2


async def test_counting_reads_what_is_recent_and_not_a_persons_whole_history(world):
    people = await world.people(20)
    for _ in range(50):
        await world.queue(people, MARKETING, expires=-2 * timedelta(days=1))
    await world.execute("ANALYZE messages")
    query = (
        "EXPLAIN (ANALYZE, FORMAT JSON) SELECT m.id FROM messages m WHERE m.recipient_id = ANY(%s)"
        " AND m.category = 'marketing' AND m.expires_at > statement_timestamp() - interval '24 hours'"
    )
    [plan] = await world.one(query, people[:5])
    assert plan["Plan"]["Index Name"] == "messages_marketing"
    assert plan["Plan"]["Actual Rows"] == 0


async def test_where_no_cap_and_no_pack_is_on_nothing_is_asked(world, monkeypatch):
    async def never(*_given):
        raise AssertionError("asked")

    monkeypatch.setattr(messages, "marketing_sent_to", never)
    await world.queue(await world.people(1), MARKETING)
    by_text = Timing(caps=(Cap.read("sms 3/24h"),))
    assert len((await deliver(world, by_text)).sent) == 1


# Settings -------------------------------------------------------------------------------------------------------------


def set_to(**changes: object) -> Timing:
    keys = {name: SecretStr(secret.decode()) for name, secret in KEYS.items()}
    nowhere = {"DATABASE_URL": "postgresql:///x", "REDIS_URL": "unix:///x"}
    return Timing.from_settings(Settings(**nowhere, link_keys=keys, hash_keys=keys, **changes))


def test_every_pack_is_on_and_text_messages_have_a_cap_unless_told_otherwise():
    timing = set_to()
    assert {"night", "us", "us-fl", "eu"} <= {pack.key for pack in timing.packs}
    assert [str(cap) for cap in timing.caps] == ["marketing sms 3/24h"]
    assert (timing.spread, timing.lasts) == (timedelta(minutes=30), timedelta(seconds=60))
    off = set_to(quiet_hours="none", marketing_caps="none")
    assert (off.packs, off.caps) == ((), ())


def test_an_operators_own_pack_takes_the_place_of_one_that_ships(tmp_path):
    file = tmp_path / "own.toml"
    file.write_text(
        '[night]\ntitle = "ours"\nchannels = ["email"]\nhours = { mon-fri = "09:00-17:00" }\n'
        'source = "us"\nread = 2026-01-01\n'
    )
    [pack] = set_to(quiet_hours="night", quiet_hours_file=file).packs
    assert (pack.title, pack.channels) == ("ours", {Channel.EMAIL})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"quiet_hours": "mars"}, "no pack mars"),
        ({"quiet_hours_file": "/nowhere/own.toml"}, "NOTIFIER_QUIET_HOURS_FILE: FileNotFoundError"),
        ({"marketing_caps": "often"}, "NOTIFIER_MARKETING_CAPS: a cap is written like"),
    ],
)
def test_a_setting_that_is_wrong_is_named(changes, says):
    with pytest.raises(NotConfigured, match=says):
        set_to(**changes)
