"""What Linux knows of sessions (sched(7), "The autogroup feature")."""

import re
from pathlib import Path


def session_niceness(process: int) -> int | None:
    """By how much the whole session of a process steps back.

    None is for a session that has no such number: the one that the machine began with (its file is empty, as for all
    that runs under an init without a setsid of its own), and every session of a kernel that compares processes only.
    """
    told = Path(f"/proc/{process}/autogroup")
    found = re.search(r"nice (-?\d+)", told.read_text()) if told.exists() else None
    return int(found.group(1)) if found else None
