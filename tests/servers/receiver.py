"""Product code's side of a webhook: a real HTTP server that verifies as a receiver would, and answers as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from notifier.client import Event, Forged, verify_webhook


@dataclass
class Receiver:
    port: int = 0
    secret: str | None = None
    #: what to answer to the event; None: nothing, ever
    answer: Callable[[Event], int | bytes | None] = lambda _event: 204
    events: list[Event] = field(default_factory=list)
    forged: int = 0
    connections: int = 0
    heads: list[str] = field(default_factory=list)
    came: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?shop=1"

    async def until(self, count: int) -> list[Event]:
        """Wait until so many have come."""
        async with asyncio.timeout(20), self.came:
            await self.came.wait_for(lambda: len(self.events) + self.forged >= count)
        return self.events

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                headers = dict(line.split(": ", 1) for line in head.strip().split("\r\n")[1:])
                headers = {name.lower(): text for name, text in headers.items()}
                body = await reader.readexactly(int(headers["content-length"]))
                said = await self._take(head, headers, body)
                if said is None:
                    await asyncio.Event().wait()
                whole = said if isinstance(said, bytes) else b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % said
                writer.write(whole)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _take(self, head: str, headers: dict[str, str], body: bytes) -> int | bytes | None:
        async with self.came:
            self.heads.append(head)
            try:
                event = verify_webhook(self.secret or "", headers, body)
            except Forged:
                self.forged += 1
                self.came.notify_all()
                return 401
            assert headers["webhook-id"] == event.id
            self.events.append(event)
            self.came.notify_all()
        return self.answer(event)


@asynccontextmanager
async def receiving(**changes: object) -> AsyncIterator[Receiver]:
    receiver = Receiver(**changes)
    tasks: set[asyncio.Task[None]] = set()

    def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(receiver.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accepted, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()
