"""No engine runs here, so the container files are held to their schema and to what the program really understands."""

import asyncio
import inspect
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import jsonschema
import pytest
import yaml

from notifier import settings
from notifier.cli import inbound
from notifier.receiver import Receiver
from notifier.settings import Settings, variable

REPOSITORY = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((REPOSITORY / "docker" / "compose.yaml").read_text())
SCHEMA = json.loads((REPOSITORY / "tests" / "data" / "compose-spec" / "compose-spec.json").read_text())
DOCKERFILE = (REPOSITORY / "docker" / "Dockerfile").read_text()
EXAMPLE = (REPOSITORY / "docker" / "example.env").read_text()
SERVICES = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"].startswith("notifier-dispatch:")}
STEPS = [line for line in re.sub(r"\\\n", " ", DOCKERFILE).splitlines() if line and not line.startswith("#")]


def test_compose_keeps_to_the_schema_of_the_specification():
    jsonschema.validate(COMPOSE, SCHEMA)


def test_the_schema_would_see_a_mistake():
    wrong = {**COMPOSE, "services": {"api": {**SERVICES["api"], "restarts": "always"}}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, SCHEMA)


def test_every_part_of_an_installation_is_there():
    ours = {"migrate", "api", "worker-transactional", "worker-marketing", "scheduler", "inbound", "sandbox"}
    assert OURS.keys() == ours
    assert SERVICES.keys() - ours == {"postgres", "valkey"}


@pytest.mark.parametrize("name", SERVICES)
def test_every_image_is_pinned_and_every_service_restarts_and_is_watched_or_says_that_it_is_not(name):
    service = SERVICES[name]
    assert re.fullmatch(r"[\w./-]+:\d+\.\d+(\.\d+)?", service["image"])
    assert service["restart"] == ("no" if name == "migrate" else "unless-stopped")
    watched = service.get("healthcheck", {"test": "the image's own"})
    assert watched.get("disable") or watched.get("test")


@pytest.mark.parametrize("name", OURS)
def test_every_command_is_one_that_the_program_knows(name):
    command = OURS[name]["command"]
    done = subprocess.run(
        [sys.executable, "-m", "notifier.cli", command[0], "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    for option in (word for word in command if word.startswith("--")):
        assert option in done.stdout


def test_what_a_container_is_told_are_settings_that_exist():
    known = {variable(field) for field in Settings.model_fields}
    told = set().union(*(service["environment"] for service in OURS.values()))
    assert told <= known | {"FORWARDED_ALLOW_IPS"}  # uvicorn's own


def test_whatever_must_be_filled_in_stands_in_the_example():
    text = (REPOSITORY / "docker" / "compose.yaml").read_text()
    assert set(re.findall(r"\$\{(\w+):\?", text)) <= set(re.findall(r"^(\w+)=", EXAMPLE, re.MULTILINE))


@pytest.mark.parametrize("name", OURS)
def test_nothing_of_ours_may_do_more_than_it_must(name):
    service = OURS[name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert not service.get("privileged")


def test_only_this_machine_reaches_the_ports():
    assert all(port.startswith("127.0.0.1:") for service in SERVICES.values() for port in service.get("ports", []))


@pytest.mark.parametrize(
    ("name", "port"), [("api", "8025"), ("inbound", inspect.signature(inbound).parameters["port"].default)]
)
def test_whoever_is_reached_from_outside_listens_on_the_port_that_is_let_through(name, port):
    service = SERVICES[name]
    assert f"127.0.0.1:{port}:{port}" in service["ports"]
    assert service["command"][1:] == ["--host", "0.0.0.0", "--port", str(port)]


def test_what_cannot_run_without_more_settings_runs_only_when_it_is_asked_for():
    assert {name: service["profiles"] for name, service in SERVICES.items() if "profiles" in service} == {
        "inbound": ["inbound"],
        "sandbox": ["sandbox"],
    }


@pytest.mark.anyio
async def test_the_receiver_passes_its_own_health_check():
    async def take(*_):
        raise AssertionError("nothing is sent")

    receiver = Receiver(take, "in.acme.test")
    address = await receiver.listen("127.0.0.1", 0)
    [kind, *command] = SERVICES["inbound"]["healthcheck"]["test"]
    here = [sys.executable, "-c", command[2].replace("1026", address.rpartition(":")[2])]
    done = await asyncio.to_thread(subprocess.run, here, capture_output=True, check=False)
    await receiver.close(5)
    assert (kind, command[:2], done.returncode, done.stderr) == ("CMD", ["python", "-c"], 0, b"")
    assert (await asyncio.to_thread(subprocess.run, here, capture_output=True, check=False)).returncode != 0


@pytest.mark.parametrize("name", [name for name in OURS if name.startswith(("worker", "inbound"))])
def test_whoever_drains_has_longer_to_stop(name):
    assert int(OURS[name]["stop_grace_period"].removesuffix("s")) > Settings.model_fields["shutdown_seconds"].default


def test_everything_waits_for_the_migration():
    for name in OURS.keys() - {"migrate", "sandbox"}:
        assert SERVICES[name]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"


def test_the_journals_are_shared():
    target = re.search(r"NOTIFIER_STATE_DIR=(\S+)", DOCKERFILE)[1]
    for name in ("worker-transactional", "worker-marketing", "scheduler"):
        assert f"state:{target}" in SERVICES[name]["volumes"]


def test_the_image_runs_as_an_ordinary_user_and_is_watched():
    final = STEPS[max(number for number, step in enumerate(STEPS) if step.startswith("FROM")) :]
    assert any(re.fullmatch(r"USER [1-9]\d+", step) for step in final)
    assert any(step.startswith("HEALTHCHECK") for step in final)


def test_everything_that_is_installed_is_locked_by_its_hash():
    installs = [part for step in STEPS for part in step.split("&&") if "pip install" in part]
    assert installs
    assert all("--require-hashes" in part or "--no-index" in part for part in installs)


def test_the_image_holds_the_sdks_of_both_vendors():
    """The wheel goes in without its extras: what they need comes with the locked versions, and none is taken out."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = {name: project["optional-dependencies"][name] for name in ("sms", "push")}
    wanted = {re.match(r"[\w-]+", line)[0] for lines in extras.values() for line in lines}
    assert wanted >= {"twilio", "firebase-admin"}
    locked = set(re.findall(r"^([\w-]+)==", (REPOSITORY / "requirements.txt").read_text(), re.MULTILINE))
    removed = {word for step in STEPS for part in re.findall(r"pip uninstall([^&]*)", step) for word in part.split()}
    assert wanted <= locked - removed


def test_what_is_copied_is_there_and_is_let_through():
    let_through = {
        line.removeprefix("!")
        for line in (REPOSITORY / "docker" / "Dockerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = [word for step in STEPS if step.startswith("COPY") and "--from" not in step for word in step.split()[1:-1]]
    for source in copied:
        assert (REPOSITORY / source).exists()
        assert source in let_through


def test_what_builds_the_wheel_is_locked():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    assert project["build-system"]["requires"] == ["hatchling>=1.27"]
    assert re.search(r"^hatchling==", (REPOSITORY / "docker" / "requirements-build.txt").read_text(), re.MULTILINE)


def test_a_variable_that_compose_leaves_empty_is_one_that_was_not_given(monkeypatch):
    given = {
        "DATABASE_URL": "postgresql://here",
        "REDIS_URL": "redis://here",
        "NOTIFIER_LINK_KEYS": "k1:" + "x" * 32,
        "NOTIFIER_HASH_KEYS": "h1:" + "x" * 32,
        "NOTIFIER_ENV": "production",
        "NOTIFIER_PUBLIC_URL": "https://mail.example.com",
        "NOTIFIER_LIST_DOMAIN": "lists.example.com",
        "NOTIFIER_POSTAL_ADDRESS": "Acme, 1 Road, Town",
        "NOTIFIER_SANDBOX_SECRET": "",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert settings.load().sandbox_secret is None
