"""What a failed delivery says of the address: it is dead, or its domain is, or nothing certain, or it is not at fault.

Codes decide first (RFC 3463, RFC 5248 and the IANA registry of enhanced status codes; RFC 7505 for 5.1.10), then the
words. Only what is certain makes an address dead. A full mailbox, a policy, a reputation, a size, a message that grew
too old: there the address is good, whatever code stands beside it, and servers do put such words beside 5.1.1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from notifier_channels.email.inbound import words


class Fault(StrEnum):
    """Whose fault a bounce is."""

    DEAD = "dead"  #: nobody is at the address
    NO_DOMAIN = "no_domain"  #: its domain has no mail: proof only once it repeats, for DNS breaks and heals
    UNCLEAR = "unclear"  #: a permanent failure of which neither code nor words give a reason
    ELSEWHERE = "elsewhere"  #: full, policy, reputation, size, expiry, our own: not the address


@dataclass(frozen=True, slots=True)
class Verdict:
    """One failure, judged."""

    fault: Fault
    code: str | None  #: `550 5.1.1`, or what there is of it


# No such mailbox, bad syntax, mailbox has moved, null MX, mailbox disabled.
_DEAD = frozenset({"5.1.1", "5.1.3", "5.1.6", "5.1.10", "5.2.1"})
# Bad destination system; Exchange Online: the domain does not exist.
_NO_DOMAIN = frozenset({"5.1.2", "5.4.310"})
# Full, too big, system full, too big for the system, expired, loops; 5.1.7 and 5.1.8 are our sender's.
_ELSEWHERE = frozenset(
    {"5.1.7", "5.1.8", "5.2.2", "5.2.3", "5.3.1", "5.3.2", "5.3.4", "5.3.5", "5.4.6", "5.4.7", "5.4.14"}
)
_ELSEWHERE_SUBJECTS = ("5.6.", "5.7.")  # content, security and policy

# Large providers whose code says another thing than they mean, or nothing: (who speaks, what they say).
_IN_TRUTH_DEAD = tuple(
    (re.compile(who, re.IGNORECASE), re.compile(said, re.IGNORECASE))
    for who, said in (
        # Exchange Online, directory-based edge blocking: the recipient is not in the directory.
        (r"AS\(201806281\)|protection\.outlook\.com", r"5\.4\.1.{0,40}recipient address rejected: access denied"),
        (r"hotmail|outlook\.com|live\.com|msn\.com", r"requested action not taken: mailbox unavailable"),
        (r"gmx|web\.de|1und1|1and1|kundenserver|mail\.com|ionos", r"requested action not taken: mailbox unavailable"),
        (r"yandex", r"no such user"),  # with 5.7.1
        (r"yahoo|aol|554 30|\(554\.30\)", r"mailbox is disabled|doesn'?t have an? \S+ account|mailbox not found"),
        (r"DOC-1369|mimecast", r"invalid recipient"),
    )
)
_NOT_MEANT = re.compile(r"polic|sender|invalid dns|reject due|spam|quota|full|block", re.IGNORECASE)

_ENHANCED = re.compile(r"(?<![\d.])([45])\.(\d{1,3})\.(\d{1,3})(?![\d.]*\d)")
_BASIC = re.compile(
    r"(?<![\w.:/#-])([45][0-5]\d)(?=[\s:;#(-]|$)(?!\s*(?:bytes|hours|seconds|minutes|attempts|kb|mb|days)|-\d{3}-)",
    re.IGNORECASE,
)
_WEB = re.compile(r"(?:https?://|www\.)\S+", re.IGNORECASE)
_ADDRESS = re.compile(r"""[^\s<>"'(),;:\[\]]*@[^\s<>"'(),;:\[\]]*""")
_BLANK = re.compile(r"\s+")
_CONTINUED = re.compile(r"\s[245]\d\d-(?:[245]\.\d{1,3}\.\d{1,3}\s)?")
LONGEST = 4000  #: characters of a text that are looked at


def judge(status: str, diagnostic: str, note: str = "") -> Verdict:
    """Judge a failure that its server calls final.

    `status` is the field of RFC 3464 (empty when there is none), `diagnostic` the reply of the server that refused, and
    `note` what is written for people; the note counts only where the others are silent.
    """
    reply, note = diagnostic[:LONGEST], note[:LONGEST]
    given = [*_enhanced(reply), *_enhanced(status)]
    basic = _basic(reply) or (_basic(status) if not given else "")
    if not given and not basic:
        given, basic = _enhanced(note), _basic(note)
    whole = f"{reply} {note}"
    fault = _fault(given, basic, _readable(reply), whole)
    if not _is_telling(reply) or fault is Fault.UNCLEAR:
        fault = _fault(given, basic, _readable(f"{reply} {status} {note}"), whole)
    return Verdict(fault, _code(basic, given))


def _fault(given: list[str], basic: str, said: str, everything: str) -> Fault:
    if basic.startswith("4") or (not basic and given and given[0].startswith("4")):
        return Fault.ELSEWHERE
    if words.FULL.search(said):
        return Fault.ELSEWHERE
    if _means_nobody(everything, said):
        return Fault.DEAD
    specific = [code for code in given if code.startswith("5.") and not _is_general(code)]
    if any(code in _ELSEWHERE or code.startswith(_ELSEWHERE_SUBJECTS) for code in specific):
        return Fault.ELSEWHERE
    if "5.1.10" in specific:  # a null MX, or Exchange knows no such recipient: it is given for nothing else
        return Fault.DEAD
    if _DEAD.intersection(specific):
        return _dead_unless_the_words_object(said)
    if _NO_DOMAIN.intersection(specific):
        return Fault.NO_DOMAIN
    return _in_words(said)


def _is_telling(reply: str) -> bool:
    """Whether a reply has any words beside its codes."""
    return re.search(r"[^\W\d_]{3,}.*[^\W\d_]{3,}", _readable(reply)) is not None


def _means_nobody(everything: str, said: str) -> bool:
    return not _NOT_MEANT.search(said) and any(
        who.search(everything) and meant.search(everything) for who, meant in _IN_TRUTH_DEAD
    )


def _dead_unless_the_words_object(said: str) -> Fault:
    """Sendmail writes 5.1.1 for every 550 to RCPT, and Gmail 5.2.1 for a mailbox that gets too much at once."""
    if words.NOBODY_THERE.search(said):
        return Fault.DEAD
    objects = (words.PASSING, words.POLICY, words.TOO_LARGE)
    return Fault.ELSEWHERE if any(pattern.search(said) for pattern in objects) else Fault.DEAD


def _in_words(said: str) -> Fault:
    if words.NOBODY_THERE.search(said):
        return Fault.ELSEWHERE if words.PERHAPS.search(said) else Fault.DEAD
    if words.NO_DOMAIN.search(said):
        return Fault.ELSEWHERE if words.PERHAPS.search(said) else Fault.NO_DOMAIN
    if any(pattern.search(said) for pattern in (words.TOO_LARGE, words.POLICY, words.PASSING)):
        return Fault.ELSEWHERE
    return Fault.UNCLEAR


def _is_general(code: str) -> bool:
    """`5.x.0` says no more than where to look, and 5.4.1 and 5.5.x are given for all kinds of things."""
    return (code.endswith(".0") and not code.startswith("5.7.")) or code == "5.4.1" or code.startswith("5.5.")


def _readable(text: str) -> str:
    """The words alone: without addresses and URLs, in one line."""
    return _BLANK.sub(" ", _CONTINUED.sub(" ", _ADDRESS.sub(" ", _WEB.sub(" ", text)))).strip()


def _enhanced(text: str) -> list[str]:
    return [".".join(found) for found in _ENHANCED.findall(text)]


def _basic(text: str) -> str:
    found = _BASIC.search(_WEB.sub(" ", text))
    return found.group(1) if found else ""


def _code(basic: str, given: list[str]) -> str | None:
    """The most telling enhanced code of the reply's class, behind the basic one."""
    fitting = [code for code in given if not basic or code[0] == basic[0]]
    enhanced = next((code for code in fitting if not code.endswith(".0")), next(iter(fitting), ""))
    return f"{basic} {enhanced}".strip() or None
