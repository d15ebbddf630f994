"""The parent of a running installation: starts everything in order, restarts what dies, and stops all in reverse."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from notifier.embedded import Postgres, Server, Valkey, leashed
from notifier.errors import NotConfigured
from notifier.supervise.children import Backoff, Child, Part
from notifier.supervise.instance import Instance
from notifier.supervise.pipes import Pipes, Show
from notifier.supervise.stand_ins import ACCOUNT, stand_ins

CLI = "notifier.cli"
OURS = ("NOTIFIER_", "DATABASE_URL", "REDIS_URL")  #: what a command needs to join in
HOST = "127.0.0.1"
INBOUND_DOMAIN = "inbound.notifier.test"  #: whose mail comes back, where no other is given
WORKER_PATIENCE = 27.0  #: seconds; a worker drains for up to 25
TURN = 1.0  #: seconds between looks when nothing wakes the parent
START_SECONDS = 60.0
STOPS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the parts listen; 0 lets the kernel pick."""

    api: int = 8025
    sandbox: int = 8026
    smtp: int = 1025
    inbound: int = 1026

    def settled(self) -> Ports:
        """The same with every 0 picked and every port tried.

        Raises:
            NotConfigured: names the port that is taken and the option that moves it.

        """
        options = {"api": "--port", "sandbox": "--sandbox-port", "smtp": "--smtp-port", "inbound": "--inbound-port"}
        return Ports(**{name: _free(getattr(self, name), option) for name, option in options.items()})


class Supervisor:
    """Runs one installation until told to stop."""

    def __init__(self, state: Path, ports: Ports, *, show: Show, environment: Mapping[str, str]) -> None:
        self.instance = Instance(state)
        self.state = self.instance.state
        self.wanted = ports
        self.show = show
        self.given = environment
        self.servers: list[Server] = []
        self.children: list[Child] = []
        self._backoffs: dict[str, Backoff] = {}
        self._pipes: Pipes

    def run(self, guest: Sequence[str] = (), *, once: bool = False) -> int:
        """Run until SIGINT or SIGTERM; with a guest (a module and its arguments) and `once`, until that one ends.

        Raises:
            NotConfigured: it cannot run here; says what to do.

        """
        if self.given.get("NOTIFIER_ENV") == "production":
            raise NotConfigured(
                "this starts the sandbox, which does not run with NOTIFIER_ENV=production: see docs/operate"
            )
        if not self.instance.take():
            raise self.instance.refusal()
        self._pipes = Pipes(self.state / "logs", self.show, STOPS)
        status = 0
        try:
            environment = self._start()
            if not self._pipes.heard:
                status = self._keep(guest, environment, once=once)
        finally:
            self._stop()
            self._pipes.close()
            self.instance.leave()
        return status

    def _start(self) -> dict[str, str]:
        ports = self.wanted.settled()
        self.servers = embedded_servers(self.state, self.given)
        for server in self.servers:
            self.show("notifier", f"starting {server.name}")
            server.start()
        environment = environment_of(self.instance, self.servers, self.given, ports)
        self.show("notifier", "bringing the database up to date")
        run_command(["migrate"], environment)
        self.children = children_of(environment, ports)
        for child in self.children:
            self._launch(child)
        self.show("notifier", "waiting for the API and the sandbox")
        doors = (("api", ports.api), ("sandbox", ports.sandbox), ("sandbox", ports.smtp), ("inbound", ports.inbound))
        for part, port in doors:
            self._await(part, port)
        ours = {name: value for name, value in environment.items() if name.startswith(OURS)}
        self.instance.publish(environment["NOTIFIER_PUBLIC_URL"], ours)
        return environment

    def _keep(self, guest: Sequence[str], environment: Mapping[str, str], *, once: bool) -> int:
        visitor: subprocess.Popen[bytes] | None = None
        status = 0
        self.show("ready", f"{environment['NOTIFIER_PUBLIC_URL']} {environment['NOTIFIER_SANDBOX_URL']}")
        if guest:
            visitor = subprocess.Popen(  # noqa: S603  our own module
                leashed([sys.executable, "-P", "-m", *guest], death=signal.SIGKILL),
                stdin=subprocess.DEVNULL,
                env=dict(environment),
                start_new_session=True,
            )
        while not self._pipes.heard:
            self._turn()
            if visitor and (ended := visitor.poll()) is not None:
                visitor, status = None, ended
                if once or status:
                    return status
        if visitor:
            visitor.kill()
            visitor.wait()
            return 1 if once else 0
        return status

    def _turn(self, longest: float = TURN) -> None:
        """Hand lines on until something happens, then see who died and who may start again."""
        dues = [backoff.due_at for backoff in self._backoffs.values() if backoff.due_at is not None]
        self._pipes.wait(min([longest, *(due - time.monotonic() for due in dues)]))
        for server in self.servers:
            self._look(server)
        for child in self.children:
            self._look(child)

    def _look(self, part: Part) -> None:
        backoff = self._backoffs.setdefault(part.name, Backoff(started_at=time.monotonic()))
        now = time.monotonic()
        if part.is_alive():
            return
        if backoff.due_at is None:
            how = part.how_it_ended() if isinstance(part, Child) else "ended"
            self._pipes.note(part.name, f"{how}; starting it again in {backoff.died(now):.1f} s")
        elif now >= backoff.due_at:
            self._restart(part, backoff)

    def _restart(self, part: Part, backoff: Backoff) -> None:
        try:
            if isinstance(part, Child):
                self._launch(part)
            else:
                part.start()
        except NotConfigured as error:
            self._pipes.note(part.name, f"{error}; trying again in {backoff.died(time.monotonic()):.1f} s")
        else:
            backoff.started(time.monotonic())

    def _launch(self, child: Child) -> None:
        child.start()
        self._pipes.add(child)

    def _await(self, part: str, port: int) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._pipes.heard and not _answers(port):
            self._turn(0.05)
            if time.monotonic() > deadline:
                raise NotConfigured(f"the {part} does not start: {self._pipes.last_line(part)}")

    def _stop(self) -> None:
        """Stop in the order in which nobody is left waiting for somebody; a second signal ends it at once."""
        self._pipes.heard.clear()
        for kind in ("api", "inbound", "worker", "scheduler", "sandbox"):
            self._end([child for child in self.children if child.name.startswith(kind)])
        for server in reversed(self.servers):
            server.stop()

    def _end(self, children: Sequence[Child]) -> None:
        for child in children:
            child.signal(signal.SIGTERM)
        deadline = time.monotonic() + max((child.patience for child in children), default=0)
        while any(child.is_alive() for child in children):
            if self._pipes.heard or time.monotonic() > deadline:
                for child in children:
                    child.signal(signal.SIGKILL)
            self._pipes.wait(0.1)
        self._pipes.wait(0)


def embedded_servers(state: Path, given: Mapping[str, str]) -> list[Server]:
    """The servers that nobody gave an address for."""
    servers: list[Server] = []
    if not given.get("DATABASE_URL"):
        servers.append(Postgres(state))
    if not given.get("REDIS_URL"):
        servers.append(Valkey(state))
    return servers


def environment_of(
    instance: Instance, servers: Sequence[Server], given: Mapping[str, str], ports: Ports
) -> dict[str, str]:
    """What every child is told: what was given, else what is true here."""
    urls = {"postgres": "DATABASE_URL", "valkey": "REDIS_URL"}
    present = {name: value for name, value in given.items() if value}
    secrets, sandbox = instance.secrets(), f"http://{HOST}:{ports.sandbox}"
    here = {
        **{name: value for name, value in secrets.items() if name not in ACCOUNT},
        **stand_ins(instance.state, secrets, present, sandbox),
        "NOTIFIER_PUBLIC_URL": f"http://{HOST}:{ports.api}",
        "NOTIFIER_SMTP_URL": f"smtp://{HOST}:{ports.smtp}",
        "NOTIFIER_SANDBOX_URL": sandbox,
        "NOTIFIER_INBOUND_DOMAIN": INBOUND_DOMAIN,
    }
    return (
        here
        | present
        | {urls[server.name]: server.url for server in servers}
        | {"NOTIFIER_STATE_DIR": str(instance.state)}
    )


def run_command(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Run one `notifier` command to its end.

    Raises:
        NotConfigured: with the last line that it said.

    """
    done = subprocess.run(  # noqa: S603  our own command
        leashed([sys.executable, "-P", "-m", CLI, *arguments], death=signal.SIGKILL),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=dict(environment),
        start_new_session=True,
        check=False,
    )
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
        raise NotConfigured(f"`notifier {' '.join(arguments)}` failed: {said}")


def children_of(environment: Mapping[str, str], ports: Ports) -> list[Child]:
    """One API, a worker per lane (two for marketing), the scheduler and the sandbox."""

    def child(name: str, *arguments: object, patience: float = 5.0) -> Child:
        command = [CLI, *map(str, arguments)]
        return Child(name, command, environment, patience=patience)

    def worker(name: str, lane: str) -> Child:
        return child(name, "worker", "--lane", lane, patience=WORKER_PATIENCE)

    return [
        child("sandbox", "sandbox", "--http-port", ports.sandbox, "--smtp-port", ports.smtp),
        child("api", "api", "--port", ports.api),
        worker("worker-transactional", "transactional"),
        worker("worker-marketing-1", "marketing"),
        worker("worker-marketing-2", "marketing"),
        child("scheduler", "scheduler"),
        child("inbound", "inbound", "--port", ports.inbound),
    ]


def _free(port: int, option: str) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise NotConfigured(
                f"port {port} cannot be used ({os.strerror(error.errno or 0)}): give another with {option}"
            ) from None
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0
