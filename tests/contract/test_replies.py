"""STOP, START and HELP by text message: into the ledger of every holder, once, and answered once."""

from __future__ import annotations

import asyncio
import itertools
import tomllib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import resources

import psycopg
import pytest
from structlog.testing import capture_logs

from notifier.dispatch.kept_replies import KeptReplies
from notifier.dispatch.ledger import Ledger, Look, Said
from notifier.dispatch.refusals import Withdrawal, withdraw
from notifier.dispatch.replies import Replies, Reply
from notifier.domain.answers import ANSWERS, answer
from notifier.domain.consent import judge
from notifier.domain.recipients import Hasher
from notifier.domain.standing import Change
from notifier.store import consent, inbound, recipients, suppressions
from notifier.store.consent import NewEvent
from notifier.store.database import Database
from notifier_channels.addresses import PhoneNumber
from notifier_channels.contract import Channel
from notifier_channels.sms import segments
from notifier_channels.sms.keywords import Keyword
from tests.servers.town import HASHER, TOPICS, Town

pytestmark = pytest.mark.anyio

PHONE = "+4915112345678"
numbers = itertools.count(1)


@pytest.fixture
async def town(database: Database) -> Town:
    return Town(database)


@pytest.fixture
async def replies(database: Database) -> Replies:
    return Replies(database, HASHER, TOPICS, sender="Acme", contact="help@acme.test", default_locale="en")


def reply(
    said: Keyword, text: str = "", *, phone: str = PHONE, reference: str = "", is_answered: bool = False
) -> Reply:
    return Reply(
        reference or f"SM{next(numbers)}", PhoneNumber(phone), said, text or said.upper(), is_answered, "twilio"
    )


async def allowed(town: Town, person, topic: str = "orders", channel: Channel = Channel.SMS) -> bool:
    async with town.database.connection() as c:
        events = (await consent.events_of(c, [person]))[person]
        return judge(TOPICS[topic], channel, events, (await clock(c)))[0]


async def clock(c):
    from notifier.store import messages

    return await messages.clock(c)


async def blocks(town: Town, phone: str = PHONE, hasher: Hasher = HASHER) -> list[str]:
    asked = {(Channel.SMS, digest) for digest in hasher.all(PhoneNumber(phone))}
    async with town.database.connection() as c:
        found = await suppressions.in_force(c, asked)
    return [str(one.reason) for standing in found.values() for one in standing]


async def test_stop_is_a_no_to_all_text_messages_of_everybody_who_holds_the_number(replies, town):
    ann, bob, eve = await town.person("ann@x.test"), await town.person(), await town.person()
    for person in (ann, bob):
        await town.phone(person, PHONE)
    await town.phone(eve, "+4915100000000")
    assert "no more text messages" in await replies(reply(Keyword.STOP, "Stop please"))
    lines = await town.ledger()
    assert {(line["recipient_id"], line["scope"], line["channel"], line["granted"]) for line in lines} == {
        (ann, "all", "sms", False),
        (bob, "all", "sms", False),
    }
    assert {(line["source"], line["evidence"]["wording"]) for line in lines} == {("sms_keyword", "Stop please")}
    assert [await allowed(town, one) for one in (ann, bob, eve)] == [False, False, True]
    assert await allowed(town, ann, channel=Channel.EMAIL)
    assert await blocks(town) == ["stop"]


async def test_stop_cancels_what_is_queued_for_the_number_and_nothing_else(replies, town):
    ann = await town.person("ann@x.test")
    await town.phone(ann, PHONE)
    text, mail = await town.message(ann, "orders", "queued", "sms"), await town.message(ann, "orders", "queued")
    await replies(reply(Keyword.STOP))
    assert (await town.state(text), await town.state(mail)) == ("cancelled", "queued")


async def test_stop_from_a_number_that_nobody_holds_binds_whoever_takes_it_on(replies, town):
    assert await replies(reply(Keyword.STOP))
    assert await town.ledger() == []
    assert await blocks(town) == ["stop"]


async def test_start_lifts_exactly_what_stop_began(replies, town):
    ann = await town.person()
    await town.phone(ann, PHONE)
    await replies(reply(Keyword.STOP))
    assert "again" in await replies(reply(Keyword.START))
    assert await allowed(town, ann)
    assert await blocks(town) == []
    assert [(line["scope"], line["granted"]) for line in await town.ledger()] == [("all", False), ("all", True)]


async def test_start_opts_nobody_in_and_leaves_other_refusals_alone(replies, town):
    ann = await town.person()
    await town.phone(ann, PHONE)

    async def refuse(c):
        await recipients.lock(c, [ann])
        await consent.record(c, [NewEvent(ann, "topic:orders", "sms", granted=False, source="api")])

    await town.database.transact(refuse)
    await replies(reply(Keyword.START))
    assert len(await town.ledger()) == 1
    await replies(reply(Keyword.STOP))
    await replies(reply(Keyword.START))
    assert not await allowed(town, ann)


async def refuses(town: Town, person, source: str) -> None:
    async def say(c):
        await recipients.lock(c, [person])
        await withdraw(c, [Withdrawal(person, "all", Channel.SMS, source)], TOPICS)

    await town.database.transact(say)


async def test_a_start_ends_no_other_holders_own_no(replies, town):
    ann, bob = await town.person(), await town.person()
    for person in (ann, bob):
        await town.phone(person, PHONE)
    await refuses(town, bob, "preference_page")
    await replies(reply(Keyword.START))
    assert await allowed(town, ann)
    assert not await allowed(town, bob)
    await replies(reply(Keyword.STOP))
    await replies(reply(Keyword.START))
    assert await allowed(town, ann)
    assert not await allowed(town, bob)
    assert [line["granted"] for line in await town.ledger(bob)] == [False]


async def test_who_says_no_for_themselves_after_a_stop_is_not_brought_back_by_a_start(replies, town):
    ann, bob = await town.person(), await town.person()
    for person in (ann, bob):
        await town.phone(person, PHONE)
    await replies(reply(Keyword.STOP))
    await refuses(town, bob, "preference_page")
    await refuses(town, bob, "preference_page")
    await replies(reply(Keyword.START))
    assert await allowed(town, ann)
    assert not await allowed(town, bob)
    assert [line["source"] for line in await town.ledger(bob)] == ["sms_keyword", "preference_page"]


async def test_a_persons_own_no_from_before_a_stop_that_is_learned_of_later_outlives_a_start(replies, town):
    ann = await town.person()
    await town.phone(ann, PHONE)
    before = datetime.now(UTC) - timedelta(minutes=5)
    await replies(reply(Keyword.STOP))

    async def learn(c):
        await recipients.lock(c, [ann])
        await consent.record(c, [NewEvent(ann, "all", "sms", False, "import", before)])

    await town.database.transact(learn)
    await replies(reply(Keyword.START))
    assert not await allowed(town, ann)


@pytest.mark.parametrize("minutes_ago", [0, 5])
async def test_a_no_through_the_product_after_a_stop_is_not_brought_back_by_a_start(replies, town, minutes_ago):
    ann, bob = await town.person(), await town.person()
    for person in (ann, bob):
        await town.phone(person, PHONE)
    await replies(reply(Keyword.STOP))
    occurred_at = datetime.now(UTC) - timedelta(minutes=minutes_ago) if minutes_ago else None
    said = Said([Change("all", "sms", granted=False)], occurred_at=occurred_at)
    changed = [await Ledger(town.database, Look(HASHER, TOPICS)).change(f"user-{bob.hex}", said) for _ in range(2)]
    assert [len(one.numbers) for one in changed] == [1, 0]
    await replies(reply(Keyword.START))
    assert await allowed(town, ann)
    assert not await allowed(town, bob)


async def test_a_page_that_sends_all_of_its_switches_after_a_stop_keeps_the_yes_that_stands_among_them(replies, town):
    ann = await town.person()
    await town.phone(ann, PHONE)
    await replies(reply(Keyword.STOP))
    ledger = Ledger(town.database, Look(HASHER, TOPICS))
    news, everything = Change("topic:newsletter", "sms", granted=True), Change("all", "sms", granted=False)
    await ledger.change(f"user-{ann.hex}", Said([news]))
    changed = [await ledger.change(f"user-{ann.hex}", Said([news, everything])) for _ in range(2)]
    assert [len(one.numbers) for one in changed] == [2, 0]
    assert await allowed(town, ann, "newsletter")
    assert not await allowed(town, ann)


async def test_start_ends_an_opt_out_that_the_provider_knew_of(replies, town):
    ann = await town.person()
    await town.phone(ann, PHONE)
    await refuses(town, ann, "provider")
    await replies(reply(Keyword.START))
    assert await allowed(town, ann)


async def test_start_lifts_a_stop_that_a_topic_has_overruled_meanwhile(replies, town):
    ann = await town.person()
    await town.phone(ann, PHONE)
    await replies(reply(Keyword.STOP))

    async def grant(c):
        await recipients.lock(c, [ann])
        await consent.record(c, [NewEvent(ann, "topic:newsletter", "sms", granted=True, source="api")])

    await town.database.transact(grant)
    await replies(reply(Keyword.START))
    assert await allowed(town, ann)


async def test_start_lifts_no_suppression_but_its_own(replies, town):
    ann = await town.person()
    await town.phone(ann, PHONE)
    await town.execute(
        "INSERT INTO suppressions (channel, address_hash, hash_key, reason) VALUES ('sms', %s, 'h1', 'hard_bounce')",
        (HASHER.current(PhoneNumber(PHONE)).digest,),
    )
    await replies(reply(Keyword.STOP))
    await replies(reply(Keyword.START))
    assert await blocks(town) == ["hard_bounce"]


async def test_a_repeated_webhook_is_neither_acted_on_nor_answered_again(replies, town):
    ann = await town.person()
    await town.phone(ann, PHONE)
    assert await replies(reply(Keyword.STOP, reference="SM-once"))
    await replies(reply(Keyword.START))
    assert await replies(reply(Keyword.STOP, reference="SM-once")) is None
    assert await allowed(town, ann)


async def test_one_of_twenty_at_once_is_answered(replies, town):
    ann = await town.person()
    await town.phone(ann, PHONE)
    answers = await asyncio.gather(*(replies(reply(Keyword.STOP, reference="SM-many")) for _ in range(20)))
    assert sum(one is not None for one in answers) == 1
    assert len(await town.ledger()) == 1


async def test_help_is_answered_to_somebody_who_has_opted_out_too(replies, town):
    ann = await town.person()
    await town.phone(ann, PHONE)
    await replies(reply(Keyword.STOP))
    text = await replies(reply(Keyword.HELP))
    assert text.startswith("Acme: ")
    assert "help@acme.test" in text
    assert "STOP" in text
    assert len(await town.ledger()) == 1


async def test_what_the_provider_answers_itself_is_acted_on_in_silence(replies, town):
    ann = await town.person()
    await town.phone(ann, PHONE)
    assert await replies(reply(Keyword.STOP, is_answered=True)) is None
    assert not await allowed(town, ann)


async def test_anything_else_changes_nothing_and_is_not_answered(replies, town):
    ann = await town.person()
    await town.phone(ann, PHONE)
    assert await replies(reply(Keyword.NONE, "see you at the bus stop")) is None
    assert await town.ledger() == []
    assert await blocks(town) == []


async def test_a_number_that_was_hashed_with_an_older_key_is_found(database, town):
    older = Hasher({"h0": b"o" * 32})
    both = Hasher({"h1": b"h" * 32, "h0": b"o" * 32})
    ann = await town.person()
    await town.phone(ann, PHONE, older)
    replies = Replies(database, both, TOPICS, sender="Acme", contact="x", default_locale="en")
    await replies(reply(Keyword.STOP))
    assert not await allowed(town, ann)
    await replies(reply(Keyword.START))
    assert await blocks(town, hasher=both) == []


async def test_somebody_who_was_adopted_is_bound_as_who_they_are_now(replies, town):
    ann = await town.person()
    nameless = await town.person(merged_into=ann)
    await town.phone(nameless, PHONE)
    await replies(reply(Keyword.STOP))
    assert not await allowed(town, ann)


async def test_the_answer_is_in_the_holders_language_when_they_agree(replies, town):
    await town.phone(await town.person(locale="de-AT"), PHONE)
    assert "keine SMS mehr" in await replies(reply(Keyword.STOP))
    await town.phone(await town.person(locale="fr"), PHONE)
    assert "no more text messages" in await replies(reply(Keyword.STOP))


async def test_what_came_in_is_forgotten_after_a_week(replies, town, database):
    await replies(reply(Keyword.STOP))
    await town.execute("UPDATE inbound_sms SET received_at = now() - interval '8 days'")
    async with database.connection() as c:
        assert await inbound.forget(c) == 1


# While the database is away -------------------------------------------------------------------------------------------


@dataclass
class Wire:
    """The use case behind a line to the database that can be cut."""

    replies: Replies
    is_cut: bool = False

    async def __call__(self, reply: Reply) -> str | None:
        if self.is_cut:
            raise psycopg.OperationalError("the line is cut")
        return await self.replies(reply)


@pytest.fixture
def wire(replies) -> Wire:
    return Wire(replies)


@pytest.fixture
def kept(wire, tmp_path) -> KeptReplies:
    return KeptReplies(wire, tmp_path / "replies")


async def in_an_outage(wire: Wire, kept: KeptReplies, *said: Reply) -> None:
    wire.is_cut = True
    for one in said:
        with pytest.raises(psycopg.OperationalError):
            await kept(one)
    wire.is_cut = False


async def test_a_stop_outlives_an_outage_in_a_file_of_its_owners(kept, wire, town):
    ann = await town.person()
    await town.phone(ann, PHONE)
    stop = reply(Keyword.STOP, "stop it \0 \ud800")
    await in_an_outage(wire, kept, stop, stop)
    [file] = kept.directory.iterdir()
    assert (file.stat().st_mode & 0o777, kept.directory.stat().st_mode & 0o777) == (0o600, 0o700)
    assert await allowed(town, ann)
    await kept.catch_up()
    assert not await allowed(town, ann)
    [line] = await town.ledger()
    assert line["evidence"]["received_at"] == stop.received_at.isoformat()
    assert list(kept.directory.iterdir()) == []


async def test_the_last_word_said_in_and_after_an_outage_is_the_last_one(kept, wire, town):
    ann = await town.person()
    await town.phone(ann, PHONE)
    said = [reply(one) for one in (Keyword.STOP, Keyword.START, Keyword.STOP)]
    await in_an_outage(wire, kept, *said)
    await kept.catch_up()
    assert [line["granted"] for line in await town.ledger()] == [False, True, False]
    await in_an_outage(wire, kept, reply(Keyword.STOP))
    assert await kept(reply(Keyword.START))
    assert await allowed(town, ann)
    await kept.catch_up()
    assert await allowed(town, ann)


@pytest.mark.parametrize("stopped_before", [False, True])
async def test_a_start_that_waited_does_not_end_a_stop_that_came_after_it(kept, wire, replies, town, stopped_before):
    ann = await town.person()
    await town.phone(ann, PHONE)
    if stopped_before:
        await replies(reply(Keyword.STOP))
    await in_an_outage(wire, kept, reply(Keyword.START))
    await replies(reply(Keyword.STOP))  # through another machine, whose line was never cut
    await kept.catch_up()
    assert not await allowed(town, ann)
    assert await blocks(town) == ["stop"]
    await replies(reply(Keyword.START))
    assert await allowed(town, ann)
    assert await blocks(town) == []


async def test_a_stop_that_waited_does_not_make_an_older_one_of_what_was_said_since(kept, wire, replies, town):
    ann = await town.person()
    await town.phone(ann, PHONE)
    await in_an_outage(wire, kept, reply(Keyword.STOP))
    start = reply(Keyword.START)  # waits on yet another machine
    await replies(reply(Keyword.STOP))
    await kept.catch_up()
    assert await replies(start) is None
    assert not await allowed(town, ann)
    assert await blocks(town) == ["stop"]


async def test_a_message_that_comes_again_after_an_outage_is_answered_once(kept, wire):
    stop = reply(Keyword.STOP)
    await in_an_outage(wire, kept, stop)
    assert "no more text messages" in await kept(stop)
    assert list(kept.directory.iterdir()) == []
    assert await kept(stop) is None


async def test_what_changes_nothing_is_not_kept(kept, wire):
    await in_an_outage(wire, kept, reply(Keyword.NONE, "see you at the bus stop"), reply(Keyword.HELP))
    assert not kept.directory.exists()


async def test_one_file_that_cannot_be_read_holds_up_no_other(kept, wire, town):
    ann = await town.person()
    await town.phone(ann, PHONE)
    await in_an_outage(wire, kept, reply(Keyword.STOP))
    (kept.directory / "a.json").write_text("{")
    with capture_logs() as logs:
        await kept.catch_up()
        await kept.catch_up()
    assert [path.name for path in kept.directory.iterdir()] == ["a.broken"]
    assert not await allowed(town, ann)
    assert [one["event"] for one in logs] == ["reply.not_caught_up", "reply.caught_up"]


async def test_a_file_that_may_not_be_read_makes_nobody_deaf(kept, town):
    ann = await town.person()
    await town.phone(ann, PHONE)
    (kept.directory / "a.json").mkdir(parents=True)  # what another account has written fails in the same way
    with capture_logs() as logs:
        assert "no more text messages" in await kept(reply(Keyword.STOP))
    assert not await allowed(town, ann)
    assert [one["event"] for one in logs] == ["reply.not_caught_up"]


async def test_what_was_kept_waits_until_the_database_is_back(kept, wire, town):
    await in_an_outage(wire, kept, reply(Keyword.STOP))
    wire.is_cut = True
    with pytest.raises(psycopg.OperationalError):
        await kept.catch_up()
    assert len(list(kept.directory.iterdir())) == 1


@pytest.mark.parametrize("language", ANSWERS)
@pytest.mark.parametrize("said", [Keyword.STOP, Keyword.START, Keyword.HELP])
def test_every_answer_names_the_sender_and_the_way_on(language, said):
    text = answer(said, [language], sender="Acme", contact="help@acme.test") or ""
    assert text.startswith("Acme")
    assert {Keyword.STOP: "START", Keyword.START: "STOP", Keyword.HELP: "help@acme.test"}[said] in text
    assert segments.count(text).segments == 1
    assert segments.count(answer(said, [language], sender="Acme Shoes", contact="help@acme.test") or "").segments == 1


def test_there_is_an_answer_in_every_language_in_which_stop_is_heard():
    path = resources.files("notifier_channels.sms").joinpath("keywords.toml")
    assert set(ANSWERS) == set(tomllib.loads(path.read_text("utf-8"))["stop"])
