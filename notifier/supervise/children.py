"""A child process: started on a leash, its lines handed on, started again with growing pauses when it dies."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from notifier.embedded import leashed

FIRST_PAUSE = 0.2  #: seconds
LONGEST_PAUSE = 10.0
SETTLED_AFTER = 30.0  #: seconds alive after which earlier deaths are forgotten


class Part(Protocol):
    """What can be kept running: a child or an embedded server."""

    name: str

    def start(self) -> None:
        """Start it."""

    def is_alive(self) -> bool:
        """Whether it runs."""


@dataclass(slots=True)
class Backoff:
    """When a part that died may start again."""

    deaths: int = 0
    started_at: float = 0.0
    due_at: float | None = None

    def started(self, now: float) -> None:
        """It runs again."""
        self.started_at, self.due_at = now, None

    def died(self, now: float) -> float:
        """It died: how many seconds to wait."""
        self.deaths = 0 if now - self.started_at >= SETTLED_AFTER else self.deaths
        pause = min(FIRST_PAUSE * 2.0 ** min(self.deaths, 20), LONGEST_PAUSE)
        self.deaths += 1
        self.due_at = now + pause
        return pause


class Child:
    """One `notifier` command as a process of its own."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        *,
        patience: float = 5.0,
    ) -> None:
        self.name = name
        self.arguments = tuple(arguments)
        self.environment = environment
        self.patience = patience  #: seconds it may take to end
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it dies when this thread's process does."""
        self.process = subprocess.Popen(  # noqa: S603  our own commands
            leashed([sys.executable, "-P", "-u", "-m", *self.arguments], death=signal.SIGKILL),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(self.environment),
            start_new_session=True,  # a terminal's Ctrl-C is for the parent, which stops its children in order
        )

    def is_alive(self) -> bool:
        """Whether it runs."""
        return self.process is not None and self.process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Tell it something, if it still listens."""
        if self.process is not None:
            self.process.send_signal(number)

    def how_it_ended(self) -> str:
        """Its exit in words."""
        status = self.process.returncode if self.process else None
        if status is not None and status < 0:
            return f"was ended by {signal.Signals(-status).name}"
        return f"ended with status {status}"
