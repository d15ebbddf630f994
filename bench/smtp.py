"""How fast mail leaves: our provider against Postfix's smtp-source and Python's smtplib, into the same smtp-sink.

    PYTHONPATH=.:channels python bench/smtp.py [--messages 4000] [--rounds 3]

Prints JSON. Every figure counts messages that the sink says it took. The mail has 13 KB, as a real template's has.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import resource
import shutil
import smtplib
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO
from uuid import UUID, uuid4

import uvloop

from notifier_channels.addresses import EmailAddress
from notifier_channels.contract import EmailContent, ListHeaders, Mailbox, Outcome, Outgoing, Receipt
from notifier_channels.email import mime
from notifier_channels.email.smtp import SmtpProvider

PATH = "/usr/sbin:/usr/bin"
CONTENT = EmailContent(
    Mailbox("Acme, Inc.", EmailAddress("hello", "example.com")),
    "Your order is on its way",
    "Hello Ann, your order is on its way and will be with you soon.\n" * 32,
    '<tr><td style="padding: 0 12px; color: #123456">An item, grün, 1 piece</td></tr>\n' * 118,
    subscription=ListHeaders("orders.lists.example.com", "Orders", "https://example.com/u/" + "t" * 80),
)


class Everything:
    """A witness who lets everything go."""

    is_over = False

    def about_to_commit(self, _message: UUID) -> bool:
        return True

    def answered(self, message: UUID, outcome: Outcome) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Figure:
    """One way to send, measured."""

    messages_per_second: int
    client_cpu_us_per_message: int
    sink_cpu_us_per_message: int


def a_batch(size: int) -> list[Outgoing[EmailContent]]:
    now = datetime.now(UTC)
    to = EmailAddress("ann", "example.net")
    return [Outgoing(uuid4(), 1, to, CONTENT, now, now + timedelta(days=1)) for _ in range(size)]


@contextmanager
def smtp_sink(counters: IO[bytes]) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    command = [_program("smtp-sink"), *user, "-c", f"inet:127.0.0.1:{port}", "1024"]
    with subprocess.Popen(command, stdout=counters) as process:
        try:
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except ConnectionRefusedError:
                    time.sleep(0.01)
            yield port, process
        finally:
            process.terminate()


def measured(messages: int, send: Callable[[int], None]) -> Figure:
    """Send, and count only what the sink says it took."""
    with TemporaryFile() as counters, smtp_sink(counters) as (port, sink):
        client, children, far = _cpu(resource.RUSAGE_SELF), _cpu(resource.RUSAGE_CHILDREN), _cpu_of(sink.pid)
        began = time.perf_counter()
        send(port)
        seconds = time.perf_counter() - began
        client_cpu = _cpu(resource.RUSAGE_SELF) - client + _cpu(resource.RUSAGE_CHILDREN) - children
        sink_cpu = _cpu_of(sink.pid) - far
        sink.terminate()
        sink.wait()
        counters.seek(0)
        taken = _counted(counters.read())
    if taken != messages:
        sys.exit(f"The sink took {taken} messages of {messages}: this figure counts for nothing.")
    return Figure(round(messages / seconds), round(client_cpu / messages * 1e6), round(sink_cpu / messages * 1e6))


def ours(messages: int, connections: int) -> Callable[[int], None]:
    async def send(port: int) -> None:
        provider = SmtpProvider.from_url(
            f"smtp://127.0.0.1:{port}?tls=none&limit=1000000",
            message_id_domain="lists.example.com",
            connections=connections,
        )
        taken = 0
        for start in range(0, messages, 500):
            batch = a_batch(min(500, messages - start))
            async with aclosing(provider.send(batch, Everything())) as outcomes:
                async for _, outcome in outcomes:
                    taken += isinstance(outcome, Receipt)
        await provider.close()
        if taken != messages:
            sys.exit(f"Only {taken} of {messages} messages were taken.")

    return lambda port: uvloop.run(send(port))


def with_smtplib(messages: int, threads: int, mails: Sequence[str]) -> Callable[[int], None]:
    def lane(port: int) -> None:
        with smtplib.SMTP("127.0.0.1", port) as client:
            for number in range(messages // threads):
                client.sendmail("hello@example.com", ["ann@example.net"], mails[number % len(mails)])

    def send(port: int) -> None:
        with ThreadPoolExecutor(threads) as pool:
            for done in [pool.submit(lane, port) for _ in range(threads)]:
                done.result()

    return send


def with_smtp_source(messages: int, sessions: int, size: int) -> Callable[[int], None]:
    def send(port: int) -> None:
        options = ["-d", "-s", str(sessions), "-m", str(messages), "-l", str(size)]
        subprocess.run([_program("smtp-source"), *options, f"inet:127.0.0.1:{port}"], check=True)

    return send


def encoding(messages: int) -> tuple[int, int]:
    """Microseconds to write one mail, and its size."""
    batch = a_batch(messages)
    began = time.process_time()
    for outgoing in batch:
        data = mime.encode(outgoing, EmailAddress("ann", "example.net"), "lists.example.com")
    return round((time.process_time() - began) / messages * 1e6), len(data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=3000, help="a multiple of 4")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    messages = arguments.messages
    microseconds, size = encoding(1000)
    mails = [mime.encode(o, EmailAddress("ann", "example.net"), "x.example").decode() for o in a_batch(50)]
    ways: dict[str, Callable[[int], None]] = {
        "notifier, 4 connections (writes each mail too)": ours(messages, 4),
        "smtp-source, 50 sessions": with_smtp_source(messages, 50, size),
        "smtplib, 4 threads, lines reused, mails ready": with_smtplib(messages, 4, mails),
    }
    figures: dict[str, list[dict[str, int]]] = {name: [] for name in ways}
    for _ in range(arguments.rounds):  # interleaved: the machine's mood changes
        for name, send in ways.items():
            figure = measured(messages, send)
            figures[name].append({field: getattr(figure, field) for field in Figure.__slots__})
    facts = {"cpus": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()}
    report = {"machine": facts, "mail_bytes": size, "write_one_mail_us": microseconds, "rounds": figures}
    print(json.dumps(report, indent=2))


def _counted(output: bytes) -> int:
    numbers = re.findall(rb"mesg=(\d+)", output)
    return int(numbers[-1]) if numbers else -1


def _cpu(who: int) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def _cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _program(name: str) -> str:
    found = shutil.which(name, path=PATH)
    if found is None:
        sys.exit(f"{name} is missing; it comes with Debian's package postfix.")
    return found


if __name__ == "__main__":
    main()
