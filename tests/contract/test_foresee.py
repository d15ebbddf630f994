"""Would this be sent? The answer is the gate's own, said aloud, for now, then and later, and it changes nothing."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from notifier.cli import app as cli
from notifier.dispatch.foresee import EARLIEST, FURTHEST, Asked, Foresee
from notifier.dispatch.timing import Timing
from notifier.domain import foresight
from notifier.domain.access import Scope
from notifier.domain.caps import Cap
from notifier.domain.clocks import Window
from notifier.domain.consent import SuppressionReason
from notifier.domain.foresight import Foresight
from notifier.domain.messages import Category, Lane
from notifier.domain.timing import Pack
from notifier.errors import InvalidInput, NotFound
from notifier.store import recipients, suppressions
from notifier.store.consent import NewEvent, record
from notifier.store.suppressions import NewSuppression
from notifier_channels.addresses import EmailAddress
from notifier_channels.contract import Channel
from tests.world import MANDATORY, MARKETING, TEMPLATES, TRANSACTIONAL, Scripted, World

pytestmark = pytest.mark.anyio

NOW = datetime.now(UTC)
YEARS_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
def world(database, tmp_path) -> World:
    return World(database, tmp_path)


async def ask(world: World, person, timing: Timing | None = None, **asked) -> Foresight:
    asked = {"topic": "product-news", "channel": Channel.EMAIL} | asked
    async with world.database.connection() as c:
        return await Foresee(world.hasher, world.templates, timing or Timing())(c, Asked(str(person), **asked))


async def say(world: World, person, *, granted: bool, at: datetime | None = None, scope="topic:product-news", **more):
    async def work(c):
        await recipients.lock(c, [person])
        event = NewEvent(person, scope, "email", granted=granted, source="api", occurred_at=at, **more)
        return await record(c, [event])

    return (await world.database.transact(work))[0]


async def someone(world: World):
    """Known for years."""
    [person] = await world.people(1)
    await world.execute("UPDATE addresses SET created_at = '2019-01-01Z'")
    return person


async def test_what_may_go_would_be_sent(world):
    person = await someone(world)
    seen = await ask(world, person)
    said = foresight.foretell(seen)
    assert foresight.kind(seen.verdict) == "permit"
    assert said.answer == "It would be sent."
    assert said.why[0].startswith("The person had not said no to product-news")
    assert "p…@e….test" in said.about
    assert "person-0@" not in repr(said)


async def test_a_no_is_named_with_its_line(world):
    person = await someone(world)
    number = await say(world, person, granted=False)
    seen = await ask(world, person)
    said = foresight.foretell(seen)
    assert (foresight.kind(seen.verdict), seen.verdict.decision.numbers) == ("refusal", (number,))
    assert said.answer == "It would not be sent."
    assert [fact.decides for fact in said.consent] == [True]


async def test_at_a_past_time_it_is_as_it_was(world):
    person = await someone(world)
    await say(world, person, granted=False, at=YEARS_AGO)
    await say(world, person, granted=True, at=YEARS_AGO + timedelta(days=2))
    before, between, after = [
        await ask(world, person, at=YEARS_AGO + timedelta(days=days)) for days in (-1, 1, 3)
    ]  # fmt: skip
    assert [foresight.kind(one.verdict) for one in (before, between, after)] == ["permit", "refusal", "permit"]
    assert foresight.foretell(before).answer == "It would have been sent."
    assert foresight.foretell(between).answer == "It would not have been sent."
    assert [len(foresight.foretell(one).consent) for one in (before, between, after)] == [0, 1, 2]


async def test_a_suppression_counts_from_when_it_was_set_to_when_it_was_lifted(world):
    person = await someone(world)
    hashed = world.hasher.current(EmailAddress("person-0", "example.test"))
    async with world.database.connection() as c:
        await suppressions.add(c, [NewSuppression(Channel.EMAIL, hashed, SuppressionReason.HARD_BOUNCE)])
    await world.execute("UPDATE suppressions SET created_at = '2020-01-01Z'")
    assert (await ask(world, person)).verdict.decision.reason == "suppressed_address:hard_bounce"
    await world.execute("UPDATE suppressions SET lifted_at = '2020-02-01Z', lifted_why = 'x'")
    kinds = [
        foresight.kind((await ask(world, person, at=datetime(*day, tzinfo=UTC))).verdict)
        for day in [(2019, 12, 1), (2020, 1, 15), (2020, 2, 15)]
    ]
    assert kinds == ["permit", "refusal", "permit"]


async def test_quiet_hours_of_the_persons_zone_are_foreseen_at_any_instant(world):
    person = await someone(world)
    await world.execute("UPDATE recipients SET timezone = 'Asia/Kolkata'")
    week = (Window(9 * 60, 17 * 60),) * 7
    by_day = Pack("day", "by day", frozenset({Channel.EMAIL}), week, frozenset(), (), "", NOW.date())
    timing = Timing(packs=(by_day,))
    kinds = [
        foresight.kind((await ask(world, person, timing, at=datetime(2031, 5, 5, hour, tzinfo=UTC))).verdict)
        for hour in (3, 4, 11, 12)  # 8:30, 9:30, 16:30 and 17:30 in Kolkata
    ]
    assert kinds == ["deferral", "permit", "permit", "deferral"]


async def test_a_cap_counts_what_had_been_sent_by_then(world):
    person = await someone(world)
    await world.queue([person], MARKETING)
    async with world.worker(Scripted(), Lane.MARKETING) as deliver:
        await deliver(())
    once = Timing(caps=(Cap.read("1/24h"),))
    number = await world.one("SELECT number FROM attempts")
    now = await ask(world, person, once)
    assert (foresight.kind(now.verdict), now.verdict.decision.numbers) == ("deferral", (number,))
    for days, then in ((-1, "permit"), (2, "permit")):
        seen = await ask(world, person, once, at=datetime.now(UTC) + timedelta(days=days))
        assert foresight.kind(seen.verdict) == then


async def test_what_blocks_marketing_alone_lets_an_order_through(world):
    person = await someone(world)
    hashed = world.hasher.current(EmailAddress("person-0", "example.test"))
    async with world.database.connection() as c:
        only = NewSuppression(Channel.EMAIL, hashed, SuppressionReason.MANUAL, only=Category.MARKETING)
        await suppressions.add(c, [only])
    assert foresight.kind((await ask(world, person)).verdict) == "refusal"
    assert foresight.kind((await ask(world, person, topic=None, template=TRANSACTIONAL)).verdict) == "permit"


async def test_a_snooze_says_until_when(world):
    person = await someone(world)
    until = NOW + timedelta(days=3)
    await world.execute("UPDATE recipients SET snoozed_until = %s", until)
    seen = await ask(world, person)
    assert foresight.kind(seen.verdict) == "deferral"
    assert seen.verdict.until == until
    assert "It would wait until" in foresight.foretell(seen).answer
    assert foresight.kind((await ask(world, person, at=until + timedelta(hours=1))).verdict) == "permit"
    assert foresight.kind((await ask(world, person, topic=None, template=MANDATORY)).verdict) == "permit"


async def test_a_grant_that_will_have_ended_does_not_count(world):
    person = await someone(world)
    await say(world, person, granted=False, at=YEARS_AGO)
    await say(world, person, granted=True, expires_at=NOW + timedelta(days=30))
    assert foresight.kind((await ask(world, person)).verdict) == "permit"
    assert foresight.kind((await ask(world, person, at=NOW + timedelta(days=31))).verdict) == "refusal"


async def test_without_an_address_it_is_said_so(world):
    person = await someone(world)
    await world.execute("UPDATE addresses SET removed_at = now()")
    said = foresight.foretell(await ask(world, person))
    assert said.answer == "It would not be sent."
    assert said.why == ["There is no address by which this person is reached on the channel `email`."]
    assert foresight.kind((await ask(world, person, at=YEARS_AGO)).verdict) == "permit"  # they had one then


async def test_of_several_addresses_the_kindest_answer_counts(world):
    person = await someone(world)
    await world.execute(
        "INSERT INTO addresses (id, recipient_id, channel, address, address_hash, hash_key, created_at)"
        " VALUES (gen_random_uuid(), %s, 'email', 'other@example.test', %s, 'k1', '2018-01-01Z')",
        person, world.hasher.current(EmailAddress("other", "example.test")).digest,
    )  # fmt: skip
    hashed = world.hasher.current(EmailAddress("other", "example.test"))
    async with world.database.connection() as c:
        await suppressions.add(c, [NewSuppression(Channel.EMAIL, hashed, SuppressionReason.HARD_BOUNCE)])
    assert foresight.kind((await ask(world, person)).verdict) == "permit"


async def test_it_says_what_the_gate_says_and_writes_nothing(world):
    people = await world.people(4)
    await world.withdraw([people[0]])
    await world.withdraw([people[1]], "all", "email")
    await world.execute("UPDATE recipients SET snoozed_until = now() + interval '10 minutes' WHERE id = %s", people[2])
    before = await world.one("SELECT count(*) FROM outbox")
    foreseen = [(await ask(world, person, topic=None, template=MARKETING)).verdict for person in people]
    assert await world.one("SELECT count(*) FROM outbox") == before
    assert await world.one("SELECT count(*) FROM messages") == 0
    ids = await world.queue(people, MARKETING)
    async with world.worker(Scripted(), Lane.MARKETING) as work:
        await work()
    for id_, verdict in zip(ids, foreseen, strict=True):
        rule = await world.one("SELECT decision ->> 'rule' FROM messages WHERE id = %s", id_)
        assert rule == verdict.decision.rule


@pytest.mark.parametrize(
    "asked",
    [
        {"topic": None},
        {"topic": "nonsense"},
        {"template": MARKETING},
        {"topic": None, "template": "nonsense"},
        {"channel": Channel.PUSH, "topic": None, "template": MANDATORY},
        {"channel": Channel.PUSH, "topic": "newsletter"},
    ],
)
async def test_what_is_no_question_is_refused(world, asked):
    person = await someone(world)
    with pytest.raises(InvalidInput):
        await ask(world, person, **asked)


FAR = ["0001-01-01T00:00:00Z", "1969-12-31T23:59:59Z", "2090-01-01T00:00:00Z", "9999-12-30T00:00:00Z"]


@pytest.mark.parametrize("at", FAR)
@pytest.mark.parametrize("about", [{"topic": "product-news"}, {"topic": None, "template": MARKETING}])
async def test_an_instant_that_is_too_far_off_is_refused(world, at, about):
    person = await someone(world)
    with pytest.raises(InvalidInput, match="/at: is too far off"):
        await ask(world, person, at=datetime.fromisoformat(at), **about)


async def test_ten_years_ahead_and_back_to_1970_can_be_asked(world):
    person = await someone(world)
    for at in (datetime.now(UTC) + FURTHEST - timedelta(minutes=1), EARLIEST):
        assert (await ask(world, person, at=at)).at == at


async def test_nobody_is_not_found(world):
    with pytest.raises(NotFound):
        await ask(world, "nobody")


# The API and the command ----------------------------------------------------------------------------------------------


async def test_the_api_explains_a_message(api):
    await api.put("ann", email="ann@example.test")
    sent = (await api.send(recipient={"id": "ann"})).json()
    message = sent["messages"][0]["id"]
    said = (await api.client.get(f"/v1/messages/{message}/explanation")).json()
    assert said["answer"].startswith("It has not been sent yet: it is waiting.")
    assert said["happened"][0]["text"] == "The product handed it over."
    assert "ann@example.test" not in str(said)
    assert (await api.client.get(f"/v1/messages/{sent['id']}/explanation")).status_code in (404, 200)
    other = message[:-4] + "0000"
    assert (await api.client.get(f"/v1/messages/{other}/explanation")).status_code == 404


async def test_the_api_foresees(api):
    await api.put("ann", email="ann@example.test")
    question = {"recipient": "ann", "template": "password-reset", "channel": "email"}
    said = (await api.client.post("/v1/explain", json=question)).json()
    assert (said["verdict"], said["rule"], said["until"], said["numbers"]) == ("permit", "mandatory_topic", None, [])
    assert said["answer"] == "It would be sent."
    next_year = f"{NOW.year + 1}-01-01T00:00:00Z"
    later = (await api.client.post("/v1/explain", json=question | {"at": next_year})).json()
    assert later["at"] == next_year
    for at in FAR:
        refused = await api.client.post("/v1/explain", json=question | {"at": at})
        assert (refused.status_code, [one["pointer"] for one in refused.json()["errors"]]) == (422, ["/at"])
    assert (await api.client.post("/v1/explain", json=question | {"topic": "x"})).status_code == 422
    assert (await api.client.post("/v1/explain", json=question | {"recipient": "bob"})).status_code == 404
    headers = await api.key(Scope.RECIPIENTS)
    assert (await api.client.post("/v1/explain", json=question, headers=headers)).status_code == 403


async def test_the_command_foresees_and_lists_what_was_not_sent(world, monkeypatch):
    [person, nobody] = await world.people(2)
    await world.queue([person], MARKETING)
    await world.withdraw_and_cancel([person], "marketing", "any")
    for name, value in {
        "DATABASE_URL": world.database.url,
        "REDIS_URL": "unix:///nowhere",
        "NOTIFIER_LINK_KEYS": "k1:" + "k" * 32,
        "NOTIFIER_HASH_KEYS": "k1:a key for tests, of thirty-two bytes".replace(",", ";"),
        "NOTIFIER_TEMPLATES_DIR": str(TEMPLATES),
    }.items():
        monkeypatch.setenv(name, value)

    async def run(*arguments: str):
        return await asyncio.to_thread(CliRunner().invoke, cli, ["explain", *arguments])

    whom = ["--recipient", str(person)]
    would = await run(*whom, "--topic", "product-news", "--channel", "email")
    assert would.exit_code == 0, would.output
    assert "It would not be sent." in would.output
    assert "The person had said no to all marketing on every channel." in would.output
    then = await run(*whom, "--template", MARKETING, "--channel", "email", "--at", f"{NOW.year + 1}-01-01T00:00:00Z")
    assert f"1 January {NOW.year + 1}" in then.output
    why = await run(*whom, "--topic", "product-news")
    assert "It was not sent: it was cancelled while it was waiting." in why.output
    assert "example.test" not in why.output
    nothing = await run("--recipient", str(nobody), "--template", MARKETING)
    assert "Nothing was ever handed over" in nothing.output
    for wrong, status in [
        ([], 2),
        (whom, 2),
        ([str(person), *whom, "--topic", "x"], 2),
        ([*whom, "--topic", "nonsense", "--channel", "email"], 1),
        (["--recipient", "stranger", "--topic", "product-news"], 1),
        ([*whom, "--topic", "product-news", "--channel", "email", "--at", "9999-12-30T00:00Z"], 1),
    ]:
        refused = await run(*wrong)
        assert (refused.exit_code, refused.output[:10]) == (status, "notifier: ")
    for no_instant in ("2050-01-01", "x", "9999-12-31T23:59:59-10:00"):
        refused = await run(*whom, "--topic", "product-news", "--channel", "email", "--at", no_instant)
        assert (refused.exit_code, "--at" in refused.output) == (2, True)
