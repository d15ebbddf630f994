"""Real worker processes around a far end that is none of them, to be killed, stopped and counted."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from tests.world import KEYS, TEMPLATES, World

LOG = "accepted.log"  #: of the SMTP server, in the directory that `fleet` is given
DELAY = "0.02"  #: seconds that the SMTP server takes for each message, so that kills find something on the wire
LONGEST = 200  #: seconds that a test waits; the signal of pytest's own limit may strike another task, and be lost there
UNDER_WAY = "state IN ('queued', 'claimed', 'sending')"
LANES = ("transactional", "marketing", "marketing")
MEMBERS = (*(f"worker --lane {lane}/{number}" for number, lane in enumerate(LANES)), "scheduler/0")


@dataclass(slots=True)
class Fleet:
    """Processes of the service, whose messages go to one far end."""

    world: World
    environment: dict[str, str]
    accepted: Callable[[], Counter[UUID]]  #: how often the far end accepted each message, by its own record
    module: str
    processes: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)

    async def start(self, name: str) -> None:
        """Start a member; its name is its command, with a number behind it."""
        command = name.split("/", maxsplit=1)[0].split(" ")
        self.processes[name] = await asyncio.create_subprocess_exec(
            sys.executable, "-m", self.module, *command, env=self.environment, stdout=subprocess.DEVNULL
        )

    async def kill(self, name: str) -> None:
        """SIGKILL a member and put a fresh one in its place."""
        self.processes[name].kill()
        await self.processes[name].wait()
        await self.start(name)

    async def stop(self, name: str) -> int:
        """SIGTERM a member; returns its exit status."""
        process = self.processes.pop(name)
        process.send_signal(signal.SIGTERM)
        return await process.wait()

    @property
    def workers(self) -> list[str]:
        """The names of the worker processes."""
        return [name for name in self.processes if name.startswith("worker")]

    async def until_begun(self, workers: int) -> None:
        """Wait until so many workers have ever begun: from then on SIGTERM finds somebody who listens."""
        while not await self.world.one("SELECT count(*) >= %s FROM workers", workers):
            await asyncio.sleep(0.02)

    async def until_accepted(self, count: int) -> None:
        """Wait until the far end has accepted so many messages."""
        while len(self.accepted()) < count:
            await asyncio.sleep(0.02)

    async def until_settled(self) -> None:
        """Wait until no message waits or is in hand. Doubt is looked at once nothing else is, not in a minute."""
        while await self.world.one(f"SELECT count(*) FROM messages WHERE {UNDER_WAY} OR due_at IS NOT NULL"):
            await self.world.execute(
                "UPDATE messages SET due_at = now() WHERE state = 'unknown' AND due_at > now()"
                f" AND NOT EXISTS (SELECT FROM messages WHERE {UNDER_WAY})"
            )
            await asyncio.sleep(0.1)


@asynccontextmanager
async def fleet(
    world: World,
    redis_url: str,
    directory: Path,
    *,
    module: str = "notifier.cli",
    members: Sequence[str] = MEMBERS,
    longest: float = LONGEST,
    **settings: str,
) -> AsyncIterator[Fleet]:
    """Everything started, around an SMTP server in a process of its own; ended however the test ends."""
    log = directory / LOG

    def accepted() -> Counter[UUID]:
        lines = log.read_text().splitlines() if log.exists() else []
        return Counter(UUID(hex=line.split()[0]) for line in lines)

    sink = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.servers.smtp_sink", "--port", "0", "--log", str(log), "--delay", DELAY,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert sink.stdout is not None
        port = int((await sink.stdout.readline()).split()[-1])
        settings = {"NOTIFIER_SMTP_URL": f"smtp://127.0.0.1:{port}?tls=none", **settings}
        async with crew_around(world, redis_url, accepted, settings, module, members, longest) as crew:
            yield crew
    finally:
        sink.kill()
        await sink.wait()


@asynccontextmanager
async def crew_around(
    world: World,
    redis_url: str,
    accepted: Callable[[], Counter[UUID]],
    settings: Mapping[str, str],
    module: str = "notifier.cli",
    members: Sequence[str] = MEMBERS,
    longest: float = LONGEST,
) -> AsyncIterator[Fleet]:
    """The members, started; killed however the test ends. By default one of everything, and two marketing workers."""
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "DATABASE_URL": world.database.url,
        "REDIS_URL": redis_url,
        "NOTIFIER_STATE_DIR": str(world.journals.parent),
        "NOTIFIER_TEMPLATES_DIR": str(TEMPLATES),
        "NOTIFIER_LINK_KEYS": f"k1:{KEYS['k1'].decode()}",
        "NOTIFIER_HASH_KEYS": f"k1:{KEYS['k1'].decode()}",
        "NOTIFIER_BATCH_SIZE": "100",
        "NOTIFIER_QUIET_HOURS": "none",  # what time it is where the tests run is no part of them
        **settings,
    }
    crew = Fleet(world, environment, accepted, module)
    try:
        for name in members:
            await crew.start(name)
        async with asyncio.timeout(longest):
            yield crew
    finally:
        for process in crew.processes.values():
            if process.returncode is None:
                process.kill()
            await process.wait()


async def flush(redis_url: str) -> None:
    """Empty Redis: rings, paces, and whatever else is shared through it."""
    reader, writer = await asyncio.open_unix_connection(redis_url.removeprefix("unix://"))
    writer.write(b"FLUSHALL\r\n")
    assert await reader.readline() == b"+OK\r\n"
    writer.close()
