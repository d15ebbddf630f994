"""The demo ends with 0 when its promises held, and would end with 1 if one were broken."""

import asyncio
import io
import os
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from rich.console import Console

from notifier.demo import __main__, scenario
from notifier.demo.acts.codes import Codes
from notifier.demo.acts.mail import Newsletters
from notifier.demo.acts.pushes import Apps
from notifier.demo.acts.texts import QUESTION, Offers
from notifier.demo.cast import DEAD, MOODS, OFF, cast, fiction
from notifier.demo.goods import letter, order
from notifier.demo.phones import Push, Text
from notifier.demo.play import Play
from notifier.demo.product import Wave
from notifier.demo.reader import Mail
from notifier.demo.stage import Stage
from notifier_channels.addresses import Device, DeviceKind, PhoneNumber
from tests.places import place_for_servers

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
WIDTH = 80
SHOWN = (
    "200 recipients imported; 48 have a phone, and 40 devices the app.",
    "email 200 handed over, 194 delivered, 0 held back, 6 failed or came back",
    "push  40 handed over, 36 delivered, 0 held back, 4 failed or came back",
    "sms   48 handed over, 46 delivered, 0 held back, 2 failed or came back",
    "6 by text, 2 by mail, 0 by both, 0 not at all",
    "“Stop please”",
    "Notifier: You will get no more text messages from us.",
    "6 of 6 answered",
    "3 of 3 wait",
    "7 of 7 tried once",
)  #: what must stand in the output: a line for each thing that the demo is there to show


@pytest.fixture
def state():
    with place_for_servers() as place:
        yield place / "state"


@pytest.mark.timeout(300)
@pytest.mark.xdist_group("one at a time")
def test_the_scenario_holds_and_ends_with_0(state):
    ports = ["--port", "0", "--sandbox-port", "0", "--smtp-port", "0", "--inbound-port", "0"]
    paths = [str(Path(path).resolve()) for path in sys.path if path and Path(path).is_dir()]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "notifier.cli", "demo", "--once", *ports],
        env={
            "PYTHONPATH": os.pathsep.join(paths),
            "NOTIFIER_STATE_DIR": str(state),
            "PATH": os.defpath,
            "COLUMNS": str(WIDTH),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Every promise held." in done.stdout
    assert "\x1b" not in done.stdout
    assert "✗" not in done.stdout
    assert [line for line in SHOWN if line not in done.stdout] == []
    assert max(map(len, done.stdout.splitlines())) <= WIDTH
    assert not done.stderr


# Who plays ------------------------------------------------------------------------------------------------------------


def test_each_run_meets_new_people():
    first, second = cast("r1", NOW), cast("r2", NOW)
    assert len({person.email for person in first} | {person.email for person in second}) == 400
    assert len({person.id for person in first}) == 200
    assert {order(first[0], 1)["name"], letter(first[0], "x")["name"]} == {first[0].name.split()[0]}


def test_numbers_and_devices_are_such_as_notifier_takes_and_nobody_shares_one():
    people = cast("r123abc", NOW)
    phones = [person.phone for person in people if person.phone]
    assert all(PhoneNumber.parse(phone).e164 == phone for phone in phones)
    assert len({*phones}) == len(phones) == 48
    devices = [device for person in people for device in person.devices]
    assert all(Device.parse(DeviceKind.FID, device) for device in devices)
    assert len({*devices}) == len(devices) == 40
    assert not {*devices} & {device for person in cast("r123abd", NOW) for device in person.devices}


def test_a_number_that_said_stop_in_an_earlier_run_is_nobodys_now():
    numbers = fiction()
    stopped = numbers[::2]
    assert not {*stopped} & {person.phone for person in cast("r1", NOW, stopped)}
    assert all(PhoneNumber.parse(number) for number in numbers)


@given(st.datetimes(datetime(2026, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001  bounds have none
def test_at_any_time_some_are_up_and_some_are_asleep(now):
    for person in cast("r1", now):
        hour = now.astimezone(ZoneInfo(person.timezone)).hour
        if person.phone:
            assert hour in ((23, 0, 1, 2, 3, 4) if person.is_asleep else range(10, 19))
    assert sum(person.is_asleep and person.takes_offers for person in cast("r1", now)) == 3


def test_what_waits_for_the_morning_is_not_lost(everything):
    play, *arrived = everything
    play.waves.append(wave("sms", play.people, "queued", "quiet_hours:night/Asia/Tokyo"))
    scenario.judge(play, *arrived)
    assert broken(play) == set()


def test_what_came_back_from_a_phone_that_is_off_was_sent_and_is_not_lost(everything):
    play, mails, texts, pushes = everything
    play.waves.append(wave("sms", play.people[:1], "queued", "came_back:30003"))
    scenario.judge(play, mails, [*texts, text(play.people[0], "Off", has_arrived=False)], pushes)
    assert broken(play) == set()


# What is judged -------------------------------------------------------------------------------------------------------


def wave(channel, people, state, reason=None, category="transactional"):
    ids = {f"{channel}-{next(numbers)}": person for person in people}
    return Wave("a wave", category, ids, dict.fromkeys(ids, channel), dict.fromkeys(ids, (state, reason)), NOW)


numbers = iter(range(10**6))


def make(people):
    stage = Stage(Console(file=io.StringIO()))
    return Play(stage, shop=None, marketing=None, inbox=None, phones=None, explain=None, people=people)


def broken(play) -> set[str]:
    return {check.promise for check in play.promised if not check.holds}


def mails_to(*waves, at=NOW):
    sent = [id_ for one in waves for id_ in one.on("email") if one.states[id_][0] == "delivered"]
    return [Mail(number, id_, "", "", None, at) for number, id_ in enumerate(sent)]


def text(person, body, *, is_typed=False, has_arrived=True):
    return Text(f"SM{next(numbers)}", NOW, person.phone, body, is_typed, has_arrived)


# Mail


@pytest.fixture
def news():
    """All went well: one reader left, one mail was only scanned, one left while it was queued."""
    people = [person for person in cast("r1", NOW) if person.simulator is None and person.is_subscriber][:4]
    left, scanned, late, _ = people
    made = Newsletters(
        make(people),
        first=wave("email", people, "delivered"),
        second=wave("email", people, "delivered"),
        again=wave("email", [left, late], "delivered"),
        clicked=[left.id],
        late=[late.id],
        scanned=[scanned.id],
        answers=Counter({200: 2}),
    )
    made.second.states[made.second.message_to(left.id)] = ("suppressed", "withdrawn:topic:newsletter/email")
    made.second.states[made.second.message_to(late.id)] = ("cancelled", "withdrawn:topic:newsletter/email")
    return made


def judge_mail(news, mails=None):
    news.judge(mails_to(news.first, news.second, news.again) if mails is None else mails)
    return broken(news.play)


def test_clicks_that_were_honoured_are_found_well(news):
    assert judge_mail(news) == set()
    assert len(news.play.promised) == 7


def test_a_mail_to_somebody_who_said_no_is_seen_in_the_inbox(news):
    stray = Mail(999, news.second.message_to(news.clicked[0]), "", "", None)
    mails = [*mails_to(news.first, news.second, news.again), stray]
    assert judge_mail(news, mails) == {"nobody who said no got the second newsletter"}


def test_a_click_by_get_that_acted_is_seen(news):
    id_ = news.second.message_to(news.scanned[0])
    mails = [mail for mail in mails_to(news.first, news.second, news.again) if mail.message != id_]
    assert judge_mail(news, mails) == {"opening a link changes nothing"}


def test_a_redirect_is_seen(news):
    news.answers[302] += 1
    assert judge_mail(news) == {"a one-click POST is answered 200, without a redirect"}


def test_a_click_that_stopped_nothing_is_seen(news):
    mails = mails_to(news.first, news.second, news.again)
    news.second.states[news.second.message_to(news.late[0])] = ("delivered", None)
    assert judge_mail(news, mails) == {"a click stops what is already queued"}


def test_an_order_that_was_held_back_is_seen(news):
    news.again.states[news.again.message_to(news.late[0])] = ("suppressed", "withdrawn:all/email")
    assert judge_mail(news) == {"who left still hears about orders"}


# Codes


@pytest.fixture
def codes():
    """One phone works, one number is dead, one phone is off."""
    everybody = cast("r1", NOW)
    people = [next(p for p in everybody if p.phone not in (None, *MOODS))]
    people += [next(p for p in everybody if p.phone == number) for number in (DEAD, OFF)]
    made = Codes(make(people), wave("email", people, "delivered"), {p.id: f"00000{n}" for n, p in enumerate(people)})
    made.wave.states[made.wave.message_to(people[0].id)] = ("suppressed", "reached_otherwise:sms")
    return made, people


def judge_codes(codes, people, texts, mails):
    codes.judge(people, texts, mails)
    return broken(codes.play)


def test_codes_that_came_once_are_found_well(codes):
    made, people = codes
    texts = [text(people[0], "000000 is your code"), text(people[2], "000002 is", has_arrived=False)]
    assert judge_codes(made, people, texts, mails_to(made.wave, at=NOW + timedelta(seconds=2))) == set()


def test_a_code_by_both_ways_is_seen(codes):
    made, people = codes
    texts = [text(people[0], "000000 is your code"), text(people[2], "000002 is your code")]
    assert judge_codes(made, people, texts, mails_to(made.wave)) == {"a code comes once"}


def test_somebody_without_a_code_is_seen(codes):
    made, people = codes
    assert judge_codes(made, people, [text(people[0], "000009")], mails_to(made.wave)) == {"a code comes once"}


def test_a_mail_that_waited_for_its_turn_is_seen(codes):
    made, people = codes
    mails = mails_to(made.wave, at=NOW + timedelta(minutes=2))
    assert judge_codes(made, people, [text(people[0], "000000")], mails) == {"a dead phone wakes the mail at once"}


# Texts


@pytest.fixture
def offers():
    """One typed STOP, one asked for the bus stop, one never said yes; what their phones have, newest first."""
    everybody = [person for person in cast("r1", NOW) if person.phone not in (None, *MOODS)]
    stopper, asker = [person for person in everybody if person.takes_offers][:2]
    stranger = next(person for person in everybody if not person.takes_offers)
    sleeper = next(person for person in everybody if person.is_asleep)
    people = [stopper, asker, stranger, sleeper]
    by_mail, by_text = wave("email", people, "delivered"), wave("sms", people, "delivered")
    both = Wave("offers", "marketing", by_mail.people | by_text.people, by_mail.channels | by_text.channels)
    both.states = by_mail.states | by_text.states
    both.states[both.message_to(stopper.id, "sms")] = ("cancelled", "withdrawn:all/sms")
    both.states[both.message_to(sleeper.id, "sms")] = ("queued", "quiet_hours:night/Asia/Tokyo")
    made = Offers(make(people), both, wave("email", [stopper], "delivered"))
    made.typed = {stopper.phone: "STOP", asker.phone: QUESTION}
    made.answers = {stopper.phone: ["You will get no more"], asker.phone: []}
    texts = [
        text(asker, "Notifier: Lamps you can talk to"),
        text(stopper, "You will get no more"),
        text(stopper, "STOP", is_typed=True),
        text(stopper, "Your order"),
        text(asker, QUESTION, is_typed=True),
    ]
    return made, texts, stopper, asker, stranger


def judge_texts(offers, texts):
    offers.judge(texts, mails_to(offers.offers, offers.after))
    return broken(offers.play)


def test_a_stop_that_was_honoured_is_found_well(offers):
    made, texts, *_ = offers
    assert judge_texts(made, texts) == set()
    assert len(made.play.promised) == 7


def test_a_text_after_stop_is_seen_on_the_phone(offers):
    made, texts, stopper, *_ = offers
    late = text(stopper, "Another order")
    assert judge_texts(made, [late, *texts]) == {"nobody who typed STOP got another text than the answer"}


@pytest.mark.parametrize("answers", [[], ["Once", "and again"]])
def test_a_stop_without_exactly_one_answer_is_seen(offers, answers):
    made, texts, stopper, *_ = offers
    made.answers[stopper.phone] = answers
    assert judge_texts(made, texts) == {"each STOP is answered, once"}


def test_a_stop_that_stopped_nothing_is_seen(offers):
    made, texts, stopper, *_ = offers
    made.offers.states[made.offers.message_to(stopper.id, "sms")] = ("delivered", None)
    assert judge_texts(made, texts) == {"a STOP stops what is already queued"}


def test_a_stop_that_stopped_mail_is_seen(offers):
    made, texts, stopper, *_ = offers
    made.after.states[made.after.message_to(stopper.id)] = ("suppressed", "withdrawn:all/email")
    assert judge_texts(made, texts) == {"their mail still comes: the offer and the order"}


def test_a_question_that_was_taken_for_stop_is_seen(offers):
    made, texts, *_ = offers
    assert judge_texts(made, texts[1:]) == {"a bus stop is no STOP"}


def test_an_offer_in_the_middle_of_the_night_is_seen(offers):
    made, texts, *_ = offers
    [sleeper] = made.play.asleep
    made.offers.states[made.offers.message_to(sleeper.id, "sms")] = ("delivered", None)
    assert judge_texts(made, texts) == {"a phone is not woken at night"}


def test_an_offer_without_a_yes_is_seen(offers):
    made, texts, *_, stranger = offers
    stray = text(stranger, "Notifier: Lamps you can talk to")
    assert judge_texts(made, [stray, *texts]) == {"nobody without a yes got an offer by text"}


# Pushes


@pytest.fixture
def apps():
    """Two people with two devices each; from one of these the app was deleted."""
    owners = [person for person in cast("r1", NOW) if len(person.devices) > 1][:2]
    made = Apps(make(owners), wave("push", owners * 2, "accepted"), wave("push", owners * 2, "accepted"))
    made.gone = [owners[0].devices[0]]
    screens = [owners[0].devices[1], *owners[1].devices]
    pushes = [
        Push(number, id_, device, "Hello", "", None)
        for one in (made.once, made.more)
        for number, (id_, device) in enumerate(zip(one.people, screens, strict=False))
    ]
    return made, owners, pushes


def judge_pushes(apps, owners, pushes, *, refused=1):
    apps.judge(owners, pushes, dict.fromkeys(apps.gone, refused))
    return broken(apps.play)


def test_a_device_that_was_removed_is_found_well(apps):
    assert judge_pushes(*apps) == set()


@pytest.mark.parametrize("times", [0, 2])
def test_a_dead_device_that_is_not_tried_exactly_once_is_seen(apps, times):
    assert judge_pushes(*apps, refused=times) == {"a device without the app is tried once, then removed"}


def test_another_device_that_gets_nothing_is_seen(apps):
    made, owners, pushes = apps
    assert judge_pushes(made, owners, pushes[1:]) == {"its owner's other device gets that push"}


def test_a_later_push_to_a_dead_device_is_seen(apps):
    made, owners, pushes = apps
    stray = Push(99, list(made.more.people)[-1], made.gone[0], "Hello", "", None)
    assert judge_pushes(made, owners, [*pushes, stray]) == {"later pushes go to devices with the app, to no other"}


# All of it


@pytest.fixture
def everything():
    """A mail, a text and a push, and all of them there."""
    person = next(person for person in cast("r1", NOW) if person.devices and person.phone)
    play = make([person])
    play.waves = [wave("email", [person], "delivered"), wave("sms", [person], "delivered")]
    play.waves += [wave("push", [person], "accepted")]
    [push] = play.waves[2].people
    return play, mails_to(*play.waves), [text(person, "Hello")], [Push(1, push, person.devices[0], "Hello", "", None)]


def test_what_is_called_sent_and_has_arrived_is_found_well(everything):
    play, *arrived = everything
    scenario.judge(play, *arrived)
    assert play.holds
    assert len(play.promised) == 6


@pytest.mark.parametrize(("place", "name"), [(0, "mail"), (1, "text"), (2, "push")])
def test_what_nobody_has_seen_is_missed(everything, place, name):
    play, *arrived = everything
    arrived[place] = []
    scenario.judge(play, *arrived)
    assert broken(play) == {f"each {name} that is called sent is there"}


@pytest.mark.parametrize("place", [0, 1, 2])
def test_what_comes_twice_is_seen(everything, place):
    play, *arrived = everything
    arrived[place] = arrived[place] * 2
    scenario.judge(play, *arrived)
    assert "nothing comes twice" in broken(play)


def test_a_message_without_an_outcome_is_seen(everything):
    play, *arrived = everything
    play.waves.append(wave("sms", play.people, "queued"))
    scenario.judge(play, *arrived)
    assert broken(play) == {"nothing is lost"}


def test_silence_about_a_message_that_was_not_sent_is_seen(everything):
    play, *arrived = everything
    play.waves.append(wave("sms", play.people, "suppressed"))
    scenario.judge(play, *arrived)
    assert broken(play) == {"whatever was not sent has a reason"}


class NoDatabase:
    def __init__(self, *_, **__):
        pass

    async def open(self):
        pass

    async def close(self):
        pass


@pytest.mark.parametrize(("holds", "status", "verdict"), [(True, 0, "Every promise held."), (False, 1, "was broken")])
def test_a_broken_promise_ends_with_1(holds, status, verdict, monkeypatch, capsys):
    async def played(*_, **__):
        return holds, {}

    secret = SecretStr("x" * 32)
    read = SimpleNamespace(database_url=secret, hash_keys={"h1": secret}, public_url="http://127.0.0.1")
    monkeypatch.setattr(__main__.settings, "load", lambda: read)
    monkeypatch.setattr(__main__, "Database", NoDatabase)
    monkeypatch.setattr(__main__, "play", played)
    monkeypatch.setenv("NOTIFIER_SANDBOX_URL", "http://127.0.0.1")
    assert asyncio.run(__main__.main(once=True)) == status
    assert verdict in capsys.readouterr().out
