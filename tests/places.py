"""Where the servers of tests keep what they have."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MEMORY = "/dev/shm"  #: a database is copied there in a tenth of the time, and most tests have one of their own
ROOM = 4 << 30  #: bytes, for the servers of two processes; a container's usual 64 MB are too few


@contextmanager
def place_for_servers() -> Iterator[Path]:
    """A short path that the servers' account may enter; pytest's own directories are closed to it."""
    with tempfile.TemporaryDirectory(prefix="nt-", dir=MEMORY if _has_room(MEMORY) else "/tmp") as name:
        Path(name).chmod(0o711)
        yield Path(name)


def _has_room(place: str) -> bool:
    """Whether servers may live there: PostgreSQL's programs are copied beside its data where it may not read them."""
    if not os.access(place, os.W_OK | os.X_OK):
        return False
    about = os.statvfs(place)
    return about.f_bavail * about.f_frsize >= ROOM and not about.f_flag & os.ST_NOEXEC
