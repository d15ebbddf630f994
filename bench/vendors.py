"""Text messages and pushes: what the service costs beside the vendor's SDK, in one run, against one local sink.

`python3 run.py bench vendors --messages 3000` prints one JSON object. For each vendor: the bare SDK in a loop, the
SDK's own best (Twilio: as many requests at once as we have connections; FCM: its batch call, in its cheapest size), and
the service with one worker process. All of them ask for the same, over TLS, as in production. Rounds are interleaved
and the median is taken: a machine is never quiet. What counts is what the sink took.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.request import urlopen
from uuid import UUID, uuid4

import psutil

from bench.deliver import figures, until
from bench.stage import Stage, children, cpu_seconds, machine, stage
from notifier.domain.messages import Lane
from notifier.jobs import Jobs
from notifier_channels.addresses import Device, DeviceKind
from notifier_channels.contract import Channel, Outgoing, PushContent
from notifier_channels.push.payload import message_of
from tests.servers.certificates import Certificates
from tests.world import TRANSACTIONAL, World

SID, TOKEN, SENDER = "AC" + "0" * 32, "an-auth-token", "+4930123456"
CONNECTIONS = 16  #: requests to Twilio at once
AT_ONCE = 100  #: messages in one call to FCM: a call of 500, the most there is, costs half as much again for each
TEXT = "Acme: your order A-1 is on its way. Follow it at https://shop.test/t/1"
SAME = {
    "from_": SENDER,
    "body": TEXT,
    "validity_period": 1800,
    "smart_encoded": False,
    "status_callback": f"https://n.test/hooks/twilio/status/v1.k1.{'a' * 26}.{'b' * 22}#rc=5&rp=all",
}  #: what the service asks for, too
RATE = "10000"  #: segments a second: more than anything here reaches
WAITING = "SELECT EXISTS (SELECT 1 FROM messages WHERE due_at IS NOT NULL OR worker_id IS NOT NULL)"

Run = Callable[[int], Awaitable[dict[str, Any]]]


async def measure(count: int, rounds: int) -> dict[str, Any]:
    with stage() as ground:
        certificates = Certificates.make(ground.state.parent)
        async with vendor_sink(certificates) as (port, secure), ground.world() as world:
            account = service_account(ground.state.parent, port)
            far = Far(port, secure, account)
            people = await world.people(count)
            vendors = {
                Channel.SMS: (twilio_loop(far), twilio_best(far), await world.phones(people)),
                Channel.PUSH: (fcm_loop(far), fcm_best(far), await world.devices(people)),
            }
            found = {}
            async with children([["worker", "--lane", "transactional"]], environment(ground, far)) as workers:
                await until(world, "SELECT count(*) = 1 FROM workers")
                for channel, (loop, best, addresses) in vendors.items():
                    serve = Service(ground, world, workers, far, channel, people, addresses)
                    for run in (loop, best, serve):
                        await run(min(count, 200))  # warm: imports, templates, connections
                    found[str(channel)] = await compared(loop, best, serve, count, rounds)
    return {"machine": machine(), "messages": count, "rounds": rounds, **found}


async def compared(loop: Run, best: Run, serve: Run, count: int, rounds: int) -> dict[str, Any]:
    """The three of them in turn, and the ratios of their medians."""
    runs: dict[str, list[dict[str, Any]]] = {"sdk_loop": [], "sdk_best": [], "service": []}
    for _ in range(rounds):
        runs["sdk_loop"].append(await loop(max(count // 4, 1)))
        runs["sdk_best"].append(await best(count))
        runs["service"].append(await serve(count))
    medians = {name: median(of) for name, of in runs.items()}
    best_cpu, cpu = medians["sdk_best"]["cpu_us_per_msg"], medians["service"]["cpu_us_per_msg"]
    return medians | {
        "cpu_ratio_to_sdk_best": round(cpu / best_cpu, 2),
        "rate_ratio_to_sdk_best": round(medians["service"]["msgs_per_s"] / medians["sdk_best"]["msgs_per_s"], 2),
        "rate_ratio_to_sdk_loop": round(medians["service"]["msgs_per_s"] / medians["sdk_loop"]["msgs_per_s"], 2),
    }


def median(runs: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        name: round(statistics.median(run[name] for run in runs))
        for name in ("messages", "msgs_per_s", "cpu_us_per_msg")
    }


# The service ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Far:
    """Where everything goes."""

    port: int
    secure: int  #: over TLS
    account: Path

    def taken(self) -> int:
        with urlopen(f"http://127.0.0.1:{self.port}/taken") as answer:
            return int(answer.read())


def environment(ground: Stage, far: Far) -> dict[str, str]:
    return ground.environment(1) | {
        "NOTIFIER_TEMPLATES_DIR": str(Path("tests/templates").resolve()),
        "NOTIFIER_TWILIO_ACCOUNT_SID": SID,
        "NOTIFIER_TWILIO_AUTH_TOKENS": TOKEN,
        "NOTIFIER_TWILIO_SENDER": SENDER,
        "NOTIFIER_TWILIO_SEGMENTS_PER_SECOND": RATE,
        "NOTIFIER_TWILIO_CONNECTIONS": str(CONNECTIONS),
        "NOTIFIER_TWILIO_API_URL": f"https://127.0.0.1:{far.secure}",
        "NOTIFIER_FCM_CREDENTIALS": str(far.account),
        "NOTIFIER_FCM_API_URL": f"https://127.0.0.1:{far.secure}",
        "SSL_CERT_FILE": os.environ["SSL_CERT_FILE"],
        "NOTIFIER_FCM_AT_ONCE": str(AT_ONCE),
    }


@dataclass(frozen=True, slots=True)
class Service:
    """One worker process: consent, journal, rendering, every row recorded durably, and the vendor's SDK."""

    ground: Stage
    world: World
    workers: list[psutil.Process]
    far: Far
    channel: Channel
    people: list[UUID]
    addresses: list[UUID]

    async def __call__(self, count: int) -> dict[str, Any]:
        to = self.addresses[:count]
        ids = await self.world.queue(self.people[:count], TRANSACTIONAL, by=self.channel, to=to)
        await self.world.execute("ANALYZE messages")
        before, cpu, began = self.far.taken(), cpu_seconds(self.workers), time.monotonic()
        await self._ring_until_done()
        measured = figures(count, time.monotonic() - began, cpu_seconds(self.workers) - cpu)
        query = "SELECT count(*) FROM messages WHERE state = 'accepted' AND id = ANY(%s)"
        accepted, took = await self.world.one(query, ids), self.far.taken() - before
        if not accepted == count == took:
            raise SystemExit(f"of {count} the sink took {took} and {accepted} stand as accepted")
        return measured

    async def _ring_until_done(self) -> None:
        """Once a second, as the scheduler does: who hears a ring goes on until nothing is due."""
        jobs, rung_at = Jobs(self.ground.redis_url), 0.0
        while await self.world.one(WAITING):
            if time.monotonic() - rung_at > 1 and jobs.waiting(Lane.TRANSACTIONAL) == 0:
                jobs.ring(Lane.TRANSACTIONAL, ())
                rung_at = time.monotonic()
            await asyncio.sleep(0.05)
        jobs.close()


# The SDKs -------------------------------------------------------------------------------------------------------------


async def clocked(count: int, far: Far, work: Awaitable[object]) -> dict[str, Any]:
    process = psutil.Process()
    before, cpu, began = far.taken(), cpu_seconds([process]), time.monotonic()
    await work
    measured = figures(count, time.monotonic() - began, cpu_seconds([process]) - cpu)
    if far.taken() - before != count:
        raise SystemExit(f"of {count} the sink took {far.taken() - before}")
    return measured


@asynccontextmanager
async def twilio_messages(port: int) -> AsyncIterator[Any]:
    """The SDK's own client and transport, with only the address changed, as Twilio's documentation shows it."""
    from twilio.http.async_http_client import AsyncTwilioHttpClient
    from twilio.rest import Client

    class Elsewhere(AsyncTwilioHttpClient):  # type: ignore[misc]  # it ships no types
        async def request(self, method: str, url: str, *args: Any, **named: Any) -> Any:
            return await super().request(
                method, url.replace("https://api.twilio.com", f"https://127.0.0.1:{port}"), *args, **named
            )

    transport = Elsewhere(pool_connections=True)
    try:
        yield Client(SID, TOKEN, http_client=transport).messages
    finally:
        await transport.session.close()


def twilio_loop(far: Far) -> Run:
    async def loop(count: int) -> None:
        async with twilio_messages(far.secure) as messages:
            for number in range(count):
                await messages.create_async(to=f"+49301{number:06}", **SAME)

    return lambda count: clocked(count, far, loop(count))


def twilio_best(far: Far) -> Run:
    async def at_once(count: int) -> None:
        gate = asyncio.Semaphore(CONNECTIONS)
        async with twilio_messages(far.secure) as messages:

            async def one(number: int) -> None:
                async with gate:
                    await messages.create_async(to=f"+49301{number:06}", **SAME)

            await asyncio.gather(*(one(number) for number in range(count)))

    return lambda count: clocked(count, far, at_once(count))


def fcm_app(far: Far) -> Any:
    import firebase_admin
    from firebase_admin import credentials, messaging

    app = firebase_admin.initialize_app(credentials.Certificate(str(far.account)), name=f"bench-{time.monotonic_ns()}")
    messaging._get_messaging_service(app)._fcm_url = f"https://127.0.0.1:{far.secure}/v1/projects/p/messages:send"  # noqa: SLF001
    return app


def pushes(count: int) -> list[Any]:
    """The same messages that the service sends: one lifetime and one way to replace on each platform."""
    now, content = datetime.now(UTC), PushContent("On its way", TEXT, link="https://shop.test/t/1", is_urgent=True)

    def made(number: int) -> Outgoing[PushContent]:
        device = Device(DeviceKind.FID, f"device-{number:015}")
        return Outgoing(uuid4(), 1, device, content, now, now + timedelta(hours=1))

    return [message_of(made(number), now) for number in range(count)]


def fcm_loop(far: Far) -> Run:
    from firebase_admin import messaging

    async def loop(count: int) -> None:
        app = fcm_app(far)
        for message in pushes(count):
            answer = await messaging.send_each_async([message], app=app)
            assert answer.success_count == 1

    return lambda count: clocked(count, far, loop(count))


def fcm_best(far: Far) -> Run:
    from firebase_admin import messaging

    async def batches(count: int) -> None:
        app, messages = fcm_app(far), pushes(count)
        for start in range(0, count, AT_ONCE):
            answer = await messaging.send_each_async(messages[start : start + AT_ONCE], app=app)
            for one in answer.responses:
                if not one.success:
                    raise SystemExit(f"the SDK could not send: {one.exception.cause!r}")

    return lambda count: clocked(count, far, batches(count))


# The far end ----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def vendor_sink(certificates: Certificates, log: Path | None = None) -> AsyncIterator[tuple[int, int]]:
    """Both vendors in a process of their own; whoever calls them from here trusts its certificate."""
    os.environ["SSL_CERT_FILE"] = str(certificates.authority)  # httpx and OpenSSL look there
    options = ["--certificate", str(certificates.good), *(["--log", str(log)] if log else [])]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.servers.vendor_sink", *options, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        port, secure = (await process.stdout.readline()).split()[-2:]
        yield int(port), int(secure)
    finally:
        process.kill()
        await process.wait()


def service_account(directory: Path, port: int) -> Path:
    """A key of its own, whose tokens come from the sink."""
    from notifier.sandbox.fcm_account import write_service_account

    path = directory / "firebase.json"
    write_service_account(path, f"http://127.0.0.1:{port}")
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")  # the SDKs warn of their own ways
    print(json.dumps(asyncio.run(measure(chosen.messages, chosen.rounds)), indent=2))
