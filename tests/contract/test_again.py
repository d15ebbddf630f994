"""What was taken and could not be delivered, for a cause that may pass, is sent once more: later, and not for ever."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from notifier.dispatch.explain import stories_of
from notifier.dispatch.feedback import Feedback
from notifier.dispatch.replay import replay
from notifier.domain import explanation
from notifier.store import orphans
from notifier.store.database import Database
from notifier_channels.contract import (
    Again,
    Ambiguous,
    Channel,
    DeliveryEvent,
    EventKind,
    Receipt,
    Rejected,
    Unavailable,
)
from tests.world import MARKETING, Scripted, World, claim, take

pytestmark = pytest.mark.anyio

SENT, DELIVERED, BOUNCED = EventKind.SENT, EventKind.DELIVERED, EventKind.BOUNCED
HALF_AN_HOUR = timedelta(minutes=30)
TWICE = Again(HALF_AN_HOUR, most=2)
DAY = timedelta(days=1)


@dataclass
class House:
    """One message at a time, and what is reported of it."""

    world: World
    provider: Scripted

    async def sent(self, key: str = "order-shipped", expires: timedelta = DAY) -> UUID:
        """A message that the provider has taken."""
        [message] = await self.world.queue(await self.world.people(1, prefix=uuid.uuid4().hex), key, expires=expires)
        await self.deliver(key)
        return message

    async def deliver(self, key: str = "order-shipped") -> None:
        """Everything that is due."""
        async with self.world.worker(self.provider, self.world.templates.find(key).topic.category) as deliver:
            await deliver()

    async def pass_by(self, time: timedelta) -> None:
        await self.world.execute("UPDATE messages SET due_at = due_at - %s WHERE due_at IS NOT NULL", time)

    async def report(self, message: UUID, kind: EventKind, n: int = 1, again: Again | None = None, code="30003"):
        await self.take([self.said(message, kind, n, again, code)])

    async def take(self, reports: Sequence[DeliveryEvent]) -> None:
        await Feedback(self.world.database, self.world.hasher, self.world.templates.topics)(reports)

    def said(self, message: UUID, kind: EventKind, n: int = 1, again: Again | None = None, code="30003"):
        source_id, now = str(uuid.uuid4()), datetime.now(UTC)
        return DeliveryEvent(message, kind, "scripted", source_id, now, n, code if again else None, again=again)

    async def state(self, message: UUID) -> tuple[str, str | None]:
        return (await self.world.states([message]))[0]

    async def attempts(self, message: UUID) -> list[str]:
        return [state for _, state in await self.world.attempts(message)]

    async def waits(self, message: UUID) -> timedelta:
        """How long it still waits, to the minute."""
        left = await self.world.one("SELECT due_at - now() FROM messages WHERE id = %s", message)
        return timedelta(minutes=round(left / timedelta(minutes=1)))

    async def told(self, message: UUID) -> list[tuple[str, str | None]]:
        """What product code hears of it."""
        query = "SELECT array_agg(array[type, detail] ORDER BY number) FROM outbox WHERE subject = %s"
        return [(kind, reason) for kind, reason in await self.world.one(query, message)]


@pytest.fixture
def house(database: Database, tmp_path) -> House:
    return House(World(database, tmp_path), Scripted())


async def test_what_came_back_waits_goes_again_and_ends_as_bounced_after_so_many_times(house):
    message = await house.sent()
    for n, wait in ((1, HALF_AN_HOUR), (2, 2 * HALF_AN_HOUR)):
        await house.report(message, BOUNCED, n, TWICE)
        assert await house.state(message) == ("queued", "came_back:30003")
        assert await house.waits(message) == wait
        await house.deliver()
        assert len(house.provider.sent) == n
        await house.pass_by(wait)
        await house.deliver()
        assert await house.state(message) == ("accepted", None)
    await house.report(message, BOUNCED, 3, TWICE)
    assert await house.state(message) == ("bounced", "bounced:30003")
    assert await house.attempts(message) == ["bounced", "bounced", "accepted"]
    assert [one.attempt for one in house.provider.sent] == [1, 2, 3]
    assert await house.told(message) == [
        ("message.accepted", None),
        ("message.deferred", "came_back:30003"),
        ("message.accepted", None),
        ("message.deferred", "came_back:30003"),
        ("message.accepted", None),
        ("message.bounced", "bounced:30003"),
    ]


async def test_the_second_time_it_may_arrive(house):
    message = await house.sent()
    await house.report(message, BOUNCED, 1, TWICE)
    await house.pass_by(HALF_AN_HOUR)
    await house.deliver()
    await house.report(message, DELIVERED, 2)
    assert await house.state(message) == ("delivered", None)


async def test_reports_that_come_at_once_and_twice_queue_it_once(house):
    message = await house.sent()
    reports = [house.said(message, BOUNCED, 1, TWICE), house.said(message, BOUNCED, 1, TWICE)]
    await asyncio.gather(*(house.take([one]) for one in reports * 5))
    assert await house.attempts(message) == ["bounced"]
    assert await house.waits(message) == HALF_AN_HOUR
    assert [kind for kind, _ in await house.told(message)] == ["message.accepted", "message.deferred"]
    await house.pass_by(HALF_AN_HOUR)
    await house.deliver()
    await asyncio.gather(*(house.take([one]) for one in reports), house.report(message, BOUNCED, 1, TWICE))
    assert await house.state(message) == ("accepted", None)


async def test_what_bounced_for_good_does_not_go_again(house):
    [plain, last, mixed, short, other] = [await house.sent() for _ in range(5)]
    await house.report(plain, BOUNCED)
    await house.report(last, BOUNCED, 1, Again(HALF_AN_HOUR, most=0))
    await house.world.execute("UPDATE messages SET expires_at = now() + %s WHERE id = %s", HALF_AN_HOUR, short)
    await house.report(short, BOUNCED, 1, TWICE)
    await house.take([house.said(mixed, BOUNCED, 1, TWICE), house.said(mixed, BOUNCED, 1)])
    await house.report(other, BOUNCED, 7, TWICE)  # of an attempt that is not the one that was taken
    assert {(await house.state(one))[0] for one in (plain, last, mixed, short, other)} == {"bounced"}
    assert {tuple(await house.attempts(one)) for one in (plain, last, mixed, short, other)} == {("accepted",)}


async def test_marketing_does_not_go_again(house):
    """I4: at most once."""
    message = await house.sent(MARKETING)
    await house.report(message, BOUNCED, 1, TWICE)
    assert await house.state(message) == ("bounced", "bounced:30003")


async def test_where_another_channel_is_next_it_has_its_turn_instead(house):
    message = await house.sent()
    await house.world.execute("UPDATE messages SET is_followed = true")
    await house.report(message, BOUNCED, 1, TWICE)
    assert await house.state(message) == ("bounced", "bounced:30003")


async def test_one_that_arrived_all_the_same_is_delivered_in_whatever_order_that_is_reported(house):
    for order in itertools.permutations(range(3)):
        message = await house.sent()
        reports = [house.said(message, SENT), house.said(message, BOUNCED, 1, TWICE), house.said(message, DELIVERED)]
        for place in (*order, *order):
            await house.take([reports[place]])
        assert await house.state(message) == ("delivered", None)
        assert await house.world.one("SELECT due_at FROM messages WHERE id = %s", message) is None
    at_once = await house.sent()
    await house.take([house.said(at_once, BOUNCED, 1, TWICE), house.said(at_once, DELIVERED)])
    assert await house.state(at_once) == ("delivered", None)


async def test_a_late_sent_does_not_take_it_out_of_the_queue(house):
    message = await house.sent()
    await house.report(message, BOUNCED, 1, TWICE)
    await house.report(message, SENT)
    assert (await house.state(message))[0] == "queued"


async def test_one_that_arrived_all_the_same_does_not_pass_the_gate(house):
    message = await house.sent()
    await house.report(message, BOUNCED, 1, TWICE)
    await house.pass_by(HALF_AN_HOUR)
    async with house.world.worker(house.provider) as deliver:
        claimed = await claim(deliver)
        assert [one.id for one in claimed] == [message]
        await house.report(message, DELIVERED)
        assert await deliver._gate(claimed) == []
    assert await house.state(message) == ("delivered", None)
    assert len(house.provider.sent) == 1


@pytest.mark.parametrize("outcome", [Receipt("r2"), Unavailable("451"), Ambiguous("lost")])
async def test_that_the_first_arrived_is_heard_while_the_second_is_on_the_wire(house, outcome):
    message = await house.sent()
    await house.report(message, BOUNCED, 1, TWICE)
    await house.pass_by(HALF_AN_HOUR)

    class Hasty(Scripted):
        async def send(self, batch, witness):
            for one in batch:
                assert witness.about_to_commit(one.id)
                await house.report(one.id, DELIVERED)
                yield one.id, outcome

    async with house.world.worker(Hasty()) as deliver:
        await deliver()
    assert await house.state(message) == ("delivered", None)


@pytest.mark.parametrize("outcome", [Receipt("r1"), Ambiguous("lost")])
async def test_a_report_that_overtakes_our_own_commit_queues_it_when_it_settles(house, outcome):
    class Hasty(Scripted):
        async def send(self, batch, witness):
            for one in batch:
                assert witness.about_to_commit(one.id)
                await house.report(one.id, BOUNCED, 1, TWICE)
                yield one.id, outcome

    house.provider = Hasty()
    message = await house.sent()
    assert await house.state(message) == ("queued", "came_back:30003")
    assert await house.attempts(message) == ["bounced"]


async def test_what_was_reported_of_the_first_does_not_settle_doubt_about_the_second(house):
    message = await house.sent()
    await house.report(message, SENT)
    await house.report(message, BOUNCED, 1, TWICE)
    await house.pass_by(HALF_AN_HOUR)
    house.provider.script = lambda *_: Ambiguous("lost")
    await house.deliver()
    await house.report(message, SENT)
    assert (await house.state(message))[0] == "unknown"
    assert await house.attempts(message) == ["bounced", "unknown"]
    await house.report(message, SENT, 2)
    assert await house.state(message) == ("accepted", None)
    await house.report(message, BOUNCED, 2, TWICE)
    assert await house.attempts(message) == ["bounced", "bounced"]


async def test_the_repeat_of_a_doubt_may_come_back_as_well(house):
    house.provider.script = lambda *_: Ambiguous("lost")
    message = await house.sent()
    await house.pass_by(timedelta(minutes=1))
    await house.world.database.transact(lambda c: orphans.repeat_unknown(c, [Channel.EMAIL], 9))
    house.provider.script = take
    await house.deliver()
    await house.report(message, SENT, 2)
    await house.report(message, BOUNCED, 2, TWICE)
    await house.report(message, BOUNCED, 2, TWICE)
    assert await house.state(message) == ("queued", "came_back:30003")
    assert await house.attempts(message) == ["superseded", "bounced"]


async def in_doubt_once(house) -> UUID:
    """A message whose first try is in doubt, and whose repeat is due."""
    house.provider.script = lambda *_: Ambiguous("lost")
    message = await house.sent()
    await house.pass_by(timedelta(minutes=1))
    await house.world.database.transact(lambda c: orphans.repeat_unknown(c, [Channel.EMAIL], 9))
    return message


async def replayed(house, message) -> int:
    """An operator queues it, if it has failed, and it is due: how many more times it was handed to the provider."""
    async with house.world.database.connection() as c:
        await replay(c, [message], 50.0)
    before = len(house.provider.sent)
    await house.pass_by(timedelta(minutes=1))
    await house.deliver()
    return len(house.provider.sent) - before


@pytest.mark.parametrize("kind", [SENT, DELIVERED])
@pytest.mark.parametrize("is_early", [True, False])
async def test_a_repeat_that_was_refused_does_not_hide_that_the_first_was_taken_and_no_replay_doubles_it(
    house, kind, is_early
):
    """The report of the first comes while the second is on the wire, or after that was refused."""
    message = await in_doubt_once(house)

    class Refusing(Scripted):
        async def send(self, batch, witness):  # noqa: ARG002
            for one in batch:
                self.sent.append(one)
                if is_early:
                    await house.report(message, kind, 1)
                yield one.id, Rejected("554")

    house.provider = Refusing()
    await house.deliver()
    if not is_early:
        assert await house.state(message) == ("failed", "rejected:554")
        await house.report(message, kind, 1)
    assert await house.state(message) == ("accepted" if kind is SENT else "delivered", None)
    assert await house.attempts(message) == ["accepted", "refused"]
    assert await replayed(house, message) == 0


async def test_what_came_back_was_refused_the_next_time_and_arrived_after_all_is_delivered(house):
    message = await house.sent()
    await house.report(message, BOUNCED, 1, TWICE)
    await house.pass_by(HALF_AN_HOUR)
    house.provider.script = lambda *_: Rejected("554")
    await house.deliver()
    assert await house.state(message) == ("failed", "rejected:554")
    await house.report(message, SENT, 1)
    assert await house.state(message) == ("failed", "rejected:554")
    await house.report(message, DELIVERED, 1)
    assert await house.state(message) == ("delivered", None)


async def test_a_report_that_the_first_came_back_leaves_it_failed_and_a_replay_sends_it(house):
    message = await in_doubt_once(house)
    house.provider.script = lambda *_: Rejected("554")
    await house.deliver()
    await house.report(message, BOUNCED, 1)
    assert await house.state(message) == ("failed", "rejected:554")
    house.provider.script = take
    assert await replayed(house, message) == 1
    assert await house.state(message) == ("accepted", None)


async def test_the_gate_decides_anew(house):
    """I2, I6: a no that came while it waited holds."""
    [cancelled, suppressed] = [await house.sent() for _ in range(2)]
    people = {one: await house.world.one("SELECT recipient_id FROM messages WHERE id = %s", one)
              for one in (cancelled, suppressed)}  # fmt: skip
    for message in people:
        await house.report(message, BOUNCED, 1, TWICE)
    await house.world.withdraw_and_cancel([people[cancelled]], "all", "any")
    await house.world.withdraw([people[suppressed]], "all")
    await house.pass_by(HALF_AN_HOUR)
    await house.deliver()
    assert [(await house.state(one))[0] for one in people] == ["cancelled", "suppressed"]
    assert len(house.provider.sent) == 2
    await house.report(cancelled, DELIVERED)
    assert (await house.state(cancelled))[0] == "cancelled"


async def test_it_is_explained(house):
    message = await house.sent()
    await house.report(message, BOUNCED, 1, TWICE)
    async with house.world.database.connection() as c:
        [story] = await stories_of(c, house.world.hasher, message)
    said = explanation.explain(story)
    assert said.answer.startswith(
        "It was sent, but it did not arrive. It is waiting to be sent once more. It is due on "
    )
    assert said.why[-1] == "It did not arrive, for a reason that may pass; it is tried again. (30003)"
    assert [fact.text for fact in said.happened][1:] == [
        "Attempt 1 through scripted: the provider took it, and it did not arrive (250).",
        "scripted reported: came back (30003).",
    ]
