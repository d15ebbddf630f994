"""Campaigns through the API: drawn up once, wrong in nothing, approved as foreseen, and moved only as NEXT allows."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from notifier.dispatch import steering
from notifier.domain.access import OPERATOR, Scope
from notifier.domain.campaigns import NEXT, CampaignState, data_for
from notifier.errors import Conflict
from notifier.store import campaigns
from tests.servers.api import NEWS, Api, once, pointers
from tests.servers.campaigns import (
    NOTICE,
    PATH,
    PLAN,
    create,
    do,
    draft,
    edit,
    foresee,
    get,
    message,
    person,
    post,
    scheduled,
    standing,
)

pytestmark = pytest.mark.anyio

SOON = (datetime.now(UTC) + timedelta(days=2)).replace(microsecond=0)
LATER = SOON + timedelta(days=3)


def z(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


# Drawing up -----------------------------------------------------------------------------------------------------------


async def test_a_draft_is_kept_as_it_was_drawn_up_and_read_back(api: Api) -> None:
    made = await create(api, schedule={"at": z(SOON)}, rate=12.5, expires_at=z(LATER))
    assert made.status_code == 201
    body = made.json()
    assert body.items() >= {
        "state": "draft", "revision": 1, "template": "newsletter", "data": NEWS, "from_attributes": [],
        "schedule": {"at": z(SOON)}, "rate": 12.5, "expires_at": z(LATER), "is_notice": False, "sender": None,
        "template_version": None, "topic": None, "plan_hash": None, "left_out": {},
        "audience": {"filter": None, "list": None, "exclude": []},
    }.items()  # fmt: skip
    assert body["created_by"].startswith("key:")
    assert await get(api, body["id"]) == body
    assert await api.count("messages") == 0


async def test_what_the_data_leaves_open_comes_from_the_persons_attributes_and_is_named(api: Api) -> None:
    made = await create(api, data={"title": "News", "published_on": "2026-11-23"})
    assert made.json()["from_attributes"] == ["opening", "stories"]
    assert data_for(["a", "b", "c"], {"a": 1, "b": 2, "d": 3}, {"b": 4}) == {"a": 1, "b": 4}


async def test_a_notice_is_a_campaign_of_a_mandatory_topic(api: Api) -> None:
    assert (await create(api, **NOTICE)).json()["is_notice"]


@pytest.mark.parametrize(
    ("changes", "pointer", "says"),
    [
        ({"template": "newslettr"}, "/template", "did you mean `newsletter`"),
        ({"template": "order-shipped", "data": {}}, "/template", "not mandatory"),
        ({"template": "manage-link", "data": {}}, "/template", "Notifier's own"),
        ({"template": "confirm-subscription", "data": {}}, "/template", "Notifier's own"),
        ({"data": NEWS | {"titel": "x"}}, "/data/titel", "not known to this template"),
        ({"data": NEWS | {"title": 7}}, "/data/title", "must be of type string"),
        ({"data": NEWS | {"stories": [{"title": "One", "text": "Two"}]}}, "/data/stories/0/url", "is missing"),
        ({"audience": {"who": "all"}}, "/audience/who", "is not a known field"),
        ({"audience": {"list": str(uuid4())}}, "/audience/list", "no list that is there"),
        ({"audience": {"exclude": [str(uuid4())]}}, "/audience/exclude/0", "no list that is there"),
        ({"audience": {"filter": {"subscribed": "no-such"}}}, "/audience/filter/subscribed", ""),
        ({"schedule": {"at": "tomorrow"}}, "/schedule/at", ""),
        ({"schedule": {"at": "2020-01-01T00:00:00Z"}}, "/schedule/at", "lies in the past"),
        ({"schedule": {"at": "2020-01-01T00:00", "local": True}}, "/schedule/at", "lies in the past"),
        ({"schedule": {"at": "2190-01-01T00:00:00Z"}}, "/schedule/at", "more than a year ahead"),
        ({"sender": "shop"}, "/sender", "NOTIFIER_SENDERS"),
        ({"rate": 0}, "/rate", "at least 0.001"),
        ({"rate": 1e-300}, "/rate", "at least 0.001"),
        ({"rate": "fast"}, "/rate", "must be a number"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "/expires_at", "lies in the past"),
        ({"expires_at": "2190-01-01T00:00:00Z"}, "/expires_at", "two years"),
        ({"schedule": {"at": z(LATER)}, "expires_at": z(SOON)}, "/expires_at", "before it begins"),
        ({"name": ""}, "/name", "at least 1"),
        ({"name": ...}, "/name", "is missing"),
        ({"topic": "newsletter"}, "/topic", "not a known field"),
    ],
)
async def test_each_mistake_names_its_field_and_keeps_nothing(api: Api, changes, pointer, says) -> None:
    refused = await create(api, **changes)
    assert (refused.status_code, pointers(refused)) == (422, [pointer]), refused.text
    assert says in refused.json()["errors"][0]["detail"]
    assert await api.count("campaigns") == 0
    assert (await create(api)).status_code == 201


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
BODIES = st.fixed_dictionaries(
    {"name": st.just("x") | VALUES, "template": st.sampled_from(["newsletter", "policy-update"]) | VALUES},
    optional=dict.fromkeys(("data", "sender", "rate", "expires_at"), VALUES)
    | {
        "audience": st.fixed_dictionaries({}, optional=dict.fromkeys(("filter", "list", "exclude"), VALUES)) | VALUES,
        "schedule": st.fixed_dictionaries(
            {}, optional=dict.fromkeys(("at", "local", "over", "cron", "timezone", "expires_after"), VALUES)
        )
        | VALUES,
    },
)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(body=BODIES)
async def test_no_campaign_breaks_it(api: Api, body) -> None:
    headers = once() | {"Content-Type": "application/json"}
    made = await api.client.post(PATH, content=json.dumps(body), headers=headers)
    assert made.status_code in (201, 400, 422), made.text
    edited = await api.client.patch(
        f"{PATH}/{uuid4()}", content=json.dumps(body), headers={"Content-Type": "application/json"}
    )
    assert edited.status_code in (400, 404, 422), edited.text


async def test_all_mistakes_come_at_once(api: Api) -> None:
    refused = await create(
        api, template="no", audience={"x": 1}, schedule={"x": 1}, sender="x", expires_at="2020-01-01T00:00:00Z"
    )
    assert set(pointers(refused)) == {"/template", "/audience/x", "/schedule/x", "/sender", "/expires_at"}


async def test_one_key_draws_up_one_campaign_however_many_ask_at_once(api: Api) -> None:
    answers = await asyncio.gather(*(create(api, "december") for _ in range(5)))
    assert [answer.status_code for answer in answers] == [201] * 5
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sorted("Idempotent-Replayed" in answer.headers for answer in answers) == [False] + [True] * 4
    assert await api.count("campaigns") == 1
    assert (await create(api, "december", name="Another")).status_code == 422
    assert (await create(api, "january")).json()["id"] != answers[0].json()["id"]
    missing = await api.client.post(PATH, json={"name": "x", "template": "newsletter"})
    assert (missing.status_code, "Idempotency-Key" in missing.text) == (422, True)


async def test_a_key_stands_for_one_kind_of_request(api: Api) -> None:
    assert (await api.send("one")).status_code == 202
    assert (await create(api, "one")).status_code == 422
    assert (await create(api, "two")).status_code == 201
    assert (await api.send("two")).status_code == 422


async def test_a_key_of_a_refused_campaign_is_not_used_up(api: Api) -> None:
    assert (await create(api, "december", template="no")).status_code == 422
    assert (await create(api, "december")).status_code == 201


@pytest.mark.parametrize(
    ("scopes", "marketing", "notice"),
    [
        ([Scope.SEND_MARKETING], 201, 403),
        ([Scope.ADMIN], 403, 201),
        ([Scope.SEND_TRANSACTIONAL, Scope.READ, Scope.RECIPIENTS, Scope.PREFERENCES], 403, 403),
    ],
)
async def test_marketing_and_notices_need_their_own_scopes(api: Api, scopes, marketing, notice) -> None:
    both = {"newsletter": await draft(api), "policy-update": await draft(api, **NOTICE)}
    api.client.headers.update(await api.key(*scopes))
    assert (await create(api)).status_code == marketing
    assert (await create(api, **NOTICE)).status_code == notice
    for template, status in (("newsletter", marketing), ("policy-update", notice)):
        allowed = status == 201
        for what in ("preview", "cancel"):
            assert ((await post(api, both[template], what)).status_code < 300) == allowed, what
        assert ((await edit(api, both[template], name="x")).status_code == 403) == (not allowed)


async def test_a_campaign_does_not_become_a_notice_without_the_scope(api: Api) -> None:
    id_ = await draft(api)
    api.client.headers.update(await api.key(Scope.SEND_MARKETING, Scope.READ))
    assert (await edit(api, id_, **NOTICE)).status_code == 403
    assert not (await get(api, id_))["is_notice"]


async def test_the_list_is_read_page_by_page(api: Api) -> None:
    made = [await draft(api, name=f"n{n}") for n in range(5)]
    cancelled = await standing(api, "cancelled")
    seen, before = [], None
    while True:
        page = (await api.client.get(PATH, params={"limit": 2} | ({"before": before} if before else {}))).json()
        seen += [one["id"] for one in page["campaigns"]]
        if (before := page["next"]) is None:
            break
    assert seen == [cancelled, *reversed(made)]
    only = (await api.client.get(PATH, params={"state": "cancelled"})).json()["campaigns"]
    assert [one["id"] for one in only] == [cancelled]


async def test_what_is_not_there_is_not_found(api: Api) -> None:
    nobody = str(uuid4())
    assert (await api.client.get(f"{PATH}/{nobody}")).status_code == 404
    assert (await api.client.get(f"{PATH}/{nobody}/preview")).status_code == 404
    assert (await edit(api, nobody, name="x")).status_code == 404
    for what in ("preview", "unschedule", "pause", "resume", "cancel"):
        assert (await post(api, nobody, what)).status_code == 404, what
    assert (await do(api, nobody, "schedule", plan="x")).status_code == 404


# Editing --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "is_another"),
    [
        ({"name": "Another name"}, False),
        ({"data": NEWS}, False),
        ({"audience": {"exclude": []}}, False),
        ({}, False),
        ({"data": NEWS | {"title": "Other"}}, True),
        ({"template": "product-news", "data": {}}, True),
        ({"audience": {"filter": {"language": "de"}}}, True),
        ({"schedule": {"at": z(SOON)}}, True),
        ({"rate": 3}, True),
        ({"expires_at": z(LATER)}, True),
    ],
)
async def test_an_edit_of_what_is_sent_makes_another_revision(api: Api, said, is_another) -> None:
    id_ = await draft(api)
    edited = (await edit(api, id_, **said)).json()
    assert edited["revision"] == 1 + is_another
    assert edited.items() >= {name: value for name, value in said.items() if name != "audience"}.items()


async def test_a_wrong_edit_changes_nothing(api: Api) -> None:
    id_ = await draft(api)
    before = await get(api, id_)
    refused = await edit(api, id_, name="x", sender="nobody", template=None)
    assert refused.status_code == 422
    assert pointers(await edit(api, id_, name="x", sender="nobody")) == ["/sender"]
    assert await get(api, id_) == before


@pytest.mark.parametrize("state", ["sending", "paused"])
async def test_while_it_is_sent_its_name_rate_and_expiry_can_change_and_nothing_else(api: Api, state) -> None:
    id_ = await standing(api, state)
    edited = (await edit(api, id_, name="x", rate=5, expires_at=z(LATER))).json()
    assert (edited["name"], edited["rate"], edited["expires_at"]) == ("x", 5, z(LATER))
    assert (edited["revision"], edited["state"]) == (1, state)
    assert pointers(await edit(api, id_, data=NEWS, name="y")) == ["/data"]
    assert pointers(await edit(api, id_, expires_at=None)) == ["/expires_at"]
    assert pointers(await edit(api, id_, expires_at="2020-01-01T00:00:00Z")) == ["/expires_at"]
    assert (await get(api, id_))["name"] == "x"
    assert (await edit(api, id_, rate=None)).json()["rate"] is None


async def test_another_expiry_holds_for_what_is_queued_too(api: Api) -> None:
    id_ = await standing(api, "sending")
    queued, tried, sent = [await message(api, id_, await person(api, n), state) for n, state in
                           enumerate(("queued", "queued", "accepted"))]  # fmt: skip
    await api.execute("UPDATE messages SET is_test = true WHERE id = %s", (tried,))
    before = {row["id"]: row for row in await api.rows("SELECT id, expires_at, due_at FROM messages")}
    for change in (timedelta(minutes=-30), timedelta(days=2)):
        expires_at = (before[queued]["due_at"] + change).replace(microsecond=0)
        assert (await edit(api, id_, expires_at=z(expires_at))).status_code == 200
        after = {row["id"]: row for row in await api.rows("SELECT id, expires_at, due_at FROM messages")}
        assert after[queued]["expires_at"] == expires_at
        assert after[queued]["due_at"] == min(before[queued]["due_at"], expires_at)  # not looked at after its end
        assert [after[one] for one in (tried, sent)] == [before[one] for one in (tried, sent)]
        before = after


@pytest.mark.parametrize("state", ["scheduled", "finished", "cancelled"])
async def test_what_is_approved_or_over_is_not_edited(api: Api, state) -> None:
    id_ = await standing(api, state)
    refused = await edit(api, id_, name="x")
    assert (refused.status_code, f"`{state}`" in refused.json()["detail"]) == (409, True)


# Approval -------------------------------------------------------------------------------------------------------------


async def test_a_dry_run_is_asked_for_once_and_read_while_it_is_reckoned_and_after(api: Api) -> None:
    id_ = await draft(api)
    assert (await api.client.get(f"{PATH}/{id_}/preview")).status_code == 404
    asked, again = await post(api, id_, "preview"), await post(api, id_, "preview")
    assert (asked.status_code, asked.json()) == (202, again.json())
    under_way = (await api.client.get(f"{PATH}/{id_}/preview")).json()
    assert (under_way["id"], under_way["plan"], under_way["hash"]) == (asked.json()["id"], None, None)
    hash_ = await foresee(api, id_)
    done = (await api.client.get(f"{PATH}/{id_}/preview")).json()
    assert (done["plan"].items() >= PLAN.items(), done["hash"], done["approved_at"]) == (True, hash_, None)
    await edit(api, id_, rate=1)
    assert (await post(api, id_, "preview")).json()["id"] != asked.json()["id"]


async def test_scheduling_pins_what_was_foreseen_and_says_who_approved(api: Api) -> None:
    id_ = await draft(api, schedule={"at": z(SOON), "over": "2h"})
    hash_ = await foresee(api, id_)
    answer = await do(api, id_, "schedule", plan=hash_)
    assert answer.status_code == 200, answer.text
    made = answer.json()
    [version] = await api.rows("SELECT id FROM template_versions WHERE key = 'newsletter'")
    assert made.items() >= {
        "state": "scheduled", "plan_hash": hash_, "template_version": version["id"], "topic": "newsletter",
        "category": "marketing", "starts_at": z(SOON), "revision": 1,
    }.items()  # fmt: skip
    expires_after = api.app.templates.find("newsletter").expires_after
    assert made["expires_at"] == z(SOON + timedelta(hours=2) + expires_after)
    plan = (await api.client.get(f"{PATH}/{id_}/preview")).json()
    assert plan["approved_by"] == made["scheduled_by"] == made["created_by"]
    assert plan["approved_at"]
    again = await do(api, id_, "schedule", plan=hash_)
    assert (again.status_code, again.json()) == (200, made)


async def test_the_expiry_that_was_given_stands(api: Api) -> None:
    id_ = await scheduled(api, expires_at=z(LATER))
    assert (await get(api, id_))["expires_at"] == z(LATER)


async def test_what_recurs_starts_when_cron_says_and_has_no_end_of_its_own(api: Api) -> None:
    recurring = {"cron": "0 9 * * 1", "timezone": "Europe/Vienna", "expires_after": "1d"}
    made = await get(api, await scheduled(api, schedule=recurring))
    starts = datetime.fromisoformat(made["starts_at"])
    assert (starts.weekday(), starts > datetime.now(UTC), made["expires_at"]) == (0, True, None)


async def test_only_a_dry_run_of_the_campaign_as_it_is_approves_it(api: Api) -> None:
    id_, other = await draft(api), await draft(api)
    hash_ = await foresee(api, id_)
    assert pointers(await do(api, id_, "schedule", plan="0" * 64)) == ["/plan"]
    assert pointers(await do(api, other, "schedule", plan=hash_)) == ["/plan"]
    await edit(api, id_, name="Only another name")
    await edit(api, id_, data=NEWS | {"title": "Other"})
    refused = await do(api, id_, "schedule", plan=hash_)
    assert (refused.status_code, "edited after" in refused.json()["detail"]) == (409, True)
    assert (await get(api, id_))["state"] == "draft"
    assert (await do(api, id_, "schedule", plan=await foresee(api, id_))).status_code == 200


@pytest.mark.parametrize(("value", "other"), [(1, True), (0, False)])
async def test_true_is_not_the_one_that_was_approved(api: Api, value, other) -> None:
    """To Python they are equal, to the audience they are not."""
    id_ = await draft(api, audience={"filter": {"attribute": "vip", "equals": value}})
    hash_ = await foresee(api, id_)
    edited = (await edit(api, id_, audience={"filter": {"attribute": "vip", "equals": other}})).json()
    assert (edited["revision"], edited["audience"]["filter"]["equals"] is other) == (2, True)
    assert (await do(api, id_, "schedule", plan=hash_)).status_code == 409


async def test_another_wording_since_the_dry_run_is_not_approved_by_it(api: Api) -> None:
    id_ = await draft(api)
    hash_ = await foresee(api, id_)
    await api.execute("UPDATE template_versions SET hash = 'as it was before' WHERE key = 'newsletter'")
    refused = await do(api, id_, "schedule", plan=hash_)
    assert (refused.status_code, "template has changed" in refused.json()["detail"]) == (409, True)


async def test_what_has_gone_wrong_since_is_said_when_it_is_scheduled(api: Api) -> None:
    id_ = await draft(api, schedule={"at": z(SOON)})
    hash_ = await foresee(api, id_)
    await api.execute('UPDATE campaigns SET schedule = \'{"at": "2020-01-01T00:00:00Z"}\' WHERE id = %s', (id_,))
    assert pointers(await do(api, id_, "schedule", plan=hash_)) == ["/schedule/at"]


async def test_an_expiry_that_was_left_to_the_template_is_so_again_when_it_is_unscheduled(api: Api) -> None:
    id_ = await scheduled(api, schedule={"at": z(SOON)})
    first = (await get(api, id_))["expires_at"]
    assert (await post(api, id_, "unschedule")).json()["expires_at"] is None
    assert (await edit(api, id_, schedule={"at": z(SOON + timedelta(days=90))})).status_code == 200
    again = (await do(api, id_, "schedule", plan=await foresee(api, id_))).json()["expires_at"]
    assert datetime.fromisoformat(again) - datetime.fromisoformat(first) == timedelta(days=90)


async def test_an_expiry_that_was_given_outlasts_the_schedule_and_can_be_left_to_the_template(api: Api) -> None:
    id_ = await scheduled(api, schedule={"at": z(SOON)}, expires_at=z(LATER))
    assert (await post(api, id_, "unschedule")).json()["expires_at"] == z(LATER)
    far = SOON + timedelta(days=90)
    refused = await edit(api, id_, schedule={"at": z(far)})
    assert (pointers(refused), "or null" in refused.text) == (["/expires_at"], True)
    assert (await edit(api, id_, schedule={"at": z(far)}, expires_at=None)).json()["expires_at"] is None


async def test_the_lists_of_a_campaign_stay_there_while_it_may_be_sent(api: Api) -> None:
    csv = {"content": b"id\nuser-17\n", "headers": {"Content-Type": "text/csv"}}
    made = (await api.client.post("/v1/lists", params={"name": "Buyers"}, **csv)).json()["id"]
    id_ = await draft(api, audience={"list": made})
    assert (await api.client.delete(f"/v1/lists/{made}")).status_code == 409
    await post(api, id_, "cancel")
    assert (await api.client.delete(f"/v1/lists/{made}")).status_code == 204


async def test_taking_it_back_unpins_and_the_same_dry_run_still_approves(api: Api) -> None:
    id_ = await scheduled(api)
    hash_ = (await get(api, id_))["plan_hash"]
    back = (await post(api, id_, "unschedule")).json()
    assert (back["state"], back["template_version"], back["plan_hash"], back["scheduled_by"]) == ("draft", *[None] * 3)
    assert (await do(api, id_, "schedule", plan=hash_)).json()["state"] == "scheduled"


# Its states -----------------------------------------------------------------------------------------------------------

MOVES = {
    "unschedule": ({"scheduled"}, "draft"),
    "pause": ({"sending"}, "paused"),
    "resume": ({"paused"}, "sending"),
    "cancel": ({"draft", "scheduled", "sending", "paused"}, "cancelled"),
}


@pytest.mark.parametrize(("what", "state"), list(itertools.product(MOVES, map(str, CampaignState))))
async def test_each_move_goes_from_its_states_and_is_refused_by_name_from_others(api: Api, what, state) -> None:
    id_ = await standing(api, state)
    before = await get(api, id_)
    expected, to = MOVES[what]
    answer = await post(api, id_, what)
    if state in expected:
        assert (answer.status_code, answer.json()["state"]) == (200, to)
    elif state == to:
        assert (answer.status_code, answer.json()) == (200, before)
    else:
        assert answer.status_code == 409
        assert f"`{state}`" in answer.json()["detail"]
        assert await get(api, id_) == before


@pytest.mark.parametrize("state", ["sending", "paused", "finished", "cancelled"])
async def test_what_has_begun_is_neither_foreseen_nor_scheduled(api: Api, state) -> None:
    id_ = await standing(api, state)
    for refused in (await post(api, id_, "preview"), await do(api, id_, "schedule", plan="x")):
        assert (refused.status_code, f"`{state}`" in refused.json()["detail"]) == (409, True)


async def test_a_pause_says_why_and_a_resume_forgets_it(api: Api) -> None:
    id_ = await standing(api, "sending")
    paused = (await do(api, id_, "pause", why="Wrong price")).json()
    assert paused["pause_reason"] == "Wrong price"
    await api.execute("UPDATE campaigns SET spoiled_in_row = 9 WHERE id = %s", (id_,))
    assert (await post(api, id_, "resume")).json()["pause_reason"] is None
    assert (await api.rows("SELECT spoiled_in_row FROM campaigns"))[0]["spoiled_in_row"] == 0
    assert (await post(api, id_, "pause")).json()["pause_reason"] == "asked"


async def test_a_resume_wakes_what_waited_for_it_and_rings(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    rung: list[Any] = []
    monkeypatch.setattr(type(api.app.jobs), "ring", lambda _, *said: rung.append(said))
    id_ = await standing(api, "paused")
    held = await message(api, id_, await person(api, 1), reason="campaign_paused")
    quiet = await message(api, id_, await person(api, 2), reason="quiet_hours:eu/Europe/Vienna")
    await post(api, id_, "resume")
    due = {
        row["id"]: row["is_due"]
        for row in await api.rows("SELECT id, due_at <= clock_timestamp() AS is_due FROM messages")
    }
    assert due == {held: True, quiet: False}
    assert rung == [("marketing", ())]


async def test_a_cancel_puts_aside_what_nobody_has_in_hand_and_counts_who_was_in_no_batch(api: Api) -> None:
    id_ = await standing(api, "sending")
    people = [await person(api, n) for n in range(3)]
    await api.execute("UPDATE campaigns SET audience_size = 100 WHERE id = %s", (id_,))
    await api.execute(
        "INSERT INTO campaign_walks (campaign_id, due_at, size, planned) VALUES (%s, now(), 100, 40)", (id_,)
    )
    batch = (
        "INSERT INTO campaign_batches (campaign_id, channel, recipients, starts_at, due_at, worker_id, decided_at)"
        " VALUES (%s, 'email', %s, now(), %s, %s, %s)"
    )
    now = datetime.now(UTC)
    for size, *stand in [(2, now, None, None), (3, now, None, None), (1, None, 7, None), (3, None, None, now)]:
        await api.execute(batch, (id_, people[:size], *stand))
    queued = await message(api, id_, people[0])
    sent = await message(api, id_, people[1], "accepted")
    assert (await post(api, id_, "cancel")).json()["left_out"] == {"cancelled": 60}
    states = {row["id"]: (row["state"], row["reason"]) for row in await api.rows("SELECT * FROM messages")}
    assert states == {queued: ("cancelled", "campaign_cancelled"), sent: ("accepted", None)}
    batches = await api.rows("SELECT left_out FROM campaign_batches ORDER BY n")
    assert [row["left_out"] for row in batches] == ["cancelled", "cancelled", None, None]
    left = (await get(api, id_))["left_out"]
    assert (await post(api, id_, "cancel")).json()["left_out"] == left


async def test_what_is_queued_follows_in_pieces_after_the_move_and_what_broke_off_is_finished_by_asking_again(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    id_ = await standing(api, "sending")
    for n in range(5):
        await message(api, id_, await person(api, n))
    async with api.app.database.connection() as c:
        last = await campaigns.cancel_queued(c, UUID(id_), UUID(int=0), 2)
        states = "SELECT state FROM messages ORDER BY id"
        assert [row["state"] for row in await api.rows(states)] == ["cancelled"] * 2 + ["queued"] * 3
        assert (
            last
            == (await api.rows("SELECT max(id::text)::uuid AS id FROM messages WHERE state = 'cancelled'"))[0]["id"]
        )
    steer = api.app.database.transact(lambda c: steering.cancel(c, UUID(id_), OPERATOR))
    assert (await steer).state is CampaignState.CANCELLED  # and here the process dies
    monkeypatch.setattr(steering, "AT_ONCE", 2)
    assert (await post(api, id_, "cancel")).status_code == 200
    assert {row["state"] for row in await api.rows(states)} == {"cancelled"}


async def test_a_resume_that_broke_off_is_finished_by_asking_again(api: Api) -> None:
    id_ = await standing(api, "paused")
    for n in range(3):
        await message(api, id_, await person(api, n), reason="campaign_paused")
    await api.app.database.transact(lambda c: steering.resume(c, UUID(id_), OPERATOR))
    due = "SELECT count(*) AS n FROM messages WHERE due_at <= clock_timestamp()"
    assert (await api.rows(due))[0]["n"] == 0
    async with api.app.database.connection() as c:
        assert await campaigns.wake(c, UUID(id_), UUID(int=0), 2) is not None
    assert (await api.rows(due))[0]["n"] == 2
    await post(api, id_, "resume")
    assert (await api.rows(due))[0]["n"] == 3


# Races ----------------------------------------------------------------------------------------------------------------


async def test_of_two_pauses_at_once_one_counts(api: Api) -> None:
    for _ in range(5):
        id_ = await standing(api, "sending")
        answers = await asyncio.gather(*(do(api, id_, "pause", why=why) for why in ("one", "two")))
        assert [answer.status_code for answer in answers] == [200, 200]
        reasons = {answer.json()["pause_reason"] for answer in answers}
        assert reasons == {(await get(api, id_))["pause_reason"]}


async def test_a_cancel_beats_a_schedule_whichever_comes_first(api: Api) -> None:
    for _ in range(5):
        id_ = await draft(api)
        hash_ = await foresee(api, id_)
        scheduling, cancelling = await asyncio.gather(do(api, id_, "schedule", plan=hash_), post(api, id_, "cancel"))
        assert cancelling.status_code == 200
        assert scheduling.status_code in (200, 409)
        assert (await get(api, id_))["state"] == "cancelled"


async def test_an_edit_and_a_schedule_at_once_never_send_what_was_not_foreseen(api: Api) -> None:
    for _ in range(5):
        id_ = await draft(api)
        hash_ = await foresee(api, id_)
        scheduling, editing = await asyncio.gather(do(api, id_, "schedule", plan=hash_), edit(api, id_, rate=7))
        assert sorted([scheduling.status_code, editing.status_code]) == [200, 409]
        made = await get(api, id_)
        assert (made["state"], made["rate"]) == (("scheduled", None) if scheduling.is_success else ("draft", 7))


async def test_a_pause_and_a_cancel_at_once_end_it(api: Api) -> None:
    for _ in range(5):
        id_ = await standing(api, "sending")
        pausing, cancelling = await asyncio.gather(post(api, id_, "pause"), post(api, id_, "cancel"))
        assert (cancelling.status_code, pausing.status_code in (200, 409)) == (200, True)
        assert (await get(api, id_))["state"] == "cancelled"


OPERATIONS = [steering.unschedule, steering.pause, steering.resume, steering.cancel]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(done=st.lists(st.sampled_from([*OPERATIONS, "schedule", "begin", "finish", "edit"]), max_size=12))
async def test_nothing_that_is_done_in_whatever_order_leaves_next(api: Api, done) -> None:
    """What NEXT does not allow, the trigger of these tests refuses; what is refused changes nothing."""
    id_ = await draft(api)
    hash_ = await foresee(api, id_)
    state = CampaignState.DRAFT
    for operation in done:
        await _perform(api, id_, operation, hash_)
        after = CampaignState((await get(api, id_))["state"])
        assert after is state or after in NEXT[state]
        state = after


async def _perform(api: Api, id_: str, operation: Any, hash_: str) -> None:
    """What marketing does, and, where it is allowed, what the planner does."""
    if operation == "schedule":
        assert (await do(api, id_, "schedule", plan=hash_)).status_code in (200, 409)
    elif operation == "edit":
        assert (await edit(api, id_, name="x")).status_code in (200, 409)
    elif operation == "begin":
        await api.execute("UPDATE campaigns SET state = 'sending' WHERE id = %s AND state = 'scheduled'", (id_,))
    elif operation == "finish":
        await api.execute(
            "UPDATE campaigns SET state = 'finished', ended_at = now() WHERE id = %s AND state = 'sending'", (id_,)
        )
    else:
        with contextlib.suppress(Conflict):
            await api.app.database.transact(lambda c: operation(c, UUID(id_), OPERATOR))
