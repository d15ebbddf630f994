"""What has failed is queued once more by an operator: what is left alone, at what pace, and that the gate decides."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID

import pytest
from click.testing import Result

from notifier.dispatch import replay as replaying
from notifier.dispatch import reporting
from notifier.dispatch.replay import replay, replay_all
from notifier.domain.messages import Lane, State
from notifier.domain.replay import Left, why_left
from notifier.store import notifications, planning, replays
from notifier.store.replays import Which
from notifier_channels.contract import BadAddress, Channel, Rejected
from tests.world import MANDATORY, TRANSACTIONAL, Scripted, World, new_id, take

pytestmark = pytest.mark.anyio

Run = Callable[..., Awaitable[Result]]
HOUR = timedelta(hours=1)
NO = Rejected("554", "no")


@pytest.fixture
def world(database, tmp_path) -> World:
    return World(database, tmp_path / "journals")


@pytest.fixture
def run(typed: Run) -> Run:
    return partial(typed, "messages")


def refused(outcome=NO):
    def script(message, witness):
        return outcome if witness.about_to_commit(message.id) else take(message, witness)

    return Scripted(script)


async def fail(world: World, people, key: str = TRANSACTIONAL, outcome=NO, **queued) -> list[UUID]:
    """Messages whose provider refused them."""
    ids = await world.queue(people, key, **queued)
    async with world.worker(refused(outcome)) as deliver:
        await deliver(ids[:1])
    assert {state for state, _ in await world.states(ids)} == {"failed"}
    return ids


async def in_state(world: World, id_: UUID, state: str) -> None:
    """As if it had come so far. Triggers, which hold every test to `NEXT`, are asleep meanwhile."""
    async with world.database.connection() as c, c.transaction():
        await c.execute("SET LOCAL session_replication_role = replica")
        await c.execute(
            "UPDATE messages SET state = %(state)s, reason = 'x', worker_id = CASE WHEN %(held)s THEN 1 END,"
            " due_at = CASE WHEN %(state)s = 'queued' THEN now() + interval '1 hour' END WHERE id = %(id)s",
            {"state": state, "held": state in ("claimed", "sending"), "id": id_},
        )


async def of_one_route(world: World, first: UUID, second: UUID) -> None:
    await world.execute(
        "UPDATE messages SET step = 1, turn_at = now(), notification_id = %s WHERE id = %s", first, second
    )
    await world.execute("UPDATE notifications SET message_ids = %s WHERE id = %s", [first, second], first)


async def sent(world: World, ids, lane: Lane = Lane.TRANSACTIONAL) -> list[UUID]:
    """What goes out when the time of all that waits has come."""
    await world.execute("UPDATE messages SET due_at = now() WHERE state = 'queued'")
    provider = Scripted()
    async with world.worker(provider, lane) as deliver:
        await deliver(ids[:1])
    return sorted(message.id for message in provider.sent)


async def replayed(world: World, *ids: UUID):
    async with world.database.connection() as c:
        return await replay(c, list(ids), 50)


async def test_what_has_failed_goes_once_more_and_arrives(world):
    ids = await fail(world, await world.people(3))
    done = await replayed(world, *ids)
    assert (done.queued, done.left, done.unheard_of) == (3, {}, [])
    assert await world.states(ids) == [("queued", None)] * 3
    assert await sent(world, ids) == sorted(ids)
    assert await world.states(ids) == [("accepted", None)] * 3
    assert await world.attempts(ids[0]) == [(1, "refused"), (2, "accepted")]


async def test_what_brought_workers_down_is_tried_as_often_again(world):
    (id_,) = await fail(world, await world.people(1))
    await world.execute("UPDATE messages SET claims = 3, tries = 5, reason = 'poison'")
    await replayed(world, id_)
    assert await world.one("SELECT (claims, tries)::text FROM messages") == "(0,0)"


async def test_who_has_said_no_meanwhile_gets_nothing(world):
    people = await world.people(1)
    ids = await fail(world, people)
    await world.withdraw(people, "all")
    await replayed(world, *ids)
    assert not await sent(world, ids)
    assert await world.states(ids) == [("suppressed", "withdrawn:all/any")]


async def test_a_dead_mailbox_stays_suppressed_until_that_is_lifted(world):
    ids = await fail(world, await world.people(1), outcome=BadAddress("550", "no such user"))
    await replayed(world, *ids)
    assert not await sent(world, ids)
    assert [state for state, _ in await world.states(ids)] == ["suppressed"]


@pytest.mark.parametrize("state", [state for state in State if state is not State.FAILED])
async def test_what_has_not_failed_is_left_as_it_is(world, state):
    (id_,) = await world.queue(await world.people(1))
    await in_state(world, id_, state)
    before = await world.one("SELECT messages::text FROM messages")
    done = await replayed(world, id_)
    assert done.left == {id_: Left.UNKNOWN if state is State.UNKNOWN else Left.NOT_FAILED}
    assert not done.queued
    assert await world.one("SELECT messages::text FROM messages") == before


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("has_expired", [True, False])
@pytest.mark.parametrize("is_called_back", [True, False])
@pytest.mark.parametrize("is_taken_over", [True, False])
async def test_nothing_goes_again_but_what_has_failed_and_is_still_wanted(
    state, has_expired, is_called_back, is_taken_over
):
    why = why_left(state, has_expired=has_expired, is_called_back=is_called_back, is_taken_over=is_taken_over)
    assert (why is None) == (state is State.FAILED and not (has_expired or is_called_back or is_taken_over))


async def test_what_has_expired_is_left(world):
    (id_,) = await fail(world, await world.people(1))
    await world.execute("UPDATE messages SET expires_at = now()")
    assert (await replayed(world, id_)).left == {id_: Left.EXPIRED}
    assert await world.states([id_]) == [("failed", "rejected:554")]


async def test_what_product_code_has_cancelled_since_it_failed_is_left(world):
    (id_,) = await fail(world, await world.people(1))
    await world.database.transact(lambda c: notifications.cancel(c, id_, [id_]))
    assert (await replayed(world, id_)).left == {id_: Left.CALLED_BACK}
    assert await world.states([id_]) == [("failed", "rejected:554")]


@pytest.mark.parametrize("state", ["queued", "claimed", "sending", "accepted", "unknown", "delivered", "complained"])
@pytest.mark.parametrize("order", [1, -1])
async def test_where_another_channel_of_its_route_goes_or_went_it_is_left(world, state, order):
    first, second = await fail(world, (await world.people(1)) * 2)
    await of_one_route(world, first, second)
    mine, other = (first, second)[::order]
    await in_state(world, other, state)
    assert (await replayed(world, mine)).left == {mine: Left.TAKEN_OVER}


@pytest.mark.parametrize("state", ["failed", "suppressed", "expired", "cancelled", "bounced"])
async def test_where_the_other_channel_came_to_nothing_it_goes(world, state):
    first, second = await fail(world, (await world.people(1)) * 2)
    await of_one_route(world, first, second)
    await in_state(world, second, state)
    assert (await replayed(world, first)).queued == 1


async def test_of_a_route_that_failed_on_every_channel_the_first_goes(world):
    first, second = await fail(world, (await world.people(1)) * 2)
    await of_one_route(world, first, second)
    done = await replayed(world, second, first)
    assert (done.queued, done.left) == (1, {second: Left.TAKEN_OVER})
    assert [state for state, _ in await world.states([first, second])] == ["queued", "failed"]


async def test_messages_that_are_for_every_channel_do_not_take_each_others_place(world):
    first, second = await fail(world, (await world.people(1)) * 2)
    await of_one_route(world, first, second)
    await world.execute("UPDATE messages SET step = 0, turn_at = NULL")
    await in_state(world, second, "accepted")
    assert (await replayed(world, first)).queued == 1


async def test_they_become_due_at_the_rate_over_several_pages_in_the_order_of_their_making(world, monkeypatch):
    monkeypatch.setattr(replaying, "PAGE", 4)
    ids = await fail(world, await world.people(10))
    which = Which(datetime.now(UTC) - HOUR, datetime.now(UTC) + HOUR)
    async with world.database.connection() as c:
        before = await world.one("SELECT clock_timestamp()")
        done = await replay_all(c, which, 0.01)
    assert done.queued == 10
    found = [await world.one("SELECT due_at FROM messages WHERE id = %s", id_) for id_ in ids]
    assert found == sorted(found)
    assert all(at >= before + timedelta(seconds=100 * place) for place, at in enumerate(found, start=1))


async def test_all_means_what_failed_since_then_of_that_template_channel_and_reason(world):
    people = await world.people(2)
    shipped = await fail(world, people)
    resets = await fail(world, people, MANDATORY)
    other = await fail(world, people, outcome=Rejected("571", "spam"))
    texts = await fail(world, people)
    await world.execute("UPDATE messages SET channel = 'sms' WHERE id = ANY(%s)", texts)
    await world.queue(people, due=3600)

    now = datetime.now(UTC)

    async def all_of(since=now - HOUR, until=now + HOUR, **narrowed) -> set[UUID]:
        async with world.database.connection() as c:
            return set(await replays.page(c, Which(since, until, **narrowed), None, 100))

    assert await all_of() == {*shipped, *resets, *other, *texts}
    assert await all_of(template=MANDATORY) == set(resets)
    assert await all_of(channel=Channel.SMS) == set(texts)
    assert await all_of(reason="rejected:571") == set(other)
    assert await all_of(template=TRANSACTIONAL, channel=Channel.EMAIL, reason="rejected:554") == set(shipped)
    assert await all_of(since=now + HOUR / 2) == set()
    assert await all_of(until=now - HOUR / 2) == set()


async def test_a_campaigns_message_goes_again_once_and_its_report_still_adds_up(world):
    people = await world.people(3)
    campaign = await world.campaign(people)
    async with world.worker(refused(), Lane.MARKETING) as deliver:
        await deliver(())
    async with world.database.connection() as c:
        assert await planning.finish(c, campaign)
        done = await replay_all(c, Which(datetime.now(UTC) - HOUR, datetime.now(UTC) + HOUR), 50)
    assert done.queued == 3
    await sent(world, (), Lane.MARKETING)
    assert await world.of_campaign(campaign) == dict.fromkeys(people, ("accepted", None))
    async with world.database.connection() as c:
        found = (await reporting.report(c, campaign)).people
    assert (found.audience, found.states) == (3, {State.ACCEPTED: 3})


async def test_a_cancelled_campaign_sends_nothing_more(world):
    campaign = await world.campaign(await world.people(1))
    async with world.worker(refused(), Lane.MARKETING) as deliver:
        await deliver(())
    await world.execute("UPDATE campaigns SET state = 'cancelled', ended_at = now()")
    async with world.database.connection() as c:
        await replay_all(c, Which(datetime.now(UTC) - HOUR, datetime.now(UTC) + HOUR), 50)
    assert not await sent(world, (), Lane.MARKETING)
    assert list((await world.of_campaign(campaign)).values()) == [("suppressed", "campaign_cancelled")]


# The commands ---------------------------------------------------------------------------------------------------------


async def test_what_has_failed_is_counted_by_template_channel_and_reason(world, run):
    people = await world.people(2)
    (expired, _) = await fail(world, people)
    await fail(world, people[:1], MANDATORY)
    await world.execute("UPDATE messages SET expires_at = now() WHERE id = %s", expired)
    done = await run("failed", "--since", "2026-01-01T00:00Z")
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["2", "email", TRANSACTIONAL, "rejected:554", "(1", "expired)"],
        ["1", "email", MANDATORY, "rejected:554"],
    ]
    assert (await run("failed", "--since", "1066-10-14T00:00Z")).stdout == done.stdout
    assert (await run("failed", "--since", "2026-01-01T00:00Z", "--channel", "push")).stdout == (
        "Nothing of this kind has failed.\n"
    )


async def test_those_named_are_queued_and_of_the_others_it_says_why_not(world, run):
    people = await world.people(1)
    (failed,) = await fail(world, people)
    (waiting,) = await world.queue(people, due=3600)
    done = await run("replay", str(failed), str(waiting), str(failed))
    assert done.exit_code == 0
    assert done.stdout.splitlines() == ["1 queued.", f"1 left: {Left.NOT_FAILED}.", f"  {waiting}"]
    unknown = new_id()
    again = await run("replay", str(failed), str(unknown))
    assert again.exit_code == 1
    assert again.stderr == f"notifier: there is no message {unknown}.\n"
    assert again.stdout.splitlines() == ["0 queued.", f"1 left: {Left.NOT_FAILED}.", f"  {failed}"]


async def test_those_that_are_left_stand_below_their_own_reason(world, run):
    late, other = await fail(world, await world.people(2))
    (waiting,) = await world.queue(await world.people(1, prefix="else"), due=3600)
    await world.execute("UPDATE messages SET expires_at = now() WHERE id = %s", late)
    done = await run("replay", late, waiting, other)
    assert done.stdout.splitlines()[0] == "1 queued."
    assert f"1 left: {Left.EXPIRED}.\n  {late}\n" in done.stdout
    assert f"1 left: {Left.NOT_FAILED}.\n  {waiting}\n" in done.stdout


async def test_all_that_failed_for_a_reason_is_queued_over_a_while(world, run):
    ids = await fail(world, await world.people(4))
    done = await run("replay", "--since", "2026-01-01T00:00Z", "--reason", "rejected:554", "--rate", "0.5")
    assert (done.exit_code, done.stdout) == (0, "4 queued, over 8 seconds.\n")
    assert await world.states(ids) == [("queued", None)] * 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "name messages, or --since with what narrows it"),
        ((str(UUID(int=5)), "--since", "2026-01-01T00:00Z"), "name messages, or --since with what narrows it"),
        ((str(UUID(int=5)), "--template", "x"), "name messages, or --since with what narrows it"),
        (("--since", "yesterday"), "Invalid value for --since"),
        (("--since", ""), "Invalid value for --since"),
        (("--since", "2026-01-01T00:00"), "Invalid value for --since"),
        (("--since", "2026-01-01T00:00Z", "--rate", "0"), "Invalid value for '--rate'"),
        (("nonsense",), "Invalid value for 'ID'"),
    ],
)
async def test_what_is_not_said_clearly_replays_nothing(world, run, words, said):
    ids = await fail(world, await world.people(1))
    done = await run("replay", *words)
    assert done.exit_code == 2
    assert said in done.stderr
    assert await world.states(ids) == [("failed", "rejected:554")]
