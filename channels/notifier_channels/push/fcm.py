"""Push on its way: one batch after another over Google's SDK, with one outcome for each message (`contract.Provider`).

A batch goes in calls of up to `at_once` messages, which share a connection (HTTP/2). All messages of a call are on the
wire together, so that a kill leaves at most one call in doubt; the next call begins when the last one is answered.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from notifier_channels.addresses import Platform
from notifier_channels.contract import (
    EXPIRED,
    Address,
    MessageId,
    Misconfigured,
    Outcome,
    Outgoing,
    Pace,
    PushContent,
    RateLimited,
    Receipt,
    Unavailable,
    Withheld,
    Witness,
)
from notifier_channels.push import errors
from notifier_channels.push.payload import message_of, refusal
from notifier_channels.push.wire import CLOSE, TIMEOUT, CannotUseFcm, Heard, Wire
from notifier_channels.sending import ENOUGH, Blame, Doubts

if TYPE_CHECKING:
    from firebase_admin import messaging

__all__ = ["CannotUseFcm", "FcmProvider"]

log = logging.getLogger(__name__)

API_URL = "https://fcm.googleapis.com"
AGAIN = 60.0  #: seconds between two lines in the log about the same key
MOST_AT_ONCE = 500  #: what the SDK takes in one call


class FcmProvider:
    """Firebase Cloud Messaging as a way out for push (`contract.Provider[PushContent]`)."""

    def __init__(
        self,
        wire: Wire,
        *,
        name: str = "fcm",
        at_once: int = 100,
        pace: Pace | None = None,
        most_at_once: int = MOST_AT_ONCE,
    ) -> None:
        if not 1 <= at_once <= MOST_AT_ONCE:
            raise ValueError(f"a call carries 1 to {MOST_AT_ONCE} messages")
        self._wire = wire
        self._name = name
        self._at_once = at_once
        self._pace = pace
        self._most_at_once = most_at_once
        self._blame = Blame(errors.blames_us)
        self._hold = _Hold()
        self._doubts = Doubts()
        self._keys = _Keys()
        self._is_closed = False

    @classmethod
    def from_file(  # noqa: PLR0913  # one project's settings
        cls,
        credentials: Path,
        *,
        name: str = "fcm",
        at_once: int = 100,
        api_url: str = API_URL,
        timeout: float = TIMEOUT,
        pace: Pace | None = None,
        most_at_once: int = MOST_AT_ONCE,
    ) -> FcmProvider:
        """Set up with the JSON key of a service account, which also names the project. `pace` counts pushes.

        Raises:
            CannotUseFcm: the SDK is not installed, or the file is not such a key.

        """
        wire = Wire(credentials, api_url, timeout=timeout)
        return cls(wire, name=name, at_once=at_once, pace=pace, most_at_once=most_at_once)

    @property
    def name(self) -> str:
        """What stands on attempts, in metrics and in pauses."""
        return self._name

    @property
    def most_at_once(self) -> int:
        """As many as the rate lets go in a reasonable time; without one, as the service ever has in one hand."""
        return self._most_at_once

    async def send(
        self, batch: Sequence[Outgoing[PushContent]], witness: Witness
    ) -> AsyncGenerator[tuple[MessageId, Outcome], None]:
        """Try each message once and yield one outcome for each, call by call.

        Cancelled within a call, it hears the answers that are due before it ends; no other call follows.
        """
        waiting = deque(batch)
        row = _Row()
        while waiting:
            most = await self._turn(len(waiting))
            stop = row.enough() or self._stopped() or await self._wire.token.ready() or self._stopped()
            if stop is not None:
                for outgoing in waiting:
                    yield outgoing.id, stop
                return
            for outgoing, outcome in await self._send_some(waiting, most, row, witness):
                row.add(outgoing, outcome)
                yield outgoing.id, outcome

    async def close(self) -> None:
        """Wait for the calls under way and give the connections back. No other call follows."""
        if not self._is_closed:
            self._is_closed = True
            await self._wire.close()

    def _stopped(self) -> Outcome | None:
        """Why nothing may be sent now, whatever it is."""
        if self._is_closed:
            return Unavailable("closed", "the provider was closed")
        return self._hold.outcome() or self._doubts.rest()

    async def _turn(self, waiting: int) -> int:
        """Wait until the next call may go; how many it may carry."""
        most = 1 if self._doubts.are_many else min(self._at_once, waiting)
        if self._pace is not None:
            most = min(most, self._pace.together)
            await self._pace.turn(most)
        return most

    async def _send_some(
        self, waiting: deque[Outgoing[PushContent]], most: int, row: _Row, witness: Witness
    ) -> list[tuple[Outgoing[PushContent], Outcome]]:
        """Take up to `most`, which is what one call carries; ask the witness for all of them right before it."""
        settled: list[tuple[Outgoing[PushContent], Outcome]] = []
        made: list[tuple[Outgoing[PushContent], messaging.Message]] = []
        now = datetime.now(UTC)
        while waiting and len(made) < most:
            outgoing = waiting.popleft()
            if outgoing.expires_at <= now:  # the gate writes down why it was not sent
                settled.append((outgoing, EXPIRED))
            elif (refused := refusal(outgoing.content) or row.refused(outgoing)) is not None:
                settled.append((outgoing, refused))
            else:
                made.append((outgoing, message_of(outgoing, now)))
        allowed = [one for one in made if witness.about_to_commit(one[0].id)]
        committed = {outgoing.id for outgoing, _ in allowed}
        settled += [(outgoing, Withheld()) for outgoing, _ in made if outgoing.id not in committed]
        return settled + (await self._call(allowed, witness) if allowed else [])

    async def _call(
        self, allowed: Sequence[tuple[Outgoing[PushContent], messaging.Message]], witness: Witness
    ) -> list[tuple[Outgoing[PushContent], Outcome]]:
        call = self._wire.call([message for _, message in allowed])
        try:
            await asyncio.wait({call})
        except asyncio.CancelledError:
            await asyncio.wait({call}, timeout=CLOSE)
            if call.done():
                self._hear(allowed, call.result(), witness)
            call.cancel()
            raise
        return self._hear(allowed, call.result(), witness)

    def _hear(
        self,
        allowed: Sequence[tuple[Outgoing[PushContent], messaging.Message]],
        call: Sequence[Heard],
        witness: Witness,
    ) -> list[tuple[Outgoing[PushContent], Outcome]]:
        outcomes: list[tuple[Outgoing[PushContent], Outcome]] = []
        for (outgoing, _), heard in zip(allowed, call, strict=True):
            outcome = self._keys.judge(outgoing, self._blame.judge(heard.outcome))
            if heard.is_known:
                witness.answered(outgoing.id, outcome)
            self._hold.hear(heard)
            outcomes.append((outgoing, outcome))
        self._doubts.add(*(outcome for _, outcome in outcomes))
        return outcomes


class _Row:
    """The outcomes of one batch, as far as they repeat: asking on would only cost time and our good name."""

    def __init__(self) -> None:
        self._last: Outcome | None = None
        self._count = 0
        self._platforms: dict[Platform | None, Misconfigured] = {}

    def add(self, outgoing: Outgoing[PushContent], outcome: Outcome) -> None:
        if isinstance(outcome, Receipt):
            self._platforms.pop(outgoing.platform, None)
        elif isinstance(outcome, Misconfigured) and outcome.platform is not None:
            self._platforms[outcome.platform] = outcome
            return
        is_alike = type(outcome) is type(self._last)
        self._count = self._count + 1 if is_alike else 1
        self._last = outcome

    def refused(self, outgoing: Outgoing[PushContent]) -> Outcome | None:
        """What one message gets unasked, because its platform's key is refused."""
        return self._platforms.get(outgoing.platform)

    def enough(self) -> Outcome | None:
        """What the rest of the batch gets unasked."""
        is_ours = isinstance(self._last, Misconfigured) or (isinstance(self._last, Unavailable) and self._last.is_away)
        return self._last if is_ours and self._count >= ENOUGH else None


class _Hold:
    """FCM hears nothing from this process for as long as it has said, or when all that it says is "too fast"."""

    def __init__(self) -> None:
        self._until = 0.0  #: on the monotonic clock
        self._code = ""
        self._vague = 0  #: in a row

    def hear(self, heard: Heard) -> None:
        if isinstance(heard.outcome, Receipt):
            self._vague = 0
        self._vague += heard.is_vague
        if heard.hold is not None:
            self._begin(heard.outcome, heard.hold)
        elif heard.is_vague and self._vague >= ENOUGH:
            self._begin(heard.outcome, errors.WAIT)

    def _begin(self, outcome: Outcome, wait: timedelta) -> None:
        until = time.monotonic() + wait.total_seconds()
        if until > self._until:
            self._until, self._code = until, outcome.code

    def outcome(self) -> Outcome | None:
        left = self._until - time.monotonic()
        return RateLimited(self._code, timedelta(seconds=left), "FCM has asked to wait") if left > 0 else None


class _Keys:
    """Tells a key for APNs or web push that is wrong at Firebase from a device that it does not fit.

    FCM says the same of both: a build of the app for development, or a browser that subscribed with an earlier key, is
    refused while others of its platform are not (firebase-admin-node, issue 3215). So alone such a message is tried
    again; several devices of one platform, with nothing of it taken between, and it is the key's fault.
    """

    def __init__(self) -> None:
        self._refused: dict[Platform | None, set[Address]] = {}
        self._told_at = -AGAIN  #: on the monotonic clock

    def judge(self, outgoing: Outgoing[PushContent], outcome: Outcome) -> Outcome:
        """The same outcome, or what it means after several like it."""
        if isinstance(outcome, Receipt):
            self._refused.pop(outgoing.platform, None)
        elif outcome.code in errors.PLATFORM_KEYS:
            if outgoing.platform in errors.HAVE_KEYS and self._are_many(outgoing):
                return Misconfigured(outcome.code, outcome.detail, outgoing.platform)
            self._tell(outcome.code)
        return outcome

    def _are_many(self, outgoing: Outgoing[PushContent]) -> bool:
        devices = self._refused.setdefault(outgoing.platform, set())
        if len(devices) < ENOUGH:
            devices.add(outgoing.to)
        return len(devices) >= ENOUGH

    def _tell(self, code: str) -> None:
        now = time.monotonic()
        if now - self._told_at >= AGAIN:
            self._told_at = now
            log.error("push.key_refused: %s. Put the key for APNs or web push right in Firebase's console", code)
