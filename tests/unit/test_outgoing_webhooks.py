"""Webhooks are signed as the specification says, go to public addresses only, and come again later and later."""

import ipaddress
import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.client import Forged, verify_webhook
from notifier.client.webhooks import prove
from notifier.domain.events import EventType, Position, chosen
from notifier.domain.webhooks import (
    LONGEST_PAUSE,
    LONGEST_WAIT,
    Signer,
    may_be_reached,
    pause,
    signed,
    wait,
    what_is_wrong,
)

# The vector that the libraries of Standard Webhooks test themselves with.
VECTOR = {
    "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "at": 1614265330,
    "body": b'{"test": 2432232314}',
    "signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}
ENDPOINT = UUID(int=7)
BODY = json.dumps(
    {"id": "evt_1_2", "type": "message.failed", "timestamp": "2026-11-23T10:00:00Z", "sequence": 2, "data": {}}
).encode()
NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
SECRET = Signer({"k": b"k" * 32}).secret(ENDPOINT, "k")


# Signature ------------------------------------------------------------------------------------------------------------


def test_a_signature_is_that_of_the_specification():
    headers = signed(VECTOR["secret"], VECTOR["id"], datetime.fromtimestamp(VECTOR["at"], UTC), VECTOR["body"])
    assert headers == {
        "webhook-id": VECTOR["id"],
        "webhook-timestamp": str(VECTOR["at"]),
        "webhook-signature": VECTOR["signature"],
    }
    prove(VECTOR["secret"], headers, VECTOR["body"], VECTOR["at"])


def test_what_is_signed_is_verified():
    headers = signed(SECRET, "evt_1_2", NOW, BODY)
    event = verify_webhook(SECRET, {name.title(): text for name, text in headers.items()}, BODY, now=NOW.timestamp())
    assert (event.id, event.type, event.sequence) == ("evt_1_2", "message.failed", 2)


def test_one_good_signature_among_others_is_enough():
    headers = signed(SECRET, "evt_1_2", NOW, BODY)
    headers["webhook-signature"] = f"v1a,abc v1,AAAA {headers['webhook-signature']}"
    verify_webhook(SECRET, headers, BODY, now=NOW.timestamp())


@pytest.mark.parametrize(
    "change",
    [
        {"webhook-id": "evt_1_3"},
        {"webhook-timestamp": str(int(NOW.timestamp()) + 1)},
        {"webhook-timestamp": "0"},
        {"webhook-timestamp": "9" * 5000},
        {"webhook-timestamp": "-1"},
        {"webhook-timestamp": ""},
        {"webhook-signature": ""},
        {"webhook-signature": "v2,AAAA"},
        {"webhook-signature": "v1,\u00e4"},
        {"body": BODY + b" "},
        {"secret": Signer({"k": b"k" * 32}).secret(UUID(int=8), "k")},
        {"secret": Signer({"k": b"l" * 32}).secret(ENDPOINT, "k")},
        {"now": NOW.timestamp() + 301},
        {"now": NOW.timestamp() - 301},
    ],
)
def test_whatever_is_changed_is_forged(change):
    headers = signed(SECRET, "evt_1_2", NOW, BODY)
    headers |= {name: text for name, text in change.items() if name.startswith("webhook")}
    body = change.get("body", BODY)
    with pytest.raises(Forged):
        verify_webhook(change.get("secret", SECRET), headers, body, now=change.get("now", NOW.timestamp()))


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_AAAA", "whsec_\u00e4", "nonsense!"])
def test_a_secret_that_is_none_is_a_mistake_and_proves_nothing(secret):
    with pytest.raises(ValueError, match="not the secret"):
        verify_webhook(secret, signed("whsec_", "evt_1_2", NOW, BODY), BODY, now=NOW.timestamp())


def test_the_secret_of_a_key_that_is_gone_cannot_be_made():
    assert Signer({"new": b"n" * 32}).secret(ENDPOINT, "old") is None
    assert Signer({"new": b"n" * 32, "old": b"o" * 32}).newest == "new"


# Where to -------------------------------------------------------------------------------------------------------------

PUBLIC = ["93.184.216.34", "2606:4700::6810:84e5", "::ffff:93.184.216.34", "64:ff9b::5db8:d822", "2002:5db8:d822::1"]
OWN = ["127.0.0.1", "127.255.255.254", "::1", "::ffff:127.0.0.1", "2002:7f00:1::1", "64:ff9b::7f00:1"]
INSIDE = [
    "0.0.0.0", "10.0.0.1", "100.64.0.1", "169.254.169.254", "172.16.0.1", "192.0.0.8", "192.168.1.1", "198.18.0.1",
    "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "192.0.2.1",
    "::", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::10.0.0.1", "fc00::1", "fd00:ec2::254", "fe80::1",
    "fe80::1%eth0", "ff02::1", "2001:db8::1", "64:ff9b::a00:1", "64:ff9b::a9fe:a9fe", "2002:a00:1::",
    "2001:0:53aa:64c::1", "3fff::1", "64:ff9b:1::1", "5f00::1", "fec0::1", "192.88.99.1", "not an address", "",
]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_reached(address):
    assert may_be_reached(address, is_production=True)


@pytest.mark.parametrize("address", OWN)
def test_this_machine_is_reached_in_development_only(address):
    assert may_be_reached(address, is_production=False)
    assert not may_be_reached(address, is_production=True)


@pytest.mark.parametrize("address", INSIDE)
def test_an_inner_address_is_never_reached(address):
    assert not may_be_reached(address, is_production=True)
    assert not may_be_reached(address, is_production=False)


@given(st.ip_addresses(v=4))
def test_an_address_in_disguise_is_judged_as_what_it_is(ip):
    bare = may_be_reached(str(ip), is_production=True)
    for wrapped in (f"::ffff:{ip}", str(ipaddress.IPv6Address(int(ipaddress.IPv6Address("64:ff9b::")) + int(ip)))):
        assert may_be_reached(wrapped, is_production=True) == bare


@pytest.mark.parametrize(
    ("url", "development", "production"),
    [
        ("https://example.com/hooks?a=b", True, True),
        ("https://example.com:8443/", True, True),
        ("https://[2606:4700::1]/", True, True),
        ("http://127.0.0.1:9000/hook", True, False),
        ("ftp://example.com/", False, False),
        ("file:///etc/passwd", False, False),
        ("//example.com/", False, False),
        ("https://user:pass@example.com/", False, False),
        ("https://user@example.com/", False, False),
        ("https://example.com/#part", False, False),
        ("https://example.com:99999/", False, False),
        ("https://example.com:x/", False, False),
        ("https:///path", False, False),
        ("https://exa mple.com/", False, False),
        ("https://example.com/\n", False, False),
        ("https://ex\u00e4mple.com/", False, False),
        ("https://[::1/", False, False),
        ("https://0177.0.0.1/", False, False),
        ("https://2130706433/", False, False),
        ("https://127.1/", False, False),
        ("https://example.com/" + "a" * 2000, False, False),
        (f"https://{'a' * 63}.example/", True, True),
        (f"https://{'a' * 64}.example/", False, False),
        ("https://example.com./", True, True),
        ("https://example.com../", False, False),
        ("https://a..b.example/", False, False),
        ("https://.example.com/", False, False),
        ("https://./", False, False),
        ("", False, False),
    ],
)
def test_a_url_is_an_endpoint_or_it_is_said_why_not(url, development, production):
    assert (what_is_wrong(url, is_production=False) is None) == development
    assert (what_is_wrong(url, is_production=True) is None) == production


# When -----------------------------------------------------------------------------------------------------------------


@given(st.integers(1, 10**6), st.floats(0, 1))
def test_waits_grow_up_to_six_hours_and_a_quarter(tries, chance):
    assert timedelta(seconds=3.75) <= wait(tries, chance) <= LONGEST_WAIT * 1.25
    assert wait(tries, chance) <= wait(tries + 1, chance)
    assert timedelta(0) < pause(tries, chance) <= LONGEST_PAUSE * 1.25


def test_a_webhook_is_tried_about_twenty_times_in_three_days():
    sum_, tries = timedelta(0), 0
    while sum_ <= timedelta(days=3):
        tries += 1
        sum_ += wait(tries, 0.5)
    assert 15 <= tries <= 25


# Which ----------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**63 - 1))
def test_a_position_is_read_as_it_was_written(xid, number):
    assert Position.parse(str(Position(xid, number))) == Position(xid, number)


@given(st.text() | st.from_regex(r"evt_[0-9]{1,25}_[0-9]{1,25}"))
def test_what_is_no_position_is_none_and_never_too_large(text):
    place = Position.parse(text)
    assert place is None or (place.xid < 2**64 and place.number < 2**63)


@pytest.mark.parametrize("text", ["", "evt_1", "1_2", "evt_1_2_3", "evt_-1_2", "evt_1_2\n", f"evt_{2**64}_1"])
def test_a_position_has_one_form(text):
    assert Position.parse(text) is None


def test_names_choose_types():
    assert chosen([]) == (frozenset(EventType), [])
    assert chosen(["preference.updated"]) == ({EventType.PREFERENCE_UPDATED}, [])
    messages, unknown = chosen(["message.*", "nonsense", "mess*", "other.*"])
    assert messages == {one for one in EventType if one.startswith("message.")}
    assert unknown == ["nonsense", "mess*", "other.*"]
