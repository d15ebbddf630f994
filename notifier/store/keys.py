"""The keys that product code shows at the door: stored as hashes, found by their public part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row

from notifier.store.database import Connection


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key as the database knows it: enough to recognise it, not enough to use it."""

    id: str
    name: str
    secret_hash: bytes
    scopes: Sequence[str]
    created_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None


_KEY = "id, name, secret_hash, scopes, created_at, last_used_at, revoked_at"


async def create(c: Connection, id_: str, name: str, secret_hash: bytes, scopes: Sequence[str]) -> None:
    """Store a new key."""
    await c.execute(
        "INSERT INTO api_keys (id, name, secret_hash, scopes) VALUES (%s, %s, %s, %s)",
        (id_, name, secret_hash, list(scopes)),
    )


async def find(c: Connection, id_: str) -> StoredKey | None:
    """The key with this public part, revoked or not."""
    async with c.cursor(row_factory=class_row(StoredKey)) as cursor:
        await cursor.execute(f"SELECT {_KEY} FROM api_keys WHERE id = %s", (id_,))
        return await cursor.fetchone()


async def all_keys(c: Connection) -> list[StoredKey]:
    """Every key there ever was, oldest first."""
    async with c.cursor(row_factory=class_row(StoredKey)) as cursor:
        await cursor.execute(f"SELECT {_KEY} FROM api_keys ORDER BY created_at, id")
        return await cursor.fetchall()


async def revoke(c: Connection, id_: str) -> bool:
    """End a key for good; False when there is none. Revoking twice is once."""
    cursor = await c.execute(
        "UPDATE api_keys SET revoked_at = coalesce(revoked_at, clock_timestamp()) WHERE id = %s", (id_,)
    )
    return cursor.rowcount == 1


async def touch(c: Connection, id_: str) -> None:
    """Remember that it was used, at most once a minute: many processes may say so."""
    await c.execute(
        "UPDATE api_keys SET last_used_at = clock_timestamp() WHERE id = %s"
        " AND (last_used_at IS NULL OR last_used_at < clock_timestamp() - interval '1 minute')",
        (id_,),
    )
