"""The receiver over a real socket: LMTP and SMTP, one mail at a time, nothing relayed, nothing lost, nothing told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import psycopg
import pytest

from notifier import receiver
from notifier.errors import NotConfigured
from notifier.receiver import MOST_BYTES, Receiver, run_receiver
from tests.servers.api import settings_for

pytestmark = pytest.mark.anyio

OURS = "b-token@in.acme.test"
opened: list[Client] = []


@dataclass
class Taker:
    taken: list[tuple[bytes, str, str | None]] = field(default_factory=list)
    error: Exception | None = None
    gate: asyncio.Event | None = None
    entered: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, raw: bytes, recipient: str, sender: str | None) -> None:
        self.entered.set()
        if self.gate:
            await self.gate.wait()
        if self.error:
            raise self.error
        self.taken.append((raw, recipient, sender))


@dataclass
class Client:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def answer(self) -> str:
        lines = []
        while True:
            line = (await self.reader.readline()).decode().rstrip()
            lines.append(line)
            if line[3:4] != "-":
                return "\n".join(lines)

    async def say(self, *commands: str | bytes) -> str:
        """Send each; the answer to the last."""
        answer = ""
        for command in commands:
            self.writer.write((command if isinstance(command, bytes) else command.encode()) + b"\r\n")
            answer = await self.answer()
        return answer

    async def send(self, raw: bytes, to: str = OURS, sender: str = "") -> str:
        await self.say(f"MAIL FROM:<{sender}>", f"RCPT TO:<{to}>", "DATA")
        return await self.say(raw + b"\r\n.")


@pytest.fixture
def taker() -> Taker:
    return Taker()


@pytest.fixture
async def door(taker: Taker) -> AsyncIterator[Receiver]:
    one = Receiver(taker, "In.Acme.test")
    one.address = await one.listen("127.0.0.1", 0)
    yield one
    await one.close()
    while opened:
        opened.pop().writer.close()


async def ring(door: Receiver) -> Client:
    host, _, port = door.address.rpartition(":")
    opened.append(client := Client(*await asyncio.open_connection(host, int(port))))
    return client


async def connect(door: Receiver, greeting: str | None = "EHLO mx.test") -> Client:
    client = await ring(door)
    await client.answer()
    if greeting:
        await client.say(greeting)
    return client


@pytest.mark.parametrize("greeting", ["LHLO mx.test", "EHLO mx.test", "HELO mx.test"])
async def test_a_mail_is_taken_over_lmtp_and_over_smtp(door, taker, greeting):
    client = await connect(door, greeting)
    assert (await client.send(b"Subject: x\r\n\r\n..dot\r\nend")).startswith("250")
    assert taker.taken == [(b"Subject: x\r\n\r\n.dot\r\nend\r\n", OURS, "<>")]


async def test_what_it_offers_is_size_and_smtputf8_and_no_login(door):
    client = await connect(door, None)
    offered = await client.say("LHLO mx.test")
    assert f"SIZE {MOST_BYTES}" in offered
    assert {"8BITMIME", "SMTPUTF8", "PIPELINING"} <= {line[4:] for line in offered.split("\n")}
    assert "AUTH" not in offered


@pytest.mark.parametrize("to", ["ann@example.com", "ann@in.acme.test.example.com", "ann", "x@sub.in.acme.test"])
async def test_nothing_is_relayed(door, taker, to):
    client = await connect(door)
    assert (await client.say("MAIL FROM:<>", f"RCPT TO:<{to}>")).startswith("55")
    assert taker.taken == []


async def test_every_address_of_the_domain_is_taken_in_whatever_case(door, taker):
    client = await connect(door)
    for to in ("B-TOKEN@IN.ACME.TEST", "nobody@in.acme.test", "postmaster@in.acme.test"):
        assert (await client.send(b"x", to)).startswith("250")
    assert len(taker.taken) == 3


async def test_a_mail_has_one_recipient_and_the_others_come_after_it(door, taker):
    client = await connect(door, "LHLO mx.test")
    assert (await client.say("MAIL FROM:<>", f"RCPT TO:<{OURS}>", "RCPT TO:<b@in.acme.test>")).startswith("452 4.5.3")
    assert (await client.say("DATA", b"x\r\n.")).startswith("250")
    assert [to for _, to, _ in taker.taken] == [OURS]


async def test_a_database_that_is_away_is_answered_with_later(door, taker):
    client = await connect(door)
    taker.error = psycopg.OperationalError("gone")
    assert (await client.send(b"x")).startswith("451 4.3.0")
    taker.error = None
    assert (await client.send(b"x")).startswith("250")


async def test_a_mistake_of_ours_loses_no_mail(door, taker):
    client = await connect(door)
    taker.error = ZeroDivisionError()
    assert (await client.send(b"x")).startswith("451 4.3.0")


async def test_a_line_longer_than_smtp_allows_is_taken(door, taker):
    client = await connect(door)
    assert (await client.send(b"x" * 100_000)).startswith("250")
    assert len(taker.taken[0][0]) == 100_002


async def test_a_mail_that_is_too_large_is_refused_before_and_after(monkeypatch, taker):
    monkeypatch.setattr(receiver, "MOST_BYTES", 10_000)
    door = Receiver(taker, "in.acme.test")
    door.address = await door.listen("127.0.0.1", 0)
    client = await connect(door)
    assert (await client.say("MAIL FROM:<> SIZE=20000")).startswith("552")
    assert (await client.send(b"\r\n".join([b"x" * 70] * 300))).startswith("552")
    assert taker.taken == []
    await door.close()
    client.writer.close()


async def test_one_line_too_many_is_told_to_come_later(monkeypatch, door):
    monkeypatch.setattr(receiver, "MOST_LINES", 2)
    first, _ = await connect(door), await connect(door)
    third = await ring(door)
    assert (await third.answer()).startswith("421")
    assert await third.reader.read() == b""
    first.writer.close()
    await first.writer.wait_closed()
    while len(door.lines) > 1:
        await asyncio.sleep(0)
    assert (await (await connect(door)).send(b"x")).startswith("250")


async def test_it_ends_after_the_mail_in_hand_is_answered(door, taker):
    taker.gate = asyncio.Event()
    client, idle = await connect(door), await connect(door)
    sending = asyncio.create_task(client.send(b"x"))
    await taker.entered.wait()
    closing = asyncio.create_task(door.close())
    await asyncio.sleep(0)
    assert not closing.done()
    taker.gate.set()
    assert (await sending).startswith("250")
    await closing
    assert await idle.reader.read() == b""


async def test_bytes_that_are_no_smtp_do_no_harm(door, taker):
    client = await connect(door, None)
    for junk in (b"\x00\xff\xfe", b"GET / HTTP/1.1", b"MAIL FROM:<<<>>>", b"RCPT TO:"):
        assert (await client.say(junk))[:1] in ("4", "5")
    assert (await (await connect(door)).send(b"x")).startswith("250")


async def test_a_port_that_is_taken_is_named(door):
    _, _, port = door.address.rpartition(":")
    with pytest.raises(NotConfigured, match=f"Port {port}"):
        await Receiver(Taker(), "in.acme.test").listen("127.0.0.1", int(port))


def test_without_a_domain_there_is_nothing_to_receive():
    with pytest.raises(NotConfigured, match="NOTIFIER_INBOUND_DOMAIN"):
        run_receiver(settings_for("postgresql://nowhere/none", "redis://127.0.0.1:1"), "127.0.0.1", 0, print)
