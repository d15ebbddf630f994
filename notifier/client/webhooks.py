"""What a receiver of webhooks does first: prove that the service has sent this, just now (Standard Webhooks 1.0)."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import time
from collections.abc import Mapping
from hashlib import sha256

from notifier.client.answers import Event
from notifier.client.errors import Forged

LEAST_KEY = 24  #: bytes; an empty secret, out of a setting that is missing, would prove everything
TOLERANCE = 300.0  #: seconds that clocks may differ, or a request may travel


def verify_webhook(secret: str, headers: Mapping[str, str], body: bytes, *, now: float | None = None) -> Event:
    """The event in a webhook. `secret`: `whsec_...`; `body`: the bytes as they came, before anything parsed them.

    The same event may come twice, under the same id: keep the ids that are done. `now`: Unix seconds, for tests.

    Raises:
        Forged: it is not from the service, or it is older or newer than five minutes.

    """
    prove(secret, headers, body, time.time() if now is None else now)
    return Event.model_validate_json(body)


def prove(secret: str, headers: Mapping[str, str], body: bytes, now: float) -> None:
    """Raise Forged unless the headers prove the body, whatever stands in it."""
    given = {name.lower(): value for name, value in headers.items()}
    id_, sent, signatures = (given.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature"))
    if not re.fullmatch("[0-9]{1,15}", sent) or abs(now - int(sent)) > TOLERANCE:
        raise Forged("The webhook has no timestamp, or one that is not of now.")
    key = _key(secret)
    made = b"v1," + base64.b64encode(hmac.new(key, f"{id_}.{sent}.".encode() + body, sha256).digest())
    if not any(hmac.compare_digest(made, one.encode()) for one in signatures.split()):
        raise Forged("The webhook's signature does not fit its body.")


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) < LEAST_KEY:
        raise ValueError("This is not the secret of an endpoint: one begins with whsec_ and is shown when it is added.")
    return key
