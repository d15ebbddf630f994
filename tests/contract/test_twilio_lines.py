"""The connections to Twilio's API: one answer for each request, and never the answer to another one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from notifier_channels.sms import lines
from notifier_channels.sms.lines import Broken, Lines

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Far:
    """A server that says to each request what the test wants, and what it has seen."""

    url: str = ""
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)


@asynccontextmanager
async def far_end(answer: Callable[[int], bytes | None]) -> AsyncIterator[Far]:
    """`answer` is asked with the number of the request; None: no answer, the connection stays open."""
    far = Far()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far.connections += 1
        far.writers.append(writer)
        try:
            while True:
                far.requests.append(await reader.readuntil(b"\r\n\r\n"))
                if (said := answer(len(far.requests))) is not None:
                    writer.write(said)
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    far.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/base/"
    try:
        yield far
    finally:
        server.close()
        for writer in far.writers:
            writer.close()


async def get(to: Lines, target: str = "/x"):
    return await to.ask("GET", target, {"Accept": "text/plain"}, None)


async def test_a_connection_is_used_again_and_says_what_it_must():
    async with far_end(lambda _: OK) as far:
        to = Lines(far.url, 5)
        for _ in range(3):
            assert (await get(to, "/x?a=b")).body == b"ok"
        to.close()
    assert far.connections == 1
    host = far.url.split("/")[2].encode()
    assert far.requests[0] == b"GET /base/x?a=b HTTP/1.1\r\nAccept: text/plain\r\nHost: " + host + b"\r\n\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\nRetry-After: 7\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nretry-after: 7\r\nContent-Length: 2\r\n\r\nok",
    ],
)
async def test_every_form_of_an_answer_is_read_whole(answer):
    async with far_end(lambda _: answer) as far:
        to = Lines(far.url, 5)
        for _ in range(2):
            said = await get(to)
            assert (said.status, said.headers["retry-after"], said.body) == (201, "7", b"ok")
        to.close()
    assert far.connections == 1


@pytest.mark.parametrize("goodbye", [b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", OK + OK])
async def test_a_connection_that_is_not_clean_is_not_used_again(goodbye):
    async with far_end(lambda _: goodbye) as far:
        to = Lines(far.url, 5)
        for _ in range(2):
            assert (await get(to)).status == 200
        to.close()
    assert far.connections == 2


async def test_a_connection_that_the_far_end_has_closed_meanwhile_costs_nothing():
    async with far_end(lambda _: OK) as far:
        to = Lines(far.url, 5)
        await get(to)
        [idle] = to._idle
        far.writers[0].close()
        while idle._is_open:
            await asyncio.sleep(0)
        assert (await get(to)).status == 200
        to.close()
    assert far.connections == 2


async def test_a_connection_that_was_idle_for_long_is_not_trusted(monkeypatch):
    async with far_end(lambda _: OK) as far:
        to = Lines(far.url, 5)
        await get(to)
        monkeypatch.setattr(lines, "IDLE", 0.0)
        await get(to)
        to.close()
    assert far.connections == 2


async def test_what_is_said_unasked_is_no_answer_to_the_next_request():
    async with far_end(lambda _: OK) as far:
        to = Lines(far.url, 5)
        await get(to)
        [idle] = to._idle
        far.writers[0].write(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
        while idle._is_open:
            await asyncio.sleep(0)
        assert (await get(to)).status == 200
        to.close()
    assert far.connections == 2


async def test_the_answer_to_a_request_that_was_given_up_is_heard_by_nobody():
    async with far_end(lambda n: None if n == 1 else OK) as far:
        to = Lines(far.url, 5)
        given_up = asyncio.create_task(get(to))
        while not far.requests:
            await asyncio.sleep(0)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        far.writers[0].write(b"HTTP/1.1 500 Too late\r\nContent-Length: 0\r\n\r\n")
        assert (await get(to)).status == 200
        to.close()
    assert far.connections == 2


async def test_too_much_is_not_kept(monkeypatch):
    monkeypatch.setattr(lines, "LARGEST", 100)
    async with far_end(lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000) as far:
        to = Lines(far.url, 5)
        with pytest.raises(Broken, match="too large"):
            await get(to)
        to.close()


@pytest.mark.parametrize(("target", "value"), [("/x\r\nEvil: 1", "a"), ("/x", "a\r\nEvil: 1"), ("/x", "a\nb")])
async def test_no_end_of_line_gets_into_a_request(target, value):
    async with far_end(lambda _: OK) as far:
        to = Lines(far.url, 5)
        with pytest.raises(ValueError, match="end of line"):
            await to.ask("GET", target, {"Accept": value}, None)
        to.close()
    assert not far.requests


async def test_a_closed_pool_keeps_no_connection():
    async with far_end(lambda _: OK) as far:
        to = Lines(far.url, 5)
        to.close()
        await get(to)
        assert not to._idle
