"""How a marketing worker makes room: its own process is niced, and so is each process of PostgreSQL that serves it.

Between sessions Linux compares the niceness of their autogroups, not of their processes (sched(7), "The autogroup
feature"). Whatever is started in a session of its own, as by our supervisor, and every process of PostgreSQL has one.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

PROC = Path("/proc")
SERVER = "postgres\n"
RETRIES = 10
PAUSE = (0.1, 0.3)  #: seconds


def step_back(by: int) -> None:
    """Nice this process. Threads inherit it as they begin, and Linux counts each by itself: call it before any is."""
    if not by:
        return
    os.nice(by)
    for _ in range(RETRIES):
        try:
            _tell_session(os.getpid(), own())
        except BlockingIOError:  # as in `share`
            time.sleep(random.uniform(*PAUSE))
        else:
            return


def own() -> int:
    """Of the thread that asks."""
    return os.getpriority(os.PRIO_PROCESS, 0)


def share(server: int) -> None:
    """Let the process of PostgreSQL that serves a connection be as nice as this one, if it is of this machine.

    Raises:
        BlockingIOError: Linux takes ten such changes a second from ordinary users; ask again after a pause.

    """
    try:
        if own() > 0 and (PROC / str(server) / "comm").read_text() == SERVER:
            os.setpriority(os.PRIO_PROCESS, server, own())
            _tell_session(server, own())
    except BlockingIOError:
        raise
    except OSError:  # elsewhere, gone, of another account: then it has no say in who goes first
        pass


def _tell_session(process: int, nice: int) -> None:
    """Only what leads its session speaks for it: in a shell, say, there are others in it."""
    if os.getsid(process) == process:
        try:
            (PROC / str(process) / "autogroup").write_text(str(nice))
        except BlockingIOError:
            raise
        except OSError:  # no such feature, or a /proc that may not be written, as in many containers
            pass
