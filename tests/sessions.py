"""What Linux knows of sessions (sched(7), "The autogroup feature")."""

import os
import re
from pathlib import Path


def session_niceness(process: int) -> int:
    """By how much the whole session of a process steps back; a kernel that compares processes only says theirs."""
    told = Path(f"/proc/{process}/autogroup")
    found = re.search(r"nice (-?\d+)", told.read_text()) if told.exists() else None
    return int(found.group(1)) if found else os.getpriority(os.PRIO_PROCESS, process)
