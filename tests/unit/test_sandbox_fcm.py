"""The stand-in for FCM: it knows the fields that Google names, and refuses what FCM refuses, in Google's words."""

from pathlib import Path

import pytest

from notifier.sandbox import fcm_messages
from notifier.sandbox.fcm import SIMULATORS, find
from notifier.sandbox.fcm_messages import MESSAGE, REQUEST, check
from notifier_channels.addresses import Device, DeviceKind
from notifier_channels.push.errors import TABLE
from tests.servers.discovery import DOCUMENT

FID = "f" * 22
GOOD = {"fid": FID, "notification": {"title": "t"}}
KINDS = {
    fcm_messages.FLAG: {"type": "boolean"},
    fcm_messages.TEXT: {"type": "string"},
    fcm_messages.DURATION: {"type": "string", "format": "google-duration"},
    fcm_messages.INSTANT: {"type": "string", "format": "google-datetime"},
}


def compare(form, schema: dict, path: str = "") -> None:
    schema = DOCUMENT["schemas"][schema["$ref"]] if "$ref" in schema else schema
    if isinstance(form, frozenset):
        assert form == set(schema["enum"]), path
    elif not isinstance(form, str):
        assert form.keys() == schema.get("properties", {}).keys(), path
        for name, inner in form.items():
            compare(inner, schema["properties"][name], f"{path}.{name}")
    elif form == fcm_messages.NUMBER:
        assert schema["type"] in ("number", "integer"), path
    elif form in (fcm_messages.TEXTS, fcm_messages.DURATIONS):
        compare(form.removesuffix("s"), schema["items"], path)
    elif form in (fcm_messages.MAP, fcm_messages.ANYTHING):
        inner = {fcm_messages.MAP: "string", fcm_messages.ANYTHING: "any"}[form]
        assert schema["additionalProperties"]["type"] == inner, path
    else:
        known = {key: schema[key] for key in ("type", "format") if key in schema}
        assert known == KINDS[form], path
        assert "enum" not in schema, path


def test_it_knows_the_fields_that_google_s_document_names():
    compare(REQUEST, DOCUMENT["schemas"]["SendMessageRequest"])
    assert REQUEST["message"] is MESSAGE


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ([], ""),
        ({}, "message"),
        ({"message": "x"}, "message"),
        ({"message": GOOD, "dry_run": True}, ""),
        ({"message": GOOD, "validate_only": "yes"}, "validate_only"),
        ({"message": {}}, "message"),
        ({"message": {"notification": {"title": "t"}}}, "message"),
        ({"message": GOOD | {"token": "t" * 40}}, "message"),
        ({"message": GOOD | {"topic": "news"}}, "message"),
        ({"message": {"fid": "short"}}, "message.fid"),
        ({"message": {"token": "no token"}}, "message.token"),
        ({"message": {"topic": "a b"}}, "message.topic"),
        ({"message": GOOD | {"colour": "red"}}, "message"),
        ({"message": GOOD | {"data": {"n": 1}}}, "message.data"),
        ({"message": GOOD | {"data": {"from": "x"}}}, "message.data"),
        ({"message": GOOD | {"data": {"google.c": "x"}}}, "message.data"),
        ({"message": GOOD | {"android": {"data": {"gcm.notification.x": "x"}}}}, "message.data"),
        ({"message": GOOD | {"android": {"ttl": 5}}}, "message.android.ttl"),
        ({"message": GOOD | {"android": {"ttl": "5"}}}, "message.android.ttl"),
        ({"message": GOOD | {"android": {"ttl": "2419201s"}}}, "message.android.ttl"),
        ({"message": GOOD | {"android": {"priority": "urgent"}}}, "message.android.priority"),
        ({"message": GOOD | {"android": {}, "android_v2": {}}}, "message"),
        ({"message": GOOD | {"apns": {"headers": {"apns-priority": "7"}}}}, "message.apns.headers"),
        ({"message": GOOD | {"apns": {"headers": {"apns-expiration": "soon"}}}}, "message.apns.headers"),
        ({"message": GOOD | {"apns": {"headers": {"apns-collapse-id": "x" * 65}}}}, "message.apns.headers"),
        ({"message": GOOD | {"webpush": {"headers": {"Topic": "x" * 33}}}}, "message.webpush.headers"),
        ({"message": GOOD | {"webpush": {"headers": {"TTL": "1h"}}}}, "message.webpush.headers"),
        ({"message": GOOD | {"webpush": {"headers": {"Urgency": "now"}}}}, "message.webpush.headers"),
        ({"message": GOOD | {"webpush": {"fcm_options": {"link": "shop://x"}}}}, "message.webpush.fcm_options.link"),
        ({"message": GOOD | {"data": {"x": "y" * 4096}}}, "message"),
        ({"message": GOOD | {"android_v2": {"background_sync": {"x": 1}}}}, "message.android_v2.background_sync"),
    ],
)  # fmt: skip
def test_it_refuses_what_fcm_refuses_and_names_the_field(request_, field):
    _, wrong = check(request_)
    assert [one.field for one in wrong] == [field]


def test_both_spellings_of_a_name_are_one():
    for name in ("fcm_options", "fcmOptions"):
        message, wrong = check({"message": GOOD | {name: {"analytics_label": "x"}}})
        assert not wrong
        assert message["fcmOptions"] == {"analyticsLabel": "x"}


def test_every_simulated_device_has_an_id_of_each_kind_and_a_row_in_our_table():
    for simulator in SIMULATORS:
        row = TABLE[simulator.code]
        assert row.status == simulator.status
        for kind, length in ((DeviceKind.FID, 22), (DeviceKind.TOKEN, 32)):
            device = Device.parse(kind, f"{simulator.name}-".ljust(length, "0"))
            assert find(str(device)) is simulator
    assert find(f"fid:{FID}") is None


def test_the_page_lists_the_simulated_devices():
    page = (Path(__file__).parents[2] / "docs" / "reference" / "sandbox.md").read_text("utf-8")
    for one in SIMULATORS:
        assert f"| `{one.name}-` | {one.does} | {one.then} |" in page
