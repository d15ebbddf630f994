#!/usr/bin/env python3
"""Notifier from a plain Python 3.11 or newer and a network; nothing else has to be installed.

    python3 run.py demo          start everything and play a scenario; Ctrl-C stops it
    python3 run.py demo --once   the same, and end: status 0 when the scenario's checks hold
    python3 run.py up            start everything
    python3 run.py test          the test suite; further arguments go to pytest
    python3 run.py test --system also the tests that need Debian's packages or root
    python3 run.py bench NAME    a benchmark, such as `bench deliver`
    python3 run.py dev PROGRAM   a program of the development environment, such as `dev mypy`
    python3 run.py ...           any other `notifier` command, such as `keys create` or `templates check`

It makes an environment of its own, with locked versions, in the state directory: `.notifier` beside this file, or where
NOTIFIER_STATE_DIR says. With DATABASE_URL and REDIS_URL given, those servers are used instead of embedded ones.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

OLDEST = (3, 11)
NEWER = ("python3.14", "python3.13", "python3.12", "python3.11")
HERE = Path(__file__).resolve().parent
SHARED = ("__init__", "stage", "meter", "audience", "sizes")  #: what benchmarks stand on; the others can be run
LOCKS = {"run": "requirements.txt", "test": "requirements-dev.txt"}
USUAL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# These belong to another Python, or send pip elsewhere than into our environment.
FOREIGN = ("PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__", "PIP_USER", "PIP_TARGET", "PIP_PREFIX")
OFFLINE = ("name resolution", "Failed to establish", "unreachable", "error sending request", "dns error", "timed out")
FULL = ("No space left", "Disk quota exceeded")
ROOM = 100_000_000  #: bytes; with less, whatever was said, the disk is the reason


class Cannot(Exception):
    """What is in the way and how to mend it, in one sentence."""


def main(arguments: list[str]) -> None:
    """Become the program that was asked for."""
    if not arguments or arguments[0] in ("help", "--help", "-h"):
        print(__doc__)
        return
    use_a_new_python()
    prepare_variables()
    state = state_directory()
    command, rest = arguments[0], arguments[1:]
    if command == "test":
        if "--system" in rest:
            install_debian_packages()
        become(environment(state, "test"), ["-m", "pytest", *parallel(rest), *rest], for_tests())
    elif command == "bench":
        bench(environment(state, "test"), rest)
    elif command == "dev":
        develop(environment(state, "test"), rest)
    elif command in ("demo", "up"):
        become(environment(state, "run"), ["-P", "-m", "notifier.cli", *arguments])
    else:
        become(environment(state, "run"), ["-P", "-m", "notifier.supervise", *arguments])


def use_a_new_python() -> None:
    """Go on with a newer Python when this one is too old and a newer one is there."""
    if sys.version_info >= OLDEST:
        return
    for name in NEWER:
        newer = shutil.which(name, path=os.environ.get("PATH", USUAL_PATH))
        if newer:
            os.execv(newer, [newer, __file__, *sys.argv[1:]])
    raise Cannot(
        f"this is Python {sys.version_info[0]}.{sys.version_info[1]} and Notifier needs 3.11 or newer: install one, "
        "for example with `apt install python3.11` or from python.org, and run this file with it"
    )


def prepare_variables() -> None:
    """Make an empty environment usable, and take out what would lead astray."""
    os.environ.setdefault("PATH", USUAL_PATH)
    os.environ.setdefault("PYTHONUTF8", "1")  # a terminal without a locale is not an old one
    for name in FOREIGN:
        os.environ.pop(name, None)


def state_directory() -> Path:
    """The directory of all that is kept, made when it is new; children find it in NOTIFIER_STATE_DIR."""
    given = os.environ.get("NOTIFIER_STATE_DIR")
    state = Path(given).absolute() if given else HERE / ".notifier"
    door = closed_door(state) if os.geteuid() == 0 else None
    if door and given:
        raise Cannot(
            f"PostgreSQL does not run as root, and no other account may enter {door}: set NOTIFIER_STATE_DIR to a "
            "directory that everybody may enter, such as /var/lib/notifier"
        )
    if door:
        state = Path("/var/lib") / f"notifier-{digest(str(HERE))}"
        say(f"Only root may enter {door}, and PostgreSQL does not run as root, so the state is kept in {state}.")
    make_directory(state)
    if not os.access(state, os.R_OK | os.W_OK | os.X_OK):
        raise Cannot(f"{state} may not be written by this user: set NOTIFIER_STATE_DIR to a directory that may")
    os.environ["NOTIFIER_STATE_DIR"] = str(state)
    return state


def closed_door(path: Path) -> Path | None:
    """The outermost directory on the way that only its owner may enter; `nobody` runs the servers for root."""
    return next((d for d in reversed(path.resolve().parents) if d.exists() and not d.stat().st_mode & 0o001), None)


def make_directory(path: Path) -> None:
    """Make a directory and its parents: for this user only, or, as root, such that `nobody` may pass through."""
    if path.is_dir():
        return
    make_directory(path.parent)
    try:
        path.mkdir()
        path.chmod(0o711 if os.geteuid() == 0 else 0o700)
    except FileExistsError:
        if not path.is_dir():
            raise Cannot(f"{path} is a file: move it away, or set NOTIFIER_STATE_DIR to a directory") from None
    except OSError as error:
        raise Cannot(
            f"{path} cannot be made ({error.strerror}): set NOTIFIER_STATE_DIR to a directory that this user may write"
        ) from None


def environment(state: Path, kind: str) -> Path:
    """The Python of an environment with the locked versions, made once for each content of the lock file.

    A lock says who uses it: whoever installs holds it alone, whoever runs shares it (also after exec), and only an
    environment that nobody uses is cleared away.
    """
    lock_file = HERE / LOCKS[kind]
    key = digest(lock_file.read_text(), str(state), sys.version, sys.base_prefix)
    place = state / "env" / f"{kind}-{key}"
    make_directory(place.parent)
    lock = os.open(str(place.with_suffix(".lock")), os.O_RDWR | os.O_CREAT, 0o600)  # held until this process ends
    if not take(lock, fcntl.LOCK_SH) or not (place / "complete").exists():
        take(lock, fcntl.LOCK_EX, saying="Another start is installing; waiting for it.")
        if not (place / "complete").exists():
            install(place, lock_file)
            clear_away(place)
        take(lock, fcntl.LOCK_SH)
    os.set_inheritable(lock, True)
    lead_to_this_checkout(place)
    return place / "bin" / "python"


def take(descriptor: int, mode: int, saying: str = "") -> bool:
    """Take a lock: at once, or not at all, or (with something to say) when its turn has come."""
    try:
        fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        if not saying:
            return False
        say(saying)
        fcntl.flock(descriptor, mode)
    return True


def install(place: Path, lock_file: Path) -> None:
    """Fill a new environment with uv when it is there and works, else with venv and pip."""
    say(f"Installing the versions of {lock_file.name} into {place} (once; about a minute).")
    shutil.rmtree(place, ignore_errors=True)
    requirements = ["--require-hashes", "-r", str(lock_file)]
    python = place / "bin" / "python"
    uv = shutil.which("uv")
    if uv:
        made = attempt([uv, "venv", "--quiet", "--no-project", "--python", sys.executable, str(place)])
        if made is None and attempt([uv, "pip", "install", "--quiet", "--python", str(python), *requirements]) is None:
            (place / "complete").touch()
            return
        shutil.rmtree(place, ignore_errors=True)
    if not importlib.util.find_spec("venv") or not importlib.util.find_spec("ensurepip"):
        raise Cannot(
            "this Python comes without venv: install it (`apt install python3-venv` on Debian or Ubuntu), or install uv"
        )
    steps = [
        [sys.executable, "-m", "venv", str(place)],
        [
            str(python),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--retries",
            "2",
            *requirements,
        ],
    ]
    for step in steps:
        said = attempt(step)
        if said is not None:
            raise Cannot(why(said, place))
    (place / "complete").touch()


def attempt(command: list[str]) -> str | None:
    """Run a step of the installation: None when it worked, else what it said."""
    variables = {**os.environ, "UV_SYSTEM_CERTS": "1", "UV_NATIVE_TLS": "1"}  # as pip: the system's certificates
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=str(Path(os.environ["NOTIFIER_STATE_DIR"])),
        env=variables,
        check=False,
    )
    return None if done.returncode == 0 else done.stdout.decode(errors="replace")


def why(said: str, place: Path) -> str:
    """The sentence for an installation that failed."""
    if any(sign in said for sign in FULL) or shutil.disk_usage(place.parent).free < ROOM:
        return f"the disk of {place} is full: free about 1 GB, or set NOTIFIER_STATE_DIR to a place with room"
    if any(sign in said for sign in OFFLINE):
        return "the packages cannot be fetched: connect this machine to the network, or set PIP_INDEX_URL to a mirror"
    lines = [line.strip() for line in said.splitlines() if line.strip()] or ["it said nothing"]
    telling = next((line for line in lines if line.lower().startswith("error")), lines[-1])
    return f"the packages cannot be installed: {telling} (mend that and run this again; {place.parent} may be deleted)"


def clear_away(place: Path) -> None:
    """Remove environments of older lock files that nobody runs."""
    kind = place.name.split("-")[0]
    for other in place.parent.glob(f"{kind}-*.lock"):
        if other == place.with_suffix(".lock"):
            continue
        with other.open("a") as lock:
            if take(lock.fileno(), fcntl.LOCK_EX):
                shutil.rmtree(other.with_suffix(""), ignore_errors=True)
                other.unlink()


def lead_to_this_checkout(place: Path) -> None:
    """Let the environment import this checkout's packages."""
    site = Path(sysconfig.get_path("purelib", "venv", vars={"base": str(place), "platbase": str(place)}))
    lead = site / "notifier.pth"
    text = f"{HERE}\n{HERE / 'channels'}\n"
    if not lead.exists() or lead.read_text() != text:
        lead.write_text(text)


def install_debian_packages() -> None:
    """What the tests marked `system` need, from Debian."""
    lines = (HERE / "tests" / "system" / "packages.txt").read_text().splitlines()
    wanted = [line.split("#")[0].strip() for line in lines if line.split("#")[0].strip()]
    missing = [package for package in wanted if not is_installed(package)]
    if not missing:
        return
    apt = shutil.which("apt-get")
    if os.geteuid() != 0 or not apt:
        raise Cannot(
            f"--system needs the Debian packages {', '.join(missing)}: run it as root on Debian, or install them"
        )
    say(f"Installing {', '.join(missing)} from Debian.")
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    for step in (["update", "-qq"], ["install", "-qq", "-y", "--no-install-recommends", *missing]):
        said = attempt([apt, *step])
        if said is not None:
            raise Cannot(f"`apt-get {' '.join(step)}` failed: {said.strip().splitlines()[-1]}")


def is_installed(package: str) -> bool:
    """Whether dpkg has it installed whole."""
    dpkg = shutil.which("dpkg-query")
    if not dpkg:
        return False
    done = subprocess.run(
        [dpkg, "-W", "-f", "${Status}", package], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False
    )
    return done.stdout.endswith(b" installed")


def parallel(rest: list[str]) -> list[str]:
    """Two processes for the whole suite; a chosen part runs in one, so that -x, --pdb and prints work as expected."""
    return ["-n", "2", "--dist", "loadgroup"] if all(argument == "--system" for argument in rest) else []


def for_tests() -> dict[str, str]:
    """Tests set their own settings; what points at a real installation does not reach them."""
    ours = ("NOTIFIER_", "DATABASE_URL", "REDIS_URL")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def bench(python: Path, arguments: list[str]) -> None:
    """Become a benchmark; it prints one JSON object, with the machine's facts and a limit measured in the same run."""
    names = sorted(path.stem for path in (HERE / "bench").glob("*.py") if path.stem not in SHARED)
    if not arguments or arguments[0] not in names:
        raise Cannot(f"say which benchmark: {', '.join(names)}")
    paths = f"{HERE}{os.pathsep}{HERE / 'channels'}"
    become(python, ["-m", f"bench.{arguments[0]}", *arguments[1:]], {**for_tests(), "PYTHONPATH": paths})


def develop(python: Path, arguments: list[str]) -> None:
    """Become a program of the development environment."""
    if not arguments:
        raise Cannot("say which program, such as `python3 run.py dev mypy`")
    program = python.parent / arguments[0]
    if not program.exists():
        raise Cannot(f"the development environment has no program {arguments[0]}: {python.parent} lists them")
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    become(program, arguments[1:], {**for_tests(), "PATH": path})


def become(program: Path, arguments: list[str], variables: dict[str, str] | None = None) -> None:
    """Go on as another program under the same pid. What has variables of its own, tests and tools, works from here."""
    if variables is not None:
        os.chdir(HERE)
    sys.stdout.flush()
    os.execve(str(program), [str(program), *arguments], variables or dict(os.environ))


def digest(*parts: str) -> str:
    """A short name for a content."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def say(sentence: str) -> None:
    """Tell the person at the terminal."""
    print(sentence, file=sys.stderr, flush=True)


def complain(sentence: str) -> int:
    """Say why nothing was done; the exit status for it."""
    say(f"run.py: {sentence}")
    return 2


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Cannot as reason:
        sys.exit(complain(str(reason)))
    except OSError as error:
        hint = ": free some space, or set NOTIFIER_STATE_DIR" if error.errno == errno.ENOSPC else ""
        sys.exit(complain(f"{error.filename or 'this machine'}: {error.strerror or error}{hint}"))
    except KeyboardInterrupt:
        sys.exit(130)
