"""The mail catcher: an SMTP server on this machine that takes every mail and delivers none.

It stands where a relay stands in production, and plays that relay's moods for the addresses of `simulators`.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, AnyStr, assert_never

from aiosmtpd.smtp import SMTP, Envelope, Session, syntax

from notifier.sandbox.mails import Inbox, Mail
from notifier.sandbox.reading import read_headers
from notifier.sandbox.simulators import CutLine, RefuseContent, RefuseRecipient, Simulator, Take, choose, find

HOSTNAME = "sandbox.notifier.test"
MOST_BYTES = 25 * 1024 * 1024  #: of one mail; offered as SIZE (RFC 1870)
REMEMBERED = 20_000  #: Message-IDs that were greylisted
PLAIN_PATH = re.compile(r"<([\w.!#$%&'*+/=?^`{|}~-]+@[\w.-]+)>(.*)")
END = b"\r\n.\r\n"

logging.getLogger("mail.log").setLevel(logging.ERROR)  # aiosmtpd writes addresses into its log (I5)


class Catcher:
    """Takes mail over SMTP, keeps it in the inbox, and says so to whoever reports it on."""

    def __init__(self, inbox: Inbox, report: Callable[[Mail], None], *, pace: float = 1.0) -> None:
        self._inbox = inbox
        self._report = report
        self._pace = pace  #: how long simulated waits last, compared with the table
        self._greylisted: OrderedDict[str, None] = OrderedDict()
        self._lines: set[Line] = set()
        self._server: asyncio.Server | None = None

    async def listen(self, host: str, port: int) -> int:
        """Open the door; returns the port, which the kernel picks for 0. Raises OSError when it is taken."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Line(self, self._lines, loop), host, port)
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Close the door and every line."""
        if self._server is not None:
            self._server.close()
            for line in list(self._lines):
                line.hang_up()
            await self._server.wait_closed()

    # aiosmtpd calls what is named handle_*

    async def handle_EHLO(  # noqa: N802
        self, line: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        """Offer what Notifier's client makes use of."""
        del line, envelope
        session.host_name = hostname
        return [*responses[:-1], "250-PIPELINING", "250-ENHANCEDSTATUSCODES", responses[-1]]

    async def handle_RCPT(  # noqa: N802
        self, line: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Refuse the simulated recipients that are refused here."""
        del line, session
        simulator = find(address)
        if isinstance(simulator.behaviour, RefuseRecipient):
            self._inbox.refused[simulator.name] += 1
            return simulator.behaviour.reply
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 2.1.5 OK"

    async def decide(self, envelope: Envelope, simulator: Simulator, raw: bytes) -> str | None:
        """What to answer to the final dot; None closes the line."""
        match simulator.behaviour:
            case RefuseRecipient():
                raise AssertionError("it was refused at RCPT")
            case RefuseContent(reply=reply, only_once=only_once):
                if only_once and self._seen_before(envelope, raw):
                    return self._take(envelope, simulator, raw)
                self._inbox.refused[simulator.name] += 1
                return reply
            case CutLine():
                self._take(envelope, simulator, raw)
                return None
            case Take(wait=wait):
                reply = self._take(envelope, simulator, raw)
                if wait:
                    await asyncio.sleep(wait.total_seconds() * self._pace)
                return reply
            case unknown:
                assert_never(unknown)

    def _take(self, envelope: Envelope, simulator: Simulator, raw: bytes) -> str:
        mail = self._inbox.take(datetime.now(UTC), envelope.mail_from or "", envelope.rcpt_tos, raw, simulator)
        self._report(mail)
        return f"250 2.0.0 OK: queued as {mail.id}"

    def _seen_before(self, envelope: Envelope, raw: bytes) -> bool:
        known = read_headers(raw).message_id or f"{envelope.mail_from} {envelope.rcpt_tos}"
        if known in self._greylisted:
            return True
        self._greylisted[known] = None
        if len(self._greylisted) > REMEMBERED:
            self._greylisted.popitem(last=False)
        return False


class Line(SMTP):
    """One connection. aiosmtpd speaks SMTP; the end of a mail is read here, in one piece instead of line by line."""

    line_length_limit = MOST_BYTES + len(END)  # aiosmtpd gives it to the stream as its limit

    def __init__(self, catcher: Catcher, lines: set[Line], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            catcher,
            data_size_limit=MOST_BYTES,
            enable_SMTPUTF8=True,
            hostname=HOSTNAME,  # its default asks the resolver, for each connection
            ident="Notifier sandbox: nothing here reaches a real person",
            loop=loop,
        )
        self._catcher = catcher
        self._lines = lines

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the line, to close it at the end."""
        super().connection_made(transport)
        self._lines.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        """Forget it."""
        self._lines.discard(self)
        super().connection_lost(error)

    def hang_up(self) -> None:
        """Close the line: nothing that was pipelined behind it is obeyed."""
        if self._handler_coroutine is not None:
            self._handler_coroutine.cancel()
        if self.transport is not None:
            self.transport.close()

    async def push(self, status: AnyStr) -> None:
        """Answer. After a 421 the server closes the channel (RFC 5321 3.8)."""
        await super().push(status)
        if status[:3] in ("421", b"421"):
            self.hang_up()
            await asyncio.sleep(0)  # where the cancellation arrives

    @syntax("DATA")
    async def smtp_DATA(self, arg: str | None) -> None:  # noqa: N802
        """Read a mail to its final dot and answer as the recipient's simulator wants it."""
        envelope = await self._ready_for_data(arg)
        if envelope is None:
            return
        simulator = choose(envelope.rcpt_tos)
        if simulator.behaviour == CutLine(after_dot=False):
            self.hang_up()
            return
        await self.push("354 End data with <CR><LF>.<CR><LF>")
        raw = await self._content()
        if raw is None:
            await self.push("552 5.3.4 Message too big")
            self.hang_up()
            return
        reply = await self._catcher.decide(envelope, simulator, raw)
        self._set_post_data_state()  # type: ignore[no-untyped-call]  # aiosmtpd types it in part
        if reply is None:
            self.hang_up()
        else:
            await self.push(reply)

    def _getaddr(self, arg: str) -> tuple[str | None, str | None]:
        """Plain addresses, which is nearly all, without the grammar of RFC 5322: it costs more than all else here."""
        plain = PLAIN_PATH.fullmatch(arg)
        return (plain[1], plain[2]) if plain else super()._getaddr(arg)

    async def _ready_for_data(self, arg: str | None) -> Envelope | None:
        if await self.check_helo_needed():
            return None
        if arg:
            await self.push("501 5.5.4 Syntax: DATA")
        elif self.envelope is None or not self.envelope.mail_from:
            await self.push("503 5.5.1 MAIL comes first")
        elif not self.envelope.rcpt_tos:
            await self.push("554 5.5.1 No valid recipients")  # RFC 2920 3.1
        else:
            return self.envelope
        return None

    async def _content(self) -> bytes | None:
        """The mail with its transparency dots removed (RFC 5321 4.5.2), or None when it is too big.

        A line end is put before what the client sends: so the end of an empty mail is found like any other.
        """
        # StreamReader has no public way to put bytes back.
        buffer: Any = self._reader._buffer  # type: ignore[attr-defined]  # noqa: SLF001
        buffer[:0] = b"\r\n"
        try:
            stuffed = await self._reader.readuntil(END)
        except asyncio.LimitOverrunError:
            return None
        return stuffed[: -len(b".\r\n")].replace(b"\r\n.", b"\r\n")[2:]
