"""Every message, sent or not, is explained from what is stored, in words, and without the address (I6, I5)."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from notifier.cli import app
from notifier.dispatch.explain import stories_of
from notifier.dispatch.feedback import Feedback
from notifier.dispatch.opt_out import OptOut, Way
from notifier.domain import explanation
from notifier.domain.consent import Rule, SuppressionReason
from notifier.domain.explanation import Explanation, Story
from notifier.domain.messages import Lane, State
from notifier.domain.timing import Why
from notifier.store import suppressions
from notifier.store.suppressions import NewSuppression
from notifier_channels.addresses import EmailAddress
from notifier_channels.contract import BadAddress, Channel, DeliveryEvent, EventKind, Unavailable
from tests.world import MANDATORY, MARKETING, Scripted, World, new_id

pytestmark = pytest.mark.anyio


@pytest.fixture
def world(database, tmp_path) -> World:
    return World(database, tmp_path)


async def explained(world: World, message) -> Explanation:
    async with world.database.connection() as c:
        [story] = await stories_of(c, world.hasher, message)
    said = explanation.explain(story)
    assert "@example.test" not in repr(said)
    assert "p…@e….test" in said.about
    return said


async def one_click(world: World, message) -> None:
    async with world.database.connection() as c:
        [row] = await (await c.execute("SELECT recipient_id, topic FROM messages WHERE id = %s", (message,))).fetchall()
    opt_out = OptOut(world.database, world.links, world.hasher, world.templates.topics)
    url = world.links.unsubscribe_url(row[0], row[1], Channel.EMAIL, message)
    await opt_out(opt_out.read(url.rpartition("/")[2]), None, Way.ONE_CLICK, {"wording": "List-Unsubscribe=One-Click"})


async def deliver(world: World, lane: Lane = Lane.MARKETING, script=None) -> None:
    provider = Scripted(script) if script else Scripted()
    async with world.worker(provider, lane) as work:
        await work()


async def test_a_delivered_message_tells_its_whole_way(world):
    [person] = await world.people(1)
    [message] = await world.queue([person], MARKETING)
    await deliver(world)
    feedback = Feedback(world.database, world.hasher, world.templates.topics)
    await feedback([DeliveryEvent(message, EventKind.DELIVERED, "scripted", "r1", datetime.now(UTC))])
    said = await explained(world, message)
    assert said.answer == "It was sent, and it arrived."
    assert said.why[0].startswith(
        "The person had not said no to product-news, and it is sent until they do. Decided on"
    )
    assert "by the rule `opt_out_default`" in said.why[0]
    assert [fact.text for fact in said.happened] == [
        "The product handed it over.",
        "Attempt 1 through scripted: the provider took it (250).",
        "scripted reported: delivered.",
    ]


async def test_a_cancelled_message_names_the_line_that_stopped_it(world):
    [person] = await world.people(1)
    first, waiting = await world.queue([person], MARKETING) + await world.queue([person], MARKETING)
    await one_click(world, first)
    said = await explained(world, waiting)
    assert said.answer == "It was not sent: it was cancelled while it was waiting."
    assert said.why[0].startswith("The person had said no to product-news by email.")
    [no] = said.consent
    assert no.decides
    assert no.text.startswith("No to product-news by email, said with the unsubscribe button of their mail program")
    assert "List-Unsubscribe=One-Click" in no.text


async def test_a_cancelled_campaign_is_named_beside_what_had_held_its_message_back(world):
    [message] = await world.queue(await world.people(1), MARKETING)
    await world.execute(
        "UPDATE messages SET state = 'cancelled', reason = 'campaign_cancelled', due_at = NULL, decision ="
        ' \'{"rule": "snoozed", "at": "2026-11-23T10:00:00Z"}\'',
    )
    assert (await explained(world, message)).why[-1] == "Its campaign was cancelled."


async def test_a_message_that_the_gate_refused_says_why(world):
    [person] = await world.people(1)
    [message] = await world.queue([person], MARKETING)
    await world.withdraw([person])
    await deliver(world)
    said = await explained(world, message)
    assert said.answer == "It was not sent, on purpose."
    assert said.why[0].startswith("The person had said no to all marketing on every channel.")
    assert [fact.decides for fact in said.consent] == [True]


async def test_a_suppressed_address_is_explained_with_its_evidence_and_its_past(world):
    [person] = await world.people(1)
    hashed = world.hasher.current(EmailAddress("person-0", "example.test"))
    async with world.database.connection() as c:
        bounce = NewSuppression(Channel.EMAIL, hashed, SuppressionReason.HARD_BOUNCE, {"code": "550 5.1.1"})
        await suppressions.add(c, [bounce])
        await suppressions.lift(
            c, {(Channel.EMAIL, hashed.digest)}, SuppressionReason.HARD_BOUNCE, why="it exists again"
        )
        await suppressions.add(c, [bounce])
    [message] = await world.queue([person], MANDATORY)
    await deliver(world, Lane.TRANSACTIONAL)
    said = await explained(world, message)
    assert "The address must not be used: the provider said that nobody is there." in said.why[0]
    past, present = said.consent
    assert past.text.endswith(f"it exists again. [{past.text.rpartition('[')[2]}")
    assert "lifted on" in past.text
    assert (past.decides, present.decides) == (False, True)
    assert "(550 5.1.1)" in present.text


@pytest.mark.parametrize(
    ("outcome", "answer", "why"),
    [
        (
            BadAddress("550 5.1.1"),
            "It could not be sent.",
            "The provider said that nobody is there. (550 5.1.1)",
        ),
        (
            Unavailable("451 4.7.1"),
            "It has not been sent yet: it is waiting.",
            "The provider could not take it just then",
        ),
    ],
)
async def test_what_a_provider_answered_is_said_in_words(world, outcome, answer, why):
    [person] = await world.people(1)
    [message] = await world.queue([person], MANDATORY)
    await deliver(world, Lane.TRANSACTIONAL, lambda _message, _witness: outcome)
    said = await explained(world, message)
    assert said.answer.startswith(answer)
    assert why in said.why[1]


async def test_the_command_tells_a_notifications_messages_and_refuses_an_unknown_id(world, monkeypatch):
    [person] = await world.people(1)
    [message] = await world.queue([person], MARKETING)  # the world gives a notification the id of its message
    await one_click(world, message)
    for name, value in {
        "DATABASE_URL": world.database.url,
        "REDIS_URL": "unix:///nowhere",
        "NOTIFIER_LINK_KEYS": "k1:" + "k" * 32,
        "NOTIFIER_HASH_KEYS": "k1:a key for tests, of thirty-two bytes".replace(",", ";"),
    }.items():
        monkeypatch.setenv(name, value)
    told = await asyncio.to_thread(CliRunner().invoke, app, ["explain", str(message)])
    assert told.exit_code == 0, told.output
    assert "It was not sent: it was cancelled while it was waiting." in told.output
    assert "> " in told.output
    assert "example.test" not in told.output
    unknown = await asyncio.to_thread(CliRunner().invoke, app, ["explain", str(person)[:-4] + "0000"])
    assert unknown.exit_code == 1
    assert "there is no message" in unknown.output


OF_USE = "It was of use until 2 March 2026, 00:00:00 UTC only."
NEVER = "whenever it is day in one place where they may be, it is night in another"


def held(reason: Rule, detail: str) -> str:
    story = Story(
        id=new_id(), recipient="u1", address=None, channel="sms", topic="news", category="marketing", template="news",
        state=State.QUEUED, reason=None, due_at=None, expires_at=datetime(2026, 3, 2, tzinfo=UTC), accepted_at=None,
        decision={"rule": str(reason), "at": "2026-03-01T01:00:00+00:00", "numbers": [], "detail": detail},
    )  # fmt: skip
    return explanation.explain(story).why[0].partition(" Decided on")[0]


@pytest.mark.parametrize(
    ("rule", "detail", "words"),
    [
        (
            Rule.QUIET_HOURS,
            "us-fl/America/New_York",
            "It was not the hour for it: the quiet hours `us-fl`, by the clocks of America/New_York.",
        ),
        (
            Rule.FREQUENCY_CAP,
            "marketing sms 3/24h",
            "The person had had as much as they are to get: at most 3 of all marketing by text message in 24 hours.",
        ),
        (
            Rule.FREQUENCY_CAP,
            "news 1/day",
            "The person had had as much as they are to get: at most 1 of news in a day.",
        ),
        (
            Rule.EXPIRED,
            "quiet_hours:never",
            f"{OF_USE} Until then it was never the hour for it: {NEVER}.",
        ),
        (
            Rule.EXPIRED,
            "frequency_cap:news 2/week",
            f"{OF_USE} Until then the person had had as much as they are to get: at most 2 of news in a week.",
        ),
        (
            Rule.EXPIRED,
            "snoozed",
            f"{OF_USE} Until then the person had asked to be left in peace.",
        ),
        (Rule.EXPIRED, "", OF_USE),
    ],
)
def test_what_time_held_back_is_said_in_words(rule, detail, words):
    assert held(rule, detail) == words


def test_every_state_rule_and_reason_has_words():
    assert set(explanation._HELD) == {"", *Why}
    assert set(explanation._STATES) == set(State)
    assert set(explanation._RULES) == set(Rule)
    assert set(explanation._REPORTS) == {str(kind) for kind in EventKind}
    assert set(explanation._BLOCKS) == {str(reason) for reason in SuppressionReason}
    assert explanation.instant(datetime(2026, 3, 1, 1, tzinfo=UTC) + timedelta(0)) == "1 March 2026, 01:00:00 UTC"
