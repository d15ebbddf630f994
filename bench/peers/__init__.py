"""What people write today, for `bench campaign --peer`: installed for the run, and measured by what the sink took.

A peer is spared much of what the service does: its jobs are queued and its workers have started before the clock does,
it records nothing, and its links are made for it. What it does for each message is look up consent, render and send.
The rates of both are taken on one clock (`Arrivals`), and a peer goes first, while the tables are as they were filled.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import psutil

from bench.audience import TOPIC, Person
from bench.meter import metered
from bench.peers.body import HANDLEBARS, JINJA, Language, body
from bench.stage import SECRET, Sink, Stage
from notifier.domain.tokens import Links
from notifier.embedded import leashed
from notifier.rendering import Template
from notifier_channels.contract import Channel

SOURCES = Path(__file__).parent
WARM = 0.25  #: of all mails: the clock starts when they have arrived, since caches fill and compilers compile
STUCK = 60.0  #: seconds without a mail
LOOK_EVERY = 0.01  #: seconds


class Peer(ABC):
    """A queue, a renderer and an SMTP client that are not ours, in a directory of their own below the stage."""

    name: ClassVar[str]
    language: ClassVar[Language]

    def __init__(self, ground: Stage, far: Sink) -> None:
        self.home, self.servers = ground.state.parent / self.name, ground.servers
        self.environment = {
            "PATH": os.environ.get("PATH", ""),
            "PYTHONWARNINGS": "ignore",  # Celery's, about running as root
            "DATABASE_URL": ground.database_url,
            "VALKEY_SOCKET": ground.redis_url.removeprefix("unix://"),
            "SMTP_PORT": str(far.port),
            "SCOPE": f"topic:{TOPIC}",
            "BODY": str(self.home / "body.json"),
            "JOBS": str(self.home / "jobs.ndjson"),
        }

    @staticmethod
    @abstractmethod
    def missing() -> str | None:
        """What has to be installed on the machine first."""

    @abstractmethod
    def install(self) -> None:
        """Fetch its packages into its home."""

    @property
    @abstractmethod
    def fill(self) -> Sequence[str]:
        """The command that queues the jobs."""

    @property
    @abstractmethod
    def workers(self) -> Sequence[Sequence[str]]:
        """The commands of its worker processes."""

    def prepare(self, template: Template, people: Sequence[Person]) -> None:
        """Install it, and queue a job for each of these people."""
        shutil.copytree(SOURCES / self.name, self.home, ignore=shutil.ignore_patterns("node_modules", "__pycache__"))
        self.install()
        Path(self.environment["BODY"]).write_text(json.dumps(body(template, self.language)))
        Path(self.environment["JOBS"]).write_text("".join(json.dumps(job) + "\n" for job in jobs(people)))
        _run(self.fill, self.home, self.environment)


class BullMQ(Peer):
    """BullMQ, nodemailer and handlebars: two processes with 50 jobs at once each."""

    name = "bullmq"
    language = HANDLEBARS

    @staticmethod
    def missing() -> str | None:
        if shutil.which("node") and shutil.which("npm"):
            return None
        return "node and npm: install Node.js 20 or newer, for example with `apt install nodejs npm`"

    def install(self) -> None:
        _run(["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"], self.home)

    @property
    def fill(self) -> Sequence[str]:
        return [_program("node"), "fill.mjs"]

    @property
    def workers(self) -> Sequence[Sequence[str]]:
        return [[_program("node"), "worker.mjs"]] * 2


class Celery(Peer):
    """Celery with four prefork processes."""

    name = "celery"
    language = JINJA

    @staticmethod
    def missing() -> str | None:
        return None

    def install(self) -> None:
        try:
            _run([sys.executable, "-m", "venv", "env"], self.home)
        except SystemExit as error:
            raise SystemExit(f"{error}\ninstall venv, for example with `apt install python3-venv`") from None
        _run([self._python, "-m", "pip", "install", "--quiet", "-r", "requirements.txt"], self.home)

    @property
    def _python(self) -> str:
        return str(self.home / "env" / "bin" / "python")

    @property
    def fill(self) -> Sequence[str]:
        return [self._python, "tasks.py"]

    @property
    def workers(self) -> Sequence[Sequence[str]]:
        alone = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "error"]
        return [[self._python, "-m", "celery", "-q", "-A", "tasks", "worker", "-P", "prefork", "-c", "4", *alone]]


PEERS: dict[str, type[Peer]] = {peer.name: peer for peer in (BullMQ, Celery)}


@dataclass(frozen=True, slots=True)
class Arrivals:
    """When the sink had taken how many: what the service and a peer are compared by."""

    seen: list[tuple[float, int]] = field(default_factory=list)  #: seconds and mails, from before the first to the last

    def per_s(self) -> float:
        """Mails a second, from when the first of them have arrived until the last has."""
        none, everything = self.seen[0][1], self.seen[-1][1]
        began, counted = self._reached(none + math.ceil((everything - none) * WARM))
        ended, _ = self._reached(everything)
        if ended == began:
            raise SystemExit("all mails came at once, too few to be timed: give it more people")
        return (everything - counted) / (ended - began)

    def _reached(self, mails: int) -> tuple[float, int]:
        return next(one for one in self.seen if one[1] >= mails)


@asynccontextmanager
async def arriving(far: Sink) -> AsyncIterator[Arrivals]:
    """Look at the sink all along the block, and once more at its end."""
    arrivals = Arrivals()

    async def watch() -> None:
        while True:
            arrivals.seen.append((time.monotonic(), far.received()))
            await asyncio.sleep(LOOK_EVERY)

    watching = asyncio.create_task(watch())
    try:
        yield arrivals
    finally:
        watching.cancel()
    arrivals.seen.append((time.monotonic(), far.received()))


async def measured(peer: Peer, template: Template, people: Sequence[Person], far: Sink) -> dict[str, Any]:
    """How many of its mails the sink took in a second, and the CPU of each: its own, and that of the servers for it."""
    await asyncio.to_thread(peer.prepare, template, people)
    expected = sum(one.consents for one in people)
    before = far.received()
    async with _running(peer) as processes, arriving(far) as arrivals:
        await _arrived(far, before + int(expected * WARM))
        components = {"peer": processes, **{name: [server] for name, server in peer.servers.items()}}
        counted = far.received()
        async with metered(components, watched="peer") as used:
            await _arrived(far, before + expected)
    timed, sent = before + expected - counted, far.received() - before
    if sent != expected:
        raise SystemExit(f"{peer.name}: the sink took {sent} mails, but {expected} people had consented")
    each = {name: round(seconds / timed * 1e6) for name, seconds in used.cpu.items()}
    return {
        "peer": peer.name,
        "peer_recipients": len(people),
        "peer_sent": sent,
        "peer_msgs_per_s": round(arrivals.per_s()),
        "peer_cpu_us_per_msg": each.pop("peer"),
        "peer_cpu_us_per_msg_of_servers": each,
    }


def jobs(people: Sequence[Person]) -> list[dict[str, Any]]:
    """All that a peer needs to know about a mail; the links are as long as ours."""
    links = Links({"k1": SECRET.encode()}, "http://127.0.0.1:8025", None)
    urls = [links.unsubscribe_url(one.id, TOPIC, Channel.EMAIL, one.id) for one in people]
    return [
        {
            "recipient": str(one.id),
            "to": str(one.address),
            "values": {**one.attributes, "unsubscribe_url": url, "preferences_url": url},
        }
        for one, url in zip(people, urls, strict=True)
    ]


@asynccontextmanager
async def _running(peer: Peer) -> AsyncIterator[list[psutil.Process]]:
    started = [
        await asyncio.create_subprocess_exec(
            *leashed(command, death=signal.SIGTERM), cwd=peer.home, env=peer.environment, stdout=sys.stderr
        )
        for command in peer.workers
    ]
    processes = [psutil.Process(process.pid) for process in started]
    try:
        yield processes
    finally:
        family = [one for process in processes if process.is_running() for one in process.children(recursive=True)]
        for process in started:
            if process.returncode is None:
                process.kill()
        for one in family:  # Celery's, which wait for work that nobody hands out any more
            if one.is_running():
                one.kill()
        for process in started:
            await process.wait()


async def _arrived(far: Sink, total: int) -> None:
    """Wait until the sink has taken so many, as long as there is something new now and then."""
    last, moved = far.received(), time.monotonic()
    while last < total:
        await asyncio.sleep(LOOK_EVERY)
        if (now := far.received()) != last:
            last, moved = now, time.monotonic()
        elif time.monotonic() - moved > STUCK:
            raise SystemExit(f"the peer stands still: {total - last} mails have not come")


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise SystemExit(f"{name} is missing")
    return found


def _run(command: Sequence[str], where: Path, environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"`{' '.join(command)}` failed: {(done.stderr or done.stdout).strip()[:800]}")
