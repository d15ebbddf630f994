"""Connections to Twilio's API that stay open: a request goes out in one write and its answer is read by llhttp.

Written by hand because a request through aiohttp cost three times what the SDK and this take together, and half of all
that a text message costs (`python3 run.py bench vendors`). It knows what the API needs and no more: HTTP/1.1 without
redirects, cookies, compression or proxies, one request at a time on a connection, and none of them twice.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, urlsplit

IDLE: Final = 15.0  #: seconds after which an unused connection is not trusted: the far end may be closing it
LARGEST: Final = 4 << 20  #: bytes of an answer


class NoConnection(ConnectionError):
    """Nobody there, or not who was expected: nothing has left."""


class Broken(ConnectionError):
    """What came back is no HTTP, is too much, or ended early. The request has left."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, whole. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Lines:
    """A pool of connections to one address; opened when needed, the last used one first."""

    url: str
    timeout: float  #: seconds to connect, and as many from a request to the end of its answer
    _at: SplitResult = field(init=False, repr=False)
    _tls: ssl.SSLContext | None = field(init=False, default=None, repr=False)
    _idle: deque[_Line] = field(init=False, default_factory=deque, repr=False)
    _is_closed: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        """Nothing is connected yet."""
        self._at = urlsplit(self.url.rstrip("/"))
        if self._at.scheme == "https":
            self._tls = ssl.create_default_context()

    async def ask(self, method: str, target: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        """Send one request and hear its answer.

        Args:
            method: such as POST.
            target: path and query, percent-encoded.
            headers: but Host and Content-Length.
            body: None: none.

        Raises:
            NoConnection: nothing has left.
            Broken, OSError: the request has left, or a part of it, and there is no whole answer.
            TimeoutError: the same.

        """
        line = self._take() or await self._connect()
        try:
            async with asyncio.timeout(self.timeout):
                answer = await line.ask(self._request(method, target, headers, body))
        except BaseException:  # cancelled, too: the answer to this request must not be taken for that of the next
            line.abort()
            raise
        self._give_back(line)
        return answer

    def close(self) -> None:
        """Close what is idle; what is under way closes at its end."""
        self._is_closed = True
        while self._idle:
            self._idle.pop().close()

    def _request(self, method: str, target: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
        own = {"Host": self._at.netloc.rpartition("@")[2]}
        if body is not None:
            own["Content-Length"] = str(len(body))
        fields = "".join(f"{name}: {value}\r\n" for name, value in {**headers, **own}.items())
        head = f"{method} {self._at.path}{target} HTTP/1.1\r\n{fields}\r\n".encode("latin-1")
        if head.count(b"\n") != len(headers) + len(own) + 2:
            raise ValueError("a header or a target holds an end of line")
        return head + (body or b"")

    async def _connect(self) -> _Line:
        loop = asyncio.get_running_loop()
        port = self._at.port or (443 if self._tls else 80)
        try:
            async with asyncio.timeout(self.timeout):
                _, line = await loop.create_connection(
                    lambda: _Line(loop), self._at.hostname or "", port, ssl=self._tls
                )
        except (OSError, UnicodeError) as error:  # of TLS, too, and the timeout
            raise NoConnection(type(error).__name__) from None
        return line

    def _take(self) -> _Line | None:
        while self._idle:
            line = self._idle.pop()
            if line.is_fresh():
                return line
            line.close()
        return None

    def _give_back(self, line: _Line) -> None:
        if self._is_closed or not line.may_be_used_again():
            line.close()
        else:
            self._idle.append(line)


class _Line(asyncio.Protocol):
    """One connection. The methods that begin with `on_` are called by the parser."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._wire: asyncio.Transport
        from httptools import HttpResponseParser

        self._parser = HttpResponseParser(self)
        self._whole: asyncio.Future[Answer] | None = None
        self._headers: dict[str, str] = {}
        self._body = bytearray()
        self._is_open = False
        self._is_kept = False  #: as the last answer says
        self._used_at = loop.time()

    async def ask(self, request: bytes) -> Answer:
        """One request, one answer. Nothing else is under way."""
        if not self._is_open:
            raise NoConnection("closed")
        self._whole = self._loop.create_future()
        self._wire.write(request)
        return await self._whole

    def is_fresh(self) -> bool:
        """Open, and used so lately that the far end will not be closing it just now."""
        return self._is_open and self._loop.time() - self._used_at < IDLE

    def may_be_used_again(self) -> bool:
        """After an answer: both ends keep it open, and nothing more has come than was asked for."""
        return self._is_open and self._is_kept

    def close(self) -> None:
        """Say goodbye."""
        self._wire.close()

    def abort(self) -> None:
        """Without a goodbye, and what still comes is not heard."""
        self._whole = None
        self._is_open = False
        self._wire.abort()

    # What the event loop says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire = transport  # type: ignore[assignment]  # the protocol's base class says less than there is
        self._is_open = True

    def data_received(self, data: bytes) -> None:
        if self._whole is None or self._whole.done():  # nobody has asked
            self.abort()
            return
        from httptools import HttpParserError

        try:
            self._parser.feed_data(data)
        except HttpParserError as error:
            self._fail(Broken(type(error).__name__))

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_open = False
        self._fail(Broken(type(exc).__name__ if exc else "closed"))

    # What the parser says

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body += body
        if len(self._body) > LARGEST:
            self._fail(Broken("too large"))

    def on_message_complete(self) -> None:
        status, headers, body = self._parser.get_status_code(), self._headers, bytes(self._body)
        self._headers, self._body = {}, bytearray()
        if status < 200 or self._whole is None:  # 1xx: the answer is still to come
            return
        self._used_at, self._is_kept = self._loop.time(), self._parser.should_keep_alive()
        if self._whole.done():  # an answer that nobody has asked for
            self._is_open = False
        else:
            self._whole.set_result(Answer(status, headers, body))

    def _fail(self, error: Broken) -> None:
        if self._whole is not None and not self._whole.done():
            self._whole.set_exception(error)
