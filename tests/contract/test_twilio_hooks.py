"""Twilio's webhooks over a real socket: genuine by their signature, believed once, in any order, before our commit."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from hashlib import sha256
from urllib.parse import urlencode

import pytest
from structlog.testing import capture_logs
from twilio.request_validator import RequestValidator

from notifier_channels.contract import Channel
from tests.servers.service import Service, running

pytestmark = pytest.mark.anyio

SID = "AC" + "a" * 32
NEW, OLD = "the-new-token", "the-old-token"
PHONE, OURS = "+4915112345678", "+4930123456"
PUBLIC = "https://notify.acme.example/base"
FORM = "application/x-www-form-urlencoded"


@pytest.fixture
async def service(database_url, tmp_path):
    async with running(
        database_url,
        tmp_path,
        public_url=PUBLIC,
        sender_name="Acme",
        twilio_account_sid=SID,
        twilio_auth_tokens=f"{NEW},{OLD}",
        twilio_sender=OURS,
    ) as service:
        yield service


async def call(service: Service, path: str, fields: dict[str, str], *, token: str = NEW, signature: str | None = None):
    signed = RequestValidator(token).compute_signature(f"{PUBLIC}{path}", fields)
    return await service.ask(
        "POST",
        path,
        urlencode(fields).encode(),
        Content_Type=FORM,
        X_Twilio_Signature=signed if signature is None else signature,
    )


def status_path(service: Service, message, attempt: int = 1) -> str:
    url = service.app.links.report_url(Channel.SMS, message, attempt)
    assert url.startswith(PUBLIC)
    path, _, overrides = url.removeprefix(PUBLIC).partition("#")  # Twilio neither sends nor signs the fragment
    assert overrides == "rc=5&rp=all"
    return path


def said(text: str, sid: str = "SM1", **more: str) -> dict[str, str]:
    return {"MessageSid": sid, "From": PHONE, "To": OURS, "Body": text, "NumMedia": "0", "AccountSid": SID} | more


def fares(status: str, sid: str = "SM1", **more: str) -> dict[str, str]:
    return {"MessageSid": sid, "MessageStatus": status, "To": PHONE, "From": OURS, "AccountSid": SID} | more


async def a_text(service: Service, state: str = "accepted"):
    ann = await service.town.person("ann@x.test")
    await service.town.phone(ann, PHONE, service.app.hasher)
    return ann, await service.town.message(ann, "orders", state, "sms")


# How a message fares --------------------------------------------------------------------------------------------------


async def test_a_delivery_is_believed_and_a_late_sent_does_not_take_it_back(service):
    _, message = await a_text(service)
    for status in ("sent", "delivered", "sent", "queued", "delivered"):
        assert (await call(service, status_path(service, message), fares(status))).status == 204
    assert await service.town.state(message) == "delivered"
    assert len(await service.town.rows("SELECT 1 FROM delivery_events")) == 3


async def test_doubt_ends_with_the_first_report_and_the_attempt_learns_its_reference(service):
    _, message = await a_text(service, "unknown")
    await call(service, status_path(service, message), fares("sent", "SM77"))
    assert await service.town.state(message) == "accepted"
    assert await service.town.rows("SELECT state, reference FROM attempts") == [
        {"state": "accepted", "reference": "SM77"}
    ]


async def test_a_report_that_comes_before_our_own_commit_waits_for_it(service):
    _, message = await a_text(service, "sending")
    assert (await call(service, status_path(service, message), fares("delivered"))).status == 204
    assert await service.town.state(message) == "sending"
    assert len(await service.town.rows("SELECT 1 FROM delivery_events")) == 1


async def test_a_number_that_is_not_there_is_suppressed_and_an_unreachable_one_is_not(service):
    _, message = await a_text(service)
    await call(service, status_path(service, message), fares("undelivered", ErrorCode="30003"))
    assert await service.town.rows("SELECT state, reason FROM messages") == [
        {"state": "queued", "reason": "came_back:30003"}
    ]
    assert await service.town.rows("SELECT 1 FROM suppressions") == []
    other = await service.town.message((await a_person(service)), "orders", "accepted", "sms")
    await call(service, status_path(service, other), fares("undelivered", "SM2", ErrorCode="30005"))
    assert await service.town.rows("SELECT reason FROM suppressions") == [{"reason": "hard_bounce"}]


async def bounces(service: Service, person, code: str, sid: str):
    message = await service.town.message(person, "orders", "accepted", "sms")
    assert (await call(service, status_path(service, message), fares("undelivered", sid, ErrorCode=code))).status == 204
    return message


@pytest.mark.parametrize("code", ["30003", "30004"])
async def test_a_phone_that_is_unreachable_again_and_again_is_suppressed(service, code):
    ann, message = await a_text(service)
    for number in range(9):
        await bounces(service, ann, code, f"SM1{number}")
    await call(service, status_path(service, message), fares("delivered", "SM2"))
    for number in range(9):
        await bounces(service, ann, code, f"SM3{number}")
    assert await service.town.rows("SELECT 1 FROM suppressions") == []
    await bounces(service, ann, code, "SM4")
    [found] = await service.town.rows("SELECT reason, evidence FROM suppressions")
    assert (found["reason"], found["evidence"]["bounces"]) == ("hard_bounce", "10")


@pytest.mark.parametrize("code", ["30002", "30032", "30034"])
async def test_what_our_account_or_sender_may_not_do_pauses_it_and_tells_a_person(service, code):
    ann, _ = await a_text(service)
    with capture_logs() as logs:
        message = await bounces(service, ann, code, "SM1")
    assert await service.town.state(message) == "bounced"
    [pause] = await service.town.rows("SELECT provider, code, paused_until - now() AS left FROM provider_pauses")
    assert (pause["provider"], pause["code"]) == ("smtp", code)  # what the attempt was made with
    assert timedelta(minutes=9) < pause["left"] <= timedelta(minutes=10)
    assert [(one["event"], one["log_level"], one["code"]) for one in logs] == [("provider.paused", "error", code)]
    assert await service.town.rows("SELECT 1 FROM suppressions") == []


@pytest.mark.parametrize(
    ("code", "event", "level"),
    [
        ("30007", "report.filtered", "error"),
        ("30022", "report.too_fast", "warning"),
        ("30023", "report.too_fast", "warning"),
    ],
)
async def test_what_a_carrier_holds_against_us_is_told_and_stops_nothing(service, code, event, level):
    ann, _ = await a_text(service)
    with capture_logs() as logs:
        await bounces(service, ann, code, "SM1")
    assert [(one["event"], one["log_level"], one["code"]) for one in logs] == [(event, level, code)]
    assert PHONE not in str(logs)
    assert await service.town.rows("SELECT 1 FROM suppressions UNION ALL SELECT 1 FROM provider_pauses") == []


async def a_person(service: Service):
    person = await service.town.person()
    await service.town.phone(person, "+4915199999999", service.app.hasher)
    return person


async def test_a_stop_that_twilio_knows_of_reaches_our_ledger(service):
    ann, message = await a_text(service)
    await call(service, status_path(service, message), fares("failed", ErrorCode="21610"))
    [line] = await service.town.ledger(ann)
    assert (line["scope"], line["channel"], line["granted"], line["source"]) == ("all", "sms", False, "provider")
    assert await service.town.rows("SELECT reason FROM suppressions") == [{"reason": "stop"}]


async def test_a_late_report_of_a_stop_does_not_take_back_the_start_that_came_after_it(service):
    ann, message = await a_text(service)
    await call(service, "/hooks/twilio/inbound", said("STOP", "SM7"))
    await call(service, "/hooks/twilio/inbound", said("START", "SM8"))
    await call(service, status_path(service, message), fares("failed", ErrorCode="21610"))
    assert [line["granted"] for line in await service.town.ledger(ann)] == [False, True]
    assert await service.town.rows("SELECT 1 FROM suppressions WHERE lifted_at IS NULL") == []
    assert await service.town.state(message) == "bounced"
    later = await service.town.message(ann, "orders", "accepted", "sms")
    await call(service, status_path(service, later), fares("failed", "SM9", ErrorCode="21610"))  # it holds there
    assert [line["granted"] for line in await service.town.ledger(ann)] == [False, True, False]


async def test_a_status_for_a_message_that_is_gone_is_not_asked_for_again(service):
    from tests.servers.town import new_id

    assert (await call(service, status_path(service, new_id()), fares("sent"))).status == 204


async def test_a_token_of_ours_for_another_purpose_is_no_reference(service):
    ann, message = await a_text(service)
    link = service.app.links.unsubscribe_url(ann, "orders", Channel.SMS, message).rpartition("/")[2]
    assert (await call(service, f"/hooks/twilio/status/{link}", fares("delivered"))).status == 404
    assert await service.town.state(message) == "accepted"


# Genuine or not -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signature", ["", "AAAA", "x" * 500, "\u00e9"])
async def test_what_twilio_has_not_signed_changes_nothing(service, signature):
    _, message = await a_text(service)
    answer = await call(service, status_path(service, message), fares("undelivered"), signature=signature)
    assert answer.status == 403
    assert (await call(service, "/hooks/twilio/inbound", said("STOP"), signature=signature)).status == 403
    assert await service.town.state(message) == "accepted"
    assert await service.town.ledger() == []


async def test_both_tokens_hold_while_they_are_rotated_and_no_other(service):
    _, message = await a_text(service)
    path = status_path(service, message)
    answers = [await call(service, path, fares("sent"), token=token) for token in (NEW, OLD, "another")]
    assert [answer.status for answer in answers] == [204, 204, 403]


async def test_a_signature_for_another_message_does_not_hold_for_this_one(service):
    ann, message = await a_text(service)
    other = await service.town.message(ann, "orders", "accepted", "sms")
    signed = RequestValidator(NEW).compute_signature(f"{PUBLIC}{status_path(service, other)}", fares("failed"))
    answer = await call(service, status_path(service, message), fares("failed"), signature=signed)
    assert answer.status == 403


async def test_a_query_is_part_of_what_is_signed(service):
    await a_text(service)
    path = "/hooks/twilio/inbound?shop=1"
    assert (await call(service, path, said("STOP"))).status == 200
    assert len(await service.town.ledger()) == 1


async def test_a_json_body_is_genuine_by_its_hash_in_the_url(service):
    ann, _ = await a_text(service)
    body = json.dumps(said("STOP")).encode()
    path = f"/hooks/twilio/inbound?bodySHA256={sha256(body).hexdigest()}"
    signed = RequestValidator(NEW).compute_signature(f"{PUBLIC}{path}", {})
    headers = {"Content_Type": "application/json", "X_Twilio_Signature": signed}
    assert (await service.ask("POST", path, body + b" ", **headers)).status == 403
    assert (await service.ask("POST", path, body, **headers)).status == 200
    assert len(await service.town.ledger(ann)) == 1


async def test_get_changes_nothing(service):
    await a_text(service)
    for method in ("GET", "HEAD", "OPTIONS"):
        assert (await service.ask(method, "/hooks/twilio/inbound?Body=STOP")).status in (404, 405)
    assert await service.town.ledger() == []


# What people write ----------------------------------------------------------------------------------------------------


async def test_stop_in_other_words_than_twilios_is_honoured_and_confirmed_in_the_reply(service):
    ann, _ = await a_text(service)
    answer = await call(service, "/hooks/twilio/inbound", said("Stop please!"))
    assert (answer.status, answer.headers["content-type"].partition(";")[0]) == (200, "text/xml")
    assert answer.text.startswith("<?xml")
    assert "<Message>Acme: You will get no more text messages" in answer.text
    [line] = await service.town.ledger(ann)
    assert (line["scope"], line["channel"], line["source"]) == ("all", "sms", "sms_keyword")


@pytest.mark.parametrize(
    "fields", [said("STOP"), said("stop", OptOutType="STOP"), said("Stopp bitte", OptOutType="STOP")]
)
async def test_what_twilio_answers_itself_is_honoured_and_not_answered_twice(service, fields):
    ann, _ = await a_text(service)
    answer = await call(service, "/hooks/twilio/inbound", fields)
    assert (answer.status, "<Message>" in answer.text) == (200, False)
    assert len(await service.town.ledger(ann)) == 1


async def test_a_webhook_that_comes_twice_is_answered_once(service):
    await a_text(service)
    texts = [(await call(service, "/hooks/twilio/inbound", said("please stop", "SM9"))).text for _ in range(3)]
    assert ["<Message>" in text for text in texts] == [True, False, False]


async def test_a_sentence_with_a_keyword_in_it_is_none(service):
    await a_text(service)
    for text in ("see you at the bus stop", "when do you start?", ""):
        answer = await call(service, "/hooks/twilio/inbound", said(text, f"SM{len(text)}"))
        assert (answer.status, "<Message>" in answer.text) == (200, False)
    assert await service.town.ledger() == []


async def test_an_answer_cannot_be_made_to_carry_markup(database_url, tmp_path):
    changes = {"public_url": PUBLIC, "twilio_account_sid": SID, "twilio_auth_tokens": NEW, "twilio_sender": OURS}
    async with running(database_url, tmp_path, sender_name="<Play>A&B</Play>", **changes) as service:
        text = (await call(service, "/hooks/twilio/inbound", said("please stop"))).text
    assert "<Play>" not in text
    assert "&lt;Play&gt;A&amp;B" in text


async def test_what_comes_from_no_number_is_left_alone(service):
    answer = await call(service, "/hooks/twilio/inbound", said("STOP") | {"From": "ACMEBANK"})
    assert (answer.status, "<Message>" in answer.text) == (200, False)


async def test_without_a_database_nothing_is_said_to_be_done(service):
    _, message = await a_text(service)
    await service.app.database.close()
    for path, fields, event in (
        ("/hooks/twilio/inbound", said("STOP"), "reply.not_saved"),
        (status_path(service, message), fares("delivered"), "api.database_away"),
    ):
        with capture_logs() as logs:
            answer = await call(service, path, fields)
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")
        assert event in [one["event"] for one in logs]


async def test_a_stop_that_could_not_be_saved_is_in_the_ledger_once_the_database_is_back(database_url, tmp_path):
    changes = {"public_url": PUBLIC, "twilio_account_sid": SID, "twilio_auth_tokens": NEW, "twilio_sender": OURS}
    async with running(database_url, tmp_path, **changes) as service:
        ann, _ = await a_text(service)
        await service.app.database.close()
        for text in ("Stop please", "see you at the bus stop"):
            answer = await call(service, "/hooks/twilio/inbound", said(text, f"SM{len(text)}"))
            assert answer.status == 503
        assert len(list((tmp_path / "replies").iterdir())) == 1
    async with running(database_url, tmp_path, **changes) as service, asyncio.timeout(20):
        while not (lines := await service.town.ledger(ann)):
            await asyncio.sleep(0.01)
    assert [(line["granted"], line["evidence"]["wording"]) for line in lines] == [(False, "Stop please")]


async def test_a_stop_is_heard_with_what_a_database_cannot_hold(service):
    ann, _ = await a_text(service)
    assert (await call(service, "/hooks/twilio/inbound", said("STOP\0"))).status == 200
    assert [line["evidence"]["wording"] for line in await service.town.ledger(ann)] == ["STOP?"]


async def test_without_twilio_there_are_no_such_routes(database_url, tmp_path):
    async with running(database_url, tmp_path) as service:
        assert (await service.ask("POST", "/hooks/twilio/inbound", b"Body=STOP", Content_Type=FORM)).status == 404
