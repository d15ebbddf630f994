"""What every benchmark stands on: durable embedded servers, an SMTP server, workers, and the machine's facts."""

from __future__ import annotations

import asyncio
import os
import platform
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from notifier import embedded
from notifier.embedded.accounts import Account
from notifier.rendering import Templates
from notifier.store.database import Database, migrate
from tests.world import World, small_templates

TEMPLATES = Path("templates").resolve()
SECRET = "a-secret-for-benchmarks-of-32-bytes"
POSTFIX = "/usr/sbin:/usr/lib/postfix/sbin"  #: where Debian puts smtp-sink and smtp-source
SERVER = {"shared_buffers": "2GB", "effective_cache_size": "4GB", "max_wal_size": "8GB"}  #: as for a million people
TAIL = 256  #: bytes in which smtp-sink's last counters stand for certain


def machine() -> dict[str, Any]:
    """Figures mean something only beside these."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(": ")[1] for line in lines if line.startswith("model name")), "")
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "python": platform.python_version(),
        "system": platform.platform(),
    }


@dataclass(frozen=True, slots=True)
class Stage:
    """Servers that live as long as the benchmark."""

    database_url: str
    redis_url: str
    state: Path
    servers: Mapping[str, psutil.Process]  #: postgres and valkey

    def environment(self, smtp_port: int) -> dict[str, str]:
        """What a child process of the service needs."""
        return {
            "PATH": os.environ.get("PATH", ""),
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "DATABASE_URL": self.database_url,
            "REDIS_URL": self.redis_url,
            "NOTIFIER_STATE_DIR": str(self.state),
            "NOTIFIER_LINK_KEYS": f"k1:{SECRET}",
            "NOTIFIER_HASH_KEYS": f"k1:{SECRET}",
            "NOTIFIER_SMTP_URL": f"smtp://127.0.0.1:{smtp_port}?tls=none",
            "NOTIFIER_LOG_LEVEL": "warning",
            "NOTIFIER_QUIET_HOURS": "none",  # a benchmark may run at night
        }

    @asynccontextmanager
    async def world(self, templates: Templates | None = None) -> AsyncIterator[World]:
        """People and messages, made in bulk; of these templates, or of the tests' small ones."""
        database = Database(self.database_url)
        await database.open()
        try:
            yield World(database, self.state / "journals", templates or small_templates())
        finally:
            await database.close()


@contextmanager
def stage() -> Iterator[Stage]:
    """Durable commits, as in production."""
    with tempfile.TemporaryDirectory(prefix="nb-", dir="/tmp") as name:
        directory = Path(name)
        directory.chmod(0o711)
        with embedded.Postgres(directory, tuning=SERVER) as postgres, embedded.Valkey(directory) as valkey:
            migrate(postgres.url)
            assert postgres.process is not None
            assert valkey.process is not None
            servers = {
                "postgres": psutil.Process(postgres.process.pid),
                "valkey": psutil.Process(valkey.process.pid),
            }
            yield Stage(postgres.url, valkey.url, directory / "state", servers)


@dataclass(frozen=True, slots=True)
class Sink:
    """An SMTP server in a process of its own that takes everything."""

    name: str
    port: int
    log: Path | None  #: one line per accepted message with its monotonic nanosecond; Postfix's keeps none
    process: psutil.Process
    counters: Path | None = None  #: Postfix's writes them again with each message

    def received(self) -> int:
        """How many messages it has taken, by its own count."""
        if self.counters is None:
            return len(self.log.read_text().splitlines()) if self.log else 0
        with self.counters.open("rb") as file:
            file.seek(max(0, self.counters.stat().st_size - TAIL))
            counted = re.findall(rb"mesg=(\d+)\r", file.read())  # with its end: a number that is whole
        return int(counted[-1]) if counted else 0


@asynccontextmanager
async def sink(directory: Path, *, logged: bool = False) -> AsyncIterator[Sink]:
    """Postfix's smtp-sink where it is installed, since it costs least; else, or when a log is wanted, our own."""
    program = postfix_program("smtp-sink")
    if program and not logged:
        port = _free_port()
        counters = directory / "sink.counters"
        nobody = pwd.getpwnam("nobody")
        account = Account(nobody.pw_uid, nobody.pw_gid) if os.geteuid() == 0 else None  # it refuses to stay root
        command = [program, "-c", f"127.0.0.1:{port}", "1000"]
        with counters.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *embedded.leashed(command, death=signal.SIGKILL, account=account), stdout=output, start_new_session=True
            )
        await _until_open(port)
        found = Sink("smtp-sink", port, None, psutil.Process(process.pid), counters)
    else:
        log = directory / "accepted.log"
        command = [sys.executable, "-m", "tests.servers.smtp_sink", "--port", "0", "--log", str(log)]
        process = await asyncio.create_subprocess_exec(
            *embedded.leashed(command, death=signal.SIGKILL), stdout=subprocess.PIPE, start_new_session=True
        )
        assert process.stdout is not None
        port = int((await process.stdout.readline()).split()[-1])
        found = Sink("our own", port, log, psutil.Process(process.pid))
    try:
        yield found
    finally:
        process.kill()
        await process.wait()


def postfix_program(name: str) -> str | None:
    """Where this program of Postfix is; None where it is not installed."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{POSTFIX}")


@asynccontextmanager
async def children(
    commands: Sequence[Sequence[str]], environment: dict[str, str]
) -> AsyncIterator[list[psutil.Process]]:
    """Processes of the service, ended with the block or with us. What they say goes to stderr: figures go to stdout."""
    programs = [[sys.executable, "-m", "notifier.cli", *command] for command in commands]
    started = [
        await asyncio.create_subprocess_exec(
            *embedded.leashed(program, death=signal.SIGKILL),
            env=environment,
            stdout=sys.stderr,
            start_new_session=True,  # as a supervisor does: Linux shares the processor out among sessions
        )
        for program in programs
    ]
    try:
        yield [psutil.Process(process.pid) for process in started]
    finally:
        for process in started:
            process.terminate()
        for process in started:
            await process.wait()


def cpu_seconds(processes: Sequence[psutil.Process]) -> float:
    """User and system time of these processes so far."""
    return sum(sum(process.cpu_times()[:2]) for process in processes)


async def _until_open(port: int) -> None:
    async with asyncio.timeout(5):
        while True:
            with suppress(ConnectionRefusedError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.02)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
