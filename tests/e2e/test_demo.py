"""The demo ends with 0 when its promises held, and would end with 1 if one were broken."""

import io
import os
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from notifier.demo.cast import cast, letter, order
from notifier.demo.product import Wave
from notifier.demo.reader import Mail
from notifier.demo.scenario import Scenario
from notifier.demo.stage import Stage


@pytest.fixture
def state():
    with tempfile.TemporaryDirectory(prefix="nt-", dir="/tmp") as name:
        Path(name).chmod(0o711)
        yield Path(name) / "state"


@pytest.mark.timeout(300)
@pytest.mark.xdist_group("one at a time")
def test_the_scenario_holds_and_ends_with_0(state):
    ports = ["--port", "0", "--sandbox-port", "0", "--smtp-port", "0", "--inbound-port", "0"]
    paths = [str(Path(path).resolve()) for path in sys.path if path and Path(path).is_dir()]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "notifier.cli", "demo", "--once", *ports],
        env={"PYTHONPATH": os.pathsep.join(paths), "NOTIFIER_STATE_DIR": str(state), "PATH": os.defpath},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Every promise held." in done.stdout
    assert "\x1b" not in done.stdout
    assert "✗" not in done.stdout
    assert not done.stderr


def test_each_run_meets_new_people():
    first, second = cast("r1"), cast("r2")
    assert len({person.email for person in first} | {person.email for person in second}) == 400
    assert len({person.id for person in first}) == 200
    assert {order(first[0], 1)["name"], letter(first[0], "x")["name"]} == {first[0].name.split()[0]}


def wave(name, people, state, reason=None):
    ids = {f"{name}-{person.id}": person for person in people}
    return Wave(name, "marketing", ids, dict.fromkeys(ids, (state, reason)))


@pytest.fixture
def played():
    """A scenario in which all went well: one reader left, one mail was only scanned, one left while it was queued."""
    people = [person for person in cast("r1") if person.simulator is None and person.is_subscriber][:4]
    left, scanned, late, plain = people
    scenario = Scenario(
        stage=Stage(Console(file=io.StringIO())),
        shop=None,
        marketing=None,
        inbox=None,
        explain=None,
        people=people,
        orders=wave("orders", people, "delivered"),
        first=wave("first", people, "delivered"),
        second=wave("second", people, "delivered"),
        again=wave("again", [left, late], "delivered"),
        clicked=[left.id],
        late=[late.id],
        scanned=[scanned.id],
        answers=Counter({200: 2}),
    )
    scenario.second.states[f"second-{left.id}"] = ("suppressed", "withdrawn:topic:newsletter/email")
    scenario.second.states[f"second-{late.id}"] = ("cancelled", "withdrawn:topic:newsletter/email")
    return scenario, left, late, plain


def mails(scenario):
    sent = [id_ for one in scenario._waves for id_, (state, _) in one.states.items() if state == "delivered"]
    return [Mail(number, id_, "", "", None) for number, id_ in enumerate(sent)]


def judge(scenario, arrived) -> set[str]:
    """The promises that were broken."""
    scenario._judge_what_arrived(arrived)
    scenario._judge_what_is_known()
    return {check.promise for check in scenario.checks if not check.holds}


def test_all_went_well(played):
    scenario, *_ = played
    assert judge(scenario, mails(scenario)) == set()


def test_a_mail_to_somebody_who_said_no_is_seen_in_the_inbox(played):
    scenario, left, *_ = played
    stray = Mail(999, f"second-{left.id}", "", "", None)
    assert "nobody who said no got the second newsletter" in judge(scenario, [*mails(scenario), stray])


def test_a_mail_that_comes_twice_is_seen(played):
    scenario, *_ = played
    arrived = mails(scenario)
    assert "nothing comes twice" in judge(scenario, [*arrived, replace(arrived[0], id=999)])


def test_a_mail_that_nobody_has_seen_is_missed(played):
    scenario, *_ = played
    assert judge(scenario, mails(scenario)[1:]) == {"what is called sent is what the SMTP server has"}


def test_a_click_by_get_that_acted_is_seen(played):
    scenario, *_ = played
    id_ = f"second-{scenario.scanned[0]}"
    arrived = [mail for mail in mails(scenario) if mail.message != id_]
    assert "opening a link changes nothing" in judge(scenario, arrived)


def test_a_message_without_an_outcome_is_seen(played):
    scenario, *_, plain = played
    scenario.orders.states[f"orders-{plain.id}"] = ("queued", None)
    assert "nothing is lost" in judge(scenario, mails(scenario))


def test_silence_about_a_message_that_was_not_sent_is_seen(played):
    scenario, *_, plain = played
    scenario.orders.states[f"orders-{plain.id}"] = ("suppressed", None)
    assert "whatever was not sent has a reason" in judge(scenario, mails(scenario))


def test_a_redirect_is_seen(played):
    scenario, *_ = played
    scenario.answers[302] += 1
    assert "a one-click POST is answered 200, without a redirect" in judge(scenario, mails(scenario))


def test_a_click_that_stopped_nothing_is_seen(played):
    scenario, _, late, _ = played
    scenario.second.states[f"second-{late.id}"] = ("delivered", None)
    assert "a click stops what is already queued" in judge(scenario, mails(scenario))


def test_an_order_that_was_held_back_is_seen(played):
    scenario, left, *_ = played
    scenario.again.states[f"again-{left.id}"] = ("suppressed", "withdrawn:all/email")
    assert "who left still hears about orders" in judge(scenario, mails(scenario))
