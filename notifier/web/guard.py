"""The door of the API: who calls, whether the route's scopes allow it, and only then the body.

A route that declares no scope cannot be built, so nothing is open by oversight.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from hmac import compare_digest
from typing import Any

import psycopg
from fastapi import Request
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.responses import Response

from notifier.domain.access import ApiKey, Caller, Scope
from notifier.errors import Forbidden
from notifier.store import keys
from notifier.store.database import Database
from notifier.web.problems import Kinds, Refused

CACHED = 2.0  #: seconds: how long a revoked key may still work
CACHE_SIZE = 1024
TOUCH_EVERY = 60.0  #: seconds
MAX_DEPTH = 20
SCOPES = "x-scopes"  #: where a route's scopes stand in OpenAPI


def needs(*scopes: Scope) -> dict[str, Any]:
    """Declare a route's scopes: a key with one of them may call it."""
    names = [str(scope) for scope in scopes]
    return {"openapi_extra": {SCOPES: names, "security": [{"key": []}]}}


class Guarded(APIRoute):
    """A route behind the door."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, reached only with a key that one of the declared scopes fits."""
        declared = frozenset(Scope(name) for name in (self.openapi_extra or {}).get(SCOPES, ()))
        if not declared:
            raise RuntimeError(f"{self.path} declares no scope")
        handle = super().get_route_handler()
        takes_body = self.body_field is not None
        needs_body = self.body_field is not None and self.body_field.field_info.is_required()

        async def guarded(request: Request) -> Response:
            caller = await request.app.state.keys.admit(request.headers.get("authorization", ""))
            if not declared & caller.scopes:
                names = " or ".join(f"`{name}`" for name in sorted(declared))
                raise Forbidden(f"This key lacks the scope {names}.")
            request.state.caller = caller
            if needs_body or (takes_body and "content-type" in request.headers):
                _refuse_other_media(request)
            return await handle(_Strict(request.scope, request.receive))

        return guarded


class Keys:
    """Recognises API keys. Remembers a good one for two seconds, so that a revocation works at once."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._database = database
        self._seen: dict[str, _Seen] = {}
        self._touched: dict[str, float] = {}
        self._under_way: set[asyncio.Task[None]] = set()

    async def admit(self, authorization: str) -> Caller:
        """The caller whose key this is; anything else is refused, always in the same words."""
        scheme, _, text = authorization.partition(" ")
        shown = ApiKey.parse(text.strip()) if scheme.lower() == "bearer" else None
        if shown is None:
            raise _UNKNOWN
        seen = self._seen.get(shown.id)
        if seen is None or seen.until < self.clock():
            seen = await self._look_up(shown.id)
        if seen is None or not compare_digest(seen.secret_hash, shown.secret_hash):
            raise _UNKNOWN
        self._touch(shown.id)
        return seen.caller

    async def _look_up(self, id_: str) -> _Seen | None:
        async with self._database.connection() as c:
            stored = await keys.find(c, id_)
        if stored is None or stored.revoked_at is not None:
            self._seen.pop(id_, None)
            return None
        if len(self._seen) >= CACHE_SIZE:
            self._seen.clear()
        caller = Caller(stored.id, frozenset(Scope(name) for name in stored.scopes))
        seen = self._seen[id_] = _Seen(stored.secret_hash, caller, self.clock() + CACHED)
        return seen

    def _touch(self, id_: str) -> None:
        """Write `last_used_at` beside the request, at most once a minute."""
        now = self.clock()
        if now - self._touched.get(id_, -TOUCH_EVERY) < TOUCH_EVERY:
            return
        self._touched[id_] = now
        task = asyncio.create_task(self._write_touch(id_))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _write_touch(self, id_: str) -> None:
        try:
            async with self._database.connection() as c:
                await keys.touch(c, id_)
        except psycopg.Error:
            self._touched.pop(id_, None)  # the next request tries again

    async def close(self) -> None:
        """Let what is being written be written."""
        await asyncio.gather(*self._under_way)


@dataclass(frozen=True, slots=True)
class _Seen:
    secret_hash: bytes
    caller: Caller
    until: float


_UNKNOWN = Refused(
    Kinds.UNAUTHENTICATED,
    "Send `Authorization: Bearer nk_...` with a key that `notifier keys create` has made and nobody has revoked.",
    {"WWW-Authenticate": "Bearer"},
)


class _Strict(Request):
    """Reads JSON without surprises: no NaN, no halves of surrogate pairs, no depth bombs."""

    async def json(self) -> Any:
        body = await self.body()
        refuse_depth(body)
        try:
            return from_json(body, allow_inf_nan=False)
        except ValueError:
            raise Refused(Kinds.INVALID_JSON, "Send one JSON value in UTF-8, with finite numbers.") from None


def _refuse_other_media(request: Request) -> None:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise Refused(Kinds.UNSUPPORTED, "Send `Content-Type: application/json`.")


def refuse_depth(body: bytes) -> None:
    """Refuse what is nested deeper than anything meant in earnest, before a parser sees it."""
    if body.count(b"{") + body.count(b"[") <= MAX_DEPTH:
        return
    depth = 0
    for token in _TOKENS.finditer(body):
        match token[0]:
            case b"{" | b"[":
                depth += 1
                if depth > MAX_DEPTH:
                    raise Refused(Kinds.INVALID_JSON, f"Nested deeper than {MAX_DEPTH} levels; flatten it.")
            case b"}" | b"]":
                depth -= 1


_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*+"|[][{}]', re.DOTALL)
