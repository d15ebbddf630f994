"""What the stand-in for FCM takes as a message: as strict as FCM, with Google's own words for what it refuses.

The fields are those of Google's discovery document `fcm` v1, revision 20261023; a test holds the two together. Like
every API of Google's it takes each name in both spellings, `fcm_options` and `fcmOptions`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

MOST_BYTES = 4096
LONGEST_TTL = 2_419_200  #: seconds: four weeks
TARGETS = ("fid", "token", "topic", "condition")
TEXT, FLAG, NUMBER, TEXTS, DURATION, DURATIONS, MAP, ANYTHING, INSTANT = (
    "text", "flag", "number", "texts", "duration", "durations", "map", "anything", "instant"
)  # fmt: skip

Form: TypeAlias = "str | frozenset[str] | Mapping[str, Form]"

_COLOR: Form = {"red": NUMBER, "green": NUMBER, "blue": NUMBER, "alpha": NUMBER}
_LIGHT: Form = {"color": _COLOR, "lightOnDuration": DURATION, "lightOffDuration": DURATION}
_LABEL: dict[str, Form] = {"analyticsLabel": TEXT}
_PRIORITIES = frozenset(f"PRIORITY_{name}" for name in ("UNSPECIFIED", "MIN", "LOW", "DEFAULT", "HIGH", "MAX"))
_ON_ANDROID_V2: dict[str, Form] = {
    **dict.fromkeys(("title", "body", "icon", "color", "sound", "image", "channelId", "ticker", "tag"), TEXT),
    **dict.fromkeys(("bodyLocKey", "titleLocKey", "clickAction"), TEXT),
    **dict.fromkeys(("bodyLocArgs", "titleLocArgs"), TEXTS),
    **dict.fromkeys(("sticky", "localOnly", "defaultSound", "defaultVibrateTimings", "defaultLightSettings"), FLAG),
    "eventTime": INSTANT,
    "notificationPriority": _PRIORITIES,
    "vibrateTimings": DURATIONS,
    "visibility": frozenset({"VISIBILITY_UNSPECIFIED", "PRIVATE", "PUBLIC", "SECRET"}),
    "notificationCount": NUMBER,
    "lightSettings": _LIGHT,
}
_ON_ANDROID: Mapping[str, Form] = {
    **_ON_ANDROID_V2,
    "bypassProxyNotification": FLAG,
    "proxy": frozenset({"PROXY_UNSPECIFIED", "ALLOW", "DENY", "IF_PRIORITY_LOWERED"}),
}
_ANDROID_BOTH: Mapping[str, Form] = {
    **dict.fromkeys(("collapseKey", "restrictedPackageName"), TEXT),
    **dict.fromkeys(("directBootOk", "bandwidthConstrainedOk", "restrictedSatelliteOk"), FLAG),
    "ttl": DURATION,
    "data": MAP,
    "fcmOptions": _LABEL,
}
MESSAGE: Final[Mapping[str, Form]] = {
    **dict.fromkeys(("name", *TARGETS), TEXT),
    "data": MAP,
    "notification": dict.fromkeys(("title", "body", "image"), TEXT),
    "android": {**_ANDROID_BOTH, "priority": frozenset({"NORMAL", "HIGH"}), "notification": _ON_ANDROID},
    "androidV2": {
        **_ANDROID_BOTH,
        "backgroundSync": {},
        "remoteNotification": {
            "mutableContent": FLAG,
            "useAsV1DataMessage": FLAG,
            "notification": {**_ON_ANDROID_V2, "id": NUMBER},
        },
    },
    "webpush": {"headers": MAP, "data": MAP, "notification": ANYTHING, "fcmOptions": {**_LABEL, "link": TEXT}},
    "apns": {
        "headers": MAP,
        "payload": ANYTHING,
        "liveActivityToken": TEXT,
        "fcmOptions": {**_LABEL, "image": TEXT},
    },
    "fcmOptions": _LABEL,
}
REQUEST: Final[Mapping[str, Form]] = {"message": MESSAGE, "validateOnly": FLAG}

_DURATION = re.compile(r"(\d{1,12})(?:\.\d{1,9})?s")
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)")
_TOPIC = re.compile(r"[a-zA-Z0-9-_.~%]+")
_WEB_TOPIC = re.compile(r"[A-Za-z0-9_-]{1,32}")
_DEVICES = {"fid": re.compile(r"[A-Za-z0-9_-]{22}"), "token": re.compile(r"[A-Za-z0-9_:-]{32,4096}")}
_RESERVED = ("from", "message_type")


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that is wrong: where, and what in Google's words. `is_parser`: FCM itself never sees such a message."""

    field: str
    description: str
    is_parser: bool = False


def check(request: object) -> tuple[dict[str, Any], list[Violation]]:
    """The message of a request, all names in lower camel case, and what is wrong with it."""
    normal = _normal(request, REQUEST, "")
    wrong = list(normal.wrong)
    message = normal.value.get("message") if isinstance(normal.value, dict) else None
    if wrong or not isinstance(message, dict):
        return {}, wrong or [Violation("message", "Message is not set.")]
    return message, list(_rules(message))


@dataclass(frozen=True, slots=True)
class _Normal:
    value: Any
    wrong: tuple[Violation, ...] = ()


def _normal(value: object, form: Form, path: str) -> _Normal:
    """Hold a value to its form, as Google's JSON parser does."""
    if isinstance(form, Mapping):
        return _object(value, form, path)
    if _fits(value, form):
        return _Normal(value)
    shown = json.dumps(value)[:40]
    return _Normal(None, (Violation(path, f"Invalid value at '{path}', {shown}", is_parser=True),))


def _object(value: object, form: Mapping[str, Form], path: str) -> _Normal:
    if not isinstance(value, dict):
        return _Normal(None, (Violation(path, f"Invalid value at '{path}'", is_parser=True),))
    found: dict[str, Any] = {}
    wrong: list[Violation] = []
    for name, inner in value.items():
        key = _camel(name)
        if key not in form:
            at = f" at '{path}'" if path else ""
            text = f'Invalid JSON payload received. Unknown name "{name}"{at}: Cannot find field.'
            wrong.append(Violation(path, text, is_parser=True))
            continue
        normal = _normal(inner, form[key], f"{path}.{_snake(key)}".lstrip("."))
        found[key] = normal.value
        wrong += normal.wrong
    return _Normal(found, tuple(wrong))


def _fits(value: object, form: str | frozenset[str]) -> bool:
    match form:
        case frozenset():
            return isinstance(value, str) and value.upper() in form
        case "text" | "duration" | "instant":
            return isinstance(value, str) and _has_shape(value, form)
        case "flag":
            return isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "texts" | "durations":
            return isinstance(value, list) and all(_fits(one, form.removesuffix("s")) for one in value)
        case "map":
            return isinstance(value, dict) and all(isinstance(one, str) for one in value.values())
        case _:
            return isinstance(value, dict)


def _has_shape(value: str, form: str) -> bool:
    shape = {"duration": _DURATION, "instant": _INSTANT}.get(form)
    return shape is None or shape.fullmatch(value) is not None


def _rules(message: Mapping[str, Any]) -> Iterator[Violation]:
    """What FCM itself demands of a message that could be read."""
    yield from _target(message)
    if "android" in message and "androidV2" in message:
        yield Violation("message", "Only one of android and android_v2 may be set.")
    for where in (message, *(message.get(name, {}) for name in ("android", "androidV2", "webpush"))):
        for key in where.get("data", {}):
            if key in _RESERVED or key.startswith(("google.", "gcm.")):
                yield Violation("message.data", f"Invalid data payload key: {key}")
    yield from _lifetimes(message)
    yield from _web(message.get("webpush", {}))
    if size(message) > MOST_BYTES:
        yield Violation("message", "Message is too big.")


def _target(message: Mapping[str, Any]) -> Iterator[Violation]:
    targets = [name for name in TARGETS if message.get(name)]
    if not targets:
        yield Violation("message", "Recipient of the message is not set.")
    if len(targets) > 1:
        yield Violation("message", "Exactly one of fid, token, topic or condition must be set.")
    for name, shape in _DEVICES.items():
        if message.get(name) and not shape.fullmatch(message[name]):
            yield Violation(f"message.{name}", "The registration token is not a valid FCM registration token")
    if (topic := message.get("topic")) and not _TOPIC.fullmatch(topic):
        yield Violation("message.topic", "Invalid topic name.")


def _lifetimes(message: Mapping[str, Any]) -> Iterator[Violation]:
    for name in ("android", "androidV2"):
        found = _DURATION.fullmatch(message.get(name, {}).get("ttl", "0s"))
        if found is None or int(found.group(1)) > LONGEST_TTL:
            yield Violation(f"message.{_snake(name)}.ttl", "Invalid ttl: it must be from 0 to 2,419,200 seconds.")
    headers = message.get("apns", {}).get("headers", {})
    for header, allowed in (("apns-priority", {"1", "5", "10"}), ("apns-push-type", {"alert", "background"})):
        if header in headers and headers[header] not in allowed:
            yield Violation("message.apns.headers", f"Invalid value for {header}.")
    if not headers.get("apns-expiration", "0").isdigit():
        yield Violation("message.apns.headers", "Invalid value for apns-expiration.")
    if len(headers.get("apns-collapse-id", "").encode()) > 64:
        yield Violation("message.apns.headers", "apns-collapse-id is longer than 64 bytes.")


def _web(webpush: Mapping[str, Any]) -> Iterator[Violation]:
    headers = webpush.get("headers", {})
    if not headers.get("TTL", "0").isdigit():
        yield Violation("message.webpush.headers", "Invalid value for TTL.")
    if headers.get("Urgency", "normal") not in {"very-low", "low", "normal", "high"}:
        yield Violation("message.webpush.headers", "Invalid value for Urgency.")
    if "Topic" in headers and not _WEB_TOPIC.fullmatch(headers["Topic"]):
        yield Violation("message.webpush.headers", "Invalid value for Topic.")
    link = webpush.get("fcmOptions", {}).get("link")
    if link is not None and not link.startswith("https://"):
        yield Violation("message.webpush.fcm_options.link", "Invalid link: it must be an HTTPS URL.")


def size(message: Mapping[str, Any]) -> int:
    """Bytes of what reaches a device, in the largest of its forms."""
    common = {"notification": message.get("notification", {}), "data": message.get("data", {})}
    on_android = {**common["notification"], **message.get("android", {}).get("notification", {})}
    on_web = {**common["notification"], **message.get("webpush", {}).get("notification", {})}
    link = message.get("webpush", {}).get("fcmOptions", {})
    forms = (
        {**common, "notification": on_android},
        {**common, "notification": on_web, **({"fcmOptions": link} if link else {})},
        {**message.get("apns", {}).get("payload", {}), **message.get("data", {})},
    )
    return max(len(json.dumps(form, ensure_ascii=False, separators=(",", ":")).encode()) for form in forms)


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(other[:1].upper() + other[1:] for other in others)


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])([A-Z])", lambda found: f"_{found.group(1).lower()}", name)
