"""Bounces that follow no standard: a mail server wrote a note to people, and they were expected to understand it.

The extra `bounces` brings flufl.bounce, which knows some more of them. It is asked only whether a mail is one, never
what follows from it: of reports on full mailboxes, policies and sizes it calls three in four permanent.
"""

from __future__ import annotations

import logging
import re
from email.message import Message
from importlib.util import find_spec
from itertools import islice

from notifier_channels.email.inbound import automatic, words
from notifier_channels.email.inbound.parts import MOST_PARTS, header, kind, text_of
from notifier_channels.email.inbound.verdict import LONGEST

_RETURNED = re.compile(
    r"^(?:received|return-path|message-id|mime-version|dkim-signature): |^[ \t>*]{0,8}(?:"
    r"[-=_* ]{2,80}.{0,30}\b(?:below this line|copy of|original|returned (?:mail|message)|forwarded|source mail"
    r"|unsent message|message header|enclosed)"
    r"|(?:the )?original (?:message|mail)(?: headers?| follows| is| text|\s*[:-]|$)"
    r"|here is a copy|(?:this is|below is) a copy|message headers? follow"
    r"|.{0,20}(?:ursprüngliche nachricht|message d.origine|mensaje original|mensagem original|messaggio originale"
    r"|исходное сообщение|元のメッセージ|原始邮件)"
    r")",
    re.IGNORECASE | re.MULTILINE,
)
_QUOTED = re.compile(
    r"^[ \t>]{0,40}(?:subject|to|from|cc|sent|date|betreff|objet|asunto)[ \t]*:.*$", re.IGNORECASE | re.MULTILINE
)
_GAVE_UP = re.compile(
    r"giv(?:en|ing) up|gave up|will not (?:be )?retr|no further attempts|queue too long", re.IGNORECASE
)
logging.getLogger("flufl.bounce").setLevel(logging.CRITICAL)  # it logs what it stumbles over, data and all (I5)

_CODED = re.compile(r"(?<![\d.])[45]\.\d{1,3}\.\d{1,3}(?![\d.])|(?<![\w.])5[0-5]\d[ -]")


def notice(inside: list[Message]) -> str:
    """What the server wrote itself: the text before the mail that it returns."""
    for wanted in ("text/plain", "text/html"):
        written = ""
        for part in inside:
            if kind(part) in ("message/rfc822", "text/rfc822-headers", "message/global", "message/global-headers"):
                break
            if kind(part) == wanted or (
                wanted == "text/plain" and kind(part).startswith("text/") and kind(part) != "text/html"
            ):
                written += text_of(part) + "\n"
        cut = _cut(written)
        if cut.strip():
            return _QUOTED.sub("", cut)[:LONGEST]
    return ""


def is_bounce(mail: Message, note: str) -> bool:
    """True for a server's note that something was not delivered."""
    subject = header(mail, "Subject")
    says_so = words.FAILED.search(subject) or words.FAILED.search(note) or _CODED.search(note)
    knows = words.NOBODY_THERE.search(note) or words.FULL.search(note) or words.WARNING.search(f"{subject}\n{note}")
    if automatic.is_daemon(mail) or header(mail, "Return-Path") == "<>" or "X-Failed-Recipients" in mail:
        return bool(says_so or knows) or _flufl_knows(mail)
    return bool(words.FAILED.search(subject) and (says_so or knows)) or _flufl_knows(mail)


def is_warning(mail: Message, note: str) -> bool:
    """True while the server still tries."""
    return words.WARNING.search(f"{header(mail, 'Subject')}\n{note}") is not None and not _GAVE_UP.search(note)


def _cut(text: str) -> str:
    found = _RETURNED.search(text)
    return text[: found.start()] if found and text[: found.start()].strip() else text if not found else ""


def _flufl_knows(mail: Message) -> bool:
    """Asked last. Not of very many parts, which it walks often; and on damaged mail it fails, which is no bounce."""
    if len(list(islice(mail.walk(), MOST_PARTS))) == MOST_PARTS:
        return False
    if find_spec("flufl") is None or find_spec("flufl.bounce") is None:
        return False
    from flufl.bounce import all_failures

    try:
        return any(all_failures(mail))
    except Exception:  # noqa: BLE001  # whatever its detectors stumble over
        return False
