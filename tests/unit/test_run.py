"""The bootstrap says in one sentence what is in the way, and never leaves the person with a traceback."""

import errno
import fcntl
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import run

BOOTSTRAP = Path(run.__file__)


@pytest.fixture
def variables(monkeypatch):
    """An environment of the test's own."""
    for name in ("NOTIFIER_STATE_DIR", "PYTHONPATH", "PIP_USER"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.fixture
def as_root(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)


@pytest.fixture
def as_somebody(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


def test_without_a_command_it_says_what_there_is(capsys):
    run.main([])
    assert "python3 run.py demo" in capsys.readouterr().out


def test_an_old_python_goes_on_with_a_newer_one(monkeypatch):
    became = []
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    monkeypatch.setattr("shutil.which", lambda name, **_: f"/usr/bin/{name}" if name == "python3.12" else None)
    monkeypatch.setattr(os, "execv", lambda program, arguments: became.append([program, *arguments]) or sys.exit())
    with pytest.raises(SystemExit):
        run.use_a_new_python()
    assert became == [["/usr/bin/python3.12", "/usr/bin/python3.12", run.__file__, *sys.argv[1:]]]


def test_an_old_python_alone_is_told_what_to_install(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(run.Cannot, match=r"Python 3\.9 and Notifier needs 3\.11 or newer: install"):
        run.use_a_new_python()


def test_the_file_can_be_read_by_a_python_that_is_too_old():
    import ast

    ast.parse(BOOTSTRAP.read_text(), feature_version=(3, 7))


def test_an_empty_environment_is_made_usable(variables):
    variables.delenv("PATH")
    variables.setenv("PYTHONPATH", "/elsewhere")
    variables.setenv("PIP_USER", "1")
    run.prepare_variables()
    assert os.environ["PATH"] == run.USUAL_PATH
    assert "PYTHONPATH" not in os.environ
    assert "PIP_USER" not in os.environ


def test_the_state_is_beside_the_file_unless_told(variables, tmp_path, as_somebody):
    variables.setattr(run, "HERE", tmp_path)
    assert run.state_directory() == tmp_path / ".notifier"
    assert os.environ["NOTIFIER_STATE_DIR"] == str(tmp_path / ".notifier")
    variables.setenv("NOTIFIER_STATE_DIR", str(tmp_path / "a" / "b"))
    assert run.state_directory() == tmp_path / "a" / "b"
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


def test_root_in_a_closed_directory_gets_another_place_in_a_sentence(variables, tmp_path, as_root, capsys):
    tmp_path.chmod(0o700)
    made = []
    variables.setattr(run, "HERE", tmp_path)
    variables.setattr(run, "make_directory", made.append)
    variables.setattr(os, "access", lambda *_: True)
    state = run.state_directory()
    assert state.parent == Path("/var/lib")
    assert made == [state]
    assert "Only root may enter" in capsys.readouterr().err
    assert tmp_path.stat().st_mode & 0o777 == 0o700


def test_root_is_told_when_the_given_directory_is_closed(variables, tmp_path, as_root):
    tmp_path.chmod(0o700)
    variables.setenv("NOTIFIER_STATE_DIR", str(tmp_path / "state"))
    with pytest.raises(run.Cannot, match=r"no other account may enter .* set NOTIFIER_STATE_DIR to"):
        run.state_directory()


def test_a_file_in_the_place_of_the_state_is_named(variables, tmp_path, as_somebody):
    (tmp_path / "state").touch()
    variables.setenv("NOTIFIER_STATE_DIR", str(tmp_path / "state" / "deeper"))
    with pytest.raises(run.Cannot, match=r"state is a file"):
        run.state_directory()


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk .* is full"),
        ("WARNING: ... Temporary failure in name resolution\nERROR: No matching distribution", "connect .* network"),
        ("x\nERROR: Could not find a version that satisfies the requirement x==1\nmore", "Could not find a version"),
        ("", "it said nothing"),
    ],
)
def test_a_failed_installation_is_one_sentence(said, sentence, tmp_path):
    answer = run.why(said, tmp_path)
    assert "\n" not in answer
    assert re.search(sentence, answer)


@pytest.fixture
def state(variables, tmp_path):
    variables.setenv("NOTIFIER_STATE_DIR", str(tmp_path))
    variables.setattr(run, "lead_to_this_checkout", lambda *_: None)
    return tmp_path


def test_a_python_without_venv_is_told_what_to_install(state, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda *_: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    with pytest.raises(run.Cannot, match=r"without venv: install it \(`apt install python3-venv`"):
        run.environment(state, "run")


def test_pip_takes_over_when_uv_fails(state, monkeypatch):
    steps = []
    monkeypatch.setattr("shutil.which", lambda *_: "/usr/bin/uv")

    def attempt(command):
        steps.append(Path(command[0]).name)
        if command[0].endswith("uv"):
            return "error: invalid peer certificate"
        Path(command[-1]).mkdir(exist_ok=True) if "venv" in command else None
        return None

    monkeypatch.setattr(run, "attempt", attempt)
    python = run.environment(state, "run")
    assert steps == ["uv", Path(sys.executable).name, "python"]
    assert (python.parent.parent / "complete").exists()


@pytest.fixture
def installs(state, monkeypatch):
    """Installations are counted instead of made."""
    made = []

    def install(place, lock_file):
        place.mkdir(exist_ok=True)
        (place / "complete").touch()
        made.append(place)

    monkeypatch.setattr(run, "install", install)
    return made


def test_an_environment_is_made_once_for_each_lock_file(state, installs, monkeypatch, tmp_path):
    first = run.environment(state, "run")
    assert run.environment(state, "run") == first
    assert run.environment(state, "test") != first
    assert len(installs) == 2


def test_a_half_made_environment_is_made_again(state, installs, monkeypatch):
    monkeypatch.setattr(run, "take", lambda *_, **__: True)  # the first process has ended
    run.environment(state, "run")
    (installs[0] / "complete").unlink()
    run.environment(state, "run")
    assert installs[0] == installs[1]


def test_an_old_environment_goes_when_nobody_runs_it(state, installs):
    old, used = state / "env" / "run-old", state / "env" / "run-used"
    for place in (old, used):
        place.mkdir(parents=True)
        place.with_suffix(".lock").touch()
    with used.with_suffix(".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        run.environment(state, "run")
    assert not old.exists()
    assert used.exists()


def test_two_starts_do_not_install_at_once(state):
    """The second waits for the first, and finds its work done."""
    script = f"""
import sys; sys.path.insert(0, {str(BOOTSTRAP.parent)!r})
import run, pathlib, time, os
def install(place, lock_file):
    place.mkdir()  # fails when another has
    time.sleep(0.3)
    (place / "complete").touch()
    print("installed")
run.install, run.lead_to_this_checkout = install, lambda *_: None
run.environment(pathlib.Path({str(state)!r}), "run")
"""
    both = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[0] for process in both]
    assert sorted(said) == ["", "installed\n"]
    assert [process.returncode for process in both] == [0, 0]


def test_the_environment_follows_a_checkout_that_moved(tmp_path, monkeypatch):
    place = tmp_path / "env"
    monkeypatch.setattr("sysconfig.get_path", lambda *_, **__: str(place))
    place.mkdir()
    run.lead_to_this_checkout(place)
    monkeypatch.setattr(run, "HERE", Path("/moved"))
    run.lead_to_this_checkout(place)
    assert (place / "notifier.pth").read_text() == "/moved\n/moved/channels\n"


def test_tests_do_not_see_a_real_installation(variables):
    variables.setenv("DATABASE_URL", "postgresql://real")
    variables.setenv("NOTIFIER_ENV", "production")
    assert not {"DATABASE_URL", "NOTIFIER_ENV"} & run.for_tests().keys()


def test_system_tests_without_root_name_the_packages(monkeypatch, as_somebody, tmp_path):
    packages = tmp_path / "tests" / "system" / "packages.txt"
    packages.parent.mkdir(parents=True)
    packages.write_text("# what we need\npostfix  # a real MTA\n")
    monkeypatch.setattr(run, "HERE", tmp_path)
    monkeypatch.setattr(run, "is_installed", lambda *_: False)
    with pytest.raises(run.Cannot, match=r"Debian packages postfix: run it as root"):
        run.install_debian_packages()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [(["dev"], "say which program"), (["dev", "no-such"], "no program no-such")],
)
def test_a_wrong_use_of_dev_is_a_sentence(variables, tmp_path, as_somebody, arguments, sentence):
    variables.setenv("NOTIFIER_STATE_DIR", str(tmp_path))
    variables.setattr(run, "environment", lambda *_: tmp_path / "bin" / "python")
    with pytest.raises(run.Cannot, match=sentence):
        run.main(arguments)


def test_a_full_disk_is_a_sentence_from_the_command_line(tmp_path):
    script = f"""
import sys, os, errno; sys.path.insert(0, {str(BOOTSTRAP.parent)!r}); sys.argv = ["run.py", "up"]
import pathlib
def full(*_, **__): raise OSError({errno.ENOSPC}, os.strerror({errno.ENOSPC}), "/full")
pathlib.Path.mkdir = full
import runpy; runpy.run_path({str(BOOTSTRAP)!r}, run_name="__main__")
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"NOTIFIER_STATE_DIR": "/tmp/never-made"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "No space left" in done.stderr
    assert len(done.stderr.splitlines()) == 1
