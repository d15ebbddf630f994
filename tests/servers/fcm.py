"""The sandbox's FCM on a real socket, behind a door that can misbehave at every point of the wire."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET
from typing import Literal
from uuid import uuid4

import httpx
from fastapi import FastAPI

from notifier.sandbox import fcm
from notifier.sandbox.fcm_account import LIFETIME, PREFIX, Account, write_service_account
from notifier.sandbox.pushes import Pushes
from notifier_channels.addresses import Device, DeviceKind
from notifier_channels.contract import Outgoing, PushContent

CONTENT = PushContent("Hello", "A body", link="https://shop.example.com/orders/1", data={"order": "1"})
FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"


def push(device: str = "ann", content: PushContent = CONTENT, *, kind: DeviceKind = DeviceKind.FID, **fields):
    """A message to a device whose id begins with this name."""
    to = Device.parse(kind, device.ljust(22 if kind is DeviceKind.FID else 40, "0"))
    now = datetime.now(UTC)
    return Outgoing(uuid4(), 1, to, content, now, fields.pop("expires_at", now + timedelta(hours=1)), **fields)


def error(code: int, status: str, fcm_code: str | None = None, message: str = "No.", **detail) -> bytes:
    details = [{"@type": FCM_ERROR, "errorCode": fcm_code}] if fcm_code else []
    if detail:
        details.append({"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [detail]})
    body = {"error": {"code": code, "message": message, "status": status} | ({"details": details} if details else {})}
    return json.dumps(body).encode()


@dataclass(frozen=True)
class Fault:
    """What befalls requests whose body holds `match`."""

    match: str
    status: int | None = None  #: this answer instead of the stand-in's
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    then: Literal["answer", "reset", "hang", "cut"] = "answer"
    taken: bool = False  #: the stand-in takes it first
    times: int | None = None


@dataclass
class Far:
    """A loopback server in this event loop: HTTP/1.1 by hand, the stand-in behind it."""

    account: Path
    faults: tuple[Fault, ...] = ()
    lifetime: int = LIFETIME
    pushes: Pushes = field(default_factory=Pushes)
    seen: bytearray = field(default_factory=bytearray)
    requests: list[dict] = field(default_factory=list)  #: the bodies that were meant for FCM
    answers: list[dict] = field(default_factory=list)  #: the stand-in's
    tokens: int = 0  #: requests for one
    token_gate: asyncio.Event | None = None  #: the token endpoint answers when it is set
    refuses_tokens: bytes | None = None
    url: str = ""
    hits: dict[Fault, int] = field(default_factory=dict)
    _lines: set[asyncio.Task] = field(default_factory=set)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Far]:
        server = await asyncio.start_server(self._line, "127.0.0.1", 0)
        root = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self.url = f"{root}{PREFIX}"
        await asyncio.to_thread(write_service_account, self.account, root)
        app = FastAPI()
        app.include_router(fcm.router(self.pushes, Account.read(self.account), lifetime=self.lifetime))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=root) as self._client:
            try:
                yield self
            finally:
                server.close()
                for line in self._lines:
                    line.cancel()
                await asyncio.gather(*self._lines, return_exceptions=True)

    async def _line(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._lines.add(task)
        try:
            while await self._serve(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._lines.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        request, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        self.seen += head + body
        path = request.split()[1]
        if path.endswith("/token"):
            return await self._token(path, headers, body, writer)
        self.requests.append(json.loads(body))
        fault = self._fault(body.decode())
        if fault is None or fault.taken:
            answer = await self._client.post(path, content=body, headers=headers)
            self.answers.append(answer.json())
        match fault:
            case None:
                return await _write(writer, answer.status_code, answer.content, answer.headers.items())
            case Fault(then="reset"):
                writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
                return False
            case Fault(then="hang"):
                await asyncio.Event().wait()
            case Fault(then="cut"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{")
                await writer.drain()
                return False
        return await _write(writer, fault.status, fault.body, fault.headers)

    async def _token(self, path: str, headers: dict, body: bytes, writer: asyncio.StreamWriter) -> bool:
        self.tokens += 1
        if self.token_gate is not None:
            await self.token_gate.wait()
        if self.refuses_tokens is not None:
            return await _write(writer, 400, self.refuses_tokens, ())
        answer = await self._client.post(path, content=body, headers=headers)
        return await _write(writer, answer.status_code, answer.content, answer.headers.items())

    def _fault(self, body: str) -> Fault | None:
        for fault in self.faults:
            if fault.match in body and (fault.times is None or self.hits.get(fault, 0) < fault.times):
                self.hits[fault] = self.hits.get(fault, 0) + 1
                return fault
        return None


async def _write(writer: asyncio.StreamWriter, status: int, body: bytes, headers) -> bool:
    lines = [f"HTTP/1.1 {status} Some", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers if name.lower() != "content-length"]
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    await writer.drain()
    return True
