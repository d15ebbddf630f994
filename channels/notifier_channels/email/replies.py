"""What a relay's answer means: cuts the bytes that come back into replies, and each reply into one outcome.

The table is that of RFC 5321 4.2.3 with the enhanced codes of RFC 3463, RFC 4954, RFC 5248 (IANA, "SMTP Enhanced Status
Codes"), RFC 7372 and RFC 7505, and with what Gmail, Microsoft, Yahoo and Amazon say in practice; read in November 2026.
`docs/reference/smtp.md` gives a reason for each row. The class of the basic code decides; the enhanced code and, last,
the words of the text only tell cases of one class apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import timedelta
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from notifier_channels.contract import (
    Ambiguous,
    BadAddress,
    Misconfigured,
    Outcome,
    RateLimited,
    Receipt,
    Rejected,
    Unavailable,
)

LONGEST_LINE = 4096  #: RFC 5321 4.5.3.1.5 allows 512
MOST_LINES = 128
LONGEST_DETAIL = 300
_LONGEST_TEXT = 2000  #: what is looked through for addresses


class Verb(StrEnum):
    """What was answered."""

    GREETING = "greeting"
    EHLO = "ehlo"
    STARTTLS = "starttls"
    AUTH = "auth"
    RSET = "rset"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    DOT = "dot"


_SESSION = frozenset({Verb.GREETING, Verb.EHLO, Verb.STARTTLS, Verb.AUTH, Verb.RSET})

# Permanent refusals, by subject and detail of the enhanced code -------------------------------------------------------

_NOBODY_THERE = frozenset({"1.1", "1.3", "1.6", "1.10", "2.1"})
_TOO_LARGE = frozenset({"2.3", "3.4"})
_OURS = frozenset(
    {"1.7", "1.8"}  # our sender address
    | {"7.3", "7.8", "7.9", "7.10", "7.11", "7.13", "7.14"}  # RFC 4954, RFC 5248; Microsoft's 5.7.3
    | {"7.20", "7.21", "7.22", "7.23", "7.24", "7.25", "7.26", "7.27"}  # DKIM, SPF, reverse DNS; Gmail's 5.7.25 to 27
    | {"7.28", "7.29", "7.30"}  # Gmail: our rate, our authentication, TLS
    | {"7.57", "7.60", "7.64"}  # Microsoft: not authenticated, "send as" denied, relay denied
)
_MICROSOFT_TENANT = re.compile(r"7\.[567]\d\d")  # e.g. 5.7.509 and 5.7.515: our domain, IP address or tenant
_AUTHENTICATION = frozenset({530, 534, 535, 538})

# Words, where codes are missing or say too little ---------------------------------------------------------------------

_OURS_IN_WORDS = re.compile(
    r"relay(?:ing)?\b.{0,20}\b(?:denied|not|prohibited)|(?:not|unable|cannot)\b.{0,20}\brelay"
    r"|sender address rejected|(?:address|domain|identit\w+|sender) (?:is |are )?(?:not|un)[ -]?verified"
    r"|client host .{0,200}(?:rejected|blocked)|helo command rejected|must authenticate"
    r"|authentication (?:is )?required",
    re.IGNORECASE,
)
_NOBODY_IN_WORDS = re.compile(
    r"\b(?:user unknown|unknown user|recipient unknown|unknown recipient|no such (?:user|recipient|mailbox)"
    r"|(?:user|recipient|mailbox) (?:not found|does not exist|doesn't exist))\b",
    re.IGNORECASE,
)
_BUT_PERHAPS = re.compile(
    r"sender|from|relay|quota|full|policy|spam|block|gr[ea]y|verif|temporar|again|later|access|denied", re.IGNORECASE
)
_RATE_IN_WORDS = re.compile(
    r"\brate\b|too (?:many (?:mes|mail|con|rec|req)|much mail|fast|quickly)|throttl|slow down|flood"
    r"|(?:sending|message|messaging|hourly|daily|connection)\w* (?:limit|quota)|deferred due to",
    re.IGNORECASE,
)
_STORAGE = frozenset({"2.2", "2.3", "2.4", "3.1"})  # full: nothing to do with our rate
_WAIT = re.compile(r"(?:again|retry|wait|after)\b\D{0,20}(\d{1,5})\s*(s|m|h)", re.IGNORECASE)
_SECONDS = {"s": 1, "m": 60, "h": 3600}
_DAILY = re.compile(r"daily|per day|24.?h", re.IGNORECASE)

_CODES = {str(code).encode(): code for code in range(200, 600)}
_SEPARATORS = frozenset({b" ", b"-", b"\r", b""})
_ENHANCED = re.compile(r"([245])\.(\d{1,3}\.\d{1,3})\b")
_REFERENCE = re.compile(r"(?:queued as|\bid=)\s*([\w.-]+)", re.IGNORECASE)
_SAYS_NOTHING = re.compile(r"(?:2\.\d\.\d )?ok", re.IGNORECASE)
_UNPRINTABLE = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_ADDRESS = re.compile(r"""[^\s<>"'(),;]*\s?(?:@|%40|=40)\s?[^\s<>"'(),;]*""", re.IGNORECASE)


class Reply(NamedTuple):
    """One reply of the server: its code and the text of its lines, each without the code."""

    code: int
    text: str

    @property
    def enhanced(self) -> str | None:
        """Subject and detail of the enhanced code, e.g. `1.1`; None without one, or when its class is another."""
        found = _ENHANCED.match(self.text)
        return found.group(2) if found and int(found.group(1)) == self.code // 100 else None

    @property
    def contradicts_itself(self) -> bool:
        """True for such as `550 4.1.1`."""
        return self.enhanced is None and _ENHANCED.match(self.text) is not None

    @property
    def label(self) -> str:
        """What stands in reasons and metrics: `550 5.1.1`, or `550`."""
        enhanced = self.enhanced
        return f"{self.code} {self.code // 100}.{enhanced}" if enhanced else str(self.code)


class NotSmtp(ValueError):
    """What came back is no SMTP reply."""


class ReplyReader:
    """Cuts a stream into replies, however it arrives."""

    def __init__(self) -> None:
        self._rest = b""
        self._lines: list[str] = []
        self._code = 0

    @property
    def is_clean(self) -> bool:
        """True when no byte waits to become part of a reply."""
        return not self._rest and not self._lines

    def feed(self, data: bytes) -> Iterator[Reply]:
        """Every reply that is now complete; those before what is none count.

        Raises:
            NotSmtp: the other side speaks something else.

        """
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if (reply := self._line(line)) is not None:
                yield reply
        if len(self._rest) > LONGEST_LINE:
            raise NotSmtp("a line without end")

    def _line(self, line: bytes) -> Reply | None:
        if len(line) > LONGEST_LINE or len(self._lines) >= MOST_LINES:
            raise NotSmtp("a reply without end")
        reply, is_last = _read(line)
        if self._lines and reply.code != self._code:
            raise NotSmtp("a reply with two codes")
        if not is_last:
            self._code = reply.code
            self._lines.append(reply.text)
            return None
        if self._lines:
            reply = Reply(reply.code, "\n".join((*self._lines, reply.text)))
            self._lines = []
        return reply


@lru_cache(maxsize=128)  # a relay says the same few lines for every mail
def _read(line: bytes) -> tuple[Reply, bool]:
    """One line as if it were a reply, and whether it ends one."""
    number, separator = _CODES.get(line[:3]), line[3:4]
    if number is None or separator not in _SEPARATORS:
        raise NotSmtp("a line that is no reply")
    return Reply(number, line[4:].rstrip(b"\r").decode("utf-8", "replace")), separator != b"-"


def outcome(reply: Reply, verb: Verb, secrets: Iterable[str] = ()) -> Outcome:
    """What this answer means for the one message it was given for. `secrets` must not stand in the detail (I5)."""
    match reply.code // 100:
        case 2 if verb is Verb.DOT:
            return Receipt(_reference(reply, secrets), str(reply.code))
        case 4:
            return _temporary(reply, redact(reply.text, secrets))
        case 5:
            return _permanent(reply, verb, redact(reply.text, secrets))
        case _ if verb is Verb.DOT:
            return Ambiguous("protocol", f"the mail was answered with {reply.code}")
        case _:
            return Unavailable("protocol", f"{verb} was answered with {reply.code}")


def blames_policy(refusal: Outcome) -> bool:
    """A refusal that may be this mail's own fault or that of everything we send; the text does not tell."""
    return isinstance(refusal, Rejected) and (" 5.7." in refusal.code or refusal.code in {"550", "554"})


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """The text in one line, without addresses and without the secrets."""
    if not text.isprintable():
        text = _UNPRINTABLE.sub(" ", text)
    if len(text) > _LONGEST_TEXT:
        text = text[:_LONGEST_TEXT].rpartition(" ")[0]  # no half of an address may stay
    text = _ADDRESS.sub("…", text)
    folded = text.casefold()
    told = {secret for secret in secrets if secret and secret.casefold() in folded}
    for secret in sorted(told, key=len, reverse=True):
        pattern = re.escape(secret) if len(secret) > 2 else rf"(?<![^\W_]){re.escape(secret)}(?![^\W_])"
        text = re.sub(pattern, "…", text, flags=re.IGNORECASE)
    return text.strip()[:LONGEST_DETAIL]


def _temporary(reply: Reply, detail: str) -> Outcome:
    if _RATE_IN_WORDS.search(reply.text) and reply.enhanced not in _STORAGE:
        return RateLimited(reply.label, _wait(reply.text), detail)
    return Unavailable(reply.label, detail)


def _wait(text: str) -> timedelta:
    found = _WAIT.search(text)
    if found:
        seconds = int(found.group(1)) * _SECONDS[found.group(2).lower()]
        return timedelta(seconds=min(max(seconds, 1), 3600))
    return timedelta(hours=1) if _DAILY.search(text) else timedelta(minutes=1)


def _permanent(reply: Reply, verb: Verb, detail: str) -> Outcome:
    if reply.code in _AUTHENTICATION or verb in _SESSION:
        return Misconfigured(reply.label, detail)
    enhanced = reply.enhanced
    if verb is Verb.MAIL:  # nothing is known yet but our sender, the mail's size and the need for SMTPUTF8
        is_this_mail = reply.code == 552 or enhanced in _TOO_LARGE | {"6.7"}
        return Rejected(reply.label, detail) if is_this_mail else Misconfigured(reply.label, detail)
    if enhanced in _NOBODY_THERE:
        return BadAddress(reply.label, detail)
    if _is_ours(enhanced, reply):
        return Misconfigured(reply.label, detail)
    if reply.code == 550 and enhanced is None and _is_nobody_in_words(reply):
        return BadAddress(reply.label, detail)
    return Rejected(reply.label, detail)


def _is_ours(enhanced: str | None, reply: Reply) -> bool:
    if enhanced is None or enhanced == "0.0" or enhanced.startswith("7."):
        return (
            enhanced in _OURS
            or _MICROSOFT_TENANT.fullmatch(enhanced or "") is not None
            or _OURS_IN_WORDS.search(reply.text) is not None
        )
    return enhanced in _OURS


def _is_nobody_in_words(reply: Reply) -> bool:
    """Only when the words are unmistakable: a suppressed address gets nothing any more."""
    return (
        not reply.contradicts_itself
        and _NOBODY_IN_WORDS.search(reply.text) is not None
        and _BUT_PERHAPS.search(reply.text) is None
    )


def _reference(reply: Reply, secrets: Iterable[str]) -> str:
    if _SAYS_NOTHING.fullmatch(reply.text):  # so it repeats nothing either: looking for that takes a while
        return reply.text
    found = _REFERENCE.search(reply.text)
    return found.group(1) if found else redact(reply.text, secrets)[:100]
