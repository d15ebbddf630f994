"""What the parent shows: every child's lines side by side, or only how far the start has come."""

from __future__ import annotations

import json
from zlib import crc32

from rich.console import Console
from rich.markup import escape
from rich.status import Status

COLOURS = ("cyan", "green", "magenta", "blue", "yellow", "bright_cyan", "bright_magenta")
WIDTH = 20
ALARMING = {"warning": "yellow", "error": "red", "critical": "red"}


class Lines:
    """Each line with the name of the child that said it."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __call__(self, name: str, text: str) -> None:
        """Show one line."""
        if name == "ready":
            self._console.print(_addresses(*text.split()), highlight=False)
            return
        colour = COLOURS[crc32(name.encode()) % len(COLOURS)]
        said, mood = _plain(text)
        line = f"[{mood}]{escape(said)}[/]" if mood else escape(said)
        self._console.print(f"[{colour}]{name:<{WIDTH}}[/] [dim]│[/] {line}", soft_wrap=True, highlight=False)


class Progress:
    """How far the start has come, on one line that goes away; the children's lines stay in their files."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status: Status | None = None

    def __call__(self, name: str, text: str) -> None:
        """Show one step."""
        if name == "ready":
            self.close()
        elif name == "notifier" and self._console.is_terminal:
            if self._status is None:
                self._status = self._console.status(text)
                self._status.start()
            self._status.update(f"[dim]{escape(text)} …[/]")

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._status is not None:
            self._status.stop()
            self._status = None


def _plain(text: str) -> tuple[str, str]:
    """A line of a JSON log as a person reads it, with its colour; other lines as they are."""
    try:
        fields = json.loads(text)
        event, level = fields.pop("event"), fields.pop("level", "info")
    except (ValueError, KeyError, AttributeError):
        return text, ""
    fields.pop("timestamp", None)
    return " ".join([str(event), *(f"{name}={value}" for name, value in fields.items())]), ALARMING.get(level, "")


def _addresses(api: str, sandbox: str) -> str:
    return (
        f"\n[bold green]Notifier is up.[/] Ctrl-C stops it.\n"
        f"  API and its docs   [cyan]{api}/docs[/]\n"
        f"  sandbox inbox      [cyan]{sandbox}[/]\n"
    )
