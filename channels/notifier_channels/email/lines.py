"""The lines to a relay: opened when they are needed, kept between batches, never more at once than was asked for."""

from __future__ import annotations

import asyncio
import ssl
from typing import NoReturn

from notifier_channels.contract import Misconfigured, Outcome, Unavailable
from notifier_channels.email.connection import CannotOpen, Connection
from notifier_channels.email.relay import Relay, Tls
from notifier_channels.email.replies import redact


class Lines:
    """The pool: at most so many lines at once, each used by one batch at a time."""

    def __init__(self, relay: Relay, size: int) -> None:
        self.size = size
        self.are_closed = False
        self._relay = relay
        self._free = asyncio.Semaphore(size)
        self._idle: list[Connection] = []

    async def take(self) -> Connection:
        """A line that is ready for mail: the one last used, else a new one.

        Raises:
            CannotOpen: with the outcome for whatever waits.

        """
        await self._free.acquire()
        try:
            return self._last_used() or await self._open()
        except BaseException:
            self._free.release()
            raise

    def give_back(self, connection: Connection) -> None:
        """Keep it for the next batch, if it is still good for one."""
        if connection.is_usable and not self.are_closed:
            self._idle.append(connection)
        else:
            connection.quit()
        self._free.release()

    async def close(self) -> None:
        """Say goodbye on every line, and wait a little for those in use to come back."""
        self.are_closed = True
        while self._idle:
            self._idle.pop().quit()
        returned = 0
        try:
            async with asyncio.timeout(self._relay.timeouts.close):
                while returned < self.size:
                    await self._free.acquire()
                    returned += 1
        except TimeoutError:
            pass  # its batch has been told to stop, and cuts the line when its time is over
        finally:
            for _ in range(returned):
                self._free.release()

    def _last_used(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable:
                return connection
            connection.quit()
        return None

    async def _open(self) -> Connection:
        if self.are_closed:
            raise CannotOpen(Unavailable("closed", "the provider was closed"))
        return await connect(self._relay)


async def connect(relay: Relay) -> Connection:
    """Open a line that is ready for mail.

    Raises:
        CannotOpen: with the outcome for whatever waits.

    """
    connection = Connection(relay)
    try:
        await _dial(connection)
        await connection.greet()
    except BaseException as problem:
        connection.listen(None)
        connection.lose(Unavailable("closed"))
        if isinstance(problem, OSError):
            _explain(problem)
        raise
    return connection


async def _dial(connection: Connection) -> None:
    relay = connection.relay
    context = relay.context if relay.tls is Tls.IMPLICIT else None
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(relay.timeouts.connect + (relay.timeouts.tls if context else 0)):
            await loop.create_connection(
                lambda: connection,
                relay.host,
                relay.port,
                ssl=context,
                server_hostname=relay.host if context else None,
                ssl_handshake_timeout=relay.timeouts.tls if context else None,
            )
    except TimeoutError:
        raise CannotOpen(
            Unavailable("timeout:connect", "the relay could not be reached in time", is_away=True)
        ) from None


def _explain(problem: OSError) -> NoReturn:
    """Whose fault it is: a certificate is for a person to mend, a network comes back by itself."""
    match problem:
        case ssl.SSLCertVerificationError():
            why: Outcome = Misconfigured("certificate", f"the relay's certificate: {problem.verify_message}")
        case ssl.SSLEOFError() | ssl.SSLZeroReturnError():
            why = Unavailable("tls", "the relay closed the connection during the TLS handshake", is_away=True)
        case ssl.SSLError():
            why = Misconfigured("tls", f"no TLS with the relay: {problem.reason}")
        case TimeoutError():
            why = Unavailable("timeout:connect", "the relay could not be reached in time", is_away=True)
        case ConnectionError():
            why = Unavailable("connect", f"the connection failed: {type(problem).__name__}", is_away=True)
        case _:
            reason = redact(problem.strerror or "no route")
            why = Unavailable("connect", f"the relay could not be reached: {reason}", is_away=True)
    raise CannotOpen(why) from None
