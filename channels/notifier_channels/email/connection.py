"""One line to a relay, from the greeting until it is ready for mail: EHLO, TLS, AUTH; then whoever listens is told."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from dataclasses import replace
from typing import Protocol, cast

from notifier_channels.contract import Misconfigured, Outcome, Unavailable
from notifier_channels.email.mail import Features
from notifier_channels.email.relay import Relay, Tls
from notifier_channels.email.replies import NotSmtp, Reply, ReplyReader, Verb, outcome


class CannotOpen(Exception):
    """There is no line to the relay. Carries the outcome for every message that waits for it."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(type(outcome).__name__)
        self.outcome = outcome


class Listener(Protocol):
    """Who is told what happens on the line, synchronously."""

    @property
    def waits_for(self) -> str:
        """Which answer is due."""

    def heard(self, reply: Reply) -> None:
        """The server said something."""

    def lost(self, why: Unavailable) -> None:
        """The line is gone."""

    def crashed(self, bug: Exception) -> None:
        """Our own code failed on what was heard; the line is gone."""


class Connection(asyncio.Protocol):
    """A line to the relay. Not one byte of mail or of a password leaves before TLS stands, when TLS was asked for."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.features = Features()
        self.begun = 0  #: transactions
        self.needs_reset = False  #: the last one was refused, and a server may hold it open still
        self.is_lost = False
        self._transport: asyncio.Transport | None = None
        self._reader = ReplyReader()
        self._loop = asyncio.get_running_loop()
        self._greeting = _Answer(self, Verb.GREETING)
        self._listener: Listener | None = self._greeting  # the server may speak before anybody awaits it
        self._deadline: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._used_at = self._loop.time()

    # For whoever sends ------------------------------------------------------------------------------------------------

    @property
    def is_usable(self) -> bool:
        """True while another transaction may begin on it."""
        is_quiet = self._listener is None and self._reader.is_clean and not self.is_lost
        return is_quiet and not self.is_full and self._loop.time() - self._used_at < self.relay.timeouts.idle

    @property
    def is_full(self) -> bool:
        """True when it has carried as many mails as it may."""
        return self.begun >= self.relay.messages_per_connection

    def listen(self, listener: Listener | None) -> None:
        """Change who is told."""
        self._listener = listener
        self._used_at = self._loop.time()
        if listener is None:
            self._deadline = None

    def write(self, data: bytes, seconds: float) -> None:
        """Send, and expect to hear something in time."""
        if self._transport is not None and not self.is_lost:
            self._transport.write(data)
            self.expect(seconds)

    def expect(self, seconds: float) -> None:
        """Lose the line when nothing is heard in time. A later deadline is cheap: the timer moves when it fires."""
        self._deadline = self._loop.time() + seconds
        if self._timer is None or self._deadline < self._timer.when():
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(self._deadline, self._check_time)

    def quit(self) -> None:
        """Say goodbye and close, without waiting to be heard."""
        if self._transport is not None and not self.is_lost:
            self._listener = None
            self._transport.write(b"QUIT\r\n")
            self._transport.close()
            self._end()

    def lose(self, why: Unavailable) -> None:
        """Cut the line: what the server has not seen whole, it must not take."""
        if self.is_lost:
            return
        self._end()
        if self._transport is not None:
            self._transport.abort()
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.lost(why)

    # asyncio.Protocol -------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The line stands; the server speaks first."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Tell each whole reply to whoever listens."""
        try:
            for reply in self._reader.feed(data):
                if self.is_lost:
                    return
                if self._listener is None:  # said without being asked, such as 421 on an idle line
                    self.lose(Unavailable("protocol", "the relay spoke out of turn"))
                else:
                    self._listener.heard(reply)
        except NotSmtp as problem:
            self.lose(Unavailable("protocol", f"the relay sent {problem}"))
        except Exception as bug:  # noqa: BLE001  # asyncio would only log it; whoever called `send` must get it
            listener, self._listener = self._listener, None
            self.lose(Unavailable("bug"))
            if listener is not None:
                listener.crashed(bug)

    def connection_lost(self, exc: Exception | None) -> None:
        """The server or the network cut the line."""
        self.lose(Unavailable("closed", "the relay closed the connection" if exc is None else "the line broke"))

    def _check_time(self) -> None:
        self._timer = None
        if self._deadline is None or self._listener is None:
            return
        if self._loop.time() < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._check_time)
        else:
            verb = self._listener.waits_for
            self.lose(Unavailable(f"timeout:{verb}", f"no answer to {verb} in time"))

    def _end(self) -> None:
        self.is_lost = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # Opening ----------------------------------------------------------------------------------------------------------

    async def greet(self) -> None:
        """From the server's first word until it is ready for mail."""
        self.expect(self.relay.timeouts.greeting)
        self._accept(await self._greeting.future, Verb.GREETING)
        await self._say_hello()
        if self.relay.tls is Tls.STARTTLS:
            await self._start_tls()
            await self._say_hello()  # what was said in the clear counts for nothing (RFC 3207 4.2)
        if self.relay.credentials is not None:
            await self._authenticate(*self.relay.credentials)

    async def _say_hello(self) -> None:
        reply = await self._ask(f"EHLO {self.relay.hello}\r\n".encode(), Verb.EHLO)
        self.features = Features.parse(reply.text)

    async def _start_tls(self) -> None:
        if not self.features.starttls:
            raise CannotOpen(Misconfigured("tls", "the relay does not offer STARTTLS, and TLS was asked for"))
        await self._ask(b"STARTTLS\r\n", Verb.STARTTLS)
        if self._transport is None or not self._reader.is_clean:  # RFC 3207 6: it was put there by somebody else
            raise CannotOpen(Unavailable("protocol", "the relay spoke behind its answer to STARTTLS"))
        upgraded = await self._loop.start_tls(
            self._transport,
            self,
            self.relay.context,
            server_hostname=self.relay.host,
            ssl_handshake_timeout=self.relay.timeouts.tls,
        )
        if upgraded is None or self.is_lost:
            raise CannotOpen(Unavailable("tls", "the relay closed the connection during the TLS handshake"))
        self._transport = upgraded

    async def _authenticate(self, user: str, password: str) -> None:
        if "PLAIN" in self.features.mechanisms:
            command, answers = b"AUTH PLAIN " + _base64(f"\0{user}\0{password}"), []
        elif "LOGIN" in self.features.mechanisms:
            command, answers = b"AUTH LOGIN", [password, user]
        else:
            raise CannotOpen(Misconfigured("auth", "the relay offers neither AUTH PLAIN nor AUTH LOGIN"))
        reply = await self._ask(command + b"\r\n", Verb.AUTH)
        while reply.code == 334 and answers:
            reply = await self._ask(_base64(answers.pop()) + b"\r\n", Verb.AUTH)
        if reply.code != 235:
            raise CannotOpen(Misconfigured("auth", f"the relay answered the password with {reply.code}"))

    async def _ask(self, command: bytes, verb: Verb) -> Reply:
        answer = _Answer(self, verb)
        if self.is_lost:
            raise CannotOpen(Unavailable("closed", "the relay closed the connection"))
        self.listen(answer)
        self.write(command, self.relay.timeouts.command)
        return self._accept(await answer.future, verb)

    def _accept(self, reply: Reply, verb: Verb) -> Reply:
        self.listen(None)
        if self.is_lost:
            raise CannotOpen(Unavailable("protocol", "the relay spoke out of turn"))
        if reply.code // 100 == 2 or (reply.code == 334 and verb is Verb.AUTH):
            return reply
        raise CannotOpen(outcome(reply, verb, self.relay.credentials or ()))


class _Answer:
    """Waits for one reply, and for no more."""

    def __init__(self, connection: Connection, waits_for: Verb) -> None:
        self.waits_for: str = waits_for
        self.future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._connection = connection

    def heard(self, reply: Reply) -> None:
        if self.future.done():
            self._connection.lose(Unavailable("protocol", "the relay spoke out of turn"))
        else:
            self.future.set_result(reply)

    def lost(self, why: Unavailable) -> None:
        """A relay that is silent before the first mail is silent for every mail."""
        is_silent = why.code.startswith("timeout:")
        self.crashed(CannotOpen(replace(why, is_away=True) if is_silent else why))

    def crashed(self, bug: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(bug)


def _base64(text: str) -> bytes:
    return b64encode(text.encode())
