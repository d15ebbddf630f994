"""What became of a campaign: its sum is the audience whatever happened to it, and its table leaves no formula."""

from __future__ import annotations

import asyncio
import csv
import io
import random
import uuid
from collections import Counter
from contextlib import asynccontextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from notifier.client import CampaignReport
from notifier.commands import campaign_watch
from notifier.dispatch import reporting
from notifier.dispatch.deliver import Batch
from notifier.domain.access import Scope
from notifier.domain.messages import Lane, State
from notifier.domain.reports import Report
from notifier.errors import Conflict, NotFound
from notifier.store import reports
from notifier_channels.contract import Ambiguous, BadAddress, Channel, Receipt
from tests.servers.api import Api
from tests.world import MANDATORY, Scripted, World, take

pytestmark = pytest.mark.anyio


@pytest.fixture
def world(database, tmp_path) -> World:
    return World(database, tmp_path / "journals")


async def work(world: World, provider: Scripted | dict | None = None) -> None:
    async with world.worker(provider or Scripted(), Lane.MARKETING) as deliver:
        await deliver(())


async def report(world: World, campaign: uuid.UUID) -> Report:
    """As it is read; and person by person it says the same, which is the only way where there are several channels."""
    async with world.database.connection() as c:
        found = await reporting.report(c, campaign)
        one_by_one = await reports._people(c, campaign, await reporting.progress(c, campaign))
    adds_up(found)
    assert one_by_one == found.people
    return found


def adds_up(found: Report) -> None:
    people = found.people
    parts = people.not_planned + people.waiting + sum(people.left_out.values()) + people.unreachable
    assert parts + sum(people.states.values()) == people.audience
    assert people.not_planned >= 0
    for one in found.channels:
        assert one.not_planned + one.waiting + one.done == people.audience
        if one.channel is not Channel.PUSH:
            assert sum(outcome.messages for outcome in one.outcomes) == one.decided


def outcomes(found: Report, channel: Channel = Channel.EMAIL) -> dict[tuple[str, str | None], int]:
    [of] = [one for one in found.channels if one.channel is channel]
    return {(str(one.state), one.reason): one.messages for one in of.outcomes}


async def table(world: World, campaign: uuid.UUID) -> list[dict[str, str]]:
    text = "".join([piece async for piece in reporting.table(world.database.connection, campaign)])
    return list(csv.DictReader(io.StringIO(text, newline="")))


def by_reason(message, witness):
    local = str(message.to).partition("@")[0]
    if local.endswith("-7"):
        return BadAddress("550 5.1.1")
    return Ambiguous("lost") if local.endswith("-8") else take(message, witness)


async def test_it_counts_states_and_the_first_word_of_reasons_and_lists_what_is_in_doubt(world):
    people = await world.people(10)
    await world.withdraw(people[:3])
    await world.execute("UPDATE addresses SET removed_at = now() WHERE recipient_id = %s", people[9])
    campaign = await world.campaign(people, size=4)
    await work(world, Scripted(by_reason))
    found = await report(world, campaign)
    assert outcomes(found) == {
        ("accepted", None): 4,
        ("suppressed", "withdrawn"): 3,
        ("failed", "bad_address"): 1,
        ("unknown", "in_doubt"): 1,
    }
    assert (found.people.audience, found.people.unreachable, found.people.not_planned) == (10, 1, 0)
    assert found.channels[0].unreachable == 1
    [doubt] = found.unknown
    assert (doubt.reason, doubt.provider) == ("in_doubt:lost", "scripted")
    [hour] = found.hours
    assert hour.attempts == {"accepted": 4, "refused": 1, "unknown": 1}


async def test_domains_and_locales_are_counted_the_rest_together_and_no_address_is_named(world, monkeypatch):
    monkeypatch.setattr(reports, "MOST_PLACES", 2)
    people = await world.people(9)
    for n, domain in enumerate(["big.test"] * 4 + ["mid.test"] * 3 + ["a.test", "b.test"]):
        await world.execute("UPDATE addresses SET address = %s WHERE id = %s", f"secret{n}@{domain}", people[n])
    await world.execute("UPDATE recipients SET locale = 'de-AT' WHERE id = ANY(%s)", people[:2])
    await world.execute("UPDATE recipients SET locale = NULL WHERE id = %s", people[2])
    campaign = await world.campaign(people)
    await work(world)
    found = await report(world, campaign)
    assert [(one.name, one.messages) for one in found.domains] == [("big.test", 4), ("mid.test", 3), (None, 2)]
    assert [(one.name, one.messages) for one in found.locales] == [("en", 6), ("de-AT", 2), (None, 1)]
    assert found.domains[0].states == {State.ACCEPTED: 4}
    assert "secret" not in repr(found)


async def test_text_messages_are_counted_by_calling_code(world):
    people = await world.people(3)
    phones = await world.phones(people)
    await world.execute("UPDATE addresses SET address = '+12125550100' WHERE id = %s", phones[0])
    await world.grant(people, "topic:product-news", "sms")
    campaign = await world.campaign(people, by=Channel.SMS)
    await work(world, {Channel.SMS: Scripted(), Channel.EMAIL: Scripted()})
    found = await report(world, campaign)
    assert {one.name: one.messages for one in found.calling_codes} == {"+49": 2, "+1": 1}
    assert found.domains == []


async def test_it_says_which_noes_bounces_and_complaints_its_messages_caused(world):
    people = await world.people(6)
    campaign, another = await world.campaign(people), await world.campaign(people)
    await work(world)
    for of, source, person in (
        (campaign, "one_click", 0),
        (campaign, "unsubscribe_page", 1),
        (campaign, "complaint", 2),
        (another, "one_click", 3),
        (campaign, "api", 4),
    ):
        await world.execute(
            "INSERT INTO consent_events (recipient_id, scope, channel, granted, occurred_at, source, evidence)"
            " SELECT recipient_id, 'marketing', 'email', false, now(), %s, jsonb_build_object('message', id::text)"
            " FROM messages WHERE campaign_id = %s AND recipient_id = %s",
            source, of, people[person],
        )  # fmt: skip
    await world.execute(  # product code's own evidence may say `message`, too
        "INSERT INTO consent_events (recipient_id, scope, channel, granted, occurred_at, source, evidence)"
        " SELECT %s, 'marketing', 'email', false, now(), 'mailto', jsonb_build_object('message', left(id::text, 30))"
        " FROM messages WHERE campaign_id = %s",
        people[5], campaign,
    )  # fmt: skip
    for n, kind in enumerate(("bounced", "complained", "complained", "delivered")):
        await world.execute(
            "INSERT INTO delivery_events (id, message_id, kind, source, source_id, occurred_at)"
            " SELECT gen_random_uuid(), id, %s, 'test', %s, now() FROM messages"
            " WHERE campaign_id = %s AND recipient_id = %s",
            kind, str(n), campaign, people[max(n, 2)],
        )  # fmt: skip
    caused = (await report(world, campaign)).caused
    assert caused.withdrawals == {"one_click": 1, "unsubscribe_page": 1, "complaint": 1}
    assert caused.events == {"bounced": 1, "complained": 1, "delivered": 1}


async def test_tests_are_in_neither_the_report_nor_the_table(world):
    people = await world.people(3)
    campaign = await world.campaign(people[:2])
    await work(world)
    await world.execute(
        "INSERT INTO messages (id, campaign_id, is_test, recipient_id, address_id, channel, lane, category, topic,"
        " template_version, expires_at, state) SELECT gen_random_uuid(), campaign_id, true, recipient_id, address_id,"
        " channel, lane, category, topic, template_version, expires_at, state FROM messages"
    )
    assert outcomes(await report(world, campaign)) == {("accepted", None): 2}
    assert len(await table(world, campaign)) == 2


async def test_on_several_channels_each_person_counts_once_where_the_campaign_got_furthest(world):
    people = await world.people(4)  # 0: both, 1: email refused, 2: no email, 3: neither
    await world.phones(people[:3])
    await world.execute(
        "UPDATE addresses SET removed_at = now() WHERE channel = 'email' AND recipient_id = ANY(%s)", people[2:]
    )
    await world.withdraw(people[1:2], "topic:product-news", "email")
    await world.grant(people, "topic:product-news", "sms")
    campaign = await world.campaign(people)
    await world.execute(
        "INSERT INTO campaign_batches (campaign_id, channel, recipients, starts_at, due_at)"
        " SELECT campaign_id, 'sms', recipients, starts_at, due_at FROM campaign_batches"
    )
    await work(world, {Channel.EMAIL: Scripted(), Channel.SMS: Scripted(lambda *_: Receipt("SM1", "queued"))})
    found = await report(world, campaign)
    assert outcomes(found) == {("accepted", None): 1, ("suppressed", "withdrawn"): 1}
    assert outcomes(found, Channel.SMS) == {("accepted", None): 3}
    assert [(one.unreachable, one.decided) for one in found.channels] == [(2, 2), (1, 3)]
    assert (found.people.states, found.people.unreachable) == ({State.ACCEPTED: 3}, 1)
    lines = Counter((line["channel"], line["state"]) for line in await table(world, campaign))
    assert lines == {
        ("email", "accepted"): 1, ("email", "suppressed"): 1, ("email", "unreachable"): 2,
        ("sms", "accepted"): 3, ("sms", "unreachable"): 1,
    }  # fmt: skip


async def test_a_person_with_several_devices_counts_once(world):
    people = await world.people(2)
    await world.devices(people[:1], each=3)
    await world.grant(people, "topic:product-news", "push")
    campaign = await world.campaign(people, by=Channel.PUSH)
    await work(world, {Channel.PUSH: Scripted()})
    found = await report(world, campaign)
    assert sum(outcomes(found, Channel.PUSH).values()) == 3
    assert sum(found.people.states.values()) == found.people.unreachable == 1


async def test_somebody_nameless_who_was_adopted_since_still_counts(world):
    people = await world.people(3)
    campaign = await world.campaign(people)
    await work(world)
    await world.execute("UPDATE messages SET recipient_id = %s WHERE recipient_id = %s", people[1], people[0])
    await world.execute(
        "UPDATE recipients SET external_id = NULL, merged_into = %s WHERE id = %s", people[1], people[0]
    )
    assert (await report(world, campaign)).people.states == {State.ACCEPTED: 3}


async def test_who_came_after_the_count_is_part_of_the_audience(world):
    campaign = await world.campaign(await world.people(5))
    await world.execute("UPDATE campaigns SET audience_size = 3")
    await work(world)
    assert (await report(world, campaign)).people.audience == 5


async def test_a_report_is_of_one_instant_while_the_campaign_goes_on(world, monkeypatch):
    counted = reports.with_outcomes
    campaign = await world.campaign(await world.people(4))

    async def meanwhile(*given):
        await work(world)
        return await counted(*given)

    monkeypatch.setattr(reports, "with_outcomes", meanwhile)
    async with world.database.connection() as c:
        found = await reporting.report(c, campaign)
    adds_up(found)
    assert (found.people.waiting, found.people.states, found.hours) == (4, {}, [])


# Whatever happens to it -----------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("plan"), st.integers(1, 4)),
        st.sampled_from([("work", 0), ("pause", 0), ("resume", 0), ("claim", 0), ("snooze", 0), ("due", 0)]),
    ),
    max_size=8,
)


@asynccontextmanager
async def in_hand(world: World):
    """A worker that has taken what there was in hand, and comes to the gate only afterwards."""
    async with world.worker(Scripted(), Lane.MARKETING) as deliver:
        async with world.database.connection() as c:
            batch = await deliver._claim_planned(c, Channel.EMAIL, 500)
        yield
        if batch is not None:
            await deliver._bring(Batch(Channel.EMAIL, batch))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, size=st.integers(1, 12), cancels=st.booleans(), seed=st.integers(0, 99))
async def test_the_sum_is_the_audience_whatever_happens_in_which_order(database, tmp_path, steps, size, cancels, seed):
    pick = random.Random(seed)  # one of hypothesis' own draws inside, and what it raises then ends the event loop
    world = World(database, tmp_path / "journals")
    people = await world.people(size, prefix=uuid.uuid4().hex)
    await world.withdraw(pick.sample(people, size // 4))
    unreachable = pick.sample(people, size // 4)
    await world.execute("UPDATE addresses SET removed_at = now() WHERE recipient_id = ANY(%s)", unreachable)
    campaign, planned = await world.campaign([]), 0
    await world.execute("UPDATE campaigns SET audience_size = %s WHERE id = %s", size, campaign)
    for what, n in steps:
        planned += await step(world, campaign, what, people[planned : planned + n])
        found = await report(world, campaign)
        assert found.people.audience == size
        assert found.people.not_planned == size - planned  # what the test knows, and the report reckons
    if cancels:
        async with in_hand(world):
            await world.execute(
                "UPDATE campaigns SET state = 'cancelled', pause_reason = NULL, ended_at = now(),"
                " left_out = jsonb_build_object('cancelled', %s::int) WHERE id = %s", size - planned, campaign,
            )  # fmt: skip
        await world.execute("UPDATE messages SET due_at = now() WHERE due_at IS NOT NULL")
        await work(world)
    found = await report(world, campaign)
    assert found.people.not_planned == (0 if cancels else size - planned)
    lines = Counter(line["state"] for line in await table(world, campaign))
    assert lines.total() == planned
    assert lines["unreachable"] == found.people.unreachable
    assert lines["waiting"] == found.people.waiting
    assert lines["accepted"] == found.people.states.get(State.ACCEPTED, 0)


async def step(world: World, campaign: uuid.UUID, what: str, people: list[uuid.UUID]) -> int:
    match what:
        case "plan" if people:
            await world.execute(
                "INSERT INTO campaign_batches (campaign_id, channel, recipients, starts_at, due_at)"
                " VALUES (%s, 'email', %s, now(), now())", campaign, people,
            )  # fmt: skip
            return len(people)
        case "work":
            await work(world)
        case "claim":
            async with in_hand(world):
                await report(world, campaign)
        case "pause":
            await world.execute(
                "UPDATE campaigns SET state = 'paused', pause_reason = 'asked' WHERE id = %s AND state = 'sending'",
                campaign,
            )
        case "resume":
            await world.execute(
                "UPDATE campaigns SET state = 'sending', pause_reason = NULL WHERE id = %s AND state = 'paused'",
                campaign,
            )
        case "snooze":
            await world.execute("UPDATE recipients SET snoozed_until = now() + interval '5 minutes'")
        case "due":
            await world.execute("UPDATE messages SET due_at = now() WHERE due_at IS NOT NULL")
    return 0


# The table ------------------------------------------------------------------------------------------------------------


async def test_the_table_of_a_notice_proves_when_and_how_each_person_was_told_and_names_no_address(world):
    people = await world.people(2)
    await world.execute("UPDATE addresses SET removed_at = now() WHERE recipient_id = %s", people[1])
    campaign = await world.campaign(people, MANDATORY)
    await work(world)
    told, missed = await table(world, campaign)
    [row] = await sent(world)
    assert told == {
        "recipient": str(people[0]), "channel": "email", "state": "accepted", "reason": "", "message": str(row["id"]),
        "attempted_at": f"{row['started_at']:%Y-%m-%dT%H:%M:%S.%fZ}",
        "settled_at": f"{row['settled_at']:%Y-%m-%dT%H:%M:%S.%fZ}",
        "provider": "scripted", "code": "250", "reference": row["reference"], "locale": "en", "domain": "example.test",
    }  # fmt: skip
    assert (missed["recipient"], missed["state"], missed["reason"]) == (str(people[1]), "unreachable", "no_address")
    text = "".join([piece async for piece in reporting.table(world.database.connection, campaign)])
    assert "person-" not in text


async def sent(world: World):
    query = "SELECT m.id, a.* FROM messages m JOIN attempts a ON a.message_id = m.id"
    async with world.database.connection() as c:
        return await reports.rows(c, query)


async def test_who_waits_and_who_was_left_out_stand_in_the_table_with_the_reason(world):
    campaign = await world.campaign(await world.people(2), size=1)
    async with in_hand(world):
        await world.execute("UPDATE campaigns SET state = 'cancelled', ended_at = now()")
    found = [(line["state"], line["reason"]) for line in await table(world, campaign)]
    assert found == [("left_out", "cancelled"), ("waiting", "")]


async def test_a_formula_in_an_id_or_a_providers_answer_is_text_in_the_table(world):
    people = await world.people(1)
    await world.execute('UPDATE recipients SET external_id = \'=HYPERLINK("x""y")\' WHERE id = %s', people[0])
    campaign = await world.campaign(people)
    await work(world, Scripted(lambda *_: Receipt("@SUM(1)", "-1+1")))
    [line] = await table(world, campaign)
    assert line["recipient"] == '\'=HYPERLINK("x""y")'
    assert (line["reference"], line["code"]) == ("'@SUM(1)", "'-1+1")


async def test_the_table_is_read_in_pieces_and_holds_no_connection_between_them(world, monkeypatch):
    monkeypatch.setattr(reporting, "PIECE", 4)
    campaign = await world.campaign(await world.people(30), size=2)
    open_now = most = 0

    @asynccontextmanager
    async def connect():
        nonlocal open_now
        async with world.database.connection() as c:
            open_now += 1
            yield c
            open_now -= 1

    sizes = []
    async for piece in reporting.table(connect, campaign):
        most = max(most, open_now)
        sizes.append(piece.count("\r\n"))
    assert most == 0
    assert sum(sizes) == 31
    assert max(sizes) <= 4


# The API --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def served(api: Api, tmp_path) -> World:
    return World(api.app.database, tmp_path / "journals")


async def test_the_api_answers_the_report_and_streams_the_table(api: Api, served: World) -> None:
    people = await served.people(5)
    await served.withdraw(people[:1])
    campaign = await served.campaign(people)
    await work(served)
    answer = (await api.client.get(f"/v1/campaigns/{campaign}/report")).json()
    assert answer["people"] == {
        "audience": 5, "not_planned": 0, "waiting": 0, "left_out": {}, "unreachable": 0,
        "states": {"accepted": 4, "suppressed": 1},
    }  # fmt: skip
    assert answer["channels"][0]["messages"] == [
        {"state": "accepted", "reason": None, "messages": 4},
        {"state": "suppressed", "reason": "withdrawn", "messages": 1},
    ]
    assert (answer["name"], answer["state"], answer["is_notice"]) == ("Spring", "sending", False)
    read = CampaignReport.model_validate(answer)
    assert (read.people.audience, read.channels[0].messages[1].reason) == (5, "withdrawn")
    table_ = await api.client.get(f"/v1/campaigns/{campaign}/report.csv")
    assert table_.headers["content-type"] == "text/csv; header=present; charset=utf-8"
    assert "attachment" in table_.headers["content-disposition"]
    assert len(table_.text.splitlines()) == 6


@pytest.mark.parametrize("path", ["report", "report.csv"])
async def test_who_may_see_campaigns_may_see_their_reports(api: Api, served: World, path: str) -> None:
    url = f"/v1/campaigns/{await served.campaign(await served.people(1))}/{path}"
    for scope in Scope:
        may = scope in (Scope.READ, Scope.SEND_MARKETING, Scope.ADMIN)
        answer = await api.client.get(url, headers=await api.key(scope))
        assert answer.status_code == (200 if may else 403)
    unknown = await api.client.get(f"/v1/campaigns/{uuid.uuid4()}/{path}")
    assert (unknown.status_code, unknown.json()["type"]) == (404, "urn:notifier:problem:not-found")


async def test_a_draft_has_nobody_and_none_is_found_by_another_id(world):
    campaign = await world.campaign([])
    await world.execute("UPDATE campaigns SET state = 'cancelled', ended_at = now(), audience_size = NULL")
    found = await report(world, campaign)
    assert (found.people.audience, found.channels) == (0, [])
    with pytest.raises(NotFound):
        await report(world, uuid.uuid4())


# Watching -------------------------------------------------------------------------------------------------------------


async def test_watching_ends_by_itself_with_the_last_counts_when_the_campaign_does(world, monkeypatch):
    counted = reports.with_outcomes

    async def slowly(*given):
        await asyncio.sleep(0.2)  # the next count would be seconds away
        return await counted(*given)

    monkeypatch.setattr(reports, "with_outcomes", slowly)
    campaign = await world.campaign(await world.people(4), size=2)
    seen = []
    async with world.database.connection() as c:
        async for view in campaign_watch.views(c, campaign):
            seen.append(view)
            if len(seen) == 1:
                await work(world)
                await world.execute("UPDATE campaigns SET state = 'finished', ended_at = now()")
    assert [view.progress.headline.state for view in seen] == ["sending", "finished"]
    assert [view.done for view in seen] == [0, 4]
    assert seen[-1].channels[0].messages(State.ACCEPTED) == 4


async def test_a_draft_and_an_unknown_campaign_are_not_watched(world):
    campaign = await world.campaign([])
    await world.execute(
        "INSERT INTO campaigns (id, name, template, audience, schedule, created_by)"
        " SELECT %s, name, template, audience, schedule, created_by FROM campaigns WHERE id = %s",
        draft := uuid.uuid4(), campaign,
    )  # fmt: skip
    async with world.database.connection() as c:
        for id_, error in ((draft, Conflict), (uuid.uuid4(), NotFound)):
            with pytest.raises(error):
                await anext(campaign_watch.views(c, id_))


# The commands ---------------------------------------------------------------------------------------------------------


async def test_an_operator_reads_the_report_and_writes_the_table_to_a_file(world, typed, tmp_path):
    people = await world.people(5)
    await world.withdraw(people[:2])
    campaign = await world.campaign(people)
    await work(world)
    shown = await typed("campaigns", "report", campaign)
    assert shown.exit_code == 0
    words = [line.split() for line in shown.stdout.splitlines()]
    assert ["3", "accepted"] in words
    assert ["2", "suppressed", "withdrawn"] in words
    written = tmp_path / "report.csv"
    assert (await typed("campaigns", "report", campaign, "--csv", written)).exit_code == 0
    assert len(list(csv.DictReader(io.StringIO(written.read_bytes().decode(), newline="")))) == 5
    printed = await typed("campaigns", "report", campaign, "--csv", "-")
    assert printed.stdout_bytes == written.read_bytes()
    nowhere = await typed("campaigns", "report", campaign, "--csv", tmp_path / "no" / "report.csv")
    assert (nowhere.exit_code, "No such file" in nowhere.stderr) == (1, True)
    before = written.read_bytes()
    assert (await typed("campaigns", "report", uuid.uuid4(), "--csv", written)).exit_code == 1
    assert written.read_bytes() == before
    assert (await typed("campaigns", "report", uuid.uuid4())).exit_code == 1


async def test_into_a_pipe_watching_writes_a_line_for_each_change(world, typed):
    campaign = await world.campaign(await world.people(3))
    await work(world)
    await world.execute("UPDATE campaigns SET state = 'cancelled', ended_at = now()")
    shown = await typed("campaigns", "watch", campaign)
    assert shown.exit_code == 0
    [line] = shown.stdout.splitlines()
    assert "cancelled 3 of 3 people, 100 %" in line
    assert "email: sent 3" in line
