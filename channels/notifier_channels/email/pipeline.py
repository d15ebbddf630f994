"""Carrying mail over one open line: one round trip for each, and never more than one final dot without its answer.

The end of one mail and the envelope of the next leave together (RFC 2920):

    <body of A> . MAIL B RCPT B DATA      ->      250 (A is taken)  250  250  354 (B may follow)

Before the dot of B leaves, A has been answered and the witness told so, and the witness has been asked about B. Once
DATA is sent for a mail that must not go after all, only cutting the line takes it back.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from notifier_channels.contract import Ambiguous, Outcome, Unavailable
from notifier_channels.email.connection import Connection
from notifier_channels.email.mail import Mail
from notifier_channels.email.replies import Reply, Verb, outcome


class Source(Protocol):
    """Where mails come from and outcomes go to."""

    def take(self) -> Mail | None:
        """The next mail, or None when there is none left."""

    def prepare(self) -> None:
        """There is time: make the next mail now."""

    def give_back(self, mail: Mail) -> None:
        """Nothing of it was answered: it may go over another line."""

    def may_commit(self, mail: Mail) -> bool:
        """Asked before the final dot leaves. False: the source has given it an outcome."""

    def answered(self, mail: Mail, outcome: Outcome) -> None:
        """The final dot was answered."""

    def settle(self, mail: Mail, outcome: Outcome) -> None:
        """What came of a mail whose final dot was not sent, or not answered."""

    def crashed(self, bug: Exception) -> None:
        """Our own code failed."""


class Pipeline:
    """Carries mails from a source until there are no more, the line is full, or it is lost."""

    def __init__(self, connection: Connection, source: Source) -> None:
        self.has_carried = False  #: at least one mail was answered for good
        self.why_lost: Unavailable | None = None
        self._connection = connection
        self._source = source
        self._expected: deque[tuple[Callable[[Mail, Reply], None], Mail]] = deque()
        self._unsent: deque[tuple[bytes, Callable[[Mail, Reply], None]]] = deque()  # without PIPELINING
        self._committed: Mail | None = None  # its final dot is written
        self._proposed: Mail | None = None  # its envelope is written
        self._refusal: Outcome | None = None  # of the proposed one
        self._sender_was_taken = False
        self._is_answered = False  # at least one command of the proposed one
        self._is_proven = connection.begun == 0  # a line out of the pool may have died long ago
        self._finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Carry until the end. When cancelled, the line is cut, and what had no final dot is not sent."""
        self._connection.listen(self)
        try:
            self._propose()
            await self._finished
        finally:
            if not self._finished.done() or self._finished.cancelled():
                self._connection.listen(None)
                self._connection.lose(Unavailable("closed"))

    @property
    def waits_for(self) -> str:
        """The verb whose answer comes next."""
        handler = self._expected[0][0] if self._expected else self._propose
        return handler.__name__.removeprefix("_on_")

    # Listener ---------------------------------------------------------------------------------------------------------

    def heard(self, reply: Reply) -> None:
        """The server answered what was written first."""
        if reply.code == 421:  # the server closes, whatever it was asked (RFC 5321 3.8)
            self._server_closes(reply)
        elif self._expected:
            self._is_proven = True
            handler, mail = self._expected.popleft()
            handler(mail, reply)
        else:
            self._connection.lose(Unavailable("protocol", "the relay spoke out of turn"))

    def lost(self, why: Unavailable) -> None:
        """What has its final dot is in doubt; what has not is certainly not taken."""
        self.why_lost = why
        committed, self._committed = self._committed, None
        proposed, self._proposed = self._proposed, None
        if committed is not None:
            self._source.settle(committed, Ambiguous(why.code, why.detail))
        if proposed is not None:
            self._leave(proposed, why, is_bystander=committed is not None)
        self._finish()

    def crashed(self, bug: Exception) -> None:
        """Whoever called `send` gets it."""
        self._source.crashed(bug)
        self._finish()

    # One mail after the other -----------------------------------------------------------------------------------------

    def _propose(self, before: bytes = b"") -> None:
        """Write what is due and, in the same breath, the envelope of the next mail."""
        mail = self._next()
        if mail is None:
            if before:
                self._write(before)
            elif not self._expected:
                self._finish()
            return
        self._connection.begun += 1
        self._proposed, self._refusal, self._is_answered, self._sender_was_taken = mail, None, False, False
        steps = [
            (mail.mail_command(self._connection.features), self._on_mail),
            (mail.rcpt_command(), self._on_rcpt),
            (b"DATA\r\n", self._on_data),
        ]
        if self._connection.needs_reset:
            steps.insert(0, (b"RSET\r\n", self._on_rset))
            self._connection.needs_reset = False
        if self._connection.features.pipelining:
            self._expected.extend([(handler, mail) for _, handler in steps])
            self._write(b"".join([before, *[command for command, _ in steps]]))
        else:
            self._unsent.extend(steps)
            self._send_next(mail)

    def _next(self) -> Mail | None:
        while not self._connection.is_full:
            mail = self._source.take()
            refusal = None if mail is None else mail.refusal(self._connection.features)
            if mail is None or refusal is None:
                return mail
            self._source.settle(mail, refusal)
        return None

    def _send_next(self, mail: Mail) -> None:
        if self._unsent:
            command, handler = self._unsent.popleft()
            self._expected.append((handler, mail))
            self._write(command)

    # Replies ----------------------------------------------------------------------------------------------------------

    def _on_rset(self, mail: Mail, reply: Reply) -> None:
        if reply.code // 100 != 2:
            self._connection.lose(Unavailable("protocol", f"rset was answered with {reply.code}"))
        else:
            self._send_next(mail)

    def _on_mail(self, mail: Mail, reply: Reply) -> None:
        self._sender_was_taken = reply.code // 100 == 2
        self._on_envelope(mail, reply, Verb.MAIL)

    def _on_rcpt(self, mail: Mail, reply: Reply) -> None:
        self._on_envelope(mail, reply, Verb.RCPT)

    def _on_envelope(self, mail: Mail, reply: Reply, verb: Verb) -> None:
        self._is_answered = True
        if reply.code // 100 != 2 and self._refusal is None:
            self._refusal = outcome(reply, verb, mail.secrets)
        if self._refusal is not None and self._unsent:
            self._unsent.clear()
            self._decline(mail, self._refusal)
        elif self._unsent:
            self._send_next(mail)

    def _on_data(self, mail: Mail, reply: Reply) -> None:
        self._is_answered = True
        if reply.code != 354:
            self._decline(mail, self._refusal or outcome(reply, Verb.DATA, mail.secrets))
        elif self._refusal is None:
            self._commit(mail)
        elif self._sender_was_taken:  # nobody is there to take it, and yet the server wants a mail (RFC 2920 3.1)
            self._expected.append((self._on_lone_dot, mail))
            self._write(b".\r\n")
        else:
            self._connection.lose(Unavailable("protocol", "the relay wants a mail from a sender it refused"))

    def _on_lone_dot(self, mail: Mail, _reply: Reply) -> None:
        if self._refusal is not None:
            self._decline(mail, self._refusal)

    def _decline(self, mail: Mail, refusal: Outcome) -> None:
        """The server does not want this one; the line may go on with the next."""
        self._proposed, self._connection.needs_reset = None, True
        self._source.settle(mail, refusal)
        if refusal.code == "protocol":
            self._connection.lose(Unavailable("protocol"))
        else:
            self.has_carried = True
            self._propose()

    def _commit(self, mail: Mail) -> None:
        self._proposed = None
        if not self._source.may_commit(mail):
            self.has_carried = True
            self._connection.lose(Unavailable("withheld"))  # the server waits for a mail: only this takes DATA back
            return
        self._committed = mail
        self._expected.append((self._on_dot, mail))
        if self._connection.features.pipelining:
            self._propose(before=mail.data)
        else:
            self._write(mail.data)
        self._source.prepare()

    def _on_dot(self, mail: Mail, reply: Reply) -> None:
        if isinstance(self._answer(mail, reply), Ambiguous):
            self._connection.lose(Unavailable("protocol"))
        elif self._proposed is None:
            self._propose()

    def _answer(self, mail: Mail, reply: Reply) -> Outcome:
        self._committed, self.has_carried = None, True
        result = outcome(reply, Verb.DOT, mail.secrets)
        self._source.answered(mail, result)
        return result

    # The end ----------------------------------------------------------------------------------------------------------

    def _server_closes(self, reply: Reply) -> None:
        if self._committed is not None:
            self._answer(self._committed, reply)
        elif self._proposed is not None and (self._connection.begun == 1 or self._proposed.was_given_back):
            self._refusal = self._refusal or outcome(reply, Verb.MAIL, self._proposed.secrets)
        # Else it may only have had enough of this connection: the mail goes over the next one.
        self._connection.lose(Unavailable("421", "the relay closed the connection"))

    def _leave(self, mail: Mail, why: Unavailable, *, is_bystander: bool) -> None:
        """Its envelope was written, its final dot was not. Unanswered, it gets a second chance."""
        if self._refusal is not None:
            self._source.settle(mail, self._refusal)
        elif is_bystander or not self._is_proven:  # another mail was on the line, or the line was dead all along
            self._source.give_back(mail)
        elif self._is_answered or mail.was_given_back:
            self._source.settle(mail, why)
        else:
            mail.was_given_back = True
            self._source.give_back(mail)

    def _write(self, data: bytes) -> None:
        timeouts = self._connection.relay.timeouts
        self._connection.write(data, timeouts.command if self._committed is None else timeouts.final_dot)

    def _finish(self) -> None:
        self._connection.listen(None)
        if not self._finished.done():
            self._finished.set_result(None)
