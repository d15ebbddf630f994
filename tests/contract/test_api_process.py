import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from notifier.client import Notifier, Refused
from notifier.domain.access import ApiKey
from tests.servers.api import RESET

ROOT = Path(__file__).parents[2]


@pytest.fixture
def environment(database_url: str, redis_url: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{ROOT}:{ROOT / 'channels'}",
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "NOTIFIER_LINK_KEYS": "l1:" + "l" * 32,
        "NOTIFIER_HASH_KEYS": "h1:" + "h" * 32,
    }


def notifier(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "notifier.cli", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def server(environment: dict[str, str]) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    command = [sys.executable, "-m", "notifier.cli", "api", "--port", "0"]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/"
    )
    with process:
        line = process.stdout.readline()
        found = re.search(r"http://[0-9.]+:\d+", line)
        assert found, process.stderr.read()
        yield found[0], process
        process.kill()


def test_a_key_is_shown_once_and_lets_product_code_in(environment, server) -> None:
    url, process = server
    made = notifier(environment, "keys", "create", "shop", "--scope", "send:transactional", "--scope", "read")
    key = made.stdout.strip()
    assert ApiKey.parse(key)
    with Notifier(url, key) as client:
        sent = client.send("password-reset", to={"email": "ann@example.test"}, data=RESET)
        assert client.notification(sent.id).messages[0].state == "queued"
        assert client.message(sent.messages[0].id).timeline[0].what == "accepted"
        assert client.cancel(sent.id).cancelled == (sent.messages[0].id,)
        with pytest.raises(Refused, match="recipients"):
            client.put_recipient("ann", email="ann@example.test")

        listed = notifier(environment, "keys", "list").stdout
        public = ApiKey.parse(key).id
        assert re.fullmatch(rf"{public}  \d{{4}}-\d\d-\d\d \d\d:\d\d +shop +read send:transactional\n", listed)
        assert ApiKey.parse(key).secret not in listed
        assert notifier(environment, "keys", "revoke", public).returncode == 0
        assert "revoked" in notifier(environment, "keys", "list").stdout

    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert "ann@" not in process.stderr.read()


def test_a_command_that_cannot_be_carried_out_says_so_in_one_sentence(environment) -> None:
    unknown = notifier(environment, "keys", "revoke", "000000000000")
    assert (unknown.returncode, unknown.stderr.count("\n")) == (1, 1)
    away = notifier(environment | {"DATABASE_URL": "postgresql://127.0.0.1:1/x"}, "keys", "list")
    assert (away.returncode, away.stderr.count("\n")) == (2, 1)
    assert "DATABASE_URL" in away.stderr
    assert notifier(environment, "keys", "create", "x", "--scope", "everything").returncode == 2


@pytest.mark.parametrize(
    "words",
    [
        ("api", "--port", "70000"),
        ("inbound", "--port", "-1"),
        ("sandbox", "--http-port", "65536"),
        ("sandbox", "--http-port", "0", "--smtp-port", "65536"),
        ("up", "--port", "70000"),
        ("api", "--port", "0", "--host", "nowhere.invalid"),
        ("sandbox", "--http-port", "0", "--host", "nowhere.invalid"),
        ("keys", "create", b"a\xff", "--scope", "read"),
        ("consent", "show", b"a\xff"),
        ("suppressions", "add", "ann@example.test", "--why", b"a\xff"),
        ("suppressions", "list", "--limit", "9" * 20),
    ],
)
def test_what_cannot_be_is_refused_without_a_traceback(environment, words) -> None:
    done = notifier(environment, *words)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "Unknown error" not in done.stderr


def test_a_worker_without_a_place_for_its_journal_names_the_setting(environment) -> None:
    done = notifier(environment | {"NOTIFIER_STATE_DIR": "/dev/null/state"}, "worker", "--lane", "marketing")
    assert done.returncode == 2
    assert "NOTIFIER_STATE_DIR: /dev/null/state/journals cannot be written (Not a directory)" in done.stderr


def test_an_api_that_could_keep_no_stop_names_the_setting(environment) -> None:
    nowhere = {"NOTIFIER_STATE_DIR": "/dev/null/state", "NOTIFIER_TWILIO_AUTH_TOKENS": "t" * 32}
    done = notifier(environment | nowhere, "api", "--port", "0")
    assert done.returncode == 2
    assert "NOTIFIER_STATE_DIR: /dev/null/state/replies cannot be written (Not a directory)" in done.stderr


def test_a_preview_that_cannot_be_written_is_one_sentence(environment) -> None:
    done = notifier(environment, "templates", "preview", "password-reset", "--out", "/dev/null/previews")
    assert (done.returncode, done.stderr) == (1, "notifier: /dev/null/previews: Not a directory\n")


def test_an_empty_database_is_named_as_what_it_is(environment, postgres) -> None:
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE bare")
    bare = environment | {"DATABASE_URL": postgres.url.replace("/postgres?", "/bare?")}
    listed = notifier(bare, "keys", "list")
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("DROP DATABASE bare WITH (FORCE)")
    assert listed.returncode == 2
    assert "notifier migrate" in listed.stderr


def test_a_scheduler_that_breaks_ends_so_that_it_is_started_again(environment, postgres) -> None:
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE unmigrated")
    try:
        done = notifier(environment | {"DATABASE_URL": postgres.url.replace("/postgres?", "/unmigrated?")}, "scheduler")
    finally:
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            connection.execute("DROP DATABASE unmigrated WITH (FORCE)")
    assert done.returncode == 75
    assert '"error": "UndefinedTable"' in done.stderr
    assert "scheduler.gives_up" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_start_that_waits_for_a_silent_database_can_be_stopped(environment) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://127.0.0.1:{silent.getsockname()[1]}/x"
        command = [sys.executable, "-m", "notifier.cli", "api", "--port", "0"]
        with subprocess.Popen(command, env=environment | {"DATABASE_URL": url}, stderr=subprocess.DEVNULL) as process:
            connection, _ = silent.accept()
            with connection:
                process.send_signal(signal.SIGINT)
                try:
                    assert process.wait(30) == 130
                finally:
                    process.kill()


def test_a_taken_port_is_one_sentence(environment, server) -> None:
    url, _ = server
    second = notifier(environment, "api", "--port", url.rpartition(":")[2])
    assert second.returncode == 2
    assert second.stderr.count("\n") == 1
    assert "--port" in second.stderr
