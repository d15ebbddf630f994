"""Twilio and FCM at their fastest: a process that takes everything and answers at once, for benchmarks.

It reads no more of a request than its length. What must be checked is checked by the sandbox's stand-ins.
"""

from __future__ import annotations

import argparse
import asyncio
import re

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
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
            self.buffer = self.buffer[whole:]
            self.transport.write(self.answer(path))

    def answer(self, request: bytes) -> bytes:
        if b"Messages.json" in request:
            Line.taken += 1
            sid = b"SM%032x" % Line.taken
            return _http(b"201 Created", b'{"sid": "%s", "status": "queued", "num_segments": "1"}' % sid)
        if b"messages:send" in request:
            Line.taken += 1
            return _http(b"200 OK", b'{"name": "projects/p/messages/%d"}' % Line.taken)
        if b"/taken" in request:
            return _http(b"200 OK", b"%d" % Line.taken)
        return _http(b"200 OK", TOKEN)


def _http(status: bytes, body: bytes) -> bytes:
    head = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % (status, len(body)) + body


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Line, "127.0.0.1", port)
    print("listening on", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    asyncio.run(main(parser.parse_args().port))
