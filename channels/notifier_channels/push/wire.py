"""The way to FCM: Google's SDK, told not to repeat anything by itself, and its access token, fetched beside the loop.

What the SDK (firebase-admin 7) does by itself and must not:

- It repeats a 500 or a 503 up to four times. Repeats are counted and decided in `domain/retry.py`, so they are off.
- It fetches its token inside of the request, with a blocking client: the whole process would stand still. The token is
  fetched here, ahead of its end, in a thread, once for all who wait.
- After a 401 it fetches a token and sends again, twice; FCM says 401 for a wrong APNs key, too. So it does not get to
  see such an answer: every answer is read here first, through httpx's own event hook.
- One answer that is no JSON makes it give up a whole call whose other messages are under way. The hook keeps that to
  the one message.

For the first two there is no public way: a test fails when the private names change (`tests/contract/test_fcm.py`).
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from notifier_channels.contract import Ambiguous, Misconfigured, Outcome, Receipt, Unavailable
from notifier_channels.push import errors

if TYPE_CHECKING:
    from firebase_admin import messaging

TIMEOUT = 10.0  #: seconds for each step of a request; Firebase asks for at least this
CLOSE = 15.0  #: seconds for what is under way when the wire is closed
_numbers = itertools.count(1)


class CannotUseFcm(ValueError):
    """Push cannot be set up. Says what is missing or wrong, and nothing of what the file holds."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What came of one message on the wire."""

    outcome: Outcome
    is_known: bool  #: False: the answer was lost, and nobody knows what it said
    hold: timedelta | None = None  #: FCM wants to hear nothing for so long, of no message
    is_vague: bool = False  #: too fast, but FCM does not say whether for this device or for all


class Wire:
    """One Firebase app, its HTTP client and its token. Belongs to one event loop."""

    def __init__(self, credentials: Path, api_url: str, *, timeout: float = TIMEOUT) -> None:
        """Read the service account's key and set the SDK up; nothing is sent yet.

        Raises:
            CannotUseFcm: the SDK is not installed, or the file is not such a key.

        """
        self._sdk = _sdk()
        certificate, project = _read(credentials)
        self._app = self._sdk.initialize_app(
            certificate, {"projectId": project, "httpTimeout": timeout}, name=f"notifier-{next(_numbers)}"
        )
        self.token = AccessToken(certificate.get_credential(), timeout)
        self._client = _tame(self._sdk, self._app, self.token, f"{api_url.rstrip('/')}/v1/projects/{project}")
        self._calls: set[asyncio.Task[list[Heard]]] = set()

    def call(self, messages: Sequence[messaging.Message]) -> asyncio.Task[list[Heard]]:
        """One call of the SDK, under way: it goes on when whoever waits for it is cancelled."""
        task = asyncio.create_task(self._call(list(messages)))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        return task

    async def close(self) -> None:
        """Wait for what is under way, then give the connections and the app back."""
        if waiting := [*self._calls, *self.token.under_way()]:
            await asyncio.wait(waiting, timeout=CLOSE)
        await self._client.aclose()
        # It closes its client in an event loop of its own, which may not be inside of this one; ours is closed already.
        await asyncio.to_thread(self._sdk.delete_app, self._app)

    async def _call(self, messages: list[messaging.Message]) -> list[Heard]:
        from firebase_admin import exceptions, messaging

        try:
            batch = await messaging.send_each_async(messages, app=self._app)
        except exceptions.FirebaseError as error:  # not one answer, but the SDK itself: what has left is not known
            return [Heard(Ambiguous("sdk", type(error.cause).__name__), is_known=False)] * len(messages)
        return [self._heard(response) for response in batch.responses]

    def _heard(self, response: messaging.SendResponse) -> Heard:
        if response.success:
            return Heard(Receipt(response.message_id, "200"), is_known=True)
        cause = response.exception.cause
        if not isinstance(cause, Refused):
            outcome = errors.lost(cause)
            return Heard(outcome, is_known=not isinstance(outcome, Ambiguous))
        outcome = errors.outcome(cause.answer)
        if isinstance(outcome, Misconfigured) and cause.answer.status == 401:
            self.token.distrust()
        is_vague = errors.rate(cause.answer) is errors.Rate.UNSAID
        return Heard(outcome, is_known=True, hold=errors.hold(cause.answer), is_vague=is_vague)


class Refused(httpx.HTTPError):
    """FCM's answer is not a success that can be read."""

    def __init__(self, answer: errors.Answer) -> None:
        super().__init__(f"answered with {answer.status}")
        self.answer = answer


class AccessToken(httpx.Auth):
    """The token that FCM wants to see. A successor is fetched while the old one still lives."""

    def __init__(self, credential: Any, timeout: float) -> None:
        self._credential = credential
        self._timeout = timeout
        self._is_distrusted = False
        self._fetching: asyncio.Task[Outcome | None] | None = None

    async def ready(self) -> Outcome | None:
        """Wait until there is a token; else the outcome of whatever was to be sent."""
        state = "INVALID" if self._is_distrusted else self._credential.token_state.name
        if state == "FRESH":
            return None
        if self._fetching is None or self._fetching.done():
            self._fetching = asyncio.create_task(self._fetch())
        return await asyncio.shield(self._fetching) if state == "INVALID" else None

    def distrust(self) -> None:
        """FCM does not take it, whatever its end: the next who needs one fetches another."""
        self._is_distrusted = True

    def under_way(self) -> list[asyncio.Task[Outcome | None]]:
        """The fetch that is going on, if there is one."""
        return [self._fetching] if self._fetching is not None and not self._fetching.done() else []

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """For httpx."""
        self._credential.apply(request.headers)
        yield request

    async def _fetch(self) -> Outcome | None:
        from google.auth import exceptions

        try:
            await asyncio.to_thread(self._refresh)
        except exceptions.RefreshError as error:
            if not error.retryable:
                return Misconfigured("token", "the token endpoint does not accept the service account")
            return Unavailable("token", "the token endpoint failed", is_away=True)
        except Exception as error:  # noqa: BLE001  # google-auth lets through what its answer's form provokes
            return Unavailable("token", type(error).__name__, is_away=True)
        self._is_distrusted = False
        return None

    def _refresh(self) -> None:
        from google.auth.transport import requests

        self._credential.refresh(functools.partial(requests.Request(), timeout=self._timeout))


def _sdk() -> Any:
    try:
        import firebase_admin
        import firebase_admin.messaging
    except ImportError:
        raise CannotUseFcm("Push needs Firebase's SDK: install the extra `push`.") from None
    return firebase_admin


def _read(path: Path) -> tuple[Any, str]:
    from firebase_admin import credentials

    try:
        content = json.loads(path.read_text("utf-8"))
        project = content["project_id"]
        certificate = credentials.Certificate(content)
    except OSError as error:
        raise CannotUseFcm(f"The file of the service account cannot be read: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CannotUseFcm("The file is not the JSON key of a Firebase service account.") from None
    return certificate, str(project)


def _tame(sdk: Any, app: Any, token: AccessToken, project_url: str) -> Any:
    """Take from the SDK's own async client what it does by itself."""
    from firebase_admin import _retry

    service = sdk.messaging._get_messaging_service(app)  # noqa: SLF001  # see the head of this file
    service._fcm_url = f"{project_url}/messages:send"  # noqa: SLF001
    client = service._async_client  # noqa: SLF001
    for transport in client._mounts.values():  # noqa: SLF001
        transport._retry = _retry.HttpxRetry(max_retries=0)  # noqa: SLF001
    client.async_client.auth = token
    client.async_client.event_hooks = {"response": [_read_answer]}
    return client


async def _read_answer(response: httpx.Response) -> None:
    """For httpx: let through only what the SDK can read."""
    body = await response.aread()
    if response.status_code == 200 and _has_name(body):
        return
    wait = errors.retry_after(response.headers.get("Retry-After"), datetime.now(UTC))
    raise Refused(errors.Answer(response.status_code, body, wait))


def _has_name(body: bytes) -> bool:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(answer, dict) and bool(answer.get("name"))
