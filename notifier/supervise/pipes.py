"""What the children say: read without blocking anybody, kept in a file for each, and handed on line by line."""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path

from notifier.embedded import make_directory
from notifier.supervise.children import Child

MOST_BYTES = 5_000_000  #: of one log file; one older is kept
Show = Callable[[str, str], None]


class Pipes:
    """Waits for lines, signals and deaths at once, in one thread: children are bound to the thread that starts them."""

    def __init__(self, logs: Path, show: Show, listen_to: Iterable[signal.Signals]) -> None:
        make_directory(logs)
        self._logs = logs
        self._show = show
        self._selector = selectors.DefaultSelector()
        self._partial: dict[str, bytes] = {}
        self._files: dict[str, RotatingFileHandler] = {}
        self._wake, self._woken = socket.socketpair()
        self._wake.setblocking(False)
        self._woken.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self.heard: set[int] = set()  #: signals that came
        self._before = {number: signal.signal(number, self._hear) for number in listen_to}
        self._before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)  # only wakes
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)

    def add(self, child: Child) -> None:
        """Listen to a child that has just started."""
        if child.process and child.process.stdout:
            self._selector.register(child.process.stdout, selectors.EVENT_READ, child)

    def wait(self, seconds: float) -> None:
        """Hand on what is said, for up to `seconds` or until something happens."""
        for key, _ in self._selector.select(max(0.0, seconds)):
            if isinstance(key.data, Child):
                self._read(key.fd, key.data)
            else:
                with suppress(BlockingIOError):
                    self._woken.recv(4096)

    def note(self, name: str, text: str) -> None:
        """Keep and show one line."""
        if name not in self._files:
            path = self._logs / f"{name}.log"
            self._files[name] = RotatingFileHandler(path, maxBytes=MOST_BYTES, backupCount=1, encoding="utf-8")
        self._files[name].emit(logging.LogRecord(name, logging.INFO, "", 0, text, None, None))
        self._show(name, text)

    def last_line(self, name: str) -> str:
        """What one of them said last."""
        path = self._logs / f"{name}.log"
        lines = path.read_text(errors="replace").strip().splitlines() if path.exists() else []
        return f"{lines[-1] if lines else 'it said nothing'} (more in {path})"

    def close(self) -> None:
        """Give the signals back."""
        signal.set_wakeup_fd(-1)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        for file in self._files.values():
            file.close()
        self._selector.close()
        self._wake.close()
        self._woken.close()

    def _hear(self, number: int, _: object) -> None:
        self.heard.add(number)

    def _read(self, descriptor: int, child: Child) -> None:
        data = os.read(descriptor, 65536)
        *lines, rest = (self._partial.pop(child.name, b"") + data).split(b"\n")
        if data:
            self._partial[child.name] = rest
        else:
            lines += [rest] if rest else []
            self._forget(descriptor)
        for line in lines:
            self.note(child.name, line.decode(errors="replace").rstrip("\r"))

    def _forget(self, descriptor: int) -> None:
        pipe = self._selector.unregister(descriptor).fileobj
        if not isinstance(pipe, int):
            pipe.close()  # type: ignore[attr-defined]  # registered by add() as the child's stdout
