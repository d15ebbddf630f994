"""The embedded servers start anywhere, keep what they were given, and never outlive or collide with one another."""

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from notifier.embedded import Postgres, Server, Valkey, locked
from notifier.errors import NotConfigured
from tests.places import place_for_servers

LAUNCHER = """
import sys
from pathlib import Path
from notifier.embedded import Postgres, Valkey
servers = [Postgres(Path(sys.argv[1]), durable=False), Valkey(Path(sys.argv[1]))]
for server in servers:
    server.start()
    print(server.process.pid, server.url, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def state():
    with place_for_servers() as place:
        yield place


@pytest.fixture
def launcher(state):
    """Another process that has started both servers below `state`, with their pids."""
    with subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(state)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        umask=0o077,
    ) as process:
        process.pids = [int(process.stdout.readline().split()[0]) for _ in range(2)]
        yield process
        process.kill()
    for server in (Postgres, Valkey):  # they end by themselves, and until then write into what is about to be removed
        assert is_free(state, server)


def is_free(state: Path, server: type[Server], within: float = 20) -> bool:
    """Whether no process of the server lives: each inherits the lock."""
    with state.joinpath(f"{server.name}.lock").open("a") as lock:
        return locked(lock, within=within)


def execute(server: Postgres, statement: str):
    with psycopg.connect(server.url, autocommit=True) as connection:
        return connection.execute(statement)


def test_data_survives_a_restart(state):
    with Postgres(state, durable=False) as server:
        execute(server, "CREATE TABLE kept AS SELECT 7 AS n")
    with Postgres(state, durable=False) as server:
        assert execute(server, "SELECT n FROM kept").fetchone() == (7,)
    assert is_free(state, Postgres, within=0)


def test_the_real_server_is_durable(state):
    with Postgres(state) as server:
        assert execute(server, "SHOW fsync").fetchone() == ("on",)
        assert execute(server, "SHOW synchronous_commit").fetchone() == ("on",)


def test_a_killed_server_starts_again_although_its_pid_file_names_a_living_process(state):
    server = Postgres(state, durable=False)
    server.start()
    execute(server, "CREATE TABLE kept AS SELECT 7 AS n")
    execute(server, "CHECKPOINT")
    server.process.kill()
    server.process.wait()
    assert is_free(state, Postgres)
    pid_file = server.data / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    with subprocess.Popen(["sleep", "60"], user=server.data.stat().st_uid) as other:
        pid_file.write_text("\n".join([str(other.pid), *lines[1:]]) + "\n")
        server.start()
        assert execute(server, "SELECT n FROM kept").fetchone() == (7,)
        server.stop()
        other.kill()


def test_a_half_made_data_directory_is_made_again(state):
    server = Postgres(state, durable=False)
    server._make_home()
    (server.home / "data.new").mkdir()
    (server.home / "data.new" / "PG_VERSION").write_text("18\n")
    with server:
        assert execute(server, "SELECT 1").fetchone() == (1,)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_a_killed_launcher_leaves_no_server(state, launcher):
    assert not is_free(state, Postgres, within=0)
    assert not is_free(state, Valkey, within=0)
    launcher.kill()
    assert is_free(state, Postgres)
    assert is_free(state, Valkey)


def test_a_start_right_after_the_kill_waits_for_the_old_server(state, launcher):
    launcher.kill()
    with Postgres(state, durable=False) as postgres, Valkey(state) as valkey:
        assert postgres.is_alive()
        assert valkey.is_alive()


def test_an_orphan_that_nobody_told_is_ended(state):
    server = Valkey(state)
    server.start()
    orphan = server.process
    server._owner.close()
    with Valkey(state) as second:
        assert orphan.wait(20) == 0
        assert second.process.pid != orphan.pid


def test_a_second_process_is_refused_in_one_sentence(state, launcher):
    for server in (Postgres(state), Valkey(state)):
        with pytest.raises(NotConfigured, match=rf"another process runs {server.name} in {state}"):
            server.start()
    os.kill(launcher.pids[0], 0)


@pytest.mark.parametrize("server_type", [Postgres, Valkey])
def test_a_path_too_long_for_a_socket_gets_a_short_one_that_is_cleared_away(state, server_type):
    deep = state / ("d" * 60) / ("e" * 60)
    with server_type(deep) as server:
        assert server.is_alive()
        short = server.sockets
        assert not short.is_relative_to(state)
        assert stat.S_IMODE(short.stat().st_mode) == 0o700
    assert not short.exists()


def test_only_the_owner_can_enter_a_home(state, launcher):
    for server in (Postgres(state), Valkey(state)):
        assert stat.S_IMODE(server.home.stat().st_mode) == 0o700


def test_no_permission_of_an_existing_directory_changes(state):
    inner = state / "a" / "b"
    inner.mkdir(parents=True)
    before = {path: path.stat().st_mode for path in (state.parent, state, inner.parent, inner)}
    with Postgres(inner / "new", durable=False), Valkey(inner / "new"):
        assert {path: path.stat().st_mode for path in before} == before


def test_the_log_carries_nothing_of_what_was_written(state):
    with Postgres(state, durable=False) as server:
        execute(server, "CREATE TABLE people (address text UNIQUE)")
        execute(server, "INSERT INTO people VALUES ('ann@example.test')")
        with pytest.raises(psycopg.errors.UniqueViolation):
            execute(server, "INSERT INTO people VALUES ('ann@example.test')")
        assert "duplicate key" in server.log.read_text()
        assert "example.test" not in server.log.read_text()


def test_a_server_that_cannot_start_says_why_in_one_sentence(state):
    with Postgres(state, durable=False) as server:
        control = server.data / "global" / "pg_control"
    control.unlink()
    with pytest.raises(NotConfigured, match=r"postgres does not start: .*pg_control.*postgres\.log"):
        server.start()
    assert is_free(state, Postgres, within=0)


def test_valkey_has_no_port(state):
    with Valkey(state) as server, socket.socket(socket.AF_UNIX) as client:
        client.connect(server.url.removeprefix("unix://"))
        client.sendall(b"CONFIG GET port\r\n")
        assert b"port\r\n$1\r\n0" in client.recv(200)


@pytest.mark.system
def test_a_directory_that_nobody_may_enter_is_named(state):
    closed = state / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(NotConfigured, match=rf"{closed} may not be entered"):
        Postgres(closed / "state").start()
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@pytest.mark.system
def test_programs_that_nobody_may_read_are_copied_once(state, monkeypatch):
    from notifier.embedded import accounts

    monkeypatch.setattr(accounts.Account, "may_run", lambda *_: False)
    with Postgres(state, durable=False) as server, Valkey(state) as valkey:
        assert Path(f"/proc/{server.process.pid}/exe").resolve().is_relative_to(state / "programs")
        assert Path(f"/proc/{valkey.process.pid}/exe").resolve().is_relative_to(state / "programs")
    inodes = {path: path.stat().st_ino for path in (state / "programs").iterdir()}
    with Postgres(state, durable=False):
        assert {path: path.stat().st_ino for path in (state / "programs").iterdir()} == inodes


def test_stopping_twice_is_harmless(state):
    server = Valkey(state)
    server.start()
    server.stop()
    server.stop()
    assert not server.is_alive()
