"""Notifier's own SMTP client against the sandbox: each simulator means to it what the table promises."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from notifier.sandbox.server import Running, open_sandbox
from notifier.sandbox.simulators import EVERYBODY_ELSE, SIMULATORS, Simulator
from notifier.settings import SandboxSettings
from notifier_channels.addresses import EmailAddress
from notifier_channels.contract import (
    Ambiguous,
    BadAddress,
    EmailContent,
    Mailbox,
    Outcome,
    Outgoing,
    RateLimited,
    Receipt,
    Rejected,
    Unavailable,
)
from notifier_channels.email.smtp import SmtpProvider
from tests.servers.outgoing import Notebook, sent

pytestmark = pytest.mark.anyio

MEANS: dict[str, type[Outcome]] = {
    "bounce": BadAddress,
    "mailbox-full": Rejected,
    "over-quota": Unavailable,
    "greylist": Unavailable,
    "throttle": RateLimited,
    "reject": Rejected,
    "slow": Receipt,
    "drop-before-dot": Unavailable,
    "drop-after-dot": Ambiguous,
    "deferred": Receipt,
    "late-bounce": Receipt,
    "complaint": Receipt,
    "anybody": Receipt,
}


@pytest.fixture
async def sandbox(anyio_backend: str) -> AsyncIterator[Running]:
    async with open_sandbox(SandboxSettings(), http_port=0, smtp_port=0, pace=0.01) as running:
        yield running


@pytest.fixture
async def provider(sandbox: Running) -> AsyncIterator[SmtpProvider]:
    url = f"smtp://127.0.0.1:{sandbox.smtp_port}?tls=none"
    provider = SmtpProvider.from_url(url, connections=1, message_id_domain="lists.notifier.test")
    yield provider
    await provider.close()


def message_to(simulator: Simulator) -> Outgoing[EmailContent]:
    now = datetime.now(UTC)
    content = EmailContent(Mailbox("Notifier", EmailAddress("hello", "notifier.test")), "Hello", "Hi.", "<p>Hi.</p>")
    to = EmailAddress.parse(simulator.address, allow_test_domains=True)
    return Outgoing(uuid4(), 1, to, content, now, now + timedelta(hours=1))


@pytest.mark.parametrize("simulator", [*SIMULATORS, EVERYBODY_ELSE], ids=lambda simulator: simulator.name)
async def test_a_simulator_means_to_notifier_what_the_table_says(
    sandbox: Running, provider: SmtpProvider, simulator: Simulator
) -> None:
    outgoing = message_to(simulator)
    (outcome,) = (await sent(provider, [outgoing], Notebook())).values()
    assert type(outcome) is MEANS[simulator.name]
    taken = [mail.headers.message for mail in sandbox.inbox]
    assert taken == ([outgoing.id] if isinstance(outcome, Receipt | Ambiguous) else [])


async def test_a_greylisted_message_is_taken_the_second_time(sandbox: Running, provider: SmtpProvider) -> None:
    outgoing = message_to(next(simulator for simulator in SIMULATORS if simulator.name == "greylist"))
    await sent(provider, [outgoing], Notebook())
    (outcome,) = (await sent(provider, [outgoing], Notebook())).values()
    assert isinstance(outcome, Receipt)
    assert outcome.reference == str(next(iter(sandbox.inbox)).id)


@pytest.mark.parametrize("first", ["bounce", "reject", "greylist"])
async def test_a_refusal_does_not_spoil_the_line_for_the_next_batch(
    sandbox: Running, provider: SmtpProvider, first: str
) -> None:
    refused = message_to(next(simulator for simulator in SIMULATORS if simulator.name == first))
    await sent(provider, [refused], Notebook())
    outgoing = message_to(EVERYBODY_ELSE)
    (outcome,) = (await sent(provider, [outgoing], Notebook())).values()
    assert isinstance(outcome, Receipt)
    assert [mail.headers.message for mail in sandbox.inbox] == [outgoing.id]


async def test_one_batch_to_all_of_them_brings_each_its_own_outcome(sandbox: Running, provider: SmtpProvider) -> None:
    batch = {simulator.name: message_to(simulator) for simulator in (*SIMULATORS, EVERYBODY_ELSE)}
    outcomes = await sent(provider, list(batch.values()), Notebook())
    certain = {name for name in batch if MEANS[name] not in (RateLimited, Ambiguous, Unavailable)}
    for name in certain:  # a closed line or a wish to slow down may hold back what stood behind it, but never lose it
        assert isinstance(outcomes[batch[name].id], MEANS[name] | Unavailable | RateLimited), name
    taken = {mail.headers.message for mail in sandbox.inbox}
    accepted = {message for message, outcome in outcomes.items() if isinstance(outcome, Receipt)}
    assert accepted <= taken <= accepted | {m for m, outcome in outcomes.items() if isinstance(outcome, Ambiguous)}
