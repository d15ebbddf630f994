"""Whether a machine wrote a mail: an answer that nobody typed is nobody's wish (RFC 3834, and what came before)."""

from __future__ import annotations

import re
from email.message import Message

from notifier_channels.email.inbound import words
from notifier_channels.email.inbound.parts import header, kind

_PRECEDENCE = frozenset({"bulk", "junk", "list", "auto_reply", "auto-reply"})
_ANSWERS = ("X-Autoreply", "X-Autorespond", "X-Autoresponder", "X-Auto-Reply", "X-AutoReply-From", "X-Mail-Autoreply")
_LISTS = ("List-Id", "List-Unsubscribe", "Mailing-List")
_MACHINES = re.compile(r"\bmailer-?daemon\b", re.IGNORECASE)  # not postmaster, who is a person as well
_DAEMON = re.compile(
    r"\b(?:mailer-?daemon|postmaster|mail(?:er)?[ _-]?delivery|mdaemon|mail ?admin|mailadm|delivery[ _]subsystem)\b|<>",
    re.IGNORECASE,
)


def is_answer(mail: Message, sender: str | None) -> bool:
    """True for what no person has sent just now. `sender`: the envelope's, where it is known; `<>` is empty.

    The subject says nothing here: people write "Automatische Abmeldung" or "Vacation deals: unsubscribe". An absence
    notice answers From or the envelope's sender, and never the address in List-Unsubscribe.
    """
    submitted = header(mail, "Auto-Submitted").lower().partition(";")[0].strip()
    return (
        sender == ""
        or header(mail, "Return-Path") == "<>"
        or submitted not in ("", "no")
        or header(mail, "Precedence").lower() in _PRECEDENCE
        or any(name in mail for name in (*_ANSWERS, *_LISTS))
        or kind(mail) == "multipart/report"
        or _MACHINES.search(header(mail, "From")) is not None
    )


def is_away(mail: Message) -> bool:
    """True for a person's absence notice, which servers send to where bounces go as well."""
    submitted = header(mail, "Auto-Submitted").lower().partition(";")[0].strip()
    return (
        (submitted == "auto-replied" and not is_daemon(mail))
        or any(name in mail for name in _ANSWERS)
        or header(mail, "Precedence").lower() in ("auto_reply", "auto-reply")
        or words.AWAY.match(header(mail, "Subject").strip()) is not None
    )


def is_daemon(mail: Message) -> bool:
    """True when it says that a mail server wrote it."""
    return _DAEMON.search(header(mail, "From")) is not None
