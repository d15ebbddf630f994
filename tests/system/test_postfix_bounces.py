"""The whole way through a real MTA: Postfix cannot deliver, and sends its own report to our signed address.

Postfix hands mail for `mailbox.test` to an LMTP server that refuses some and puts off others, and mail for our inbound
domain to `notifier inbound`'s receiver: the transport that `docs/how-to/bounces.md` recommends.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import subprocess
import tempfile
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest

from notifier.dispatch.feedback import Feedback
from notifier.dispatch.inbound import Came, Inbound
from notifier.domain.tokens import Links
from notifier.receiver import Receiver
from notifier_channels.addresses import EmailAddress
from notifier_channels.contract import EmailContent, ListHeaders, Mailbox, Outgoing, Receipt
from notifier_channels.email.smtp import SmtpProvider
from tests.servers.outgoing import NOW, Notebook, sent
from tests.servers.town import HASHER, TOPICS, Town
from tests.system.test_postfix import MASTER, free_port, until_listening

pytestmark = [pytest.mark.anyio, pytest.mark.system]

DOMAIN = "in.acme.test"
LINKS = Links({"k1": b"a key for tests, of thirty-two bytes"}, "https://acme.test", DOMAIN)
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
    transport_maps = inline:{{
        mailbox.test=lmtp:inet:[127.0.0.1]:{mailboxes}
        {domain}=lmtp:inet:[127.0.0.1]:{inbound} }}
    default_transport = error:nothing leaves this machine
    lmtp_host_lookup = native
    delay_warning_time = 1s
    queue_run_delay = 1s
    minimal_backoff_time = 1s
    maximal_backoff_time = 1s
"""
REFUSALS = {
    "unknown": "550 5.1.1 User unknown",
    "full": "552 5.2.2 Mailbox full",
    "later": "452 4.2.2 Mailbox full, try again later",
}
CONTENT = EmailContent(
    Mailbox("Acme", EmailAddress("hello", "acme.test")),
    "News of a full mailbox",
    "User unknown.\n",
    subscription=ListHeaders("news.acme.test", "News", "https://acme.test/u/token"),
)


async def mailboxes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """As much LMTP as it takes to refuse."""
    writer.write(b"220 mailbox.test\r\n")
    while line := (await reader.readline()).decode():
        verb, _, rest = line.strip().partition(" ")
        answer = "250 2.0.0 OK"
        if verb.upper() == "RCPT":
            answer = REFUSALS[rest.partition("<")[2].partition("@")[0]]
        writer.write(f"{'221 Bye' if verb.upper() == 'QUIT' else answer}\r\n".encode())
        await writer.drain()
        if verb.upper() == "QUIT":
            break
    writer.close()


@dataclass
class Way:
    """From the relay and back."""

    town: Town
    relay: str
    taken: asyncio.Queue[Came]

    async def send(self, local: str) -> UUID:
        """A message of ours on its way to this mailbox, as a worker sends it."""
        person = await self.town.person(f"{local}@mailbox.test")
        message = await self.town.message(person)
        path = LINKS.return_path(message, 1)
        to = EmailAddress(local, "mailbox.test")
        provider = SmtpProvider.from_url(self.relay, message_id_domain="lists.acme.test")
        outcomes = await sent(provider, [Outgoing(message, 1, to, CONTENT, NOW, NOW, path)], Notebook())
        await provider.close()
        assert isinstance(outcomes[message], Receipt)
        return message

    async def suppressed(self) -> list[str]:
        return [row["reason"] for row in await self.town.rows("SELECT reason FROM suppressions")]


def configure(root: Path, inbound: int, lmtp: int) -> int:
    root.chmod(0o711)
    port = free_port()
    for name, owner in (("queue", 0), ("data", pwd.getpwnam("postfix").pw_uid)):
        (root / name).mkdir()
        os.chown(root / name, owner, -1)
    master = MASTER + "    lmtp      unix  - - n - - lmtp\n"
    for name, text in (("main.cf", MAIN), ("master.cf", master)):
        values = {"root": root, "port": port, "inbound": inbound, "mailboxes": lmtp, "domain": DOMAIN}
        (root / name).write_text(textwrap.dedent(text).format(**values))
    return port


@asynccontextmanager
async def postfix(inbound: int, lmtp: int) -> AsyncIterator[str]:
    if shutil.which("postfix", path="/usr/sbin:/usr/bin") is None or os.geteuid() != 0:
        pytest.fail("This test needs Debian's package postfix, and root: run `python3 run.py test --system` as root.")
    with tempfile.TemporaryDirectory(prefix="notifier-postfix-") as name:
        port = configure(Path(name), inbound, lmtp)
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = await asyncio.create_subprocess_exec("/usr/sbin/postfix", "-c", name, "start-fg", **quiet)
        try:
            await until_listening(port, process, Path(name, "log"))
            yield f"smtp://127.0.0.1:{port}?tls=none"
        finally:
            stop = await asyncio.create_subprocess_exec("/usr/sbin/postfix", "-c", name, "stop", **quiet)
            await stop.wait()
            await process.wait()


@pytest.fixture
async def way(database) -> AsyncIterator[Way]:
    inbound = Inbound(database, LINKS, HASHER, TOPICS, Feedback(database, HASHER, TOPICS))
    taken: asyncio.Queue[Came] = asyncio.Queue()

    async def take(raw: bytes, recipient: str, sender: str | None) -> None:
        taken.put_nowait(await inbound(raw, recipient, sender))

    receiver = Receiver(take, DOMAIN)
    door = int((await receiver.listen("127.0.0.1", 0)).rpartition(":")[2])
    server = await asyncio.start_server(mailboxes, "127.0.0.1", 0)
    async with postfix(door, server.sockets[0].getsockname()[1]) as relay:
        yield Way(Town(database), relay, taken)
    server.close()
    await receiver.close()


async def test_an_unknown_user_is_bounced_and_the_address_suppressed(way: Way) -> None:
    message = await way.send("unknown")
    assert await way.taken.get() is Came.REPORT
    assert await way.town.state(message) == "bounced"
    assert await way.town.rows("SELECT code FROM delivery_events") == [{"code": "550 5.1.1"}]
    assert await way.suppressed() == ["hard_bounce"]


async def test_a_full_mailbox_is_bounced_and_the_address_stays_good(way: Way) -> None:
    message = await way.send("full")
    assert await way.taken.get() is Came.REPORT
    assert await way.town.state(message) == "bounced"
    assert await way.town.rows("SELECT code FROM delivery_events") == [{"code": "552 5.2.2"}]
    assert await way.suppressed() == []


async def test_a_message_that_is_delayed_stays_where_it_is(way: Way) -> None:
    message = await way.send("later")
    assert await way.taken.get() is Came.REPORT
    assert await way.town.state(message) == "accepted"
    assert await way.town.rows("SELECT kind FROM delivery_events") == [{"kind": "deferred"}]
    assert await way.suppressed() == []


async def test_a_mail_to_the_unsubscribe_address_goes_through_the_mta(way: Way) -> None:
    ann = await way.town.person("ann@mailbox.test")
    host, _, port = way.relay.partition("?")[0].rpartition("/")[2].partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    address = LINKS.unsubscribe_mailto(ann, "newsletter")
    mail = b"From: ann@mailbox.test\r\nSubject: \r\n\r\nI no longer wish to receive these messages.\r\n.\r\n"
    for line in (b"EHLO ann.test", b"MAIL FROM:<ann@mailbox.test>", f"RCPT TO:<{address}>".encode(), b"DATA", mail):
        await answer(reader)
        writer.write(line if line is mail else line + b"\r\n")
    assert (await answer(reader)).startswith(b"250")
    writer.close()
    assert await way.taken.get() is Came.REFUSAL
    assert [line["source"] for line in await way.town.ledger(ann)] == ["mailto"]


async def answer(reader: asyncio.StreamReader) -> bytes:
    while (line := await reader.readline())[3:4] == b"-":
        pass
    return line
