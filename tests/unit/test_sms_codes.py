"""The table from Twilio's codes to outcomes: what suppresses, what pauses, what waits, what is doubt."""

import re
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.sandbox.numbers import NUMBERS
from notifier_channels.contract import (
    Alarm,
    Ambiguous,
    BadAddress,
    Misconfigured,
    OptedOut,
    RateLimited,
    Receipt,
    Rejected,
    Unavailable,
)
from notifier_channels.sms.codes import (
    AGAIN,
    ALARMS,
    CREATE,
    DEAD,
    LONGEST_WAIT,
    UNREACHABLE,
    again,
    alarm,
    is_dead,
    may_be_ours,
    opted_out,
    outcome,
    strike,
)

MINUTE, HALF_AN_HOUR = timedelta(minutes=1), timedelta(minutes=30)
DOCS = Path(__file__).parents[2] / "docs/reference"


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        # Nobody there: these and only these suppress.
        *((BadAddress, 400, code) for code in (21211, 21214, 21265, 21614, 21635)),
        (OptedOut, 400, 21610),
        # Ours: the sender pauses.
        *((Misconfigured, 401, code) for code in (20003, None, 20101)),
        *((Misconfigured, 403, code) for code in (20005, 20403, None)),
        *((Misconfigured, 404, code) for code in (20404, None)),
        *((Misconfigured, 400, code) for code in (21212, 21603, 21609, 21660, 21701, 21704, 30002, 30034)),
        (Misconfigured, 407, None),
        # This message only: one country, one route, one text.
        *((Rejected, 400, code) for code in (21408, 21612, 21617, 21619, 90007)),
        # This message, or all: `sending.Blame` tells.
        *((Rejected, 400, code) for code in (21606, 21608, 21659, 21661, 21703)),
        (Rejected, 403, 21408),
        (Rejected, 400, 21999),  # Twilio will add some
        (Rejected, 400, None),
        (Rejected, 413, None),
        # Slower.
        *((RateLimited, 429, code) for code in (20429, None, 63038, 21999)),
        *((RateLimited, 400, code) for code in (21611, 30001, 30022, 30023)),
        # It may have been taken.
        *((Ambiguous, status, None) for status in (500, 502, 503, 504, 599, 408, 302, 304, 100)),
        (Ambiguous, 500, 20500),
        (Ambiguous, 503, 21211),
    ],
)
def test_what_each_refusal_means(kind: type, status: int, code: int | None):
    assert type(outcome(status, code)) is kind


@given(st.integers(100, 599), st.one_of(st.none(), st.integers(0, 99_999)), st.one_of(st.none(), st.text()))
def test_every_answer_has_an_outcome_and_only_known_codes_touch_an_address(status: int, code, retry_after):
    told = outcome(status, code, retry_after)
    assert not isinstance(told, Receipt | Unavailable)
    if isinstance(told, BadAddress | OptedOut):
        assert code in CREATE
        assert 400 <= status < 500
    if status >= 500:
        assert isinstance(told, Ambiguous | RateLimited)
    assert told.code in {str(code), f"http {status}"}


@pytest.mark.parametrize(
    ("header", "wait"),
    [
        (None, timedelta(seconds=1)),
        ("3", timedelta(seconds=3)),
        (" 3 ", timedelta(seconds=3)),
        ("0", timedelta(seconds=1)),
        ("-5", timedelta(seconds=1)),
        ("1.5", timedelta(seconds=1)),
        ("Wed, 21 Oct 2026 07:28:00 GMT", timedelta(seconds=1)),
        ("9" * 400, LONGEST_WAIT),
        ("³", timedelta(seconds=1)),
    ],
)
def test_the_wait_is_what_twilio_says_within_reason(header: str | None, wait: timedelta):
    told = outcome(429, 20429, header)
    assert isinstance(told, RateLimited)
    assert told.retry_after == wait


def test_only_refusals_that_may_concern_the_sender_are_suspicious():
    assert [code for code in range(20_000, 31_000) if may_be_ours(outcome(400, code))] == [
        21606,
        21608,
        21659,
        21661,
        21703,
    ]
    assert not may_be_ours(Misconfigured("21606"))


def test_a_full_queue_waits_longer_than_a_burst():
    full, burst = outcome(400, 21611), outcome(429, 20429)
    assert isinstance(full, RateLimited)
    assert isinstance(burst, RateLimited)
    assert full.retry_after > burst.retry_after


def test_reports_kill_a_number_only_when_it_can_never_read_a_text():
    assert all(is_dead(code) for code in (30005, 30006, *DEAD))
    assert not any(is_dead(code) for code in (None, 0, 30003, 30004, 30007, 30008, 30036, 21610, 21408))


def test_reports_that_speak_of_the_sender_or_prove_nothing_hold_nothing_against_a_number_at_once():
    assert {code for code in range(20_000, 64_000) if strike(code)} == {30003, 30004}
    alarms = {code: alarm(code) for code in range(20_000, 64_000) if alarm(code)}
    assert alarms == {
        **dict.fromkeys((30002, 30032, 30034), Alarm.REFUSED),
        30007: Alarm.FILTERED,
        **dict.fromkeys((30022, 30023), Alarm.TOO_FAST),
    }
    assert not DEAD & {30003, 30004, *alarms}
    assert strike(None) is alarm(None) is None


def test_only_what_may_pass_is_tried_again_and_not_for_ever():
    assert {code for code in range(20_000, 64_000) if again(code)} == set(AGAIN)
    assert again(None) is None
    assert not AGAIN.keys() & {*DEAD, *ALARMS, 21610, 30004}
    assert (AGAIN[30003].after, AGAIN[30003].after * 2, AGAIN[30003].most) == (HALF_AN_HOUR, timedelta(hours=1), 2)
    assert AGAIN[30008].most == 1
    assert all(0 < one.most <= 2 for one in AGAIN.values())


def test_the_page_lists_what_is_tried_again():
    page = (DOCS / "twilio.md").read_text()
    rows = re.findall(r"^\| `(\d{5})` \| .+ \| (\d+) \| ([\d, ]+) minutes later \|$", page, re.MULTILINE)
    waits = {code: [one.after * 2**times // MINUTE for times in range(one.most)] for code, one in AGAIN.items()}
    assert [(int(code), int(most), [int(wait) for wait in shown.split(", ")]) for code, most, shown in rows] == [
        (code, AGAIN[code].most, waits[code]) for code in AGAIN
    ]


def test_the_page_lists_what_reports_lead_to():
    page = (DOCS / "twilio.md").read_text()
    section = page.partition("## What a report means")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ((?:`\d{5}`(?:, )?)+) \| (\w[\w ]*)", section, re.MULTILINE)
    shown = {int(code): what for codes, what in rows for code in re.findall(r"\d{5}", codes)}
    expected = dict.fromkeys(DEAD, "suppressed") | dict.fromkeys(UNREACHABLE, "counted") | {21610: "an opt"}
    words = {Alarm.REFUSED: "paused", Alarm.FILTERED: "told", Alarm.TOO_FAST: "told"}
    assert shown == {**expected, **{code: words[one] for code, one in ALARMS.items()}}


def test_only_a_stop_is_an_opt_out():
    assert [code for code in range(20_000, 31_000) if opted_out(code)] == [21610]


def test_the_page_lists_the_whole_table():
    page = (DOCS / "twilio.md").read_text()
    rows = re.findall(r"^\| `(\d{5})` \| (.+) \| `(\w+)`(?: for (\d+) s)? \|$", page, re.MULTILINE)
    expected = []
    for code, (verdict, detail) in CREATE.items():
        told = verdict(str(code), detail)
        wait = str(int(told.retry_after.total_seconds())) if isinstance(told, RateLimited) else ""
        expected.append((str(code), detail, type(told).__name__, wait))
    assert rows == expected


def test_the_page_lists_every_magic_number():
    page = (DOCS / "sandbox.md").read_text()
    rows = re.findall(r"^\| `(\+\d+)` \| (.+) \| (.+) \|$", page, re.MULTILINE)
    assert rows == [(number.e164, number.does, number.then) for number in NUMBERS]
