"""A state directory and who runs on it: the lock, the secrets that are made once, and where the running parts are."""

from __future__ import annotations

import json
import os
import re
import secrets
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from notifier.embedded import locked, make_directory
from notifier.errors import NotConfigured

STARTING_SECONDS = 60.0  #: how long a command waits for an instance that is just starting
SECRETS: dict[str, Callable[[], str]] = {
    "NOTIFIER_LINK_KEYS": lambda: f"k1:{secrets.token_urlsafe(32)}",
    "NOTIFIER_HASH_KEYS": lambda: f"h1:{secrets.token_urlsafe(32)}",
    "NOTIFIER_SANDBOX_SECRET": lambda: secrets.token_urlsafe(32),
    "NOTIFIER_TWILIO_ACCOUNT_SID": lambda: f"AC{0:016}{secrets.token_hex(8)}",  # the zeros tell it from a real one
    "NOTIFIER_TWILIO_AUTH_TOKENS": lambda: secrets.token_hex(16),
}


@dataclass(frozen=True, slots=True)
class Running:
    """What a running instance tells others about itself."""

    pid: int
    address: str
    environment: Mapping[str, str]


class Instance:
    """The state directory. One process at a time holds it; the kernel lets go of it when that process dies."""

    def __init__(self, state: Path) -> None:
        self.state = state.absolute()
        self._path = self.state / "instance.json"
        self._file: IO[str] | None = None

    def take(self, *, within: float = 2) -> bool:
        """Hold the state for this process, unless another does. A lock that a dead process left is no lock."""
        make_directory(self.state)
        file = os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600), "r+")
        if not locked(file, within=within):
            file.close()
            return False
        file.truncate()
        self._file = file
        return True

    def publish(self, address: str, environment: Mapping[str, str]) -> None:
        """Tell other commands how to reach what runs here. Only the owner can read it."""
        if self._file is None:
            raise RuntimeError("take() comes first")
        self._file.seek(0)
        self._file.truncate()
        json.dump({"pid": os.getpid(), "address": address, "environment": dict(environment)}, self._file)
        self._file.flush()

    def leave(self) -> None:
        """Let the next one in."""
        if self._file is not None:
            self._file.truncate(0)
            self._file.close()
            self._file = None

    def running(self) -> Running | None:
        """What the holder published; None while it is still starting."""
        try:
            return Running(**json.loads(self._path.read_text()))
        except (OSError, ValueError):
            return None

    def take_or_join(self) -> Running | None:
        """Hold the state (None), or learn who runs on it."""
        deadline = time.monotonic() + STARTING_SECONDS
        while not self.take(within=0):
            if running := self.running():
                return running
            if time.monotonic() > deadline:
                raise NotConfigured(f"another process holds {self.state} and does not finish starting: look at its log")
            time.sleep(0.1)
        return None

    def refusal(self) -> NotConfigured:
        """The sentence for a second instance."""
        running = self.running()
        who = f"process {running.pid} at {running.address}" if running else "a process that is just starting"
        return NotConfigured(
            f"Notifier already runs on {self.state} ({who}): stop it, or set NOTIFIER_STATE_DIR to another directory"
        )

    def secrets(self) -> dict[str, str]:
        """The keys of links and hashes and what the sandbox is told: made once, and never changed after.

        A state directory of an earlier version gets what it has not.
        """
        path = self.state / "secrets.env"
        found = _assignments(path) if path.exists() else {}
        if SECRETS.keys() <= found.keys():
            return found
        found = {name: make() for name, make in SECRETS.items()} | found
        descriptor, fresh = tempfile.mkstemp(dir=self.state)  # 0600
        with os.fdopen(descriptor, "w") as file:
            file.writelines(f"{name}={value}\n" for name, value in found.items())
            file.flush()
            os.fsync(file.fileno())
        Path(fresh).rename(path)
        return found


def _assignments(path: Path) -> dict[str, str]:
    """The lines of a file that we have written, and that somebody may have edited: a key must not get lost by that."""
    lines = [(n, line) for n, line in enumerate(path.read_text(errors="replace").splitlines(), 1) if line.strip()]
    if wrong := next((n for n, line in lines if not re.fullmatch("[A-Z_]+=.*", line)), None):
        raise NotConfigured(f"{path}: line {wrong} is not written like NAME=value: mend it; the keys in it must stay")
    return dict(line.split("=", 1) for _, line in lines)
