"""Tells product code what happened: plans each event for each endpoint, sends what is due, tries again, gives up.

A part of the scheduler. Each endpoint has a task of its own, so that one that is down or slow delays nobody, and what
is planned is a row: a crash between sending and writing that down means one repeat, under the same `webhook-id`.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

import structlog

from notifier.dispatch.posting import Answer, Post
from notifier.domain.webhooks import Signer, pause, signed, wait
from notifier.store import webhooks
from notifier.store.database import AWAY, Connection, Database
from notifier.store.webhooks import Delivery, Endpoint, Missed
from notifier.telemetry import where

log = structlog.get_logger(__name__)

AT_ONCE = 8  #: requests to one endpoint; one when it has just failed
LEASE = timedelta(seconds=60)  #: well over the longest that a batch can be on the wire


@dataclass(slots=True)
class Webhooks:
    """One look at the endpoints: for each that is ready and has nobody at work, somebody begins."""

    database: Database
    signer: Signer
    post: Callable[[str], Post]  #: to an endpoint's URL
    _at_work: dict[UUID, asyncio.Task[None]] = field(default_factory=dict)

    async def __call__(self) -> None:
        """Begin with whatever is ready; what is under way goes on by itself."""
        self._at_work = {id_: task for id_, task in self._at_work.items() if not task.done()}
        async with self.database.connection() as c:
            ready = await webhooks.ready(c)
        for endpoint in ready:
            if endpoint.id not in self._at_work:
                self._at_work[endpoint.id] = asyncio.create_task(self._guarded(endpoint))

    async def close(self) -> None:
        """Stop. What is on the wire is sent once more by whoever comes next."""
        for task in self._at_work.values():
            task.cancel()
        await asyncio.gather(*self._at_work.values(), return_exceptions=True)

    async def settled(self) -> None:
        """Wait until nobody is at work."""
        await asyncio.gather(*self._at_work.values())

    async def _guarded(self, endpoint: Endpoint) -> None:
        """A mistake with one endpoint is no reason to stop sweeping."""
        try:
            await self.serve(endpoint)
        except AWAY as error:
            log.warning("webhook.waits", endpoint=str(endpoint.id), error=type(error).__name__)
        except Exception as error:  # noqa: BLE001  # whatever it is, the other endpoints and the sweep go on
            log.error("webhook.broke", endpoint=str(endpoint.id), error=type(error).__name__, at=where(error))

    async def serve(self, endpoint: Endpoint) -> None:
        """Send what is due, in the order of events, until nothing is or nothing is taken."""
        secret = self.signer.secret(endpoint.id, endpoint.key_id)
        if secret is None:
            await self._disable(endpoint, "key_missing")
            return
        at_once = 1 if endpoint.failures else AT_ONCE
        async with self.post(endpoint.url) as post:
            while True:
                more = await self.database.transact(lambda c: webhooks.plan(c, endpoint.id))
                due = await self._claim(endpoint, at_once)
                if not due and not more:
                    return
                answers = await asyncio.gather(*(_send(post, secret, one) for one in due))
                if due and not await self._record(endpoint, due, answers):
                    return
                at_once = AT_ONCE

    async def _claim(self, endpoint: Endpoint, limit: int) -> list[Delivery]:
        return await self.database.transact(lambda c: webhooks.claim(c, endpoint.id, limit, LEASE))

    async def _record(self, endpoint: Endpoint, sent: Sequence[Delivery], answers: Sequence[Answer]) -> bool:
        """Write down what came of it; False when the endpoint is to be left alone."""
        pairs = list(zip(sent, answers, strict=True))
        taken = [one.event.at for one, answer in pairs if answer.is_taken]
        left = [
            Missed(one.event.at, answer.code, wait(one.tries, random.random()))
            for one, answer in pairs
            if not answer.is_taken
        ]

        async def write(c: Connection) -> int:
            await webhooks.delivered(c, endpoint.id, taken)
            given_up = await webhooks.missed(c, endpoint.id, left) if left else []
            if taken:
                await webhooks.worked(c, endpoint.id)
            else:
                await webhooks.failed(c, endpoint.id, pause(endpoint.failures + 1, random.random()))
            return len(given_up)

        given_up = await self.database.transact(write)
        if left:
            codes = sorted({one.code for one in left})
            log.warning("webhook.not_taken", endpoint=str(endpoint.id), events=len(left), codes=codes)
        if given_up:
            log.error("webhook.gave_up", endpoint=str(endpoint.id), events=given_up)
        if any(answer.is_gone for answer in answers):
            await self._disable(endpoint, "gone")
            return False
        return bool(taken)

    async def _disable(self, endpoint: Endpoint, why: str) -> None:
        async with self.database.connection() as c:
            await webhooks.disable(c, endpoint.id, why)
        log.error("webhook.disabled", endpoint=str(endpoint.id), why=why)


async def _send(post: Post, secret: str, one: Delivery) -> Answer:
    body = json.dumps(one.event.body, separators=(",", ":"), ensure_ascii=False).encode()
    return await post(signed(secret, str(one.event.at), datetime.now(UTC), body), body)
