"""The table from FCM's answer to an outcome: what forgets a device, what pauses, what waits."""

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier_channels.contract import (
    Ambiguous,
    BadAddress,
    Misconfigured,
    RateLimited,
    Rejected,
    Unavailable,
)
from notifier_channels.push import errors
from notifier_channels.push.errors import (
    BY_STATUS,
    LONGEST_WAIT,
    TABLE,
    WAIT,
    Answer,
    Rate,
    blames_us,
    lost,
    outcome,
    retry_after,
)
from tests.servers.fcm import error

NOW = datetime(2026, 11, 3, tzinfo=UTC)
BAD_TOKEN = "The registration token is not a valid FCM registration token"
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)


def told(status: int, body: bytes = b"", wait: timedelta | None = None):
    return outcome(Answer(status, body, wait))


@pytest.mark.parametrize(
    ("kind", "code", "status", "body"),
    [
        # Nobody there: these and only these forget the device.
        (BadAddress, "UNREGISTERED", 404, error(404, "NOT_FOUND", "UNREGISTERED", "Requested entity was not found.")),
        (BadAddress, "INVALID_ARGUMENT", 400, error(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", BAD_TOKEN)),
        (
            BadAddress,
            "INVALID_ARGUMENT",
            400,
            error(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", field="message.token", description="Invalid token"),
        ),
        (BadAddress, "INVALID_ARGUMENT", 400, error(400, "INVALID_ARGUMENT", field="message.fid")),
        # The message: a mistake in a template, or a device of another project. The device is kept.
        (Rejected, "INVALID_ARGUMENT", 400, error(400, "INVALID_ARGUMENT", field="message.data[0].value")),
        (
            Rejected,
            "INVALID_ARGUMENT",
            400,
            error(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", BAD_TOKEN, field="message.android.ttl"),
        ),
        (Rejected, "INVALID_ARGUMENT", 400, error(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", "Message is too big")),
        (Rejected, "INVALID_ARGUMENT", 400, error(400, "INVALID_ARGUMENT", message=BAD_TOKEN)),
        (Rejected, "INVALID_ARGUMENT", 400, error(400, "INVALID_ARGUMENT")),
        (Rejected, "SENDER_ID_MISMATCH", 403, error(403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH")),
        (Rejected, "403 BRAND_NEW", 403, error(403, "PERMISSION_DENIED", "BRAND_NEW")),
        (Rejected, "400", 400, b"<html>"),
        (Rejected, "413", 413, b""),
        (Rejected, "418", 418, b""),
        # Ours: the provider is paused, and messages stay queued.
        (Misconfigured, "404 NOT_FOUND", 404, error(404, "NOT_FOUND")),
        (Misconfigured, "404", 404, b"<html>Not Found</html>"),
        (Misconfigured, "401 UNAUTHENTICATED", 401, error(401, "UNAUTHENTICATED")),
        (Misconfigured, "403 PERMISSION_DENIED", 403, error(403, "PERMISSION_DENIED")),
        (Misconfigured, "403", 403, b""),
        (Misconfigured, "301", 301, b""),
        # Not taken: later.
        (Unavailable, "THIRD_PARTY_AUTH_ERROR", 401, error(401, "UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR")),
        (Unavailable, "APNS_AUTH_ERROR", 401, error(401, "UNAUTHENTICATED", "APNS_AUTH_ERROR")),
        (Unavailable, "UNAVAILABLE", 503, error(503, "UNAVAILABLE", "UNAVAILABLE")),
        (Unavailable, "UNAVAILABLE", 503, error(503, "UNAVAILABLE")),
        (Unavailable, "INTERNAL", 500, error(500, "INTERNAL", "INTERNAL")),
        (Unavailable, "INTERNAL", 500, error(500, "INTERNAL")),
        (Unavailable, "408", 408, b""),
        (RateLimited, "QUOTA_EXCEEDED", 429, error(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED")),
        (RateLimited, "429 RESOURCE_EXHAUSTED", 429, error(429, "RESOURCE_EXHAUSTED")),
        (RateLimited, "429 RESOURCE_EXHAUSTED", 429, error(429, "RESOURCE_EXHAUSTED", "BRAND_NEW")),
        (RateLimited, "429", 429, b"slow down"),
        # Nobody knows.
        (Ambiguous, "500", 500, b"<html>"),
        (Ambiguous, "503", 503, b""),
        (Ambiguous, "502", 502, b"<html>"),
        (Ambiguous, "504 DEADLINE_EXCEEDED", 504, error(504, "DEADLINE_EXCEEDED")),
        (Ambiguous, "500 UNAVAILABLE", 500, error(500, "UNAVAILABLE")),
        (Ambiguous, "500", 500, b'{"error": {"status": {"x": 1}}}'),
        (Ambiguous, "200", 200, b"nonsense"),
        (Ambiguous, "204", 204, b""),
    ],
)
def test_each_answer_has_one_meaning(kind, code, status, body):
    said = told(status, body)
    assert type(said) is kind
    assert said.code == code


def test_every_row_of_the_table_is_what_it_says():
    for row in TABLE.values():
        assert type(told(row.status, error(row.status, "X", row.code))) is row.kind
    for status, (kind, _) in BY_STATUS.items():
        assert type(told(status)) is kind


def test_the_page_has_every_row_of_the_table():
    page = (Path(__file__).parents[2] / "docs" / "reference" / "fcm.md").read_text("utf-8")
    rows = [line for line in page.splitlines() if line.startswith("|")]
    for row in TABLE.values():
        assert [line for line in rows if f"`{row.code}`" in line and f"`{row.kind.__name__}`" in line], row.code


def test_a_code_at_another_status_is_not_believed():
    assert isinstance(told(400, error(400, "INVALID_ARGUMENT", "UNREGISTERED")), Rejected)
    assert isinstance(told(500, error(500, "INTERNAL", "UNREGISTERED")), Unavailable)


PROJECT_QUOTA = json.dumps(
    {
        "error": {
            "code": 429,
            "message": "Quota exceeded for quota metric 'Send requests' and limit 'Send requests per minute' of service"
            " 'fcm.googleapis.com' for consumer 'project_number:1'.",
            "status": "RESOURCE_EXHAUSTED",
            "details": [
                {
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": "RATE_LIMIT_EXCEEDED",
                    "domain": "googleapis.com",
                    "metadata": {"quota_limit": "SendsPerMinutePerProject", "consumer": "projects/1"},
                }
            ],
        }
    }
).encode()
DEVICE_QUOTA = error(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", message="Device message rate exceeded.")


@pytest.mark.parametrize(
    ("status", "body", "told_to_wait", "whose", "hold"),
    [
        (429, PROJECT_QUOTA, None, Rate.PROJECT, MINUTE),
        (429, PROJECT_QUOTA, 7, Rate.PROJECT, 7 * SECOND),
        (429, DEVICE_QUOTA, None, Rate.DEVICE, None),
        (429, DEVICE_QUOTA, 3600, Rate.DEVICE, None),
        (429, error(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"), None, Rate.UNSAID, None),
        (429, error(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"), 7, Rate.UNSAID, 7 * SECOND),
        (429, b"no device here", 7, Rate.UNSAID, 7 * SECOND),
        (503, error(503, "UNAVAILABLE"), 7, None, 7 * SECOND),
        (503, error(503, "UNAVAILABLE"), None, None, None),
        (404, DEVICE_QUOTA, 7, None, None),
    ],
)
def test_whose_rate_was_exceeded_decides_who_waits(status, body, told_to_wait, whose, hold):
    answer = Answer(status, body, None if told_to_wait is None else told_to_wait * SECOND)
    assert errors.rate(answer) is whose
    assert errors.hold(answer) == hold


def test_a_rate_waits_as_told_or_a_minute():
    body = error(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED")
    assert told(429, body, timedelta(seconds=7)).retry_after == timedelta(seconds=7)
    assert told(429, body).retry_after == WAIT == MINUTE


@pytest.mark.parametrize(
    ("header", "wait"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("7", timedelta(seconds=7)),
        (" 7 ", timedelta(seconds=7)),
        ("0", timedelta(seconds=1)),
        ("9" * 400, LONGEST_WAIT),
        ("²", None),
        (format_datetime(NOW + MINUTE, usegmt=True), MINUTE),
        (format_datetime(NOW - MINUTE, usegmt=True), timedelta(seconds=1)),
        ("Tue, 03 Nov 2026 00:01:00 -0000", MINUTE),
        ("Tue, 03 Nov 99999 00:01:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_an_instant(header, wait):
    assert retry_after(header, NOW) == wait


@given(st.text(max_size=40))
def test_no_header_is_too_strange(header):
    wait = retry_after(header, NOW)
    assert wait is None or timedelta(seconds=1) <= wait <= LONGEST_WAIT


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (httpx.ConnectError("ann"), Unavailable("connect", "ConnectError", is_away=True)),
        (httpx.ConnectTimeout("ann"), Unavailable("connect", "ConnectTimeout", is_away=True)),
        (httpx.ProxyError("ann"), Unavailable("connect", "ProxyError", is_away=True)),
        (httpx.PoolTimeout("ann"), Unavailable("busy", "every connection was in use")),
        (httpx.ReadTimeout("ann"), Ambiguous("timeout", "ReadTimeout")),
        (httpx.WriteTimeout("ann"), Ambiguous("timeout", "WriteTimeout")),
        (httpx.ReadError("ann"), Ambiguous("closed", "ReadError")),
        (httpx.WriteError("ann"), Ambiguous("closed", "WriteError")),
        (httpx.RemoteProtocolError("ann"), Ambiguous("closed", "RemoteProtocolError")),
        (ValueError("ann"), Ambiguous("closed", "ValueError")),
    ],
)
def test_without_an_answer_only_what_could_not_leave_is_known(error, expected):
    assert lost(error) == expected


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=9,
)
shapes = st.fixed_dictionaries(
    {},
    optional={
        "status": json_values | st.sampled_from(["INTERNAL", "UNAVAILABLE", "NOT_FOUND", "INVALID_ARGUMENT"]),
        "message": json_values | st.just(BAD_TOKEN),
        "details": json_values
        | st.lists(
            st.fixed_dictionaries(
                {"@type": st.sampled_from([json.loads(error(1, "x", "y"))["error"]["details"][0]["@type"], "z"])},
                optional={"errorCode": json_values | st.sampled_from(list(TABLE)), "fieldViolations": json_values},
            ),
            max_size=2,
        ),
    },
)


@given(st.integers(100, 599), st.binary(max_size=30) | shapes.map(lambda shape: json.dumps({"error": shape}).encode()))
def test_whatever_comes_back_means_something_and_forgets_no_device_without_proof(status, body):
    said = told(status, body)
    assert not isinstance(said, BadAddress) or status in (400, 404)
    assert not isinstance(said, BadAddress) or b"UNREGISTERED" in body or b"INVALID_ARGUMENT" in body
    assert status < 500 or isinstance(said, Unavailable | Ambiguous)


@given(secret=st.text("abcdefXYZ0123456789_-", min_size=12, max_size=30).filter(lambda text: text.upper() != text))
def test_no_text_repeats_what_fcm_said(secret):
    for code in (*TABLE, None):
        for status in (400, 401, 403, 404, 429, 500, 502, 503):
            body = error(status, secret, code, f"{BAD_TOKEN}: {secret}", field=f"message.token[{secret}].{secret}")
            said = told(status, body)
            assert secret not in said.code + said.detail


def test_a_person_is_told_which_part_was_not_taken():
    said = told(400, error(400, "INVALID_ARGUMENT", field="message.data[0].value"))
    assert said.detail == "FCM does not take this message: message.data"


def test_only_what_may_be_our_own_fault_is_counted_against_us():
    assert blames_us(told(403, error(403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH")))
    assert blames_us(told(400, b"<html>"))
    assert blames_us(told(403, error(403, "PERMISSION_DENIED", "BRAND_NEW")))
    assert not blames_us(told(400, error(400, "INVALID_ARGUMENT", field="message.data")))
    assert not blames_us(told(404, error(404, "NOT_FOUND", "UNREGISTERED")))
