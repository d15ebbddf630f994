"""Mail and reports on mail over HTTP: who is believed, what it changes, and that nothing else is asked for or told."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from notifier.app import App
from notifier.web import mail_hooks as hooks
from notifier.web.edge import LARGER, Edge
from notifier.web.server import create_app
from tests.servers.api import settings_for
from tests.servers.bounces import postfix
from tests.servers.sns import ARN, CERTIFICATE, SUBSCRIBE, Sns, bounce, make_certificate, ses
from tests.servers.town import Town

pytestmark = pytest.mark.anyio

SECRET = "a secret of at least thirty-two characters"
GONE = postfix("550 5.1.1 User unknown", "5.1.1")
DEAD = "smtp; 550 5.1.1 User unknown"


@dataclass
class Hooks:
    app: App
    town: Town
    sns: Sns
    client: httpx.AsyncClient

    async def mail(self, raw: bytes, recipient: str, sender: str | None = None) -> int:
        headers = {"Authorization": f"Bearer {SECRET}", "Content-Type": "message/rfc822"}
        headers |= {} if sender is None else {"Envelope-From": sender}
        query = {"recipient": recipient}
        return (await self.client.post("/hooks/mail", params=query, content=raw, headers=headers)).status_code

    async def ses(self, body: bytes) -> int:
        headers = {"Content-Type": "text/plain; charset=UTF-8", "x-amz-sns-message-type": "Notification"}
        return (await self.client.post("/hooks/ses", content=body, headers=headers)).status_code

    async def postmark(self, password: str = SECRET, **fields: Any) -> int:
        login = base64.b64encode(f"notifier:{password}".encode()).decode()
        headers = {"Authorization": f"Basic {login}"}
        return (await self.client.post("/hooks/postmark", json=fields, headers=headers)).status_code

    async def message(self, state: str = "accepted"):
        """A person, their message, and its reference."""
        person = await self.town.person(f"ann{len(self.sns.asked)}@one.test")
        message = await self.town.message(person, "newsletter", state)
        return person, message, self.app.links.return_path(message, 1).partition("@")[0]

    async def suppressed(self) -> list[str]:
        return [row["reason"] for row in await self.town.rows("SELECT reason FROM suppressions ORDER BY number")]


@pytest.fixture
async def doors(database_url, quick_templates) -> AsyncIterator[Hooks]:
    settings = settings_for(
        database_url,
        "redis://127.0.0.1:1",
        inbound_domain="in.acme.test",
        inbound_secret=SECRET,
        ses_topic_arns=f"arn:aws:sns:us-east-1:1:other, {ARN}",
        postmark_secret=SECRET,
    )
    async with App.open(settings) as app:
        web, sns = FastAPI(), Sns()
        web.include_router(hooks.mail_hooks(app, sns.get))
        web.add_middleware(Edge)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(web), base_url="http://n.test") as client:
            yield Hooks(app, Town(app.database, app.hasher), sns, client)


# Raw mail -------------------------------------------------------------------------------------------------------------


async def test_a_raw_mail_is_taken_with_its_envelope(doors):
    _, message, reference = await doors.message()
    assert await doors.mail(GONE, f"{reference}@in.acme.test", sender="") == 204
    assert await doors.town.state(message) == "bounced"
    assert await doors.suppressed() == ["hard_bounce"]


@pytest.mark.parametrize(
    ("sender", "lines"), [("ann@one.test", 1), ("<ann@one.test>", 1), (None, 1), ("", 0), ("<>", 0)]
)
async def test_the_envelopes_sender_stands_in_a_header(doors, sender, lines):
    person, _, _ = await doors.message()
    address = doors.app.links.unsubscribe_mailto(person, "newsletter")
    assert await doors.mail(b"From: ann@one.test\nSubject: unsubscribe\n\n", address, sender) == 204
    assert len(await doors.town.ledger(person)) == lines


@pytest.mark.parametrize("token", ["", "x" * 42, SECRET + "x", "é"])
async def test_without_the_secret_nothing_is_taken(doors, token):
    _, message, reference = await doors.message()
    headers = {"Authorization": f"Bearer {token}".encode()}
    path = f"/hooks/mail?recipient={reference}@in.acme.test"
    assert (await doors.client.post(path, content=GONE, headers=headers)).status_code == 401
    assert (await doors.client.post(path, content=GONE)).status_code == 401
    assert await doors.town.state(message) == "accepted"


async def test_a_stranger_is_told_the_same_as_everybody(doors):
    assert await doors.mail(GONE, "b-forged@in.acme.test") == 204
    assert await doors.mail(b"", "@") == 204


async def test_a_mail_that_is_too_large_is_cut_off_at_the_edge(doors):
    assert LARGER["/hooks/mail"] == 10 * 1024 * 1024
    assert await doors.mail(b"x" * (LARGER["/hooks/mail"] + 1), "b-x@in.acme.test") == 413


async def test_without_a_database_all_are_asked_to_come_again(doors):
    _, _, reference = await doors.message()
    await doors.app.database.close()
    assert await doors.mail(GONE, f"{reference}@in.acme.test") == 503
    assert await doors.ses(doors.sns.notification(bounce(reference, "5.1.1", DEAD))) == 503
    assert await doors.postmark(RecordType="Delivery", MessageID="m", Metadata={"notifier": reference}) == 503


async def test_reading_changes_nothing(doors):
    for path in ("/hooks/mail", "/hooks/ses", "/hooks/postmark"):
        for method in ("GET", "HEAD", "OPTIONS"):
            assert (await doors.client.request(method, path)).status_code == 405


async def test_what_is_not_set_up_is_not_there(database_url, quick_templates):
    async with (
        App.open(settings_for(database_url, "redis://127.0.0.1:1")) as app,
        httpx.AsyncClient(transport=httpx.ASGITransport(create_app(app)), base_url="http://n.test") as client,
    ):
        for path in ("/hooks/mail", "/hooks/ses", "/hooks/postmark"):
            assert (await client.post(path, content=b"{}")).status_code == 404


# Amazon SES -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1", "2"])
async def test_a_bounce_that_amazon_signed_is_believed(doors, version):
    _, message, reference = await doors.message()
    body = doors.sns.notification(bounce(f"{reference}@in.acme.test", "5.1.1", DEAD), version)
    assert await doors.ses(body) == 204
    assert await doors.town.state(message) == "bounced"
    assert await doors.suppressed() == ["hard_bounce"]


@pytest.mark.parametrize(
    ("status", "said", "kind", "detail", "reasons"),
    [
        ("5.1.1", DEAD, "Permanent", "General", ["hard_bounce"]),
        ("", "", "Permanent", "NoEmail", ["hard_bounce"]),
        ("5.2.2", "smtp; 552 5.2.2 mailbox full", "Transient", "MailboxFull", []),
        ("5.1.1", "smtp; 552 5.1.1 mailbox full", "Permanent", "General", []),
        ("5.7.1", "smtp; 550 5.7.1 blocked for spam", "Permanent", "General", []),
        ("5.1.1", "Amazon SES has suppressed sending to this address", "Permanent", "Suppressed", []),
        ("5.1.1", "Amazon SES did not send", "Permanent", "OnAccountSuppressionList", []),
        ("", "", "Permanent", "General", []),
        ("", "", "Undetermined", "Undetermined", []),
        ("5.1.1", DEAD, "Transient", "General", []),
    ],
)
async def test_the_servers_reply_decides_and_not_the_class_alone(doors, status, said, kind, detail, reasons):
    _, message, reference = await doors.message()
    assert await doors.ses(doors.sns.notification(bounce(f"{reference}@x.test", status, said, kind, detail))) == 204
    assert await doors.town.state(message) == "bounced"
    assert await doors.suppressed() == reasons


async def test_event_publishing_names_the_message_by_its_tag_or_its_header(doors):
    for where in ("tags", "headers"):
        _, message, reference = await doors.message()
        event = ses("Delivery", "someone@acme.test", "eventType")
        tag = {"name": "X-SES-MESSAGE-TAGS", "value": f"notifier={reference}"}
        event["mail"][where] = {"notifier": [reference]} if where == "tags" else [{"name": "To"}, tag]
        assert await doors.ses(doors.sns.notification(event, MessageId=where)) == 204
        assert await doors.town.state(message) == "delivered"


async def test_a_complaint_is_a_no_to_marketing_and_a_not_spam_is_none(doors):
    person, message, reference = await doors.message()
    sender = f"{reference}@in.acme.test"
    for feedback in ("not-spam", "auth-failure"):
        assert await doors.ses(doors.sns.notification(ses("Complaint", sender, complaintFeedbackType=feedback))) == 204
    assert await doors.town.state(message) == "accepted"
    assert await doors.ses(doors.sns.notification(ses("Complaint", sender, complaintFeedbackType="abuse"))) == 204
    assert await doors.town.state(message) == "complained"
    assert [line["source"] for line in await doors.town.ledger(person)] == ["complaint"]


def choices(*out: str, everything: bool = False, inside: str = "") -> dict[str, Any]:
    """Somebody's preferences at SES, as its documentation shows them."""
    status = [{"topicName": name, "subscriptionStatus": "OptOut"} for name in out]
    status += [{"topicName": inside, "subscriptionStatus": "OptIn"}] if inside else []
    return {"unsubscribeAll": everything, "topicSubscriptionStatus": status}


@pytest.mark.parametrize(
    ("new", "old", "scopes"),
    [
        (choices("a", everything=True), choices(), ["marketing"]),
        (choices(everything=True), choices("a", everything=True), ["marketing"]),
        (choices("a"), choices(inside="a"), ["marketing"]),  # which of our topics SES's "a" is, nobody knows
        (choices("a"), {}, ["marketing"]),
        (choices("a"), choices("a"), ["marketing"]),  # the same no again, whose first report may be lost
        (choices("a", inside="b"), choices("b"), ["marketing"]),
        (choices("a", inside="b"), choices("a", "b"), []),  # came back to one, and leaves nothing
        (choices("a"), choices("a", everything=True), []),
        (choices(inside="a"), choices("a"), []),
        ({}, {}, []),
        ({"topicSubscriptionStatus": [None, {"subscriptionStatus": []}], "unsubscribeAll": "true"}, {}, []),
    ],
)
async def test_who_leaves_one_list_or_all_at_amazon_has_left_all_marketing(doors, new, old, scopes):
    person, _, reference = await doors.message()
    event = ses(
        "Subscription", f"{reference}@x.test", "eventType", contactList="ours", newTopicPreferences=new,
        oldTopicPreferences=old,
    )  # fmt: skip
    assert await doors.ses(doors.sns.notification(event)) == 204
    assert [line["scope"] for line in await doors.town.ledger(person)] == scopes


async def test_events_in_any_order_and_twice_lead_to_the_same_place(doors):
    _, message, reference = await doors.message()
    gone = doors.sns.notification(bounce(f"{reference}@x.test", "5.1.1", DEAD), MessageId="m1")
    events = [
        doors.sns.notification(ses("Delivery", f"{reference}@x.test"), MessageId="m2"),
        doors.sns.notification(ses("Send", f"{reference}@x.test", "eventType"), MessageId="m3"),
        doors.sns.notification(ses("DeliveryDelay", f"{reference}@x.test", "eventType"), MessageId="m4"),
    ]
    for body in (gone, *events, gone, *events):
        assert await doors.ses(body) == 204
    assert await doors.town.state(message) == "bounced"
    assert len(await doors.town.rows("SELECT 1 FROM delivery_events")) == 4


async def test_what_amazon_has_not_signed_changes_nothing(doors):
    _, message, reference = await doors.message()
    body = json.loads(doors.sns.notification(bounce(f"{reference}@x.test", "5.1.1", DEAD)))
    other = Sns(*make_certificate())
    for changed in (
        body | {"Message": body["Message"].replace("5.1.1", "5.1.3")},
        body | {"Signature": body["Signature"][:-8] + "AAAAAAA="},
        body | {"Signature": ""},
        body | {"Signature": "é"},
        body | {"SignatureVersion": "1"},
        body | {"SignatureVersion": "3"},
        body | {"Timestamp": "2026-11-24T10:00:00.000Z"},
        body | {"Subject": "added"},
        json.loads(other.notification(bounce(f"{reference}@x.test", "5.1.1", DEAD))),
    ):
        assert await doors.ses(json.dumps(changed).encode()) == 403
    for junk in (
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b'{"Type": ["Notification"]}',
        b"[" * 5000,
        json.dumps({"Type": None}).encode(),
    ):
        assert await doors.ses(junk) == 403
    assert await doors.town.state(message) == "accepted"


@pytest.mark.parametrize(
    "url",
    [
        CERTIFICATE.replace("https", "http"),
        CERTIFICATE.replace("sns.eu-central-1.amazonaws.com", "evil.test"),
        CERTIFICATE.replace("amazonaws.com", "amazonaws.com.evil.test"),
        CERTIFICATE.replace("https://", "https://evil.test/"),
        CERTIFICATE.replace("https://", "https://evil.test#"),
        CERTIFICATE.replace("https://", "https://user@"),
        CERTIFICATE.replace("sns.", "bucket.s3."),
        CERTIFICATE.replace("amazonaws.com/", "amazonaws.com:8443/"),
        CERTIFICATE + "?x=1",
        "https://127.0.0.1/SimpleNotificationService-00.pem",
        "https://169.254.169.254/latest/meta-data",
        CERTIFICATE + "\n",
    ],
)
async def test_only_amazons_certificates_are_asked_for(doors, url):
    assert await doors.ses(doors.sns.notification("{}", SigningCertURL=url)) == 403
    assert doors.sns.asked == []


async def test_a_topic_that_is_not_ours_is_not_believed_nor_anything_asked(doors):
    strange = "arn:aws:sns:eu-central-1:999999999999:mail"
    assert await doors.ses(doors.sns.notification("{}", TopicArn=strange)) == 403
    assert await doors.ses(doors.sns.confirmation(TopicArn=strange)) == 403
    assert doors.sns.asked == []


async def test_a_certificate_is_asked_for_once(doors):
    for number in range(3):
        assert await doors.ses(doors.sns.notification("{}", MessageId=f"m{number}")) == 204
    assert doors.sns.asked == [CERTIFICATE]


async def test_amazon_is_asked_to_repeat_while_its_certificate_cannot_be_had(doors):
    doors.sns.is_away = True
    assert await doors.ses(doors.sns.notification("{}")) == 503
    doors.sns.is_away = False
    assert await doors.ses(doors.sns.notification("{}")) == 204


async def test_a_subscription_to_our_topic_is_confirmed(doors):
    assert await doors.ses(doors.sns.confirmation()) == 204
    assert doors.sns.asked == [CERTIFICATE, SUBSCRIBE]


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/", SUBSCRIBE.replace("sns.", "evil.test/sns."), SUBSCRIBE + "#@evil"]
)
async def test_a_subscription_is_confirmed_at_amazon_only(doors, url):
    assert await doors.ses(doors.sns.confirmation(url)) == 403
    assert doors.sns.asked == [CERTIFICATE]


async def test_an_event_without_our_signature_changes_nothing(doors):
    _, message, reference = await doors.message()
    forged = reference[:-1] + ("a" if reference[-1] != "a" else "b")
    for sender in (f"{forged}@in.acme.test", "hello@acme.test", ""):
        assert await doors.ses(doors.sns.notification(bounce(sender, "5.1.1", DEAD))) == 204
    assert await doors.town.state(message) == "accepted"


@pytest.mark.parametrize(
    "message", ["", "null", "[]", '{"mail": []}', '{"notificationType": "Bounce"}', '{"notificationType": {}}']
)
async def test_a_message_of_another_shape_does_no_harm(doors, message):
    assert await doors.ses(doors.sns.notification(message)) == 204


# Postmark -------------------------------------------------------------------------------------------------------------


def a_bounce(reference: str, type_: str, details: str, **more: Any) -> dict[str, Any]:
    return {
        "RecordType": "Bounce", "ID": 42, "Type": type_, "Details": details, "MessageID": "pm-1", "Inactive": True,
        "BouncedAt": "2026-11-23T10:00:00Z", "Metadata": {"notifier": reference}, "Email": "ann@one.test",
    } | more  # fmt: skip


@pytest.mark.parametrize(
    ("type_", "details", "reasons"),
    [
        ("HardBounce", DEAD, ["hard_bounce"]),
        ("HardBounce", "", ["hard_bounce"]),
        ("BadEmailAddress", "", ["hard_bounce"]),
        ("HardBounce", "smtp;552 5.2.2 mailbox full", []),
        ("HardBounce", "smtp;550 5.7.1 blocked for spam", []),
        ("SoftBounce", DEAD, []),
        ("Transient", "", []),
        ("DnsError", "", []),
        ("Blocked", "smtp;550 blocked", []),
        ("SpamNotification", "", []),
    ],
)
async def test_postmarks_bounces_are_judged_by_the_reply_first(doors, type_, details, reasons):
    _, message, reference = await doors.message()
    assert await doors.postmark(**a_bounce(reference, type_, details)) == 200
    assert await doors.town.state(message) == "bounced"
    assert await doors.suppressed() == reasons


async def test_postmarks_complaints_and_unsubscribes_are_a_no(doors):
    person, message, reference = await doors.message()
    change = {
        "RecordType": "SubscriptionChange", "MessageID": "pm-1", "Origin": "Recipient", "SuppressSending": True,
        "SuppressionReason": "ManualSuppression", "ChangedAt": "2026-11-23T10:00:00Z",
        "Metadata": {"notifier": reference},
    }  # fmt: skip
    assert await doors.postmark(**change | {"SuppressSending": False}) == 200
    assert await doors.postmark(**change | {"Origin": "Customer"}) == 200
    assert await doors.town.ledger(person) == []
    assert await doors.postmark(**change) == 200
    assert await doors.postmark(**a_bounce(reference, "SpamComplaint", "", RecordType="SpamComplaint")) == 200
    # Both for all marketing: a suppression at Postmark holds for the whole stream. What the provider has said for the
    # address does not stand in for what the person says for themselves.
    said = [(line["scope"], line["source"]) for line in await doors.town.ledger(person)]
    assert said == [("marketing", "provider"), ("marketing", "complaint")]
    assert await doors.suppressed() == ["complaint"]
    assert await doors.town.state(message) == "complained"


async def test_postmarks_deliveries_count_once(doors):
    _, message, reference = await doors.message()
    arrived = {"RecordType": "Delivery", "MessageID": "pm-1", "DeliveredAt": "2026-11-23T10:00:00Z"}
    for _ in range(2):
        assert await doors.postmark(**arrived, Metadata={"notifier": reference}) == 200
    assert await doors.town.state(message) == "delivered"
    assert len(await doors.town.rows("SELECT 1 FROM delivery_events")) == 1


@pytest.mark.parametrize("type_", ["AutoResponder", "Subscribe", "AddressChange", "ChallengeVerification"])
async def test_what_postmark_calls_a_bounce_and_is_none_changes_nothing(doors, type_):
    _, message, reference = await doors.message()
    assert await doors.postmark(**a_bounce(reference, type_, "")) == 200
    assert await doors.town.state(message) == "accepted"


@pytest.mark.parametrize("password", ["", "x" * 42, SECRET[:-1]])
async def test_without_the_password_postmark_is_not_believed(doors, password):
    _, message, reference = await doors.message()
    assert await doors.postmark(password, **a_bounce(reference, "HardBounce", DEAD)) == 401
    for header in ("", "Basic", "Basic é", f"Bearer {SECRET}"):
        headers = {"Authorization": header.encode()}
        assert (await doors.client.post("/hooks/postmark", json={}, headers=headers)).status_code == 401
    assert await doors.town.state(message) == "accepted"


@pytest.mark.parametrize(
    "fields", [{}, {"RecordType": "Open"}, {"RecordType": "Bounce", "Metadata": []}, {"Metadata": {"notifier": 7}}]
)
async def test_what_says_nothing_of_a_message_of_ours_is_taken_and_forgotten(doors, fields):
    assert await doors.postmark(**fields) == 200
    _, message, reference = await doors.message()
    assert await doors.postmark(**a_bounce(reference[:-1], "HardBounce", DEAD)) == 200
    assert await doors.town.state(message) == "accepted"
