"""A campaign on its way, on an operator's terminal: how far it is, how fast, and what becomes of its messages.

A look costs the database something, so that the next one waits twenty times as long as it took: watching takes no more
than a twentieth of one connection. The batches are read more often than the messages, which are many more.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Generic, TypeVar
from uuid import UUID

import typer

from notifier.console import on_database
from notifier.domain.campaigns import CampaignState
from notifier.domain.messages import State
from notifier.domain.reports import ARRIVED, TAKEN, ChannelReport, Progress

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from notifier.store.database import Connection

Id = Annotated[UUID, typer.Argument(metavar="ID", help="Of the campaign, as listed.")]
T = TypeVar("T")

LEAST_WAIT = 0.5  #: seconds between two looks
SHARE = 20  #: times as long as a look took
WINDOW = 10.0  #: seconds over which the rate is taken
MOST_COLUMNS = 80

OVER = frozenset({CampaignState.FINISHED, CampaignState.CANCELLED})
COLOURS = {
    CampaignState.SENDING: "cyan",
    CampaignState.PAUSED: "yellow",
    CampaignState.FINISHED: "green",
    CampaignState.CANCELLED: "red",
}
PAUSED = {
    "asked": "somebody asked for it",
    "fails": "too much failed by our own fault; the workers' log says what",
    "poison": "a batch of it brought several workers down",
}


def watch(id_: Id) -> None:
    """Watch a campaign until it is finished or cancelled. Ctrl-C stops the watching, not the campaign."""
    from rich.console import Console

    console = Console(highlight=False)
    console.width = min(console.width, MOST_COLUMNS)
    try:
        on_database(lambda c: _watched(c, id_, console))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


async def _watched(c: Connection, id_: UUID, console: Console) -> None:
    if not console.is_terminal:
        said: object = None
        async for view in views(c, id_):
            if view.news != said:
                said = view.news
                typer.echo(f"{view.progress.headline.now:%H:%M:%S}  {in_a_line(view)}")
        return
    from rich.live import Live

    with Live(console=console, auto_refresh=False, vertical_overflow="visible") as live:
        async for view in views(c, id_):
            live.update(drawn(view, console.width), refresh=True)


# Looking --------------------------------------------------------------------------------------------------------------


def wait_after(seconds: float) -> float:
    """How long to wait after a look that took so many seconds."""
    return max(LEAST_WAIT, SHARE * seconds)


@dataclass(slots=True)
class Look(Generic[T]):
    """Something that is looked at again and again, each time when the last look is paid for."""

    at: Callable[[], Awaitable[T]]
    due: float = 0.0  #: on the monotonic clock

    async def __call__(self) -> T:
        """Look now."""
        began = time.monotonic()
        found = await self.at()
        ended = time.monotonic()
        self.due = ended + wait_after(ended - began)
        return found


@dataclass(slots=True)
class Pace:
    """People decided about a second, over the last few seconds."""

    _seen: deque[tuple[float, int]] = field(default_factory=deque)

    def note(self, at: float, done: int) -> float | None:
        """What it is now, given how many are done at an instant (seconds); None: not known yet."""
        self._seen.append((at, done))
        while len(self._seen) > 2 and at - self._seen[0][0] > WINDOW:
            self._seen.popleft()
        first_at, first = self._seen[0]
        return (done - first) / (at - first_at) if at > first_at else None


@dataclass(frozen=True, slots=True)
class View:
    """What is shown."""

    progress: Progress
    channels: Sequence[ChannelReport]  #: with their outcomes, as of a moment ago
    pace: float | None

    @property
    def total(self) -> int:
        """People of the audience, on each of the channels that come first."""
        return self.progress.audience * max(1, len(_first(self.progress)))

    @property
    def done(self) -> int:
        """Those about whom nothing is left to be decided."""
        return _done(self.progress)

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self.done / self.total if self.total else float(self.progress.headline.state in OVER)

    @property
    def is_deciding(self) -> bool:
        """People are being decided about now."""
        return self.progress.headline.state is CampaignState.SENDING and self.done < self.total

    @property
    def left(self) -> float | None:
        """Seconds that it takes at this pace; None: nobody knows."""
        return (self.total - self.done) / self.pace if self.is_deciding and self.pace else None

    @property
    def news(self) -> object:
        """What differs when there is something to tell."""
        return self.progress.headline.state, self.progress.headline.pause_reason, self.done, self.channels


def _first(progress: Progress) -> list[ChannelReport]:
    """The channels on which everybody is decided about at once; those of later steps wait for these."""
    return [one for one in progress.channels if one.step == 0]


def _done(progress: Progress) -> int:
    return sum(one.done for one in _first(progress))


async def views(c: Connection, id_: UUID) -> AsyncIterator[View]:
    """How it stands, again and again, until it is over. Raises NotFound, and Conflict for a draft."""
    from notifier.dispatch import reporting
    from notifier.errors import Conflict
    from notifier.store import reports

    pace, batches = Pace(), Look(lambda: reporting.progress(c, id_))
    progress = await batches()
    messages = Look(lambda: reports.with_outcomes(c, progress))
    channels: Sequence[ChannelReport] = ()
    while True:
        if progress.headline.state is CampaignState.DRAFT:
            raise Conflict("It is a draft: nothing is sent before it is scheduled.")
        is_over = progress.headline.state in OVER
        if is_over or messages.due <= time.monotonic():
            channels = await messages()
        yield View(progress, channels, pace.note(progress.headline.now.timestamp(), _done(progress)))
        if is_over:
            return
        await asyncio.sleep(max(0.0, batches.due - time.monotonic()))
        progress = await batches()


# Showing --------------------------------------------------------------------------------------------------------------


def drawn(view: View, width: int) -> RenderableType:
    """As a terminal shows it, 40 columns wide or more."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    head, colour = view.progress.headline, COLOURS.get(view.progress.headline.state, "blue")
    title = Table.grid(expand=True, padding=(0, 2, 0, 0))
    title.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    title.add_column(justify="right", no_wrap=True)
    title.add_row(Text(head.name, "bold"), Text(str(head.state), f"bold {colour}"))
    bar = ProgressBar(total=1.0, completed=view.share, complete_style=colour, finished_style=colour)
    parts: list[RenderableType] = [title, Padding(bar, 0), *map(Text, _wrapped(_pieces(view), width))]
    if why := _why(view):
        parts.append(Text(why, colour))
    if view.channels:
        parts += [Text(), _table(view.channels)]
    return Group(*parts)


def _table(channels: Sequence[ChannelReport]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 0, 0, 2))
    grid.add_column(no_wrap=True, overflow="ellipsis")
    for _ in channels:
        grid.add_column(justify="right", no_wrap=True)
    if len(channels) > 1 or channels[0].channel != "email":
        grid.add_row("", *(Text(str(one.channel), "bold") for one in channels))
    for label, style, counts in _lines(channels):
        cells = [Text(f"{count:,}" if count else "-", style if count else "dim") for count in counts]
        grid.add_row(Text(label, "dim" if label.startswith(" ") else ""), *cells)
    return grid


def _lines(channels: Sequence[ChannelReport]) -> Iterator[tuple[str, str, Sequence[int]]]:
    """What there is to count, its colour, and the count on each channel; a reason stands below what it is for."""
    for label, states, style, is_always in (
        ("sent", TAKEN, "bold green", True),
        ("delivered", ARRIVED, "green", False),
        ("came back", {State.BOUNCED}, "red", False),
        ("under way", {State.CLAIMED, State.SENDING}, "cyan", False),
        ("deferred", {State.QUEUED}, "cyan", False),
        ("suppressed", {State.SUPPRESSED, State.EXPIRED, State.CANCELLED}, "yellow", True),
        ("failed", {State.FAILED}, "bold red", True),
        ("unknown", {State.UNKNOWN}, "bold magenta", True),
    ):
        counts = [one.messages(*states) for one in channels]
        if any(counts) or is_always:
            yield label, style, counts
        if label in ("deferred", "suppressed", "failed"):
            yield from _reasons(channels, states, style.removeprefix("bold "))
    for label, counts in (
        ("unreachable", [one.unreachable for one in channels]),
        ("left out", [sum(one.left_out.values()) for one in channels]),
    ):
        if any(counts):
            yield label, "yellow", counts


def _reasons(
    channels: Sequence[ChannelReport], states: AbstractSet[State], style: str
) -> Iterator[tuple[str, str, list[int]]]:
    found = dict.fromkeys(
        one.reason or "in turn" for channel in channels for one in channel.outcomes if one.state in states
    )
    for reason in found:
        yield (
            f"  {reason.replace('_', ' ')}",
            style,
            [
                sum(one.messages for one in of.outcomes if one.state in states and (one.reason or "in turn") == reason)
                for of in channels
            ],
        )


def _pieces(view: View) -> Iterator[str]:
    head = view.progress.headline
    if head.started_at is None and head.state not in OVER:
        yield f"starts {head.starts_at:%Y-%m-%d %H:%M:%S} UTC" if head.starts_at else "starts when its time has come"
        return
    people = max(1, len(_first(view.progress)))
    yield f"{view.done // people:,} of {view.progress.audience:,} people"
    yield f"{int(view.share * 100)} %"
    if view.is_deciding and view.pace is not None:
        yield f"{view.pace:,.0f}/s"
    if view.left is not None:
        yield f"{_duration(view.left)} left" if view.left >= 1 else "almost done"
    if head.started_at is not None and head.ended_at is not None:
        yield f"took {_duration((head.ended_at - head.started_at).total_seconds())}"


def _wrapped(pieces: Iterator[str], width: int) -> Iterator[str]:
    """On as few lines as it takes, none broken in two."""
    line = next(pieces, "")
    for piece in pieces:
        longer = f"{line} · {piece}"
        if len(longer) > width:
            yield line
        line = longer if len(longer) <= width else piece
    yield line


def _why(view: View) -> str:
    """Why it stands still, or goes on with everybody decided about."""
    head = view.progress.headline
    if head.state is CampaignState.PAUSED:
        return f"paused: {PAUSED.get(head.pause_reason or '', head.pause_reason)}"
    waiting = sum(one.messages(State.QUEUED) for one in view.channels)
    if head.state is CampaignState.SENDING and view.done >= view.total and waiting:
        return f"everybody is decided; {waiting:,} wait for their time"
    return ""


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def in_a_line(view: View) -> str:
    """As a file keeps it."""
    head = view.progress.headline
    said = [str(head.state), *([f"({head.pause_reason})"] if head.pause_reason else []), ", ".join(_pieces(view))]
    for one in view.channels:
        counts = ((label.strip(), count) for label, _, [count] in _lines([one]) if count and label[0] != " ")
        said.append(f"{one.channel}: {', '.join(f'{label} {count:,}' for label, count in counts) or 'nothing yet'};")
    return " ".join(said).rstrip(";")
