"""Which providers are paused: they are away, or our credentials, sender or policy are wrong. Messages wait for them.

A pause may hold for one platform's devices only; it stands under the name that `of_platform` gives.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from notifier.domain.retry import PROBE_AFTER
from notifier.store.database import Connection, Row, rows


@dataclass(frozen=True, slots=True)
class Pause:
    """Why a provider takes nothing for now."""

    provider: str  #: or its part for one platform
    code: str
    detail: str
    lasting: timedelta


def of_platform(provider: str, platform: str) -> str:
    """The name of what this provider sends to the devices of one platform, e.g. `fcm/ios`."""
    return f"{provider}/{platform}"


async def pause(c: Connection, one: Pause) -> None:
    """Pause, or prolong a pause; never cut a longer one short. `since` keeps the beginning."""
    await c.execute(
        "INSERT INTO provider_pauses (provider, code, detail, paused_until)"
        " VALUES (%(provider)s, %(code)s, %(detail)s, clock_timestamp() + %(lasting)s)"
        " ON CONFLICT (provider) DO UPDATE SET code = excluded.code, detail = excluded.detail,"
        " paused_until = CASE WHEN provider_pauses.paused_until > clock_timestamp() + %(probe)s"
        " THEN provider_pauses.paused_until ELSE excluded.paused_until END",
        {
            "provider": one.provider,
            "code": one.code,
            "detail": one.detail,
            "lasting": one.lasting,
            "probe": PROBE_AFTER,
        },
    )


async def resume(c: Connection, providers: Sequence[str]) -> None:
    """They took something: end their pauses.

    One that lasts longer than a probe stands: it was reported of messages that had been taken, so that others are taken
    proves nothing. It ends with its own probe.
    """
    await c.execute(
        "DELETE FROM provider_pauses WHERE provider = ANY(%s) AND paused_until <= clock_timestamp() + %s",
        (list(providers), PROBE_AFTER),
    )


async def that_carried(c: Connection, messages: Collection[UUID]) -> dict[tuple[UUID, int], str]:
    """By message and attempt, through which provider it went."""
    found = await rows(c, "SELECT message_id, n, provider FROM attempts WHERE message_id = ANY(%s)", (list(messages),))
    return {(row["message_id"], row["n"]): row["provider"] for row in found}


async def paused(c: Connection) -> list[Row]:
    """All pauses, for the claim and for an operator's eyes."""
    return await rows(
        c,
        "SELECT provider, code, detail, since, paused_until, paused_until <= clock_timestamp() AS has_run_out"
        " FROM provider_pauses ORDER BY provider",
    )


async def take_probe(c: Connection, provider: str, lasting: timedelta) -> bool:
    """True for the one process that may try the provider again with one message; the others go on waiting."""
    found = await rows(
        c,
        "UPDATE provider_pauses SET paused_until = clock_timestamp() + %s"
        " WHERE provider = %s AND paused_until <= clock_timestamp() RETURNING provider",
        (lasting, provider),
    )
    return bool(found)


async def give_probe_back(c: Connection, provider: str) -> None:
    """The probe has proven nothing: the next message may. A pause that was prolonged meanwhile stands."""
    await c.execute(
        "UPDATE provider_pauses SET paused_until = clock_timestamp()"
        " WHERE provider = %s AND paused_until <= clock_timestamp() + %s",
        (provider, PROBE_AFTER),
    )
