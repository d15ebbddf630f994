"""Twilio's webhooks: only what is signed is believed, and what it says becomes events and keywords."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode
from uuid import uuid4
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier_channels.contract import DeliveryEvent, EventKind
from notifier_channels.sms.codes import AGAIN
from notifier_channels.sms.webhooks import KINDS, Form, Inbound, form_of, genuine, inbound, status, twiml

FORM = "application/x-www-form-urlencoded"
URL = "https://mycompany.com/myapp.php?foo=1&bar=2"
FIELDS = {
    "CallSid": "CA1234567890ABCDE",
    "Digits": "1234",
    "From": "+14158675309",
    "Caller": "+14158675309",
    "To": "+18005551212",
}
JSON_BODY = b'{"property": "value", "boolean": true}'
JSON_URL = URL + "&bodySHA256=0a1ff7634d9ab3b95db5c9a2dfe9416e41502b283a80c7cf19632632f96e6620"
RECEIVED = datetime(2026, 11, 25, 12, 0, 30, tzinfo=UTC)
REFERENCE = (uuid4(), 2)

# The vectors of Twilio's own libraries (twilio-python, tests of the request validator; November 2026).
VECTORS = [
    ("12345", URL, urlencode(FIELDS), "RSOYDt4T1cUTdK1PDd93/VVr8B8="),
    ("12345", URL.replace(".com", ".com:443"), urlencode(FIELDS), "kvajT1Ptam85bY51eRf/AJRuM3w="),
    (
        "12345",
        URL.replace("https", "http").replace(".com", ".com:1234"),
        urlencode(FIELDS),
        "Zmvh+3yNM1Phv2jhDCwEM3q5ebU=",
    ),
    (
        "12345",
        URL.replace("https", "http").replace(".com", ".com:80"),
        urlencode(FIELDS),
        "0ZXoZLH/DfblKGATFgpif+LLRf4=",
    ),
    (
        "12345",
        URL,
        "Sid=CA123&SidAccount=AC123&Digits=5678&Digits=1234&Digits=1234",
        "IK+Dwps556ElfBT0I3Rgjkr1wJU=",
    ),
]


def signed(token: str, url: str, fields: dict[str, str]) -> str:
    """As Twilio describes it, without its library."""
    text = url + "".join(name + fields[name] for name in sorted(fields))
    return base64.b64encode(hmac.new(token.encode(), text.encode(), hashlib.sha1).digest()).decode()


@pytest.mark.parametrize(("token", "url", "body", "signature"), VECTORS)
def test_the_published_vectors_are_genuine(token: str, url: str, body: str, signature: str):
    assert genuine([token], url, FORM, body.encode(), signature)
    assert genuine(["other", token], url, f"{FORM}; charset=utf-8", body.encode(), signature)
    assert not genuine(["other"], url, FORM, body.encode(), signature)
    assert not genuine([], url, FORM, body.encode(), signature)
    assert not genuine([""], url, FORM, body.encode(), signature)


def test_a_json_body_is_proven_by_its_hash():
    signature = "a9nBmqA0ju/hNViExpshrM61xv4="
    assert genuine(["12345"], JSON_URL, "application/json", JSON_BODY, signature)
    assert not genuine(["12345"], JSON_URL, "application/json", JSON_BODY + b" ", signature)
    assert not genuine(["12345"], URL, "application/json", JSON_BODY, signature)
    assert not genuine(["12345"], JSON_URL, FORM, b"a=b", signature)


def test_a_body_that_no_hash_covers_is_never_genuine():
    assert not genuine(["12345"], URL, "application/json", b"[]", signed("12345", URL, {}))
    assert not genuine(["12345"], URL, "", b"a=b", signed("12345", URL, {}))
    assert not genuine(["12345"], URL, FORM, b"\xff", signed("12345", URL, {}))


@pytest.mark.parametrize(("token", "url", "body", "signature"), VECTORS[:1] + VECTORS[4:])
def test_not_one_bit_may_be_flipped(token: str, url: str, body: str, signature: str):
    for at in range(len(signature) * 8):
        raw = bytearray(signature.encode())
        raw[at // 8] ^= 1 << at % 8
        assert not genuine([token], url, FORM, body.encode(), raw.decode("latin-1"))
    for at in range(len(body) * 8):
        raw = bytearray(body.encode())
        raw[at // 8] ^= 1 << at % 8
        assert not genuine([token], url, FORM, bytes(raw), signature) or form_of(FORM, bytes(raw)) == form_of(
            FORM, body.encode()
        )
    for at in range(len("https://"), len(url)):
        assert not genuine([token], url[:at] + chr(ord(url[at]) ^ 1) + url[at + 1 :], FORM, body.encode(), signature)


def test_empty_and_unknown_fields_are_signed_like_the_others():
    fields = {"MessageSid": "SM1", "ErrorCode": "", "FromCity": "", "Later": "new", "Body": "ä & ö = 😜 +"}
    signature = signed("12345", URL, fields)
    assert genuine(["12345"], URL, FORM, urlencode(fields).encode(), signature)
    without = urlencode({**fields, "ErrorCode": "x"}).encode()
    assert not genuine(["12345"], URL, FORM, without, signature)


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.text(st.characters(exclude_categories=["Cs"]))
    )
)
def test_whatever_twilio_signs_is_genuine(fields: dict[str, str]):
    body = urlencode(fields).encode()
    assert genuine(["12345"], URL, FORM, body, signed("12345", URL, fields))
    assert {name: form_of(FORM, body).first(name) for name in fields} == fields


def report(word: str, **fields: str) -> Form:
    return form_of(FORM, urlencode({"MessageSid": "SM1", "MessageStatus": word, **fields}).encode())


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        *((word, EventKind.SENT) for word in ("queued", "accepted", "sending", "sent", "scheduled")),
        *((word, EventKind.DELIVERED) for word in ("delivered", "read")),
        *((word, EventKind.BOUNCED) for word in ("undelivered", "failed", "canceled")),
    ],
)
def test_each_status_has_its_meaning(word: str, kind: EventKind):
    (event,) = status(report(word), REFERENCE, RECEIVED)
    code = word if kind is EventKind.BOUNCED else None
    assert event == DeliveryEvent(REFERENCE[0], kind, "twilio", f"SM1:{word}", RECEIVED, 2, code, False, "SM1")


@pytest.mark.parametrize(
    "form",
    [report(""), report("receiving"), report("partially_delivered"), form_of(FORM, b"MessageStatus=sent"), Form()],
)
def test_what_is_not_known_reports_nothing(form: Form):
    assert status(form, REFERENCE, RECEIVED) == []


@pytest.mark.parametrize(("code", "is_dead"), [("30005", True), ("30006", True), ("30003", False), ("30007", False)])
def test_the_code_says_whether_anybody_is_there(code, is_dead):
    (event,) = status(report("undelivered", ErrorCode=code), REFERENCE, RECEIVED)
    assert (event.code, event.is_dead) == (code, is_dead)


@pytest.mark.parametrize("word", KINDS)
@pytest.mark.parametrize("code", ["30003", "30005"])
def test_only_what_twilio_has_given_up_for_a_cause_that_may_pass_may_go_again(word, code):
    (event,) = status(report(word, ErrorCode=code), REFERENCE, RECEIVED)
    assert event.again == (AGAIN[30003] if word in ("undelivered", "failed") and code == "30003" else None)


def test_an_error_code_on_a_delivered_message_kills_nothing():
    (event,) = status(report("delivered", ErrorCode="30005"), REFERENCE, RECEIVED)
    assert (event.code, event.is_dead) == (None, False)


def test_a_stop_that_twilio_knows_of_is_reported_as_an_opt_out():
    bounced, left = status(report("failed", ErrorCode="21610"), REFERENCE, RECEIVED)
    assert (bounced.kind, bounced.code, bounced.is_dead) == (EventKind.BOUNCED, "21610", False)
    assert (left.kind, left.attempt) == (EventKind.UNSUBSCRIBED, 2)
    assert bounced.source_id != left.source_id


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("2611251159", datetime(2026, 11, 25, 11, 59, tzinfo=UTC)),
        ("2611251201", RECEIVED),  # the carrier's clock, or its zone
        ("2611221159", RECEIVED),
        ("2613251159", RECEIVED),
        ("soon", RECEIVED),
        ("", RECEIVED),
    ],
)
def test_the_carriers_clock_is_believed_only_when_it_is_sane(raw: str, expected: datetime):
    (event,) = status(report("delivered", RawDlrDoneDate=raw), REFERENCE, RECEIVED)
    assert event.occurred_at == expected


@given(st.text(max_size=12))
def test_nothing_happens_in_the_future_or_long_ago(raw: str):
    (event,) = status(Form(MessageSid=["SM1"], MessageStatus=["sent"], RawDlrDoneDate=[raw]), REFERENCE, RECEIVED)
    assert RECEIVED - timedelta(days=2) <= event.occurred_at <= RECEIVED


def test_json_says_the_same_as_a_form():
    body = b'{"MessageSid": "SM1", "MessageStatus": "failed", "ErrorCode": 30005, "To": null}'
    (event,) = status(form_of("application/json", body), REFERENCE, RECEIVED)
    assert (event.code, event.is_dead) == ("30005", True)
    assert form_of("application/json", b"[1]") == form_of("application/json", b"{") == form_of("", b"\xff") == Form()


def test_an_inbound_message_is_read():
    fields = {
        "MessageSid": "SM1",
        "From": "+12025550100",
        "To": "+12025550199",
        "Body": " Stop\n",
        "OptOutType": "STOP",
    }
    form = form_of(FORM, urlencode(fields).encode())
    assert inbound(form) == Inbound("SM1", "+12025550100", "+12025550199", " Stop\n", "STOP")
    assert "2025550100" not in repr(inbound(form))
    assert inbound(form_of(FORM, b"MessageSid=SM1&Body=x")) is None
    assert inbound(form_of(FORM, b"MessageSid=SM1&From=%2B1")) == Inbound("SM1", "+1", "", "", None)


def fits_into_xml(character: str) -> bool:
    try:
        ET.fromstring(f"<a>{escape(character)}</a>".encode())
    except (ET.ParseError, UnicodeEncodeError):
        return False
    return True


@given(st.text(st.characters()))
def test_an_answer_says_everything_that_xml_can_say(text: str):
    message = ET.fromstring(twiml(text)).find("Message")
    assert message is not None
    kept = "".join(character for character in text if fits_into_xml(character))
    assert "".join(message.itertext()) == kept.replace("\r\n", "\n").replace("\r", "\n")


def test_no_answer_is_an_empty_response():
    assert len(ET.fromstring(twiml(None))) == 0
