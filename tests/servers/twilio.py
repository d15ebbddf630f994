"""The stand-in for Twilio on a real socket, and a far end that breaks wherever it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl
from uuid import UUID, uuid4

import httpx
import uvicorn
from fastapi import FastAPI

from notifier.sandbox import twilio as sandbox
from notifier.sandbox.callbacks import Callbacks
from notifier.sandbox.phones import Phones
from notifier.sandbox.texts import Texts
from notifier.sandbox.twilio import Keys
from notifier_channels.addresses import PhoneNumber
from notifier_channels.contract import Outgoing, SmsContent
from notifier_channels.sms.transport import Account
from notifier_channels.sms.twilio import TwilioProvider

SID = "AC" + "0123456789abcdef" * 2
TOKEN = "the token of an account in tests"
OLD_TOKEN = "the token before"
SERVICE = "MG" + "0123456789abcdef" * 2
SENDER = "+12025550199"
BODY = "a secret body"
NOWHERE = "http://127.0.0.1:9"


class FreePace:
    """Everybody may go at once; remembers what was asked for."""

    together = 1

    def __init__(self) -> None:
        self.units: list[int] = []

    async def turn(self, units: int) -> None:
        self.units.append(units)


def text_to(number: str, body: str = BODY, left: timedelta = timedelta(hours=1), **fields: Any) -> Outgoing[SmsContent]:
    id_, now = uuid4(), datetime.now(UTC)
    fields = {"callback_url": f"{NOWHERE}/hooks/twilio/status/{id_.hex}", **fields}
    return Outgoing(id_, 1, PhoneNumber(number), SmsContent(body), now, now + left, **fields)


def provider_at(
    url: str,
    sender: str = SENDER,
    connections: int = 3,
    timeout: float = 5,
    pace: Any = None,
    most_at_once: int = 50,
    other_senders: Sequence[str] = (),
    **account,
):
    known = {"username": SID, "password": TOKEN} | account
    return TwilioProvider(
        Account(SID, api_url=url, timeout=timeout, **known),
        sender,
        pace or FreePace(),
        connections=connections,
        most_at_once=most_at_once,
        other_senders=other_senders,
    )


@dataclass
class Exchange:
    """One request and its answer, as they were on the wire."""

    method: str
    path: str
    query: str
    sent: bytes = b""
    status: int = 0
    answer: bytes = b""

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.sent.decode(), keep_blank_values=True, strict_parsing=bool(self.sent)))

    @property
    def json(self) -> Any:
        return json.loads(self.answer)


@dataclass
class StandIn:
    url: str
    texts: Texts
    phones: Phones
    callbacks: Callbacks
    exchanges: list[Exchange] = field(default_factory=list)

    def accepted(self) -> list[UUID]:
        return [
            UUID(hex=text.callback_url.rpartition("/")[2].partition("?")[0])
            for text in self.texts
            if text.callback_url and not text.is_inbound
        ]


@asynccontextmanager
async def standing_in(
    public_url: str = NOWHERE, *, answers_keywords: bool = True, api_key: str | None = None, pace: float = 0.01
) -> AsyncIterator[StandIn]:
    keys = Keys(SID, (TOKEN, OLD_TOKEN), api_key)
    async with (
        httpx.AsyncClient(trust_env=False, timeout=10) as client,
        sandbox.stand_in(client, keys, public_url, answers_keywords=answers_keywords, pace=pace) as inner,
    ):
        app = FastAPI()
        app.include_router(inner.routes)
        stand_in = StandIn("", inner.texts, inner.phones, inner.callbacks)
        async with serving(_recording(app, stand_in.exchanges)) as url:
            stand_in.url = f"{url}/twilio"
            yield stand_in


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    config = uvicorn.Config(app, port=0, log_level="warning", access_log=False, lifespan="off")
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # the test process keeps its own
    started = asyncio.Event()
    startup = server.startup

    async def start(**options) -> None:
        await startup(**options)
        started.set()

    server.startup = start
    task = asyncio.create_task(server.serve())
    await asyncio.wait_for(started.wait(), 20)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


def _recording(app: Any, exchanges: list[Exchange]) -> Any:
    async def record(scope, receive, send) -> None:
        exchange = Exchange(scope["method"], scope["path"], scope["query_string"].decode())
        exchanges.append(exchange)

        async def read():
            event = await receive()
            exchange.sent += event.get("body", b"")
            return event

        async def write(event) -> None:
            exchange.status = event.get("status", exchange.status)
            exchange.answer += event.get("body", b"")
            await send(event)

        await app(scope, read, write)

    return record


@dataclass
class Broken:
    """Answers each request with the same bytes, and closes; counts what it has read in whole."""

    answer: bytes | None  #: None: nothing, for ever
    reads: bool = True
    url: str = ""
    requests: int = 0


@asynccontextmanager
async def broken(answer: bytes | None, *, reads: bool = True) -> AsyncIterator[Broken]:
    far = Broken(answer, reads)
    over = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            if far.reads:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
                )
                await reader.readexactly(length)
                far.requests += 1
            if far.answer is None:
                await over.wait()
            else:
                writer.write(far.answer)
                await writer.drain()
        writer.transport.abort() if not far.answer else writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    far.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield far
        over.set()


def http(status: str, body: bytes = b"", *headers: str, length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", "Connection: close"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + body
