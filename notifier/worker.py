"""A worker process of one lane: hears rings, holds its lock, and brings what is due to an outcome until told to stop.

It ends by itself when something is wrong that a fresh process mends.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from uuid import UUID

import dramatiq
import psycopg
import structlog
from dramatiq.asyncio import EventLoopThread, get_event_loop_thread
from dramatiq.middleware.asyncio import AsyncIO

from notifier import jobs, niceness
from notifier.app import App, Hands
from notifier.domain.messages import Lane
from notifier.errors import NotConfigured, TemplateError
from notifier.settings import Settings
from notifier.store.consent import Heard
from notifier.telemetry import where

log = structlog.get_logger(__name__)

PREFETCH = 16
IDLE_MS = 250  #: how often dramatiq's idle threads look whether they are to stop
HEARTBEAT = 1.0  #: seconds between looks at the lock, and between polls while Redis is away
LOCK_ANSWERS = 5.0  #: seconds that a look may take
LEAVE = 2.0  #: seconds of the shutdown time that are kept for writing outcomes
STOP = (signal.SIGTERM, signal.SIGINT)
EXIT_NOT_CONFIGURED = 2  #: starting again would not help
EXIT_LOST = 75  #: EX_TEMPFAIL: start me again


def run_worker(settings: Settings, lane: Lane) -> int:
    """Work until SIGTERM or SIGINT, or until the lock or the database is lost; returns the exit status."""
    _use_uvloop()
    if lane is Lane.MARKETING:
        niceness.step_back(settings.marketing_nice)
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP)  # before any thread is: `wait` takes them
    worker = _Worker(settings, lane)
    try:
        worker.start()
    except (NotConfigured, TemplateError) as error:
        log.error("worker.not_configured", problem=str(error))
        os._exit(EXIT_NOT_CONFIGURED)
    except Exception as error:  # noqa: BLE001  # threads that wait for work would keep the process up
        log.error("worker.did_not_start", error=type(error).__name__, at=where(error))
        os._exit(EXIT_LOST)
    worker.wait()
    return worker.shut_down()


class _Worker:
    """The parts of the process: dramatiq's threads that hear rings, and one event loop that does the work."""

    def __init__(self, settings: Settings, lane: Lane) -> None:
        self.stop = threading.Event()
        self._settings = settings
        self._lane = lane
        self._stack = AsyncExitStack()
        self._ready = asyncio.Event()
        self._turns = 0  #: of the event loop, about one a second
        self._app: App
        self._hands: Hands
        self._broker = jobs.broker(settings.redis_url.get_secret_value(), [_Loop(self._close)])
        threads = settings.marketing_threads if lane is Lane.MARKETING else settings.worker_threads
        self._listener = dramatiq.Worker(
            self._broker, queues={str(lane)}, worker_timeout=IDLE_MS, worker_threads=threads
        )
        self._listener.queue_prefetch = PREFETCH

    def start(self) -> None:
        """Listen, put right what dead workers left on this machine, take up the lock, and work."""
        actor = dramatiq.actor(broker=self._broker, actor_name=jobs.ACTOR, queue_name=str(self._lane))
        actor(self._deliver)
        self._listener.start()
        _event_loop().run_coroutine(self._open())

    def wait(self) -> None:
        """Sleep until told to stop; a loop that no longer turns is hung, and ends here with all that it holds.

        Seconds are counted, not measured: a machine that slept has not hung.
        """
        last, still = self._turns, 0
        while not self.stop.is_set() and signal.sigtimedwait(STOP, 1) is None:
            still = still + 1 if self._turns == last else 0
            last = self._turns
            if still >= self._settings.watchdog_seconds:
                log.error("worker.hung", seconds=still)
                os._exit(EXIT_LOST)  # the journal names what was being rendered

    def shut_down(self) -> int:
        """Stop claiming at once, let what is on the wire finish, and end within the shutdown time."""
        limit = self._settings.shutdown_seconds
        self._hands.hold.closing = True
        self._hands.hold.drained_by = time.monotonic() + limit - LEAVE
        watchdog = threading.Timer(limit, os._exit, (EXIT_LOST,))  # the journal speaks for what is left
        watchdog.daemon = True
        watchdog.start()
        self._listener.stop(timeout=int(limit * 1000))
        watchdog.cancel()
        return EXIT_LOST if self._hands.hold.lost else 0

    async def _deliver(self, ids: Sequence[str]) -> None:
        """The actor: somebody rang."""
        await self._ready.wait()
        await self._bring(tuple(UUID(hex=id_) for id_ in ids))

    async def _bring(self, ids: Sequence[UUID]) -> None:
        try:
            await self._hands.deliver(ids)
        except Exception as error:  # noqa: BLE001  # whatever it is, a fresh process and the journal mend it
            log.error("worker.gives_up", error=type(error).__name__, at=where(error))
            self._lose()

    async def _open(self) -> None:
        self._app = await self._stack.enter_async_context(App.open(self._settings))
        await self._app.sweep.recover()
        self._hands = await self._stack.enter_async_context(self._app.hands(self._lane))
        self._lock_watch = asyncio.create_task(self._watch_lock())
        self._poll = asyncio.create_task(self._poll_while_redis_is_away())
        _spare_the_collector()
        self._ready.set()
        log.info("worker.started", lane=self._lane, worker=self._hands.worker)

    async def _close(self) -> None:
        self._lock_watch.cancel()
        await self._poll
        await self._stack.aclose()

    async def _watch_lock(self) -> None:
        """Notice within seconds that the session that holds the lock is gone; hear of each no in the meantime."""
        lock, hold = self._hands.lock, self._hands.hold
        while True:
            try:
                async for heard in lock.notifies(timeout=HEARTBEAT):
                    hold.hear(Heard.parse(heard.payload))
                async with asyncio.timeout(LOCK_ANSWERS):
                    await lock.execute("SELECT 1")
            except (psycopg.Error, TimeoutError):
                log.error("worker.lock_lost")
                self._lose()
                return
            self._turns += 1

    async def _poll_while_redis_is_away(self) -> None:
        while not self._hands.hold.closing:
            if await asyncio.to_thread(self._app.jobs.waiting, self._lane) is None:
                await self._bring(())
            await asyncio.sleep(HEARTBEAT)

    def _lose(self) -> None:
        """The right to send is gone, and with it the reason to live: a fresh process takes over."""
        self._hands.hold.lost = True
        self._hands.hold.closing = True
        self.stop.set()


class _Loop(AsyncIO):
    """dramatiq's event loop thread, which gives everything back before it ends."""

    def __init__(self, close: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self._close = close

    def after_worker_shutdown(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        """Close in the loop, then end it."""
        _event_loop().run_coroutine(self._close())
        super().after_worker_shutdown(broker, worker)  # type: ignore[no-untyped-call]  # dramatiq types it in part


def _event_loop() -> EventLoopThread:
    loop = get_event_loop_thread()
    if loop is None:
        raise RuntimeError("the AsyncIO middleware has not started its loop")
    return loop


def _spare_the_collector() -> None:
    """Leave what was made at the start out of every search for garbage, and search less often.

    A batch makes thousands of objects that live until it is settled; at Python's own pace, looking through all that
    was ever imported for each of them took a tenth of what a message costs.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def _use_uvloop() -> None:
    if sys.platform != "win32":
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
