"""Everything one process needs, built once: tools from settings, and use cases with exactly the tools each needs."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from pydantic import SecretStr

from notifier import journal
from notifier.dispatch.accept import Accept, AcceptOne
from notifier.dispatch.block import Block
from notifier.dispatch.campaigns import Campaigns
from notifier.dispatch.composing import Composer
from notifier.dispatch.confirm import Confirm
from notifier.dispatch.consequences import Consequences
from notifier.dispatch.deliver import AnyProvider, Deliver
from notifier.dispatch.devices import Devices
from notifier.dispatch.dry_run import DryRun
from notifier.dispatch.endpoints import Endpoints
from notifier.dispatch.feedback import Feedback
from notifier.dispatch.foresee import Foresee
from notifier.dispatch.fresh_links import FreshLinks
from notifier.dispatch.gate import Gate
from notifier.dispatch.inbound import Inbound
from notifier.dispatch.ingredients import Personal
from notifier.dispatch.judging import Judge
from notifier.dispatch.kept_replies import KeptReplies
from notifier.dispatch.ledger import Ledger, Look
from notifier.dispatch.lists import Lists
from notifier.dispatch.opt_out import OptOut
from notifier.dispatch.plan import Plan
from notifier.dispatch.posting import Post
from notifier.dispatch.preferences import PreferencePage
from notifier.dispatch.reckoning import Reckoning
from notifier.dispatch.reconcile import Reconcile
from notifier.dispatch.register import Register
from notifier.dispatch.rehearse import Rehearse
from notifier.dispatch.replies import Replies
from notifier.dispatch.shelf import Shelf
from notifier.dispatch.sweep import Sweep
from notifier.dispatch.timing import Timing
from notifier.dispatch.turns import Turns
from notifier.dispatch.webhooks import Webhooks
from notifier.dispatch.witness import Hold
from notifier.domain.feedback import Tolerance
from notifier.domain.messages import Lane
from notifier.domain.recipients import Hasher
from notifier.domain.tokens import Links
from notifier.domain.webhooks import Signer
from notifier.errors import NotConfigured
from notifier.jobs import Jobs
from notifier.journal import Journal
from notifier.limits import Limits
from notifier.providers import channels_of, lookers_of, providers_of, throttles_of
from notifier.rendering import Identity, Templates, bundled_directory
from notifier.settings import Settings
from notifier.store import consent, workers
from notifier.store.database import Connection, Database
from notifier.throttles import ProviderThrottle
from notifier_channels.contract import Channel

SPARE_CONNECTIONS = 4  #: beside one for each batch in hand: for sweeps, polls and the web
JOURNALS, KEPT_REPLIES = "journals", "replies"  #: below the state directory


@dataclass(frozen=True, slots=True)
class Hands:
    """What a worker process has beyond the App: its lock, its journal, its providers, and the use case they serve."""

    worker: int
    lock: Connection  #: holds the session advisory lock; nothing else runs on it but the watch
    hold: Hold
    deliver: Deliver


@dataclass(frozen=True, slots=True)
class App:
    """The service, as a value."""

    settings: Settings
    database: Database
    templates: Templates
    hasher: Hasher
    links: Links
    jobs: Jobs
    accept: Accept
    accept_one: AcceptOne
    register: Register
    devices: Devices
    lists: Lists
    opt_out: OptOut
    ledger: Ledger
    confirm: Confirm
    block: Block
    preferences: PreferencePage
    fresh_links: FreshLinks
    feedback: Feedback
    inbound: Inbound
    replies: KeptReplies
    sweep: Sweep
    dry_run: DryRun
    plan: Plan
    timing: Timing
    endpoints: Endpoints
    foresee: Foresee
    campaigns: Campaigns
    rehearse: Rehearse

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[App]:
        """Build it, connect, and give everything back at the end.

        Raises:
            NotConfigured: a setting is wrong.
            TemplateError: a template does not load.
            psycopg_pool.PoolTimeout: PostgreSQL does not answer.

        """
        app = cls._build(settings)
        await app.database.open()
        try:
            yield app
        finally:
            await app.database.close()
            app.jobs.close()

    @classmethod
    def _build(cls, settings: Settings) -> App:
        identity = Identity.from_settings(settings)
        templates = Templates.load(settings.templates_dir or bundled_directory(), identity, settings.default_locale)
        batches = max(settings.worker_threads, settings.marketing_threads)
        database = Database(
            settings.database_url.get_secret_value(),
            connections=batches + SPARE_CONNECTIONS,
            writes_events=settings.events,
        )
        jobs = Jobs(settings.redis_url.get_secret_value())
        timeout = timedelta(seconds=settings.send_timeout_seconds)
        hasher = Hasher(_keys(settings.hash_keys))
        keys = _keys(settings.link_keys)
        links = Links(keys, settings.public_url, settings.inbound_domain, settings.reference_header)
        feedback = Feedback(database, hasher, templates.topics, Tolerance(settings.soft_bounces))
        replies = Replies(
            database,
            hasher,
            templates.topics,
            sender=settings.sender_name,
            contact=settings.reply_to or settings.sender_address,
            default_locale=settings.default_locale,
        )
        timing = Timing.from_settings(settings)
        accept = Accept(database, templates, jobs, channels_of(settings))
        return cls(
            settings=settings,
            database=database,
            templates=templates,
            hasher=hasher,
            links=links,
            jobs=jobs,
            accept=accept,
            accept_one=AcceptOne(accept),
            register=Register(database, hasher, templates.topics),
            devices=Devices(database, hasher),
            lists=Lists(hasher),
            opt_out=OptOut(database, links, hasher, templates.topics),
            ledger=Ledger(database, Look(hasher, templates.topics)),
            block=Block(hasher),
            confirm=Confirm(database, templates, jobs, hasher, links, channels_of(settings)),
            preferences=PreferencePage(database, links, hasher, templates.topics),
            fresh_links=FreshLinks(database, templates, jobs, hasher, channels_of(settings)),
            feedback=feedback,
            inbound=Inbound(database, links, hasher, templates.topics, feedback),
            replies=KeptReplies(replies, settings.state_dir.absolute() / KEPT_REPLIES),
            sweep=Sweep(database, jobs, Consequences(hasher, templates.topics), journal.boot_id(), timeout),
            dry_run=_dry_run(settings, database, Judge(templates, Shelf(templates), timing, hasher), links),
            plan=Plan(database, jobs, templates, Shelf(templates), channels_of(settings), settings.default_timezone),
            timing=timing,
            endpoints=endpoints_of(settings),
            foresee=Foresee(hasher, templates, timing),
            campaigns=Campaigns(templates, channels_of(settings)),
            rehearse=Rehearse(templates, channels_of(settings)),
        )

    @asynccontextmanager
    async def hands(self, lane: Lane) -> AsyncIterator[Hands]:
        """Enter a worker: take its lock and its journal, connect its providers."""
        journals = writable(self.settings.state_dir.absolute() / JOURNALS)
        async with await self.database.connect() as lock:
            await consent.listen(lock)
            worker = await workers.register(lock, lane, journal.boot_id(), journals)
            limits = Limits(self.settings.redis_url.get_secret_value())
            providers = providers_of(self.settings, lane, limits)
            throttles = throttles_of(self.settings, lane, limits)
            deliver = self._deliver(lane, worker.id, Journal(worker.journal), providers, throttles, limits)
            try:
                yield Hands(worker.id, lock, deliver.hold, deliver)
            finally:
                for provider in providers.values():
                    await provider.close()
                await limits.close()

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[Reconcile]:
        """Enter the scheduler: connect the providers that can be asked what they took."""
        providers = lookers_of(self.settings)
        try:
            yield Reconcile(self.database, providers, self.hasher)
        finally:
            for provider in providers.values():
                await provider.close()

    @asynccontextmanager
    async def telling(self) -> AsyncIterator[Webhooks]:
        """Enter the scheduler's other half: webhooks to product code."""

        def post(url: str) -> Post:
            return Post(url, is_production=self.settings.is_production)

        webhooks = Webhooks(self.database, self.endpoints.signer, post)
        try:
            yield webhooks
        finally:
            await webhooks.close()

    def _deliver(
        self,
        lane: Lane,
        worker: int,
        notebook: Journal,
        providers: Mapping[Channel, AnyProvider],
        throttles: Mapping[Channel, ProviderThrottle],
        limits: Limits,
    ) -> Deliver:
        settings = self.settings
        shelf = Shelf(self.templates)
        names = {channel: provider.name for channel, provider in providers.items()}
        return Deliver(
            database=self.database,
            gate=Gate(worker, Judge(self.templates, shelf, self.timing, self.hasher), names),
            compose=Composer(shelf, _personal(settings, self.links), notebook),
            providers=providers,
            throttles=throttles,
            turns=Turns(providers, settings.marketing_threads if lane is Lane.MARKETING else settings.worker_threads),
            limits=limits,
            consequences=Consequences(self.hasher, self.templates.topics),
            journal=notebook,
            hold=Hold(),
            lane=lane,
            worker=worker,
            batch_size=settings.batch_size,
            send_timeout=timedelta(seconds=settings.send_timeout_seconds),
        )


def writable(place: Path) -> Path:
    """A directory below NOTIFIER_STATE_DIR, made for this account alone when it is new.

    Raises:
        NotConfigured: this process may not write there; a full disk is no such mistake, and passes.

    """
    why = os.strerror(errno.EACCES)
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        why = error.strerror or why
    if not os.access(place, os.W_OK | os.X_OK):
        raise NotConfigured(f"NOTIFIER_STATE_DIR: {place} cannot be written ({why}): name a directory that can")
    return place


def _personal(settings: Settings, links: Links) -> Personal:
    return Personal(links, settings.default_locale, settings.default_timezone)


def _dry_run(settings: Settings, database: Database, judge: Judge, links: Links) -> DryRun:
    return DryRun(
        database=database,
        reckoning=Reckoning(judge, _personal(settings, links), settings.sms_segment_price),
        channels=channels_of(settings),
        default_timezone=settings.default_timezone,
        segments_per_second=settings.twilio_segments_per_second,
    )


def endpoints_of(settings: Settings) -> Endpoints:
    """Where events are sent; it needs no more of the service than its settings."""
    signer = Signer(_keys(settings.link_keys))
    return Endpoints(signer, is_production=settings.is_production, writes_events=settings.events)


def _keys(keys: Mapping[str, SecretStr]) -> dict[str, bytes]:
    return {name: secret.get_secret_value().encode() for name, secret in keys.items()}
