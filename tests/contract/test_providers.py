"""One suite that every provider passes: one outcome for each message, and a witness who is asked and told in time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar, Literal
from uuid import UUID

import pytest

from notifier_channels.contract import (
    Ambiguous,
    BadAddress,
    EmailContent,
    Outcome,
    Outgoing,
    Provider,
    RateLimited,
    Receipt,
    Rejected,
    Unavailable,
    Withheld,
)
from notifier_channels.email.relay import Timeouts
from notifier_channels.email.smtp import SmtpProvider
from tests.servers.certificates import Certificates, server_context
from tests.servers.memory_provider import MemoryProvider
from tests.servers.outgoing import Notebook, batch_of, sent
from tests.servers.smtp_sink import FEATURES, Fault, Sink

pytestmark = pytest.mark.anyio


Since = Literal[
    "connecting", "committing"
]  #: when a far end fell silent: before the byte that could be accepted, or after
HANGS = 60  #: seconds after which a provider that ought to have given up long ago is one that hangs


@dataclass
class Far:
    """The far end, as far as the suite must know it. Names stand for addresses: `ann` and `bob` get everything."""

    provider: Provider[Any]
    connections: int

    answers: ClassVar[Mapping[str, type[Outcome]]]  #: what those with other names get
    taken: ClassVar[frozenset[str]] = frozenset({"doubt"})  #: those of them whose messages are taken all the same
    secrets: ClassVar[tuple[str, ...]]  #: what no text may repeat

    def batch_of(self, *names: str) -> list[Outgoing[Any]]:
        raise NotImplementedError

    def name_of(self, outgoing: Outgoing[Any]) -> str:
        raise NotImplementedError

    def accepted(self) -> Counter[UUID]:
        raise NotImplementedError

    def seen(self) -> bytes:
        """Everything that could have been read there."""
        return b""

    def silent(self, since: Since) -> AbstractAsyncContextManager[Provider[Any]]:
        """Such a provider with little patience, over a far end that says nothing any more."""
        raise NotImplementedError


ANSWERS: dict[str, tuple[type[Outcome], Fault, Outcome]] = {
    local: (type(outcome), fault, outcome)
    for local, fault, outcome in (
        (
            "nobody",
            Fault("rcpt", "550 5.1.1 <nobody@secret-domain.example>: user nobody unknown", match="<nobody@"),
            BadAddress("550 5.1.1"),
        ),
        ("full", Fault("dot", "552 5.2.2 full@secret-domain.example is full", match="full@"), Rejected("552 5.2.2")),
        ("later", Fault("rcpt", "450 4.2.0 later, later", match="<later@"), Unavailable("450 4.2.0")),
        (
            "fast",
            Fault("dot", "451 4.7.1 rate limit for fast@secret-domain.example", match="fast@"),
            RateLimited("451 4.7.1", timedelta(minutes=1)),
        ),
        ("doubt", Fault("dot", then="close", taken=True, match="doubt@"), Ambiguous("closed")),
    )
}


class EmailFar(Far):
    answers: ClassVar = {local: kind for local, (kind, _, _) in ANSWERS.items()}
    secrets = ("@", "secret-domain", *ANSWERS)

    def batch_of(self, *names: str) -> list[Outgoing[EmailContent]]:
        return batch_of(*names)

    def name_of(self, outgoing: Outgoing[EmailContent]) -> str:
        return outgoing.to.local


@dataclass
class SmtpFar(EmailFar):
    sink: Sink

    def accepted(self) -> Counter[UUID]:
        return Counter(UUID(hex=mail.id) for mail in self.sink.accepted)

    def seen(self) -> bytes:
        return b"".join(bytes(session.clear + session.secure) for session in self.sink.sessions)

    @asynccontextmanager
    async def silent(self, since: Since) -> AsyncIterator[Provider[Any]]:
        fault = Fault("banner" if since == "connecting" else "dot", then="stall")
        async with Sink(faults=(fault,)) as silent:
            provider = SmtpProvider.from_url(
                f"smtp://127.0.0.1:{silent.port}",
                message_id_domain="lists.example.com",
                connections=3,
                timeouts=Timeouts(connect=5, tls=5, greeting=0.3, command=5, final_dot=0.3, close=5),
            )
            yield provider
            await provider.close()


@dataclass
class MemoryFar(EmailFar):
    def accepted(self) -> Counter[UUID]:
        assert isinstance(self.provider, MemoryProvider)
        return Counter(outgoing.id for outgoing in self.provider.accepted)

    @asynccontextmanager
    async def silent(self, since: Since) -> AsyncIterator[Provider[Any]]:
        outcome = Unavailable("connect", is_away=True) if since == "connecting" else Ambiguous("timeout")
        yield MemoryProvider(answer=lambda _: outcome)


class ProviderContract:
    @pytest.mark.parametrize("size", [0, 1, 2, 57])
    async def test_each_message_has_one_outcome_and_is_accepted_once(self, far: Far, size: int):
        batch, witness = far.batch_of(*["ann"] * size), Notebook()
        outcomes = await sent(far.provider, batch, witness)
        assert {type(outcome) for outcome in outcomes.values()} <= {Receipt}
        assert far.accepted() == Counter(outgoing.id for outgoing in batch)
        assert witness.answers == outcomes

    async def test_each_kind_of_answer_reaches_its_own_message(self, far: Far):
        batch = far.batch_of(*("ann", *far.answers) * 4)
        outcomes = await sent(far.provider, batch, Notebook())
        for outgoing in batch:
            name = far.name_of(outgoing)
            assert type(outcomes[outgoing.id]) is far.answers.get(name, Receipt), name
        taken = {outgoing.id for outgoing in batch if far.name_of(outgoing) in {"ann", *far.taken}}
        assert far.accepted() == Counter(taken)

    async def test_what_the_witness_withholds_leaves_no_trace(self, far: Far):
        batch = far.batch_of(*["ann"] * 20)
        withheld = {outgoing.id for outgoing in batch[::3]}
        outcomes = await sent(far.provider, batch, Notebook(says_no_to=withheld))
        assert {message for message, outcome in outcomes.items() if isinstance(outcome, Withheld)} == withheld
        assert far.accepted() == Counter(outcomes.keys() - withheld)
        assert not [message for message in withheld if message.hex.encode() in far.seen()]

    async def test_a_witness_that_says_no_to_all_stops_the_batch(self, far: Far):
        batch = far.batch_of(*["ann"] * 100)
        outcomes = await sent(far.provider, batch, Notebook(is_over=True))
        assert {type(outcome) for outcome in outcomes.values()} == {Withheld}
        assert not far.accepted()

    async def test_several_people_s_no_hands_nobody_else_back(self, far: Far):
        batch = far.batch_of(*["ann"] * 12)
        withheld = {outgoing.id for outgoing in batch[3:9]}
        outcomes = await sent(far.provider, batch, Notebook(says_no_to=withheld))
        assert {message for message, outcome in outcomes.items() if isinstance(outcome, Withheld)} == withheld
        assert far.accepted() == Counter(outcomes.keys() - withheld)

    async def test_nothing_is_accepted_before_the_witness_was_asked(self, far: Far):
        witness = Notebook()
        early = []
        ask = witness.about_to_commit

        def check(message: UUID) -> bool:
            if message in far.accepted() or message.hex.encode() in far.seen():
                early.append(message)
            return ask(message)

        witness.about_to_commit = check
        await sent(far.provider, far.batch_of(*("ann", "full") * 10), witness)
        assert not early

    async def test_no_more_messages_are_in_doubt_at_once_than_there_are_connections(self, far: Far):
        witness = Notebook()
        await sent(far.provider, far.batch_of(*["ann"] * 100), witness)
        assert 1 <= witness.most_in_doubt <= far.connections

    async def test_the_witness_is_told_each_answer_once_and_before_it_is_yielded(self, far: Far):
        witness = Notebook()
        async for id_, outcome in far.provider.send(far.batch_of(*("ann", *far.answers) * 3), witness):
            if id_ in witness.allowed and not isinstance(outcome, Ambiguous):
                assert witness.answers[id_] == outcome
            else:
                assert id_ not in witness.answers
        assert max(Counter(witness.lines).values()) == 1

    async def test_two_batches_at_once_do_not_mix(self, far: Far):
        first, second = far.batch_of(*["ann"] * 30), far.batch_of(*["bob"] * 30)
        witnesses = Notebook(), Notebook()
        outcomes = await asyncio.gather(
            sent(far.provider, first, witnesses[0]), sent(far.provider, second, witnesses[1])
        )
        assert [witness.answers for witness in witnesses] == list(outcomes)
        assert far.accepted() == Counter(outgoing.id for outgoing in first + second)

    async def test_closed_early_it_sends_nothing_more(self, far: Far):
        witness = Notebook()
        async with aclosing(far.provider.send(far.batch_of(*["ann"] * 200), witness)) as answers:
            await anext(answers)
            allowed = witness.allowed
        assert len(allowed) < 100
        last = far.batch_of("bob")
        await sent(far.provider, last, Notebook())  # the far end has seen all that was under way
        assert witness.allowed == allowed
        assert far.accepted().keys() <= allowed | {last[0].id}

    async def test_closed_early_it_hears_the_answers_that_are_due(self, far: Far):
        witness = Notebook()
        async with aclosing(far.provider.send(far.batch_of(*["ann"] * 200), witness)) as answers:
            await anext(answers)
        assert not witness.in_doubt

    async def test_cancelled_it_sends_nothing_more(self, far: Far):
        witness = Notebook()
        task = asyncio.create_task(sent(far.provider, far.batch_of(*["ann"] * 300), witness))
        await witness.committed.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        asked = list(witness.lines)
        last = far.batch_of("bob")
        outcomes = await sent(far.provider, last, Notebook())
        assert {type(outcome) for outcome in outcomes.values()} == {Receipt}
        assert witness.lines == asked
        assert far.accepted().keys() <= witness.allowed | {last[0].id}

    async def test_closing_twice_is_closing_once_and_nothing_is_sent_after(self, far: Far):
        await sent(far.provider, far.batch_of("ann"), Notebook())
        await far.provider.close()
        await far.provider.close()
        witness = Notebook()
        outcomes = await sent(far.provider, far.batch_of("ann", "bob"), witness)
        assert {type(outcome) for outcome in outcomes.values()} == {Unavailable}
        assert not witness.lines
        assert len(far.accepted()) == 1

    async def test_no_text_repeats_an_address(self, far: Far):
        outcomes = await sent(far.provider, far.batch_of(*far.answers), Notebook())
        for outcome in outcomes.values():
            for text in (outcome.code, outcome.detail):
                assert not [secret for secret in far.secrets if secret in text.lower()]

    async def test_an_error_in_the_witness_reaches_the_caller(self, far: Far):
        witness = Notebook()
        witness.about_to_commit = lambda _: 1 // 0
        with pytest.raises(ZeroDivisionError):
            await sent(far.provider, far.batch_of("ann", "bob"), witness)
        assert not far.accepted()

    @pytest.mark.parametrize("since", ["connecting", "committing"])
    async def test_a_far_end_that_falls_silent_is_given_up_and_only_what_it_may_have_is_in_doubt(
        self, far: Far, since: Since
    ):
        batch, witness = far.batch_of(*["ann"] * 20), Notebook()
        async with asyncio.timeout(HANGS), far.silent(since) as provider:
            outcomes = await sent(provider, batch, witness)
        for message, outcome in outcomes.items():
            assert type(outcome) is (Ambiguous if message in witness.in_doubt else Unavailable), outcome
        assert bool(witness.in_doubt) == (since == "committing")

    async def test_it_has_a_name(self, far: Far):
        assert far.provider.name.isidentifier()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.make(tmp_path_factory.mktemp("certificates"))


def sink(**options) -> Sink:
    return Sink(faults=tuple(fault for _, fault, _ in ANSWERS.values()), **options)


async def smtp(sink: Sink, query: str = "", scheme: str = "smtp") -> AsyncIterator[SmtpFar]:
    async with sink:
        provider = SmtpProvider.from_url(
            f"{scheme}://127.0.0.1:{sink.port}?limit=40{query}",
            message_id_domain="lists.example.com",
            connections=3,
            timeouts=Timeouts(connect=5, tls=5, greeting=5, command=5, final_dot=5),
        )
        yield SmtpFar(provider, 3, sink)
        await provider.close()
        assert not sink.violations


class TestSmtp(ProviderContract):
    @pytest.fixture
    async def far(self) -> AsyncIterator[Far]:
        async for far in smtp(sink()):
            yield far


class TestSmtpWithoutPipelining(ProviderContract):
    @pytest.fixture
    async def far(self) -> AsyncIterator[Far]:
        async for far in smtp(sink(features=tuple(set(FEATURES) - {"PIPELINING"}))):
            yield far


class TestSmtpThatWantsDataForNobody(ProviderContract):
    @pytest.fixture
    async def far(self) -> AsyncIterator[Far]:
        async for far in smtp(sink(data_without_recipients=True)):
            yield far


class TestSmtpOverStarttls(ProviderContract):
    @pytest.fixture
    async def far(self, certificates: Certificates) -> AsyncIterator[Far]:
        far_end = sink(tls=server_context(certificates.good))
        async for far in smtp(far_end, f"&tls=starttls&cafile={certificates.authority}"):
            yield far


class TestSmtpOverImplicitTls(ProviderContract):
    @pytest.fixture
    async def far(self, certificates: Certificates) -> AsyncIterator[Far]:
        far_end = sink(tls=server_context(certificates.good), implicit_tls=True)
        async for far in smtp(far_end, f"&cafile={certificates.authority}", "smtps"):
            yield far


class TestMemory(ProviderContract):
    @pytest.fixture
    def far(self) -> Far:
        def answer(outgoing: Outgoing[EmailContent]) -> Outcome:
            known = ANSWERS.get(outgoing.to.local)
            return known[2] if known else Receipt()

        return MemoryFar(MemoryProvider(answer=answer), 1)
