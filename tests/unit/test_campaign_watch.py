"""What an operator sees of a campaign on its way: at any width, with and without colour, and how often it is asked."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from rich.console import Console

from notifier.commands.campaign_watch import Pace, View, drawn, in_a_line, wait_after
from notifier.domain.campaigns import CampaignState
from notifier.domain.messages import State
from notifier.domain.reports import ChannelReport, Headline, Outcome, Progress
from notifier_channels.contract import Channel

BEGAN = datetime(2026, 12, 1, 9, tzinfo=UTC)
HEAD = Headline(
    UUID(int=1), "Spring sale: everything that grows", CampaignState.SENDING, None, "newsletter", "newsletter",
    is_notice=False, rate=None, starts_at=BEGAN, started_at=BEGAN, ended_at=None, now=BEGAN + timedelta(seconds=9),
)  # fmt: skip
EMAIL = ChannelReport(
    Channel.EMAIL, 0, 500, 100, {}, 50, 1350,
    [
        Outcome(State.ACCEPTED, None, 1000), Outcome(State.DELIVERED, None, 34), Outcome(State.UNKNOWN, "in_doubt", 37),
        Outcome(State.SUPPRESSED, "no_grant", 200), Outcome(State.QUEUED, "frequency_cap", 70),
        Outcome(State.FAILED, "bad_address", 9),
    ],
)  # fmt: skip
SMS = ChannelReport(Channel.SMS, 1, 500, 1500, {}, 0, 0)


def view(*channels: ChannelReport, pace: float | None = 300.0, **changes: object) -> View:
    shown = channels or (EMAIL,)
    return View(Progress(replace(HEAD, **changes), 2000, {}, shown), shown, pace)


def seen(what: View, width: int = 80, *, colour: bool = False) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=colour, color_system="standard" if colour else None)
    console.print(drawn(what, width))
    return out.getvalue()


def test_it_shows_how_far_how_fast_how_long_and_what_became_of_the_messages() -> None:
    lines = [line.split() for line in seen(view()).splitlines()]
    assert lines[0][-1] == "sending"
    assert ["1,400", "of", "2,000", "people", "·", "70", "%", "·", "300/s", "·", "2", "s", "left"] in lines
    for expected in (
        ["sent", "1,034"], ["delivered", "34"], ["deferred", "70"], ["frequency", "cap", "70"], ["suppressed", "200"],
        ["no", "grant", "200"], ["failed", "9"], ["bad", "address", "9"], ["unknown", "37"], ["unreachable", "50"],
    ):  # fmt: skip
        assert expected in lines


@pytest.mark.parametrize("width", [40, 80])
@pytest.mark.parametrize("state", CampaignState)
def test_no_line_is_wider_than_the_terminal_and_every_count_stands_whole(width: int, state: CampaignState) -> None:
    text = seen(view(EMAIL, SMS, state=state, pause_reason="asked" if state is CampaignState.PAUSED else None), width)
    assert max(map(len, text.splitlines())) <= width
    assert "1,400 of 2,000 people" in text
    assert "1,034" in text
    assert str(state) in text.splitlines()[0]


def test_only_a_terminal_with_colours_gets_some() -> None:
    assert "\x1b[" in seen(view(), colour=True)
    assert "\x1b" not in seen(view())


@pytest.mark.parametrize(
    ("reason", "said"),
    [("asked", "somebody asked"), ("fails", "our own fault"), ("poison", "workers down"), ("Monday", "Monday")],
)
def test_a_paused_one_says_why_and_promises_no_time(reason: str, said: str) -> None:
    text = seen(view(state=CampaignState.PAUSED, pause_reason=reason))
    assert said in text
    assert "left" not in text
    assert "/s" not in text


def test_when_everybody_is_decided_it_says_how_many_still_wait() -> None:
    done = replace(EMAIL, not_planned=0, waiting=0, decided=1950)
    assert "everybody is decided; 70 wait" in seen(view(done))


def test_one_that_has_not_begun_says_when_it_starts() -> None:
    text = seen(view(state=CampaignState.SCHEDULED, started_at=None))
    assert "starts 2026-12-01 09:00:00 UTC" in text


def test_a_file_gets_a_line() -> None:
    line = in_a_line(view(EMAIL, SMS, pace=None))
    assert line.startswith("sending 1,400 of 2,000 people, 70 % email: sent 1,034, delivered 34, deferred 70, ")
    assert line.endswith("sms: nothing yet")


def test_only_what_differs_is_news() -> None:
    assert view(pace=1.0).news == view(pace=2.0).news
    assert view().news != view(replace(EMAIL, waiting=99, decided=1351)).news
    assert view().news != view(state=CampaignState.PAUSED, pause_reason="asked").news


def test_looking_takes_a_twentieth_at_most_and_never_more_than_two_looks_a_second() -> None:
    assert wait_after(0.001) == 0.5
    assert wait_after(2.0) == 40.0


def test_the_pace_is_that_of_the_last_seconds() -> None:
    pace = Pace()
    assert pace.note(0.0, 0) is None
    assert pace.note(1.0, 100) == 100
    for second in range(2, 30):
        last = pace.note(float(second), 100)
    assert last == 0
