import asyncio
import json
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from notifier.domain.access import Scope
from notifier.domain.consent import SuppressionReason, judge
from notifier.domain.who import Given, GivenAddress
from notifier.store import consent, recipients, suppressions, who
from notifier.store.consent import NewEvent
from notifier.store.suppressions import NewSuppression
from notifier.web import recipients as web
from notifier_channels.addresses import EmailAddress
from notifier_channels.contract import Channel
from tests.servers.api import Api, pointers

pytestmark = pytest.mark.anyio

AGO = datetime(2025, 11, 3, 10, tzinfo=UTC)


# PUT ------------------------------------------------------------------------------------------------------------------


async def test_a_put_creates_then_changes_what_it_mentions(api: Api) -> None:
    created = await api.put("ann", email="ann@example.test", locale="de", attributes={"plan": "pro"})
    assert created.status_code == 201
    changed = await api.put("ann", timezone="Europe/Vienna")
    assert changed.status_code == 200
    assert changed.json() == (await api.client.get("/v1/recipients/ann")).json()
    assert (
        changed.json()
        | {
            "email": "ann@example.test",
            "locale": "de",
            "timezone": "Europe/Vienna",
            "attributes": {"plan": "pro"},
        }
        == changed.json()
    )


async def test_a_new_address_takes_the_place_of_the_old_one(api: Api) -> None:
    await api.put("ann", email="old@example.test")
    await api.put("ann", email="new@example.test")
    held = await api.rows("SELECT address, removed_at IS NULL AS held FROM addresses ORDER BY id")
    assert [(row["address"], row["held"]) for row in held] == [("old@example.test", False), ("new@example.test", True)]


async def test_null_removes_an_address(api: Api) -> None:
    await api.put("ann", email="ann@example.test", phone="+4930123456")
    answer = (await api.put("ann", email=None)).json()
    assert (answer["email"], answer["phone"]) == (None, "+4930123456")


async def test_the_same_put_twice_changes_nothing(api: Api) -> None:
    first = await api.put("ann", email="ann@example.test", locale="de")
    again = await api.put("ann", email="ann@example.test", locale="de")
    assert again.json() == first.json()
    assert await api.count("addresses") == 1


async def test_many_puts_of_one_new_id_at_once_make_one_recipient(api: Api) -> None:
    answers = await asyncio.gather(*(api.put("ann", email="ann@example.test") for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [200] * 19 + [201]
    assert await api.count("recipients") == await api.count("addresses") == 1


async def test_sends_to_one_new_address_and_its_put_at_once_leave_one_person(api: Api) -> None:
    sends = [api.send() for _ in range(10)]
    puts = [api.put("ann", email="ann@example.test") for _ in range(3)]
    answers = await asyncio.gather(*sends[:5], *puts, *sends[5:])
    assert {answer.status_code for answer in answers} <= {200, 201, 202}
    [held] = await api.rows("SELECT recipient_id FROM addresses WHERE removed_at IS NULL")
    [ann] = await api.rows("SELECT id FROM recipients WHERE external_id = 'ann'")
    assert held["recipient_id"] == ann["id"]
    assert await api.rows("SELECT 1 FROM messages WHERE recipient_id <> %s", (ann["id"],)) == []


async def test_an_unknown_recipient_is_not_found(api: Api) -> None:
    response = await api.client.get("/v1/recipients/nobody")
    assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"email": "nonsense"}, "/email"),
        ({"phone": "030 123"}, "/phone"),
        ({"phone": "+49 30 123456 ext. 7"}, "/phone"),
        ({"phone": "tel:+4930123456;ext=7"}, "/phone"),
        ({"attributes": {"a": "\x00"}}, "/attributes"),
        ({"attributes": None}, "/attributes"),
        ({"name": "Ann"}, "/name"),
        ({"id": "ann"}, "/id"),
    ],
)
async def test_each_refusal_of_a_put_names_its_field(api: Api, body, pointer) -> None:
    response = await api.put("ann", **body)
    assert response.status_code == 422
    assert pointers(response) == [pointer]
    assert await api.count("recipients") == 0


async def test_an_id_that_cannot_be_stored_is_refused(api: Api) -> None:
    for id_ in ("%00", "a%0Ab", "x" * 256):
        assert (await api.client.get(f"/v1/recipients/{id_}")).status_code == 422


async def test_two_ids_that_lose_a_letter_in_the_url_are_not_one_person(api: Api) -> None:
    for id_ in ("m%FCller", "m%E4ller"):  # Latin-1
        response = await api.put(id_, email="ann@example.test")
        assert response.status_code == 422
        assert "UTF-8" in response.json()["errors"][0]["detail"]
    assert (await api.put("m%C3%BCller")).json()["id"] == "müller"


# Adoption -------------------------------------------------------------------------------------------------------------


async def test_a_new_id_gets_the_nameless_recipient_with_all_its_history(api: Api) -> None:
    sent = (await api.send()).json()
    [nameless] = await api.rows("SELECT id FROM recipients")
    assert (await api.put("ann", email="ann@example.test")).status_code == 200
    [ann] = await api.rows("SELECT id, external_id FROM recipients")
    assert (ann["id"], ann["external_id"]) == (nameless["id"], "ann")
    assert (await api.client.get(f"/v1/notifications/{sent['id']}")).json()["recipient"] == {"id": "ann"}


async def say(api: Api, person, *, granted: bool, at: datetime, topic: str = "newsletter") -> int:
    async def work(c):
        await recipients.lock(c, [person])
        return await consent.record(
            c, [NewEvent(person, f"topic:{topic}", "email", granted, "api", at, evidence={"ip": "192.0.2.1"})]
        )

    return (await api.app.database.transact(work))[0]


async def test_a_known_id_adopts_messages_address_and_ledger_of_the_nameless(api: Api) -> None:
    sent = (await api.send()).json()
    [nameless] = [row["id"] for row in await api.rows("SELECT id FROM recipients")]
    number = await say(api, nameless, granted=False, at=AGO)
    await api.put("ann", email="old@example.test")
    await api.put("ann", email="ann@example.test")

    [ann] = [row["id"] for row in await api.rows("SELECT id FROM recipients WHERE external_id = 'ann'")]
    [message] = await api.rows(
        "SELECT m.recipient_id, m.address_id, a.recipient_id AS holder, a.removed_at, n.recipient_id AS of"
        " FROM messages m JOIN addresses a ON a.id = m.address_id JOIN notifications n ON n.id = m.notification_id"
    )
    assert message["recipient_id"] == message["holder"] == message["of"] == ann
    assert message["removed_at"] is None
    [copy] = await api.rows("SELECT * FROM consent_events WHERE recipient_id = %s", (ann,))
    assert copy["evidence"] == {"ip": "192.0.2.1", "adopted_from": number}
    assert (copy["occurred_at"], copy["source"], copy["granted"]) == (AGO, "api", False)
    assert await api.rows("SELECT 1 FROM consents WHERE recipient_id = %s AND NOT granted", (ann,))
    [original] = await api.rows("SELECT * FROM consent_events WHERE recipient_id = %s", (nameless,))
    assert original["number"] == number
    assert (await api.client.get(f"/v1/notifications/{sent['id']}")).json()["recipient"] == {"id": "ann"}


async def test_a_send_to_somebody_who_is_being_adopted_waits_and_goes_to_the_adopter(api: Api) -> None:
    await api.send()
    await api.put("ann")
    given = Given("ann", {Channel.EMAIL: GivenAddress.of(EmailAddress("ann", "example.test"), api.app.hasher)})
    async with api.app.database.connection() as c:
        async with c.transaction():
            await who.settle(c, [given], uuid4, replace=True)
            sending = asyncio.create_task(api.send())
            await until_somebody_waits(api)
        assert (await sending).status_code == 202
    people = await api.rows("SELECT DISTINCT r.external_id FROM messages m JOIN recipients r ON r.id = m.recipient_id")
    assert people == [{"external_id": "ann"}]


async def until_somebody_waits(api: Api) -> None:
    for _ in range(500):
        if await api.rows("SELECT 1 FROM pg_locks WHERE NOT granted"):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("nobody waits")


async def test_an_old_link_of_the_nameless_still_finds_its_person(api: Api) -> None:
    await api.send()
    [nameless] = [row["id"] for row in await api.rows("SELECT id FROM recipients")]
    await api.put("ann")
    await api.put("ann", email="ann@example.test")
    [ann] = [row["id"] for row in await api.rows("SELECT id FROM recipients WHERE external_id = 'ann'")]
    found = await api.app.database.transact(lambda c: recipients.lock_survivors(c, [nameless]))
    assert found == {nameless: ann}


# Import ---------------------------------------------------------------------------------------------------------------


async def import_csv(api: Api, text: str | bytes, **more):
    content = text.encode() if isinstance(text, str) else text
    headers = {"Content-Type": "text/csv"} | more.pop("headers", {})
    return await api.client.post("/v1/recipients/import", content=content, headers=headers)


async def import_lines(api: Api, *lines: dict | str):
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    headers = {"Content-Type": "application/x-ndjson"}
    return (await api.client.post("/v1/recipients/import", content=text.encode(), headers=headers)).json()


async def test_good_lines_are_kept_and_bad_ones_reported_by_number(api: Api) -> None:
    answer = await import_csv(
        api,
        "\ufeffid,email,locale,attributes.plan\r\n"
        "ann,ann@example.test,de,pro\r\n"
        "bob,not an address,de,\r\n"
        "\r\n"
        "cid,cid@example.test,klingon!,\r\n"
        '"dan ""the man""",dan@example.test,,"a\r\nb"\r\n'
        "eve,eve@example.test\r\n"
        "fay,fay@example.test,en,basic",
    )
    assert answer.status_code == 200
    report = answer.json()
    assert (report["lines"], report["stored"], report["created"]) == (6, 3, 3)
    assert [(one["line"], one["pointer"]) for one in report["problems"]] == [(3, "/email"), (5, "/locale"), (8, "")]
    assert (await api.client.get("/v1/recipients/ann")).json()["attributes"] == {"plan": "pro"}
    assert (await api.client.get('/v1/recipients/dan "the man"')).json()["attributes"] == {"plan": "a\r\nb"}
    assert (await api.client.get("/v1/recipients/fay")).status_code == 200


async def test_an_import_again_changes_nothing(api: Api) -> None:
    text = "id,email,locale\n" + "".join(f"u{n},u{n}@example.test,de\n" for n in range(1203))
    first, again = [(await import_csv(api, text)).json() for _ in range(2)]
    assert (first["stored"], first["created"]) == (1203, 1203)
    assert (again["stored"], again["created"]) == (1203, 0)
    assert await api.count("recipients") == await api.count("addresses") == 1203


async def test_an_id_that_comes_twice_ends_as_its_last_line_says(api: Api) -> None:
    await import_csv(api, "id,email\nann,one@example.test\nann,two@example.test\n")
    assert (await api.client.get("/v1/recipients/ann")).json()["email"] == "two@example.test"
    assert await api.count("recipients") == 1


async def test_lines_without_an_id_become_nameless_recipients(api: Api) -> None:
    await api.put("ann", email="family@example.test")
    await api.put("bob", email="family@example.test")
    answer = (await import_csv(api, "email\nx@example.test\nfamily@example.test\n")).json()
    assert (answer["stored"], answer["created"]) == (1, 1)
    assert [(one["line"], one["detail"]) for one in answer["problems"]] == [
        (3, "several recipients hold this address; name the id")
    ]


@pytest.mark.parametrize("header", ["id,e-mail", "id,email,email", "locale", "", "\xff\xfe"])
async def test_a_first_line_that_names_other_columns_refuses_the_list(api: Api, header) -> None:
    response = await import_csv(api, header.encode("latin-1") + b"\nann,a@example.test\n")
    assert response.status_code == 422
    assert await api.count("recipients") == 0


async def test_bytes_that_are_no_text_are_a_bad_line(api: Api) -> None:
    answer = (await import_csv(api, b"id,email\nann,\xff\xfe@example.test\nbob,bob@example.test\n")).json()
    assert [one["line"] for one in answer["problems"]] == [2]
    assert answer["stored"] == 1


async def test_no_line_of_a_quoted_cell_is_taken_for_one_of_the_list(api: Api) -> None:
    """Who can write a long text into a column would otherwise say where somebody else's password resets go."""
    await api.put("ann", email="ann@example.test")
    for filling in ("x" * 70_000, "x\n" * 40_000):
        text = f'id,email,attributes.about\nbob,bob@example.test,"{filling}\nann,bob@example.test,y\n"\ncid,,z\n'
        answer = (await import_csv(api, text)).json()
        assert (await api.client.get("/v1/recipients/ann")).json()["email"] == "ann@example.test"
        assert [one["line"] for one in answer["problems"]] == [2]
        assert answer["stored"] == 1


async def test_an_open_quote_is_said_to_have_ended_the_list(api: Api) -> None:
    text = 'id,email\neve,eve@example.test\nann,"ann@example.test\n' + "bob,bob@example.test\n" * 6000
    answer = (await import_csv(api, text)).json()
    assert (answer["lines"], answer["stored"]) == (2, 1)
    assert [one["line"] for one in answer["problems"]] == [3]
    assert "nothing after it was read" in answer["problems"][0]["detail"]


async def test_a_quote_in_the_middle_of_a_cell_is_a_letter(api: Api) -> None:
    answer = (await import_csv(api, 'id,attributes.disk\nann,5" one\nbob,none\ncid,3" one\n')).json()
    assert (answer["stored"], answer["problems"]) == (3, [])
    assert (await api.client.get("/v1/recipients/ann")).json()["attributes"] == {"disk": '5" one'}


async def test_lines_of_json_are_read_like_lines_of_a_table(api: Api) -> None:
    answer = await import_lines(
        api,
        {"id": "ann", "email": "ann@example.test", "attributes": {"tags": ["a"]}},
        "{not json",
        {"id": "bob", "mail": "x"},
        '{"id": "deep", "attributes": {"a": ' + "[" * 30 + "]" * 30 + "}}",
        '{"id": "big", "attributes": {"a": 1e999}}',
        "[]",
        {"email": None},
        "x" * 70_000,
        {"id": "cid"},
    )
    assert [(one["line"], one["pointer"]) for one in answer["problems"]] == [
        (2, ""),
        (3, "/mail"),
        (4, ""),
        (5, "/attributes"),
        (6, ""),
        (7, ""),
        (8, ""),
    ]
    assert answer["stored"] == 2


async def test_a_list_of_nothing_but_bad_lines_names_the_first_and_keeps_no_more(api: Api, monkeypatch) -> None:
    kept = []
    answer = web._Import.answer
    monkeypatch.setattr(web._Import, "answer", lambda one: (kept.append(len(one.problems)), answer(one))[1])
    report = await import_lines(api, *["1"] * 1700)
    assert (report["lines"], kept, report["problems_left_out"]) == (1700, [1000], 700)
    assert [one["line"] for one in report["problems"]] == [*range(1, 1001)]


async def test_another_media_type_is_refused(api: Api) -> None:
    response = await import_csv(api, "id\nann\n", headers={"Content-Type": "application/json"})
    assert response.status_code == 415


# Consent by import ----------------------------------------------------------------------------------------------------

GRANT = {"topic": "newsletter", "granted_at": AGO.isoformat(), "evidence": {"form": "checkout"}}


async def test_a_grant_is_recorded_with_its_time_and_proof(api: Api) -> None:
    answer = await import_csv(
        api,
        "id,email,grant,granted_at,evidence.form\n"
        "ann,ann@example.test,newsletter product-news/sms,2025-11-03T10:00:00Z,checkout\n"
        "bob,bob@example.test,,,\n",
    )
    assert answer.json()["grants"] == 2
    events = await api.rows("SELECT * FROM consent_events ORDER BY number")
    assert [(one["scope"], one["channel"], one["granted"], one["source"]) for one in events] == [
        ("topic:newsletter", "email", True, "import"),
        ("topic:product-news", "sms", True, "import"),
    ]
    assert events[0]["occurred_at"] == AGO
    assert events[0]["evidence"] == {"form": "checkout", "actor": await the_key(api)}


async def the_key(api: Api) -> str:
    [row] = await api.rows("SELECT id FROM api_keys")
    return f"key:{row['id']}"


async def test_who_brought_a_list_is_written_down_and_no_line_says_otherwise(api: Api) -> None:
    forged = {"actor": "key:somebody-else"}
    no = {"scope": "marketing", "channel": "any", "withdrawn_at": AGO.isoformat(), "evidence": forged}
    line = {"id": "ann", "email": "ann@example.test", "grants": [GRANT | {"evidence": forged}], "withdrawals": [no]}
    assert (await import_lines(api, line))["problems"] == []
    events = await api.rows("SELECT evidence FROM consent_events")
    assert [one["evidence"] for one in events] == [{"actor": await the_key(api)}] * 2


async def test_an_import_never_opts_in_a_suppressed_address(api: Api) -> None:
    hashed = api.app.hasher.current(EmailAddress("ann", "example.test"))
    for reason in (SuppressionReason.COMPLAINT, SuppressionReason.HARD_BOUNCE):
        async with api.app.database.connection() as c:
            await suppressions.add(c, [NewSuppression(Channel.EMAIL, hashed, reason)])
        answer = await import_lines(api, {"id": "ann", "email": "Ann@example.test", "grants": [GRANT]})
        assert (answer["stored"], answer["grants"]) == (1, 0)
        assert answer["problems"][0]["pointer"] == "/grants/0"
    answer = await import_lines(api, {"id": "ann", "grants": [GRANT]})
    assert answer["grants"] == 0, "the address that is stored counts, too"
    assert await api.count("consent_events") == 0


async def test_an_import_does_not_bring_back_who_has_left_later(api: Api) -> None:
    await api.put("ann", email="ann@example.test")
    [ann] = [row["id"] for row in await api.rows("SELECT id FROM recipients")]
    await say(api, ann, granted=False, at=AGO + timedelta(days=1))
    answer = await import_lines(api, {"id": "ann", "grants": [GRANT]})
    assert answer["grants"] == 1
    async with api.app.database.connection() as c:
        events = (await consent.events_of(c, [ann]))[ann]

    allowed, _ = judge(api.app.templates.topics["newsletter"], Channel.EMAIL, events, datetime.now(UTC))
    assert not allowed


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"topic": "no-such"}, "/grants/0/topic"),
        ({"topic": "security"}, "/grants/0/topic"),
        ({"channel": "sms"}, "/grants/0/channel"),
        ({"granted_at": "2025-11-03T10:00:00"}, "/grants/0/granted_at"),
        ({"granted_at": "2999-11-03T10:00:00Z"}, "/grants/0/granted_at"),
        (
            {"granted_at": "9999-12-31T00:00:00Z", "evidence": {"basis": "implied_purchase"}},
            "/grants/0/granted_at",
        ),
        ({"granted_at": None}, "/grants/0/granted_at"),
    ],
)
async def test_a_grant_that_proves_nothing_makes_a_bad_line(api: Api, change, pointer) -> None:
    answer = await import_lines(api, {"id": "ann", "grants": [GRANT | change]})
    assert [one["pointer"] for one in answer["problems"]] == [pointer]
    assert await api.count("recipients") == await api.count("consent_events") == 0


async def test_who_may_write_recipients_may_not_write_their_consent(api: Api) -> None:
    api.client.headers.update(await api.key(Scope.RECIPIENTS))
    answer = await import_lines(api, {"id": "ann", "grants": [GRANT]}, {"id": "bob"})
    assert (answer["stored"], answer["grants"]) == (1, 0)
    assert "preferences" in answer["problems"][0]["detail"]


NO = {"scope": "topic:newsletter", "withdrawn_at": (AGO + timedelta(days=1)).isoformat(), "evidence": {"form": "old"}}


async def allowed(api: Api, who: str = "ann", topic: str = "newsletter", channel: str = "email") -> bool:
    seen = (await api.client.get(f"/v1/recipients/{who}/preferences")).json()["preferences"]
    return next(one["allowed"] for one in seen if (one["topic"], one["channel"]) == (topic, channel))


async def test_a_history_of_yes_and_no_is_kept_in_the_order_of_its_times(api: Api) -> None:
    later = {"topic": "newsletter", "granted_at": (AGO + timedelta(days=2)).isoformat()}
    answer = await import_lines(
        api,
        {"id": "ann", "withdrawals": [NO], "grants": [GRANT]},
        {"id": "bob", "withdrawals": [NO], "grants": [later, GRANT]},
    )
    assert (answer["grants"], answer["withdrawals"], answer["problems"]) == (3, 2, [])
    events = await api.rows("SELECT occurred_at, granted, evidence, source FROM consent_events ORDER BY number")
    assert [one["occurred_at"] for one in events] == sorted(one["occurred_at"] for one in events)
    assert {one["source"] for one in events} == {"import"}
    assert next(one["evidence"] for one in events if not one["granted"]) == {
        "form": "old",
        "actor": await the_key(api),
    }
    assert (await allowed(api, "ann"), await allowed(api, "bob")) == (False, True)


async def test_a_table_may_carry_what_was_withdrawn(api: Api) -> None:
    answer = await import_csv(
        api,
        "id,grant,granted_at,withdrawn,withdrawn_at,evidence.form\n"
        "ann,newsletter,2025-11-03T10:00:00Z,newsletter all/sms marketing,2025-11-04T10:00:00Z,centre\n"
        "bob,,,product-news/email,2025-11-04T10:00:00Z,\n"
        "cid,,,,,\n",
    )
    assert (answer.json()["grants"], answer.json()["withdrawals"]) == (1, 4)
    said = await api.rows("SELECT scope, channel, evidence FROM consent_events WHERE NOT granted ORDER BY number")
    assert [(one["scope"], one["channel"]) for one in said] == [
        ("topic:newsletter", "any"),
        ("all", "sms"),
        ("marketing", "any"),
        ("topic:product-news", "email"),
    ]
    assert said[0]["evidence"] == {"form": "centre", "actor": await the_key(api)}
    assert not await allowed(api, "ann")


async def test_a_history_that_comes_again_writes_nothing(api: Api) -> None:
    line = {"id": "ann", "withdrawals": [NO, NO], "grants": [GRANT]}
    first, again = [await import_lines(api, line) for _ in range(2)]
    assert (first["grants"], first["withdrawals"]) == (1, 1)
    assert (again["stored"], again["grants"], again["withdrawals"]) == (1, 0, 0)
    assert await api.count("consent_events") == 2


async def test_an_imported_no_stops_what_is_queued(api: Api) -> None:
    await api.put("ann", email="ann@example.test")
    sent = await api.send(template="order-shipped", recipient={"id": "ann"}, data=await sample_of(api, "order-shipped"))
    assert sent.status_code == 202
    [message] = sent.json()["messages"]
    await import_lines(api, {"id": "ann", "withdrawals": [NO | {"scope": "all"}]})
    state = (await api.client.get(f"/v1/messages/{message['id']}")).json()
    assert (state["state"], state["reason"]) == ("cancelled", "withdrawn:all/any")


async def test_a_suppressed_address_keeps_its_noes_and_gets_no_yes(api: Api) -> None:
    hashed = api.app.hasher.current(EmailAddress("ann", "example.test"))
    async with api.app.database.connection() as c:
        await suppressions.add(c, [NewSuppression(Channel.EMAIL, hashed, SuppressionReason.COMPLAINT)])
    line = {"id": "ann", "email": "ann@example.test", "withdrawals": [NO], "grants": [GRANT]}
    answer = await import_lines(api, line)
    assert (answer["grants"], answer["withdrawals"]) == (0, 1)


async def test_an_implied_grant_ends_by_its_terms_and_overrules_no_no(api: Api) -> None:
    bought = datetime.now(UTC) - timedelta(days=30)
    implied = {"topic": "newsletter", "granted_at": bought.isoformat(), "evidence": {"basis": "implied_purchase"}}
    answer = await import_lines(
        api,
        {"id": "ann", "grants": [implied]},
        {"id": "bob", "withdrawals": [NO | {"scope": "marketing"}], "grants": [implied]},
    )
    assert (answer["grants"], answer["withdrawals"]) == (1, 1)
    assert [(one["line"], one["pointer"]) for one in answer["problems"]] == [(2, "/grants/0")]
    [line] = await api.rows("SELECT expires_at FROM consent_events WHERE granted")
    assert line["expires_at"] > datetime.now(UTC) + timedelta(days=650)
    assert (await allowed(api, "ann"), await allowed(api, "bob")) == (True, False)


@pytest.mark.parametrize("basis", ["implied_purchase", "soft_opt_in", "express"])
async def test_who_adopts_somebody_nameless_gets_no_implied_yes_after_a_no_of_their_own(api: Api, basis) -> None:
    bought = datetime.now(UTC) - timedelta(days=30)
    yes = {"topic": "newsletter", "granted_at": bought.isoformat(), "evidence": {"basis": basis}}
    await import_lines(api, {"id": "ann", "withdrawals": [NO | {"scope": "marketing"}]}, {"id": "bob"})
    await import_lines(api, *({"email": f"{one}@example.test", "grants": [yes]} for one in ("ann", "bob")))
    for one in ("ann", "bob"):
        await api.put(one, email=f"{one}@example.test")
    assert (await allowed(api, "ann"), await allowed(api, "bob")) == (basis == "express", True)


@pytest.mark.parametrize(
    ("scope", "channel", "source", "evidence"),
    [("topic:product-news", "email", "unsubscribe_page", {"undoes": 1}), ("all", "sms", "sms_keyword", {})],
)
async def test_what_gives_back_to_somebody_nameless_ends_no_no_of_who_adopts_them(
    api: Api, scope, channel, source, evidence
) -> None:
    own = NO | {"scope": scope, "channel": channel}
    await import_lines(api, {"id": "ann", "withdrawals": [own]}, {"email": "ann@example.test"}, {"id": "bob"})
    await import_lines(api, {"email": "bob@example.test"})
    nameless = [row["id"] for row in await api.rows("SELECT id FROM recipients WHERE external_id IS NULL")]

    async def back_and_forth(c):
        await recipients.lock(c, nameless)
        for granted in (False, True):
            said = [NewEvent(one, scope, channel, granted, source, evidence=evidence) for one in nameless]
            await consent.record(c, said)

    await api.app.database.transact(back_and_forth)
    for one in ("ann", "bob"):
        await api.put(one, email=f"{one}@example.test")
    asked = ("product-news", "email") if channel == "email" else ("orders", "sms")
    assert [await allowed(api, one, *asked) for one in ("ann", "bob")] == [False, True]


@pytest.mark.parametrize("first", ["no", "yes"])
async def test_an_implied_grant_overrules_no_no_of_another_line_of_its_batch(api: Api, first) -> None:
    bought = datetime.now(UTC) - timedelta(days=30)
    implied = {"topic": "newsletter", "granted_at": bought.isoformat(), "evidence": {"basis": "implied_purchase"}}
    lines = [{"id": "ann", "withdrawals": [NO | {"scope": "marketing"}]}, {"id": "ann", "grants": [implied]}]
    answer = await import_lines(api, *(lines if first == "no" else reversed(lines)))
    assert (answer["grants"], answer["withdrawals"]) == (0, 1)
    assert [one["pointer"] for one in answer["problems"]] == ["/grants/0"]
    assert not await allowed(api)


@pytest.mark.parametrize(
    ("part", "change", "pointer"),
    [
        ("withdrawals", {"scope": "topic:no-such"}, "/withdrawals/0/scope"),
        ("withdrawals", {"scope": "topic:security"}, "/withdrawals/0/scope"),
        ("withdrawals", {"scope": "newsletter"}, "/withdrawals/0/scope"),
        ("withdrawals", {"channel": "sms"}, "/withdrawals/0/channel"),
        ("withdrawals", {"withdrawn_at": "2999-11-03T10:00:00Z"}, "/withdrawals/0/withdrawn_at"),
        ("withdrawals", {"withdrawn_at": "2025-11-03"}, "/withdrawals/0/withdrawn_at"),
        ("grants", {"evidence": {"basis": "hearsay"}}, "/grants/0/evidence/basis"),
        ("grants", {"evidence": {"basis": None}}, "/grants/0/evidence/basis"),
        (
            "grants",
            {"evidence": {"basis": "implied_inquiry"}, "expires_at": "2999-01-01T00:00:00Z"},
            "/grants/0/expires_at",
        ),
    ],
)
async def test_what_was_said_without_proof_or_sense_makes_a_bad_line(api: Api, part, change, pointer) -> None:
    given = {"withdrawals": [NO | change]} if part == "withdrawals" else {"grants": [GRANT | change]}
    answer = await import_lines(api, {"id": "ann", **given})
    assert [one["pointer"] for one in answer["problems"]] == [pointer]
    assert await api.count("recipients") == await api.count("consent_events") == 0


async def sample_of(api: Api, key: str) -> dict:
    template = api.app.templates.find(key)
    assert template is not None
    return dict(template.sample)
