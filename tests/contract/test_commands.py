"""What operators type about consent and suppressions, on a real database."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest

from notifier.domain.recipients import Hasher
from notifier.store import consent, recipients
from notifier.store.consent import NewEvent
from tests.servers.town import Town

pytestmark = pytest.mark.anyio

AGO = datetime(2026, 3, 1, 9, tzinfo=UTC)


@pytest.fixture
def town(database) -> Town:
    return Town(database, Hasher({"h1": b"h" * 32}))


async def say(town: Town, person, *, granted: bool, at: datetime, scope: str = "topic:newsletter") -> int:
    async def work(c):
        await recipients.lock(c, [person])
        proof = {"wording": "Yes, the newsletter."}
        return await consent.record(c, [NewEvent(person, scope, "email", granted, "api", at, evidence=proof)])

    return (await town.database.transact(work))[0]


# Consent --------------------------------------------------------------------------------------------------------------


async def test_show_reads_the_ledger_aloud_and_says_what_holds_and_what_held(town, typed):
    person = await town.person("ann@example.test")
    yes = await say(town, person, granted=True, at=AGO)
    no = await say(town, person, granted=False, at=AGO + timedelta(days=1), scope="marketing")
    id_ = f"user-{person.hex}"
    now = (await typed("consent", "show", id_)).output
    assert "Yes to newsletter by email, said through the product, which read “Yes, the newsletter.”" in now
    assert f"no   newsletter/email: They said no to all marketing by email. [{no}]" in now
    assert "yes  security/email: Everybody gets it" in now
    assert "example.test" not in now
    then = (await typed("consent", "show", id_, "--at", "2026-03-01T12:00:00Z")).output
    assert f"yes  newsletter/email: They said yes to newsletter. [{yes}]" in then
    assert "marketing" not in then.split("What holds")[0]


async def test_show_refuses_who_is_not_known_and_a_time_without_a_zone(town, typed):
    unknown = await typed("consent", "show", "nobody")
    assert (unknown.exit_code, "no recipient" in unknown.output) == (1, True)
    for odd in ("yesterday", "2026-03-01T12:00:00"):
        assert (await typed("consent", "show", "nobody", "--at", odd)).exit_code == 2


async def test_a_no_by_letter_is_written_once_stops_what_waits_and_names_the_operator(town, typed):
    person = await town.person("ann@example.test")
    waiting = [await town.message(person, topic, "queued") for topic in ("product-news", "orders")]
    words = ("consent", "withdraw", f"user-{person.hex}", "--marketing", "--why", "Letter of 3 May")
    for cancelled in (1, 0):
        done = await typed(*words)
        assert done.exit_code == 0, done.output
        [line] = await town.ledger(person)
        assert done.output == f"marketing/any: no [{line['number']}]; {cancelled} cancelled.\n"
    assert (line["scope"], line["channel"], line["granted"], line["source"]) == ("marketing", "any", False, "admin")
    assert line["evidence"].items() >= {"why": "Letter of 3 May", "by": "cli"}.items()
    assert [await town.state(message) for message in waiting] == ["cancelled", "queued"]
    assert "said through an operator" in (await typed("consent", "show", f"user-{person.hex}")).output
    for more, said in (
        (("--topic", "newsletter", "--channel", "email"), ("topic:newsletter", "email")),
        (("--all", "--channel", "sms"), ("all", "sms")),
    ):
        assert (await typed(*words[:3], *more, "--why", "Called us")).exit_code == 0
        newest = (await town.ledger(person))[-1]
        assert (newest["scope"], newest["channel"]) == said


@pytest.mark.parametrize(
    ("who", "words", "status"),
    [
        ("nobody", ("--all",), 1),
        ("ann", ("--topic", "no-such"), 1),
        ("ann", ("--topic", "security"), 1),
        ("ann", ("--topic", "newsletter", "--channel", "push"), 1),
        ("ann", (), 2),
        ("ann", ("--all", "--marketing"), 2),
    ],
)
async def test_a_no_that_cannot_be_meant_writes_nothing(town, typed, who, words, status):
    person = await town.person("ann@example.test")
    who = f"user-{person.hex}" if who == "ann" else who
    refused = await typed("consent", "withdraw", who, *words, "--why", "Called us")
    assert refused.exit_code == status, refused.output
    assert await town.ledger() == []


async def test_rebuild_reports_and_mends_exactly_what_differed(town, typed, database, monkeypatch):
    monkeypatch.setattr("notifier.commands.consent.BATCH", 2)
    people = [await town.person(f"u{n}@example.test") for n in range(5)]
    for person in people:
        await say(town, person, granted=True, at=AGO)
    assert "5 people, 0 differ" in (await typed("consent", "rebuild", "--check")).output
    await town.execute("UPDATE consents SET granted = false WHERE recipient_id = %s", (people[3],))
    await town.execute("DELETE FROM consents WHERE recipient_id = %s", (people[0],))
    checked = await typed("consent", "rebuild", "--check")
    assert checked.exit_code == 1
    assert set(re.findall(r"differs: (\S+)", checked.output)) == {str(people[0]), str(people[3])}
    mended = await typed("consent", "rebuild")
    assert (mended.exit_code, "5 people, 2 differed" in mended.output) == (0, True)
    assert (await typed("consent", "rebuild", "--check")).exit_code == 0
    assert len(await town.rows("SELECT 1 FROM consents WHERE granted")) == 5


# Suppressions ---------------------------------------------------------------------------------------------------------


async def test_an_address_is_blocked_listed_looked_up_and_lifted(town, typed):
    assert "Nothing ever" in (await typed("suppressions", "lookup", "ann@example.test")).output
    added = await typed("suppressions", "add", "Ann@example.test", "--why", "Letter of 3 May", "--marketing")
    assert added.exit_code == 0, added.output
    number = added.output.split()[0]
    assert "marketing" in added.output
    assert (await typed("suppressions", "add", "ann@example.test", "--why", "Again", "--marketing")).exit_code == 1
    for words in (["list"], ["lookup", "ann@example.test"], ["list", "--reason", "manual", "--channel", "email"]):
        shown = (await typed("suppressions", *words)).output
        assert "Letter of 3 May" in shown
        assert "example.test" not in shown
    lifted = await typed("suppressions", "lift", number, "--why", "Called us")
    assert "Called us (cli)" in lifted.output
    assert (await typed("suppressions", "list")).output == ""
    assert "Called us" in (await typed("suppressions", "list", "--lifted")).output
    assert (await typed("suppressions", "lift", number, "--why", "x")).exit_code == 1


async def test_a_stop_is_lifted_only_by_those_who_repeat_it(town, typed):
    await town.execute(
        "INSERT INTO suppressions (channel, address_hash, hash_key, reason) VALUES ('sms', '\\x00', 'h1', 'stop')"
    )
    number = (await typed("suppressions", "list")).output.split()[0]
    refused = await typed("suppressions", "lift", number, "--why", "x")
    assert (refused.exit_code, "START comes from that phone" in refused.output) == (1, True)
    assert (await typed("suppressions", "lift", number, "--why", "x", "--despite", "stop")).exit_code == 0


@pytest.mark.parametrize(
    "words",
    [
        ("add", "nonsense", "--why", "x"),
        ("add", "a@example.test"),
        ("lookup", "x", "--channel", "push"),
        ("lookup", "030 1", "--channel", "sms"),
    ],
)
async def test_what_is_no_address_is_refused(town, typed, words):
    assert (await typed("suppressions", *words)).exit_code == 2
