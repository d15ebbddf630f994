"""Devices: what an app says of itself, beside the address row that messages name. Each has one owner at a time."""

from __future__ import annotations

from collections.abc import Sequence

from notifier.store.database import Connection


async def remove_dead(c: Connection, hashes: Sequence[bytes]) -> None:
    """Nobody holds these devices any more. Their holders are locked."""
    if hashes:
        await c.execute(
            "UPDATE addresses SET removed_at = clock_timestamp()"
            " WHERE channel = 'push' AND address_hash = ANY(%s) AND removed_at IS NULL",
            (list(hashes),),
        )
