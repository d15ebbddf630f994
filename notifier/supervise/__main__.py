"""`python -m notifier.supervise keys create ...`: one `notifier` command against what runs, or the data at rest."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from notifier.errors import NotifierError
from notifier.supervise.instance import Instance
from notifier.supervise.supervisor import CLI, Ports, embedded_servers, environment_of, run_command

NEEDS_NO_SERVER = {"templates", "--help", "sandbox"}


def main(arguments: list[str]) -> int:
    """Run the command with the environment of the running instance, or with servers started for it alone."""
    given = dict(os.environ)
    command = [sys.executable, "-P", "-m", CLI, *arguments]
    instance = Instance(Path(given.get("NOTIFIER_STATE_DIR") or ".notifier"))
    if not arguments or arguments[0] in NEEDS_NO_SERVER or "--help" in arguments:
        os.execve(command[0], command, given)  # noqa: S606  our own command
    if running := instance.take_or_join():
        os.execve(command[0], command, {**given, **running.environment})  # noqa: S606
    servers = embedded_servers(instance.state, given)
    try:
        for server in servers:
            server.start()
        environment = environment_of(instance, servers, given, Ports())
        run_command(["migrate"], environment)
        return subprocess.run(command, env=environment, check=False).returncode  # noqa: S603
    finally:
        for server in servers:
            server.stop()
        instance.leave()


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (NotifierError, OSError) as error:
        sys.exit(f"{error}")
    except KeyboardInterrupt:
        sys.exit(130)
