"""Double opt-in: one message that asks, one button that says yes, once; and nobody can flood a mailbox with it."""

from __future__ import annotations

import asyncio
import itertools
from datetime import UTC, datetime
from typing import Any

import pytest

from notifier.dispatch.replies import Reply
from notifier.domain.access import Scope
from notifier.domain.consent import SuppressionReason
from notifier.domain.recipients import Hasher
from notifier.store import suppressions
from notifier.store.suppressions import NewSuppression
from notifier_channels.addresses import EmailAddress, PhoneNumber
from notifier_channels.contract import Channel, DeliveryEvent, EventKind
from notifier_channels.sms.keywords import Keyword
from tests.servers.api import NEWS, Api, pointers

pytestmark = pytest.mark.anyio

READ = {"wording": "Yes, the newsletter.", "wording_version": "footer-3"}
_numbers = itertools.count(1)
PRESSED = {"confirm": "yes", "language": "en"}


@pytest.fixture
async def ann(api: Api) -> Api:
    await api.put("ann", email="ann@example.test", locale="de")
    return api


async def ask(api: Api, who: str = "ann", **changes: Any):
    body = {"topic": "newsletter", "channel": "email", **READ} | changes
    return await api.client.post(f"/v1/recipients/{who}/confirmations", json=body)


async def link_of(api: Api, answer) -> str:
    """The path that the message leads to."""
    query = "SELECT data ->> 'confirm_url' AS url FROM notifications WHERE id = %s"
    [row] = await api.rows(query, (answer.json()["notification_id"],))
    return "/c/" + row["url"].rpartition("/c/")[2]


async def press(api: Api, path: str, **headers: str):
    return await api.client.post(path, data=PRESSED, headers=headers)


async def allowed(api: Api, who: str = "ann", topic: str = "newsletter") -> bool:
    seen = (await api.client.get(f"/v1/recipients/{who}/preferences")).json()["preferences"]
    [one] = [one for one in seen if (one["topic"], one["channel"]) == (topic, "email")]
    return one["allowed"] and not one["suppressed"]


async def a_day_passes(api: Api) -> None:
    await api.execute("UPDATE confirmations SET requested_at = requested_at - interval '25 hours'")


async def suppress(api: Api, reason: SuppressionReason) -> None:
    hashed = api.app.hasher.current(EmailAddress("ann", "example.test"))
    async with api.app.database.connection() as c:
        await suppressions.add(c, [NewSuppression(Channel.EMAIL, hashed, reason)])


# Asking ---------------------------------------------------------------------------------------------------------------


async def test_one_transactional_message_asks_and_nothing_else_is_sent(ann: Api) -> None:
    answer = await ask(ann)
    assert (answer.status_code, answer.json()["remaining"]) == (202, 2)
    [message] = await ann.rows("SELECT * FROM messages")
    assert (message["topic"], message["category"], message["state"]) == (
        "confirm-subscription",
        "transactional",
        "queued",
    )
    [kept] = await ann.rows("SELECT data FROM notifications")
    assert kept["data"]["topic_name"] == ann.app.templates.topics["newsletter"].names["de"]
    assert not await allowed(ann)
    assert await ann.count("consent_events") == 0


async def test_the_button_writes_a_yes_with_both_halves_of_its_proof(ann: Api) -> None:
    answer = await ask(ann, policy_version="2026-05", ip="203.0.113.9")
    path = await link_of(ann, answer)
    page = await press(ann, path, **{"User-Agent": "Reader/1"})
    assert page.status_code == 200
    assert "Danke" in page.text
    assert await allowed(ann)
    [line] = await ann.rows("SELECT * FROM consent_events")
    assert (line["scope"], line["channel"], line["granted"], line["source"]) == (
        "topic:newsletter",
        "email",
        True,
        "double_opt_in",
    )
    proof = line["evidence"]
    assert (proof["wording"], proof["basis"], proof["confirmation"]) == (
        READ["wording"],
        "express",
        answer.json()["id"],
    )
    requested, confirmed = proof["requested"], proof["confirmed"]
    assert requested.keys() == {"wording", "wording_version", "policy_version", "ip", "actor", "at"}
    assert requested["actor"].startswith("key:")
    assert confirmed["wording"] == "Yes, send me this"
    assert confirmed["wording_version"].startswith("en:")
    assert confirmed["user_agent"] == "Reader/1"
    assert confirmed["at"] > requested["at"]


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"topic": "no-such"}, "/topic"),
        ({"topic": "security"}, "/topic"),
        ({"topic": "confirm-subscription"}, "/topic"),
        ({"channel": "sms"}, "/channel"),
        ({"topic": "product-news", "channel": "push"}, "/channel"),
        ({"topic": "product-news", "channel": "sms"}, "/channel"),
        ({"channel": "fax"}, "/channel"),
        ({"wording": None}, "/wording"),
        ({"wording_version": None}, "/wording_version"),
        ({"email": "ann@example.test"}, "/email"),
    ],
)
async def test_each_refusal_names_its_field(ann: Api, changes, pointer) -> None:
    answer = await ask(ann, **changes)
    assert (answer.status_code, pointers(answer)) == (422, [pointer])
    assert answer.headers["content-type"] == "application/problem+json"
    assert await ann.count("confirmations") == await ann.count("messages") == 0


async def test_who_has_no_address_or_is_not_known_is_not_asked(api: Api) -> None:
    assert (await ask(api)).status_code == 404
    await api.put("ann", phone="+4930123456")
    assert pointers(await ask(api)) == ["/channel"]


async def test_asking_needs_the_scope_preferences(ann: Api) -> None:
    ann.client.headers.update(await ann.key(Scope.SEND_TRANSACTIONAL, Scope.RECIPIENTS, Scope.ADMIN))
    assert (await ask(ann)).status_code == 403


# Not too often --------------------------------------------------------------------------------------------------------


async def test_a_second_one_within_ten_minutes_is_refused_over_all_topics_and_callers(ann: Api) -> None:
    await ask(ann)
    ann.client.headers.update(await ann.key(Scope.PREFERENCES))
    answer = await ask(ann, topic="product-news")
    assert (answer.status_code, answer.json()["type"]) == (429, "urn:notifier:problem:too-soon")
    assert 590 <= int(answer.headers["Retry-After"]) <= 600
    assert await ann.count("messages") == 1


async def test_after_three_a_day_there_is_none_left(ann: Api) -> None:
    left = []
    for _ in range(3):
        left.append((await ask(ann)).json()["remaining"])
        await ann.execute("UPDATE confirmations SET requested_at = requested_at - interval '1 hour'")
    assert left == [2, 1, 0]
    answer = await ask(ann)
    assert (answer.status_code, int(answer.headers["Retry-After"]) > 20 * 3600) == (429, True)
    await a_day_passes(ann)
    assert (await ask(ann)).status_code == 202


async def test_an_address_is_not_asked_oftener_for_having_several_holders(ann: Api) -> None:
    await ann.put("bob", email="ANN@example.test")
    await ask(ann)
    assert (await ask(ann, "bob")).status_code == 429


async def test_a_recipient_is_not_asked_oftener_for_changing_their_address(ann: Api) -> None:
    await ask(ann)
    await ann.put("ann", email="other@example.test")
    assert (await ask(ann)).status_code == 429


async def test_an_address_is_remembered_when_the_key_of_the_hashes_changes(ann: Api) -> None:
    await ask(ann)
    rotated = Hasher({"h2": b"another key for the hashes, 32 bytes", **ann.app.hasher._keys})
    for part in (ann.app, ann.app.confirm):
        object.__setattr__(part, "hasher", rotated)
    await ann.put("bob", email="ann@example.test")
    assert {row["hash_key"] for row in await ann.rows("SELECT hash_key FROM addresses")} == {"h1", "h2"}
    assert (await ask(ann, "bob")).status_code == 429


async def test_twenty_at_once_for_two_holders_of_one_address_send_one(ann: Api) -> None:
    await ann.put("bob", email="ann@example.test")
    answers = await asyncio.gather(*(ask(ann, who) for who in ["ann", "bob"] * 10))
    assert sorted(answer.status_code for answer in answers) == [202] + [429] * 19
    assert await ann.count("messages") == 1


# The link -------------------------------------------------------------------------------------------------------------


async def test_looking_changes_nothing_whoever_looks(ann: Api) -> None:
    path = await link_of(ann, await ask(ann))
    for _ in range(2):
        for method in ("GET", "HEAD", "OPTIONS"):
            assert (await ann.client.request(method, path)).status_code in (200, 204)
        for body in (b"", b"List-Unsubscribe=One-Click", b"%zz&&==", b'{"confirm": "yes"}', b"\x00\xff"):
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            assert (await ann.client.post(path, content=body, headers=headers)).status_code == 200
    assert await ann.count("consent_events") == 0
    [row] = await ann.rows("SELECT confirmed_at FROM confirmations")
    assert row["confirmed_at"] is None


async def test_the_page_asks_in_the_recipients_language_and_masks_the_address(ann: Api) -> None:
    page = await ann.client.get(await link_of(ann, await ask(ann)))
    assert page.headers["content-language"] == "de"
    assert "Warst du das?" in page.text
    assert "ann@example.test" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["referrer-policy"] == "no-referrer"


async def test_twenty_presses_at_once_write_one_line(ann: Api) -> None:
    path = await link_of(ann, await ask(ann))
    pages = await asyncio.gather(*(press(ann, path) for _ in range(20)))
    assert {page.status_code for page in pages} == {200}
    assert await ann.count("consent_events") == 1


async def test_an_old_link_does_not_undo_a_later_no(ann: Api) -> None:
    path = await link_of(ann, await ask(ann))
    await press(ann, path)
    for scope, channel in (("topic:newsletter", "email"), ("all", "any")):
        said = {"scope": scope, "channel": channel, "granted": False}
        await ann.client.put("/v1/recipients/ann/preferences", json={"preferences": [said]})
        assert (await press(ann, path)).status_code == (await ann.client.get(path)).status_code == 409
    assert not await allowed(ann)
    assert await ann.count("consent_events") == 3


async def test_a_no_between_asking_and_pressing_ends_the_link(ann: Api) -> None:
    path = await link_of(ann, await ask(ann))
    said = {"scope": "marketing", "channel": "email", "granted": False}
    await ann.client.put("/v1/recipients/ann/preferences", json={"preferences": [said]})
    assert (await press(ann, path)).status_code == 409
    assert not await allowed(ann)


async def one_click(api: Api) -> None:
    [message] = await api.rows("SELECT id, recipient_id FROM messages ORDER BY id DESC LIMIT 1")
    url = api.app.links.unsubscribe_url(message["recipient_id"], "newsletter", Channel.EMAIL, message["id"])
    assert (await api.client.post("/u/" + url.rpartition("/u/")[2])).status_code == 200


async def marked_as_spam(api: Api) -> None:
    [message] = await api.rows("SELECT id FROM messages ORDER BY id DESC LIMIT 1")
    reported = next(_numbers)
    await api.app.feedback(
        [DeliveryEvent(message["id"], EventKind.COMPLAINED, "test", f"r{reported}", datetime.now(UTC))]
    )


async def stop(api: Api) -> None:
    await api.app.replies(Reply(f"SM{next(_numbers)}", PhoneNumber("+4930123456"), Keyword.STOP, "STOP", True, "test"))


async def put_no(api: Api) -> None:
    said = {"scope": "marketing", "channel": "any", "granted": False}
    assert (await api.client.put("/v1/recipients/ann/preferences", json={"preferences": [said]})).status_code == 200


@pytest.mark.parametrize(
    ("say_no", "asked"),
    [
        (one_click, ("newsletter", "email")),
        (marked_as_spam, ("newsletter", "email")),
        (put_no, ("newsletter", "email")),
        (stop, ("product-news", "sms")),
        (stop, ("orders", "sms")),
    ],
)
async def test_a_no_that_stood_already_ends_the_link_when_it_is_said_again(ann: Api, say_no, asked) -> None:
    """Somebody else enters the address of a person who has left, and the person says so again."""
    object.__setattr__(ann.app.confirm, "channels", frozenset(Channel))
    await ann.put("ann", phone="+4930123456")
    await ask(ann)
    await say_no(ann)
    await a_day_passes(ann)
    path = await link_of(ann, await ask(ann, topic=asked[0], channel=asked[1]))
    before = await ann.count("consent_events")
    await say_no(ann)
    assert await ann.count("consent_events") == before, "the same no is written once"
    assert (await press(ann, path)).status_code == (await ann.client.get(path)).status_code == 409
    assert await ann.count("consent_events") == before
    assert not await ann.rows("SELECT 1 FROM suppressions WHERE lifted_at IS NOT NULL")


async def test_a_no_to_something_else_or_of_before_ends_no_link(ann: Api) -> None:
    await ann.put("ann", phone="+4930123456")
    path = await link_of(ann, await ask(ann))
    for scope, channel, at in (
        ("topic:product-news", "email", None),
        ("all", "sms", None),
        ("marketing", "any", "2026-01-01T00:00:00Z"),
    ):
        said = {"preferences": [{"scope": scope, "channel": channel, "granted": False}]}
        for _ in range(2):
            answer = await ann.client.put(
                "/v1/recipients/ann/preferences", json=said | ({"occurred_at": at} if at else {})
            )
            assert answer.status_code == 200, answer.text
    assert (await press(ann, path)).status_code == 200
    assert await allowed(ann)


async def test_a_yes_does_not_rest_on_a_link_that_a_no_had_ended(ann: Api) -> None:
    """Else who had asked for that one would be kept as part of a proof."""
    old = await ask(ann)
    await put_no(ann)
    await a_day_passes(ann)
    new = await ask(ann)
    await press(ann, await link_of(ann, new))
    assert (await press(ann, await link_of(ann, old))).status_code == 409
    [row] = await ann.rows("SELECT id FROM confirmations WHERE number IS NOT NULL")
    assert str(row["id"]) == new.json()["id"]


async def test_confirming_uses_up_every_link_that_asks_the_same(ann: Api) -> None:
    old = await link_of(ann, await ask(ann))
    await a_day_passes(ann)
    new = await link_of(ann, await ask(ann))
    await press(ann, new)
    assert (await press(ann, old)).status_code == 200
    assert await ann.count("consent_events") == 1


async def test_a_link_is_for_the_address_that_it_was_sent_to(ann: Api) -> None:
    path = await link_of(ann, await ask(ann))
    await ann.put("ann", email="other@example.test")
    assert (await press(ann, path)).status_code == 409
    assert await ann.count("consent_events") == 0


async def test_a_link_that_is_no_link_of_ours_says_so(ann: Api) -> None:
    path = await link_of(ann, await ask(ann))
    for wrong in ("/c/nonsense", path[:-1], path + "A", path.replace("/c/", "/u/")):
        assert (await ann.client.get(wrong)).status_code == 404
        assert (await press(ann, wrong)).status_code == 404
    await ann.execute("UPDATE confirmations SET expires_at = now()")
    assert (await press(ann, path)).status_code == 409
    assert await ann.count("consent_events") == 0


async def test_confirming_ends_a_complaint_and_an_older_no(ann: Api) -> None:
    await suppress(ann, SuppressionReason.COMPLAINT)
    said = {"scope": "marketing", "channel": "email", "granted": False}
    await ann.client.put("/v1/recipients/ann/preferences", json={"preferences": [said]})
    path = await link_of(ann, await ask(ann))
    assert not await allowed(ann)
    await press(ann, path)
    assert await allowed(ann)
    assert not await allowed(ann, topic="product-news"), "the no to everything else stands"
    [row] = await ann.rows("SELECT lifted_why FROM suppressions")
    [line] = await ann.rows("SELECT number FROM consent_events WHERE granted")
    assert str(line["number"]) in row["lifted_why"]
    sent = await ann.send(template="newsletter", recipient={"id": "ann"}, data=NEWS)
    assert sent.status_code == 202


async def test_confirming_what_is_no_marketing_ends_no_complaint(ann: Api) -> None:
    await suppress(ann, SuppressionReason.COMPLAINT)
    path = await link_of(ann, await ask(ann, topic="orders"))
    assert (await press(ann, path)).status_code == 200
    assert await ann.rows("SELECT 1 FROM suppressions WHERE lifted_at IS NULL")


@pytest.mark.parametrize("reason", set(SuppressionReason) - {SuppressionReason.COMPLAINT})
async def test_confirming_ends_no_other_suppression(ann: Api, reason) -> None:
    path = await link_of(ann, await ask(ann))
    await suppress(ann, reason)
    await press(ann, path)
    assert await ann.rows("SELECT 1 FROM suppressions WHERE lifted_at IS NULL")
    assert not await allowed(ann)


async def test_whoever_was_adopted_meanwhile_confirms_for_their_adopter(ann: Api) -> None:
    path = await link_of(ann, await ask(ann))
    [person] = await ann.rows("SELECT id FROM recipients")
    await ann.execute("UPDATE recipients SET external_id = NULL")  # as if they had come as a bare address
    await ann.put("anna", email="x@example.test")
    await ann.put("anna", email="ann@example.test")
    [adopted] = await ann.rows("SELECT merged_into FROM recipients WHERE id = %s", (person["id"],))
    assert adopted["merged_into"] is not None
    assert (await press(ann, path)).status_code == 200
    assert await allowed(ann, "anna")


async def test_without_the_template_nobody_is_asked(ann: Api) -> None:
    kept = dict(ann.app.templates._current)
    ann.app.templates._current.pop("confirm-subscription")  # type: ignore[attr-defined]
    try:
        assert (await ask(ann)).status_code == 409
    finally:
        ann.app.templates._current.update(kept)  # type: ignore[attr-defined]


# Forgetting -----------------------------------------------------------------------------------------------------------


async def test_who_asked_is_forgotten_thirty_days_after_a_link_ended_without_a_yes(ann: Api, monkeypatch) -> None:
    monkeypatch.setattr("notifier.dispatch.sweep.FORGOTTEN_AT_ONCE", 1)
    confirmed = await ask(ann)
    await press(ann, await link_of(ann, confirmed))
    asked = []
    for _ in range(3):
        await a_day_passes(ann)
        asked.append((await ask(ann, topic="orders", ip="203.0.113.9")).json()["id"])
    ended = (
        "UPDATE confirmations SET expires_at = now() - interval '30 days' {} interval '1 minute'"
        " WHERE id = ANY(%s::uuid[])"
    )
    await ann.execute(ended.format("-"), [[confirmed.json()["id"], *asked[:2]]])
    await ann.execute(ended.format("+"), [asked[2:]])
    await ann.app.sweep.forget()
    left = await ann.rows("SELECT id, evidence ->> 'wording' AS wording FROM confirmations ORDER BY requested_at")
    assert [str(row["id"]) for row in left] == [confirmed.json()["id"], asked[2]]
    assert {row["wording"] for row in left} == {READ["wording"]}
