"""A batch from claim to outcome, on a real database, with a provider whose answers are scripted."""

from __future__ import annotations

import asyncio
import errno
import html
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from notifier.dispatch.settling import settled, tried, write
from notifier.dispatch.sweep import Sweep
from notifier.dispatch.witness import Attempt, BatchWitness, Hold
from notifier.domain import retry
from notifier.domain.consent import Topic
from notifier.domain.messages import MAX_CLAIMS, Category, Lane
from notifier.domain.throttling import FLOOR
from notifier.domain.tokens import ManageLink
from notifier.errors import NotConfigured
from notifier.journal import Journal, boot_id
from notifier.limits import Limits
from notifier.providers import providers_of, throttles_of
from notifier.rendering import Templates, bundled_directory
from notifier.settings import Settings
from notifier.store import consent, orphans, providers
from notifier.store.database import AWAY, Database
from notifier.store.providers import Pause
from notifier.throttles import ProviderThrottle
from notifier_channels.contract import (
    EXPIRED,
    Ambiguous,
    BadAddress,
    Channel,
    Misconfigured,
    RateLimited,
    Receipt,
    Rejected,
    Unavailable,
)
from tests.world import (
    IDENTITY,
    MANDATORY,
    MARKETING,
    TRANSACTIONAL,
    FreeThrottle,
    Scripted,
    World,
    claim,
    new_id,
    take,
)

pytestmark = pytest.mark.anyio

REDIS = "redis://127.0.0.1:1"  # not asked before something is sent


@pytest.fixture
def world(database, tmp_path) -> World:
    return World(database, tmp_path / "journals")


class Bell:
    """Stands where Redis would: remembers the rings."""

    def __init__(self) -> None:
        self.rung: list[Lane] = []

    def ring(self, lane, _ids) -> None:
        self.rung.append(lane)

    def waiting(self, _lane) -> int:
        return 0


def sweep(world, timeout=30.0) -> Sweep:
    return Sweep(world.database, Bell(), world.consequences, boot_id(), timedelta(seconds=timeout))


async def test_what_is_due_is_sent_and_accepted_with_the_providers_reference(world):
    ids = await world.queue(await world.people(3))
    provider = Scripted()
    async with world.worker(provider) as deliver:
        await deliver(ids[:1])
    assert await world.states(ids) == [("accepted", None)] * 3
    assert {message.id for message in provider.sent} == set(ids)
    assert await world.one("SELECT count(*) FROM attempts WHERE state = 'accepted' AND reference LIKE 'ref-%%'") == 3


def manage_links(world, message) -> list[ManageLink]:
    """Where a mail leads to its reader's own settings."""
    tokens = re.findall(r"/u/([\w.-]+)", html.unescape(message.content.html) + message.content.text)
    found = [world.links.read_page(token, datetime.now(UTC)) for token in tokens]
    return [link for link in found if isinstance(link, ManageLink)]


async def test_only_the_mail_that_was_asked_for_carries_a_fresh_link_as_every_other_is_passed_on(database, tmp_path):
    world = World(database, tmp_path / "journals", Templates.load(bundled_directory(), IDENTITY, "en"))
    people = await world.people(1)
    await world.grant(people, "topic:newsletter", "email")
    keys = [one.key for one in world.templates.all() if Channel.EMAIL in one.channels]
    message_of = {key: (await world.queue(people, key))[0] for key in keys}
    provider = Scripted()
    for lane in Lane:
        async with world.worker(provider, lane) as deliver:
            await deliver()
    links = {message.id: manage_links(world, message) for message in provider.sent}
    fresh = {key for key in keys for link in links[message_of[key]] if link.is_fresh(datetime.now(UTC))}
    assert fresh == {"manage-link"}
    for key in set(keys) - fresh:
        assert {(link.recipient, link.message) for link in links[message_of[key]]} == {(people[0], message_of[key])}
    assert {(link.recipient, link.message) for link in links[message_of["manage-link"]]} == {(people[0], None)}


async def test_a_ring_for_nothing_and_a_ring_for_what_is_done_do_nothing(world):
    ids = await world.queue(await world.people(1))
    provider = Scripted()
    async with world.worker(provider) as deliver:
        await deliver(ids)
        await deliver(ids)
        await deliver(())
    assert len(provider.sent) == 1


async def test_what_is_not_due_yet_and_what_belongs_to_the_other_lane_is_left_alone(world):
    people = await world.people(1)
    later = await world.queue(people, due=60)
    marketing = await world.queue(people, MARKETING)
    async with world.worker(Scripted()) as deliver:
        await deliver(later + marketing)
    assert await world.states(later + marketing) == [("queued", None)] * 2


async def test_two_workers_that_are_rung_for_the_same_ids_send_each_once(world):
    ids = await world.queue(await world.people(200))
    first, second = Scripted(), Scripted()
    async with world.worker(first, batch_size=20) as one, world.worker(second, batch_size=20) as two:
        await asyncio.gather(one(ids), two(ids))
    assert len(first.sent) + len(second.sent) == 200
    assert {state for state, _ in await world.states(ids)} == {"accepted"}


async def test_a_person_who_said_no_gets_nothing_and_the_message_says_why(world):
    people = await world.people(2)
    ids = await world.queue(people, MARKETING)
    [number] = await world.withdraw(people[:1])
    provider = Scripted()
    async with world.worker(provider, Lane.MARKETING) as deliver:
        await deliver(ids)
    assert await world.states(ids) == [("suppressed", "withdrawn:marketing/any"), ("accepted", None)]
    decision = await world.one("SELECT decision FROM messages WHERE id = %s", ids[0])
    assert (decision["rule"], decision["numbers"]) == ("withdrawn", [number])
    assert [message.id for message in provider.sent] == ids[1:]


async def test_a_password_reset_goes_to_somebody_who_refuses_everything(world):
    people = await world.people(1)
    await world.withdraw(people, "all")
    ids = await world.queue(people, MANDATORY)
    async with world.worker(Scripted()) as deliver:
        await deliver(ids)
    assert await world.states(ids) == [("accepted", None)]


async def test_a_message_past_its_expiry_expires(world):
    ids = await world.queue(await world.people(1), expires=timedelta(seconds=-1), due=-2)
    provider = Scripted()
    async with world.worker(provider) as deliver:
        await deliver(ids)
    assert (await world.states(ids), provider.sent) == ([("expired", "expired")], [])


async def test_a_snoozed_person_gets_marketing_later(world):
    people = await world.people(1)
    await world.execute("UPDATE recipients SET snoozed_until = now() + interval '10 minutes'")
    ids = await world.queue(people, MARKETING)
    async with world.worker(Scripted(), Lane.MARKETING) as deliver:
        await deliver(ids)
    assert await world.states(ids) == [("queued", "snoozed")]
    assert await world.one("SELECT due_at = (SELECT snoozed_until FROM recipients) FROM messages")


@pytest.mark.parametrize(
    ("outcome", "category", "state", "attempt"),
    [
        (Unavailable("451"), TRANSACTIONAL, ("queued", "unavailable:451"), "not_taken"),
        (RateLimited("421", timedelta(seconds=30)), TRANSACTIONAL, ("queued", "rate_limited:421"), "not_taken"),
        (Ambiguous("lost"), TRANSACTIONAL, ("unknown", "in_doubt:lost"), "unknown"),
        (Ambiguous("lost"), MARKETING, ("unknown", "in_doubt:lost"), "unknown"),
        (Rejected("554"), TRANSACTIONAL, ("failed", "rejected:554"), "refused"),
        (BadAddress("550"), TRANSACTIONAL, ("failed", "bad_address:550"), "refused"),
        (Misconfigured("535"), TRANSACTIONAL, ("queued", "misconfigured:535"), "not_taken"),
    ],
)
async def test_each_outcome_is_written_on_the_message_and_its_attempt(world, outcome, category, state, attempt):
    ids = await world.queue(await world.people(1), category)
    lane = Lane.MARKETING if category == MARKETING else Lane.TRANSACTIONAL
    async with world.worker(Scripted(lambda *_: outcome), lane) as deliver:
        await deliver(ids)
    assert await world.states(ids) == [state]
    assert await world.attempts(ids[0]) == [(1, attempt)]


async def test_a_dead_address_is_suppressed_in_the_same_breath_and_blocks_the_next_message(world):
    people = await world.people(1)
    first = await world.queue(people)
    async with world.worker(Scripted(lambda *_: BadAddress("550 5.1.1"))) as deliver:
        await deliver(first)
        second = await world.queue(people, MANDATORY)
        await deliver(second)
    assert await world.states(second) == [("suppressed", "suppressed_address:hard_bounce")]


async def test_a_misconfigured_provider_is_paused_then_tried_with_one_message_and_resumed(world):
    ids = await world.queue(await world.people(5))
    broken = Scripted(lambda *_: Misconfigured("535", "authentication refused"))
    async with world.worker(broken, batch_size=1) as deliver:
        await deliver(())
        assert len(broken.sent) == 1  # the other four were not even tried
        await world.execute("UPDATE messages SET due_at = now() WHERE state = 'queued'")
        await world.execute("UPDATE provider_pauses SET paused_until = now()")
        await deliver(())
        assert len(broken.sent) == 2  # one probe
        await world.execute("UPDATE messages SET due_at = now() WHERE state = 'queued'")
        await world.execute("UPDATE provider_pauses SET paused_until = now()")
        broken.script = take
        await deliver(())
    assert {state for state, _ in await world.states(ids)} == {"accepted"}
    assert await world.one("SELECT count(*) FROM provider_pauses") == 0


async def test_a_pause_that_was_reported_outlasts_what_is_taken_meanwhile_and_ends_with_its_own_probe(world):
    ids = await world.queue(await world.people(3))
    provider = Scripted(take)
    reported = Pause(provider.name, "30034", "reported", timedelta(minutes=10))
    async with world.worker(provider, batch_size=1) as deliver:
        async with world.database.connection() as c:
            await providers.pause(c, reported)
            await providers.resume(c, [provider.name])
            await providers.pause(c, Pause(provider.name, "535", "refused", retry.PROBE_AFTER))
        await deliver(())
        assert provider.sent == []
        assert await world.one("SELECT paused_until > now() + interval '9 minutes' FROM provider_pauses")
        await world.execute("UPDATE provider_pauses SET paused_until = now()")
        await deliver(())
    assert {state for state, _ in await world.states(ids)} == {"accepted"}
    assert await world.one("SELECT count(*) FROM provider_pauses") == 0


async def test_one_misconfigured_answer_pauses_the_provider_wherever_it_stands_in_the_batch(world):
    ids = await world.queue(await world.people(2))
    answers = {ids[0]: Misconfigured("535"), ids[1]: Rejected("554")}
    async with world.worker(Scripted(lambda message, _: answers[message.id])) as deliver:
        await deliver(())
    assert await world.one("SELECT code FROM provider_pauses") == "535"


def test_one_lanes_provider_is_paused_without_the_others_though_they_share_a_relay():
    """A policy that refuses our marketing must not hold back password resets (I10)."""
    keys = {"k1": "a-secret-for-tests-of-thirty-two-bytes"}
    settings = Settings(DATABASE_URL="postgresql://", REDIS_URL="unix://", link_keys=keys, hash_keys=keys)
    names = {providers_of(settings, lane, Limits(REDIS))[Channel.EMAIL].name for lane in Lane}
    assert len(names) == len(Lane)


RATES: dict[str, object] = {
    "twilio_account_sid": "AC" + "0" * 32, "twilio_auth_tokens": "t", "twilio_sender": "+4930123456",
    "twilio_segments_per_second": 10, "smtp_rate": 100,
}  # fmt: skip


@pytest.mark.parametrize(
    ("more", "paced", "ceilings"),
    [
        ({}, {Channel.EMAIL: [70, 100], Channel.SMS: [7, 10]}, {Channel.EMAIL: 70, Channel.SMS: 7}),
        (
            {"smtp_marketing_url": "smtp://127.0.0.2"},
            {Channel.EMAIL: None, Channel.SMS: [7, 10]},
            {Channel.EMAIL: float("inf"), Channel.SMS: 7},
        ),
        (
            {"smtp_marketing_url": "smtp://127.0.0.2", "smtp_marketing_rate": 40, "twilio_marketing_sender": "MG1"},
            {Channel.EMAIL: [40], Channel.SMS: [10]},
            {Channel.EMAIL: 40, Channel.SMS: 10},
        ),
    ],
)
def test_marketing_leaves_a_share_of_a_rate_to_the_other_lane_unless_it_goes_its_own_way(more, paced, ceilings):
    keys = {"k1": "a-secret-for-tests-of-thirty-two-bytes"}
    url = {"DATABASE_URL": "postgresql://", "REDIS_URL": "unix://"}
    settings = Settings(**url, link_keys=keys, hash_keys=keys, **RATES, **more)
    limits = Limits(REDIS)
    found = {channel: one._pace for channel, one in providers_of(settings, Lane.MARKETING, limits).items()}
    assert {
        channel: pace and [round(one.per_second) for one in pace.buckets] for channel, pace in found.items()
    } == paced
    throttles = throttles_of(settings, Lane.MARKETING, limits)
    assert {channel: round(one._ceiling, 3) for channel, one in throttles.items()} == ceilings
    [whole] = providers_of(settings, Lane.TRANSACTIONAL, limits)[Channel.EMAIL]._pace.buckets
    assert (whole.name, whole.per_second) == ("smtp", 100)
    for channel, other in throttles_of(settings, Lane.TRANSACTIONAL, limits).items():
        shares = found[channel] is not None and len(found[channel].buckets) == 2
        assert (other._rate == throttles[channel]._rate) == shares


def test_a_rate_keeps_batches_small_and_without_one_nobody_waits():
    keys = {"k1": "a-secret-for-tests-of-thirty-two-bytes"}
    url = {"DATABASE_URL": "postgresql://", "REDIS_URL": "unix://"}
    free, slow = (Settings(**url, link_keys=keys, hash_keys=keys, smtp_rate=rate) for rate in (None, 5))
    unpaced, paced = (providers_of(one, Lane.MARKETING, Limits(REDIS))[Channel.EMAIL] for one in (free, slow))
    assert (unpaced._pace, unpaced.most_at_once) == (None, 500)
    assert paced.most_at_once == 10


async def test_a_relay_that_cannot_be_reached_is_left_alone_for_a_moment_and_costs_the_others_no_try(world):
    ids = await world.queue(await world.people(5))
    away = Scripted(lambda *_: Unavailable("connect", "refused", is_away=True))
    async with world.worker(away, batch_size=1) as deliver:
        await deliver(())
        assert len(away.sent) == 1
        await world.execute("UPDATE messages SET due_at = now() WHERE state = 'queued'")
        await world.execute("UPDATE provider_pauses SET paused_until = now()")
        away.script = take
        await deliver(())
    assert {state for state, _ in await world.states(ids)} == {"accepted"}
    assert await world.one("SELECT sum(tries) FROM messages") == 1


async def test_a_probe_is_not_spent_on_what_proves_nothing_so_that_an_outage_ends_with_the_provider_back(world):
    """At the head of the queue stands what has expired while the relay was away: one of it a probe took for ever."""
    expired = await world.queue(await world.people(3, prefix="late"))
    spoiled, refused, *others = await world.queue(await world.people(4, prefix="good"))
    relay = Scripted(lambda *_: Unavailable("connect", "refused", is_away=True))
    async with world.worker(relay) as deliver:
        await deliver(())
        await world.execute("UPDATE messages SET due_at = now() - interval '1 second'")
        await world.execute("UPDATE messages SET due_at = now() - interval '2 s' WHERE id = %s", spoiled)
        await world.execute("UPDATE messages SET due_at = now() - interval '1.5 s' WHERE id = %s", refused)
        await world.execute("UPDATE notifications SET data = '{}' WHERE id = %s", spoiled)
        await world.execute(
            "UPDATE messages SET due_at = now() - interval '3 s', expires_at = now() WHERE id = ANY(%s)", expired
        )
        await world.execute("UPDATE provider_pauses SET paused_until = now()")
        relay.script = lambda one, witness: Rejected("554") if one.id == refused else take(one, witness)
        await deliver(())
    assert await world.states(expired) == [("expired", "expired")] * 3
    assert await world.states([spoiled, refused]) == [("failed", "render:template"), ("failed", "rejected:554")]
    assert await world.states(others) == [("accepted", None)] * 2
    assert await world.one("SELECT count(*) FROM provider_pauses") == 0


async def test_a_probe_that_is_put_off_is_not_followed_by_another_at_once(world):
    await world.queue(await world.people(3))
    relay = Scripted(lambda *_: Unavailable("connect", "refused", is_away=True))
    async with world.worker(relay) as deliver:
        await deliver(())
        await world.execute("UPDATE messages SET due_at = now()")
        await world.execute("UPDATE provider_pauses SET paused_until = now()")
        relay.sent.clear()
        relay.script = lambda *_: RateLimited("421", timedelta(minutes=1))
        await deliver(())
    assert len(relay.sent) == 1
    assert await world.one("SELECT count(*) FROM provider_pauses WHERE paused_until > now() + interval '20 s'") == 1


async def test_a_probe_that_was_given_back_does_not_shorten_a_pause_that_was_reported_meanwhile(world):
    async with world.database.connection() as c:
        await providers.pause(c, Pause("scripted", "30034", "reported", timedelta(minutes=10)))
        await providers.give_probe_back(c, "scripted")
    assert await world.one("SELECT paused_until > now() + interval '9 minutes' FROM provider_pauses")


async def test_a_channel_whose_pause_has_run_out_and_for_which_nothing_waits_keeps_nobodys_ring(world):
    texts = Scripted(lambda *_: Misconfigured("20003"), name="texts")
    async with world.worker({Channel.EMAIL: Scripted(), Channel.SMS: texts}) as deliver:
        people = await world.people(1)
        await world.queue(people, by=Channel.SMS, to=await world.phones(people))
        await deliver(())
        await world.execute("UPDATE provider_pauses SET paused_until = now()")
        mails = await world.queue(people)
        await deliver(mails)
        assert await world.states(mails) == [("accepted", None)]
        await world.execute("UPDATE messages SET due_at = now() WHERE state = 'queued'")
        texts.script = take
        await deliver(())
    assert await world.one("SELECT count(*) FROM messages WHERE state = 'accepted'") == 2


def test_a_relay_url_that_is_wrong_names_the_setting_and_not_its_value():
    keys = "k1:" + "k" * 32
    settings = Settings(
        DATABASE_URL="postgresql://x", REDIS_URL="redis://x", link_keys=keys, hash_keys=keys, smtp_url="gopher://secret"
    )
    with pytest.raises(NotConfigured, match=r"^NOTIFIER_SMTP_URL: ") as problem:
        providers_of(settings, Lane.MARKETING, Limits(REDIS))
    assert "secret" not in str(problem.value)


async def test_a_refusal_that_speaks_of_one_message_pauses_nobody(world):
    await world.queue(await world.people(1))
    async with world.worker(Scripted(lambda *_: Unavailable("451 4.7.1"))) as deliver:
        await deliver(())
    assert await world.one("SELECT count(*) FROM provider_pauses") == 0


class Throttled(FreeThrottle):
    """Lets one batch of two through each time it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.wait = 0.0
        self.turns: list[int] = []
        self.waits = asyncio.Event()

    async def most(self, size: int) -> int:
        return min(size, 2)

    async def turn(self, messages: int) -> float:
        self.turns.append(messages)
        self.waits.set()
        return self.wait


async def test_what_a_batch_brought_is_learned_once_for_all_of_it(world):
    ids = await world.queue(await world.people(5), MARKETING)
    answers = dict(
        zip(ids, [take, take, Unavailable("421"), RateLimited("450", timedelta(hours=1)), Rejected("554")], strict=True)
    )
    throttle = FreeThrottle()
    provider = Scripted(lambda one, w: take(one, w) if answers[one.id] is take else answers[one.id])
    async with world.worker(provider, Lane.MARKETING, throttles={Channel.EMAIL: throttle}, batch_size=5) as deliver:
        await deliver(())
    assert throttle.learned[0] == (2, 2)


async def test_where_it_is_throttled_a_batch_is_small(world):
    await world.queue(await world.people(5), MARKETING)
    throttle = Throttled()
    async with world.worker(Scripted(), Lane.MARKETING, throttles={Channel.EMAIL: throttle}) as deliver:
        await deliver(())
    assert throttle.turns == [2, 2, 1]


async def test_a_provider_that_asks_to_slow_down_throttles_marketing_in_every_process(world, redis_url):
    await world.queue(await world.people(6), MARKETING)
    limits = Limits(redis_url), Limits(redis_url)
    ours, other = (ProviderThrottle(one, "smtp-marketing", "smtp", Lane.MARKETING) for one in limits)
    provider = Scripted(lambda *_: RateLimited("421", timedelta(hours=1)))
    async with world.worker(provider, Lane.MARKETING, throttles={Channel.EMAIL: ours}, batch_size=5) as deliver:
        await deliver(())
    assert len(provider.sent) == 6
    assert await other.most(500) == FLOOR
    for one in limits:
        await one.close()


async def test_what_waits_for_the_throttle_has_no_intent_and_a_shutdown_does_not_wait(world):
    ids = await world.queue(await world.people(2), MARKETING)
    throttle, provider = Throttled(), Scripted()
    throttle.wait = 3600.0
    async with world.worker(provider, Lane.MARKETING, throttles={Channel.EMAIL: throttle}) as deliver:
        delivering = asyncio.create_task(deliver(()))
        await throttle.waits.wait()
        assert await world.one("SELECT count(*) FROM attempts") == 0
        assert await world.states(ids) == [("claimed", None)] * 2
        deliver.hold.closing = True
        await delivering
    assert await world.states(ids) == [("accepted", None)] * 2


async def test_where_the_clock_is_ahead_what_a_channel_takes_for_expired_is_not_tried_again_and_again(world):
    """By the database's clock it has an hour: the gate lets it through, and the channel holds it back, without end."""
    ids = await world.queue(await world.people(2), expires=timedelta(hours=1))
    provider = Scripted(lambda *_: EXPIRED)
    async with world.worker(provider) as deliver:
        await asyncio.wait_for(deliver(()), 30)
        assert [await world.attempts(id_) for id_ in ids] == [[(1, "not_taken")]] * 2
        assert await world.one("SELECT bool_and(due_at = expires_at) FROM messages")
        await world.execute("UPDATE messages SET due_at = now(), expires_at = now()")
        await deliver(())
    assert await world.states(ids) == [("expired", "expired")] * 2


async def test_what_cannot_be_written_down_is_not_sent_and_waits_before_it_is_tried_again(world, monkeypatch):
    """Released at once, it was claimed again in a tight loop, with an attempt each time."""

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    ids = await world.queue(await world.people(3))
    provider = Scripted()
    async with world.worker(provider) as deliver:
        with monkeypatch.context() as patched:
            patched.setattr(Journal, "before", full)
            await asyncio.wait_for(deliver(()), 30)
        assert await world.states(ids) == [("queued", "unavailable:not_written")] * 3
        assert await world.attempts(ids[0]) == [(1, "not_taken")]
        assert await world.one("SELECT min(due_at) > now() + interval '1 s' FROM messages")
        await world.execute("UPDATE messages SET due_at = now()")
        await deliver(())
    assert await world.states(ids) == [("accepted", None)] * 3


async def test_a_template_that_cannot_be_rendered_fails_its_message_alone(world):
    ids = await world.queue(await world.people(2))
    await world.execute("UPDATE notifications SET data = '{}' WHERE id = %s", ids[0])
    async with world.worker(Scripted()) as deliver:
        await deliver(ids)
    assert await world.states(ids) == [("failed", "render:template"), ("accepted", None)]
    assert await world.attempts(ids[0]) == [(1, "not_taken")]


class Cancelled(Scripted):
    """Commits the first message, and then something that it waits for is cancelled: by an SDK, not by us."""

    async def send(self, batch, witness):
        take(batch[0], witness)
        waits = asyncio.ensure_future(asyncio.Event().wait())
        asyncio.get_running_loop().call_soon(waits.cancel)
        await waits
        yield


async def test_what_is_cancelled_within_a_channel_leaves_no_message_in_the_hands_of_a_worker_that_lives(world):
    ids = await world.queue(await world.people(2))
    async with world.worker(Cancelled()) as deliver:
        delivering = asyncio.create_task(deliver(()))
        await asyncio.wait([delivering])
        assert not delivering.cancelled()
    assert await world.states(ids) == [("accepted", None), ("queued", "unavailable:cut_off")]


async def test_a_batch_that_is_cancelled_itself_ends(world):
    await world.queue(await world.people(1))
    sending = asyncio.Event()

    class Slow(Scripted):
        async def send(self, batch, witness):  # noqa: ARG002
            sending.set()
            await asyncio.Event().wait()
            yield

    async with world.worker(Slow()) as deliver:
        delivering = asyncio.create_task(deliver(()))
        await sending.wait()
        delivering.cancel()
        await asyncio.wait([delivering])
        assert delivering.cancelled()


async def test_a_channel_that_breaks_its_contract_leaves_in_doubt_only_what_it_had_committed(world):
    ids = await world.queue(await world.people(3))

    def break_down(message, witness):
        witness.about_to_commit(message.id)
        raise ZeroDivisionError

    async with world.worker(Scripted(break_down)) as deliver:
        await deliver(ids)
    states = sorted(await world.states(ids))
    assert states == [("queued", "unavailable:cut_off")] * 2 + [("unknown", "in_doubt:cut_off")]


async def test_a_channel_that_never_answers_is_cut_off_at_the_send_timeout(world):
    ids = await world.queue(await world.people(2))

    class Deaf(Scripted):
        async def send(self, batch, witness):
            witness.about_to_commit(batch[0].id)
            await asyncio.Event().wait()
            yield batch[0].id, Rejected("never")

    deaf = Deaf()
    async with world.worker(deaf, send_timeout=timedelta(milliseconds=50)) as deliver:
        await deliver(ids)
    assert sorted(state for state, _ in await world.states(ids)) == ["queued", "unknown"]


async def test_the_repeat_of_a_transactional_doubt_supersedes_it_and_happens_once(world):
    ids = await world.queue(await world.people(1))
    provider = Scripted(lambda *_: Ambiguous("lost"))
    async with world.worker(provider) as deliver:
        for _ in range(3):
            await deliver(())
            await world.execute("UPDATE messages SET due_at = now() WHERE state = 'unknown' AND due_at IS NOT NULL")
            await sweep(world)()
    assert await world.states(ids) == [("unknown", "in_doubt:lost")]
    assert await world.attempts(ids[0]) == [(1, "superseded"), (2, "unknown")]
    first, second = provider.sent
    assert first.first_attempted_at == second.first_attempted_at  # the Date header stays


async def test_doubt_about_marketing_is_never_repeated(world):
    ids = await world.queue(await world.people(1), MARKETING)
    async with world.worker(Scripted(lambda *_: Ambiguous("lost")), Lane.MARKETING) as deliver:
        await deliver(())
        await sweep(world)()
        await deliver(())
    assert await world.attempts(ids[0]) == [(1, "unknown")]


async def test_doubt_that_has_expired_stays_doubt(world):
    ids = await world.queue(await world.people(1))
    async with world.worker(Scripted(lambda *_: Ambiguous("lost"))) as deliver:
        await deliver(())
        await world.execute("UPDATE messages SET due_at = now(), expires_at = now()")
        await sweep(world)()
        await deliver(())
    assert await world.states(ids) == [("unknown", "in_doubt:lost")]
    assert await world.attempts(ids[0]) == [(1, "unknown")]


async def test_a_late_receipt_of_a_fenced_worker_settles_the_doubt(world):
    ids = await world.queue(await world.people(1))
    async with world.worker(Scripted()) as deliver:
        permitted = await deliver._gate(await claim(deliver))
        outgoing, spoiled = deliver.compose(permitted)
        outcomes = await deliver._send(Channel.EMAIL, permitted, outgoing)
        await world.execute("UPDATE messages SET state = 'unknown', reason = 'x', worker_id = NULL")
        await world.execute("UPDATE attempts SET state = 'unknown', settled_at = now()")
        await deliver._settle(permitted, outcomes, spoiled)
    assert await world.states(ids) == [("accepted", None)]


async def test_a_lost_hold_sends_nothing_and_gives_the_batch_back_uncounted(world):
    ids = await world.queue(await world.people(2))
    provider = Scripted()
    async with world.worker(provider) as deliver:
        permitted = await deliver._gate(await claim(deliver))
        deliver.hold.lost = True
        outgoing, spoiled = deliver.compose(permitted)
        await deliver._settle(permitted, await deliver._send(Channel.EMAIL, permitted, outgoing), spoiled)
    assert await world.states(ids) == [("queued", "released")] * 2
    assert await world.one("SELECT sum(tries) + sum(claims) FROM messages") == 0


@dataclass
class Away:
    """A database that is away for the first call."""

    database: Database
    error: Exception | None

    async def transact(self, work):
        error, self.error = self.error, None
        if error:
            raise error
        return await self.database.transact(work)


@pytest.mark.parametrize("error", AWAY)
async def test_outcomes_are_kept_until_the_database_takes_them(world, monkeypatch, error):
    monkeypatch.setattr("notifier.dispatch.deliver.SETTLE_AGAIN", 0)
    ids = await world.queue(await world.people(1))
    async with world.worker(Scripted()) as deliver:
        permitted = await deliver._gate(await claim(deliver))
        outgoing, spoiled = deliver.compose(permitted)
        outcomes = await deliver._send(Channel.EMAIL, permitted, outgoing)
        away = replace(deliver, database=Away(world.database, error("away")))
        await away._settle(permitted, outcomes, spoiled)
    assert await world.states(ids) == [("accepted", None)]


async def test_the_server_itself_ends_a_transaction_that_its_client_has_abandoned(world):
    """Else a worker that is stopped in its gate keeps people from opting out."""
    assert await world.one("SELECT current_setting('idle_in_transaction_session_timeout')") == "15s"


class FullDisk:
    """Stands where the journal would."""

    def before(self, *_) -> None:
        raise OSError(28, "No space left on device")

    after = before


async def test_what_cannot_be_written_down_is_not_sent_and_an_answer_that_cannot_is_kept():
    ids = [new_id(), new_id()]
    attempts = {id_: Attempt(1, 1, id_, Topic("t", Category.MARKETING, {}), Channel.EMAIL) for id_ in ids}
    witness = BatchWitness(FullDisk(), Hold(), attempts, float("inf"))
    assert not witness.is_over
    assert not witness.about_to_commit(ids[0])
    assert witness.is_over
    witness.answered(ids[1], Receipt("r"))
    assert witness.outcome_of(ids[0]) == Unavailable("cut_off")
    assert witness.outcome_of(ids[1]) == Receipt("r")


@pytest.mark.parametrize(
    ("hold", "deadline", "is_over"),
    [
        (Hold(), float("inf"), False),
        (Hold(), 0.0, True),
        (Hold(lost=True), float("inf"), True),
        (Hold(drained_by=0.0), float("inf"), True),
    ],
)
async def test_a_witness_says_when_its_no_is_for_everybody_and_one_person_s_no_is_not(
    tmp_path, hold, deadline, is_over
):
    ann, bob = new_id(), new_id()
    attempts = {id_: Attempt(1, 1, id_, Topic("t", Category.MARKETING, {}), Channel.EMAIL) for id_ in (ann, bob)}
    hold.hear(consent.Heard(2, ann, "all", "any"))
    journal = Journal(tmp_path / "journal")
    witness = BatchWitness(journal, hold, attempts, deadline)
    assert not witness.about_to_commit(ann)
    assert witness.is_over == is_over
    assert witness.about_to_commit(bob) == (not is_over)


# Dead workers ---------------------------------------------------------------------------------------------------------


async def dies(world, deliver, *, until: str) -> None:
    """Take a batch in hand as far as `until`, and vanish: the lock goes, the journal stays."""
    batch = await claim(deliver)
    if until != "claim":
        permitted = await deliver._gate(batch)
        if until in ("commit", "answer"):
            outgoing, _ = deliver.compose(permitted)
            await deliver._send(Channel.EMAIL, permitted, outgoing)
        elif until == "render":
            deliver.journal.rendering(permitted[0].permit.message)
    deliver.journal.close()


async def test_claimed_rows_of_a_dead_worker_go_back_to_the_queue(world):
    ids = await world.queue(await world.people(2))
    async with world.worker(Scripted()) as deliver:
        await dies(world, deliver, until="claim")
    await sweep(world)()
    assert await world.states(ids) == [("queued", "worker_died")] * 2
    assert await world.one("SELECT count(*) FROM workers WHERE ended_at IS NULL") == 0


async def test_intent_without_a_line_in_the_journal_is_proven_unsent(world):
    ids = await world.queue(await world.people(2))
    async with world.worker(Scripted()) as deliver:
        await dies(world, deliver, until="gate")
    await sweep(world)()
    assert await world.states(ids) == [("queued", "worker_died")] * 2
    assert await world.attempts(ids[0]) == [(1, "not_taken")]


async def test_a_line_before_and_none_after_is_doubt_and_both_are_an_answer(world):
    ids = await world.queue(await world.people(2))

    def half(message, witness):
        if message.id == ids[0]:
            return take(message, witness)
        witness.about_to_commit(message.id)
        return Ambiguous("cut")

    async with world.worker(Scripted(half)) as deliver:
        await dies(world, deliver, until="commit")
    await sweep(world)()
    assert await world.states(ids) == [("accepted", None), ("unknown", "in_doubt:worker_died")]
    assert await world.one("SELECT reference LIKE 'ref-%%' FROM attempts WHERE message_id = %s", ids[0])


async def until_somebody_waits(world) -> None:
    while not await world.one("SELECT count(*) FROM pg_locks WHERE NOT granted"):
        await asyncio.sleep(0)


async def test_a_gate_that_commits_after_its_worker_died_is_seen_with_its_attempts(world):
    ids = await world.queue(await world.people(2))
    async with world.worker(Scripted()) as deliver:
        batch = await claim(deliver)
        deliver.journal.close()
    async with world.database.connection() as c:
        async with c.transaction():
            await deliver.gate.queued(c, batch)  # the server goes on with what a dead client had sent
            recovering = asyncio.create_task(sweep(world).recover())
            await until_somebody_waits(world)
        await recovering
    assert await world.states(ids) == [("queued", "worker_died")] * 2
    assert await world.attempts(ids[0]) == [(1, "not_taken")]


async def test_an_answer_that_waits_for_a_sweep_still_settles_the_doubt_that_the_sweep_leaves(world):
    ids = await world.queue(await world.people(1))
    async with world.worker(Scripted()) as deliver:
        permitted = await deliver._gate(await claim(deliver))
        outgoing, spoiled = deliver.compose(permitted)
        outcomes = await deliver._send(Channel.EMAIL, permitted, outgoing)
        async with world.database.connection() as c:
            async with c.transaction():
                left = await orphans.orphans_of(c, deliver.worker)
                await write(c, [settled(row, retry.in_doubt(tried(row), row["expires_at"])) for row in left])
                settling = asyncio.create_task(deliver._settle(permitted, outcomes, spoiled))
                await until_somebody_waits(world)
            await settling
    assert await world.states(ids) == [("accepted", None)]


async def test_a_claim_that_commits_after_its_worker_was_ended_is_found_all_the_same(world):
    ids = await world.queue(await world.people(1))
    async with world.worker(Scripted()) as deliver:
        deliver.journal.close()
    await sweep(world)()
    assert await world.one("SELECT count(*) FROM workers WHERE ended_at IS NULL") == 0
    await claim(deliver)  # the server goes on with what a dead client had sent
    await sweep(world)()
    assert await world.states(ids) == [("queued", "worker_died")]


async def test_a_worker_that_lives_on_without_its_lock_keeps_its_journal(world):
    ids = await world.queue(await world.people(2))

    def half(message, witness):
        return take(message, witness) if message.id == ids[0] else Unavailable("not yet")

    async with world.worker(Scripted(half)) as deliver:
        pass
    await sweep(world)()  # nothing is in its hands, but it may still take something
    await dies(world, deliver, until="answer")
    await sweep(world)()
    assert await world.states(ids) == [("accepted", None), ("queued", "worker_died")]


async def test_a_living_worker_is_left_alone(world):
    await world.queue(await world.people(1))
    async with world.worker(Scripted()) as deliver:
        await claim(deliver)
        await sweep(world)()
        assert await world.one("SELECT state FROM messages") == "claimed"


@pytest.mark.parametrize("why", ["file gone", "file damaged", "machine restarted", "writer alive"])
async def test_without_a_journal_to_read_intent_becomes_doubt_after_the_send_timeout(world, why):
    ids = await world.queue(await world.people(1))
    async with world.worker(Scripted()) as deliver:
        await deliver._gate(await claim(deliver))
        if why == "file gone":
            deliver.journal.close()
            deliver.journal.path.unlink()
        elif why == "file damaged":
            deliver.journal.close()
            deliver.journal.path.write_bytes(bytes(99) + b"\n")
        elif why == "machine restarted":
            deliver.journal.close()
            await world.execute("UPDATE workers SET boot_id = 'before'")
    await sweep(world)()
    assert await world.states(ids) == [("sending", None)]
    await sweep(world, timeout=0)()
    assert await world.states(ids) == [("unknown", "in_doubt:worker_died")]


async def test_poison_is_set_aside_after_three_claims_and_its_neighbours_go_on(world):
    ids = await world.queue(await world.people(3))
    for turn in range(MAX_CLAIMS):
        async with world.worker(Scripted()) as deliver:
            batch = await claim(deliver, turn=1 if turn == MAX_CLAIMS - 1 else 0)
            permitted = await deliver._gate(batch)
            deliver.journal.rendering(next(one.permit.message for one in permitted if one.permit.message == ids[1]))
            deliver.journal.close()
        await sweep(world)()
    assert await world.states(ids) == [("queued", "worker_died"), ("failed", "poison"), ("queued", "worker_died")]
    async with world.worker(Scripted()) as deliver:
        await deliver(())
    assert await world.states(ids) == [("accepted", None), ("failed", "poison"), ("accepted", None)]


async def test_a_message_that_two_dead_workers_had_in_hand_travels_alone(world):
    await world.queue(await world.people(5))
    await world.execute("UPDATE messages SET claims = %s", MAX_CLAIMS - 1)
    async with world.worker(Scripted()) as deliver:
        assert len(await claim(deliver)) == 1


async def test_sweep_rings_for_what_is_due_in_each_lane(world):
    people = await world.people(2)
    await world.queue(people)
    await world.queue(people, MARKETING)
    await world.queue(people, due=60)
    swept = sweep(world)
    await swept()
    assert swept.jobs.rung == [Lane.TRANSACTIONAL, Lane.MARKETING]


async def test_a_move_that_next_does_not_allow_is_seen_by_every_test(world):
    ids = await world.queue(await world.people(1))
    async with world.worker(Scripted()) as deliver:
        await deliver(ids)
    with pytest.raises(psycopg.errors.RaiseException, match="NEXT does not allow accepted > failed"):
        await world.execute("UPDATE messages SET state = 'failed', reason = 'x'")


# What the database itself holds ---------------------------------------------------------------------------------------


async def test_the_database_refuses_a_second_live_attempt(world):
    ids = await world.queue(await world.people(1))
    async with world.worker(Scripted()) as deliver:
        await deliver(ids)
        with pytest.raises(psycopg.errors.UniqueViolation):
            await world.execute(
                "INSERT INTO attempts (message_id, n, worker_id, provider) VALUES (%s, 2, %s, 'x')",
                ids[0],
                deliver.worker,
            )


@pytest.mark.parametrize(
    "statement", ["UPDATE consent_events SET granted = true", "DELETE FROM consent_events", "TRUNCATE consent_events"]
)
async def test_the_ledger_is_append_only(world, statement):
    await world.withdraw(await world.people(1))
    with pytest.raises(psycopg.errors.RaiseException, match="append-only"):
        await world.execute(statement)


async def test_erasure_may_blank_evidence_and_nothing_else(world):
    await world.withdraw(await world.people(1))
    await world.execute("UPDATE consent_events SET evidence = '{\"erased\": true}'")
    with pytest.raises(psycopg.errors.RaiseException):
        await world.execute("UPDATE consent_events SET evidence = '{\"erased\": true}', granted = true")


@pytest.mark.parametrize(
    "change",
    ["state = 'sending'", "state = 'failed', due_at = NULL", "due_at = NULL", "worker_id = 1", "state = 'nonsense'"],
)
async def test_the_database_refuses_a_row_that_contradicts_itself(world, change):
    await world.queue(await world.people(1))
    with pytest.raises(psycopg.errors.CheckViolation):
        await world.execute(f"UPDATE messages SET {change}")


# A no that comes after the gate ---------------------------------------------------------------------------------------


async def test_a_no_said_between_the_gate_and_the_byte_stops_the_message_and_leaves_the_others(world):
    people = await world.people(3)
    ids = await world.queue(people, MARKETING)

    class Slow(Scripted):
        async def send(self, batch, witness):
            first, *rest = sorted(batch, key=lambda message: ids.index(message.id))
            yield first.id, take(first, witness)
            await said_and_heard.wait()
            for message in rest:
                yield message.id, take(message, witness)

    said_and_heard = asyncio.Event()
    async with world.worker(Slow(), Lane.MARKETING) as deliver, await world.database.connect() as ears:
        await consent.listen(ears)
        delivering = asyncio.create_task(deliver(ids))
        while await world.states(ids[:1]) != [("sending", None)]:
            assert not delivering.done()
        [number] = await world.withdraw(people[1:2])
        async for heard in ears.notifies(stop_after=1):
            deliver.hold.hear(consent.Heard.parse(heard.payload))
        said_and_heard.set()
        await delivering
    assert await world.states(ids) == [
        ("accepted", None),
        ("suppressed", "withdrawn:marketing/any"),
        ("accepted", None),
    ]
    assert (await world.one("SELECT decision FROM messages WHERE id = %s", ids[1]))["numbers"] == [number]
    assert await world.attempts(ids[1]) == [(1, "not_taken")]


async def test_a_no_of_an_adopter_is_told_for_everybody_whom_they_adopted(world):
    """A message whose intent was committed before the adoption is in hand under the id of before."""
    [adopter, *nameless, stranger, of_stranger] = await world.people(5)
    adopt = "UPDATE recipients SET external_id = NULL, merged_into = %s WHERE id = ANY(%s)"
    await world.execute(adopt, adopter, nameless)
    await world.execute(adopt, stranger, [of_stranger])
    async with await world.database.connect() as ears:
        await consent.listen(ears)
        [number] = await world.withdraw([adopter])
        heard = [consent.Heard.parse(one.payload) async for one in ears.notifies(timeout=60, stop_after=3)]
    assert {one.recipient for one in heard} == {adopter, *nameless}
    assert {(one.number, one.scope, one.channel) for one in heard} == {(number, "marketing", "any")}


async def test_a_yes_is_told_to_nobody(world):
    [person] = await world.people(1)
    async with await world.database.connect() as ears:
        await consent.listen(ears)
        yes = consent.NewEvent(person, "marketing", "any", granted=True, source="api")
        await world.database.transact(lambda c: consent.record(c, [yes]))
        await world.withdraw([person])
        heard = [consent.Heard.parse(one.payload) async for one in ears.notifies(stop_after=1)]
    assert [(one.recipient, one.scope) for one in heard] == [(person, "marketing")]
