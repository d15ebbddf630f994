"""How many messages a second go from queued to accepted, beside the bare wire and a plain worker in the same run.

`python3 run.py bench deliver --messages 20000` prints one JSON object. What counts is what stands as accepted in the
database; where our own sink listens, its log is counted too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import smtplib
import time
from email.message import EmailMessage
from typing import Any
from uuid import UUID

import psutil
import psycopg

from bench.stage import Sink, Stage, children, cpu_seconds, machine, sink, stage
from notifier.domain.messages import Lane
from notifier.jobs import Jobs
from notifier_channels.contract import Outgoing
from notifier_channels.email.smtp import SmtpProvider
from tests.world import IDENTITY, MARKETING, Scripted, World, take

PLAIN_AT_MOST = 1500  #: the plain worker is slow
WORKERS = [["worker", "--lane", "marketing"]] * 2
WAITING = "SELECT EXISTS (SELECT 1 FROM messages WHERE due_at IS NOT NULL OR worker_id IS NOT NULL)"


async def measure(count: int) -> dict[str, Any]:
    with stage() as ground:
        async with sink(ground.state.parent) as far, ground.world() as world:
            people = await world.people(count)
            wire = await bare_wire(world, far, people[: min(count, 5000)])
            service = await the_service(ground, world, far, people)
            plain = await plain_worker(world, far, people[:PLAIN_AT_MOST])
    return {
        "machine": machine(),
        "sink": far.name,
        "messages": count,
        "service": service,
        "bare_wire": wire,
        "plain_worker": plain,
        "ratio_to_bare_wire": round(service["msgs_per_s"] / wire["msgs_per_s"], 2),
        "ratio_to_plain_worker": round(service["msgs_per_s"] / plain["msgs_per_s"], 1),
    }


async def the_service(ground: Stage, world: World, far: Sink, people: list[UUID]) -> dict[str, Any]:
    """Two marketing worker processes: consent, journal, rendering, one-click headers, every row recorded durably."""
    before = await world.one("SELECT count(*) FROM workers")
    async with children(WORKERS, ground.environment(far.port)) as workers:
        await until(world, f"SELECT count(*) = {len(WORKERS)} FROM workers WHERE id > {before}")
        await world.queue(people[:500], MARKETING)  # warm: imports, templates, connections
        await ring_until_done(world, ground)
        await world.execute("ANALYZE")
        ids = await world.queue(people, MARKETING)
        cpu, began = cpu_seconds(workers), time.monotonic()
        await ring_until_done(world, ground)
        seconds, used = time.monotonic() - began, cpu_seconds(workers) - cpu
        memory = max(worker.memory_info().rss for worker in workers)
    accepted = await world.one("SELECT count(*) FROM messages WHERE state = 'accepted' AND id = ANY(%s)", ids)
    if accepted != len(ids):
        raise SystemExit(f"only {accepted} of {len(ids)} were accepted")
    return figures(len(ids), seconds, used) | {"worker_rss_mb_max": memory // 2**20}


async def bare_wire(world: World, far: Sink, people: list[UUID]) -> dict[str, Any]:
    """The same mails, rendered before the clock starts, through our SMTP client alone: no database, one process."""
    outgoing = await rendered(world, people)
    provider = SmtpProvider.from_url(
        f"smtp://127.0.0.1:{far.port}?tls=none", name="smtp", connections=4, message_id_domain=IDENTITY.list_domain
    )
    process = psutil.Process()
    cpu, began = cpu_seconds([process]), time.monotonic()
    for start in range(0, len(outgoing), 500):
        async for _ in provider.send(outgoing[start : start + 500], Blind()):
            pass
    measured = figures(len(outgoing), time.monotonic() - began, cpu_seconds([process]) - cpu)
    await provider.close()
    return measured


class Blind:
    """A witness that writes nothing."""

    is_over = False

    def about_to_commit(self, message: UUID) -> bool:
        return True

    def answered(self, message: UUID, outcome: object) -> None:
        return None


async def rendered(world: World, people: list[UUID]) -> list[Outgoing[Any]]:
    """What the service would hand to the channel."""
    await world.queue(people, MARKETING)
    provider = Scripted(take)
    async with world.worker(provider, Lane.MARKETING) as deliver:
        await deliver(())
    return provider.sent


async def plain_worker(world: World, far: Sink, people: list[UUID]) -> dict[str, Any]:
    """What one writes first: a loop that reads a row, asks for consent, renders, builds with the standard library,
    sends with smtplib over one kept connection, and commits."""
    outgoing = {one.id: one for one in await rendered(world, people)}
    process = psutil.Process()
    cpu, began = cpu_seconds([process]), time.monotonic()
    await asyncio.to_thread(plain_loop, world.database.url, far.port, outgoing)
    return figures(len(outgoing), time.monotonic() - began, cpu_seconds([process]) - cpu)


def plain_loop(url: str, port: int, outgoing: dict[UUID, Outgoing[Any]]) -> None:
    import jinja2

    page = jinja2.Environment(autoescape=True).from_string("{{ html }}")
    with psycopg.connect(url, autocommit=True) as c, smtplib.SMTP("127.0.0.1", port) as smtp:
        for id_, one in outgoing.items():
            c.execute("SELECT * FROM messages WHERE id = %s", (id_,)).fetchone()
            c.execute(
                "SELECT * FROM consents JOIN messages USING (recipient_id) WHERE messages.id = %s", (id_,)
            ).fetchall()
            page.render(html=one.content.html)
            mail = EmailMessage()
            mail["From"], mail["To"], mail["Subject"] = str(IDENTITY.sender.address), str(one.to), one.content.subject
            mail.set_content(one.content.text)
            mail.add_alternative(one.content.html, subtype="html")
            smtp.send_message(mail)
            c.execute("UPDATE messages SET reason = 'sent' WHERE id = %s", (id_,))


def figures(count: int, seconds: float, cpu: float) -> dict[str, Any]:
    return {
        "messages": count,
        "seconds": round(seconds, 2),
        "msgs_per_s": round(count / seconds),
        "cpu_us_per_msg": round(cpu / count * 1e6),
    }


async def ring_until_done(world: World, ground: Stage) -> None:
    """Stand in for the scheduler: ring, and look now and then."""
    jobs = Jobs(ground.redis_url)
    while await world.one(WAITING):
        if jobs.waiting(Lane.MARKETING) == 0:
            jobs.ring(Lane.MARKETING, ())
        await asyncio.sleep(0.02)
    jobs.close()


async def until(world: World, question: str) -> None:
    while not await world.one(question):
        await asyncio.sleep(0.05)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=20_000)
    print(json.dumps(asyncio.run(measure(parser.parse_args().messages)), indent=2))
