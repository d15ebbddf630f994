"""What an installation on one machine is told of the providers that the sandbox plays: nothing has to be set up."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

ACCOUNT = ("NOTIFIER_TWILIO_ACCOUNT_SID", "NOTIFIER_TWILIO_AUTH_TOKENS")  #: made once for a state directory
SENDER = "+15005550006"  #: Twilio's own magic number for a sender that works: it belongs to nobody
SEGMENTS_PER_SECOND = "100"
KEY_FILE = "fcm-service-account.json"


def stand_ins(state: Path, secrets: Mapping[str, str], given: Mapping[str, str], sandbox_url: str) -> dict[str, str]:
    """The settings of both vendors: each all ours or, when an account of the operator's own is given, none.

    A vendor whose SDK is not installed is left out, as `notifier` alone leaves it out.
    """
    return {**_twilio(secrets, given, sandbox_url), **_fcm(state, given, sandbox_url)}


def _twilio(secrets: Mapping[str, str], given: Mapping[str, str], sandbox_url: str) -> dict[str, str]:
    if given.get("NOTIFIER_TWILIO_ACCOUNT_SID") or find_spec("twilio") is None:
        return {}
    from notifier.sandbox.twilio import PREFIX

    return {
        **{name: secrets[name] for name in ACCOUNT},
        "NOTIFIER_TWILIO_SENDER": SENDER,
        "NOTIFIER_TWILIO_API_URL": f"{sandbox_url}{PREFIX}",
        "NOTIFIER_TWILIO_SEGMENTS_PER_SECOND": SEGMENTS_PER_SECOND,
        "NOTIFIER_TWILIO_ANSWERS_KEYWORDS": "false",
    }


def _fcm(state: Path, given: Mapping[str, str], sandbox_url: str) -> dict[str, str]:
    if given.get("NOTIFIER_FCM_CREDENTIALS") or find_spec("firebase_admin") is None:
        return {}
    from notifier.sandbox.fcm_account import PREFIX, write_service_account

    path = state / KEY_FILE
    write_service_account(path, sandbox_url)
    return {"NOTIFIER_FCM_CREDENTIALS": str(path), "NOTIFIER_FCM_API_URL": f"{sandbox_url}{PREFIX}"}
