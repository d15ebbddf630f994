"""flufl.bounce's collection of real bounces: what a person reads in each is what the reader must read."""
# ruff: noqa: SIM905  # lists of names

from __future__ import annotations

from email import message_from_bytes
from pathlib import Path

import pytest

from notifier_channels.contract import EventKind
from notifier_channels.email.inbound import Bounce, Fault, Nothing, notes, read_report

CORPUS = Path(__file__).parents[1] / "data" / "flufl_bounce"

DEAD = """
dsn_10 dsn_11 dsn_12 dsn_13 dsn_14 dsn_16 exim_01 groupwise_01 groupwise_02 llnl_01 microsoft_01 microsoft_02
microsoft_04 postfix_01 qmail_03 qmail_04 qmail_05 simple_05 simple_06 simple_08 simple_11 simple_12 simple_13 simple_15
simple_19 simple_23 simple_25 simple_26 simple_27 simple_29 simple_30 simple_33 simple_34 simple_36 simple_37 simple_39
simple_43 smtp32_04 smtp32_06 smtp32_07 yahoo_03 yahoo_05 yahoo_06 yahoo_07 yahoo_08 yahoo_09 yahoo_10 yahoo_11 yahoo_13
yale_01
""".split()

NO_FAULT_OF_THE_ADDRESS = """
aol_01 bounce_01 bounce_03 dsn_01 dsn_02 dsn_03 dsn_04 dsn_09 dumbass_01 hotpop_01 microsoft_03 netscape_01 newmailru_01
postfix_02 postfix_03 postfix_04 postfix_05 qmail_02 qmail_06 qmail_07 sendmail_01 simple_01 simple_02 simple_07
simple_09 simple_14 simple_18 simple_38 simple_42 simple_44 simple_45 smtp32_01 smtp32_02 yahoo_01 yahoo_02 yahoo_04
""".split()

STILL_TRYING = """
dsn_05 dsn_06 dsn_07 dsn_08 dsn_17 simple_03 simple_21 simple_22 simple_28 simple_35 simple_40
""".split()

NO_REASON_GIVEN = """
bounce_02 caiwireless_01 dsn_15 dsn_18 qmail_01 simple_04 simple_10 simple_16 simple_17 simple_20 simple_24 simple_31
simple_32 simple_41 sina_01 smtp32_03 smtp32_05 yahoo_12
""".split()

NO_BOUNCE = ["groupwise_03", "qmail_08"]


def read(name: str):
    return read_report((CORPUS / f"{name}.eml").read_bytes())


def test_every_mail_of_the_corpus_is_judged() -> None:
    judged = [*DEAD, *NO_FAULT_OF_THE_ADDRESS, *STILL_TRYING, *NO_REASON_GIVEN, *NO_BOUNCE]
    assert len(judged) == len(set(judged)) == 117
    assert sorted(judged) == sorted(path.stem for path in CORPUS.glob("*.eml"))


@pytest.mark.parametrize("with_flufl", [True, False])
def test_at_least_95_in_100_of_the_dead_are_recognised(monkeypatch: pytest.MonkeyPatch, with_flufl) -> None:
    if not with_flufl:
        monkeypatch.setattr(notes, "_flufl_knows", lambda _mail: False)
    missed = [name for name in DEAD if getattr(read(name), "fault", None) is not Fault.DEAD]
    assert len(missed) <= len(DEAD) * 0.05, missed


@pytest.mark.parametrize("name", [*NO_FAULT_OF_THE_ADDRESS, *NO_REASON_GIVEN])
def test_no_blameless_address_is_called_dead(name: str) -> None:
    report = read(name)
    assert isinstance(report, Bounce)
    assert report.kind is EventKind.BOUNCED
    assert report.fault is not Fault.DEAD


@pytest.mark.parametrize("name", STILL_TRYING)
def test_a_server_that_still_tries_has_not_given_up(name: str) -> None:
    assert read(name) == Bounce(EventKind.DEFERRED, None, read(name).code)


@pytest.mark.parametrize("name", NO_BOUNCE)
def test_what_a_person_or_a_ticket_system_writes_is_no_bounce(name: str) -> None:
    assert isinstance(read(name), Nothing)


def test_every_failure_that_flufl_bounce_knows_is_taken_for_a_bounce() -> None:
    from flufl import bounce as flufl

    unlike = [
        path.stem
        for path in sorted(CORPUS.glob("*.eml"))
        if flufl.all_failures(message_from_bytes(path.read_bytes()))[1] and not isinstance(read(path.stem), Bounce)
    ]
    assert unlike == []
