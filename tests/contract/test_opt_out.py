"""A no through a link binds everybody it should, once, and only what was allowed comes back."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from notifier.dispatch.opt_out import Choice, NotRefusable, NotRestored, OptOut, Refused, Restored, Way
from notifier.dispatch.preferences import PreferencePage, Wished
from notifier.domain.consent import judge
from notifier.domain.recipients import Hasher
from notifier.domain.tokens import Links
from notifier.store import consent, recipients
from notifier.store.consent import NewEvent
from notifier.store.database import Database
from notifier_channels.contract import Channel
from tests.servers.town import HASHER, TOPICS, Town

pytestmark = pytest.mark.anyio

EVIDENCE = {"wording": "Unsubscribe", "ip": "203.0.113.0"}


class Clock:
    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def links() -> Links:
    return Links({"k1": b"k" * 32}, "http://n.test", None)


@pytest.fixture
async def town(database: Database) -> Town:
    return Town(database)


@pytest.fixture
async def opt_out(database: Database, links: Links, clock: Clock) -> OptOut:
    return OptOut(database, links, HASHER, TOPICS, clock)


def link_to(opt_out: OptOut, person: UUID, message: UUID, topic: str = "newsletter"):
    url = opt_out.links.unsubscribe_url(person, topic, Channel.EMAIL, message)
    link = opt_out.read(url.rpartition("/")[2])
    assert link is not None
    return link


async def one_click(opt_out: OptOut, person: UUID, message: UUID, topic: str = "newsletter"):
    return await opt_out(link_to(opt_out, person, message, topic), None, Way.ONE_CLICK, EVIDENCE)


async def record(town: Town, *events: NewEvent) -> list[int]:
    async def work(c):
        await recipients.lock(c, [event.recipient for event in events])
        return await consent.record(c, events)

    return await town.database.transact(work)


def yes(person: UUID, scope: str, expires_at: datetime | None = None) -> NewEvent:
    return NewEvent(person, scope, "email", granted=True, source="api", expires_at=expires_at)


def no(person: UUID, scope: str) -> NewEvent:
    return NewEvent(person, scope, "email", granted=False, source="api")


async def is_allowed(town: Town, person: UUID, topic: str) -> bool:
    async with town.database.connection() as c:
        events = await consent.events_of(c, [person])
    return judge(TOPICS[topic], Channel.EMAIL, events[person], datetime.now(UTC))[0]


async def test_one_click_withdraws_the_messages_topic_and_says_on_what_evidence(opt_out, town):
    person = await town.person("ann@one.test")
    message = await town.message(person)
    answer = await one_click(opt_out, person, message)
    assert isinstance(answer, Refused)
    [line] = await town.ledger()
    assert (line["recipient_id"], line["scope"], line["channel"]) == (person, "topic:newsletter", "email")
    assert (line["granted"], line["source"]) == (False, "one_click")
    assert line["evidence"] == {**EVIDENCE, "message": str(message), "topic": "newsletter", "allowed_before": True}


async def test_what_waits_in_its_scope_is_cancelled_and_nothing_else(opt_out, town):
    person = await town.person("ann@one.test")
    message = await town.message(person)
    waiting, order = await town.message(person, state="queued"), await town.message(person, "orders", "queued")
    other = await town.message(await town.person("bob@one.test"), state="queued")
    await one_click(opt_out, person, message)
    assert [await town.state(one) for one in (waiting, order, other)] == ["cancelled", "queued", "queued"]


@pytest.mark.parametrize(
    ("choice", "refused"),
    [
        (Choice.TOPIC, {"newsletter"}),
        (Choice.MARKETING, {"newsletter", "offers"}),
        (Choice.ALL, {"newsletter", "offers", "orders"}),
    ],
)
async def test_each_choice_of_the_page_stops_what_it_says(opt_out, town, choice, refused):
    person = await town.person("ann@one.test")
    await record(town, yes(person, "topic:offers"))
    message = await town.message(person)
    await opt_out(link_to(opt_out, person, message), choice, Way.PAGE, EVIDENCE)
    assert {topic for topic in TOPICS if not await is_allowed(town, person, topic)} == refused


async def test_everybody_who_holds_the_address_is_bound_whatever_key_hashed_it(database, links, town):
    rotated = Hasher({"h2": b"2" * 32, "h1": b"h" * 32})
    opt_out = OptOut(database, links, rotated, TOPICS)
    person = await town.person("family@one.test")
    same = await town.person("Family@ONE.test")
    newer = await town.person()
    await town.address(newer, "family@one.test", rotated)
    stranger, former = await town.person("else@one.test"), await town.person("family@one.test")
    await town.execute("UPDATE addresses SET removed_at = now() WHERE recipient_id = %s", (former,))
    await one_click(opt_out, person, await town.message(person))
    assert {line["recipient_id"] for line in await town.ledger()} == {person, same, newer}
    assert await town.ledger(stranger) == []


async def test_whoever_takes_on_the_address_while_a_no_waits_its_turn_is_bound_too(opt_out, town):
    person, late = await town.person("ann@one.test"), await town.person()
    message = await town.message(person)
    async with town.database.connection() as c, c.transaction():
        await recipients.lock(c, [person])
        click = asyncio.create_task(one_click(opt_out, person, message))
        while not await town.rows("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"):
            await asyncio.sleep(0.01)
        await town.address(late, "ann@one.test")
    await click
    assert {line["recipient_id"] for line in await town.ledger()} == {person, late}


async def test_whoever_the_link_names_is_bound_though_they_moved_on(opt_out, town):
    person = await town.person("old@one.test")
    message = await town.message(person)
    await town.execute("UPDATE addresses SET removed_at = now() WHERE recipient_id = %s", (person,))
    await town.address(person, "new@one.test")
    now_there = await town.person("old@one.test")
    await one_click(opt_out, person, message)
    assert {line["recipient_id"] for line in await town.ledger()} == {person, now_there}


async def test_a_link_to_a_message_that_is_long_gone_still_binds_its_recipient(opt_out, town):
    person = await town.person("ann@one.test")
    message = await town.message(person)
    await town.execute("DELETE FROM messages")
    assert isinstance(await one_click(opt_out, person, message), Refused)
    assert [line["recipient_id"] for line in await town.ledger()] == [person]


async def test_a_link_made_for_somebody_nameless_binds_whoever_adopted_them(opt_out, town):
    person = await town.person("ann@one.test")
    nameless = await town.person(merged_into=person)
    await one_click(opt_out, nameless, UUID(int=7))
    assert [line["recipient_id"] for line in await town.ledger()] == [person]


async def test_a_link_of_a_vanished_topic_withdraws_marketing(opt_out, town):
    person = await town.person("ann@one.test")
    answer = await one_click(opt_out, person, await town.message(person, "retired"), "retired")
    assert isinstance(answer, Refused)
    assert answer.scope == "marketing"
    assert [line["scope"] for line in await town.ledger()] == ["marketing"]


async def test_a_mandatory_topic_cannot_be_refused_and_a_transactional_one_can(opt_out, town):
    person = await town.person("ann@one.test")
    assert isinstance(
        await one_click(opt_out, person, await town.message(person, "security"), "security"), NotRefusable
    )
    assert await town.ledger() == []
    await one_click(opt_out, person, await town.message(person, "orders"), "orders")
    assert [line["scope"] for line in await town.ledger()] == ["topic:orders"]


async def test_a_preference_link_refuses_on_every_channel_for_its_person_alone(opt_out, town):
    person, same = await town.person("ann@one.test"), await town.person("ann@one.test")
    link = opt_out.read(opt_out.links.fresh_url(person, opt_out.now()).rpartition("/")[2])
    await opt_out(link, Choice.TOPIC, Way.PAGE, EVIDENCE)
    assert [(line["scope"], line["channel"]) for line in await town.ledger(person)] == [("marketing", "any")]
    assert await town.ledger(same) == []


async def test_a_link_of_nobody_does_nothing(opt_out, town):
    assert await one_click(opt_out, UUID(int=1), UUID(int=2)) is None
    assert await opt_out.look(link_to(opt_out, UUID(int=1), UUID(int=2))) is None


async def test_repeats_write_no_second_line_even_twenty_at_once(opt_out, town):
    people = [await town.person("family@one.test") for _ in range(3)]
    message = await town.message(people[0])
    answers = await asyncio.gather(*(one_click(opt_out, people[0], message) for _ in range(20)))
    assert all(isinstance(answer, Refused) for answer in answers)
    assert len(await town.ledger()) == 3


async def test_two_links_whose_people_overlap_do_not_block_each_other(opt_out, town):
    people = [await town.person("a@one.test", "b@one.test") for _ in range(4)]
    messages = [await town.message(person) for person in people]
    answers = await asyncio.gather(
        *(one_click(opt_out, person, message) for person, message in [*zip(people, messages, strict=True)] * 5)
    )
    assert all(isinstance(answer, Refused) for answer in answers)


async def test_a_no_after_a_later_yes_is_written_again(opt_out, town):
    person = await town.person("ann@one.test")
    message = await town.message(person)
    await one_click(opt_out, person, message)
    await record(town, yes(person, "topic:newsletter"))
    await one_click(opt_out, person, message)
    assert [line["granted"] for line in await town.ledger()] == [False, True, False]
    assert not await is_allowed(town, person, "newsletter")


async def test_a_no_that_is_said_again_later_beats_a_yes_from_in_between_that_becomes_known_afterwards(opt_out, town):
    person, today = await town.person("ann@one.test"), datetime.now(UTC)
    message = await town.message(person)
    on_paper = NewEvent(person, "topic:newsletter", "email", True, "import", today - timedelta(days=60))
    await record(town, NewEvent(person, "topic:newsletter", "email", False, "api", today - timedelta(days=90)))
    for _ in range(2):
        assert (await one_click(opt_out, person, message)).undo is None
    await record(town, on_paper)
    assert not await is_allowed(town, person, "newsletter")
    assert [line["source"] for line in await town.ledger()] == ["api", "one_click", "import"]


async def test_all_marketing_is_written_again_when_a_topic_was_granted_since(opt_out, town):
    person = await town.person("ann@one.test")
    message = await town.message(person)
    await opt_out(link_to(opt_out, person, message), Choice.MARKETING, Way.PAGE, EVIDENCE)
    await record(town, yes(person, "topic:newsletter"))
    await opt_out(link_to(opt_out, person, message), Choice.MARKETING, Way.PAGE, EVIDENCE)
    assert not await is_allowed(town, person, "newsletter")


async def test_looking_changes_nothing(opt_out, town):
    person = await town.person("ann@one.test", locale="de-AT")
    message = await town.message(person)
    waiting = await town.message(person, state="queued")
    sight = await opt_out.look(link_to(opt_out, person, message))
    assert (sight.masked, sight.locale, sight.refused) == ("a…@o….test", "de-AT", False)
    assert await town.ledger() == []
    assert await town.state(waiting) == "queued"
    await one_click(opt_out, person, message)
    assert (await opt_out.look(link_to(opt_out, person, message))).refused


# Undo


async def undo(opt_out: OptOut, person: UUID, message: UUID, answer: Refused, topic: str = "newsletter"):
    assert answer.undo is not None
    return await opt_out.undo(link_to(opt_out, person, message, topic), answer.undo, EVIDENCE)


@pytest.mark.parametrize("choice", Choice)
async def test_an_undo_brings_back_for_every_holder_exactly_what_was_allowed(opt_out, town, choice):
    person, same = await town.person("ann@one.test"), await town.person("ann@one.test")
    await record(town, yes(person, "topic:offers"), no(same, "topic:orders"))
    message = await town.message(person)
    before = [(await is_allowed(town, one, topic)) for one in (person, same) for topic in TOPICS]
    answer = await opt_out(link_to(opt_out, person, message), choice, Way.PAGE, EVIDENCE)
    assert isinstance(await undo(opt_out, person, message, answer), Restored)
    assert [(await is_allowed(town, one, topic)) for one in (person, same) for topic in TOPICS] == before
    grants = [line for line in await town.ledger() if line["granted"] and line["source"] == "unsubscribe_page"]
    withdrawn = [line for line in await town.ledger() if not line["granted"] and line["source"] == "unsubscribe_page"]
    key = ("recipient_id", "scope", "channel")
    assert [[one[k] for k in key] for one in grants] == [[one[k] for k in key] for one in withdrawn]
    assert [one["evidence"]["undoes"] for one in grants] == [one["number"] for one in withdrawn]


async def test_an_undo_never_allows_what_was_not_allowed(opt_out, town):
    person, willing = await town.person("ann@one.test"), await town.person("ann@one.test")
    await record(town, yes(willing, "topic:offers"))
    message = await town.message(person, "offers")
    answer = await one_click(opt_out, person, message, "offers")
    assert isinstance(await undo(opt_out, person, message, answer, "offers"), Restored)
    assert not await is_allowed(town, person, "offers")
    assert await is_allowed(town, willing, "offers")


async def test_an_adopters_copy_of_a_no_offers_no_undo_since_the_adopter_may_have_refused_before(opt_out, town):
    person, message = await town.person("ann@one.test"), UUID(int=7)
    nameless = await town.person(merged_into=person)
    await record(town, no(person, "marketing"))
    said = {"message": str(message), "topic": "newsletter", "allowed_before": True, "adopted_from": 1}
    copy = NewEvent(person, "marketing", "email", granted=False, source="unsubscribe_page", evidence=said)
    await record(town, copy)
    answer = await opt_out(link_to(opt_out, nameless, message), Choice.MARKETING, Way.PAGE, EVIDENCE)
    assert isinstance(answer, Refused)
    assert answer.undo is None


async def test_nothing_to_bring_back_means_no_undo(opt_out, town):
    person = await town.person("ann@one.test")
    answer = await one_click(opt_out, person, await town.message(person, "offers"), "offers")
    assert isinstance(answer, Refused)
    assert answer.undo is None


async def test_an_undo_of_marketing_does_not_revive_an_older_refusal(opt_out, town):
    person = await town.person("ann@one.test")
    await record(town, no(person, "marketing"))
    await record(town, yes(person, "topic:newsletter"))
    answer = await opt_out(link_to(opt_out, person, await town.message(person)), Choice.MARKETING, Way.PAGE, EVIDENCE)
    assert answer.undo is None


async def test_an_undo_does_not_overrule_a_wider_no_said_since(opt_out, town):
    person = await town.person("ann@one.test")
    message = await town.message(person)
    narrow = await one_click(opt_out, person, message)
    await opt_out(link_to(opt_out, person, message), Choice.MARKETING, Way.PAGE, EVIDENCE)
    assert isinstance(await undo(opt_out, person, message, narrow), NotRestored)
    assert not await is_allowed(town, person, "newsletter")


async def test_an_undo_does_not_overrule_the_same_no_said_again(opt_out, town):
    person = await town.person("ann@one.test")
    message = await town.message(person)
    first = await one_click(opt_out, person, message)
    await record(town, yes(person, "topic:newsletter"), no(person, "topic:newsletter"))
    assert isinstance(await undo(opt_out, person, message, first), NotRestored)
    assert not await is_allowed(town, person, "newsletter")


async def test_an_undo_lasts_no_longer_than_the_grant_it_brings_back(opt_out, town):
    person = await town.person("ann@one.test")
    end = datetime.now(UTC) + timedelta(days=3)
    await record(town, yes(person, "topic:offers", end))
    message = await town.message(person, "offers")
    answer = await one_click(opt_out, person, message, "offers")
    await undo(opt_out, person, message, answer, "offers")
    assert (await town.ledger())[-1]["expires_at"] == end


async def test_an_undo_ends_after_an_hour_and_works_for_its_own_link_only(opt_out, town, clock):
    person, other = await town.person("ann@one.test"), await town.person("bob@one.test")
    message = await town.message(person)
    answer = await one_click(opt_out, person, message)
    foreign = link_to(opt_out, other, await town.message(other))
    assert isinstance(await opt_out.undo(foreign, answer.undo, EVIDENCE), NotRestored)
    clock.ahead = timedelta(hours=1, seconds=1)
    assert isinstance(await undo(opt_out, person, message, answer), NotRestored)
    again = await one_click(opt_out, person, message)
    assert again.undo is None
    assert len(await town.ledger()) == 1


async def test_a_preference_link_does_not_undo_what_another_persons_link_said(opt_out, town):
    ann, bob = await town.person("ann@one.test"), await town.person("bob@one.test")
    own, foreign = (opt_out.read(opt_out.links.fresh_url(one, opt_out.now()).rpartition("/")[2]) for one in (ann, bob))
    answer = await opt_out(own, Choice.MARKETING, Way.PAGE, EVIDENCE)
    assert isinstance(await opt_out.undo(foreign, answer.undo, EVIDENCE), NotRestored)
    assert isinstance(await opt_out.undo(own, answer.undo, EVIDENCE), Restored)


async def test_a_preference_link_offers_no_undo_of_what_another_one_of_its_person_said(opt_out, town):
    person, now = await town.person("ann@one.test"), opt_out.now()
    passed_on, other = [
        opt_out.links.preferences_url(person, await town.message(person), now - timedelta(days=3)) for _ in range(2)
    ]
    asked_for = opt_out.links.fresh_url(person, now)
    own, *strange = (opt_out.read(url.rpartition("/")[2]) for url in (asked_for, passed_on, other))
    page = PreferencePage(town.database, opt_out.links, HASHER, TOPICS)
    saved = await page.save(own, Wished({"marketing/any": False}), lambda _: EVIDENCE)
    for one in strange:
        assert (await opt_out(one, Choice.MARKETING, Way.PAGE, EVIDENCE)).undo is None
        assert isinstance(await opt_out.undo(one, saved.undo, EVIDENCE), NotRestored)
    assert not await is_allowed(town, person, "newsletter")
    assert (await opt_out(own, Choice.MARKETING, Way.PAGE, EVIDENCE)).undo
    assert isinstance(await opt_out.undo(own, saved.undo, EVIDENCE), Restored)


async def test_one_undo_takes_back_a_topic_and_all_marketing_that_one_form_refused(opt_out, town):
    person = await town.person("ann@one.test")
    await record(town, no(person, "topic:orders"))
    link = opt_out.read(opt_out.links.fresh_url(person, opt_out.now()).rpartition("/")[2])
    page = PreferencePage(town.database, opt_out.links, HASHER, TOPICS)
    off = {"topic:newsletter/email": False, "marketing/any": False, "topic:orders/email": False}
    saved = await page.save(link, Wished(off), lambda _: EVIDENCE)
    assert isinstance(await opt_out.undo(link, saved.undo, EVIDENCE), Restored)
    assert [await is_allowed(town, person, topic) for topic in ("newsletter", "orders")] == [True, False]


async def test_nothing_is_called_restored_for_somebody_nameless_who_was_adopted_meanwhile(opt_out, town):
    adopter, nameless = await town.person(), await town.person("ann@one.test")
    message = await town.message(nameless)
    answer = await one_click(opt_out, nameless, message)
    await town.execute("UPDATE recipients SET external_id = NULL, merged_into = %s WHERE id = %s", (adopter, nameless))
    [said] = await town.ledger()
    await record(town, NewEvent(adopter, said["scope"], said["channel"], False, said["source"], said["occurred_at"]))
    assert isinstance(await undo(opt_out, nameless, message, answer), NotRestored)
    assert not await is_allowed(town, adopter, "newsletter")
    assert [line["granted"] for line in await town.ledger()] == [False, False]


async def test_an_undo_takes_back_only_what_its_own_link_said(opt_out, town):
    """Even a token that names other lines, signed with our key."""
    person = await town.person("ann@one.test")
    message, other = await town.message(person), await town.message(person)
    elsewhere = await record(town, no(person, "topic:orders"))
    await one_click(opt_out, person, other)
    numbers = [line["number"] for line in await town.ledger()]
    assert set(elsewhere) < set(numbers)
    token = opt_out.links.undo_token(person, numbers, opt_out.now())
    assert isinstance(await opt_out.undo(link_to(opt_out, person, message), token, EVIDENCE), NotRestored)
    assert len(await town.ledger()) == 2


async def test_a_second_click_keeps_the_undo_and_a_second_undo_says_the_same(opt_out, town):
    person = await town.person("ann@one.test")
    message = await town.message(person)
    await one_click(opt_out, person, message)
    again = await one_click(opt_out, person, message)
    assert isinstance(await undo(opt_out, person, message, again), Restored)
    assert isinstance(await undo(opt_out, person, message, again), Restored)
    assert [line["granted"] for line in await town.ledger()] == [False, True]


async def test_a_click_does_not_offer_to_undo_what_was_refused_elsewhere(opt_out, town):
    person = await town.person("ann@one.test")
    await record(town, no(person, "topic:newsletter"))
    answer = await one_click(opt_out, person, await town.message(person))
    assert isinstance(answer, Refused)
    assert answer.undo is None
    assert len(await town.ledger()) == 1
