"""What product code reads and writes of a person's preferences: proven, whole or not at all, and binding at once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from notifier.domain.access import Scope
from notifier.domain.consent import SuppressionReason
from notifier.store import suppressions
from notifier.store.suppressions import NewSuppression
from notifier_channels.addresses import EmailAddress
from notifier_channels.contract import Channel
from tests.servers.api import NEWS, Api, pointers

pytestmark = pytest.mark.anyio

AGO = datetime(2025, 11, 3, 10, tzinfo=UTC)
PROOF = {"wording": "Yes, the newsletter.", "wording_version": "settings-7"}
PATH = "/v1/recipients/ann/preferences"


@pytest.fixture
async def ann(api: Api) -> Api:
    await api.put("ann", email="ann@example.test")
    return api


def yes(scope: str = "topic:newsletter", channel: str = "email") -> dict[str, Any]:
    return {"scope": scope, "channel": channel, "granted": True}


def no(scope: str = "topic:newsletter", channel: str = "email") -> dict[str, Any]:
    return {"scope": scope, "channel": channel, "granted": False}


async def say(api: Api, *changes: dict[str, Any], **more: Any):
    return await api.client.put(PATH, json={"preferences": list(changes), **PROOF, **more})


def of(answer, topic: str, channel: str = "email") -> dict[str, Any]:
    [found] = [one for one in answer.json()["preferences"] if (one["topic"], one["channel"]) == (topic, channel)]
    return found


async def test_every_topic_and_channel_is_there_with_its_rule_and_its_reason(ann: Api) -> None:
    answer = await ann.client.get(PATH)
    assert answer.status_code == 200
    topics = ann.app.templates.topics
    pairs = [(topic.key, str(channel)) for topic in topics.values() for channel in topic.defaults]
    assert [(one["topic"], one["channel"]) for one in answer.json()["preferences"]] == pairs
    assert (of(answer, "security")["rule"], of(answer, "security")["allowed"]) == ("mandatory_topic", True)
    assert (of(answer, "newsletter")["rule"], of(answer, "newsletter")["allowed"]) == ("no_grant", False)
    assert of(answer, "product-news")["rule"] == "opt_out_default"
    assert of(answer, "product-news")["reason"] == "They have not said no, and it is sent until they do."


async def test_a_yes_is_written_with_what_was_read_and_by_whom(ann: Api) -> None:
    agent = "Mozilla/5.0 " + "x" * 500
    answer = await say(ann, yes(), ip="203.0.113.7", user_agent=agent, policy_version="2026-05")
    assert answer.status_code == 200
    seen = of(answer, "newsletter")
    assert (seen["allowed"], seen["rule"], seen["reason"]) == (True, "granted", "They said yes to newsletter.")
    [line] = await ann.rows("SELECT * FROM consent_events")
    actor = line["evidence"].pop("actor")
    assert actor.startswith("key:")
    assert line["evidence"] == PROOF | {
        "policy_version": "2026-05",
        "basis": "express",
        "ip": "203.0.113.0/24",
        "user_agent": agent[:200],
    }
    assert (line["source"], line["scope"], line["channel"]) == ("api", "topic:newsletter", "email")
    assert [one["number"] for one in seen["lines"]] == answer.json()["recorded"] == [line["number"]]
    assert seen["lines"][0]["evidence"]["wording"] == PROOF["wording"]


async def test_what_holds_already_is_not_written_again(ann: Api) -> None:
    await say(ann, yes(), no("topic:product-news"))
    again = await say(ann, yes(), no("topic:product-news"))
    assert (again.status_code, again.json()["recorded"]) == (200, [])
    assert await ann.count("consent_events") == 2
    changed = await say(ann, yes(), yes("topic:product-news"))
    assert len(changed.json()["recorded"]) == 1
    assert of(changed, "product-news")["allowed"]


async def test_a_no_said_again_on_a_later_day_beats_a_yes_from_in_between_that_becomes_known_afterwards(
    ann: Api,
) -> None:
    days = [(AGO + timedelta(days=day)).isoformat() for day in range(3)]
    for day in (days[0], days[2], days[2], days[0]):
        await say(ann, no(), occurred_at=day)
    assert await ann.count("consent_events") == 2
    answer = await say(ann, yes(), occurred_at=days[1])
    assert not of(answer, "newsletter")["allowed"]


async def test_a_yes_after_a_wider_no_is_news(ann: Api) -> None:
    await say(ann, yes())
    await say(ann, no("marketing", "any"))
    answer = await say(ann, yes())
    assert len(answer.json()["recorded"]) == 1
    assert of(answer, "newsletter")["allowed"]


async def test_everything_off_but_one_in_a_single_request_leaves_the_one(ann: Api) -> None:
    for when in ({"occurred_at": AGO.isoformat()}, {}):
        answer = await say(ann, yes("topic:product-news"), no("marketing", "any"), **when)
        assert of(answer, "product-news")["allowed"], when
        assert not of(answer, "newsletter")["allowed"]
        await say(ann, no("all", "any"))


async def test_a_no_cancels_what_is_queued_in_its_scope(ann: Api) -> None:
    await say(ann, yes())
    sent = (await ann.send(template="newsletter", recipient={"id": "ann"}, data=NEWS)).json()
    [message] = sent["messages"]
    answer = await say(ann, no("marketing"))
    assert answer.json()["cancelled"] == [message["id"]]
    state = (await ann.client.get(f"/v1/messages/{message['id']}")).json()
    assert (state["state"], state["reason"]) == ("cancelled", "withdrawn:marketing/email")


async def test_one_bad_change_and_nothing_is_written(ann: Api) -> None:
    answer = await say(ann, yes(), no("topic:security"))
    assert (answer.status_code, pointers(answer)) == (422, ["/preferences/1/scope"])
    assert await ann.count("consent_events") == 0


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"preferences": [no("topic:security")]}, "/preferences/0/scope"),
        ({"preferences": [no("topic:no-such")]}, "/preferences/0/scope"),
        ({"preferences": [no("newsletter")]}, "/preferences/0/scope"),
        ({"preferences": [no(channel="sms")]}, "/preferences/0/channel"),
        ({"preferences": [no(channel="fax")]}, "/preferences/0/channel"),
        ({"preferences": [no(), yes()]}, "/preferences/1"),
        ({"preferences": [no() | {"granted": 0}]}, "/preferences/0/granted"),
        ({"preferences": []}, "/preferences"),
        ({"preferences": [yes()], "wording": None}, "/wording"),
        ({"preferences": [yes()], "wording_version": None}, "/wording_version"),
        ({"preferences": [yes()], "basis": "hearsay"}, "/basis"),
        ({"preferences": [yes()], "occurred_at": "2999-01-01T00:00:00Z"}, "/occurred_at"),
        ({"preferences": [no()], "occurred_at": "2999-01-01T00:00:00Z"}, "/occurred_at"),
        ({"preferences": [yes()], "expires_at": "2001-01-01T00:00:00Z"}, "/expires_at"),
        ({"preferences": [yes()], "ip": "localhost"}, "/ip"),
        ({"preferences": [yes()], "colour": "blue"}, "/colour"),
    ],
)
async def test_each_refusal_names_its_field(ann: Api, body, pointer) -> None:
    answer = await ann.client.put(PATH, json=PROOF | body)
    assert (answer.status_code, pointers(answer)) == (422, [pointer])
    assert answer.headers["content-type"] == "application/problem+json"
    assert await ann.count("consent_events") == 0


async def test_a_no_needs_no_wording(ann: Api) -> None:
    answer = await ann.client.put(PATH, json={"preferences": [no("all", "any")]})
    assert answer.status_code == 200


async def test_who_is_not_known_is_not_found(api: Api) -> None:
    assert (await api.client.get(PATH)).status_code == 404
    answer = await say(api, no())
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


@pytest.mark.parametrize(
    ("scopes", "reads", "writes"),
    [([Scope.READ], 200, 403), ([Scope.PREFERENCES], 200, 200), ([Scope.RECIPIENTS, Scope.ADMIN], 403, 403)],
)
async def test_reading_and_writing_need_their_scopes(ann: Api, scopes, reads, writes) -> None:
    ann.client.headers.update(await ann.key(*scopes))
    assert (await ann.client.get(PATH)).status_code == reads
    assert (await say(ann, no())).status_code == writes


# The basis of a yes ---------------------------------------------------------------------------------------------------


async def test_an_implied_yes_ends_as_the_law_says(ann: Api) -> None:
    bought = datetime.now(UTC) - timedelta(days=100)
    answer = await say(ann, yes(), basis="implied_purchase", occurred_at=bought.isoformat(), wording=None)
    [line] = of(answer, "newsletter")["lines"]
    assert line["evidence"]["basis"] == "implied_purchase"
    lasts = datetime.fromisoformat(line["expires_at"]) - bought
    assert timedelta(days=729) <= lasts <= timedelta(days=731)


async def test_a_purchase_of_long_ago_implies_nothing(ann: Api) -> None:
    answer = await say(ann, yes(), basis="implied_inquiry", occurred_at=AGO.isoformat())
    assert pointers(answer) == ["/occurred_at"]
    answer = await say(ann, yes(), basis="implied_inquiry", expires_at="2999-01-01T00:00:00Z")
    assert pointers(answer) == ["/expires_at"]


async def test_what_is_implied_never_overrules_a_no(ann: Api) -> None:
    await say(ann, no("marketing", "any"))
    answer = await say(ann, yes(), basis="implied_purchase")
    assert pointers(answer) == ["/preferences/0"]
    answer = await say(ann, yes("marketing", "any"), basis="implied_purchase")
    assert pointers(answer) == ["/preferences/0/scope"]
    assert await ann.count("consent_events") == 1


async def test_what_is_implied_does_not_overrule_a_no_of_the_same_request(ann: Api) -> None:
    for changes in ([no("marketing", "any"), yes()], [yes(), no("marketing", "any")]):
        answer = await say(ann, *changes, basis="implied_purchase")
        assert pointers(answer) == [f"/preferences/{changes.index(yes())}"]
        assert "beside it" in answer.json()["errors"][0]["detail"]
    assert await ann.count("consent_events") == 0


async def test_an_express_yes_after_an_implied_one_is_news_and_the_other_way_round_is_not(ann: Api) -> None:
    await say(ann, yes(), basis="implied_purchase")
    answer = await say(ann, yes())
    assert [line["expires_at"] for line in of(answer, "newsletter")["lines"]] == [None]
    assert (await say(ann, yes(), basis="implied_purchase")).json()["recorded"] == []


@pytest.mark.parametrize("evidence", ['{"basis": "hearsay"}', '{"basis": "implied_purchase"}', '{"basis": null}'])
async def test_the_database_takes_no_yes_on_a_basis_that_does_not_carry_it(ann: Api, evidence) -> None:
    import psycopg

    [person] = await ann.rows("SELECT id FROM recipients")
    with pytest.raises(psycopg.errors.CheckViolation):
        await ann.execute(
            "INSERT INTO consent_events (recipient_id, scope, channel, granted, occurred_at, source, evidence)"
            " VALUES (%s, 'topic:newsletter', 'email', true, now(), 'api', %s)",
            (person["id"], evidence),
        )


# Then and now ---------------------------------------------------------------------------------------------------------


async def test_the_past_is_answered_as_it_was_and_as_it_was_known(ann: Api) -> None:
    await say(ann, yes(), occurred_at=AGO.isoformat())
    recorded = datetime.now(UTC)
    await say(ann, no(), occurred_at=(AGO + timedelta(days=1)).isoformat())

    async def allowed(**asked: datetime) -> bool:
        query = {name: moment.isoformat() for name, moment in asked.items()}
        return bool(of(await ann.client.get(PATH, params=query), "newsletter")["allowed"])

    assert not await allowed()
    assert await allowed(at=AGO + timedelta(hours=1))
    assert not await allowed(at=AGO + timedelta(days=2))
    assert await allowed(at=AGO + timedelta(days=2), known_at=recorded)
    assert not await allowed(at=AGO - timedelta(hours=1))


async def test_a_suppressed_address_is_named_beside_the_consent(ann: Api) -> None:
    hashed = ann.app.hasher.current(EmailAddress("ann", "example.test"))
    async with ann.app.database.connection() as c:
        await suppressions.add(c, [NewSuppression(Channel.EMAIL, hashed, SuppressionReason.COMPLAINT)])
    answer = await ann.client.get(PATH)
    assert (of(answer, "product-news")["allowed"], of(answer, "product-news")["suppressed"]) == (True, ["complaint"])
    assert of(answer, "orders")["suppressed"] == []


async def test_many_changes_at_once_leave_one_line_each(ann: Api) -> None:
    answers = await asyncio.gather(*(say(ann, no("marketing", "any"), yes("topic:orders")) for _ in range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert await ann.count("consent_events") == 2
