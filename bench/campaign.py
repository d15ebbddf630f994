"""How fast a campaign goes out, beside Postfix's smtp-source and, if wanted, what people write today, in the same run.

`python3 run.py bench campaign --recipients 100000 --template fields --json campaign.json [--peer bullmq|celery]` makes
people in bulk, a tenth of them without consent, runs the real service (two marketing workers, the scheduler, durable
commits, all rows) against Postfix's smtp-sink, and prints one JSON object. Only what the sink has counted was sent.
With `--recipients 10000,100000,1000000 --rounds 3` it sets sizes beside one another.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
from psycopg.types.json import Jsonb

from bench.audience import FIRST, Person, people, settle
from bench.deliver import until
from bench.meter import Used, metered
from bench.peers import PEERS, Arrivals, Peer, arriving, measured
from bench.sizes import compared, several
from bench.stage import SECRET, Sink, Stage, children, machine, postfix_program, sink, stage
from notifier.domain.messages import Lane
from notifier.domain.recipients import Hasher
from notifier.embedded import leashed
from notifier.rendering import Templates
from notifier.store import templates
from notifier.store.database import rows
from notifier_channels.email import mime
from tests.world import IDENTITY, Scripted, World, take

TEMPLATES = Path(__file__).parent / "templates"
HASHER = Hasher({"k1": SECRET.encode()})  #: as the service's own, by `Stage.environment`
WORKERS = [["worker", "--lane", "marketing"]] * 2
SCHEDULER = [["scheduler"]]
WARM = 500  #: people of a first campaign: imports, templates, connections
WARM_COHORT, COHORT = "warm", "all"
SESSIONS = 50  #: of smtp-source, each reused
SOURCE_MESSAGES = 20_000  #: in each of its two runs


async def measure(count: int, template: str, peer: type[Peer] | None, share: int) -> dict[str, Any]:
    """The peer, the limit, the service and the limit again: one after the other, on the same machine and sink."""
    load = round(os.getloadavg()[0], 2)
    with stage() as ground:
        known = Templates.load(TEMPLATES, IDENTITY, "en")
        async with sink(ground.state.parent) as far, ground.world(known) as world:
            warm = settle(ground.database_url, people(WARM, template, WARM_COHORT), HASHER)
            size = await mail_bytes(world, template, warm[0])
            first = settle(ground.database_url, people(count, template, COHORT), HASHER)
            beside = await the_peer(peer(ground, far), known, template, first[:share], far) if peer else {}
            before = await smtp_source(far, size)
            service, arrivals = await the_service(ground, world, far, template, count)
            after = await smtp_source(far, size)
    found = {"machine": machine() | {"load_before": load}, "template": template, "mail_bytes": size}
    found |= {"recipients": count, **service}
    found |= beside_the_wire(service["msgs_per_s"], before, after)
    if beside:
        steady = arrivals.per_s()
        found |= {"msgs_per_s_on_peers_clock": round(steady), **beside}
        found["ratio_to_peer"] = round(steady / beside["peer_msgs_per_s"], 1)
    return found


async def the_peer(peer: Peer, known: Templates, template: str, whom: Sequence[Person], far: Sink) -> dict[str, Any]:
    """What people write today, before the service has left rows behind for PostgreSQL to tidy up."""
    chosen = known.find(template)
    assert chosen is not None
    return await measured(peer, chosen, whom, far)


async def the_service(
    ground: Stage, world: World, far: Sink, template: str, count: int
) -> tuple[dict[str, Any], Arrivals]:
    """From the campaign's start to its end: planning, consent, journal, rendering, one-click headers, every row.

    Returns also when its mails arrived, which is what a peer's clock goes by.
    """
    environment = ground.environment(far.port) | {"NOTIFIER_TEMPLATES_DIR": str(TEMPLATES)}
    earlier = await world.one("SELECT coalesce(max(id), 0) FROM workers")
    async with children(WORKERS, environment) as workers, children(SCHEDULER, environment) as scheduler:
        await until(world, f"SELECT count(*) = {len(WORKERS)} FROM workers WHERE id > {earlier}")
        await until_finished(world, await start_campaign(world, template, WARM_COHORT))
        components = parts(ground, far, workers, scheduler)
        counted = far.received()
        async with metered(components, watched="workers") as used, arriving(far) as arrivals:
            began = time.monotonic()
            campaign = await start_campaign(world, template, COHORT)
            await until_finished(world, campaign)
            seconds = time.monotonic() - began
        sent, suppressed = await outcome(world, campaign)
    received = far.received() - counted
    if not sent == received or sent + suppressed != count:
        raise SystemExit(f"of {count} people {suppressed} were held back and {sent} sent; the sink took {received}")
    found = {"sent": sent, "sink_received": received, "suppressed": suppressed, **figures(sent, seconds, used)}
    return found, arrivals


def parts(
    ground: Stage, far: Sink, workers: list[psutil.Process], scheduler: list[psutil.Process]
) -> dict[str, list[psutil.Process]]:
    """Whose CPU is counted."""
    servers = {name: [process] for name, process in ground.servers.items()}
    return {"workers": workers, "scheduler": scheduler, **servers, "sink": [far.process]}


def figures(sent: int, seconds: float, used: Used) -> dict[str, Any]:
    """`cpu_us_per_msg` is that of our own processes; the servers and the sink stand beside it."""
    each = {name: round(cpu / sent * 1e6) for name, cpu in used.cpu.items()}
    return {
        "seconds": round(seconds, 2),
        "msgs_per_s": round(sent / seconds),
        "cpu_us_per_msg": each["workers"] + each["scheduler"],
        "cpu_us_per_msg_by_component": each,
        "worker_rss_mb_max": round(used.rss / 2**20),
    }


# The campaign --------------------------------------------------------------------------------------------------------

_SCHEDULE = """
INSERT INTO campaigns (id, name, state, template, data, audience, schedule, created_by, template_version, topic,
                       category, scheduled_at, expires_at)
VALUES (uuidv7(), %(cohort)s, 'scheduled', %(template)s, %(data)s, %(audience)s, '{"at": null}', 'bench', %(version)s,
        %(topic)s, 'marketing', now(), now() + interval '3 days')
RETURNING id
"""
_OUTCOME = """
SELECT count(*) FILTER (WHERE state = 'accepted') AS sent, count(*) FILTER (WHERE state = 'suppressed') AS suppressed
FROM messages WHERE campaign_id = %s
"""


async def start_campaign(world: World, template: str, cohort: str, data: Mapping[str, Any] | None = None) -> UUID:
    """Have this template sent to everybody whose attribute `cohort` says so, from now on. `data`: the same for all."""
    found = world.templates.find(template)
    assert found is not None
    async with world.database.connection() as c, c.transaction():
        version = await templates.register(c, found)
        audience = {"filter": {"attribute": "cohort", "equals": cohort}}
        asked = {"cohort": cohort, "template": template, "audience": Jsonb(audience), "data": Jsonb(dict(data or {}))}
        asked |= {"version": version, "topic": found.topic.key}
        campaign: UUID = (await rows(c, _SCHEDULE, asked))[0]["id"]
    return campaign


async def until_finished(world: World, campaign: UUID) -> None:
    """Wait for the planner to say that nothing of it is left to do."""
    while (state := await world.one("SELECT state FROM campaigns WHERE id = %s", campaign)) != "finished":
        if state == "paused":
            raise SystemExit("the campaign has stopped by itself; the workers' log says why")
        await asyncio.sleep(0.02)


async def outcome(world: World, campaign: UUID) -> tuple[int, int]:
    """How many were sent, and how many were held back for want of consent."""
    async with world.database.connection() as c:
        found = (await rows(c, _OUTCOME, (campaign,)))[0]
    return found["sent"], found["suppressed"]


# The wire ------------------------------------------------------------------------------------------------------------


async def mail_bytes(world: World, template: str, one: Person) -> int:
    """How long a mail of this template is: its sample to one person, as the service hands it to the channel."""
    provider = Scripted(take)
    await world.queue([one.id], template)
    async with world.worker(provider, Lane.MARKETING) as deliver:
        await deliver(())
    [outgoing] = provider.sent
    return len(mime.encode(outgoing, one.address, IDENTITY.list_domain))


async def smtp_source(far: Sink, size: int) -> float:
    """Mails a second that Postfix's own client brings into the same sink: no data, no rows, no pipelining."""
    program = postfix_program("smtp-source")
    assert program is not None
    options = ["-d", "-s", str(SESSIONS), "-m", str(SOURCE_MESSAGES), "-l", str(size)]
    counted, began = far.received(), time.monotonic()
    command = [program, *options, f"inet:127.0.0.1:{far.port}"]
    process = await asyncio.create_subprocess_exec(*leashed(command, death=signal.SIGKILL))
    if await process.wait() or far.received() - counted != SOURCE_MESSAGES:
        raise SystemExit(f"smtp-source ended with {process.returncode}; the sink took {far.received() - counted}")
    return SOURCE_MESSAGES / (time.monotonic() - began)


def beside_the_wire(rate: int, before: float, after: float) -> dict[str, Any]:
    """The service beside the mean of the two runs of smtp-source."""
    limit = statistics.mean((before, after))
    return {
        "smtp_source_per_s": round(limit),
        "smtp_source_per_s_before_and_after": [round(before), round(after)],
        "ratio_to_smtp_source": round(rate / limit, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipients", type=several, default=[10_000], help="how many; or several, such as 1000,10000")
    parser.add_argument("--rounds", type=int, default=1, help="how often each number of them is measured")
    parser.add_argument("--template", choices=["fields", "loops"], default="fields")
    parser.add_argument("--json", type=Path, help="also write the figures into this file")
    parser.add_argument("--peer", choices=sorted(PEERS))
    parser.add_argument("--peer-recipients", type=int, default=FIRST)
    chosen = parser.parse_args()
    peer = PEERS[chosen.peer] if chosen.peer else None
    if not (postfix_program("smtp-sink") and postfix_program("smtp-source")):
        parser.error("smtp-sink and smtp-source are missing: install Postfix, for example with `apt install postfix`")
    if peer and (missing := peer.missing()):
        parser.error(f"{peer.name} needs {missing}")
    if not 1 <= chosen.peer_recipients <= FIRST:
        parser.error(f"--peer-recipients is a number from 1 to {FIRST}")
    if chosen.rounds < 1:
        parser.error("--rounds is a number from 1")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what was started ends in order

    def run(count: int) -> dict[str, Any]:
        return asyncio.run(measure(count, chosen.template, peer, chosen.peer_recipients))

    sizes = chosen.recipients
    found = run(sizes[0]) if len(sizes) == chosen.rounds == 1 else compared(run, sizes, chosen.rounds)
    text = json.dumps(found, indent=2)
    if chosen.json:
        chosen.json.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
