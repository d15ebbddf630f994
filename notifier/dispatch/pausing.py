"""When a provider takes nothing, or nothing for one platform's devices: messages wait, and one of them tries again.

A provider that is paused is not claimed for (`deliver`). Messages to a platform that is paused are found out at the
gate, which puts them back without an attempt; so the other platforms of the same queue go on.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

import structlog

from notifier.domain import retry
from notifier.domain.messages import State
from notifier.store import providers
from notifier.store.database import Connection, Row
from notifier.store.messages import Ruling
from notifier.store.providers import Pause, of_platform
from notifier_channels.contract import Channel, Misconfigured, Outcome, Receipt, Unavailable

log = structlog.get_logger(__name__)


class Said(NamedTuple):
    """What a provider answered to one message."""

    provider: str
    platform: str | None  #: of the device that it was for
    outcome: Outcome


async def pause_or_resume(c: Connection, said: Sequence[Said]) -> None:
    """What is misconfigured or away gets nothing for a while, then one message to try it with."""
    proven = {(one.provider, one.platform) for one in said if isinstance(one.outcome, Receipt)}
    parts = {of_platform(provider, platform) for provider, platform in proven if platform}
    taken = {provider for provider, _ in proven} | parts
    pauses = {pause.provider: pause for one in said if (pause := _pause(one))}
    for pause in pauses.values():
        if pause.provider not in taken:
            log.error("provider.paused", provider=pause.provider, code=pause.code, detail=pause.detail)
            await providers.pause(c, pause)
    if taken and await providers.paused(c):
        await providers.resume(c, list(taken))


def _pause(one: Said) -> Pause | None:
    """What this answer says of more than its own message, if it does."""
    match one.outcome:
        case Misconfigured(code=code, detail=detail, platform=platform):
            name = of_platform(one.provider, platform) if platform else one.provider
        case Unavailable(code=code, detail=detail):
            name = one.provider
        case _:
            return None
    lasting = retry.pause_for(one.outcome)
    return Pause(name, code, detail, lasting) if lasting else None


async def hold(c: Connection, facts: Sequence[Row], names: Mapping[Channel, str]) -> dict[UUID, Ruling]:
    """Those of these messages whose platform is paused go back to the queue, but for one to try it with.

    One that has expired is let through: what it says of that is decided and written down like everywhere.
    """
    waiting = {
        row["id"]: of_platform(names[Channel(row["channel"])], row["platform"])
        for row in facts
        if row["platform"] and row["expires_at"] > row["now"]
    }
    if not waiting:
        return {}
    pauses = {row["provider"]: row for row in await providers.paused(c)}
    paused = set(waiting.values()) & pauses.keys()
    to_try = {name for name in sorted(paused) if await providers.take_probe(c, name, retry.PROBE_AFTER)}
    held: dict[UUID, Ruling] = {}
    for row in facts:
        if (name := waiting.get(row["id"])) not in paused:
            continue
        if name in to_try:
            to_try.remove(name)
        else:
            held[row["id"]] = _held(row, pauses[name])
    return held


def _held(row: Row, pause: Row) -> Ruling:
    due = retry.held_until(pause["since"], row["expires_at"], row["now"], random.random())
    return Ruling(row["id"], State.QUEUED, None, f"misconfigured:{pause['code']}", due)
