import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from notifier.domain.access import Scope
from notifier.domain.messages import Lane
from tests.servers.api import NEWS, Api, a_body, an_item, once, pointers, serving, settings_for

pytestmark = pytest.mark.anyio


def at(**delta: float) -> str:
    return (datetime.now(UTC) + timedelta(**delta)).isoformat()


async def test_a_notification_is_a_row_and_a_ring_before_the_caller_hears_202(api: Api) -> None:
    response = await api.send()
    assert response.status_code == 202
    answer = response.json()
    [message] = await api.rows("SELECT * FROM messages")
    assert answer["messages"] == [{"id": str(message["id"]), "channel": "email"}]
    assert (message["state"], message["lane"], str(message["notification_id"])) == (
        "queued",
        "transactional",
        answer["id"],
    )
    await until(lambda: api.app.jobs.waiting(Lane.TRANSACTIONAL) == 1)


async def until(holds) -> None:
    for _ in range(200):
        if await asyncio.to_thread(holds):
            return
        await asyncio.sleep(0.01)
    raise AssertionError


async def test_what_is_due_later_is_stored_and_not_rung_for(api: Api) -> None:
    when = at(hours=3)
    assert (await api.send(send_at=when)).status_code == 202
    [message] = await api.rows("SELECT due_at, expires_at FROM messages")
    assert message["due_at"] == datetime.fromisoformat(when)
    assert message["expires_at"] > message["due_at"]
    assert await asyncio.to_thread(api.app.jobs.waiting, Lane.TRANSACTIONAL) == 0


async def test_a_little_past_means_now(api: Api) -> None:
    assert (await api.send(send_at=at(minutes=-4))).status_code == 202
    [message] = await api.rows("SELECT due_at <= clock_timestamp() AS due FROM messages")
    assert message["due"]


# Idempotency ----------------------------------------------------------------------------------------------------------


async def test_the_same_key_and_body_get_the_first_answer_to_the_byte(api: Api) -> None:
    first = await api.send("k")
    again = await api.send("k")
    assert again.content == first.content
    assert again.status_code == 202
    assert again.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first.headers
    assert await api.count("messages") == 1


async def test_the_order_of_fields_makes_no_other_body(api: Api) -> None:
    await api.send("k")
    body = dict(reversed(a_body().items()))
    response = await api.client.post("/v1/notifications", json=body, headers=once("k"))
    assert response.headers["Idempotent-Replayed"] == "true"


async def test_the_same_key_with_another_body_is_refused(api: Api) -> None:
    await api.send("k")
    response = await api.send("k", recipient={"email": "bob@example.test"})
    assert response.status_code == 422
    assert "7 days" in response.json()["errors"][0]["detail"]
    assert await api.count("messages") == 1


async def test_fifty_at_once_under_one_key_are_one_row(api: Api) -> None:
    answers = await asyncio.gather(*(api.send("k") for _ in range(50)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.content for answer in answers}) == 1
    assert sum("Idempotent-Replayed" in answer.headers for answer in answers) == 49
    for table in ("messages", "notifications", "recipients", "addresses", "idempotency_keys"):
        assert await api.count(table) == 1, table


async def test_a_refused_request_does_not_use_up_its_key(api: Api) -> None:
    assert (await api.send("k", template="no-such")).status_code == 422
    assert (await api.send("k")).status_code == 202


async def test_a_replay_is_answered_though_its_times_are_past_by_now(api: Api) -> None:
    body = {"send_at": at(minutes=-4.9), "expires_at": at(hours=1)}
    first = await api.send("k", **body)
    await api.execute("UPDATE idempotency_keys SET created_at = now() - interval '6 days 23 hours'")
    assert (await api.send("k", **body)).content == first.content


async def test_a_key_is_new_again_after_seven_days(api: Api) -> None:
    first = await api.send("k")
    await api.execute("UPDATE idempotency_keys SET created_at = now() - interval '7 days 1 second'")
    second = await api.send("k")
    assert second.status_code == 202
    assert second.json()["id"] != first.json()["id"]
    third = await api.send("k")
    assert third.content == second.content


async def test_keys_are_stored_as_hashes_only(api: Api) -> None:
    await api.send("ann@example.test-reset-1")
    [row] = await api.rows("SELECT idempotency_keys::text AS all FROM idempotency_keys")
    assert "ann@" not in row["all"]


async def test_old_keys_are_forgotten(api: Api) -> None:
    await api.send("old")
    await api.execute("UPDATE idempotency_keys SET created_at = now() - interval '8 days'")
    await api.send("new")
    await api.app.sweep.forget()
    assert await api.count("idempotency_keys") == 1


async def test_a_request_without_a_key_is_refused_with_the_remedy(api: Api) -> None:
    response = await api.client.post("/v1/notifications", json=a_body())
    assert response.status_code == 422
    assert "Idempotency-Key" in response.json()["errors"][0]["detail"]


# Batches --------------------------------------------------------------------------------------------------------------


async def test_a_batch_is_answered_in_order(api: Api) -> None:
    items = [an_item(recipient={"email": f"user{n}@example.test"}) for n in (3, 1, 2)]
    response = await api.batch(items)
    assert response.status_code == 202
    answered = response.json()["notifications"]
    stored = await api.rows(
        "SELECT n.id, a.address FROM notifications n JOIN messages m ON m.notification_id = n.id"
        " JOIN addresses a ON a.id = m.address_id"
    )
    address_of = {str(row["id"]): row["address"] for row in stored}
    assert [address_of[one["id"]] for one in answered] == [item["recipient"]["email"] for item in items]
    assert not any(one["replayed"] for one in answered)


async def test_one_bad_item_and_nothing_of_the_batch_is_accepted(api: Api) -> None:
    response = await api.batch([an_item(), an_item(template="pasword-reset"), an_item(data={})])
    assert response.status_code == 422
    assert pointers(response)[0] == "/notifications/1/template"
    assert "password-reset" in response.json()["errors"][0]["detail"]
    assert all(pointer.startswith("/notifications/2/data") for pointer in pointers(response)[1:])
    for table in ("messages", "notifications", "recipients", "idempotency_keys"):
        assert await api.count(table) == 0


async def test_an_item_that_only_the_database_knows_to_be_bad_takes_the_batch_with_it(api: Api) -> None:
    response = await api.batch([an_item(), an_item(recipient={"id": "nobody"})])
    assert response.status_code == 422
    assert pointers(response) == ["/notifications/1/recipient/id"]
    assert await api.count("messages") == await api.count("recipients") == 0


async def test_a_batch_tells_replays_from_new_ones(api: Api) -> None:
    old = an_item()
    first = (await api.batch([old])).json()["notifications"][0]
    again = (await api.batch([an_item(recipient={"email": "b@example.test"}), old])).json()["notifications"]
    assert [one["replayed"] for one in again] == [False, True]
    assert again[1]["id"] == first["id"]


async def test_one_key_twice_in_a_batch_is_refused(api: Api) -> None:
    response = await api.batch([an_item(idempotency_key="k"), an_item(idempotency_key="k")])
    assert response.status_code == 422
    assert pointers(response) == ["/notifications/1/idempotency_key"]


async def test_a_batch_and_a_single_request_share_the_keys_of_the_installation(api: Api) -> None:
    first = await api.send("k")
    again = (await api.batch([an_item(idempotency_key="k")])).json()["notifications"][0]
    assert again["replayed"]
    assert again["id"] == first.json()["id"]


async def test_a_key_beyond_ascii_is_the_same_in_a_header_and_in_a_batch(api: Api) -> None:
    [first] = (await api.batch([an_item(idempotency_key="Größe-Ü")])).json()["notifications"]
    for written in ("Größe-Ü".encode(), "Größe-Ü".encode("latin-1")):
        again = await api.client.post("/v1/notifications", json=a_body(), headers={b"Idempotency-Key": written})
        assert (again.json()["id"], again.headers.get("Idempotent-Replayed")) == (first["id"], "true")
    assert await api.count("messages") == 1


async def test_batches_that_share_keys_and_people_in_opposite_orders_all_end(api: Api) -> None:
    items = [an_item(idempotency_key=f"k{n}", recipient={"email": f"u{n}@example.test"}) for n in range(40)]
    answers = await asyncio.gather(*(api.batch(items if turn % 2 else list(reversed(items))) for turn in range(8)))
    assert {answer.status_code for answer in answers} == {202}
    assert await api.count("messages") == await api.count("recipients") == 40


async def test_a_thousand_go_in_and_one_more_does_not(api: Api) -> None:
    item = {"template": "password-reset", "data": {"reset_url": "https://a.test", "valid_minutes": 5}}
    many = [{**item, "idempotency_key": f"k{n}", "recipient": {"email": f"u{n}@a.test"}} for n in range(1001)]
    assert (await api.batch(many[:1000])).status_code == 202
    assert await api.count("messages") == 1000
    response = await api.batch(many)
    assert response.status_code == 422
    assert pointers(response) == ["/notifications"]


# Recipients -----------------------------------------------------------------------------------------------------------


async def test_a_known_id_is_enough(api: Api) -> None:
    await api.put("ann", email="ann@example.test")
    assert (await api.send(recipient={"id": "ann"})).status_code == 202


async def test_an_inline_recipient_is_stored_with_id_and_address(api: Api) -> None:
    recipient = {"id": "ann", "email": "ann@example.test", "locale": "de", "timezone": "Europe/Vienna"}
    assert (await api.send(recipient=recipient)).status_code == 202
    stored = (await api.client.get("/v1/recipients/ann")).json()
    assert recipient.items() <= stored.items()


async def test_a_send_does_not_move_a_stored_address(api: Api) -> None:
    await api.put("ann", email="ann@example.test")
    response = await api.send(recipient={"id": "ann", "email": "thief@example.test"})
    assert response.status_code == 409
    assert pointers(response) == ["/recipient"]
    assert (await api.client.get("/v1/recipients/ann")).json()["email"] == "ann@example.test"


async def test_a_bare_address_of_several_recipients_is_a_conflict(api: Api) -> None:
    await api.put("ann", email="family@example.test")
    await api.put("bob", email="family@example.test")
    response = await api.send(recipient={"email": "family@example.test"})
    assert response.status_code == 409
    assert "name the id" in response.json()["errors"][0]["detail"]
    assert (await api.send(recipient={"id": "bob"})).status_code == 202


async def test_a_bare_address_is_found_again_in_other_letters(api: Api) -> None:
    await api.send()
    await api.send(recipient={"email": "Ann@Example.test"})
    assert await api.count("recipients") == 1


async def test_a_recipient_without_an_address_cannot_be_sent_to(api: Api) -> None:
    await api.put("ann", phone="+4930123456")
    response = await api.send(recipient={"id": "ann"})
    assert response.status_code == 422
    assert pointers(response) == ["/recipient"]


# Refusals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"template": "password-rest"}, "/template"),
        ({"template": ...}, "/template"),
        ({"recipient": ...}, "/recipient"),
        ({"recipient": {}}, "/recipient"),
        ({"recipient": {"id": "nobody"}}, "/recipient/id"),
        ({"recipient": {"id": "a/b", "email": "a@b.test"}}, "/recipient/id"),
        ({"recipient": {"id": "", "email": "a@b.test"}}, "/recipient/id"),
        ({"recipient": {"id": "x\x00y", "email": "a@b.test"}}, "/recipient/id"),
        ({"recipient": {"email": "not an address"}}, "/recipient/email"),
        ({"recipient": {"email": "a@b.test\r\nBcc: c@d.test"}}, "/recipient/email"),
        ({"recipient": {"email": "a@b.test", "phone": "12"}}, "/recipient/phone"),
        ({"recipient": {"email": "a@b.test", "locale": "Deutsch!"}}, "/recipient/locale"),
        ({"recipient": {"email": "a@b.test", "timezone": "Mars/Base"}}, "/recipient/timezone"),
        ({"recipient": {"email": "a@b.test", "mail": "x"}}, "/recipient/mail"),
        ({"data": {"reset_url": "https://shop.test", "valid_minutes": "30"}}, "/data/valid_minutes"),
        ({"data": {"reset_url": "https://shop.test", "valid_minutes": 30, "name": "A\x00"}}, "/data"),
        ({"data": []}, "/data"),
        ({"channels": []}, "/channels"),
        ({"channels": ["sms"]}, "/channels/0"),
        ({"channels": ["email", "push"]}, "/channels/1"),
        ({"channels": ["fax"]}, "/channels/0"),
        ({"send_at": "2030-01-01T09:00:00"}, "/send_at"),
        ({"send_at": "tomorrow"}, "/send_at"),
        ({"send_at": 1893456000}, "/send_at"),
        ({"send_at": "2020-01-01T09:00:00Z"}, "/send_at"),
        ({"send_at": "9999-12-31T23:59:59-12:00"}, "/send_at"),
        ({"send_at": "0001-01-01T00:00:00+12:00"}, "/send_at"),
        ({"send_at": "2999-01-01T00:00:00Z"}, "/send_at"),
        ({"expires_at": "2020-01-01T09:00:00Z"}, "/expires_at"),
        ({"expires_at": "2999-01-01T09:00:00Z"}, "/expires_at"),
        ({"category": "marketing"}, "/category"),
        ({"a~b/c": 1}, "/a~0b~1c"),
    ],
)
async def test_each_refusal_names_the_field_and_the_remedy(api: Api, changes, pointer) -> None:
    response = await api.send(**changes)
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["type"] == "urn:notifier:problem:invalid-input"
    assert problem["status"] == 422
    assert pointer in pointers(response)
    assert all(error["detail"] for error in problem["errors"])
    for table in ("messages", "recipients", "idempotency_keys"):
        assert await api.count(table) == 0


async def test_a_time_past_more_than_five_minutes_is_refused(api: Api) -> None:
    assert (await api.send(send_at=at(minutes=-6))).status_code == 422


async def test_no_refusal_repeats_what_was_sent(api: Api) -> None:
    secret = "hunter2hunter2"
    bodies = [
        {"recipient": {"email": f"{secret}@@x"}},
        {"recipient": {"email": f"'{secret} '@x.test"}},
        {"recipient": {"email": f"{secret}@{secret}"}},
        {"recipient": {"phone": secret, "email": "a@b.test"}},
        {"recipient": {"id": "a", "locale": secret, "timezone": secret}},
        {"recipient": secret},
        {"data": {"valid_minutes": secret, "reset_url": secret}},
        {"send_at": secret, "channels": [secret], "template": secret},
    ]
    for changes in bodies:
        response = await api.send(**changes)
        assert response.status_code == 422
        assert secret not in response.text


async def test_an_address_of_the_test_domain_is_refused_in_production(
    database_url: str, redis_url: str, quick_templates: None
) -> None:
    settings = settings_for(
        database_url,
        redis_url,
        env="production",
        public_url="https://n.example.com",
        sender_address="hello@example.com",
        list_domain="lists.example.com",
        postal_address="Acme, 1 Road, Town",
    )
    async with serving(settings) as production:
        assert pointers(await production.send()) == ["/recipient/email"]


# Scopes ---------------------------------------------------------------------------------------------------------------


async def test_a_key_for_transactional_mail_cannot_send_marketing(api: Api) -> None:
    key = await api.key(Scope.SEND_TRANSACTIONAL)
    response = await api.client.post(
        "/v1/notifications", json=a_body(template="newsletter", data=NEWS), headers=once() | key
    )
    assert response.status_code == 403
    assert "send:marketing" in response.json()["detail"]
    assert pointers(response) == ["/template"]
    assert await api.count("messages") == 0


async def test_a_batch_with_one_marketing_item_needs_both_scopes(api: Api) -> None:
    items = [an_item(), an_item(template="newsletter", data=NEWS, recipient={"email": "b@example.test"})]
    post = {"url": "/v1/notifications/batch", "json": {"notifications": items}}
    one = await api.client.post(**post, headers=await api.key(Scope.SEND_TRANSACTIONAL))
    both = await api.client.post(**post, headers=await api.key(Scope.SEND_TRANSACTIONAL, Scope.SEND_MARKETING))
    assert (one.status_code, both.status_code) == (403, 202)
    assert pointers(one) == ["/notifications/1/template"]
    lanes = await api.rows("SELECT lane FROM messages ORDER BY lane")
    assert [row["lane"] for row in lanes] == ["marketing", "transactional"]


# Pinned versions ------------------------------------------------------------------------------------------------------


async def test_a_message_pins_the_version_it_was_accepted_with(api: Api) -> None:
    await api.send()
    await api.send()
    [version] = await api.rows("SELECT * FROM template_versions")
    template = api.app.templates.find("password-reset")
    assert (version["key"], version["hash"]) == (template.key, template.hash)
    assert version["sources"] == dict(template.sources)


# Sharing transactions -------------------------------------------------------------------------------------------------


async def test_single_requests_that_come_together_share_transactions(api: Api) -> None:
    await api.send()
    answers = await asyncio.gather(*(api.send(recipient={"email": f"u{n}@example.test"}) for n in range(60)))
    assert {answer.status_code for answer in answers} == {202}
    rows = await api.rows("SELECT count(DISTINCT xmin::text) AS transactions FROM messages")
    assert rows[0]["transactions"] < 20


async def test_nobody_suffers_for_the_mistake_of_a_neighbour(api: Api) -> None:
    bad = [{"data": {}}, {"recipient": {"id": "nobody"}}, {"template": "no-such"}]
    good = [{"recipient": {"email": f"u{n}@example.test"}} for n in range(20)]
    answers = await asyncio.gather(*(api.send(**changes) for changes in [*good[:10], *bad, *good[10:]]))
    assert [answer.status_code for answer in answers] == [202] * 10 + [422] * 3 + [202] * 10
    assert await api.count("messages") == 20
    assert [pointers(answer)[0] for answer in answers[10:13]] == ["/data/reset_url", "/recipient/id", "/template"]


async def test_requests_of_different_keys_keep_their_own_scopes_and_names(api: Api) -> None:
    may, may_not = await api.key(Scope.SEND_TRANSACTIONAL), await api.key(Scope.SEND_MARKETING)
    posts = [
        api.client.post(
            "/v1/notifications",
            json=a_body(recipient={"email": f"u{n}@example.test"}),
            headers=once() | (may if n % 2 else may_not),
        )
        for n in range(20)
    ]
    answers = await asyncio.gather(*posts)
    assert [answer.status_code for answer in answers] == [403, 202] * 10
    names = await api.rows("SELECT DISTINCT api_key_id FROM notifications")
    assert [row["api_key_id"] for row in names] == [may["Authorization"].split("_")[1]]


async def test_whoever_goes_away_is_not_missed_and_blocks_nobody(api: Api) -> None:
    going = [asyncio.create_task(api.send(recipient={"email": f"gone{n}@example.test"})) for n in range(5)]
    await asyncio.sleep(0)
    for task in going:
        task.cancel()
    await asyncio.gather(*going, return_exceptions=True)
    answers = await asyncio.gather(*(api.send(recipient={"email": f"u{n}@example.test"}) for n in range(10)))
    assert {answer.status_code for answer in answers} == {202}


async def test_turn_after_turn_everybody_is_answered(api: Api) -> None:
    async def caller(name: int) -> None:
        for n in range(15):
            assert (await api.send(recipient={"email": f"u{name}-{n}@example.test"})).status_code == 202

    async with asyncio.timeout(60):
        await asyncio.gather(*(caller(name) for name in range(5)))
    assert await api.count("messages") == 75
