"""Through a real MTA: Debian's Postfix on loopback, with STARTTLS, a configuration and a queue of its own."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from email import message_from_bytes, policy
from pathlib import Path

import pytest

from notifier_channels.addresses import EmailAddress
from notifier_channels.contract import (
    BadAddress,
    EmailContent,
    ListHeaders,
    Mailbox,
    Misconfigured,
    Outgoing,
    Receipt,
    Rejected,
)
from notifier_channels.email import mime
from notifier_channels.email.smtp import SmtpProvider
from tests.servers.certificates import Certificates
from tests.servers.outgoing import Notebook, message, sent
from tests.servers.smtp_sink import Sink

pytestmark = [pytest.mark.anyio, pytest.mark.system]

DOMAIN = "lists.example.com"
LIMIT = 1_000_000

MAIN = """\
    compatibility_level = 3.6
    queue_directory = {root}/queue
    data_directory = {root}/data
    maillog_file = {root}/log
    maillog_file_prefixes = {root}
    myhostname = mx.notifier.test
    mydestination =
    alias_maps =
    inet_interfaces = 127.0.0.1
    inet_protocols = ipv4
    mynetworks = 127.0.0.1/32
    smtpd_relay_restrictions = permit_mynetworks, reject
    smtpd_tls_security_level = encrypt
    smtpd_tls_chain_files = {certificate}
    message_size_limit = {limit}
    relayhost = [127.0.0.1]:{sink}
    smtp_host_lookup = native
    virtual_mailbox_domains = mailbox.test
    virtual_mailbox_base = {root}/mail
    virtual_mailbox_maps = inline:{{ ann@mailbox.test=ann/ }}
    virtual_minimum_uid = 1
    virtual_uid_maps = static:{uid}
    virtual_gid_maps = static:{gid}
"""

MASTER = """\
    127.0.0.1:{port} inet n - n - - smtpd
    pickup    unix  n - n 60 1 pickup
    cleanup   unix  n - n - 0 cleanup
    qmgr      unix  n - n 300 1 qmgr
    rewrite   unix  - - n - - trivial-rewrite
    bounce    unix  - - n - 0 bounce
    defer     unix  - - n - 0 bounce
    trace     unix  - - n - 0 bounce
    verify    unix  - - n - 1 verify
    smtp      unix  - - n - - smtp
    relay     unix  - - n - - smtp
    error     unix  - - n - - error
    retry     unix  - - n - - error
    discard   unix  - - n - - discard
    virtual   unix  - n n - - virtual
    anvil     unix  - - n - 1 anvil
    scache    unix  - - n - 1 scache
    tlsmgr    unix  - - n 1000? 1 tlsmgr
    proxymap  unix  - - n - - proxymap
    postlog   unix-dgram n - n - 1 postlogd
"""


@dataclass(frozen=True)
class Postfix:
    port: int
    root: Path
    authority: Path

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}?tls=starttls&cafile={self.authority}"

    async def delivered(self, count: int) -> list[bytes]:
        """What stands in Ann's maildir, as soon as so many mails do."""
        new = self.root / "mail" / "ann" / "new"
        while not new.exists() or len(list(new.iterdir())) < count:
            await asyncio.sleep(0.05)
        return [path.read_bytes() for path in new.iterdir()]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def configure(root: Path, port: int, sink: int) -> Path:
    root.chmod(0o711)
    nobody = pwd.getpwnam("nobody")
    for name, owner in (("queue", 0), ("data", pwd.getpwnam("postfix").pw_uid), ("mail", nobody.pw_uid)):
        (root / name).mkdir()
        os.chown(root / name, owner, -1)
    certificates = Certificates.make(root)
    values = {"root": root, "port": port, "sink": sink, "limit": LIMIT, "certificate": certificates.good}
    for name, text in (("main.cf", MAIN), ("master.cf", MASTER)):
        filled = textwrap.dedent(text).format(**values, uid=nobody.pw_uid, gid=nobody.pw_gid)
        (root / name).write_text(filled)
    return certificates.authority


async def until_listening(port: int, process: asyncio.subprocess.Process, log: Path) -> None:
    while True:
        assert process.returncode is None, f"Postfix ended: {log.read_text() if log.exists() else 'no log'}"
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return


@asynccontextmanager
async def postfix(sink: Sink) -> AsyncIterator[Postfix]:
    if shutil.which("postfix", path="/usr/sbin:/usr/bin") is None or os.geteuid() != 0:
        pytest.fail("This test needs Debian's package postfix, and root: run `python3 run.py test --system` as root.")
    with tempfile.TemporaryDirectory(prefix="notifier-postfix-") as name:
        root, port = Path(name), free_port()
        authority = configure(root, port, sink.port)
        process = await asyncio.create_subprocess_exec(
            *("/usr/sbin/postfix", "-c", name, "start-fg"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            await until_listening(port, process, root / "log")
            yield Postfix(port, root, authority)
        finally:
            stop = await asyncio.create_subprocess_exec(
                *("/usr/sbin/postfix", "-c", name, "stop"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            await stop.wait()
            await process.wait()


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    async with Sink() as sink:
        yield sink


@pytest.fixture
async def relay(sink: Sink) -> AsyncIterator[Postfix]:
    async with postfix(sink) as relay:
        yield relay


@pytest.fixture
async def provider(relay: Postfix) -> AsyncIterator[SmtpProvider]:
    provider = SmtpProvider.from_url(relay.url, message_id_domain=DOMAIN, connections=4)
    yield provider
    await provider.close()


CONTENT = EmailContent(
    Mailbox("Ärger & Söhne", EmailAddress("hello", "example.com")),
    "Grüße aus Köln ✉",
    "A line.\n.\n..\n.hidden\nTrailing blanks  \n" + "long " * 400 + "\n",
    "<p>Grüße</p>\n.\n<p>" + "ß" * 500 + "</p>\n",
    subscription=ListHeaders("news.lists.example.com", "News", "https://example.com/u/token", "u.t@in.example.com"),
    feedback_id="c1:news:acme1",
)


def to(outgoing: Outgoing[EmailContent], local: str, domain: str) -> Outgoing[EmailContent]:
    return outgoing._replace(to=EmailAddress(local, domain))


async def test_a_mail_is_read_back_whole(relay: Postfix, provider: SmtpProvider):
    outgoing = to(message(content=CONTENT, return_path="bounce.token@in.example.com"), "ann", "mailbox.test")
    outcomes = await sent(provider, [outgoing], Notebook())
    assert isinstance(outcomes[outgoing.id], Receipt)
    (stored,) = await relay.delivered(1)
    encoded = mime.encode(outgoing, outgoing.to, DOMAIN)
    added, date, rest = stored.replace(b"\n", b"\r\n").partition(b"Date: ")
    assert date + rest == encoded
    assert {line.partition(b":")[0] for line in added.splitlines() if line[:1].strip()} == {
        *(b"Return-Path", b"X-Original-To", b"Delivered-To", b"Received")
    }
    assert b"Return-Path: <bounce.token@in.example.com>" in added
    assert b"with ESMTPS" in added
    mail = message_from_bytes(stored, policy=policy.default)
    assert not any(part.defects for part in mail.walk())
    assert mail["Subject"] == CONTENT.subject
    assert mail["Message-ID"] == f"<{outgoing.id.hex}@{DOMAIN}>"
    plain, rich = mail.iter_parts()
    assert plain.get_content() == CONTENT.text
    assert rich.get_content() == CONTENT.html


async def test_a_batch_goes_through_whole_and_once(sink: Sink, provider: SmtpProvider):
    batch = [to(message(content=CONTENT), f"r{number}", "elsewhere.test") for number in range(300)]
    outcomes = await sent(provider, batch, witness := Notebook())
    assert {type(outcome) for outcome in outcomes.values()} == {Receipt}
    assert len({outcome.reference for outcome in outcomes.values()}) == 300
    assert witness.answers == outcomes
    while len(sink.accepted) < 300:
        await sink.change()
    taken = {mail.id: mail for mail in sink.accepted}
    assert len(taken) == len(sink.accepted) == 300
    for outgoing in batch:
        mail = taken[outgoing.id.hex]
        assert mail.recipient == str(outgoing.to)
        _, date, rest = mail.data.partition(b"Date: ")
        assert date + rest == mime.encode(outgoing, outgoing.to, DOMAIN)


async def test_one_refused_recipient_does_not_hold_up_the_others(relay: Postfix, provider: SmtpProvider):
    good = [to(message(content=CONTENT), "ann", "mailbox.test") for _ in range(20)]
    unknown = [to(message(content=CONTENT), "nobody", "mailbox.test") for _ in range(5)]
    large = [to(message(content=replace(CONTENT, text="x" * LIMIT)), "ann", "mailbox.test")]
    batch = [*good[:10], *unknown, *large, *good[10:]]
    outcomes = await sent(provider, batch, Notebook())
    assert {type(outcomes[outgoing.id]) for outgoing in good} == {Receipt}
    assert {outcomes[outgoing.id].code for outgoing in unknown} == {"550 5.1.1"}
    assert {type(outcomes[outgoing.id]) for outgoing in unknown} == {BadAddress}
    assert not any("nobody" in outcomes[outgoing.id].detail for outgoing in unknown)
    assert isinstance(outcomes[large[0].id], Rejected)
    assert len(await relay.delivered(20)) == 20


async def test_an_address_outside_ascii_goes_through(sink: Sink, provider: SmtpProvider):
    outgoing = to(message(content=CONTENT), "jürgen", "elsewhere.test")
    outcomes = await sent(provider, [outgoing], Notebook())
    assert isinstance(outcomes[outgoing.id], Receipt)
    while not sink.accepted:
        await sink.change()
    assert sink.accepted[0].recipient == "jürgen@elsewhere.test"


async def test_without_tls_the_mta_refuses_and_the_provider_says_why(relay: Postfix):
    provider = SmtpProvider.from_url(f"smtp://127.0.0.1:{relay.port}?tls=none", message_id_domain=DOMAIN)
    (outcome,) = (await sent(provider, [message(content=CONTENT)], Notebook())).values()
    await provider.close()
    assert isinstance(outcome, Misconfigured)
    assert outcome.code == "530 5.7.0"
