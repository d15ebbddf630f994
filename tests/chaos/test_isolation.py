"""A campaign's backlog, and whatever became of its provider, delays no password reset (I10).

Real processes. That the transactional messages came first is seen from what is left: when the last one is accepted, the
backlog is still there.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from notifier.domain.messages import Lane
from notifier.store import workers
from notifier.store.database import rows
from tests.chaos.fleet import LANES, UNDER_WAY, fleet
from tests.world import MANDATORY, MARKETING, World

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300), pytest.mark.xdist_group("chaos")]

BACKLOG = 4000
RESETS = 40


@pytest.fixture
def world(database, tmp_path) -> World:
    return World(database, tmp_path / "journals")


@contextmanager
def a_relay_that_hangs() -> Iterator[str]:
    """The kernel takes the connections, and nothing is ever said."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(512)
        yield f"smtp://127.0.0.1:{deaf.getsockname()[1]}?tls=none"


@contextmanager
def a_relay_that_refuses() -> Iterator[str]:
    """Nobody listens."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        yield f"smtp://127.0.0.1:{closed.getsockname()[1]}?tls=none"


async def backlog(world: World) -> int:
    return await world.one(f"SELECT count(*) FROM messages WHERE lane = 'marketing' AND {UNDER_WAY}")


@pytest.mark.parametrize(
    ("marketings_relay", "settings", "least_left"),
    [
        (a_relay_that_hangs, {}, BACKLOG),
        (a_relay_that_refuses, {}, BACKLOG),
        (None, {"NOTIFIER_SMTP_RATE": "50"}, BACKLOG // 2),
    ],
    ids=["its relay hangs", "its relay refuses", "both lanes share a narrow rate"],
)
async def test_a_campaigns_backlog_does_not_delay_a_password_reset(
    world, redis_url, tmp_path, marketings_relay, settings, least_left
):
    people = await world.people(BACKLOG)
    await world.queue(people, MARKETING)
    with marketings_relay() if marketings_relay else nullcontext() as url:
        own = {"NOTIFIER_SMTP_MARKETING_URL": url} if url else {}
        async with fleet(world, redis_url, tmp_path, **own, **settings) as crew:
            await crew.until_begun(len(LANES))
            begun = "SELECT count(*) FROM attempts a JOIN messages m ON m.id = a.message_id WHERE m.lane = 'marketing'"
            while not await world.one(begun):
                await asyncio.sleep(0.05)
            resets = await world.queue(people[:RESETS], MANDATORY)
            while {state for state, _ in await world.states(resets)} != {"accepted"}:
                await asyncio.sleep(0.05)
            assert await backlog(world) >= least_left
        assert {id_: times for id_, times in crew.accepted().items() if id_ in resets} == dict.fromkeys(resets, 1)


def niceness(process: int) -> set[int]:
    """Of each thread: Linux keeps one for each."""
    return {os.getpriority(os.PRIO_PROCESS, int(thread.name)) for thread in Path(f"/proc/{process}/task").iterdir()}


async def server_niceness(world: World) -> dict[Lane, set[int]]:
    """Of PostgreSQL's processes: each worker's lock says which connection is its own."""
    async with world.database.connection() as c:
        found = await rows(
            c,
            "SELECT w.lane, l.pid FROM workers w JOIN pg_locks l ON l.locktype = 'advisory' AND l.objid = w.id"
            " AND l.classid = %s WHERE w.ended_at IS NULL",
            (workers.LOCK_CLASS,),
        )
    nice: dict[Lane, set[int]] = {lane: set() for lane in Lane}
    for row in found:
        nice[Lane(row["lane"])].add(os.getpriority(os.PRIO_PROCESS, row["pid"]))
    return nice


@pytest.mark.parametrize(("set_to", "steps"), [("", 10), ("0", 0)])
async def test_marketing_workers_step_back_for_everybody_else(world, redis_url, tmp_path, set_to, steps):
    own = os.getpriority(os.PRIO_PROCESS, 0)
    async with fleet(world, redis_url, tmp_path, NOTIFIER_MARKETING_NICE=set_to) as crew:
        await crew.until_begun(len(LANES))
        seen = {name: niceness(crew.processes[name].pid) for name in crew.workers}
        servers = await server_niceness(world)
    for name, nice in seen.items():
        assert nice == {min(own + steps, 19) if "marketing" in name else own}, name
    assert servers == {Lane.TRANSACTIONAL: {own}, Lane.MARKETING: {min(own + steps, 19)}}
