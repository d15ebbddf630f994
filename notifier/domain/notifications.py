"""What a caller asks for, before it is accepted: its two hashes, when it is due and when it is too late."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

from notifier.domain.access import Caller
from notifier.domain.who import Given
from notifier.errors import Problem
from notifier_channels.contract import Channel

PAST_MEANS_NOW = timedelta(minutes=5)  #: clocks differ, and requests travel
FURTHEST = timedelta(days=366)


@dataclass(frozen=True, slots=True)
class Notification:
    """One template to one recipient, asked for under one idempotency key."""

    caller: Caller
    pointer: str  #: where it stands in the request's body
    key_pointer: str  #: where its idempotency key stands
    key_hash: bytes
    body_hash: bytes
    template: str
    recipient: Given
    data: Mapping[str, Any]
    channels: tuple[Channel, ...] | None = None  #: None: those of the topic that the template has content for
    send_at: datetime | None = None
    expires_at: datetime | None = None

    def schedule(self, now: datetime, expires_after: timedelta) -> tuple[datetime, datetime]:
        """When it is due and when it expires."""
        due = max(self.send_at or now, now)
        return due, self.expires_at or due + expires_after

    def timing_problems(self, now: datetime) -> list[Problem]:
        """What is wrong with its times, seen from `now`."""
        problems = []
        if self.send_at and self.send_at < now - PAST_MEANS_NOW:
            problems.append(self.problem("send_at", "lies in the past; leave it out to send now"))
        if self.send_at and self.send_at > now + FURTHEST:
            problems.append(self.problem("send_at", "lies more than a year ahead; send it nearer to the day"))
        if self.expires_at and self.expires_at <= max(self.send_at or now, now):
            problems.append(self.problem("expires_at", "must be later than now and than send_at"))
        if self.expires_at and self.expires_at > now + 2 * FURTHEST:
            problems.append(self.problem("expires_at", "lies more than two years ahead; choose an earlier time"))
        return problems

    def problem(self, field: str, detail: str) -> Problem:
        """A problem with one of its fields."""
        return Problem(f"{self.pointer}/{field}", detail)


def key_hash(key: str) -> bytes:
    """All that is kept of an idempotency key: callers put people's names into them."""
    return sha256(key.encode()).digest()


def canonical(body: Mapping[str, Any]) -> bytes:
    """The same for bodies that say the same, whatever the order of their fields and the white space between."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
