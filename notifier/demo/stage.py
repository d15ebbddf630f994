"""What the person at the terminal sees: handsome on a terminal, plain in a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.align import Align
from rich.console import Console, Group
from rich.markup import escape
from rich.padding import Padding
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text as Rich

from notifier.demo.phones import Push, Text
from notifier.demo.product import Wave
from notifier.domain.explanation import Explanation

MOST_COLUMNS = 100
COLOURS = {"failed": "red", "bounced": "red", "complained": "magenta", "queued": "cyan"}
MEANINGS = {
    "no_grant": "never said yes",
    "withdrawn:topic": "left this topic",
    "withdrawn:marketing": "called it spam",
    "withdrawn:all/sms": "typed STOP",
    "suppressed_address:stop": "typed STOP",
    "suppressed_address:hard_bounce": "nobody there",
    "suppressed_address:complaint": "called it spam",
    "bad_address:UNREGISTERED": "app gone, device removed",
    "bad_address": "nobody there",
    "bounced:30003": "phone is switched off",
    "came_back:30003": "phone is off, once more later",
    "bounced": "came back",
    "reached_otherwise": "the text message arrived",
    "complained": "called it spam",
    "quiet_hours": "it is night there",
}
HEAD = ("From", "To", "Subject", "List-Id", "List-Unsubscribe", "List-Unsubscribe-Post")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that the scenario promises, and whether it held."""

    promise: str
    holds: bool
    seen: str


@dataclass(frozen=True, slots=True)
class Counts:
    """How many of a wave came how far. Somebody who complained has got the mail; what came back was sent."""

    handed_over: int
    sent: int
    delivered: int
    held_back: int
    failed: int

    @classmethod
    def of(cls, wave: Wave, channel: str) -> Counts:
        """Count those on one channel. A push that FCM took is as far as anybody will ever know."""
        ids = wave.on(channel)
        by_state: Counter[str] = Counter(wave.states[id_][0] for id_ in ids if id_ in wave.states)
        delivered = by_state["delivered"] + by_state["complained"] + (channel == "push") * by_state["accepted"]
        came_back = by_state["bounced"] + len({*wave.off()} & {*ids})
        sent = delivered + came_back + (channel != "push") * by_state["accepted"]
        waiting = len({*wave.asleep()} & {*ids})
        held_back = by_state["suppressed"] + by_state["cancelled"] + by_state["expired"] + waiting
        return cls(len(ids), sent, delivered, held_back, by_state["failed"] + came_back)


class Stage:
    """Prints the scenario."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._acts = 0
        console.width = min(console.width, MOST_COLUMNS)

    def open(self) -> None:
        """The title."""
        about = "PostgreSQL, Valkey, API, workers, SMTP, Twilio's SDK and Google's: all of it\n"
        about += "runs for real, against a sandbox that delivers nothing."
        text = Rich.assemble(
            ("Notifier", "bold cyan"),
            (" brings mail, texts and pushes, and honours a no.\n", "bold"),
            (about, "dim"),
        )
        self._console.print(Panel(text, box=box.ROUNDED, border_style="cyan", padding=(0, 2), expand=False))

    def act(self, title: str) -> None:
        """A new part of the scenario."""
        self._acts += 1
        number = self._acts
        self._console.print()
        self._console.print(Rule(f"[bold cyan]{number}[/]  [bold]{escape(title)}[/]", align="left", style="dim"))

    def tell(self, text: str) -> None:
        """One thing that happened."""
        self._console.print(Padding(text, (0, 0, 0, 3)), highlight=False)

    @contextmanager
    def busy(self, text: str) -> Iterator[None]:
        """Something takes a while."""
        if self._console.is_terminal:
            with self._console.status(f"[dim]{escape(text)} …[/]"):
                yield
        else:
            yield

    def mail(self, detail: Mapping[str, Any]) -> None:
        """A mail as its reader gets it."""
        headers = dict(detail["headers"])
        head = Table.grid(padding=(0, 2))
        for name in HEAD:
            if name in headers:
                head.add_row(
                    f"[dim]{name}[/]", Rich(" ".join(headers[name].split()), overflow="ellipsis", no_wrap=True)
                )
        lines = [line for line in (detail["text"] or "").splitlines() if line.strip()][2:5]
        body = Group(head, Rich(), *(Rich(line, style="italic", overflow="ellipsis", no_wrap=True) for line in lines))
        self._console.print(Panel(body, box=box.ROUNDED, border_style="dim", padding=(0, 1)))

    def thread(self, texts: Iterable[Text]) -> None:
        """A phone's texts: ours on the left, the person's on the right."""
        lines = [
            Align.right(Rich(f"“{text.body}”", style="bold yellow"))
            if text.is_typed
            else Padding(Rich(" ".join(text.body.split()), style="italic"), (0, 12, 0, 0))
            for text in texts
        ]
        self._console.print(
            Panel(Group(*lines), box=box.ROUNDED, border_style="dim", title="a phone", title_align="left")
        )

    def lock_screen(self, push: Push) -> None:
        """What a device shows."""
        card = Rich.assemble(
            (f"{push.title}\n", "bold"), (push.body.strip(), "italic"), (f"\nopens {push.link}", "dim")
        )
        self._console.print(Panel(card, box=box.ROUNDED, border_style="dim", title="a lock screen", title_align="left"))

    def wave(self, wave: Wave) -> None:
        """What became of a wave on each channel, with every reason."""
        self._console.print(f"\n   [bold]{escape(wave.name)}[/]  [dim]{wave.category}[/]")
        channels = sorted({*wave.channels.values()})
        for channel in channels:
            counts = Counts.of(wave, channel)
            name = f"[bold]{channel:<6}[/]" if len(channels) > 1 else ""
            self._console.print(
                f"   {name}{counts.handed_over} handed over, {_in('green', counts.delivered)} delivered, "
                f"{_in('yellow', counts.held_back)} held back, {_in('red', counts.failed)} failed or came back",
                highlight=False,
            )
        self._reasons(wave)

    def _reasons(self, wave: Wave) -> None:
        grid = Table.grid(padding=(0, 1))
        grid.add_column(justify="right", width=8)
        for (state, reason), count in wave.count().most_common():
            if reason:
                colour = COLOURS.get(state, "yellow")
                grid.add_row(str(count), f"[{colour}]{state}[/]", escape(reason), f"[dim]{_meaning(reason)}[/]")
        if grid.row_count:
            self._console.print(grid)

    def table(self, waves: Sequence[Wave]) -> None:
        """All waves side by side, a line for each channel."""
        table = Table(box=box.SIMPLE_HEAD, header_style="bold", padding=(0, 1))
        table.add_column("wave", no_wrap=True)
        table.add_column("by")
        for name in ("handed\nover", "sent", "delivered", "held\nback", "failed"):
            table.add_column(name, justify="right")
        for wave in waves:
            for place, channel in enumerate(sorted({*wave.channels.values()})):
                table.add_row("" if place else wave.name, channel, *_row(Counts.of(wave, channel)))
        self._console.print(table)

    def explanation(self, said: Explanation) -> None:
        """Why somebody got nothing, in words to read aloud."""
        lines = [f"[bold]{escape(said.answer)}[/]", *(escape(reason) for reason in said.why)]
        lines += [f"[dim]{escape(fact.text)}[/]" for fact in said.consent if fact.decides]
        self._console.print(
            Panel("\n".join(lines), box=box.ROUNDED, border_style="dim", title="notifier explain", title_align="left")
        )

    def checks(self, checks: Iterable[Check]) -> None:
        """What was promised, and what was seen."""
        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=4, justify="right")
        for check in checks:
            mark = "[bold green]✓[/]" if check.holds else "[bold red]✗[/]"
            grid.add_row(mark, f"{escape(check.promise)}  [dim]{escape(check.seen)}[/]")
        self._console.print(grid)

    def close(self, *, holds: bool) -> None:
        """The end."""
        verdict = "[bold green]Every promise held.[/]" if holds else "[bold red]A promise was broken.[/]"
        self._console.print(f"\n   {verdict}\n")

    def addresses(self, places: Mapping[str, str]) -> None:
        """Where to go on looking. Addresses stand whole, so that they can be clicked and copied."""
        self._console.print(Rule("[bold green]Still running[/]", align="left", style="green"))
        for name, url in places.items():
            self._console.print(
                f"   [bold]{escape(name):<18}[/] [cyan]{escape(url)}[/]", soft_wrap=True, highlight=False
            )
        self._console.print("\n   [dim]Ctrl-C stops everything; the data stays.[/]")


def _row(counts: Counts) -> Sequence[str]:
    return (
        str(counts.handed_over),
        str(counts.sent),
        _in("green", counts.delivered),
        _in("yellow", counts.held_back),
        _in("red", counts.failed),
    )


def _in(colour: str, count: int) -> str:
    return f"[{colour if count else 'dim'}]{count}[/]"


def _meaning(reason: str) -> str:
    known: Sequence[str] = [text for start, text in MEANINGS.items() if reason.startswith(start)]
    return known[0] if known else ""
