"""A request that makes something else than a notification, once per idempotency key: a repeat gets the first answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from uuid import UUID

import psycopg

from notifier.dispatch.drafts import OTHER_BODY
from notifier.domain.notifications import canonical, key_hash
from notifier.errors import InvalidInput, Problem
from notifier.store import notifications
from notifier.store.database import Connection


@dataclass(frozen=True, slots=True)
class Once:
    """What was asked, under which key; only hashes of both."""

    key_hash: bytes
    body_hash: bytes

    @classmethod
    def of(cls, key: str, what: str, body: Mapping[str, Any]) -> Once:
        """`what`: which kind of request it is, so that no key stands for two of them."""
        return cls(key_hash(key), sha256(canonical({"what": what, "body": body})).digest())

    async def answered(self, c: Connection) -> Mapping[str, Any] | None:
        """The first answer, if there was one within 7 days; raises InvalidInput when it was to another request."""
        _, first = await notifications.first_answers(c, [self.key_hash])
        found = first.get(self.key_hash)
        if found and found.body_hash != self.body_hash:
            raise InvalidInput([Problem("", OTHER_BODY)])
        return found.answer if found else None

    async def keep(self, c: Connection, id_: UUID, answer: Mapping[str, Any]) -> None:
        """Keep this as the first answer. When another request was first, the transaction runs again and finds it."""
        if not await notifications.keep_answer(c, id_, self.key_hash, self.body_hash, answer):
            raise psycopg.errors.SerializationFailure("another request was first with this key")
