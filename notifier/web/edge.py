"""The first thing a request meets: bodies are cut off while they stream, and nothing that breaks inside gets out."""

from __future__ import annotations

import asyncio

import psycopg
import structlog
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from notifier.telemetry import where
from notifier.web.problems import Kinds, Refused, answer, unavailable

log = structlog.get_logger(__name__)

MAX_BODY = 256 * 1024
LARGER = {  #: whole requests, by POST, that carry many; one notification in a batch is still held to MAX_BODY
    "/v1/notifications/batch": 4 * 1024 * 1024,
    "/v1/recipients/import": 50 * 1024 * 1024,
    "/v1/lists": 1024 * 1024 * 1024,
    "/hooks/mail": 10 * 1024 * 1024,
}
READ_TIMEOUT = 30.0  #: seconds between two pieces of a body

AWAY = (psycopg.OperationalError, psycopg.InterfaceError, psycopg.errors.ReadOnlySqlTransaction)


class Edge:
    """ASGI middleware around everything."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; answer for what is inside when it breaks."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = _Sent(send)
        try:
            await self._app(scope, _Limited(receive, _limit(scope)), sent)
        except ClientDisconnect:
            return  # whoever broke off their own body hears nothing, and nothing of ours broke
        except Exception as error:
            if sent.has_begun:
                raise
            await self._answer(error)(scope, receive, send)

    def _answer(self, error: Exception) -> Response:
        if isinstance(error, AWAY):
            log.warning("api.database_away", error=type(error).__name__)
            return unavailable()
        log.error("api.broke", error=type(error).__name__, at=where(error))
        return answer(Kinds.INTERNAL)


def _limit(scope: Scope) -> int:
    return LARGER.get(scope["path"], MAX_BODY) if scope["method"] == "POST" else MAX_BODY


class _Limited:
    """Counts the body while it arrives: what is too large is never held in memory."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = limit
        self._seen = 0
        self._complete = False

    async def __call__(self) -> Message:
        if self._complete:
            return await self._receive()
        try:
            async with asyncio.timeout(READ_TIMEOUT):
                message = await self._receive()
        except TimeoutError:
            raise Refused(Kinds.TOO_SLOW, "Send the body without pauses.") from None
        self._seen += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        if self._seen > self._limit:
            raise Refused(
                Kinds.TOO_LARGE, f"At most {self._limit // 1024} KB; send less at once.", {"Connection": "close"}
            )
        return message


class _Sent:
    """Adds what every answer carries, and knows whether one has begun."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.has_begun = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.has_begun = True
            present = {name.lower() for name, _ in message["headers"]}
            message["headers"] = [
                *message["headers"],
                *((name, value) for name, value in _ALWAYS if name not in present),
            ]
        await self._send(message)


_ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
)
