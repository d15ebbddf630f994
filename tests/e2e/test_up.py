"""`run.py up`: one parent keeps an installation running, and leaves nothing behind when it goes."""

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from notifier.embedded import Postgres, Valkey, locked
from notifier.errors import NotConfigured
from notifier.supervise import Instance
from notifier.supervise.supervisor import Ports, environment_of
from tests.places import place_for_servers

pytestmark = [pytest.mark.timeout(180), pytest.mark.xdist_group("one at a time")]
PATIENCE = 60


def variables(state: Path, **more: str) -> dict[str, str]:
    """An almost empty environment: no HOME, no locale."""
    paths = [str(Path(path).resolve()) for path in sys.path if path and Path(path).is_dir()]
    return {"PYTHONPATH": os.pathsep.join(paths), "NOTIFIER_STATE_DIR": str(state), "PATH": os.defpath, **more}


@contextmanager
def up(state: Path, *arguments: str, **more: str):
    """An installation on ports of the kernel's choice."""
    command = [
        sys.executable,
        "-P",
        "-m",
        "notifier.cli",
        "up",
        "--port",
        "0",
        "--sandbox-port",
        "0",
        "--smtp-port",
        "0",
        "--inbound-port",
        "0",
    ]
    log = state.with_suffix(".log")
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [*command, *arguments], env=variables(state, **more), stdout=output, stderr=subprocess.STDOUT, umask=0o077
        ) as parent,
    ):
        try:
            eventually(lambda: parent.poll() is not None or pid_of(state) == parent.pid, log)
            assert parent.poll() is None, log.read_text()
            yield parent
        finally:
            parent.send_signal(signal.SIGTERM)
            parent.wait(PATIENCE)


def pid_of(state: Path) -> int | None:
    running = Instance(state).running()
    return running and running.pid


def eventually(holds, log: Path | None = None):
    """Wait for something that another process does."""
    deadline = time.monotonic() + PATIENCE
    while not (seen := holds()):
        assert time.monotonic() < deadline, log.read_text() if log else "it did not come to pass"
        time.sleep(0.05)
    return seen


def notifier(state: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """One command, as `run.py` passes it on."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "notifier.supervise", *arguments],
        env=variables(state, **more),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


def address(state: Path) -> str:
    return Instance(state).running().address


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def part(parent, *words: str) -> psutil.Process:
    """The child whose command line holds these words."""
    for child in psutil.Process(parent.pid).children(recursive=True):
        line = child.cmdline()
        if set(words) <= set(line):
            return child
    raise LookupError(words)


def is_free(state: Path, name: str) -> bool:
    with state.joinpath(f"{name}.lock").open("a") as lock:
        return locked(lock, within=20)


@pytest.fixture(scope="module")
def base():
    with place_for_servers() as place:
        yield place


@pytest.fixture(scope="module")
def state(base):
    return base / "state"


@pytest.fixture(scope="module")
def parent(state):
    """One installation for the tests that leave it running."""
    with up(state) as process:
        yield process


def test_it_serves_the_api_its_docs_and_the_inbox(parent, state):
    running = Instance(state).running()
    for url in (f"{running.address}/health", f"{running.address}/ready", f"{running.address}/docs"):
        eventually(lambda url=url: answers(url))
    eventually(lambda: answers(running.environment["NOTIFIER_SANDBOX_URL"]))  # another test may have killed it


def test_each_lane_has_its_processes_and_marketing_is_nice(parent):
    children = psutil.Process(parent.pid).children(recursive=True)
    lanes = [child.cmdline()[-1] for child in children if "worker" in child.cmdline()]
    assert sorted(lanes) == ["marketing", "marketing", "transactional"]
    assert part(parent, "worker", "marketing").nice() == 10
    assert part(parent, "worker", "transactional").nice() == 0
    assert part(parent, "scheduler")


@pytest.mark.parametrize("words", [("api",), ("worker", "transactional"), ("scheduler",), ("sandbox",), ("inbound",)])
def test_a_dead_child_is_started_again(parent, state, words):
    old = part(parent, *words)
    old.kill()

    def is_new():
        try:
            return part(parent, *words).pid != old.pid
        except (LookupError, psutil.NoSuchProcess):
            return False

    eventually(is_new)
    eventually(lambda: answers(f"{address(state)}/ready"))


def test_a_dead_database_is_started_again_and_served(parent, state):
    [old] = [child for child in psutil.Process(parent.pid).children() if "postgres" in child.name()]
    old.kill()
    eventually(lambda: not answers(f"{address(state)}/ready") or old.pid not in psutil.pids())
    eventually(lambda: answers(f"{address(state)}/ready"))


def test_a_second_instance_says_who_runs(parent, state):
    second = subprocess.run(
        [sys.executable, "-P", "-m", "notifier.cli", "up"],
        env=variables(state),
        capture_output=True,
        text=True,
        check=False,
    )
    assert second.returncode == 2
    assert f"process {parent.pid} at {address(state)}" in second.stderr
    assert "NOTIFIER_STATE_DIR" in second.stderr
    assert len(second.stderr.strip().splitlines()) == 1


def test_commands_join_the_running_instance(parent, state):
    made = notifier(state, "keys", "create", "shop", "--scope", "read")
    assert made.stdout.startswith("nk_"), made.stderr
    assert "shop" in notifier(state, "keys", "list").stdout


def test_only_the_owner_can_read_the_secrets(parent, state):
    for name in ("secrets.env", "instance.json"):
        assert stat.S_IMODE((state / name).stat().st_mode) == 0o600


def test_data_and_keys_survive_a_stop_and_commands_work_without_an_instance(base):
    state = base / "kept"
    with up(state) as parent:
        assert notifier(state, "keys", "create", "kept", "--scope", "read").returncode == 0
        secrets = (state / "secrets.env").read_text()
        family = psutil.Process(parent.pid).children(recursive=True)
    assert parent.returncode == 0
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not alive
    listed = notifier(state, "keys", "list")
    assert "kept" in listed.stdout, listed.stderr
    assert (state / "secrets.env").read_text() == secrets
    assert is_free(state, Postgres.name)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_a_killed_parent_leaves_nothing_behind_and_the_next_start_works(base):
    state = base / "killed"
    with up(state) as parent:
        family = psutil.Process(parent.pid).children(recursive=True)
        assert len(family) > 8
        parent.kill()
        parent.wait()
        _, alive = psutil.wait_procs(family, timeout=30)
        alive = [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
        assert not alive, alive
    assert is_free(state, Postgres.name)
    assert is_free(state, Valkey.name)
    with up(state):
        eventually(lambda: answers(f"{address(state)}/ready"))


def test_ctrl_c_stops_everything_in_order(base):
    state = base / "stopped"
    with up(state) as parent:
        family = psutil.Process(parent.pid).children(recursive=True)
        parent.send_signal(signal.SIGINT)
        assert parent.wait(PATIENCE) == 0
        assert not psutil.wait_procs(family, timeout=20)[1]
    assert "Traceback" not in state.with_suffix(".log").read_text()


def test_given_servers_are_used_and_nothing_is_embedded(base, database_url, redis_url):
    state = base / "given"
    with up(state, DATABASE_URL=database_url, REDIS_URL=redis_url) as parent:
        eventually(lambda: answers(f"{address(state)}/ready"))
        names = {child.name() for child in psutil.Process(parent.pid).children()}
        assert not {"postgres", "valkey-server"} & names
    assert not (state / "postgres").exists()
    assert not (state / "valkey").exists()


@pytest.mark.parametrize("option", ["--port", "--sandbox-port", "--smtp-port", "--inbound-port"])
def test_a_taken_port_is_named_with_its_option(base, option):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        others = [
            word for name in ("--port", "--sandbox-port", "--smtp-port", "--inbound-port") for word in (name, "0")
        ]
        done = subprocess.run(
            [sys.executable, "-P", "-m", "notifier.cli", "up", *others, option, port],
            env=variables(base / "taken"),
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert f"port {port} cannot be used (Address already in use): give another with {option}" in done.stderr
    assert "Traceback" not in done.stderr


def test_it_refuses_production(base):
    done = notifier_up = subprocess.run(
        [sys.executable, "-P", "-m", "notifier.cli", "up"],
        env=variables(base / "production", NOTIFIER_ENV="production"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert notifier_up.returncode == 2
    assert "NOTIFIER_ENV=production" in done.stderr
    assert not (base / "production").exists()


def test_what_an_instance_publishes_ends_with_it(tmp_path):
    instance = Instance(tmp_path)
    assert instance.take()
    assert instance.running() is None
    instance.publish("http://here", {"DATABASE_URL": "x"})
    assert instance.running().address == "http://here"
    other = Instance(tmp_path)
    assert not other.take(within=0)
    assert other.take_or_join().pid == os.getpid()
    instance.leave()
    assert other.take_or_join() is None
    other.leave()


def test_a_lock_that_a_dead_process_left_is_no_lock(tmp_path):
    (tmp_path / "instance.json").write_text(json.dumps({"pid": 1, "address": "http://gone", "environment": {}}))
    instance = Instance(tmp_path)
    assert instance.take(within=0)
    assert instance.running() is None
    instance.leave()


# What the children are told -------------------------------------------------------------------------------------------

VENDORS = ("NOTIFIER_TWILIO_", "NOTIFIER_FCM_")


def told(state: Path, **given: str) -> dict[str, str]:
    """The environment of every child of an installation on the usual ports."""
    return environment_of(Instance(state), [], given, Ports())


def test_text_messages_and_pushes_go_to_the_sandbox_without_being_set_up(tmp_path):
    environment = told(tmp_path)
    assert re.fullmatch("AC0{16}[0-9a-f]{16}", environment["NOTIFIER_TWILIO_ACCOUNT_SID"])
    assert len(environment["NOTIFIER_TWILIO_AUTH_TOKENS"]) == 32
    assert environment["NOTIFIER_TWILIO_SENDER"] == "+15005550006"
    assert environment["NOTIFIER_TWILIO_SEGMENTS_PER_SECOND"] == "100"
    assert environment["NOTIFIER_TWILIO_API_URL"].startswith(environment["NOTIFIER_SANDBOX_URL"])
    assert environment["NOTIFIER_FCM_API_URL"].startswith(environment["NOTIFIER_SANDBOX_URL"])
    key = Path(environment["NOTIFIER_FCM_CREDENTIALS"])
    assert key.parent == tmp_path
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert json.loads(key.read_text())["token_uri"].startswith(environment["NOTIFIER_SANDBOX_URL"])
    assert told(tmp_path) == environment


def test_a_state_directory_from_before_gets_the_secrets_that_it_has_not(tmp_path):
    old = {
        "NOTIFIER_LINK_KEYS": "k1:" + "l" * 43,
        "NOTIFIER_HASH_KEYS": "h1:" + "h" * 43,
        "NOTIFIER_SANDBOX_SECRET": "s",
    }
    (tmp_path / "secrets.env").write_text("".join(f"{name}={value}\n" for name, value in old.items()))
    environment = told(tmp_path)
    assert {name: environment[name] for name in old} == old
    assert environment["NOTIFIER_TWILIO_ACCOUNT_SID"].startswith("AC")
    assert stat.S_IMODE((tmp_path / "secrets.env").stat().st_mode) == 0o600
    assert told(tmp_path) == environment


def test_secrets_that_somebody_has_edited_are_read_or_the_line_is_named(tmp_path):
    made = Instance(tmp_path).secrets()
    path = tmp_path / "secrets.env"
    path.write_text(path.read_text().replace("\n", "\n\n"))
    assert Instance(tmp_path).secrets() == made
    path.write_text(path.read_text() + "# mine\n")
    with pytest.raises(NotConfigured, match=rf"secrets.env: line {2 * len(made) + 1} is not written like NAME=value"):
        Instance(tmp_path).secrets()


def test_an_account_of_ones_own_is_used_alone(tmp_path):
    """Nothing of the sandbox's is mixed into it: neither its address nor its sender."""
    own = {
        "NOTIFIER_TWILIO_ACCOUNT_SID": "AC" + "1" * 32,
        "NOTIFIER_TWILIO_AUTH_TOKENS": "mine",
        "NOTIFIER_FCM_CREDENTIALS": "/mine.json",
    }
    environment = told(tmp_path, **own)
    assert {name: value for name, value in environment.items() if name.startswith(VENDORS)} == own
    assert [path.name for path in tmp_path.iterdir()] == ["secrets.env"]


def test_a_variable_that_is_empty_is_one_that_was_not_given(tmp_path):
    empty = {"NOTIFIER_TWILIO_ACCOUNT_SID": "", "NOTIFIER_FCM_CREDENTIALS": ""}
    assert told(tmp_path, **empty) == told(tmp_path)


def test_one_setting_of_a_vendor_can_be_changed(tmp_path):
    environment = told(tmp_path, NOTIFIER_TWILIO_SENDER="ACME")
    assert environment["NOTIFIER_TWILIO_SENDER"] == "ACME"
    assert environment["NOTIFIER_TWILIO_ACCOUNT_SID"].startswith("AC0000")
