"""Where TLS was asked for, only EHLO and STARTTLS leave without it; the wrong host gets no password and no mail."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from notifier_channels.contract import Misconfigured, Outcome, RateLimited, Receipt, Unavailable
from notifier_channels.email.relay import Timeouts
from notifier_channels.email.smtp import SmtpProvider
from tests.servers.certificates import Certificates, server_context
from tests.servers.outgoing import Notebook, batch_of, sent
from tests.servers.smtp_sink import Fault, Sink

pytestmark = pytest.mark.anyio

USER, PASSWORD = "notifier@example.com", "p/a:s#s@w%rd"
LOGIN = "notifier%40example.com:p%2Fa%3As%23s%40w%25rd@"
TIMEOUTS = Timeouts(connect=3, tls=3, greeting=3, command=3, final_dot=3)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.make(tmp_path_factory.mktemp("certificates"))


@asynccontextmanager
async def provider_of(
    sink: Sink, authority: Path | None, *, login: str = LOGIN, tls: str = "starttls", timeouts: Timeouts = TIMEOUTS
) -> AsyncIterator[SmtpProvider]:
    scheme, query = ("smtps", "") if tls == "implicit" else ("smtp", f"&tls={tls}")
    query += f"&cafile={authority}" if authority else ""
    async with sink:
        provider = SmtpProvider.from_url(
            f"{scheme}://{login}127.0.0.1:{sink.port}/?{query}",
            message_id_domain="lists.example.com",
            timeouts=timeouts,
        )
        yield provider
        await provider.close()
        await sink.until_quiet()


async def tried(sink: Sink, authority: Path | None, **options) -> Outcome:
    async with provider_of(sink, authority, **options) as provider:
        witness = Notebook()
        outcomes = set((await sent(provider, batch_of("ann", "bob", "cem"), witness)).values())
    if not all(isinstance(outcome, Receipt) for outcome in outcomes):
        assert not witness.lines
    return outcomes.pop()


def gave_nothing_away(sink: Sink) -> bool:
    everything = b"".join(bytes(session.clear + session.secure) for session in sink.sessions)
    secrets = (b"AUTH", b"MAIL", b"secret-domain", base64.b64encode(PASSWORD.encode()), PASSWORD.encode())
    return not any(secret in everything for secret in secrets)


@pytest.mark.parametrize("implicit", [False, True], ids=["starttls", "implicit"])
@pytest.mark.parametrize("mechanisms", ["PLAIN LOGIN", "LOGIN PLAIN", "PLAIN", "LOGIN", "CRAM-MD5 login"])
async def test_with_a_good_certificate_and_password_mail_goes(certificates, implicit, mechanisms):
    sink = Sink(
        tls=server_context(certificates.good),
        implicit_tls=implicit,
        credentials=(USER, PASSWORD),
        mechanisms=mechanisms,
    )
    outcome = await tried(sink, certificates.authority, tls="implicit" if implicit else "starttls")
    assert isinstance(outcome, Receipt)
    for session in sink.sessions:
        expected = b"" if implicit else b"EHLO lists.example.com\r\nSTARTTLS\r\n"
        assert session.clear == expected
        assert session.secure.startswith(b"EHLO lists.example.com\r\nAUTH ")


@pytest.mark.parametrize("implicit", [False, True], ids=["starttls", "implicit"])
@pytest.mark.parametrize("bad", ["expired", "for_another_host", "of_another_authority"])
async def test_a_bad_certificate_gets_no_password_and_no_mail(certificates, implicit, bad):
    certificate = getattr(certificates, bad)
    sink = Sink(tls=server_context(certificate), implicit_tls=implicit, credentials=(USER, PASSWORD))
    outcome = await tried(sink, certificates.authority, tls="implicit" if implicit else "starttls")
    assert isinstance(outcome, Misconfigured)
    assert outcome.code == "certificate"
    assert gave_nothing_away(sink)
    assert not any(session.secure for session in sink.sessions)


async def test_without_a_file_of_its_own_the_systems_authorities_are_asked(certificates):
    sink = Sink(tls=server_context(certificates.good), credentials=(USER, PASSWORD))
    outcome = await tried(sink, None)
    assert (type(outcome), outcome.code) == (Misconfigured, "certificate")
    assert gave_nothing_away(sink)


async def test_where_starttls_is_stripped_nothing_goes_in_the_clear(certificates):
    sink = Sink(tls=server_context(certificates.good), offers_starttls=False, credentials=(USER, PASSWORD))
    outcome = await tried(sink, certificates.authority)
    assert (type(outcome), outcome.code) == (Misconfigured, "tls")
    assert {bytes(session.clear) for session in sink.sessions} <= {b"EHLO lists.example.com\r\n"}


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault("starttls", "454 4.7.0 TLS not available due to temporary reason"), Unavailable),
        (Fault("starttls", "501 5.5.4 no"), Misconfigured),
        (Fault("starttls", "421 4.3.2 closing", then="close"), Unavailable),
        (Fault("starttls", then="close"), Unavailable),
        (Fault("starttls", "220 2.0.0 go", then="close"), Unavailable),
    ],
    ids=lambda value: value.reply or value.then if isinstance(value, Fault) else "",
)
async def test_where_starttls_fails_nothing_goes_in_the_clear(certificates, fault, kind):
    sink = Sink(tls=server_context(certificates.good), faults=(fault,), credentials=(USER, PASSWORD))
    assert isinstance(await tried(sink, certificates.authority), kind)
    assert gave_nothing_away(sink)


@pytest.mark.parametrize(
    "injected", [b"250-lists.example.com\r\n250 AUTH PLAIN\r\n", b"250 ok\r\n", b"250-AUTH PLAIN\r\n", b"2"]
)
async def test_what_is_said_in_the_clear_behind_starttls_is_not_believed(certificates, injected):
    sink = Sink(tls=server_context(certificates.good), said_with_starttls=injected, credentials=(USER, PASSWORD))
    outcome = await tried(sink, certificates.authority)
    assert isinstance(outcome, Unavailable | Misconfigured)
    assert gave_nothing_away(sink)


async def test_what_was_offered_in_the_clear_counts_for_nothing(certificates):
    sink = Sink(tls=server_context(certificates.good), credentials=(USER, PASSWORD))
    async with provider_of(sink, certificates.authority) as provider:
        offered = sink.features
        sink.features = (*offered, "SIZE 1")  # what somebody on the way adds to the answer in the clear
        upgrade = sink.tls

        def restore(*_: object) -> None:
            sink.features = offered

        upgrade.sni_callback = restore
        outcomes = await sent(provider, batch_of("ann"), Notebook())
    assert {type(outcome) for outcome in outcomes.values()} == {Receipt}


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_a_server_that_only_knows_old_tls_is_refused(certificates):
    old = server_context(certificates.good)
    old.minimum_version = ssl.TLSVersion.TLSv1
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    sink = Sink(tls=old, credentials=(USER, PASSWORD))
    outcome = await tried(sink, certificates.authority)
    assert isinstance(outcome, Unavailable | Misconfigured)  # whether it says why is up to the server
    assert gave_nothing_away(sink)


async def test_a_server_without_tls_on_the_tls_port_is_refused(certificates):
    sink = Sink(credentials=(USER, PASSWORD))
    outcome = await tried(sink, certificates.authority, tls="implicit")
    assert (type(outcome), outcome.code) == (Misconfigured, "tls")
    assert gave_nothing_away(sink)


@pytest.mark.parametrize("implicit", [False, True], ids=["starttls", "implicit"])
async def test_a_handshake_that_never_ends_is_given_up(certificates, implicit):
    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not implicit:
            writer.write(b"220 hi\r\n")
            await reader.readline()
            writer.write(b"250-hi\r\n250 STARTTLS\r\n")
            await reader.readline()
            writer.write(b"220 go\r\n")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(stall, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        url = f"smtps://127.0.0.1:{port}" if implicit else f"smtp://127.0.0.1:{port}?tls=starttls"
        provider = SmtpProvider.from_url(
            url, message_id_domain="lists.example.com", timeouts=Timeouts(connect=1, tls=0.2, command=1)
        )
        (outcome,) = (await sent(provider, batch_of("ann"), Notebook())).values()
    assert isinstance(outcome, Unavailable)


# Passwords ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (None, Misconfigured),
        (Fault("auth", "535 5.7.8 <notifier@example.com> has another password than p/a:s#s@w%rd"), Misconfigured),
        (Fault("auth", "530 5.7.0 no"), Misconfigured),
        (Fault("auth", "534 5.7.9 too weak"), Misconfigured),
        (Fault("auth", "501 5.5.2 cannot decode"), Misconfigured),
        (Fault("auth", "250 what"), Misconfigured),
        (Fault("auth", "454 4.7.0 Temporary authentication failure"), Unavailable),
        (Fault("auth", "421 4.7.0 too many connections", then="close"), RateLimited),
        (Fault("auth", then="close"), Unavailable),
    ],
)
async def test_a_password_that_is_not_taken(certificates, fault, kind):
    login = "notifier%40example.com:wrong@" if fault is None else LOGIN
    sink = Sink(
        tls=server_context(certificates.good), credentials=(USER, PASSWORD), faults=() if fault is None else (fault,)
    )
    outcome = await tried(sink, certificates.authority, login=login)
    assert isinstance(outcome, kind)
    assert USER not in outcome.detail
    assert PASSWORD not in outcome.detail
    assert not any(b"MAIL" in session.secure for session in sink.sessions)


async def test_a_server_that_asks_for_an_unknown_mechanism_gets_no_password(certificates):
    sink = Sink(tls=server_context(certificates.good), credentials=(USER, PASSWORD), mechanisms="CRAM-MD5 XOAUTH2")
    outcome = await tried(sink, certificates.authority)
    assert (type(outcome), outcome.code) == (Misconfigured, "auth")
    assert gave_nothing_away(sink)


async def test_a_server_that_wants_a_password_which_we_have_not_is_our_own_fault(certificates):
    sink = Sink(tls=server_context(certificates.good), credentials=(USER, PASSWORD))
    outcome = await tried(sink, certificates.authority, login="")
    assert (type(outcome), outcome.code) == (Misconfigured, "530 5.7.0")


async def test_on_this_machine_a_password_may_go_without_tls_when_told():
    sink = Sink(credentials=(USER, PASSWORD))
    assert isinstance(await tried(sink, None, tls="none"), Receipt)
