"""Firebase Cloud Messaging as far as Notifier knows it: a token for a service account, and a place to send pushes to.

Google's own SDK runs against it with another address. It demands what FCM demands (`fcm_messages`), keeps what it took
(`pushes`), and plays FCM's moods for devices whose ids begin with one of the names below. The table is data: the
endpoint obeys it, and `docs/reference/sandbox.md` lists the same rows. It needs the extra `push`.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from notifier.sandbox.fcm_account import LIFETIME, PREFIX, Account
from notifier.sandbox.fcm_messages import TARGETS, Violation, check
from notifier.sandbox.pushes import Push, Pushes

_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
_BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"


@dataclass(frozen=True, slots=True)
class Simulator:
    """One row of the table: a device whose id begins with `name` and a hyphen."""

    name: str
    status: int
    google: str  #: Google's name of the status
    code: str  #: FCM's own
    does: str
    then: str  #: what Notifier makes of it
    message: str = "The request was refused by the sandbox."
    retry_after: int | None = None
    only_once: bool = False  #: per message


SIMULATORS: tuple[Simulator, ...] = (
    Simulator(
        name="unregistered",
        status=404,
        google="NOT_FOUND",
        code="UNREGISTERED",
        does="Answers that the app is gone from the device.",
        then="failed; the device is removed",
        message="Requested entity was not found.",
    ),
    Simulator(
        name="bad-token",
        status=400,
        google="INVALID_ARGUMENT",
        code="INVALID_ARGUMENT",
        does="Answers that this is no device's id.",
        then="failed; the device is removed",
        message="The registration token is not a valid FCM registration token",
    ),
    Simulator(
        name="other-project",
        status=403,
        google="PERMISSION_DENIED",
        code="SENDER_ID_MISMATCH",
        does="Answers that the device belongs to another Firebase project.",
        then="failed; the device is kept",
        message="SenderId mismatch",
    ),
    Simulator(
        name="apns-key",
        status=401,
        google="UNAUTHENTICATED",
        code="THIRD_PARTY_AUTH_ERROR",
        does="Answers that the project's key for APNs is wrong.",
        then="queued again with backoff; the device is kept. "
        "Three such devices of iOS or of the web pause that platform, and others get their messages",
        message="Auth error from APNS or Web Push Service",
    ),
    Simulator(
        name="quota",
        status=429,
        google="RESOURCE_EXHAUSTED",
        code="QUOTA_EXCEEDED",
        does="Answers 429 without a time, every time.",
        then="queued again after a minute; other devices get their messages",
        message="Sending limit exceeded for the message target.",
    ),
    Simulator(
        name="slow-down",
        status=429,
        google="RESOURCE_EXHAUSTED",
        code="QUOTA_EXCEEDED",
        does="Answers 429 with Retry-After: 5, every time.",
        then="queued again; for five seconds the process sends no push at all",
        message="Sending limit exceeded for the project.",
        retry_after=5,
    ),
    Simulator(
        name="unavailable",
        status=503,
        google="UNAVAILABLE",
        code="UNAVAILABLE",
        does="Answers the first try of each message with 503 and takes the second.",
        then="queued again once, then accepted",
        message="The service is currently unavailable.",
        only_once=True,
    ),
    Simulator(
        name="internal",
        status=500,
        google="INTERNAL",
        code="INTERNAL",
        does="Answers 500 with FCM's own error, every time.",
        then="queued again with backoff, until it has expired",
        message="Internal error encountered.",
    ),
)
UNREGISTERED = SIMULATORS[0]


def router(pushes: Pushes, account: Account, *, lifetime: int = LIFETIME) -> APIRouter:
    """The endpoint for tokens and the one for messages, below `PREFIX`."""
    routes = APIRouter(prefix=PREFIX)
    tried: set[tuple[str, str]] = set()

    @routes.post("/token")
    async def token(request: Request) -> Response:
        form = parse_qs((await request.body()).decode("utf-8", "replace"))
        if (refused := account.refusal_of(form)) is not None:
            return JSONResponse({"error": refused[0], "error_description": refused[1]}, 400)
        return JSONResponse({"access_token": account.token(lifetime), "expires_in": lifetime, "token_type": "Bearer"})

    @routes.post("/v1/projects/{project}/messages:send")
    async def send(project: str, request: Request) -> Response:
        if not account.knows(request.headers.get("Authorization", "")):
            return _error(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
        if project != account.project:
            return _error(403, "PERMISSION_DENIED", "Permission denied on resource project.")
        try:
            parsed = json.loads(await request.body())
        except (ValueError, RecursionError):
            return _refused([Violation("", "Invalid JSON payload received. Unexpected token.", is_parser=True)])
        message, wrong = check(parsed)
        if wrong:
            return _refused(wrong)
        push = _push(pushes, message)
        if (mood := _mood(pushes, push, tried)) is not None:
            pushes.refuse(push.device)
            return _moody(mood)
        name = f"projects/{project}/messages/0:{push.id}%{secrets.token_hex(8)}"
        if not parsed.get("validateOnly", parsed.get("validate_only", False)):
            pushes.keep(push)
        return JSONResponse({"name": name})

    return routes


def find(device: str) -> Simulator | None:
    """Who answers for this device, e.g. `fid:unregistered-000000000`."""
    value = device.partition(":")[2]
    return next((one for one in SIMULATORS if value.startswith(f"{one.name}-")), None)


def _mood(pushes: Pushes, push: Push, tried: set[tuple[str, str]]) -> Simulator | None:
    if push.device in pushes.dead:
        return UNREGISTERED
    mood = find(push.device)
    if mood is None or not mood.only_once:
        return mood
    known = (push.device, push.tag) in tried
    tried.add((push.device, push.tag))
    return None if known else mood


def _push(pushes: Pushes, message: Mapping[str, Any]) -> Push:
    kind = next(name for name in TARGETS if message.get(name))
    notification, android = message.get("notification", {}), message.get("android", {})
    data = message.get("data", {})
    return Push(
        id=pushes.taken + 1,
        at=datetime.now(UTC),
        device=f"{kind}:{message[kind]}",
        tag=android.get("notification", {}).get("tag", ""),
        title=notification.get("title", ""),
        body=notification.get("body", ""),
        image=notification.get("image"),
        link=data.get("link"),
        data=data,
        is_urgent=str(android.get("priority", "")).upper() == "HIGH",
        ttl=android.get("ttl"),
        raw=message,
    )


def _moody(mood: Simulator) -> Response:
    detail: list[dict[str, object]] = [{"@type": _ERROR, "errorCode": mood.code}]
    headers = {"Retry-After": str(mood.retry_after)} if mood.retry_after is not None else {}
    return _error(mood.status, mood.google, mood.message, detail, headers)


def _refused(wrong: list[Violation]) -> Response:
    violations = [{"field": one.field, "description": one.description} for one in wrong]
    details: list[dict[str, object]] = [{"@type": _BAD_REQUEST, "fieldViolations": violations}]
    if not any(one.is_parser for one in wrong):
        details.append({"@type": _ERROR, "errorCode": "INVALID_ARGUMENT"})
    return _error(400, "INVALID_ARGUMENT", "\n".join(one.description for one in wrong), details)


def _error(
    code: int,
    status: str,
    message: str,
    details: list[dict[str, object]] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    error: dict[str, object] = {"code": code, "message": message, "status": status}
    if details:
        error["details"] = details
    return JSONResponse({"error": error}, code, headers)
