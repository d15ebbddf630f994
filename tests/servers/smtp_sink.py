"""The far end of the wire in tests: an SMTP server that writes down what it accepts, and misbehaves on request.

It stands in a process of its own (`python -m tests.servers.smtp_sink --port 0 --log FILE`) or inside a test
(`async with Sink() as sink`). What it wrote to its log before it answered 250 is the truth that tests count from.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import random
import re
import signal
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

FEATURES = ("PIPELINING", "SIZE 10485760", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES")

END_OF_DATA = {  # what a server takes for the end of a mail; all but the first are wrong, and exist (SMTP smuggling)
    "strict": rb"\r\n\.\r\n",
    "lf.lf": rb"\n\.\r?\n",
    "lf.crlf": rb"\n\.\r\n",
    "crlf.lf": rb"\r\n\.\r?\n",
    "cr.cr": rb"\r\n\.\r\n|\r\.\r",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to misbehave, and when.

    `at`: banner, ehlo, starttls, auth, mail, rcpt, data, body (the mail's first bytes), dot, rset or quit.
    """

    at: str
    reply: str = ""  #: what is said instead, e.g. `451 4.3.0 later`; empty: nothing
    then: str = "go on"  #: `go on`, `close` (the line is cut) or `stall` (nothing is ever said again)
    taken: bool = False  #: at dot: the message is accepted and logged before this happens
    every: int = 1  #: strikes each nth time that it could
    after: int = 0  #: leaves the first n alone
    times: int | None = None  #: at most so often
    rate: float = 1.0  #: strikes with this probability (the sink's seed decides)
    match: str = ""  #: only when the command holds this text


@dataclass(frozen=True, slots=True)
class Accepted:
    """A message that the sink answered with 250."""

    id: str  #: left part of its Message-ID
    sender: str
    recipient: str
    data: bytes  #: after dot-unstuffing
    connection: int


@dataclass(eq=False)
class Sink:
    """An SMTP server on loopback. Plain by default; see the fields for what else it can be."""

    host: str = "127.0.0.1"
    port: int = 0
    features: tuple[str, ...] = FEATURES
    faults: tuple[Fault, ...] = ()
    log: Path | None = None
    fsync: bool = False
    delay: float = 0.0  #: seconds between the log line and its 250
    tls: ssl.SSLContext | None = None
    implicit_tls: bool = False
    offers_starttls: bool = True  #: False with a context: somebody on the way strips STARTTLS
    said_with_starttls: bytes = b""  #: plaintext injected behind the 220 of STARTTLS
    credentials: tuple[str, str] | None = None
    mechanisms: str = "PLAIN LOGIN"
    end_of_data: str = "strict"
    data_without_recipients: bool = False  #: answers DATA with 354 although every RCPT was refused (RFC 2920 3.1)
    seed: int = 0
    keep: bool = True  #: keep messages and transcripts in memory

    accepted: list[Accepted] = field(default_factory=list)
    sessions: list[Session] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    on_dot: Callable[[str], None] | None = None  #: called with the id when a mail's end has been seen
    count: int = 0
    connections: int = 0

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._random = random.Random(self.seed)
        self._strikes = [[0, 0] for _ in self.faults]
        self._log = -1 if self.log is None else os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._live: set[Session] = set()
        self._changed = asyncio.Event()
        context = self.tls if self.implicit_tls else None
        self._server = await loop.create_server(lambda: Session(self), self.host, self.port, ssl=context, backlog=512)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for session in list(self._live):
            session.transport.abort()
        await self._server.wait_closed()
        await self.until_quiet()
        if self._log >= 0:
            os.close(self._log)

    async def change(self) -> None:
        """Wait until a message was accepted, or a session began or ended."""
        self._changed.clear()
        await self._changed.wait()

    async def until_quiet(self) -> None:
        """Wait until every session has ended."""
        while self._live:
            await self.change()

    def say_to_all(self, line: str, *, close: bool = True) -> None:
        """Say something that nobody asked for, such as `421 4.3.2 shutting down`."""
        for session in list(self._live):
            session.say(line)
            if close:
                session.transport.close()

    def cut_all(self) -> None:
        for session in list(self._live):
            session.transport.abort()

    def strike(self, at: str, command: str) -> Fault | None:
        for fault, strikes in zip(self.faults, self._strikes, strict=True):
            if fault.at != at or fault.match not in command:
                continue
            strikes[0] += 1
            due = strikes[0] > fault.after and (strikes[0] - fault.after) % fault.every == 0
            if due and (fault.times is None or strikes[1] < fault.times) and self._random.random() < fault.rate:
                strikes[1] += 1
                return fault
        return None

    def take(self, session: Session, data: bytes) -> str:
        """Accept a mail: its line is in the log before anything is said about it."""
        found = re.search(rb"(?im)^message-id:\s*<([^@>\s]*)", data[:20000])
        message_id = found.group(1).decode() if found else "-"
        for recipient in session.recipients:
            if self._log >= 0:
                os.write(self._log, f"{message_id} {recipient} {time.monotonic_ns()}\n".encode())
            if self.keep:
                self.accepted.append(Accepted(message_id, session.sender, recipient, data, session.number))
        if self._log >= 0 and self.fsync:
            os.fsync(self._log)
        self.count += len(session.recipients)
        return message_id


class Session(asyncio.Protocol):
    """One connection, from banner to the end."""

    transport: asyncio.Transport

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.number = sink.connections
        sink.connections += 1
        self.clear = bytearray()  #: what came in the clear
        self.secure = bytearray()  #: what came inside TLS
        self.encrypted = sink.implicit_tls
        self.authenticated = False
        self.sender: str = ""
        self.recipients: list[str] = []
        self.has_mail = False
        self._buffer = bytearray()
        self._in_data = False
        self._searched = 0
        self._has_body = False
        self._silent = False  # stalled or closing
        self._busy = False  # an answer is delayed, or TLS is being set up
        self._login: list[str] | None = None
        self._end_of_data = re.compile(END_OF_DATA[sink.end_of_data])
        if sink.keep:
            sink.sessions.append(self)

    # asyncio.Protocol -------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.sink._live.add(self)
        self.sink._changed.set()
        if not self._struck("banner"):
            self.say("220 sink.test ESMTP")

    def connection_lost(self, _exc: Exception | None) -> None:
        self._silent = True
        self.sink._live.discard(self)
        self.sink._changed.set()

    def data_received(self, data: bytes) -> None:
        if self.sink.keep:
            (self.secure if self.encrypted else self.clear).extend(data)
        self._buffer += data
        self._work()

    # The conversation -------------------------------------------------------------------------------------------------

    def say(self, *lines: str) -> None:
        self.transport.write("".join(f"{line}\r\n" for line in lines).encode())

    def _work(self) -> None:
        while self._buffer and not (self._silent or self._busy):
            if self._in_data:
                if not self._read_data():
                    return
                continue
            end = self._buffer.find(b"\n")
            if end < 0:
                return
            line = bytes(self._buffer[:end]).rstrip(b"\r").decode("utf-8", "surrogateescape")
            del self._buffer[: end + 1]
            self._command(line)

    def _command(self, line: str) -> None:
        if self._login is not None:
            self._go_on_with_login(line)
            return
        verb = line.partition(" ")[0].upper()
        self._note_violations(verb)
        if self._struck(verb.lower(), line):
            return
        handler = getattr(self, f"_on_{verb.lower()}", None)
        if handler is None:
            self.say("502 5.5.1 what?")
        else:
            handler(line)

    def _note_violations(self, verb: str) -> None:
        must_wait = verb in {"EHLO", "DATA", "STARTTLS", "AUTH", "QUIT"} or "PIPELINING" not in self.sink.features
        if must_wait and self._buffer:
            self.sink.violations.append(f"{verb} was not the last of its group")

    def _struck(self, at: str, command: str = "") -> bool:
        fault = self.sink.strike(at, command)
        if fault is None:
            return False
        if fault.reply:
            self.say(*fault.reply.split("\n"))
        if fault.then != "go on":
            self._silent = True
        if fault.then == "close":
            self.transport.close()
        return True

    def _on_ehlo(self, _line: str) -> None:
        self._forget()
        features = list(self.sink.features)
        if self.sink.tls and self.sink.offers_starttls and not self.encrypted:
            features.append("STARTTLS")
        if self.sink.credentials:
            features.append(f"AUTH {self.sink.mechanisms}")
        lines = ["sink.test", *features]
        self.say(*(f"250-{text}" for text in lines[:-1]), f"250 {lines[-1]}")

    def _on_starttls(self, _line: str) -> None:
        if self.sink.tls is None:
            self.say("454 4.7.0 TLS not available")
            return
        self._busy = True
        self._buffer.clear()  # RFC 3207 4.2: what came before TLS is forgotten
        self.transport.write(b"220 2.0.0 go ahead\r\n" + self.sink.said_with_starttls)
        self._upgrade = asyncio.get_running_loop().create_task(self._start_tls(self.sink.tls))

    async def _start_tls(self, context: ssl.SSLContext) -> None:
        self.encrypted = True  # from here on only what was inside TLS reaches this protocol
        loop = asyncio.get_running_loop()
        try:
            transport = await loop.start_tls(self.transport, self, context, server_side=True)
        except (OSError, ssl.SSLError):
            return
        if transport is not None:
            self.transport = transport
            self.authenticated = False
            self._busy = False
            self._forget()
            self._work()

    def _on_auth(self, line: str) -> None:
        _, mechanism, *initial = line.split(" ")
        if mechanism.upper() == "PLAIN" and initial:
            self._judge(tuple(base64.b64decode(initial[0]).decode().split("\0")[1:]))
        elif mechanism.upper() == "LOGIN":
            self._login = []
            self.say("334 VXNlcm5hbWU6")
        else:
            self.say("504 5.5.4 unknown mechanism")

    def _go_on_with_login(self, line: str) -> None:
        assert self._login is not None
        self._login.append(base64.b64decode(line).decode())
        if len(self._login) == 1:
            self.say("334 UGFzc3dvcmQ6")
        else:
            answers, self._login = tuple(self._login), None
            self._judge(answers)

    def _judge(self, credentials: tuple[str, ...]) -> None:
        self.authenticated = credentials == self.sink.credentials
        self.say("235 2.7.0 welcome" if self.authenticated else "535 5.7.8 no such user or password")

    def _on_mail(self, line: str) -> None:
        if self.sink.credentials and not self.authenticated:
            self.say("530 5.7.0 authentication required")
        elif self.has_mail:
            self.say("503 5.5.1 nested MAIL")
        else:
            self.sender, self.has_mail = _path(line), True
            self.say("250 2.1.0 ok")

    def _on_rcpt(self, line: str) -> None:
        if not self.has_mail:
            self.say("503 5.5.1 MAIL first")
            return
        self.recipients.append(_path(line))
        self.say("250 2.1.5 ok")

    def _on_data(self, _line: str) -> None:
        if not self.has_mail or not (self.recipients or self.sink.data_without_recipients):
            self.say("503 5.5.1 no valid recipients")
            return
        self._in_data, self._searched, self._has_body = True, 0, False
        self._buffer[:0] = b"\r\n"  # so that a dot on the first line is found like any other
        self.say("354 go on")

    def _on_rset(self, _line: str) -> None:
        self._forget()
        self.say("250 2.0.0 forgotten")

    def _on_noop(self, _line: str) -> None:
        self.say("250 2.0.0 ok")

    def _on_quit(self, _line: str) -> None:
        self._silent = True
        self.say("221 2.0.0 bye")
        self.transport.close()

    # The mail itself --------------------------------------------------------------------------------------------------

    def _read_data(self) -> bool:
        """Look for the end of the mail. False: it is not there yet."""
        if not self._has_body and len(self._buffer) > 2:
            self._has_body = True
            if self._struck("body"):
                return False
        end = self._end_of_data.search(self._buffer, max(0, self._searched - 4))
        if end is None:
            self._searched = len(self._buffer)
            return False
        start = end.start()
        data = bytes(self._buffer[: start + end.group().index(b".")]).replace(b"\r\n..", b"\r\n.")[2:]
        del self._buffer[: end.end()]
        self._in_data = False
        self._end(data)
        return True

    def _end(self, data: bytes) -> None:
        if not self.recipients:
            self.say("554 5.5.1 no valid recipients")
            self._forget()
            return
        fault = self.sink.strike("dot", self.recipients[0])
        message_id = self.sink.take(self, data) if fault is None or fault.taken else ""
        self._forget()
        if self.sink.on_dot:
            self.sink.on_dot(message_id)
        self._busy = self.sink.delay > 0
        if self._busy:
            asyncio.get_running_loop().call_later(self.sink.delay, self._answer, fault)
        else:
            self._answer(fault)
        self.sink._changed.set()

    def _answer(self, fault: Fault | None) -> None:
        resumes, self._busy = self._busy, False
        if self._silent:
            return
        if fault is None:
            self.say(f"250 2.0.0 Ok: queued as {self.sink.count:X}")
        else:
            if fault.reply:
                self.say(*fault.reply.split("\n"))
            self._silent = fault.then != "go on"
            if fault.then == "close":
                self.transport.close()
        if resumes:
            self._work()

    def _forget(self) -> None:
        self.sender, self.recipients, self.has_mail = "", [], False


def _path(line: str) -> str:
    found = re.search(r":\s*<([^>]*)>", line)
    return found.group(1) if found else line.partition(":")[2].split(" ")[0]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="An SMTP server that logs what it accepts. Prints its port, then runs."
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument(
        "--log", type=Path, help="append `<message id> <recipient> <monotonic ns>` here, before the 250"
    )
    parser.add_argument("--fsync", action="store_true")
    parser.add_argument("--no-pipelining", action="store_true")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds between the log line and its 250")
    parser.add_argument("--fault", action="append", default=[], help='JSON, e.g. {"at": "rcpt", "reply": "450 x"}')
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--certfile", type=Path, help="offer TLS with this certificate")
    parser.add_argument("--keyfile", type=Path)
    parser.add_argument("--implicit-tls", action="store_true")
    parser.add_argument("--auth", metavar="USER:PASSWORD")
    return parser.parse_args()


def _sink(arguments: argparse.Namespace) -> Sink:
    context = None
    if arguments.certfile:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(arguments.certfile, arguments.keyfile)
    user, _, password = (arguments.auth or "").partition(":")
    return Sink(
        host=arguments.host,
        port=arguments.port,
        features=tuple(f for f in FEATURES if not (arguments.no_pipelining and f == "PIPELINING")),
        faults=tuple(Fault(**json.loads(text)) for text in arguments.fault),
        log=arguments.log,
        fsync=arguments.fsync,
        delay=arguments.delay,
        tls=context,
        implicit_tls=arguments.implicit_tls,
        credentials=(user, password) if user else None,
        seed=arguments.seed,
        keep=False,
    )


async def _main() -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with _sink(_arguments()) as sink:
        print(sink.port, flush=True)  # whoever started it reads this line
        await stopped.wait()


if __name__ == "__main__":
    try:
        import uvloop
    except ImportError:
        asyncio.run(_main())
    else:
        uvloop.run(_main())
