"""Reports may come twice, late, early and in any order: the same set of them always leads to the same place."""

from __future__ import annotations

import asyncio
import itertools
import random
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from notifier.dispatch.feedback import Feedback
from notifier.domain.consent import SuppressionReason
from notifier.store import events, orphans, suppressions
from notifier.store.database import Database
from notifier_channels.addresses import EmailAddress
from notifier_channels.contract import Ambiguous, Channel, DeliveryEvent, EventKind, Receipt, Unavailable
from tests.servers.town import HASHER, TOPICS, Town, new_id
from tests.world import Scripted, World, claim

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
DELIVERED, DEFERRED, BOUNCED, COMPLAINED = (
    EventKind.DELIVERED,
    EventKind.DEFERRED,
    EventKind.BOUNCED,
    EventKind.COMPLAINED,
)
numbers = itertools.count(1)


@pytest.fixture
async def town(database: Database) -> Town:
    return Town(database)


@pytest.fixture
async def feedback(database: Database) -> Feedback:
    return Feedback(database, HASHER, TOPICS)


def report(message: UUID, kind: EventKind, code: str | None = None, attempt: int | None = None) -> DeliveryEvent:
    number = next(numbers)
    return DeliveryEvent(message, kind, "smtp", f"r{number}", NOW + timedelta(seconds=number), attempt, code)


async def suppressed(town: Town, email: str) -> list[SuppressionReason]:
    hashed = HASHER.current(EmailAddress.parse(email, allow_test_domains=True))
    async with town.database.connection() as c:
        found = await suppressions.in_force(c, {(Channel.EMAIL, hashed.digest)})
    return [one.reason for one in found.get(hashed.digest, [])]


@pytest.mark.parametrize(
    ("kinds", "state"),
    [
        ([DELIVERED], "delivered"),
        ([DEFERRED], "accepted"),
        ([DEFERRED, DELIVERED], "delivered"),
        ([DELIVERED, BOUNCED], "bounced"),
        ([DEFERRED, BOUNCED], "bounced"),
        ([DELIVERED, COMPLAINED], "complained"),
        ([DEFERRED, DELIVERED, COMPLAINED], "complained"),
    ],
)
@pytest.mark.parametrize("start", ["accepted", "unknown", "sending"])
async def test_any_order_and_any_repeats_lead_to_the_same_place(feedback, town, kinds, state, start):
    for seed in range(4):
        person = await town.person(f"{new_id().hex}@one.test")
        message = await town.message(person, state=start)
        arriving = [report(message, kind, "5.1.1" if kind is BOUNCED else None) for kind in kinds] * 3
        random.Random(seed).shuffle(arriving)
        for one in arriving:
            assert await feedback([one]) == frozenset()
        if start == "sending":
            assert await town.state(message) == "sending"
            await settle(town, message)
        assert await town.state(message) == state
        assert len(await town.rows("SELECT 1 FROM delivery_events WHERE message_id = %s", (message,))) == len(kinds)
        assert len(await town.ledger(person)) == (COMPLAINED in kinds)


async def settle(town: Town, message: UUID, state: str = "accepted") -> None:
    """As deliver does: write the outcome, then apply what came early, in one transaction."""

    async def work(c):
        reason = "in_doubt" if state == "unknown" else None
        await c.execute(
            "UPDATE messages SET state = %s, reason = %s, worker_id = NULL WHERE id = %s", (state, reason, message)
        )
        await c.execute(
            "UPDATE attempts SET state = %s, settled_at = now() WHERE message_id = %s AND state <> 'superseded'",
            (state, message),
        )
        await events.apply_pending(c, [message])

    await town.database.transact(work)


async def test_a_batch_leads_where_its_reports_lead_one_by_one(feedback, town):
    people = [await town.person(f"p{n}@one.test") for n in range(6)]
    messages = [await town.message(person) for person in people]
    batch = [report(message, kind, "5.1.1") for message in messages for kind in (DELIVERED, DEFERRED)]
    batch += [report(messages[0], BOUNCED, "5.1.1"), report(messages[1], COMPLAINED)] * 2
    random.Random(1).shuffle(batch)
    await feedback(batch)
    states = [await town.state(message) for message in messages]
    assert states == ["bounced", "complained"] + ["delivered"] * 4


async def test_a_bounce_and_a_complaint_suppress_both_in_whatever_order(feedback, town):
    for kinds in ([BOUNCED, COMPLAINED], [COMPLAINED, BOUNCED]):
        email = f"{kinds[0]}@one.test"
        message = await town.message(await town.person(email))
        for kind in kinds:
            await feedback([report(message, kind, "5.1.1" if kind is BOUNCED else None)])
        assert set(await suppressed(town, email)) == {SuppressionReason.HARD_BOUNCE, SuppressionReason.COMPLAINT}
        assert await town.state(message) in ("bounced", "complained")


async def test_reports_at_the_same_time_are_taken_once_each(feedback, town):
    person = await town.person("ann@one.test")
    message = await town.message(person)
    reports = [report(message, DELIVERED), report(message, COMPLAINED)]
    await asyncio.gather(*(feedback([one]) for one in reports * 10))
    assert await town.state(message) == "complained"
    assert len(await town.ledger()) == 1


@pytest.mark.parametrize(
    ("code", "dead"),
    [
        ("550 5.1.1", True),
        ("5.1.10", True),
        ("5.2.1", True),
        ("552 5.2.2", False),
        ("550 5.7.1", False),
        ("550", False),
        (None, False),
    ],
)
async def test_only_a_bounce_that_proves_nobody_there_suppresses_the_address(feedback, town, code, dead):
    message = await town.message(await town.person("ann@one.test"))
    await feedback([report(message, BOUNCED, code)])
    assert await town.state(message) == "bounced"
    assert await suppressed(town, "ann@one.test") == ([SuppressionReason.HARD_BOUNCE] if dead else [])


async def test_a_complaint_binds_every_holder_and_stops_their_marketing(feedback, town):
    people = [await town.person("family@one.test") for _ in range(2)]
    stranger = await town.person("else@one.test")
    message = await town.message(people[0])
    waiting = [await town.message(person, state="queued") for person in (*people, stranger)]
    order = await town.message(people[1], "orders", "queued")
    await feedback([report(message, COMPLAINED)])
    assert {(line["recipient_id"], line["scope"], line["channel"], line["source"]) for line in await town.ledger()} == {
        (person, "marketing", "email", "complaint") for person in people
    }
    assert [await town.state(one) for one in waiting] == ["cancelled", "cancelled", "queued"]
    assert await town.state(order) == "queued"
    assert await suppressed(town, "family@one.test") == [SuppressionReason.COMPLAINT]


@pytest.mark.parametrize(
    ("topic", "scopes"),
    [
        ("newsletter", ["marketing"]),  # a provider knows none of our topics: its "all" must not become one of them
        ("orders", ["topic:orders"]),
        ("security", []),
        ("vanished", ["marketing"]),
    ],
)
async def test_a_provider_may_report_that_somebody_left_the_list(feedback, town, topic, scopes):
    person = await town.person("ann@one.test")
    await feedback([report(await town.message(person, topic), EventKind.UNSUBSCRIBED)])
    assert [(line["scope"], line["source"]) for line in await town.ledger()] == [(one, "provider") for one in scopes]


async def test_who_left_a_providers_list_gets_no_other_marketing_either(feedback, town):
    person = await town.person("ann@one.test")
    await town.execute(
        "INSERT INTO consents (number, recipient_id, scope, channel, granted, occurred_at)"
        " VALUES (1, %s, 'topic:offers', 'email', true, '2020-01-01Z')",
        (person,),
    )
    other, order = await town.message(person, "offers", "queued"), await town.message(person, "orders", "queued")
    await feedback([report(await town.message(person), EventKind.UNSUBSCRIBED)])
    assert [await town.state(one) for one in (other, order)] == ["cancelled", "queued"]


async def test_a_report_settles_doubt_and_the_attempt_it_names(feedback, town):
    message = await town.message(await town.person("ann@one.test"), state="unknown")
    await feedback([report(message, DELIVERED, attempt=1)])
    [row] = await town.rows("SELECT m.state, m.reason, a.state AS attempt FROM messages m JOIN attempts a ON true")
    assert row == {"state": "delivered", "reason": None, "attempt": "accepted"}


async def test_a_report_that_came_while_the_answer_was_lost_settles_the_doubt(feedback, town):
    message = await town.message(await town.person("ann@one.test"), state="sending")
    await feedback([report(message, DELIVERED)])
    await settle(town, message, "unknown")
    assert await town.state(message) == "delivered"


@pytest.mark.parametrize("outcome", [Receipt("ref"), Ambiguous("lost")], ids=["taken", "lost"])
async def test_a_report_that_overtakes_delivers_own_commit_is_applied_when_it_settles(database, tmp_path, outcome):
    world = World(database, tmp_path)
    feedback = Feedback(database, world.hasher, world.templates.topics)
    people = await world.people(1)
    [message] = await world.queue(people)

    class Hasty(Scripted):
        async def send(self, batch, witness):
            for one in batch:
                assert witness.about_to_commit(one.id)
                await feedback([report(one.id, DELIVERED)])
                witness.answered(one.id, outcome)
                yield one.id, outcome

    async with world.worker(Hasty()) as deliver:
        await deliver()
    assert await world.states([message]) == [("delivered", None)]


async def repeat_of(town: Town, *, state: str = "queued", was_tried: bool = False) -> UUID:
    """A message in doubt that is to be sent once more; its repeat may have been tried, and not taken."""
    message = await town.message(await town.person(f"{new_id().hex}@one.test"), "orders", "unknown")
    await town.execute(
        "UPDATE messages SET state = 'queued', due_at = now(), repeated = true WHERE id = %s", (message,)
    )
    if was_tried:
        await town.execute("UPDATE attempts SET state = 'superseded' WHERE message_id = %s", (message,))
        await attempt(town, message, 2, "not_taken")
    if state == "claimed":
        claim = "UPDATE messages SET state = 'claimed', due_at = NULL, worker_id = %s, claims = 1 WHERE id = %s"
        await town.execute(claim, (await town.a_worker(), message))
    return message


async def attempt(town: Town, message: UUID, n: int, state: str) -> None:
    await town.execute(
        "INSERT INTO attempts (message_id, n, worker_id, provider, state, settled_at)"
        " VALUES (%s, %s, %s, 'smtp', %s, now())",
        (message, n, await town.a_worker(), state),
    )


async def attempts(town: Town, message: UUID) -> list[str]:
    found = await town.rows("SELECT state FROM attempts WHERE message_id = %s ORDER BY n", (message,))
    return [row["state"] for row in found]


@pytest.mark.parametrize("state", ["queued", "claimed"])
@pytest.mark.parametrize("was_tried", [False, True])
@pytest.mark.parametrize(("kind", "after"), [(EventKind.SENT, "accepted"), (DELIVERED, "delivered")])
async def test_a_repeat_that_a_report_makes_needless_is_not_sent(feedback, town, state, was_tried, kind, after):
    message = await repeat_of(town, state=state, was_tried=was_tried)
    await feedback([report(message, kind, attempt=1)])
    assert await town.state(message) == after
    assert await attempts(town, message) == ["accepted", "not_taken"][: 1 + was_tried]
    [row] = await town.rows("SELECT due_at, worker_id, claims FROM messages")
    assert row == {"due_at": None, "worker_id": None, "claims": 0}


async def test_a_report_that_comes_in_a_backlog_keeps_a_text_from_being_doubled(database, tmp_path):
    world = World(database, tmp_path)
    feedback = Feedback(database, world.hasher, world.templates.topics)
    ids = await world.queue(await world.people(2))
    scripted = Scripted(lambda *_: Ambiguous("timeout"))
    async with world.worker(scripted) as deliver:
        await deliver(())
        await world.execute("UPDATE messages SET due_at = now()")
        await database.transact(lambda c: orphans.repeat_unknown(c, [Channel.EMAIL], 9))
        await feedback([report(ids[0], DELIVERED, attempt=1)])
        await deliver(())
    assert [one.id for one in scripted.sent] == [*ids, ids[1]]
    assert (await world.states(ids))[0] == ("delivered", None)


async def test_proof_that_comes_while_a_repeat_is_on_the_wire_keeps_it_from_leaving_a_third_time(database, tmp_path):
    world = World(database, tmp_path)
    feedback = Feedback(database, world.hasher, world.templates.topics)
    [message] = await world.queue(await world.people(1))

    class Hasty(Scripted):
        async def send(self, batch, witness):
            for one in batch:
                assert witness.about_to_commit(one.id)
                await feedback([report(one.id, DELIVERED, attempt=1)])
                yield one.id, Unavailable("451")

    async with world.worker(Scripted(lambda *_: Ambiguous("timeout"))) as deliver:
        await deliver(())
    await world.execute("UPDATE messages SET due_at = now()")
    await database.transact(lambda c: orphans.repeat_unknown(c, [Channel.EMAIL], 9))
    async with world.worker(Hasty()) as deliver:
        await deliver(())
    assert await world.states([message]) == [("delivered", None)]
    assert await world.attempts(message) == [(1, "accepted"), (2, "not_taken")]


async def test_a_claimed_repeat_that_a_report_makes_needless_does_not_pass_the_gate(database, tmp_path):
    world = World(database, tmp_path)
    feedback = Feedback(database, world.hasher, world.templates.topics)
    [message] = await world.queue(await world.people(1))
    async with world.worker(Scripted(lambda *_: Ambiguous("timeout"))) as deliver:
        await deliver(())
        await world.execute("UPDATE messages SET due_at = now()")
        await database.transact(lambda c: orphans.repeat_unknown(c, [Channel.EMAIL], 9))
        claimed = await claim(deliver)
        await feedback([report(message, DELIVERED, attempt=1)])
        assert await deliver._gate(claimed) == []
    assert await world.states([message]) == [("delivered", None)]
    assert await world.attempts(message) == [(1, "accepted")]


@pytest.mark.parametrize("state", ["queued", "sending", "unknown", "accepted", "delivered"])
async def test_a_superseded_attempt_that_bounced_says_nothing_of_its_repeat(feedback, town, state):
    message = await repeat_of(town, was_tried=state == "queued")
    if state != "queued":
        await town.execute("UPDATE attempts SET state = 'superseded'")
        await attempt(town, message, 2, state if state == "unknown" else "accepted")
        await move(town, message, state)
    await feedback([report(message, BOUNCED, "30003", attempt=1)])
    if state == "sending":
        await settle(town, message)
    assert await town.state(message) == {"sending": "accepted"}.get(state, state)
    assert len(await town.rows("SELECT 1 FROM delivery_events")) == 1
    if state in ("accepted", "delivered"):
        await feedback([report(message, BOUNCED, "30003", attempt=2)])
        assert await town.state(message) == "bounced"


async def move(town: Town, message: UUID, state: str) -> None:
    """On from `queued`, as one may."""
    worker = await town.a_worker()
    for step in ("claimed", "sending", *([state] if state != "sending" else [])):
        if step == "delivered":
            await town.execute("UPDATE messages SET state = 'accepted', worker_id = NULL WHERE id = %s", (message,))
        await town.execute(
            "UPDATE messages SET state = %(state)s, due_at = NULL, reason = 'for_a_test',"
            " worker_id = CASE WHEN %(state)s IN ('claimed', 'sending') THEN %(worker)s::int END WHERE id = %(id)s",
            {"state": step, "worker": worker, "id": message},
        )


@pytest.mark.parametrize("state", ["queued", "failed", "suppressed", "cancelled", "bounced", "complained"])
async def test_a_message_that_was_not_taken_stays_where_it_is(feedback, town, state):
    message = await town.message(await town.person("ann@one.test"), state=state)
    await feedback([report(message, DELIVERED)])
    assert await town.state(message) == state


async def test_reports_on_messages_we_do_not_know_are_named_and_the_rest_is_taken(feedback, town):
    message, unknown = await town.message(await town.person("ann@one.test")), new_id()
    assert await feedback([report(unknown, COMPLAINED), report(message, DELIVERED)]) == {unknown}
    assert await town.state(message) == "delivered"
    assert await town.ledger() == []
