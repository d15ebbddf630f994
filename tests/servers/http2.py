"""A door to the sandbox's FCM that speaks what Google speaks: HTTP/2 over TLS."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings

from notifier.sandbox.fcm_account import PREFIX
from tests.servers.fcm import Far


@dataclass
class Door:
    far: Far
    context: ssl.SSLContext
    streams_at_once: int = 100
    leaves_after: int | None = None  #: on the first line so many requests are answered; then it says goodbye
    lines: int = 0
    most_streams: int = 0
    url: str = ""
    _tasks: set[asyncio.Task] = field(default_factory=set)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Door]:
        self.context.set_alpn_protocols(["h2"])
        server = await asyncio.start_server(self._line, "127.0.0.1", 0, ssl=self.context)
        self.url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}{PREFIX}"
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _line(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(asyncio.current_task())
        with suppress(asyncio.CancelledError, ConnectionError):
            with suppress(ProtocolError):  # whatever still comes after the goodbye
                await self._serve(reader, writer)
            while await reader.read(65536):
                pass
        writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.lines += 1
        left = self.leaves_after if self.lines == 1 else None
        connection = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        connection.local_settings = Settings(
            client=False, initial_values={SettingCodes.MAX_CONCURRENT_STREAMS: self.streams_at_once}
        )
        connection.initiate_connection()
        requests: dict[int, tuple[dict, bytearray]] = {}
        ended = 0
        writer.write(connection.data_to_send())
        while data := await reader.read(65536):
            for event in connection.receive_data(data):
                match event:
                    case events.RequestReceived():
                        requests[event.stream_id] = dict(event.headers), bytearray()
                        self.most_streams = max(self.most_streams, connection.open_inbound_streams)
                    case events.DataReceived():
                        requests[event.stream_id][1].extend(event.data)
                        connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    case events.StreamEnded(stream_id=stream):
                        ended += 1
                        if left is None or ended <= left:
                            task = asyncio.create_task(self._answer(connection, writer, stream, *requests[stream]))
                            self._tasks.add(task)
                        if ended == left:
                            task.add_done_callback(partial(self._leave, connection, writer, stream))
            writer.write(connection.data_to_send())

    async def _answer(
        self, connection: H2Connection, writer: asyncio.StreamWriter, stream: int, headers: dict, body: bytearray
    ) -> None:
        kept = {name: headers[name] for name in ("authorization", "content-type")}
        answer = await self.far._client.post(headers[":path"], content=bytes(body), headers=kept)
        connection.send_headers(stream, [(":status", str(answer.status_code)), ("content-type", "application/json")])
        connection.send_data(stream, answer.content, end_stream=True)
        writer.write(connection.data_to_send())

    def _leave(self, connection: H2Connection, writer: asyncio.StreamWriter, last: int, _: asyncio.Task) -> None:
        connection.close_connection(last_stream_id=last)
        writer.write(connection.data_to_send())
