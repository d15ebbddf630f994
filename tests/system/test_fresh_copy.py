"""`run.py` in a fresh copy of the checkout, with an empty environment, as root behind a closed door and as others."""

import os
import pwd
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]
REPOSITORY = Path(__file__).resolve().parents[2]
LEFT_OUT = shutil.ignore_patterns(".git", ".notifier", ".venv", "__pycache__", ".*_cache", ".hypothesis", "out")
NOBODY = pwd.getpwnam("nobody").pw_uid  #: a user without a home
NAMELESS = 64999  #: a user that no file of the system knows
PYTHON = "/usr/bin/python3"
PORTS = ["--port", "0", "--sandbox-port", "0", "--smtp-port", "0", "--inbound-port", "0"]


@pytest.fixture
def place():
    """A directory of the test's own that everybody may enter."""
    with tempfile.TemporaryDirectory(prefix="nt-", dir="/var/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def copy(to: Path, owner: int) -> Path:
    shutil.copytree(REPOSITORY, to, ignore=LEFT_OUT, symlinks=True)
    for path in (to, *to.rglob("*")):
        os.chown(path, owner, owner, follow_symlinks=False)
    return to


def run(checkout: Path, *arguments: str, user: int, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PYTHON, str(checkout / "run.py"), *arguments],
        user=user,
        group=user,
        extra_groups=[],
        cwd="/",
        env=variables,
        umask=0o077,
        capture_output=True,
        text=True,
        check=False,
    )


def servers_below(path: Path) -> list[str]:
    lines = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    return [line for line in lines if str(path) in line]


def test_the_demo_runs_for_root_in_a_directory_that_only_root_may_enter(place):
    door = place / "closed"
    door.mkdir(mode=0o700)
    checkout = copy(door / "notifier", 0)
    done = run(checkout, "demo", "--once", *PORTS, user=0)
    said = re.search(r"Only root may enter (\S+), .* the state is kept in (/var/lib/notifier-\w+)\.", done.stderr)
    assert said, done.stderr
    state = Path(said[2])
    try:
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Every promise held." in done.stdout
        assert said[1] == str(door)
        assert stat.S_IMODE(door.stat().st_mode) == 0o700
        assert stat.S_IMODE(state.stat().st_mode) == 0o711
        assert not (checkout / ".notifier").exists()
        assert not servers_below(state)
    finally:
        shutil.rmtree(state)


def test_the_demo_and_a_test_run_for_somebody_without_a_home(place):
    checkout = copy(place / "notifier", NOBODY)
    done = run(checkout, "demo", "--once", *PORTS, user=NOBODY)
    assert done.returncode == 0, done.stdout + done.stderr
    assert stat.S_IMODE((checkout / ".notifier").stat().st_mode) == 0o700
    again = run(checkout, "keys", "list", user=NOBODY)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "demo" in again.stdout
    assert not again.stderr
    tested = run(checkout, "test", "tests/contract/test_fixtures.py", "tests/unit/test_run.py", user=NOBODY)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert " passed" in tested.stdout
    assert not servers_below(checkout)


def test_a_user_without_a_name_is_told_what_to_do(place):
    """Containers run as such users; PostgreSQL's initdb does not."""
    place.chmod(0o777)
    program = "import sys, pathlib; from notifier.embedded import Postgres; Postgres(pathlib.Path(sys.argv[1])).start()"
    paths = os.pathsep.join(str(Path(path).resolve()) for path in sys.path if path)
    done = subprocess.run(
        [PYTHON, "-c", program, str(place / "other")],
        user=NAMELESS, env={"PYTHONPATH": paths}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert f"user {NAMELESS} stands in no passwd file" in done.stderr


def test_a_checkout_that_may_not_be_written_is_a_sentence(place):
    checkout = copy(place / "notifier", 0)
    done = run(checkout, "demo", "--once", user=NOBODY)
    assert done.returncode == 2
    assert "set NOTIFIER_STATE_DIR to a directory that this user may write" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_state_directory_that_cannot_work_for_root_is_a_sentence(place):
    door = place / "closed"
    door.mkdir(mode=0o700)
    done = run(copy(place / "notifier", 0), "up", user=0, NOTIFIER_STATE_DIR=str(door / "state"))
    assert done.returncode == 2
    assert f"no other account may enter {door}: set NOTIFIER_STATE_DIR" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (door / "state").exists()


def test_a_full_disk_is_a_sentence(place):
    """A file system of a few megabytes, as a real full disk."""
    disk = place / "small"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,mode=755", "tmpfs", str(disk)], check=True)
    try:
        done = run(copy(place / "notifier", 0), "up", user=0, NOTIFIER_STATE_DIR=str(disk / "state"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert done.returncode == 2
    assert "full" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_network_it_is_a_sentence(place):
    """A network namespace without any way out."""
    checkout = copy(place / "notifier", 0)
    done = subprocess.run(
        ["unshare", "--net", PYTHON, str(checkout / "run.py"), "up"],
        env={"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "https://index.example/simple"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "connect this machine to the network" in done.stderr
    assert "Traceback" not in done.stderr
