"""A door in front of a web application: HTTP/1.1 by hand on loopback, which can misbehave at every point of the wire.

It takes its time, shuts, and lets the `fate` that a test gives it befall each request: before the application has seen
it, or after.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from socket import SO_LINGER, SOL_SOCKET
from typing import Any, Literal

import httpx


@dataclass(frozen=True, slots=True)
class Request:
    """One request, as it was read."""

    method: str
    path: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Fate:
    """What befalls a request instead of the application's answer."""

    name: str
    then: Literal["answer", "reset", "hang", "cut"] = "answer"
    taken: bool = False  #: the application takes it first
    status: int = 500
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


def no_fate(_: Request) -> Fate | None:
    return None


@dataclass
class Door:
    """Lets requests through to the application, one after the other on each line."""

    app: Any
    fate: Callable[[Request], Fate | None] = no_fate
    delay: float = 0.0  #: seconds that each request stands in the door, so that kills find something on the wire
    url: str = ""
    _port: int = 0
    _lines: dict[asyncio.Task[None], asyncio.StreamWriter] = field(default_factory=dict)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Door]:
        await self.unlock()
        self.url = f"http://127.0.0.1:{self._port}"
        async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url=self.url) as self._client:
            try:
                yield self
            finally:
                await self.lock()

    async def unlock(self) -> None:
        """Listen, on the same port as before."""
        self._server = await asyncio.start_server(self._line, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def lock(self) -> None:
        """Whoever comes is refused, and every line is cut."""
        self._server.close()
        lines = list(self._lines)
        for line in lines:
            line.cancel()
        await asyncio.gather(*lines, return_exceptions=True)

    async def _line(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._lines[task] = writer
        try:
            while await self._serve(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            del self._lines[task]
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        method, path, _ = first.split()
        request = Request(method, path, await reader.readexactly(int(headers.get("content-length", 0))))
        fate = self.fate(request)
        await asyncio.sleep(self.delay)
        if fate is None or fate.taken:
            answer = await self._client.request(method, path, content=request.body, headers=headers)
            if fate is None:
                return await _write(writer, answer.status_code, answer.content, answer.headers.items())
        return await self._befall(fate, reader, writer)

    @staticmethod
    async def _befall(fate: Fate, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        match fate.then:
            case "reset":
                writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
                return False
            case "hang":
                await reader.read()  # until the other side gives up
                return False
            case "cut":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{")
                await writer.drain()
                return False
            case "answer":
                return await _write(writer, fate.status, fate.body, fate.headers)


async def _write(
    writer: asyncio.StreamWriter, status: int, body: bytes, headers: Iterable[tuple[str, str]] = ()
) -> bool:
    lines = [f"HTTP/1.1 {status} Some", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers if name.lower() != "content-length"]
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    await writer.drain()
    return True
