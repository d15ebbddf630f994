"""What a person says by replying to a text message: stop, start, help, or nothing that concerns us.

The rule: the body is a keyword when all its words are. A word counts as part of a keyword's phrase, as politeness, or
(for stop only) as what is to be stopped, or why: "Yes, stop sending me messages please, you have the wrong number". One
word of anything else, and it is a sentence about something else: "bus stop", "when do you start", "don't stop". Case,
accents, punctuation, emoji and the width of letters do not matter, nor does what a mail program signs below. Whoever
says stop and something else of ours has said stop.

Some of the carriers' words say more than one thing: "cancel" and "end" are a stop alone, or with what messages are
called, but not in "cancel it" and "the end". What can be read both ways even so is a stop, such as "cancel all" and
"plus de messages": who is not heard is written to against their will, and who was heard wrongly can text START.

The words stand in `keywords.toml`.

`YES` lifts an opt-out at Twilio, but is mostly an answer to a question. Messages start again only when Twilio says that
it read it so (`OptOutType`), or by a word that can mean nothing else: a stop must not be lost by accident.

Sources, read in November 2026: 47 CFR 64.1200(a)(10) (stop, quit, end, revoke, opt out, cancel, unsubscribe, and any
other words that a reasonable person would understand), the CTIA's Messaging Principles and Best Practices, and Twilio's
"Advanced Opt-Out" for its own words. The other languages' words come from general knowledge.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from enum import StrEnum
from importlib import resources


class Keyword(StrEnum):
    """What was said. `none` is an ordinary message."""

    STOP = "stop"
    START = "start"
    HELP = "help"
    NONE = "none"


class Role(StrEnum):
    """What a phrase is that is no keyword, or not always. The values are the lists in `keywords.toml`."""

    ENDS = "ends"  #: a stop, but for what stands beside it
    MESSAGES = "messages"  #: what is to be stopped
    BESIDE = "beside"  #: says nothing without a stop
    NOW = "now"
    POLITE = "polite"


TWILIOS = frozenset(
    {"STOP", "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "REVOKE", "OPTOUT"}
    | {"START", "YES", "UNSTOP"}
    | {"HELP", "INFO"}
)  #: what Twilio itself acts on and, unless that is switched off, answers


def read(body: str, opt_out_type: str | None = None) -> Keyword:
    """What was said; Twilio's own verdict (`OptOutType`) stands above ours."""
    told = (opt_out_type or "").strip().lower()
    if told in {Keyword.STOP, Keyword.START, Keyword.HELP}:
        return Keyword(told)
    roles = _roles(words_of(_unsigned(body)))
    if roles is None:
        return Keyword.NONE
    is_of_messages = Role.MESSAGES in roles or not roles & {Role.BESIDE, Role.NOW}
    if Keyword.STOP in roles or (Role.ENDS in roles and is_of_messages):
        return Keyword.STOP
    said = [role for role in roles if isinstance(role, Keyword)]
    is_plain = not roles & {Role.ENDS, Role.MESSAGES, Role.BESIDE}
    return said[0] if len(said) == 1 and is_plain else Keyword.NONE


def is_twilios(body: str) -> bool:
    """True for exactly one of the words that Twilio itself acts on."""
    return body.strip().upper() in TWILIOS


def words_of(text: str) -> tuple[str, ...]:
    """The words without case, accents, width, punctuation and signs; `S.T.O.P` is one."""
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).casefold())
    letters = "".join(character if character.isalnum() else _gap(character) for character in plain)
    words = tuple(letters.split())
    return ("".join(words),) if len(words) > 2 and all(len(word) == 1 for word in words) else words


def _unsigned(body: str) -> str:
    """The body without what a mail or message program has put below it. A signature alone stays."""
    said, *signature = _SIGNATURE.split(body, maxsplit=1)
    return said if signature and words_of(said) else body


def _gap(character: str) -> str:
    """Accents, apostrophes and invisible characters vanish; everything else parts words."""
    return "" if unicodedata.category(character) in {"Mn", "Cf"} or character in "'\u2019\u02bc`\u00b4" else " "


def _roles(words: tuple[str, ...]) -> frozenset[Keyword | Role] | None:
    """What the phrases are that the words make up, each as long as the rest allows; None where a word is not ours."""
    behind: list[frozenset[Keyword | Role] | None] = [frozenset()]  # of the words from the last one back
    for at in reversed(range(len(words))):
        behind.append(None)
        for length in range(min(_LONGEST, len(words) - at), 0, -1):
            role, rest = _ROLES.get(words[at : at + length]), behind[-1 - length]
            if role is not None and rest is not None:
                behind[-1] = rest | {role}
                break
    return behind[-1]


def _table() -> dict[tuple[str, ...], Keyword | Role]:
    """Every phrase and what it is. What means several things is the one that is read last: stop above all."""
    text = resources.files(__package__).joinpath("keywords.toml").read_text("utf-8")
    lists: dict[str, dict[str, list[str]]] = tomllib.loads(text)
    roles: tuple[Keyword | Role, ...] = (*reversed(Role), Keyword.HELP, Keyword.START, Keyword.STOP)
    return {words_of(one): role for role in roles for ones in lists[role].values() for one in ones}


_SIGNATURE = re.compile(
    r"\n\s*(?:--\s*(?:\n|$)|_{5,}|(?:sent|get outlook|gesendet|diese nachricht wurde von|von meinem|envoyé|enviado"
    r"|inviato|verzonden|verstuurd|أرسلت من|تم الإرسال من|נשלח מ)(?!\w))",
    re.IGNORECASE,
)
_ROLES = _table()
_LONGEST = max(map(len, _ROLES))
