"""What FCM's answers mean: the table from an answer, or from its absence, to one outcome.

FCM says what happened in `error.details`: its own code in the detail of type `FcmError`, and for a field that it does
not take a `google.rpc.BadRequest`. The HTTP status alone is not enough: a 404 without the code is a wrong project, and
no device must be forgotten for it. Rows and limits: Firebase, "FCM error codes" and the REST reference of `ErrorCode`;
Google's discovery document `fcm` v1, revision 20261023; read in November 2026. `docs/reference/fcm.md` lists the rows.

No text of FCM's goes into an outcome: it may repeat a token or a value (I5). The details are this table's own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any, NamedTuple, TypeAlias

import httpx

from notifier_channels.addresses import Platform
from notifier_channels.contract import (
    Ambiguous,
    BadAddress,
    Misconfigured,
    Outcome,
    RateLimited,
    Rejected,
    Unavailable,
)

FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"
ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"
QUOTA_FAILURE = "type.googleapis.com/google.rpc.QuotaFailure"
WAIT = timedelta(minutes=1)  #: after a 429 that names no time: Firebase asks for at least this
LONGEST_WAIT = timedelta(hours=1)

Kind: TypeAlias = type[BadAddress | Rejected | RateLimited | Unavailable | Misconfigured]


class Row(NamedTuple):
    """One code, the status it comes with, what it means and why."""

    code: str
    status: int
    kind: Kind
    detail: str


#: By FCM's own code.
TABLE: Mapping[str, Row] = {
    row.code: row
    for row in (
        Row("UNREGISTERED", 404, BadAddress, "the app is gone from the device"),
        Row("INVALID_ARGUMENT", 400, Rejected, "FCM does not take this message"),  # or the device: see _blames_device
        Row("SENDER_ID_MISMATCH", 403, Rejected, "the device is registered with another Firebase project"),
        Row("QUOTA_EXCEEDED", 429, RateLimited, "too many messages, for the project or for this device"),
        Row("THIRD_PARTY_AUTH_ERROR", 401, Unavailable, "the project's APNs key or web push key is wrong"),
        Row("APNS_AUTH_ERROR", 401, Unavailable, "the project's APNs key is wrong"),  # its name before 2019
        Row("UNAVAILABLE", 503, Unavailable, "FCM is overloaded"),
        Row("INTERNAL", 500, Unavailable, "FCM failed"),
    )
}
#: By status, for answers without such a code: Google's front door, or something that is not Google.
BY_STATUS: Mapping[int, tuple[Kind, str]] = {
    400: (Rejected, "FCM does not take this request"),
    401: (Misconfigured, "FCM does not accept the service account"),
    403: (Misconfigured, "the service account may not send for this project"),
    404: (Misconfigured, "there is no such project"),
    408: (Unavailable, "the request came too slowly"),
    413: (Rejected, "the request is too large"),
    429: (RateLimited, "too many requests"),
}
#: Statuses of Google's error body that say that nothing was taken. DEADLINE_EXCEEDED does not.
_NOT_TAKEN = {500: "INTERNAL", 503: "UNAVAILABLE"}
_DEVICE_FIELDS = frozenset({"message.token", "message.fid"})
_BAD_TOKEN_IN_WORDS = re.compile(r"not a valid FCM registration token|invalid registration token", re.IGNORECASE)
_DEVICE = re.compile(r"device", re.IGNORECASE)
PLATFORM_KEYS = frozenset({"THIRD_PARTY_AUTH_ERROR", "APNS_AUTH_ERROR"})  #: codes that blame a key for one platform
HAVE_KEYS = frozenset({Platform.IOS, Platform.WEB})  #: for APNs and for web push; Android needs none
_WORD = re.compile(r"[A-Z][A-Z_]{1,39}")
_FIELD = re.compile(r"[a-z_]{1,40}")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, as far as the table needs it."""

    status: int
    body: bytes = b""
    retry_after: timedelta | None = None


def outcome(answer: Answer) -> Outcome:
    """What an answer that is not a success means for its one message."""
    error = _error(answer.body)
    code = _code(error)
    if code is None and answer.status == 400 and error.get("status") == "INVALID_ARGUMENT":
        code = "INVALID_ARGUMENT"  # Google's parser says no before FCM sees the message
    row = TABLE.get(code or "")
    if row is not None and row.status == answer.status:
        return _by_code(row, error, answer)
    if answer.status >= 500:
        return _server_error(answer, error)
    if answer.status < 300:
        return Ambiguous(str(answer.status), "the answer could not be read")
    if answer.status < 400:
        return Misconfigured(str(answer.status), "the address of FCM leads elsewhere")
    if code is not None and answer.status != 429:  # a code that is new, or not where it was
        return Rejected(f"{answer.status} {code}", "a code that Notifier does not know")
    kind, detail = BY_STATUS.get(answer.status, (Rejected, "an answer that Notifier does not know"))
    return _made(kind, _label(answer, error), _with_field(detail, error), answer)


def lost(error: BaseException) -> Outcome:
    """What it means that no answer came. Only what failed before the request could leave is known not to be taken."""
    name = type(error).__name__
    match error:
        case httpx.PoolTimeout():
            return Unavailable("busy", "every connection was in use")
        case httpx.ConnectError() | httpx.ConnectTimeout() | httpx.ProxyError() | httpx.UnsupportedProtocol():
            return Unavailable("connect", name, is_away=True)
        case httpx.TimeoutException():
            return Ambiguous("timeout", name)
        case _:
            return Ambiguous("closed", name)


def blames_us(refusal: Outcome) -> bool:
    """A refusal that may be this message's own fault or that of everything we send: one answer does not tell."""
    return isinstance(refusal, Rejected) and (refusal.code == "SENDER_ID_MISMATCH" or refusal.code[:1].isdigit())


class Rate(StrEnum):
    """Whose rate a 429 says was exceeded."""

    PROJECT = "project"
    DEVICE = "device"
    UNSAID = "unsaid"


def rate(answer: Answer) -> Rate | None:
    """Whose, if any. Google's front door names the project's quota; FCM says `QUOTA_EXCEEDED` of either.

    The body of the first stands in firebase-admin-go's issue 719; that FCM has limits for a device, and that a
    `QuotaFailure` tells them apart, in the reference of `ErrorCode`. How it words it is nowhere published.
    """
    if answer.status != 429:
        return None
    error = _error(answer.body)
    if any(info.get("reason") == "RATE_LIMIT_EXCEEDED" for info in _details(error, ERROR_INFO)):
        return Rate.PROJECT
    said = json.dumps([error.get("message"), *_details(error, QUOTA_FAILURE)])
    return Rate.DEVICE if _code(error) == "QUOTA_EXCEEDED" and _DEVICE.search(said) else Rate.UNSAID


def hold(answer: Answer) -> timedelta | None:
    """For how long FCM wants to hear nothing, of no message."""
    match rate(answer):
        case Rate.DEVICE:
            return None
        case Rate.PROJECT:
            return answer.retry_after or WAIT
        case _:
            return answer.retry_after if answer.status == 429 or answer.status >= 500 else None


def retry_after(header: str | None, now: datetime) -> timedelta | None:
    """The header Retry-After, in seconds or as an instant (RFC 9110 10.2.3), between a second and `LONGEST_WAIT`."""
    text = (header or "").strip()
    if text.isascii() and text.isdigit():
        wait = timedelta(seconds=min(int(text[:9]), 10**6))
    else:
        try:
            instant = parsedate_to_datetime(text)
            wait = instant.replace(tzinfo=instant.tzinfo or UTC) - now
        except (ValueError, OverflowError):
            return None
    return min(max(wait, timedelta(seconds=1)), LONGEST_WAIT)


def _by_code(row: Row, error: Mapping[str, Any], answer: Answer) -> Outcome:
    if row.code == "INVALID_ARGUMENT" and _blames_device(error):
        return BadAddress(row.code, "FCM does not know such a device")
    return _made(row.kind, row.code, _with_field(row.detail, error), answer)


def _server_error(answer: Answer, error: Mapping[str, Any]) -> Outcome:
    """With an error body FCM says itself that it did not take the message; without one nobody does."""
    status = error.get("status")
    if status is not None and _NOT_TAKEN.get(answer.status) == status:
        return Unavailable(status, TABLE[status].detail)
    return Ambiguous(_label(answer, error), "an error that does not say whether the message was taken")


def _made(kind: Kind, code: str, detail: str, answer: Answer) -> Outcome:
    if issubclass(kind, RateLimited):
        return RateLimited(code, answer.retry_after or WAIT, detail)
    return kind(code, detail)


def _blames_device(error: Mapping[str, Any]) -> bool:
    """The device is wrong, and not what is sent to it: the field says so; without a field, the words."""
    if fields := _fields(error):
        return all(field in _DEVICE_FIELDS for field in fields)
    message = error.get("message")
    return _code(error) is not None and isinstance(message, str) and bool(_BAD_TOKEN_IN_WORDS.search(message))


def _error(body: bytes) -> Mapping[str, Any]:
    """The object `error` of Google's error body; empty when there is none."""
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    error = parsed.get("error") if isinstance(parsed, dict) else None
    return error if isinstance(error, dict) else {}


def _details(error: Mapping[str, Any], kind: str) -> list[Mapping[str, Any]]:
    details = error.get("details")
    listed = details if isinstance(details, list) else []
    return [detail for detail in listed if isinstance(detail, dict) and detail.get("@type") == kind]


def _code(error: Mapping[str, Any]) -> str | None:
    """FCM's own code."""
    codes = (detail.get("errorCode") for detail in _details(error, FCM_ERROR))
    return next((code for code in codes if isinstance(code, str) and _WORD.fullmatch(code)), None)


def _fields(error: Mapping[str, Any]) -> list[str]:
    """The fields that were not taken, e.g. `message.token`."""
    found = []
    for detail in _details(error, BAD_REQUEST):
        violations = detail.get("fieldViolations")
        for violation in violations if isinstance(violations, list) else []:
            field = violation.get("field") if isinstance(violation, dict) else None
            found.append(field if isinstance(field, str) else "")
    return found


def _with_field(detail: str, error: Mapping[str, Any]) -> str:
    """The first field's outermost names: further in stand keys that a template chose."""
    fields = _fields(error)
    names = [name.partition("[")[0] for name in fields[0].split(".")[:2]] if fields else []
    return f"{detail}: {'.'.join(names)}" if names and all(map(_FIELD.fullmatch, names)) else detail


def _label(answer: Answer, error: Mapping[str, Any]) -> str:
    """What stands in reasons: `403 PERMISSION_DENIED`, or `403`."""
    status = error.get("status")
    known = isinstance(status, str) and _WORD.fullmatch(status)
    return f"{answer.status} {status}" if known else str(answer.status)
