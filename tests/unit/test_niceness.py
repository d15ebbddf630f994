"""A marketing worker makes room for others, also where Linux compares sessions; and never for a session it shares."""

import json
import os
import subprocess
import sys

import pytest

from notifier import niceness

STEP_BACK = """
import json, os, sys
from notifier import niceness
from tests.sessions import session_niceness
before = session_niceness(os.getpid())
niceness.step_back(int(sys.argv[1]))
print(json.dumps([niceness.own(), before, session_niceness(os.getpid())]))
"""


def stepping_back(by: int, *, leads_a_session: bool) -> tuple[int, int | None, int | None]:
    """How nice the process is then, and its session before and then."""
    command = [sys.executable, "-c", STEP_BACK, str(by)]
    done = subprocess.run(command, start_new_session=leads_a_session, check=True, capture_output=True, text=True)
    own, before, then = json.loads(done.stdout)
    return own, before, then


def test_a_worker_with_a_session_of_its_own_steps_back_with_it():
    own, before, then = stepping_back(7, leads_a_session=True)
    assert own == min(niceness.own() + 7, 19)
    assert then == (None if before is None else own)


def test_a_worker_in_somebody_elses_session_steps_back_alone():
    own, before, then = stepping_back(7, leads_a_session=False)
    assert own == min(niceness.own() + 7, 19)
    assert then == before


def test_a_worker_steps_back_where_nothing_may_be_written_about_its_session(monkeypatch, tmp_path):
    monkeypatch.setattr(niceness, "PROC", tmp_path)
    monkeypatch.setattr(os, "getsid", lambda process: process)
    (tmp_path / str(os.getpid()) / "autogroup").mkdir(parents=True)  # not to be written
    asked = []
    monkeypatch.setattr(os, "nice", asked.append)
    niceness.step_back(7)
    assert asked == [7]


def test_who_is_not_nice_asks_nothing_of_the_server(monkeypatch):
    told = []
    monkeypatch.setattr(os, "setpriority", lambda *call: told.append(call))
    niceness.share(os.getpid())
    assert not told


@pytest.mark.parametrize("name", ["python\n", "postmaster\n"])
def test_a_number_that_names_no_postgresql_here_is_left_alone(monkeypatch, tmp_path, name):
    told = []
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "comm").write_text(name)
    monkeypatch.setattr(niceness, "PROC", tmp_path)
    monkeypatch.setattr(niceness, "own", lambda: 10)
    monkeypatch.setattr(os, "setpriority", lambda *call: told.append(call))
    niceness.share(1)
    niceness.share(2)  # nobody
    assert not told
