"""What FCM is told of one message: one lifetime, one tag and one priority on every platform, within its limits."""

import json
import warnings
from datetime import UTC, datetime, timedelta

import pytest
from firebase_admin import messaging
from hypothesis import given
from hypothesis import strategies as st

from notifier.sandbox.fcm_messages import check, size
from notifier_channels.addresses import DeviceKind, EmailAddress
from notifier_channels.contract import PushContent
from notifier_channels.push.payload import LONGEST_LIFE, MOST_BYTES, message_of, payload_bytes, refusal
from tests.servers.discovery import violations
from tests.servers.fcm import CONTENT, push

NOW = datetime(2026, 11, 3, 12, 0, 0, 500_000, tzinfo=UTC)
HOUR = timedelta(hours=1)


def told(content: PushContent = CONTENT, lives: timedelta = HOUR, **fields) -> dict:
    """As the SDK writes it."""
    outgoing = push(content=content, expires_at=NOW + lives, **fields)
    message = json.loads(str(message_of(outgoing, NOW)))
    assert not violations({"message": message}, "SendMessageRequest")
    assert check({"message": message})[1] == []
    return message | {"id": outgoing.id.hex}


def test_a_message_says_the_same_on_every_platform():
    message = told()
    id_ = message.pop("id")
    assert message == {
        "fid": "ann" + "0" * 19,
        "notification": {"title": "Hello", "body": "A body"},
        "data": {"order": "1", "link": "https://shop.example.com/orders/1"},
        "android": {"priority": "normal", "ttl": "3600s", "notification": {"tag": id_}},
        "apns": {
            "headers": {
                "apns-push-type": "alert",
                "apns-priority": "5",
                "apns-expiration": str(int(NOW.timestamp()) + 3600),
                "apns-collapse-id": id_,
            }
        },
        "webpush": {
            "headers": {"TTL": "3600", "Urgency": "normal", "Topic": id_},
            "notification": {"tag": id_},
            "fcm_options": {"link": "https://shop.example.com/orders/1"},
        },
    }


def test_urgent_wakes_the_device_on_every_platform():
    message = told(PushContent("t", "b", is_urgent=True))
    assert message["android"]["priority"] == "high"
    assert message["apns"]["headers"]["apns-priority"] == "10"
    assert message["webpush"]["headers"]["Urgency"] == "high"


@pytest.mark.parametrize(
    ("lives", "seconds"),
    [
        (timedelta(days=365), 2_419_200),
        (LONGEST_LIFE, 2_419_200),
        (timedelta(seconds=59, milliseconds=900), 59),
        (timedelta(0), 0),
        (timedelta(days=-1), 0),
    ],
)
def test_one_lifetime_stands_in_three_places(lives, seconds):
    message = told(lives=lives)
    assert message["android"]["ttl"] == f"{seconds}s"
    assert message["webpush"]["headers"]["TTL"] == str(seconds)
    assert message["apns"]["headers"]["apns-expiration"] == str(int(NOW.timestamp()) + seconds)


def test_a_link_into_the_app_is_data_only():
    message = told(PushContent("t", "b", link="shop://orders/1"))
    assert message["data"] == {"link": "shop://orders/1"}
    assert "fcm_options" not in message["webpush"]


def test_an_image_stands_where_each_platform_looks():
    message = told(PushContent("t", "b", image="https://shop.example.com/1.png"))
    assert message["notification"]["image"] == "https://shop.example.com/1.png"
    assert message["apns"]["payload"] == {"aps": {"alert": {"title": "t", "body": "b"}, "mutable-content": 1}}


def test_no_collapse_key_which_a_device_has_only_four_of():
    assert "collapse_key" not in told()["android"]


def test_each_kind_of_device_stands_in_its_own_field_and_nothing_is_warned_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        message = told(kind=DeviceKind.TOKEN)
    assert "fid" not in message
    assert message["token"].startswith("ann")
    with pytest.warns(DeprecationWarning, match="token is deprecated"):  # the SDK still does: else the detour is vain
        messaging.Message(token="t")


def test_only_a_device_can_be_pushed_to():
    with pytest.raises(TypeError):
        message_of(push()._replace(to=EmailAddress("ann", "example.com")), NOW)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (PushContent("t", "b"), None),
        (PushContent("t", "b", data={"from_whom": "x", "google": "x", "gcm": "x"}), None),
        (PushContent("t", "b", data={"from": "x"}), "reserved_data_key"),
        (PushContent("t", "b", data={"message_type": "x"}), "reserved_data_key"),
        (PushContent("t", "b", data={"google.x": "x"}), "reserved_data_key"),
        (PushContent("t", "b", data={"gcm.notification.x": "x"}), "reserved_data_key"),
        (PushContent("t", "b", data={"link": "x"}), None),
        (PushContent("t", "b", data={"link": "x"}, link="https://a.example"), "reserved_data_key"),
        (PushContent("t", "b", data={"n": 1}), "not_text"),
        (PushContent("t", "b", data={1: "n"}), "not_text"),
        (PushContent(None, "b"), "not_text"),
        (PushContent("t", "b", image=b"x"), "not_text"),
        (PushContent("t", "\ud800"), "not_unicode"),
        (PushContent("t", "b", data={"\udfff": "x"}), "not_unicode"),
        (PushContent("t", "ä" * 2048), "payload_too_large"),
        (PushContent("t", "b", data={"x": "y" * 4096}), "payload_too_large"),
    ],
)
def test_what_fcm_would_not_take_is_refused_before(content, code):
    refused = refusal(content)
    assert (refused and refused.code) == code


def test_the_last_byte_that_fits():
    room = MOST_BYTES - payload_bytes(PushContent("t", ""))
    assert refusal(PushContent("t", "x" * room)) is None
    told(PushContent("t", "x" * room))
    assert refusal(PushContent("t", "x" * (room + 1))).code == "payload_too_large"
    message = json.loads(str(message_of(push(content=PushContent("t", "x" * (room + 1))), NOW)))
    assert [one.description for one in check({"message": message})[1]] == ["Message is too big."]


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
links = st.none() | st.sampled_from(["https://a.example/ä", "shop://x", ""])


@given(
    st.builds(
        PushContent, texts, texts, links, links, st.dictionaries(texts, texts, max_size=4), is_urgent=st.booleans()
    )
)
def test_whatever_is_not_refused_fcm_can_read(content):
    if refusal(content) is None:
        message = told(content)
        message.pop("id")
        assert payload_bytes(content) >= size(check({"message": message})[0])
        assert message.get("data", {}).get("link") == (
            content.data.get("link") if content.link is None else content.link
        )
