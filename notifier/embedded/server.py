"""One embedded server's life: owned by one process, started, asked until it answers, stopped, cleared after a kill."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Self

from notifier.embedded.accounts import Account, leashed, make_directory
from notifier.errors import NotConfigured

START_SECONDS = 60.0  #: a recovery after a crash takes its time
STOP_SECONDS = 20.0
SOCKET_PATH_LIMIT = 100  #: macOS allows 104 bytes, Linux 108
CLEAN_ENVIRONMENT = {"LC_ALL": "C", "TZ": "UTC", "PATH": os.defpath}


class Server(ABC):
    """A server with its home below the state directory.

    Two locks tell the living from the dead without trusting a pid: `<name>.owner` is held by the process that launched
    the server, `<name>.lock` is inherited by the server itself and by all its children.
    """

    name: str
    stop_signal: signal.Signals
    death_signal: signal.Signals

    def __init__(self, state: Path) -> None:
        self.state = state.absolute()
        self.home = self.state / self.name
        self.log = self.state / f"{self.name}.log"
        self.account = Account.of(self.home)
        self.process: subprocess.Popen[bytes] | None = None
        self._owner: IO[str] | None = None
        self._sockets: Path | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients reach it."""

    @abstractmethod
    def _prepare(self) -> list[str]:
        """Make ready what the server needs, and return its command line."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether it serves clients now."""

    @abstractmethod
    def _orphan(self) -> int | None:
        """The pid that a server without a launcher has left."""

    def start(self) -> None:
        """Start, and return when it serves clients. To be called from a thread that lives as long as the server should.

        Raises:
            NotConfigured: it cannot run here; says what to do.

        """
        make_directory(self.state)
        is_first = self._owner is None
        self._own()
        try:
            with self.state.joinpath(f"{self.name}.lock").open("a") as lock:
                self._end_orphan(lock)
                self._make_home()
                command = self._prepare()
                self.process = self._launch(command, lock)
            self._await_answer()
        except BaseException:
            self._end()
            if is_first:  # a restart keeps its claim and its address
                self.stop()
            raise

    def stop(self) -> None:
        """Stop cleanly, by force after 20 s, and let go of the state. Safe to call twice."""
        self._end()
        if self._sockets is not None and self._sockets != self.home:
            shutil.rmtree(self._sockets, ignore_errors=True)
        self._sockets = None
        if self._owner is not None:
            self._owner.close()
            self._owner = None

    def is_alive(self) -> bool:
        """Whether the launched process runs."""
        return self.process is not None and self.process.poll() is None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def sockets(self) -> Path:
        """The directory of its socket: the home, or a short one when that path is too long for a socket."""
        if self._sockets is None:
            fits = len(os.fsencode(self.home / ".s.PGSQL.5432.lock")) <= SOCKET_PATH_LIMIT
            self._sockets = self.home if fits else self._short_directory()
        return self._sockets

    def run(self, command: Sequence[str]) -> int:
        """Run a program of the server's to its end, as the server's account."""
        with self.log.open("wb") as log:
            return subprocess.run(  # noqa: S603  a program of the wheel with our own arguments
                leashed(command, death=signal.SIGKILL, account=self.account),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.home,
                env=CLEAN_ENVIRONMENT,
                check=False,
            ).returncode

    def last_words(self) -> str:
        """The line of the log that tells why it ended."""
        lines = self.log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
        telling = [line for line in lines if "FATAL" in line or "error" in line.lower()] or lines[-1:]
        return f"{telling[0].strip()} (more in {self.log})"

    def _end(self) -> None:
        if self.process is None:
            return
        self.process.send_signal(self.stop_signal)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def _short_directory(self) -> Path:
        directory = Path(tempfile.mkdtemp(prefix="notifier-", dir="/tmp"))
        self._hand_over(directory)
        return directory

    def _own(self) -> None:
        if self._owner is not None:
            return
        owner = self.state.joinpath(f"{self.name}.owner").open("a")
        if not locked(owner, within=2):  # a killed owner may still be on its way out
            owner.close()
            raise NotConfigured(f"another process runs {self.name} in {self.state}: stop it, or set NOTIFIER_STATE_DIR")
        self._owner = owner

    def _end_orphan(self, lock: IO[str]) -> None:
        """Wait for a server whose launcher was killed; where no kernel told it (not Linux), tell it."""
        if locked(lock, within=5):
            return
        for number in (self.stop_signal, signal.SIGKILL):
            if (pid := self._orphan()) is not None:
                os.kill(pid, number)
            if locked(lock, within=STOP_SECONDS):
                return
        raise NotConfigured(f"a {self.name} from an earlier start still runs in {self.state}: end it and start again")

    def _make_home(self) -> None:
        if self.account and (door := self.account.closed_door(self.home)):
            raise NotConfigured(
                f"{door} may not be entered by the account that runs {self.name} for root: set NOTIFIER_STATE_DIR to a "
                "directory that everybody may enter, such as /var/lib/notifier"
            )
        if not self.home.exists():
            self.home.mkdir(mode=0o700)
            self._hand_over(self.home)

    def _hand_over(self, directory: Path) -> None:
        if self.account:
            os.chown(directory, self.account.uid, self.account.gid)

    def _launch(self, command: Sequence[str], lock: IO[str]) -> subprocess.Popen[bytes]:
        with self.log.open("wb") as log:
            return subprocess.Popen(  # noqa: S603  a program of the wheel with our own arguments
                leashed(command, death=self.death_signal, account=self.account),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.home,
                env=CLEAN_ENVIRONMENT,
                pass_fds=[lock.fileno()],
                start_new_session=True,  # a terminal's Ctrl-C is for the parent, which stops its children in order
            )

    def _await_answer(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if not self.is_alive() or time.monotonic() > deadline:
                raise NotConfigured(f"{self.name} does not start: {self.last_words()}")
            time.sleep(0.02)


def locked(file: IO[str], *, within: float) -> bool:
    """Take an exclusive lock on an open file, waiting up to `within` seconds for its holder to go."""
    deadline = time.monotonic() + within
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.05)
        else:
            return True
