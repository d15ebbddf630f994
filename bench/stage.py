"""What every benchmark stands on: durable embedded servers, an SMTP server, workers, and the machine's facts."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from notifier import embedded
from notifier.store.database import Database, migrate
from tests.world import World

TEMPLATES = Path("templates").resolve()
SECRET = "a-secret-for-benchmarks-of-32-bytes"


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
        }

    @asynccontextmanager
    async def world(self) -> AsyncIterator[World]:
        """People and messages, made in bulk."""
        database = Database(self.database_url)
        await database.open()
        try:
            yield World(database, self.state / "journals")
        finally:
            await database.close()


@contextmanager
def stage() -> Iterator[Stage]:
    """Durable commits, as in production."""
    with tempfile.TemporaryDirectory(prefix="nb-", dir="/tmp") as name:
        directory = Path(name)
        directory.chmod(0o711)
        with embedded.Postgres(directory) as postgres, embedded.Valkey(directory) as valkey:
            migrate(postgres.url)
            yield Stage(postgres.url, valkey.url, directory / "state")


@dataclass(frozen=True, slots=True)
class Sink:
    """An SMTP server in a process of its own that takes everything."""

    name: str
    port: int
    log: Path | None  #: one line per accepted message with its monotonic nanosecond; Postfix's keeps none


@asynccontextmanager
async def sink(directory: Path, *, logged: bool = False) -> AsyncIterator[Sink]:
    """Postfix's smtp-sink where it is installed, since it costs least; else, or when a log is wanted, our own."""
    program = shutil.which("smtp-sink", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/lib/postfix/sbin")
    if program and not logged:
        port = _free_port()
        account = ["-u", "nobody"] if os.geteuid() == 0 else []  # it refuses to stay root
        process = await asyncio.create_subprocess_exec(
            program, *account, f"127.0.0.1:{port}", "1000", stdout=subprocess.DEVNULL
        )
        await _until_open(port)
        found = Sink("smtp-sink", port, None)
    else:
        log = directory / "accepted.log"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.servers.smtp_sink", "--port", "0", "--log", str(log), stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        found = Sink("our own", int((await process.stdout.readline()).split()[-1]), log)
    try:
        yield found
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def children(
    commands: Sequence[Sequence[str]], environment: dict[str, str]
) -> AsyncIterator[list[psutil.Process]]:
    """Processes of the service, ended with the block. What they say goes to stderr: stdout is for the figures."""
    started = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", "notifier.cli", *command, env=environment, stdout=sys.stderr
        )
        for command in commands
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
