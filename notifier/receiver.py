"""The process that takes mail for our own addresses: LMTP for an MTA on this machine, and SMTP, on one port.

It relays nothing, answers with no mail, and says the same to whoever writes: what is not ours is taken and forgotten,
for a refusal would make the MTA before us send a bounce to an address that may be forged. Only when a mail cannot be
handled now is it refused, for a while, so that it comes again.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import structlog
from aiosmtpd.smtp import SMTP, Envelope, Session, syntax

from notifier.app import App
from notifier.errors import NotConfigured
from notifier.settings import Settings
from notifier.telemetry import where

log = structlog.get_logger(__name__)

HOSTNAME = "notifier.inbound"  #: in the greeting; aiosmtpd's default asks the resolver for each connection
MOST_BYTES = 10 * 1024 * 1024  #: of one mail; offered as SIZE (RFC 1870)
MOST_LINES = 100  #: connections at once; further ones are told to come later
IDLE = 300.0  #: seconds (RFC 5321 4.5.3.2.7)
AGAIN = "451 4.3.0 Not now; try again later"
ONE_AT_A_TIME = "452 4.5.3 One recipient for each mail"  # RFC 5321 4.5.3.1.10: the client sends the others after it

logging.getLogger("mail.log").setLevel(logging.ERROR)  # aiosmtpd writes addresses into its log (I5)

Take = Callable[[bytes, str, str | None], Awaitable[object]]


def run_receiver(settings: Settings, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Take mail until SIGTERM or SIGINT.

    Raises:
        NotConfigured: the domain is not set, the port is taken, or PostgreSQL does not answer.
        TemplateError: a template does not load.

    """
    if settings.inbound_domain is None:
        raise NotConfigured("NOTIFIER_INBOUND_DOMAIN: no mail comes back while it is empty; see docs/how-to/bounces.md")
    asyncio.run(_serve(settings, settings.inbound_domain, host, port, ready))


async def _serve(settings: Settings, domain: str, host: str, port: int, ready: Callable[[str], None]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        async with App.open(settings) as app:
            receiver = Receiver(app.inbound, domain)
            address = await receiver.listen(host, port)
            ready(address)
            await stop.wait()
            await receiver.close(settings.shutdown_seconds)
    except psycopg.OperationalError as error:
        raise NotConfigured(f"PostgreSQL does not answer ({type(error).__name__}): see DATABASE_URL.") from None


class Receiver:
    """The door, and what happens to each mail."""

    def __init__(self, take: Take, domain: str) -> None:
        self._take = take
        self._domain = domain.lower()
        self.lines: set[Line] = set()
        self._server: asyncio.Server | None = None

    async def listen(self, host: str, port: int) -> str:
        """Open the door; returns `host:port`, of which the kernel picks the port for 0.

        Raises:
            NotConfigured: the port is taken.

        """
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(lambda: Line(self, loop), host, port)
        except OSError as error:
            raise NotConfigured(
                f"Port {port} on {host} cannot be used ({error.strerror}): choose another --port, or --host."
            ) from None
        name, number = self._server.sockets[0].getsockname()[:2]
        return f"{f'[{name}]' if ':' in name else name}:{number}"

    async def close(self, patience: float = 5.0) -> None:
        """Take no more connections, let the mails in hand be answered, and close the lines."""
        if self._server is None:
            return
        self._server.close()
        busy = [line.answered.wait() for line in self.lines]
        try:
            async with asyncio.timeout(patience):
                await asyncio.gather(*busy)
        except TimeoutError:
            log.warning("inbound.cut_off", lines=len(self.lines))
        for line in list(self.lines):
            line.hang_up()
        await self._server.wait_closed()

    def is_ours(self, address: str) -> bool:
        """True for every address of the one domain: whether it is signed is nobody else's business."""
        return address.rpartition("@")[2].lower().rstrip(".") == self._domain

    # aiosmtpd calls what is named handle_*

    async def handle_EHLO(  # noqa: N802
        self, line: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        """Offer what an MTA makes use of."""
        del line, envelope
        session.host_name = hostname
        return [*responses[:-1], "250-PIPELINING", "250-ENHANCEDSTATUSCODES", responses[-1]]

    async def handle_RCPT(  # noqa: N802
        self, line: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """One recipient for each mail, of our domain: so that each is answered for by itself."""
        del line, session
        if not self.is_ours(address):
            return "550 5.7.1 Not relayed"
        if envelope.rcpt_tos:
            return ONE_AT_A_TIME
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 2.1.5 OK"

    async def handle_DATA(self, line: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Answer after the commit: 250 says that it is done with."""
        del line, session
        raw = envelope.original_content or b""
        try:
            await self._take(raw, envelope.rcpt_tos[0], envelope.mail_from or "")
        except psycopg.Error as error:
            log.error("inbound.not_saved", error=type(error).__name__)
            return AGAIN
        except Exception as error:  # noqa: BLE001  # a mistake of ours must not lose a mail
            log.error("inbound.broke", error=type(error).__name__, at=where(error))
            return AGAIN
        return "250 2.0.0 OK"


class Line(SMTP):
    """One connection. It speaks LMTP to whoever says LHLO (RFC 2033), and SMTP to the others."""

    line_length_limit = MOST_BYTES + 5  # a returned mail may have lines longer than SMTP allows

    def __init__(self, receiver: Receiver, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            receiver,
            data_size_limit=MOST_BYTES,
            enable_SMTPUTF8=True,  # RFC 6533
            hostname=HOSTNAME,
            ident="Notifier",
            timeout=IDLE,
            loop=loop,
        )
        self._receiver = receiver
        self.answered = asyncio.Event()  #: no mail is in hand
        self.answered.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the line; one too many is closed at once, and its client comes again."""
        if len(self._receiver.lines) >= MOST_LINES:
            closing: Any = transport
            closing.write(b"421 4.3.2 Too many connections; try again later\r\n")
            closing.close()
            return
        super().connection_made(transport)
        self._receiver.lines.add(self)

    def data_received(self, data: bytes) -> None:
        """Bytes of a line that was refused are left."""
        if self in self._receiver.lines:
            super().data_received(data)

    def eof_received(self) -> bool | None:
        """The same."""
        return super().eof_received() if self in self._receiver.lines else None

    def connection_lost(self, error: Exception | None) -> None:
        """Forget it."""
        if self in self._receiver.lines:
            self._receiver.lines.discard(self)
            self.answered.set()
            super().connection_lost(error)

    def hang_up(self) -> None:
        """Close the line."""
        if self.transport is not None:
            self.transport.close()

    @syntax("LHLO hostname")
    async def smtp_LHLO(self, arg: str) -> None:  # noqa: N802
        """The greeting of LMTP. With one recipient for each mail there is one answer, as in SMTP."""
        await super().smtp_EHLO(arg)

    @syntax("DATA")
    async def smtp_DATA(self, arg: str) -> None:  # noqa: N802
        """Read a mail to its final dot, and be busy meanwhile."""
        self.answered.clear()
        try:
            await super().smtp_DATA(arg)
        finally:
            self.answered.set()
