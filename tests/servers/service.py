"""The whole web application on a real socket, with Redis nowhere to be found, and raw HTTP to speak to it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from notifier.app import App
from notifier.settings import Settings
from notifier.web.process import _config, _Server
from notifier_channels.contract import Channel
from tests.servers.town import Town

SECRET = "a secret of at least thirty-two characters"


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


@dataclass(frozen=True, slots=True)
class Service:
    app: App
    town: Town
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def link(self, person: UUID, message: UUID, topic: str = "product-news") -> str:
        """The path of an unsubscribe link."""
        return path_of(self.app.links.unsubscribe_url(person, topic, Channel.EMAIL, message))

    async def raw(self, request: bytes) -> Response:
        """Send these bytes and read until the server closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request)
        await writer.drain()
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        head, _, body = answer.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        return Response(int(status.split()[1]), headers, body)

    async def ask(self, method: str, path: str, body: bytes = b"", *, http: str = "1.1", **headers: str) -> Response:
        """One request on a connection of its own, with no header that is not asked for."""
        sent = {"Host": "n.test", "Connection": "close"} | {
            name.replace("_", "-"): text for name, text in headers.items()
        }
        if body or method == "POST":
            sent["Content-Length"] = str(len(body))
        lines = "".join(f"{name}: {text}\r\n" for name, text in sent.items())
        return await self.raw(f"{method} {path} HTTP/{http}\r\n{lines}\r\n".encode() + body)


def path_of(url: str) -> str:
    return "/u/" + url.rpartition("/u/")[2]


@asynccontextmanager
async def running(database_url: str, state: Path, **changes: Any) -> AsyncIterator[Service]:
    settings = Settings(
        **{
            "env": "development",
            "database_url": database_url,
            "redis_url": f"unix://{state}/no-such-redis.sock",
            "link_keys": "k1:" + "k" * 32,
            "hash_keys": "h1:" + "h" * 32,
            "sandbox_secret": SECRET,
            "state_dir": state,
            "templates_dir": Path(__file__).parents[1] / "templates",
            "sender_name": "Fernweh & Co.",
        }
        | changes
    )
    async with App.open(settings) as app:
        door = socket.socket()
        door.bind(("127.0.0.1", 0))
        door.listen(128)
        server = _Server(_config(app))
        serving = asyncio.create_task(server.serve(sockets=[door]))
        try:
            yield Service(app, Town(app.database), door.getsockname()[1])
        finally:
            server.stop()
            await serving
