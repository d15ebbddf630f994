"""The SMTP provider against a server that misbehaves at every step, and against one that is not ours."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email import message_from_bytes, policy
from uuid import UUID

import pytest
from aiosmtpd.controller import UnthreadedController
from aiosmtpd.handlers import AsyncMessage
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from notifier_channels.addresses import EmailAddress
from notifier_channels.contract import (
    Ambiguous,
    BadAddress,
    EmailContent,
    Mailbox,
    Misconfigured,
    Outcome,
    Outgoing,
    RateLimited,
    Receipt,
    Rejected,
    Unavailable,
)
from notifier_channels.email.mail import finish
from notifier_channels.email.relay import Timeouts
from notifier_channels.email.smtp import SmtpProvider
from tests.servers.outgoing import CONTENT, Notebook, Turnstile, batch_of, message, sent
from tests.servers.smtp_sink import END_OF_DATA, FEATURES, Fault, Sink

pytestmark = pytest.mark.anyio

SHORT = Timeouts(connect=2, tls=2, greeting=0.2, command=0.2, final_dot=0.2, close=2)
PATIENT = Timeouts(connect=5, tls=5, greeting=5, command=5, final_dot=5)


def provider_for(
    port: int, query: str = "", *, connections: int = 1, timeouts: Timeouts = PATIENT, **more
) -> SmtpProvider:
    return SmtpProvider.from_url(
        f"smtp://127.0.0.1:{port}?{query}",
        message_id_domain="lists.example.com",
        connections=connections,
        timeouts=timeouts,
        **more,
    )


@asynccontextmanager
async def relay(
    *faults: Fault,
    query: str = "",
    connections: int = 1,
    timeouts: Timeouts = PATIENT,
    pace: Turnstile | None = None,
    **options,
) -> AsyncIterator[tuple[SmtpProvider, Sink]]:
    async with Sink(faults=faults, **options) as sink:
        provider = provider_for(sink.port, query, connections=connections, timeouts=timeouts, pace=pace)
        try:
            yield provider, sink
        finally:
            await provider.close()
        await sink.until_quiet()
    assert not sink.violations


def kinds(outcomes: dict[UUID, Outcome]) -> list[type[Outcome]]:
    return [type(outcome) for outcome in outcomes.values()]


def in_order(batch: list[Outgoing[EmailContent]], outcomes: dict[UUID, Outcome]) -> list[type[Outcome]]:
    return [type(outcomes[outgoing.id]) for outgoing in batch]


# Faults at every verb -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("features", [FEATURES, tuple(set(FEATURES) - {"PIPELINING"})], ids=["pipelined", "plain"])
@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault("mail", "451 4.3.0 later", match="SIZE"), Unavailable),
        (Fault("mail", "550 5.1.8 bad sender", match="SIZE"), Misconfigured),
        (Fault("mail", "552 5.3.4 too big", match="SIZE"), Rejected),
        (Fault("rcpt", "450 4.2.0 later"), Unavailable),
        (Fault("rcpt", "451 4.7.1 too many messages"), RateLimited),
        (Fault("rcpt", "550 5.1.1 nobody"), BadAddress),
        (Fault("rcpt", "554 5.7.1 Relay access denied"), Misconfigured),
        (Fault("data", "451 4.3.0 later"), Unavailable),
        (Fault("data", "554 5.6.0 no"), Rejected),
        (Fault("data", "250 what"), Unavailable),
        (Fault("dot", "451 4.3.0 later"), Unavailable),
        (Fault("dot", "554 5.6.0 no"), Rejected),
        (Fault("dot", "550 5.1.1 nobody"), BadAddress),
        (Fault("dot", "354 what"), Ambiguous),
        (Fault("dot", "nonsense"), Ambiguous),
        (Fault("dot", "421 4.3.2 closing", then="close"), Unavailable),
        (Fault("dot", then="close"), Ambiguous),
        (Fault("dot", then="close", taken=True), Ambiguous),
        (Fault("body", then="close"), Ambiguous),
    ],
    ids=lambda value: f"{value.at} {value.reply or value.then}" if isinstance(value, Fault) else value.__name__,
)
async def test_one_fault_befalls_one_message(fault, expected, features):
    once = Fault(fault.at, fault.reply, fault.then, fault.taken, after=2, times=1, match=fault.match)
    async with relay(once, features=features) as (provider, sink):
        batch, witness = batch_of(*["ann"] * 6), Notebook()
        outcomes = await sent(provider, batch, witness)
    assert in_order(batch, outcomes) == [Receipt, Receipt, expected, Receipt, Receipt, Receipt]
    taken = {outgoing.id for outgoing in batch if isinstance(outcomes[outgoing.id], Receipt)}
    assert {UUID(hex=mail.id) for mail in sink.accepted} - {batch[2].id} == taken
    assert len(sink.accepted) == len(taken) + fault.taken
    assert witness.in_doubt == ({batch[2].id} if expected is Ambiguous and fault.reply != "354 what" else set())


@pytest.mark.parametrize("at", ["mail", "rcpt", "data"])
async def test_a_line_lost_before_anything_was_answered_costs_no_attempt(at):
    async with relay(Fault(at, then="close", after=2, times=1)) as (provider, sink):
        batch = batch_of(*["ann"] * 6)
        outcomes = await sent(provider, batch, Notebook())
    expected = Receipt if at == "mail" else Unavailable
    assert in_order(batch, outcomes) == [Receipt, Receipt, expected, Receipt, Receipt, Receipt]
    assert len(sink.accepted) == kinds(outcomes).count(Receipt)


@pytest.mark.parametrize("behind", ["nonsense", "250-a\n251 b", "2" * 5000])
async def test_a_mail_that_was_taken_is_taken_whatever_the_relay_says_behind_it(behind):
    async with relay(Fault("dot", f"250 ok\n{behind}", taken=True, after=1, times=1)) as (provider, sink):
        batch, witness = batch_of(*["ann"] * 3), Notebook()
        outcomes = await sent(provider, batch, witness)
    assert in_order(batch, outcomes) == [Receipt, Receipt, Receipt]
    assert not witness.in_doubt
    assert len(sink.accepted) == 3


async def test_a_mail_that_ends_every_line_fails_alone():
    async with relay(Fault("mail", then="close", match="<poison@")) as (provider, sink):
        batch = batch_of(*["ann"] * 6)
        batch[2] = message("ann", return_path="poison@example.com")
        outcomes = await sent(provider, batch, Notebook())
    assert in_order(batch, outcomes) == [Receipt, Receipt, Unavailable, Receipt, Receipt, Receipt]
    assert sink.connections == 3


@pytest.mark.parametrize(
    ("fault", "kind", "code"),
    [
        (Fault("banner", "554 5.7.1 go away"), Misconfigured, "554 5.7.1"),
        (Fault("banner", "421 4.7.0 too many connections", then="close"), RateLimited, "421 4.7.0"),
        (Fault("banner", "421 4.3.2 not now", then="close"), Unavailable, "421 4.3.2"),
        (Fault("banner", then="close"), Unavailable, "closed"),
        (Fault("banner", "HTTP/1.1 400 Bad Request"), Unavailable, "protocol"),
        (Fault("banner", "220 hello\n250 and more"), Unavailable, "protocol"),
        (Fault("ehlo", "502 what"), Misconfigured, "502"),
        (Fault("ehlo", "451 4.3.0 later"), Unavailable, "451 4.3.0"),
        (Fault("ehlo", then="close"), Unavailable, "closed"),
        (Fault("mail", then="close"), Unavailable, "closed"),
        (Fault("mail", "421 4.3.2 not now", then="close"), Unavailable, "421 4.3.2"),
    ],
    ids=lambda value: f"{value.at} {value.reply or value.then}" if isinstance(value, Fault) else "",
)
async def test_a_relay_that_takes_nothing_is_not_asked_for_every_message(fault, kind, code):
    async with relay(fault, connections=2) as (provider, sink):
        outcomes = await sent(provider, batch_of(*["ann"] * 300), witness := Notebook())
    assert set(kinds(outcomes)) == {kind}
    assert {outcome.code for outcome in outcomes.values()} <= {code, "closed", "421"}
    assert sink.connections <= 8
    assert not witness.lines


async def test_a_relay_that_is_down_is_told_at_once():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    outcomes = await sent(provider_for(port, connections=4), batch_of(*["ann"] * 500), Notebook())
    (outcome,) = set(outcomes.values())
    assert isinstance(outcome, Unavailable)
    assert (outcome.code, outcome.detail) == ("connect", "the connection failed: ConnectionRefusedError")


async def test_an_unknown_host_is_unavailable():
    provider = SmtpProvider.from_url("smtp://nowhere.invalid:25?tls=none", message_id_domain="lists.example.com")
    (outcome,) = (await sent(provider, batch_of("ann"), Notebook())).values()
    assert isinstance(outcome, Unavailable)
    assert outcome.code == "connect"


@pytest.mark.parametrize(
    ("at", "kind", "code"),
    [
        ("banner", Unavailable, "timeout:greeting"),
        ("ehlo", Unavailable, "timeout:ehlo"),
        ("mail", Unavailable, "timeout:mail"),
        ("rcpt", Unavailable, "timeout:rcpt"),
        ("data", Unavailable, "timeout:data"),
        ("dot", Ambiguous, "timeout:dot"),
        ("body", Ambiguous, "timeout:dot"),
    ],
)
async def test_each_phase_has_its_time(at, kind, code):
    async with relay(Fault(at, then="stall"), timeouts=SHORT) as (provider, sink):
        (outcome,) = (await sent(provider, batch_of("ann"), Notebook())).values()
    assert (type(outcome), outcome.code) == (kind, code)
    assert not sink.accepted


@pytest.mark.parametrize(("at", "is_away"), [("banner", True), ("ehlo", True), ("mail", False), ("data", False)])
async def test_a_relay_that_is_silent_before_the_first_mail_is_away(at, is_away):
    async with relay(Fault(at, then="stall"), timeouts=SHORT) as (provider, _):
        (outcome,) = (await sent(provider, batch_of("ann"), Notebook())).values()
    assert isinstance(outcome, Unavailable)
    assert outcome.is_away is is_away


async def test_a_relay_that_loses_every_dot_gets_few_of_them():
    async with relay(Fault("dot", then="close", taken=True), connections=2) as (provider, sink):
        outcomes = await sent(provider, batch_of(*["ann"] * 100), witness := Notebook())
    assert kinds(outcomes).count(Ambiguous) == len(sink.accepted) <= 4
    assert kinds(outcomes).count(Unavailable) == 100 - len(sink.accepted)
    assert len(witness.in_doubt) == len(sink.accepted)


# Pace -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("connections", [1, 3])
async def test_a_mail_waits_for_its_turn_before_anything_of_it_leaves(connections):
    pace = Turnstile(free=4)
    async with relay(pace=pace, connections=connections) as (provider, sink):
        sending = asyncio.create_task(sent(provider, batch_of(*["ann"] * 10), witness := Notebook()))
        await pace.until_all_wait(connections)
        while len(sink.accepted) < 4:
            await sink.change()
        assert len(witness.allowed) == 4
        await pace.let(6)
        assert set(kinds(await sending)) == {Receipt}


@pytest.mark.parametrize(("together", "connections"), [(1, 1), (1, 3), (4, 1), (4, 3), (1000, 3)])
async def test_each_mail_takes_one_place_however_often_it_changes_lines(together, connections):
    pace = Turnstile(free=float("inf"), together=together)
    faults = Fault("mail", "421 4.7.0 enough messages on this connection", then="close", every=8)
    async with relay(faults, pace=pace, connections=connections) as (provider, sink):
        outcomes = await sent(provider, batch_of(*["ann"] * 50), Notebook())
    assert sink.connections > connections
    assert kinds(outcomes).count(Receipt) == len(sink.accepted) >= 50 - 6  # a line's very first 421 is for its mail
    assert sum(pace.asked) == 50
    assert max(pace.asked) <= together


async def test_closed_while_it_waits_for_its_turn_nothing_more_leaves():
    pace = Turnstile(free=2)
    async with relay(pace=pace, connections=2) as (provider, sink):
        sending = asyncio.create_task(sent(provider, batch_of(*["ann"] * 10), Notebook()))
        await pace.until_all_wait(2)
        while len(sink.accepted) < 2:
            await sink.change()
        await provider.close()
        outcomes = await sending
    assert sorted(kind.__name__ for kind in kinds(outcomes)) == ["Receipt"] * 2 + ["Unavailable"] * 8
    assert len(sink.accepted) == 2


# Connections ----------------------------------------------------------------------------------------------------------


async def test_lines_are_kept_between_batches():
    async with relay() as (provider, sink):
        for _ in range(5):
            await sent(provider, batch_of("ann", "bob"), Notebook())
        assert sink.connections == 1


async def test_a_line_that_the_server_closed_meanwhile_costs_no_attempt():
    async with relay(connections=2) as (provider, sink):
        await sent(provider, batch_of(*["ann"] * 10), Notebook())
        sink.cut_all()
        outcomes = await sent(provider, batch_of(*["ann"] * 10), Notebook())
    assert set(kinds(outcomes)) == {Receipt}


async def test_a_server_that_says_goodbye_to_an_idle_line_costs_no_attempt():
    async with relay() as (provider, sink):
        await sent(provider, batch_of("ann"), Notebook())
        sink.say_to_all("421 4.4.2 idle for too long")
        outcomes = await sent(provider, batch_of("ann"), Notebook())
    assert set(kinds(outcomes)) == {Receipt}
    assert sink.connections == 2


async def test_a_dead_line_that_nobody_closed_costs_no_attempt():
    async with relay(Fault("mail", then="stall", after=1, times=1), timeouts=SHORT) as (provider, sink):
        await sent(provider, batch_of("ann"), Notebook())
        outcomes = await sent(provider, batch_of("ann"), Notebook())
    assert set(kinds(outcomes)) == {Receipt}
    assert len(sink.accepted) == 2


async def test_however_many_lines_died_in_the_pool_no_attempt_is_lost():
    dying = Fault("mail", then="close", after=40, times=2)
    async with relay(dying, connections=2, delay=0.001) as (provider, sink):
        await sent(provider, batch_of(*["ann"] * 40), Notebook())
        assert sink.connections == 2
        outcomes = await sent(provider, batch_of("ann"), Notebook())
    assert kinds(outcomes) == [Receipt]
    assert sink.connections == 3


async def test_a_server_that_has_had_enough_of_a_connection_gets_another_one():
    faults = Fault("mail", "421 4.7.0 enough messages on this connection", then="close", every=8)
    async with relay(faults) as (provider, sink):
        outcomes = await sent(provider, batch_of(*["ann"] * 40), Notebook())
    assert set(kinds(outcomes)) == {Receipt}
    assert len(sink.accepted) == 40


async def test_a_line_carries_no_more_than_its_limit():
    async with relay(query="limit=7") as (provider, sink):
        await sent(provider, batch_of(*["ann"] * 25), Notebook())
        per_connection = [mail.connection for mail in sink.accepted]
    assert {number: per_connection.count(number) for number in per_connection} == {0: 7, 1: 7, 2: 7, 3: 4}
    assert all(session.clear.endswith(b"QUIT\r\n") for session in sink.sessions)


async def test_a_line_unused_for_long_is_not_used_again():
    async with relay(timeouts=Timeouts(idle=0)) as (provider, sink):
        await sent(provider, batch_of("ann"), Notebook())
        await sent(provider, batch_of("ann"), Notebook())
    assert sink.connections == 2


async def test_closing_says_goodbye():
    async with relay() as (provider, sink):
        await sent(provider, batch_of("ann"), Notebook())
        await provider.close()
        await sink.until_quiet()
        assert sink.sessions[0].clear.endswith(b"QUIT\r\n")


async def test_closing_during_a_batch_sends_nothing_more():
    async with relay(delay=0.01) as (provider, sink):
        batch, witness = batch_of(*["ann"] * 50), Notebook()
        sending = asyncio.create_task(sent(provider, batch, witness))
        await witness.committed.wait()
        await provider.close()
        outcomes = await sending
        assert kinds(outcomes).count(Receipt) == len(sink.accepted) < 50
        assert kinds(outcomes).count(Unavailable) == 50 - len(sink.accepted)


async def test_cancelled_in_the_middle_of_a_mail_the_line_is_cut():
    """A server that waits for a mail would read a polite QUIT as a part of it."""
    async with relay(Fault("data", then="stall"), timeouts=Timeouts(close=0)) as (provider, sink):
        task = asyncio.create_task(sent(provider, batch_of("ann", "bob"), Notebook()))
        while not sink.sessions or b"DATA" not in sink.sessions[0].clear:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await sink.until_quiet()
    assert b"QUIT" not in sink.sessions[0].clear
    assert not sink.accepted


async def test_one_stuck_line_does_not_hold_up_the_other():
    async with relay(Fault("dot", then="stall", times=1), connections=2, timeouts=SHORT) as (provider, _):
        outcomes = await sent(provider, batch_of(*["ann"] * 50), Notebook())
    assert kinds(outcomes).count(Ambiguous) == 1
    assert kinds(outcomes).count(Receipt) == 49


async def test_two_batches_share_the_lines():
    async with relay(connections=2) as (provider, sink):
        await asyncio.gather(*(sent(provider, batch_of(*["ann"] * 10), Notebook()) for _ in range(6)))
        assert sink.connections <= 2
        assert len(sink.accepted) == 60


# What goes over the wire ----------------------------------------------------------------------------------------------

ENVELOPE = re.compile(
    rb"(RSET\r\n)?MAIL FROM:<[^\s<>]+>( SIZE=\d+)?( SMTPUTF8( BODY=8BITMIME)?)?\r\n"
    rb"(RCPT TO:<[^\s<>]+>\r\n)?(DATA\r\n)?"
)


def mails_in(stream: bytes) -> int:
    """Read a client's side of a conversation by RFC 5321's grammar; returns how many mails it held."""
    hello = re.match(rb"EHLO [\w.-]+\r\n", stream)
    assert hello
    stream, count = stream[hello.end() :], 0
    while stream and stream != b"QUIT\r\n":
        envelope = ENVELOPE.match(stream)
        assert envelope, stream[:80]
        stream = stream[envelope.end() :]
        if envelope.group().endswith(b"DATA\r\n") and stream[:4] == b"Date":
            data, end, stream = stream.partition(b"\r\n.\r\n")
            assert end
            assert not re.search(rb"(?<!\r)\n|\r(?!\n)|\r\n\.(?!\.)", data)
            assert max(map(len, data.split(b"\r\n"))) <= 998
            count += 1
    return count


hostile = st.text(
    st.sampled_from("\r\n.") | st.sampled_from("\0\x85\u2028\ud800 \t=ax<>@é") | st.characters(exclude_categories=()),
    max_size=60,
)


@pytest.mark.parametrize("ends", END_OF_DATA)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(hostile, hostile, st.none() | hostile), min_size=1, max_size=8))
@pytest.mark.parametrize("features", [FEATURES, ("SIZE",)], ids=["pipelined", "plain"])
def test_no_data_ends_a_mail_or_starts_another(ends, features, contents):
    """However leniently a server looks for the end of a mail, it sees just the mails that were sent."""

    async def run() -> None:
        batch = [message(content=EmailContent(CONTENT.sender, *texts)) for texts in contents]
        async with relay(end_of_data=ends, features=features) as (provider, sink):
            outcomes = await sent(provider, batch, Notebook())
        assert set(kinds(outcomes)) == {Receipt}
        assert [mail.id for mail in sink.accepted] == [outgoing.id.hex for outgoing in batch]
        assert mails_in(bytes(sink.sessions[0].clear)) == len(batch)
        for outgoing, mail in zip(batch, sink.accepted, strict=True):
            parts = [part for part in message_from_bytes(mail.data).walk() if not part.is_multipart()]
            got = b"".join(part.get_payload(decode=True) for part in parts)
            expected = outgoing.content.text + (outgoing.content.html or "")
            plain = expected.encode("utf-8", "replace").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            assert re.sub(rb"\s", b"", got) == re.sub(rb"\s", b"", plain)

    asyncio.run(run())


@given(st.lists(st.sampled_from([b"a", b".", b"..", b"\r\n", b"\r\n.", b"\r\n.\r\n"]), max_size=30).map(b"".join))
def test_a_stuffed_mail_ends_once_and_is_read_back(body):
    data = b"Date: x\r\n" + body + b"\r\n"
    wire = finish(data)
    assert wire.find(b"\r\n.\r\n") == len(wire) - 5
    assert wire[:-3].replace(b"\r\n..", b"\r\n.") == data


async def test_the_first_group_of_a_pipeline_is_exactly_this():
    async with relay() as (provider, sink):
        outgoing = message("ann", return_path="bounce+abc@in.example.com")
        await sent(provider, [outgoing], Notebook())
    head, _, rest = bytes(sink.sessions[0].clear).partition(b"DATA\r\n")
    size = len(rest.removesuffix(b"QUIT\r\n").removesuffix(b".\r\n").replace(b"\r\n..", b"\r\n."))
    assert head == (
        b"EHLO lists.example.com\r\n"
        b"MAIL FROM:<bounce+abc@in.example.com> SIZE=%d\r\n"
        b"RCPT TO:<ann@secret-domain.example>\r\n" % size
    )


async def test_data_for_nobody_is_ended_by_a_lone_dot():
    """Once DATA is pipelined, a server may ask for a mail although it refused every recipient (RFC 2920 3.1)."""
    nobody = Fault("rcpt", "550 5.1.1 nobody", match="<bob@")
    async with relay(nobody, data_without_recipients=True) as (provider, sink):
        batch = batch_of("ann", "bob", "ann", "bob", "ann")
        outcomes = await sent(provider, batch, Notebook())
    assert in_order(batch, outcomes) == [Receipt, BadAddress, Receipt, BadAddress, Receipt]
    assert sink.connections == 1
    assert bytes(sink.sessions[0].clear).count(b"DATA\r\n.\r\nRSET\r\nMAIL") == 2
    assert len(sink.accepted) == 3


async def test_a_refused_transaction_is_reset_before_the_next():
    async with relay(Fault("rcpt", "550 5.1.1 nobody", match="<bob@")) as (provider, sink):
        batch = batch_of("bob", "bob", "ann", "bob", "ann")
        outcomes = await sent(provider, batch, Notebook())
    assert in_order(batch, outcomes) == [BadAddress, BadAddress, Receipt, BadAddress, Receipt]
    assert sink.connections == 1


async def test_body_and_next_envelope_leave_in_one_write(monkeypatch):
    chunks: list[bytes] = []
    async with relay() as (provider, sink):
        received = Sink.strike
        monkeypatch.setattr(Sink, "strike", lambda self, at, command: chunks.append(at) or received(self, at, command))
        await sent(provider, batch_of(*["ann"] * 3), Notebook())
    # By the time that the end of the first mail is seen, the next envelope has come with it.
    first = bytes(sink.sessions[0].clear)
    assert re.search(rb"\r\n\.\r\nMAIL FROM:[^\r]*\r\nRCPT TO:[^\r]*\r\nDATA\r\nDate:", first)
    assert chunks.count("dot") == 3


@pytest.mark.parametrize("local", ["änn", "ann"])
@pytest.mark.parametrize("offered", [True, False])
async def test_a_local_part_outside_ascii_needs_smtputf8(local, offered):
    features = tuple(f for f in FEATURES if offered or f != "SMTPUTF8")
    async with relay(features=features) as (provider, sink):
        (outcome,) = (await sent(provider, [message(local)], witness := Notebook())).values()
    if local == "ann" or offered:
        assert isinstance(outcome, Receipt)
        assert sink.accepted[0].recipient == f"{local}@secret-domain.example"
        assert (b" SMTPUTF8 BODY=8BITMIME\r\n" in sink.sessions[0].clear) is (local == "änn")
    else:
        assert isinstance(outcome, Rejected)
        assert outcome.code == "550 5.6.7"
        assert b"MAIL" not in sink.sessions[0].clear
        assert not witness.lines


async def test_a_mail_that_is_too_large_is_refused_before_it_is_sent():
    async with relay(features=("PIPELINING", "SIZE 2000")) as (provider, sink):
        large = message(content=EmailContent(CONTENT.sender, "x", "x" * 3000))
        batch = [message(), large, message()]
        outcomes = await sent(provider, batch, Notebook())
    assert in_order(batch, outcomes) == [Receipt, Rejected, Receipt]
    assert outcomes[large.id].code == "552 5.3.4"
    assert bytes(sink.sessions[0].clear).count(b"MAIL FROM") == 2


@pytest.mark.parametrize("features", [("SIZE",), ("SIZE 0",), ("SIZE nonsense",), (), ("size 100000",)])
async def test_a_server_without_a_size_limit_gets_any_mail(features):
    async with relay(features=features) as (provider, sink):
        outcomes = await sent(provider, [message(content=EmailContent(CONTENT.sender, "x", "x" * 30000))], Notebook())
    assert set(kinds(outcomes)) == {Receipt}
    assert (b" SIZE=" in sink.sessions[0].clear) is bool(features)


async def test_a_mail_of_many_megabytes_arrives_whole():
    text = "0123456789 abcdefghij\n" * 200_000
    async with relay(connections=2) as (provider, sink):
        outcomes = await sent(provider, [message(content=EmailContent(CONTENT.sender, "x", text))] * 1, Notebook())
    assert set(kinds(outcomes)) == {Receipt}
    assert message_from_bytes(sink.accepted[0].data).get_payload(decode=True).decode() == text.replace("\n", "\r\n")


UNSAFE = ["a b", "a>", "a\r\nRCPT TO:<b", "a\0", "a\u2028", "a\x85", "", "x" * 65, '"a"', "a@b", "\ud800"]


@pytest.mark.parametrize("local", UNSAFE)
async def test_an_address_that_could_be_misread_is_never_written(local):
    batch = [message("ann"), message(local), message("bob")]
    async with relay() as (provider, sink):
        outcomes = await sent(provider, batch, Notebook())
    assert in_order(batch, outcomes) == [Receipt, Rejected, Receipt]
    assert mails_in(bytes(sink.sessions[0].clear).removesuffix(b"QUIT\r\n")) == 2


@pytest.mark.parametrize("local", UNSAFE)
@pytest.mark.parametrize("where", ["sender", "reply_to", "return_path"])
async def test_a_sender_that_could_be_misread_is_our_own_fault(local, where):
    odd = Mailbox("x", EmailAddress(local, "example.com"))
    content = EmailContent(
        odd if where == "sender" else CONTENT.sender, "x", "x", reply_to=odd if where == "reply_to" else None
    )
    path = f"{local}@example.com" if where == "return_path" else None
    async with relay() as (provider, _):
        outcomes = await sent(provider, [message(content=content, return_path=path)], Notebook())
    assert kinds(outcomes) == [Misconfigured]


# Our policy, or this mail's -------------------------------------------------------------------------------------------


async def test_one_mail_that_a_policy_refuses_does_not_pause_the_provider():
    async with relay(Fault("dot", "550 5.7.1 looks like spam", match="bad@")) as (provider, _):
        batch = batch_of(*["ann", "bad", "bad"] * 10)
        outcomes = await sent(provider, batch, Notebook())
    assert in_order(batch, outcomes) == [Receipt, Rejected, Rejected] * 10


async def test_a_policy_that_refuses_all_is_taken_for_our_fault_after_a_few():
    async with relay(Fault("dot", "550 5.7.1 no")) as (provider, _):
        batch = batch_of(*["ann"] * 100)
        outcomes = await sent(provider, batch, witness := Notebook())
        assert kinds(outcomes).count(Rejected) == 5
        assert kinds(outcomes).count(Misconfigured) == 95
        assert len(witness.lines) < 20
        again = await sent(provider, batch_of("ann"), Notebook())
        assert kinds(again) == [Misconfigured]


async def test_a_mail_that_is_taken_ends_the_suspicion():
    async with relay(Fault("dot", "550 5.7.1 no", times=6)) as (provider, _):
        first = await sent(provider, batch_of(*["ann"] * 6), Notebook())
        good = await sent(provider, batch_of("ann"), Notebook())
        assert kinds(first).count(Misconfigured) == 1
        assert kinds(good) == [Receipt]


async def test_our_own_fault_is_not_repeated_for_every_message():
    async with relay(Fault("mail", "550 5.1.8 bad sender"), connections=2) as (provider, sink):
        outcomes = await sent(provider, batch_of(*["ann"] * 300), Notebook())
    assert set(kinds(outcomes)) == {Misconfigured}
    assert sum(bytes(session.clear).count(b"MAIL FROM") for session in sink.sessions) <= 4


# A server that is not ours --------------------------------------------------------------------------------------------


class Inbox(AsyncMessage):
    def __init__(self) -> None:
        super().__init__()
        self.mails: list = []

    def prepare_message(self, session, envelope):
        self.mails.append((envelope.mail_from, envelope.rcpt_tos, bytes(envelope.original_content)))
        return super().prepare_message(session, envelope)

    async def handle_message(self, message) -> None:
        pass


@pytest.mark.filterwarnings("ignore::DeprecationWarning:aiosmtpd")
async def test_aiosmtpd_takes_what_we_send():
    inbox = Inbox()
    controller = UnthreadedController(
        inbox, hostname="127.0.0.1", port=0, loop=asyncio.get_running_loop(), enable_SMTPUTF8=True, data_size_limit=0
    )
    server = await asyncio.get_running_loop().create_server(controller._factory_invoker, "127.0.0.1", 0)
    async with server:
        provider = provider_for(server.sockets[0].getsockname()[1], connections=3)
        content = EmailContent(
            Mailbox("Ärger & Söhne", EmailAddress("hello", "example.com")), "Grüße ✉", ".\n..\nLänge\n", "<p>\n.\n"
        )
        batch = [message(local, content) for local in ("ann", "änn") * 20]
        outcomes = await sent(provider, batch, Notebook())
        await provider.close()
    assert set(kinds(outcomes)) == {Receipt}
    assert sorted(recipients for _, recipients, _ in inbox.mails) == sorted([str(outgoing.to)] for outgoing in batch)
    for sender, _, raw in inbox.mails:
        mail = message_from_bytes(raw, policy=policy.default)
        assert sender == "hello@example.com"
        assert mail["Subject"] == "Grüße ✉"
        assert mail["From"].addresses[0].display_name == "Ärger & Söhne"
        plain, rich = mail.iter_parts()
        assert plain.get_content().splitlines() == [".", "..", "Länge"]
        assert rich.get_content().splitlines() == ["<p>", "."]
