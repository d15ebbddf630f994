"""Carries the requests of Twilio's SDK to its API, and says what it means when no good answer comes back."""

from __future__ import annotations

import json
import logging
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote_plus, urlencode

from notifier_channels.contract import Ambiguous, Outcome, Unavailable
from notifier_channels.sms import codes
from notifier_channels.sms.lines import Lines, NoConnection

API_URL: Final = "https://api.twilio.com"
SHORT = 24  #: letters: the names of fields and what they mostly hold, but no text and no URL
TIMEOUT = 10.0  #: seconds to connect, and as many from a request to the end of its answer


@dataclass(frozen=True, slots=True)
class Account:
    """Whose account, and with what it is entered: the auth token under the account's own id, or an API key."""

    sid: str
    username: str = field(repr=False)
    password: str = field(repr=False)
    api_url: str = API_URL
    timeout: float = TIMEOUT


class Refused(Exception):
    """An answer that is no success, as it came. The SDK's own exception has lost Retry-After."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.code)
        self.outcome = outcome


def transport(account: Account) -> Any:
    """The SDK's seam for a transport, over `lines`: no retries, no redirects, and nothing logged (I5)."""
    from twilio.http import AsyncHttpClient
    from twilio.http.response import Response

    lines = Lines(account.api_url, account.timeout)
    own = {
        "Authorization": _basic((account.username, account.password)),
        "Content-Type": "application/x-www-form-urlencoded",
    }

    class Transport(AsyncHttpClient):  # type: ignore[misc]  # the SDK ships no types
        async def request(  # noqa: PLR0913, PLR0917  # the SDK's signature
            self,
            method: str,
            uri: str,
            params: dict[str, object] | None = None,
            data: dict[str, object] | None = None,
            headers: dict[str, str] | None = None,
            auth: tuple[str, str] | None = None,
            timeout: float | None = None,  # noqa: ASYNC109  # the lines have their own
            allow_redirects: bool = False,  # noqa: FBT001, FBT002
        ) -> Response:
            del timeout, allow_redirects, auth
            target = uri.removeprefix(API_URL) + (f"?{urlencode(params)}" if params else "")
            body = _form(data) if data is not None else None
            answer = await lines.ask(method, target, {**(headers or {}), **own}, body)
            text = answer.body.decode("utf-8", "replace")
            if not 200 <= answer.status < 300:
                raise Refused(codes.outcome(answer.status, _code(text), answer.headers.get("retry-after")))
            return Response(answer.status, text, answer.headers)

        async def close(self) -> None:
            lines.close()

    return Transport(logging.getLogger(__name__), is_async=True)


def _form(data: Mapping[str, object]) -> bytes:
    """As `urlencode` does it, but each message has the same names and mostly the same sender."""
    return "&".join(f"{_quoted(name)}={_quoted(str(value))}" for name, value in data.items()).encode()


@lru_cache(maxsize=1024)
def _quoted_once(text: str) -> str:
    return quote_plus(text)


def _quoted(text: str) -> str:
    return _quoted_once(text) if len(text) < SHORT else quote_plus(text)


def _basic(auth: tuple[str, str]) -> str:
    return "Basic " + b64encode(":".join(auth).encode()).decode()


def _code(text: str) -> int | None:
    """Twilio's own code out of an error's JSON; None when something else has answered."""
    try:
        code = json.loads(text)["code"]
    except (ValueError, TypeError, KeyError):
        return None
    return code if isinstance(code, int) else None


def outcome_of(error: Exception) -> Outcome:
    """What an exception out of the SDK or its transport says about the request."""
    match error:
        case Refused():
            return error.outcome
        case NoConnection():
            return Unavailable("connect", f"no connection to Twilio ({error})", is_away=True)
        case TimeoutError():
            return Ambiguous("timeout", "Twilio did not answer in time")
        case OSError():
            return Ambiguous("closed", f"the connection was lost before the answer ({type(error).__name__})")
        case _:
            return Ambiguous("protocol", f"Twilio's answer cannot be read ({type(error).__name__})")
