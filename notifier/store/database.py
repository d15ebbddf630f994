"""The way to PostgreSQL: one pool per process, transactions that survive a deadlock, and migrations."""

from __future__ import annotations

import asyncio
import json
import random
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import NoneType
from typing import Any, TypeAlias, TypeVar
from uuid import UUID
from weakref import WeakKeyDictionary

import psycopg
from psycopg.abc import Buffer
from psycopg.postgres import types
from psycopg.rows import TupleRow, dict_row
from psycopg.types.array import ListBinaryDumper
from psycopg.types.json import set_json_loads
from psycopg_pool import AsyncConnectionPool

from notifier import niceness

Connection: TypeAlias = psycopg.AsyncConnection[TupleRow]
Row: TypeAlias = dict[str, Any]
Parameters: TypeAlias = Sequence[Any] | Mapping[str, Any] | None
T = TypeVar("T")

MIGRATIONS = Path(__file__).parent / "migrations"
MIGRATION_LOCK = 7_305_110  #: an advisory lock: two processes that migrate at once take turns
MIGRATION_WAITS = "10s"  #: for each lock on a table
DEADLOCK_RETRIES = 5
TRUSTED = 0.5  #: seconds for which a connection that was given back in order is taken as it is
PATIENCE = 5.0  #: seconds to wait for a connection; then whoever asked is told to come back

# A client that is stopped, cut off or gone with its machine must not keep locks that an opt-out waits for, nor the lock
# that says a worker is alive: the server looks for itself. What libpq calls keepalives only finds dead servers.
SESSION = """
SET idle_in_transaction_session_timeout = '15s';
SET tcp_keepalives_idle = 5;
SET tcp_keepalives_interval = 2;
SET tcp_keepalives_count = 3;
"""

AWAY = (
    psycopg.OperationalError,
    psycopg.errors.ReadOnlySqlTransaction,
    psycopg.errors.IdleInTransactionSessionTimeout,
)
"""The database is gone, full, or a copy that takes no writes: to be tried again."""

_CLIENT: Mapping[str, Any] = {
    "autocommit": True,
    "application_name": "notifier",
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
}


UUID_OID = types["uuid"].oid
TEXT_OID = types["text"].oid
NO_EVENTS = "SET notifier.events = 'off';"  # what the triggers of the outbox ask for


class Column(ListBinaryDumper):
    """Lists as PostgreSQL's binary arrays: a third of what text costs, and no quoting.

    A batch sends a dozen values with each message. psycopg asks its dumper of each element, one after the other; a
    column of ids or of texts is written down here at once, for a quarter of that (array_recv in PostgreSQL's
    arrayfuncs.c).
    """

    def dump(self, obj: list[Any]) -> Buffer | None:
        """One dimension, whether there are nulls, the element's type, its length, counted from 1; then each."""
        kinds = {*map(type, obj)}
        if kinds == {UUID}:
            return _HEAD.pack(1, 0, UUID_OID, len(obj), 1) + b"".join(
                [_ID + one.int.to_bytes(16, "big") for one in obj]
            )
        if kinds and kinds <= _TEXTS and kinds != {NoneType}:
            known = {one: _NULL if one is None else _text(one) for one in {*obj}}  # states, codes: mostly the same few
            has_nulls = NoneType in kinds
            return _HEAD.pack(1, has_nulls, TEXT_OID, len(obj), 1) + b"".join([known[one] for one in obj])
        return super().dump(obj)


def _from_json(data: bytes | bytearray | str) -> Any:
    """A jsonb is UTF-8 and begins at once: `json.loads` looks whether it is and does, for each person of a batch."""
    return _JSON.raw_decode(data if isinstance(data, str) else data.decode())[0]


_JSON = json.JSONDecoder()


def _text(one: str) -> bytes:
    raw = one.encode()
    return _LENGTH.pack(len(raw)) + raw


_HEAD = struct.Struct("!iiIii")
_LENGTH = struct.Struct("!i")
_ID = _LENGTH.pack(16)
_NULL = _LENGTH.pack(-1)
_TEXTS = {str, NoneType}


class Database:
    """A pool of connections to the one PostgreSQL."""

    def __init__(self, url: str, *, connections: int = 8, writes_events: bool = True) -> None:
        self.url = url
        self._session = SESSION if writes_events else SESSION + NO_EVENTS
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            url,
            min_size=1,
            max_size=connections,
            open=False,
            timeout=PATIENCE,
            kwargs=dict(_CLIENT),
            configure=self._set_up,
            check=self._check,
        )
        self._used_at: WeakKeyDictionary[Connection, float] = WeakKeyDictionary()  #: on the monotonic clock

    async def open(self) -> None:
        """Connect; raises psycopg_pool.PoolTimeout when the server does not answer within 10 s."""
        try:
            await self._pool.open(wait=True, timeout=10)
        except BaseException:
            await self._pool.close()  # its workers swallow the one cancellation that a loop gives them as it ends
            raise

    async def close(self) -> None:
        """Give all connections back."""
        await self._pool.close()

    async def connect(self, *, is_read_only: bool = False) -> Connection:
        """A connection of its own, in no pool: for a lock that lasts as long as its process, or for long work.

        `is_read_only`: it can neither write nor lock a row.
        """
        connection = await psycopg.AsyncConnection.connect(self.url, **_CLIENT)
        await self._set_up(connection)
        if is_read_only:
            await connection.execute("SET default_transaction_read_only = on")
        return connection

    async def _set_up(self, connection: Connection) -> None:
        connection.adapters.register_dumper(list, Column)
        set_json_loads(_from_json, connection)
        await connection.execute(self._session)
        if connection.info.host.startswith("/"):  # a socket: the server is on this machine, and its number means it
            await _share_niceness(connection.info.backend_pid)

    async def _check(self, connection: Connection) -> None:
        """Raises psycopg.OperationalError when the server has gone.

        What was of use just now need not prove it. If the server goes in that instant, whoever takes it finds out.
        """
        if time.monotonic() - self._used_at.get(connection, 0.0) > TRUSTED:
            await AsyncConnectionPool.check_connection(connection)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection in autocommit, for reads."""
        async with self._pool.connection() as connection:
            yield connection
            self._used_at[connection] = time.monotonic()

    async def transact(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Run `work` in one READ COMMITTED transaction; a deadlock or a lost race (40P01, 40001) runs it again."""
        for turn in range(DEADLOCK_RETRIES):
            try:
                async with self.connection() as connection, connection.transaction():
                    return await work(connection)
            except (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure):
                if turn == DEADLOCK_RETRIES - 1:
                    raise
                await asyncio.sleep(random.uniform(0, 0.02 * 2**turn))
        raise AssertionError("unreachable")


async def _share_niceness(server: int) -> None:
    for _ in range(niceness.RETRIES):
        try:
            niceness.share(server)
        except BlockingIOError:
            await asyncio.sleep(random.uniform(*niceness.PAUSE))
        else:
            return


async def rows(connection: Connection, query: str, parameters: Parameters = None) -> list[Row]:
    """Fetch all rows of a query as dictionaries."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(query, parameters)
        return await cursor.fetchall()


async def tuples(connection: Connection, query: str, parameters: Parameters = None) -> list[TupleRow]:
    """Fetch all rows of a query as tuples: for what is made into something else at once, row by row."""
    cursor = await connection.execute(query, parameters)
    return await cursor.fetchall()


def migrate(url: str) -> None:
    """Bring the schema to the newest version. Safe to call from many processes at once.

    Whoever asks for a table that a migration waits for waits behind it, the transactional lane too: so it waits for
    `MIGRATION_WAITS` at most, and then leaves everything as it was.

    Raises:
        ConnectionError: the server cannot be reached, refuses, or is ahead, or somebody holds a table for too long.

    """
    from alembic import command
    from alembic.config import Config
    from alembic.util.exc import CommandError
    from sqlalchemy import create_engine, pool, text
    from sqlalchemy.exc import DBAPIError, OperationalError

    # libpq reads the URL, as everywhere else: SQLAlchemy knows neither several hosts nor `host=... dbname=...`.
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url), poolclass=pool.NullPool)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    try:
        connecting = engine.connect()
    except OperationalError:
        raise ConnectionError("PostgreSQL cannot be reached: start it, or mend DATABASE_URL") from None
    with connecting as connection:
        connection.execute(text(f"SELECT pg_advisory_lock({MIGRATION_LOCK})"))
        connection.execute(text(f"SET lock_timeout = '{MIGRATION_WAITS}'"))
        connection.commit()
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError:
            detail = "The database is of a newer version than this one: run that version's `notifier migrate`"
            raise ConnectionError(detail) from None
        except DBAPIError as error:
            if (refusal := _refusal(error.orig)) is None:
                raise
            raise ConnectionError(refusal) from None


def _refusal(error: BaseException | None) -> str | None:
    """What an operator is told when a migration changed nothing; None: it is a mistake of its own."""
    match error:
        case psycopg.errors.LockNotAvailable():
            remedy = "stop schedulers and workers, end what runs long, and migrate again"
            return f"A table was held for more than {MIGRATION_WAITS}: {remedy}"
        case psycopg.errors.InsufficientPrivilege():
            return "The user of DATABASE_URL may not change the schema: let it own the database, or name one that does"
        case psycopg.errors.ReadOnlySqlTransaction():
            return "DATABASE_URL leads to a server that takes no writes, such as a standby: name the primary"
        case psycopg.OperationalError():
            return f"PostgreSQL broke off ({type(error).__name__}): see its log, and migrate again"
        case _:
            return None
