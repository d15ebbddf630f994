"""What became of a message and why, in words that a support agent can read aloud to the person it was for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from notifier.domain.consent import MARKETING, Rule
from notifier.domain.messages import AttemptState, State


@dataclass(frozen=True, slots=True)
class Try:
    """One attempt."""

    n: int
    provider: str
    state: str
    code: str | None
    started_at: datetime
    settled_at: datetime | None


@dataclass(frozen=True, slots=True)
class Reported:
    """One delivery event."""

    kind: str
    source: str
    code: str | None
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the person's ledger."""

    number: int
    scope: str
    channel: str
    granted: bool
    source: str
    occurred_at: datetime
    recorded_at: datetime
    expires_at: datetime | None
    evidence: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Block:
    """One suppression of the address, in force or lifted."""

    number: int
    reason: str
    evidence: Mapping[str, Any]
    created_at: datetime
    lifted_at: datetime | None
    lifted_why: str | None


@dataclass(frozen=True, slots=True)
class Story:
    """All that is stored of one message, its person's consent and its address."""

    id: UUID
    recipient: str | None
    address: str | None  #: masked
    channel: str
    topic: str
    category: str
    template: str
    state: State
    reason: str | None
    decision: Mapping[str, Any] | None
    due_at: datetime | None
    expires_at: datetime
    accepted_at: datetime | None
    tries: Sequence[Try] = ()
    reports: Sequence[Reported] = ()
    lines: Sequence[Line] = ()
    blocks: Sequence[Block] = ()


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that happened; the deciding ones settled whether the message may go."""

    at: datetime
    text: str
    decides: bool = False


@dataclass(frozen=True, slots=True)
class Explanation:
    """Read from top to bottom."""

    about: str
    answer: str
    why: Sequence[str]
    happened: Sequence[Fact] = field(default_factory=tuple)
    consent: Sequence[Fact] = field(default_factory=tuple)


def explain(story: Story) -> Explanation:
    """Put a message's story into words."""
    whom = story.recipient or "somebody without an id"
    where = f" at {story.address}" if story.address else ""
    return Explanation(
        about=f"{story.template}, {_BY[story.channel]}, to {whom}{where}. Topic {story.topic} ({story.category}).",
        answer=_answer(story),
        why=_why(story),
        happened=sorted(_happened(story), key=lambda fact: fact.at),
        consent=sorted(_consent(story), key=lambda fact: fact.at),
    )


def instant(moment: datetime) -> str:
    """As it is read aloud."""
    moment = moment.astimezone(UTC)
    return f"{moment.day} {moment:%B %Y, %H:%M:%S} UTC"


_BY = {"email": "by email", "sms": "by text message", "push": "as a notification", "any": "on every channel"}

_STATES = {
    State.QUEUED: "It has not been sent yet: it is waiting.",
    State.CLAIMED: "It is about to be sent: a worker has it in hand.",
    State.SENDING: "It is being sent right now.",
    State.ACCEPTED: "It was sent: the provider has taken it. Nobody has reported yet whether it arrived.",
    State.DELIVERED: "It was sent, and it arrived.",
    State.UNKNOWN: "It may have been sent: the line broke at the very moment the provider was taking it.",
    State.FAILED: "It could not be sent.",
    State.SUPPRESSED: "It was not sent, on purpose.",
    State.EXPIRED: "It was not sent: its time had run out.",
    State.CANCELLED: "It was not sent: it was cancelled while it was waiting.",
    State.BOUNCED: "It was sent, but it came back.",
    State.COMPLAINED: "It was sent, and the reader called it spam.",
}

_SENT_BEFORE = {  # what is said instead when it has come back before
    State.QUEUED: "It was sent, but it did not arrive. It is waiting to be sent once more.",
    State.FAILED: "It was sent, but it did not arrive. It could not be sent once more.",
    State.SUPPRESSED: "It was sent, but it did not arrive. It was not sent once more, on purpose.",
    State.EXPIRED: "It was sent, but it did not arrive. It was not sent once more: its time had run out.",
    State.CANCELLED: "It was sent, but it did not arrive. It was cancelled while it waited to be sent once more.",
}

_RULES = {
    Rule.MANDATORY: "Everybody gets {topic}: it protects their account or tells what the law demands.",
    Rule.GRANTED: "The person had said yes to {topic}.",
    Rule.OPT_OUT_DEFAULT: "The person had not said no to {topic}, and it is sent until they do.",
    Rule.WITHDRAWN: "The person had said no to {what}.",
    Rule.NO_GRANT: "{topic} goes only to those who said yes to it, and this person had not, or no longer.",
    Rule.SUPPRESSED_ADDRESS: "The address must not be used: {block}.",
    Rule.ADDRESS_REMOVED: "The person no longer has the address that it was for.",
    Rule.EXPIRED: "It was of use until {expires} only.",
    Rule.QUIET_HOURS: "It was not the hour for it: {hours}.",
    Rule.FREQUENCY_CAP: "The person had had as much as they are to get: {cap}.",
    Rule.SNOOZED: "The person had asked to be left in peace for a while.",
    Rule.REACHED_OTHERWISE: "It was not needed any more: the person was reached {by}.",
    Rule.WAITS_FOR_CHANNEL: "It waits for what becomes of the one {by}.",
    Rule.CAMPAIGN_PAUSED: "Its campaign was paused; it goes on when that is resumed.",
    Rule.CAMPAIGN_CANCELLED: "Its campaign was cancelled.",
    Rule.DUPLICATE_ADDRESS: "Somebody else whom the campaign is for has the same address, and it went there once.",
}

_HELD = {  # by the first word of an expiry's detail: what it had waited for
    "": "",
    "quiet_hours": " Until then it was never the hour for it: {hours}.",
    "frequency_cap": " Until then the person had had as much as they are to get: {cap}.",
    "snoozed": " Until then the person had asked to be left in peace.",
}

_BLOCKS = {
    "hard_bounce": "the provider said that nobody is there",
    "complaint": "its reader called a message spam, so it gets no marketing",
    "stop": "its owner answered STOP",
    "dead_device": "the app was removed from the device",
    "erased": "its owner had their data erased",
    "manual": "an operator blocked it",
}

_UNITS = {"m": "minutes", "h": "hours", "d": "days"}

_SOURCES = {
    "api": "through the product",
    "import": "with an import",
    "one_click": "with the unsubscribe button of their mail program",
    "unsubscribe_page": "on the unsubscribe page",
    "preference_page": "on the preference page",
    "sms_keyword": "by text message",
    "mailto": "by a mail to the unsubscribe address",
    "complaint": "by calling a message spam",
    "provider": "at the provider",
    "double_opt_in": "by confirming the subscription",
    "admin": "through an operator",
}

_REASONS = {  # by the first word of a message's reason; what is not here is said as it stands
    "unavailable": "The provider could not take it just then; it is tried again.",
    "rate_limited": "The provider asked us to slow down; it is tried again.",
    "misconfigured": "The provider does not accept our own setup. An operator must mend it; nothing is lost.",
    "opted_out_at_provider": "The person had said no to the provider itself, which counts as said to us.",
    "rejected": "The provider refused this message for good.",
    "bad_address": "The provider said that nobody is there.",
    "gave_up": "The provider could not take it, however often it was tried.",
    "in_doubt": "Nobody can say whether the provider took it.",
    "worker_died": "A worker ended with it in hand, and nothing had left; it is tried again.",
    "released": "A worker put it back unsent; another one takes it.",
    "poison": "It brought down its worker several times and was set aside for an operator.",
    "render": "Its template could not be rendered.",
    "cancelled_by_api": "The product cancelled it.",
    "campaign_paused": "Its campaign was paused; it goes on when that is resumed.",
    "campaign_cancelled": "Its campaign was cancelled.",
    "bounced": "The receiving server sent it back.",
    "came_back": "It did not arrive, for a reason that may pass; it is tried again.",
    "complained": "The receiving provider passed the complaint on to us.",
}

_TRIES = {
    "started": "under way",
    "accepted": "the provider took it",
    "not_taken": "the provider did not take it",
    "refused": "the provider refused it",
    "unknown": "the line was lost; it may have been taken",
    "superseded": "the line was lost; it was sent once more",
    "bounced": "the provider took it, and it did not arrive",
}

_REPORTS = {
    "sent": "taken, and perhaps handed on",
    "delivered": "delivered",
    "deferred": "not delivered yet, still trying",
    "bounced": "came back",
    "complained": "the reader called it spam",
    "unsubscribed": "the reader left the list",
}


def _answer(story: Story) -> str:
    came_back = any(one.state == AttemptState.BOUNCED for one in story.tries)
    answer = (_SENT_BEFORE if came_back else {}).get(story.state, _STATES[story.state])
    if story.state is State.QUEUED and story.due_at:
        return f"{answer} It is due on {instant(story.due_at)}."
    return answer


def _why(story: Story) -> list[str]:
    why = [_rule(story)] if story.decision else []
    first, _, rest = (story.reason or "").partition(":")
    decided = (story.decision or {}).get("rule")
    if why and first in set(Rule) and (first == decided or first not in _REASONS):
        return why  # said already, in the words of the rule
    if first in _REASONS:
        return [*why, f"{_REASONS[first]}{f' ({rest})' if rest else ''}"]
    return [*why, f"Noted: {story.reason}."] if story.reason else why


def _rule(story: Story) -> str:
    decision = story.decision or {}
    at = instant(datetime.fromisoformat(decision["at"]))
    rule, detail = Rule(decision["rule"]), str(decision.get("detail", ""))
    words, held, of_time = _RULES[rule], str(rule), detail
    if rule is Rule.EXPIRED:
        held, _, of_time = detail.partition(":")
        words += _HELD[held]
    scope, _, channel = detail.partition("/")
    values = {
        "topic": story.topic,
        "what": f"{_what(scope)} {_BY.get(channel, channel)}",
        "by": _BY.get(detail, detail),
        "block": _BLOCKS.get(detail, detail),
        "expires": instant(story.expires_at),
        "hours": _hours(of_time),
        "cap": _cap(of_time) if held == Rule.FREQUENCY_CAP else "",
    }
    return f"{words.format(**values)} Decided on {at}, by the rule `{rule}`."


def _happened(story: Story) -> list[Fact]:
    facts = [Fact(story.accepted_at, "The product handed it over.")] if story.accepted_at else []
    for one in story.tries:
        code = f" ({one.code})" if one.code else ""
        facts.append(Fact(one.started_at, f"Attempt {one.n} through {one.provider}: {_TRIES[one.state]}{code}."))
    for report in story.reports:
        code = f" ({report.code})" if report.code else ""
        facts.append(Fact(report.occurred_at, f"{report.source} reported: {_REPORTS[report.kind]}{code}."))
    return facts


def _consent(story: Story) -> list[Fact]:
    deciding = set((story.decision or {}).get("numbers", ()))
    lines = [Fact(line.occurred_at, in_words(line), line.number in deciding) for line in story.lines]
    return lines + [Fact(block.created_at, _block(block), block.number in deciding) for block in story.blocks]


def in_words(line: Line) -> str:
    """A line of the ledger, as it is read aloud."""
    said = "Yes" if line.granted else "No"
    how = _SOURCES.get(line.source, line.source)
    text = f"{said} to {_what(line.scope)} {_BY[line.channel]}, said {how}"
    if wording := line.evidence.get("wording"):
        text += f", which read \N{LEFT DOUBLE QUOTATION MARK}{wording}\N{RIGHT DOUBLE QUOTATION MARK}"
    if line.expires_at:
        text += f"; good until {instant(line.expires_at)}"
    if (line.recorded_at - line.occurred_at).total_seconds() > 60:
        text += f"; recorded on {instant(line.recorded_at)}"
    return f"{text}. [{line.number}]"


def _block(block: Block) -> str:
    text = f"Address blocked: {_BLOCKS.get(block.reason, block.reason)}"
    if code := block.evidence.get("code"):
        text += f" ({code})"
    if block.lifted_at:
        text += f"; lifted on {instant(block.lifted_at)}: {block.lifted_why}"
    return f"{text}. [{block.number}]"


def _hours(detail: str) -> str:
    pack, _, zone = detail.partition("/")
    if not zone:
        return "whenever it is day in one place where they may be, it is night in another"
    return f"the quiet hours `{pack}`, by the clocks of {zone}"


def _cap(detail: str) -> str:
    """`newsletter 1/24h` or `marketing sms 3/day`, as `domain.caps.Cap` writes itself."""
    what, *channel, number_and_window = detail.split(" ")
    number, _, window = number_and_window.partition("/")
    much = f"{number} of {'all marketing' if what == MARKETING else what}"
    by = f" {_BY[channel[0]]}" if channel else ""
    length = f"in {window[:-1]} {_UNITS[window[-1]]}" if window[0].isdigit() else f"in a {window}"
    return f"at most {much}{by} {length}"


def _what(scope: str) -> str:
    match scope:
        case "marketing":
            return "all marketing"
        case "all":
            return "everything that is not mandatory"
        case _:
            return scope.removeprefix("topic:")
