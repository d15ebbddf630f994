"""The rules of `decide` as a table: tests ask each row, and `docs/reference/rules.md` is printed from the same rows.

Print the page anew after a change: `python3 run.py dev python -m tests.rules > docs/reference/rules.md`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from notifier.domain.campaigns import CampaignState
from notifier.domain.caps import Cap, Sent
from notifier.domain.clocks import Window
from notifier.domain.consent import (
    ConsentEvent,
    Default,
    Deferral,
    Facts,
    Permit,
    Question,
    Suppression,
    SuppressionReason,
    Topic,
    Verdict,
    decide,
)
from notifier.domain.messages import Category, State
from notifier.domain.routing import Earlier, Mode, Turn
from notifier.domain.timing import Hours, Pack
from notifier_channels.contract import Channel

NIGHT = datetime(2026, 11, 25, 3, tzinfo=UTC)
NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
MESSAGE = UUID(int=7)
NOTHING = Facts()


def topic(key: str, category: Category, default: Default, *, mandatory: bool = False) -> Topic:
    return Topic(key, category, dict.fromkeys(Channel, default), mandatory)


NEWS = topic("news", Category.MARKETING, Default.OPT_OUT)
LETTER = topic("letter", Category.MARKETING, Default.OPT_IN)
ORDERS = topic("orders", Category.TRANSACTIONAL, Default.OPT_OUT)
SECURITY = topic("security", Category.TRANSACTIONAL, Default.OPT_OUT, mandatory=True)
KINDS = {
    "news": "marketing, `opt_out`",
    "letter": "marketing, `opt_in`",
    "orders": "transactional, `opt_out`",
    "security": "transactional, mandatory",
}
DAYTIME = Pack("us", "", frozenset(Channel), (Window(480, 1260),) * 7, frozenset(), (), "", NIGHT.date())


def said(number: int, scope: str, channel: str = "any", *, yes: bool, hours: int = -1, ends: int | None = None) -> Any:
    expires = None if ends is None else NOON + ends * HOUR
    return ConsentEvent(number, scope, channel, yes, NOON + hours * HOUR, expires)


def no(number: int, scope: str, channel: str = "any", hours: int = -1) -> Any:
    return said(number, scope, channel, yes=False, hours=hours)


def yes(number: int, scope: str, channel: str = "any", hours: int = -1, ends: int | None = None) -> Any:
    return said(number, scope, channel, yes=True, hours=hours, ends=ends)


def blocked(reason: SuppressionReason) -> Facts:
    return Facts(suppressions=[Suppression(9, reason)])


def by_day(*zones: str) -> Facts:
    return Facts(hours=Hours([DAYTIME], zones))


def had(*ages: int) -> Facts:
    return Facts(sent=[Sent(NOON - age * HOUR, "news", Channel.SMS, age) for age in ages])


def after(state: State, *, mode: Mode = Mode.FIRST, reason: str | None = None) -> Turn:
    return Turn(mode, NOON + HOUR, [Earlier(Channel.EMAIL, state, reason)])


@dataclass(frozen=True)
class Row:
    """One situation, and what comes of it: `go`, `never` or `later`, and the reason (or the rule of what may go)."""

    situation: str
    topic: Topic
    answer: str
    reason: str
    facts: Facts = NOTHING
    at: datetime = NOON
    channel: Channel = Channel.SMS
    turn: Turn | None = None
    caps: tuple[Cap, ...] = ()
    lives: timedelta = 24 * HOUR
    campaign: CampaignState | None = None

    def ask(self) -> Verdict:
        question = Question(
            MESSAGE, self.topic, self.channel, self.at + self.lives, self.turn, self.caps, campaign=self.campaign
        )
        return decide(question, self.facts, self.at)


TABLE: dict[str, list[Row]] = {
    "Before anything else": [
        Row("Its time has run out", SECURITY, "never", "expired", lives=timedelta()),
        Row("The person gave the address up", SECURITY, "never", "address_removed", Facts(has_address=False)),
    ],
    "A campaign that was stopped": [
        Row("It is paused", NEWS, "later", "campaign_paused", campaign=CampaignState.PAUSED),
        Row("It is cancelled; even a notice of it stays", SECURITY, "never", "campaign_cancelled",
            campaign=CampaignState.CANCELLED),
        Row("It is being sent", NEWS, "go", "opt_out_default", campaign=CampaignState.SENDING),
        Row("Somebody else of it has the same address", NEWS, "never", "duplicate_address", Facts(is_doubled=True)),
    ],
    "The order of channels": [
        Row("`first`: the mail before it was taken", ORDERS, "never", "reached_otherwise:email",
            turn=after(State.ACCEPTED)),
        Row("`first`: the mail before it is still being decided", ORDERS, "later", "waits_for_channel:email",
            turn=after(State.QUEUED)),
        Row("`first`: the mail before it was refused by the person", ORDERS, "go", "opt_out_default",
            turn=after(State.SUPPRESSED)),
        Row("`first`: nobody was there to take the mail before it", ORDERS, "go", "opt_out_default",
            turn=after(State.FAILED, reason="bad_address:550 5.1.1")),
        Row("`then`: the mail before it has arrived", ORDERS, "never", "reached_otherwise:email",
            turn=after(State.DELIVERED, mode=Mode.THEN)),
        Row("`then`: the mail before it was taken, and may still come back", ORDERS, "later", "waits_for_channel:email",
            turn=after(State.ACCEPTED, mode=Mode.THEN)),
        Row("`then`: the mail before it came back", ORDERS, "go", "opt_out_default",
            turn=after(State.BOUNCED, mode=Mode.THEN)),
    ],
    "What the person said": [
        Row("Nothing", NEWS, "go", "opt_out_default"),
        Row("Nothing", LETTER, "never", "no_grant"),
        Row("Nothing", ORDERS, "go", "opt_out_default"),
        Row("Yes to the topic", LETTER, "go", "granted", Facts([yes(1, "topic:letter")])),
        Row("Yes to the topic by mail; this is a text message", LETTER, "never", "no_grant",
            Facts([yes(1, "topic:letter", "email")])),
        Row("Yes to the topic, on a basis that has ended", LETTER, "never", "no_grant",
            Facts([yes(1, "topic:letter", hours=-3, ends=-1)])),
        Row("Yes to all marketing", LETTER, "never", "no_grant", Facts([yes(1, "marketing")])),
        Row("No to the topic", NEWS, "never", "withdrawn:topic:news/any", Facts([no(1, "topic:news")])),
        Row("No to the topic by mail; this is a text message", NEWS, "go", "opt_out_default",
            Facts([no(1, "topic:news", "email")])),
        Row("No to all marketing", NEWS, "never", "withdrawn:marketing/any", Facts([no(1, "marketing")])),
        Row("No to all marketing", ORDERS, "go", "opt_out_default", Facts([no(1, "marketing")])),
        Row("No to everything", ORDERS, "never", "withdrawn:all/any", Facts([no(1, "all")])),
        Row("No to everything", SECURITY, "go", "mandatory_topic", Facts([no(1, "all")])),
        Row("No to everything, later yes to the topic on every channel", NEWS, "go", "granted",
            Facts([no(1, "all", hours=-3), yes(2, "topic:news", hours=-2)])),
        Row("No to everything by text message, later yes to the topic on every channel", NEWS, "never",
            "withdrawn:all/sms", Facts([no(1, "all", "sms", hours=-3), yes(2, "topic:news", hours=-2)])),
        Row("No to everything by text message, later yes to the topic by text message", NEWS, "go", "granted",
            Facts([no(1, "all", "sms", hours=-3), yes(2, "topic:news", "sms", hours=-2)])),
        Row("No to the topic, later yes to all marketing", NEWS, "never", "withdrawn:topic:news/any",
            Facts([no(1, "topic:news", hours=-3), yes(2, "marketing", hours=-2)])),
        Row("No to all marketing, later yes to all marketing", NEWS, "go", "opt_out_default",
            Facts([no(1, "marketing", hours=-3), yes(2, "marketing", hours=-2)])),
        Row("Yes to the topic, later no to it", LETTER, "never", "withdrawn:topic:letter/any",
            Facts([yes(1, "topic:letter", hours=-3), no(2, "topic:letter", hours=-2)])),
        Row("Yes and no at the same instant", LETTER, "never", "withdrawn:topic:letter/any",
            Facts([no(1, "topic:letter"), yes(2, "topic:letter")])),
        Row("No, and a yes from before that was imported later", LETTER, "never", "withdrawn:topic:letter/any",
            Facts([no(1, "topic:letter", hours=-2), yes(2, "topic:letter", hours=-3)])),
    ],
    "The address": [
        *(Row(f"Suppressed: `{reason}`", SECURITY, "never", f"suppressed_address:{reason}", blocked(reason))
          for reason in SuppressionReason if reason is not SuppressionReason.COMPLAINT),
        Row("Suppressed: `complaint`", NEWS, "never", "suppressed_address:complaint",
            blocked(SuppressionReason.COMPLAINT)),
        Row("Suppressed: `complaint`", ORDERS, "go", "opt_out_default", blocked(SuppressionReason.COMPLAINT)),
    ],
    "The time": [
        Row("12:00 in quiet hours until 08:00", NEWS, "go", "opt_out_default", by_day("UTC")),
        Row("03:00 in quiet hours until 08:00", NEWS, "later", "quiet_hours:us/UTC", by_day("UTC"), NIGHT),
        Row("03:00 in quiet hours until 08:00", ORDERS, "go", "opt_out_default", by_day("UTC"), NIGHT),
        Row("03:00 in quiet hours until 08:00, of use until 08:00", NEWS, "never", "expired:quiet_hours:us/UTC",
            by_day("UTC"), NIGHT, lives=5 * HOUR),
        Row("12:00 in one of two zones that the number may be in, 04:00 in the other", NEWS, "later",
            "quiet_hours:us/America/Los_Angeles", by_day("UTC", "America/Los_Angeles")),
        Row("It is never day in all the zones that the number may be in", NEWS, "never", "expired:quiet_hours:never",
            by_day("Pacific/Kiritimati", "Asia/Kolkata", "Europe/London")),
        Row("Cap `1/24h`, the last one 23 hours ago", NEWS, "later", "frequency_cap:marketing 1/24h", had(23),
            caps=(Cap.read("1/24h"),)),
        Row("Cap `1/24h`, the last one 24 hours ago", NEWS, "go", "opt_out_default", had(24),
            caps=(Cap.read("1/24h"),)),
        Row("Cap `1/day`, the last one 13 hours ago, yesterday", NEWS, "go", "opt_out_default", had(13),
            caps=(Cap.read("1/day"),)),
        Row("Cap `sms 2/7d`, one by text message before", NEWS, "go", "opt_out_default", had(30),
            caps=(Cap.read("sms 2/7d"),)),
        Row("Cap `sms 1/7d`, one by text message before; this is a mail", NEWS, "go", "opt_out_default", had(30),
            channel=Channel.EMAIL, caps=(Cap.read("sms 1/7d"),)),
        Row("Cap `1/7d`, of use for a day", NEWS, "never", "expired:frequency_cap:marketing 1/7d", had(23),
            caps=(Cap.read("1/7d"),)),
        Row("A pause for two hours", NEWS, "later", "snoozed", Facts(snoozed_until=NOON + 2 * HOUR)),
        Row("A pause for two hours", ORDERS, "go", "opt_out_default", Facts(snoozed_until=NOON + 2 * HOUR)),
        Row("A pause for two days, of use for one", NEWS, "never", "expired:snoozed",
            Facts(snoozed_until=NOON + 48 * HOUR)),
        Row("A pause that ends at 05:00, in quiet hours", NEWS, "later", "quiet_hours:us/UTC",
            by_day("UTC")._replace(snoozed_until=NIGHT + 2 * HOUR), NIGHT),
    ],
}  # fmt: skip


def answered(verdict: Verdict) -> tuple[str, str]:
    """As a row says it."""
    match verdict:
        case Permit(decision=decision):
            return "go", str(decision.rule)
        case Deferral(decision=decision):
            return "later", decision.reason
        case _:
            return "never", verdict.decision.reason


HEAD = """\
# The rules, row by row

What `decide` says of a situation, chapter by chapter in the order in which it asks. It is about a text message where
nothing else is said. The page is printed from the table that the tests ask (`tests/rules.py`), so it says what the
code does. In sentences it stands in [why a message was sent, or was not](../why/consent.md); where the hours are from,
in [quiet hours](quiet-hours.md).

`go`: it is sent, and the rule stands in its decision. `later`: it waits and is asked again. `never`: it is not sent.
"""


def page() -> Iterator[str]:
    yield HEAD
    for chapter, rows in TABLE.items():
        yield f"## {chapter}\n"
        yield "| situation | topic | | reason or rule |\n|---|---|---|---|"
        for row in rows:
            yield f"| {row.situation} | {KINDS[row.topic.key]} | {row.answer} | `{row.reason}` |"
        yield ""


if __name__ == "__main__":
    print("\n".join(page()), end="")
