"""What Twilio's codes mean: of a request to create a message one outcome, of a later report what it says of the number.

Twilio asks not to program on single codes because it splits and adds some (changelog of 10 July 2024). So the HTTP
status decides first, the table only tells cases of one status apart, and an unknown code fails its message and nothing
else.

Where each row comes from:

- Twilio's own page of the code in its dictionary of errors, in a stored copy, read in November 2026: 20003,
  20005, 20403, 21214 (it speaks of calls alone), 21265, 21603, 21604, 21606, 21608, 21609, 21611, 21617, 21635, 21659,
  21660, 21701, 21705, 30001, 30002, 30003, 30006, 30022, 30047, 63038.
- Our notes on Twilio's error dictionary, of 2026, not held against the page again: 20404, 20429, 20500, 21211, 21408,
  21610, 21612, 21614, 21619, 21703, 30004, 30005, 30007, 30008, 30023, 30032, 30034.
- Not read: 20006 and 21704, from general knowledge; 21212, only as others quote its message.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TypeAlias

from notifier_channels.contract import (
    Again,
    Alarm,
    Ambiguous,
    BadAddress,
    Misconfigured,
    OptedOut,
    Outcome,
    RateLimited,
    Rejected,
    Strike,
)

DEFAULT_WAIT = timedelta(seconds=1)
LONGEST_WAIT = timedelta(hours=1)

Verdict: TypeAlias = Callable[[str, str], Outcome]


def _later(wait: timedelta) -> Verdict:
    return lambda code, detail: RateLimited(code, wait, detail)


# Nothing of the sender's is wrong when a country is not enabled (21408) or a route is missing (21612): other messages
# go on. So these fail their message and do not pause the provider. Those of `MAYBE_OURS` are answered for one recipient
# (a trial account, another country) and for all (a sender that cannot text, no approved compliance profile).
CREATE: Mapping[int, tuple[Verdict, str]] = {
    20003: (Misconfigured, "the credentials were refused"),
    20005: (Misconfigured, "the account is not active"),
    20006: (Misconfigured, "access was denied"),
    20403: (Misconfigured, "403 Forbidden: mostly the account is suspended or closed"),
    20404: (Misconfigured, "no such account"),
    20429: (_later(DEFAULT_WAIT), "too many requests"),
    20500: (Ambiguous, "an internal error"),
    21211: (BadAddress, "not a valid number"),
    21212: (Misconfigured, "the sender is not valid"),
    21214: (BadAddress, "the number cannot be reached"),
    21265: (BadAddress, "the number is a short code"),
    21408: (Rejected, "the country is not enabled in the account's geographic permissions"),
    21603: (Misconfigured, "the sender is missing"),
    21604: (Rejected, "the recipient is missing"),
    21606: (Rejected, "the sender cannot send text messages to this recipient"),
    21608: (Rejected, "the number is not verified, and the account is on trial or has no approved compliance profile"),
    21609: (Misconfigured, "the callback URL is not valid"),
    21610: (OptedOut, "the recipient has replied STOP to this sender"),
    21611: (_later(timedelta(minutes=5)), "the sender's queue is full"),
    21612: (Rejected, "this sender has no route to this recipient"),
    21614: (BadAddress, "not a mobile number"),
    21617: (Rejected, "the text is longer than 1600 characters"),
    21619: (Rejected, "the text is empty"),
    21635: (BadAddress, "the number is a landline"),
    21659: (Rejected, "the sender is no number of Twilio's, or none for this country"),
    21660: (Misconfigured, "the sender belongs to another account"),
    21661: (Rejected, "the sender cannot send text messages"),
    21701: (Misconfigured, "no such Messaging Service, or it is another account's"),
    21703: (Rejected, "the Messaging Service has no sender for this recipient"),
    21704: (Misconfigured, "the Messaging Service has no sender"),
    21705: (Misconfigured, "the Messaging Service is not valid"),
    30001: (_later(timedelta(minutes=5)), "the sender's queue is full"),
    30002: (Misconfigured, "the account is suspended"),
    30022: (_later(timedelta(minutes=1)), "the campaign's rate at the carrier is exceeded"),
    30023: (_later(LONGEST_WAIT), "the brand's daily cap at the carrier is reached"),
    30032: (Misconfigured, "the toll-free number is not verified"),
    30034: (Misconfigured, "the number belongs to no registered campaign"),
    63038: (_later(LONGEST_WAIT), "the account's limit for 24 hours, which roll, is reached"),
}

OURS = frozenset({401, 403, 404, 405, 407})  #: credentials, account or address of the API: the same for every message

MAYBE_OURS = frozenset(
    {"21606", "21608", "21659", "21661", "21703"}
)  #: this recipient's fault, or the sender's for all

DEAD = frozenset({21211, 21214, 21614, 21635, 30005, 30006})  #: unknown or inactive, or a landline
OPTED_OUT = frozenset({21610})
UNREACHABLE = frozenset({30003, 30004})  #: off, away or blocked: enough of them in a row, and nobody is there
ALARMS: Mapping[int, Alarm] = {  #: of reports: these come after Twilio took the message
    30002: Alarm.REFUSED,  # the account was suspended meanwhile
    30032: Alarm.REFUSED,  # toll-free number not verified
    30034: Alarm.REFUSED,  # number of no registered campaign
    30007: Alarm.FILTERED,
    30022: Alarm.TOO_FAST,  # the campaign's rate
    30023: Alarm.TOO_FAST,  # the brand's daily cap
}
AGAIN: Mapping[int, Again] = {  #: of reports: Twilio has given this one up, and the next may arrive
    30003: Again(timedelta(minutes=30), most=2),  # the phone is off or away
    30008: Again(timedelta(minutes=10), most=1),  # no reason is given
    30047: Again(timedelta(minutes=10), most=2),  # Compliance Toolkit could not keep it for a better hour
}


def outcome(status: int, code: int | None = None, retry_after: str | None = None) -> Outcome:
    """What a refused request means. The code is Twilio's own; without one the answer may come from anything between.

    Nothing that Twilio writes for a person is repeated: it quotes numbers (I5).
    """
    shown = str(code) if code is not None and code != status else f"http {status}"
    if status == 429 or code == 20429:
        return _slow_down(shown, code, retry_after)
    if not 400 <= status < 500 or status == 408:  # it may have been processed
        return Ambiguous(shown, f"Twilio answered with status {status}")
    if code is not None and code in CREATE:
        verdict, detail = CREATE[code]
        return verdict(shown, detail)
    if status in OURS:
        return Misconfigured(shown, f"the request was refused with status {status}")
    return Rejected(shown, f"the request was refused with status {status}")


def may_be_ours(refusal: Outcome) -> bool:
    """One such refusal does not tell; several with nothing taken between do (`sending.Blame`)."""
    return isinstance(refusal, Rejected) and refusal.code in MAYBE_OURS


def is_dead(code: int | None) -> bool:
    """Nobody is at the number, or nobody who can read text messages."""
    return code in DEAD


def strike(code: int | None) -> Strike | None:
    """What the report of a bounce holds against the number, without proving anything."""
    return Strike.UNREACHABLE if code in UNREACHABLE else None


def alarm(code: int | None) -> Alarm | None:
    """What the report of a bounce says of our account or sender."""
    return None if code is None else ALARMS.get(code)


def again(code: int | None) -> Again | None:
    """Whether what the report of a bounce speaks of may be tried once more: when, and how often."""
    return None if code is None else AGAIN.get(code)


def opted_out(code: int | None) -> bool:
    """The person has said STOP to this sender, at Twilio."""
    return code in OPTED_OUT


def _slow_down(shown: str, code: int | None, retry_after: str | None) -> RateLimited:
    verdict, detail = CREATE[20429 if code is None or code not in CREATE else code]
    known = verdict(shown, detail)
    told = known if isinstance(known, RateLimited) else RateLimited(shown, DEFAULT_WAIT, detail)
    if retry_after is None or not retry_after.strip().isdecimal():
        return told
    wait = timedelta(seconds=min(int(retry_after[:9]), LONGEST_WAIT.total_seconds()))
    return RateLimited(shown, max(wait, DEFAULT_WAIT), told.detail)
