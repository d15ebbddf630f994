"""Twilio and FCM at their fastest: a process that takes everything and answers at once, for benchmarks.

It reads no more of a request than its length. What must be checked is checked by the sandbox's stand-ins.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import ssl
import time
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote_to_bytes

import h2.config
import h2.connection
import h2.events

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_TO = re.compile(rb"(?:^|&)To=([^&]+)|\"(?:fid|token)\": ?\"([^\"]+)\"")
WINDOW = 1 << 24  #: bytes of requests that one connection may have under way
TOKEN = b'{"access_token": "t", "expires_in": 3600, "token_type": "Bearer"}'


class Line(asyncio.Protocol):
    """One connection."""

    taken = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            found = _LENGTH.search(self.buffer, 0, end + 4)
            whole = end + 4 + (int(found[1]) if found else 0)
            if len(self.buffer) < whole:
                return
            path = self.buffer[: self.buffer.find(b"\r\n")]
            write_down(self.buffer[end + 4 : whole])
            self.buffer = self.buffer[whole:]
            self.transport.write(self.answer(path))

    def answer(self, request: bytes) -> bytes:
        status, body = answer_to(request)
        head = b"HTTP/1.1 %d OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        return head % (status, len(body)) + body


class Http2Line(asyncio.Protocol):
    """One connection that carries many requests at once, as Google's do."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self.http.initiate_connection()
        # With the 64 KB of RFC 9113 a call of 100 fills the window, and the SDK's client, which then waits for room,
        # may miss that there is some: it ends in a ReadTimeout after two minutes. Seen in two rounds of three.
        self.http.increment_flow_control_window(WINDOW)
        self.paths: dict[int, bytes] = {}
        self.bodies: dict[int, bytes] = {}
        transport.write(self.http.data_to_send())

    def data_received(self, data: bytes) -> None:
        for event in self.http.receive_data(data):
            match event:
                case h2.events.RequestReceived():
                    self.paths[event.stream_id] = dict(event.headers)[b":path"]
                case h2.events.DataReceived():
                    self.bodies[event.stream_id] = self.bodies.get(event.stream_id, b"") + event.data
                    self.http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                case h2.events.StreamEnded():
                    write_down(self.bodies.pop(event.stream_id, b""))
                    status, body = answer_to(self.paths.pop(event.stream_id))
                    head = [(b":status", b"%d" % status), (b"content-type", b"application/json")]
                    self.http.send_headers(event.stream_id, head)
                    self.http.send_data(event.stream_id, body, end_stream=True)
        self.transport.write(self.http.data_to_send())


class SecureLine(asyncio.Protocol):
    """A connection over TLS, until both sides have said which HTTP they speak."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        spoken = transport.get_extra_info("ssl_object").selected_alpn_protocol()
        protocol = Http2Line() if spoken == "h2" else Line()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)


log: BinaryIO | None = None


def write_down(body: bytes) -> None:
    """Whom it is for, and when it was taken: before it is answered."""
    if log is not None and (found := _TO.search(body)):
        to = unquote_to_bytes(found[1] or found[2])
        log.write(to + b" %d\n" % time.monotonic_ns())
        log.flush()


def answer_to(request: bytes) -> tuple[int, bytes]:
    """By the request's path alone."""
    if b"Messages.json" in request:
        Line.taken += 1
        return 201, b'{"sid": "SM%032x", "status": "queued", "num_segments": "1"}' % Line.taken
    if b"messages:send" in request:
        Line.taken += 1
        return 200, b'{"name": "projects/p/messages/%d"}' % Line.taken
    if b"/taken" in request:
        return 200, b"%d" % Line.taken
    return 200, TOKEN


async def main(certificate: str | None) -> None:
    """One door in the clear; with a certificate also one over TLS."""
    loop = asyncio.get_running_loop()
    doors = [await loop.create_server(Line, "127.0.0.1", 0)]
    if certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
        context.set_alpn_protocols(["h2", "http/1.1"])
        doors.append(await loop.create_server(SecureLine, "127.0.0.1", 0, ssl=context))
    print("listening on", *(door.sockets[0].getsockname()[1] for door in doors), flush=True)
    await asyncio.gather(*(door.serve_forever() for door in doors))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--log", help="a file for a line of whom and when")
    parser.add_argument("--certificate", help="a PEM file with a key and its certificate")
    chosen = parser.parse_args()
    log = Path(chosen.log).open("ab") if chosen.log else None  # noqa: SIM115  # open as long as the process
    asyncio.run(main(chosen.certificate))
