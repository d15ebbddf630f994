"""The scheduler process: sweeps, plans campaigns and foresees them, asks providers about doubt, tells product code.

Nothing is lost while it is down, and two of them do no harm. Who is slow to answer, be it a provider or an endpoint,
holds up no sweep.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from notifier.app import App
from notifier.errors import NotConfigured, TemplateError
from notifier.settings import Settings
from notifier.store.database import AWAY
from notifier.telemetry import where
from notifier.worker import EXIT_LOST, EXIT_NOT_CONFIGURED

log = structlog.get_logger(__name__)

SWEEP_EVERY = 1.0  #: seconds
PLAN_EVERY = 0.2  #: seconds
FORGET_EVERY = 3600.0  #: seconds


def run_scheduler(settings: Settings) -> int:
    """Work until SIGTERM or SIGINT; returns the exit status."""
    try:
        return asyncio.run(_schedule(settings))
    except (NotConfigured, TemplateError) as error:
        log.error("scheduler.not_configured", problem=str(error))
        return EXIT_NOT_CONFIGURED
    except AWAY as error:
        log.error("scheduler.did_not_start", error=type(error).__name__)
        return EXIT_LOST
    except Exception as error:  # noqa: BLE001  # its text may quote a row; whatever it is, a fresh process mends it
        log.error("scheduler.gives_up", error=type(error).__name__, at=where(error))
        return EXIT_LOST


async def _schedule(settings: Settings) -> int:
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    async with App.open(settings) as app, app.asking() as reconcile, app.telling() as webhooks:
        log.info("scheduler.started")

        async def sweep() -> None:
            await app.sweep(asked=reconcile.providers.keys())

        async def dry_run() -> None:
            await app.dry_run(stop.is_set)

        ended = await asyncio.gather(
            _repeat(sweep, SWEEP_EVERY, stop),
            _repeat(app.plan, PLAN_EVERY, stop),
            _repeat(reconcile, SWEEP_EVERY, stop),
            _repeat(webhooks, SWEEP_EVERY, stop),
            _repeat(dry_run, SWEEP_EVERY, stop),
            _forget(app, stop),
            return_exceptions=True,  # all of them end before what they stand on is given back
        )
    if failed := [one for one in ended if isinstance(one, BaseException)]:
        raise failed[0]
    return 0


async def _forget(app: App, stop: asyncio.Event) -> None:
    await _repeat(app.sweep.forget, FORGET_EVERY, stop)


async def _repeat(work: Callable[[], Awaitable[None]], every: float, stop: asyncio.Event) -> None:
    """Do it now and again, until told to stop. While the database is away, wait; another error ends the process.

    Who fails tells the others to stop: a query that is cancelled may raise what looks like a database that is away.
    """
    while not stop.is_set():
        started = time.monotonic()
        try:
            await work()
        except AWAY as error:
            log.warning("sweep.waits", error=type(error).__name__)
            every_ = SWEEP_EVERY
        except BaseException:
            stop.set()
            raise
        else:
            every_ = every
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), max(0.0, every_ - (time.monotonic() - started)))
