"""What product code calls: hands notifications to the service, safely repeated, and reads back what became of them.

    from notifier.client import Notifier

    with Notifier("https://notifier.internal", "nk_...") as notifier:
        accepted = notifier.send("password-reset", to={"email": "ann@example.com"}, data={...})

`AsyncNotifier` is the same with `await`. Both only carry bytes: what is asked, what an answer means and when to ask
again is decided once, in the values and functions below.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeAlias, TypedDict, TypeVar, Unpack
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ConfigDict, TypeAdapter

T = TypeVar("T")
Json: TypeAlias = Mapping[str, Any]

RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
FIRST_WAIT, LONGEST_WAIT = 0.25, 20.0  #: seconds
TRIES = 5


# What comes back ------------------------------------------------------------------------------------------------------


class _Answer(BaseModel):
    """Fields that a newer service adds do no harm."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class MessageRef(_Answer):
    """One message to one address on one channel."""

    id: uuid.UUID
    channel: str


class Accepted(_Answer):
    """The service has it, and does not lose it. `replayed`: it had it before, under the same key."""

    id: uuid.UUID
    created_at: datetime
    messages: tuple[MessageRef, ...]
    replayed: bool = False


class MessageState(MessageRef):
    """How a message stands."""

    state: str
    reason: str | None
    due_at: datetime | None
    expires_at: datetime


class RecipientRef(_Answer):
    """Whom: without an id when only an address was named."""

    id: str | None


class NotificationRecord(_Answer):
    """A notification and how its messages stand."""

    id: uuid.UUID
    template: str
    category: str
    recipient: RecipientRef
    created_at: datetime
    cancelled_at: datetime | None
    messages: tuple[MessageState, ...]


class Happening(_Answer):
    """One thing that happened to a message."""

    at: datetime
    what: str
    attempt: int | None = None
    state: str | None = None
    provider: str | None = None
    code: str | None = None
    reference: str | None = None
    detail: str | None = None
    settled_at: datetime | None = None


class MessageRecord(MessageState):
    """A message with everything that happened to it and why."""

    notification_id: uuid.UUID | None
    recipient: RecipientRef
    template: str
    topic: str
    category: str
    decision: dict[str, Any] | None
    timeline: tuple[Happening, ...]


class TooLate(_Answer):
    """A message that could not be cancelled any more."""

    id: uuid.UUID
    state: str


class Cancelled(_Answer):
    """What a cancellation came in time for, and what not."""

    id: uuid.UUID
    cancelled: tuple[uuid.UUID, ...]
    too_late: tuple[TooLate, ...]


class Recipient(_Answer):
    """A recipient as stored."""

    id: str
    email: str | None
    phone: str | None
    locale: str | None
    timezone: str | None
    attributes: dict[str, Any]
    created_at: datetime
    updated_at: datetime


class BadLine(_Answer):
    """What is wrong with a line of an import."""

    line: int
    pointer: str
    detail: str


class Imported(_Answer):
    """What came of an import."""

    lines: int
    stored: int
    created: int
    grants: int
    problems: tuple[BadLine, ...]
    problems_left_out: int


# What can go wrong ----------------------------------------------------------------------------------------------------


class FieldError(_Answer):
    """One mistake: where (JSON pointer), and what to do."""

    pointer: str
    detail: str


class Problem(_Answer):
    """Why the service refused (RFC 9457)."""

    type: str = "about:blank"
    title: str = ""
    status: int
    detail: str = ""
    errors: tuple[FieldError, ...] = ()


class NotifierError(Exception):
    """Something did not work. The text names fields and remedies, never what was sent."""


class Refused(NotifierError):
    """The service refused; asking the same again will not help."""

    def __init__(self, problem: Problem) -> None:
        lines = [f"{problem.status} {problem.title} {problem.detail}".strip()]
        super().__init__(
            "\n".join([*lines, *(f"  {error.pointer or '/'}: {error.detail}" for error in problem.errors)])
        )
        self.problem = problem


class Unreachable(NotifierError):
    """The service could not be asked, or did not answer well, however often. With the same key it is safe to go on."""

    def __init__(self, why: str, idempotency_key: str | None) -> None:
        super().__init__(why)
        self.idempotency_key = idempotency_key


# What is asked --------------------------------------------------------------------------------------------------------


def _new_key() -> str:
    return str(uuid.uuid4())


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """One template to one recipient. Its key is made with it, so that sending this value again sends nothing twice."""

    template: str
    to: Json = field(repr=False)  #: `id`, `email`, `phone`, `locale`, `timezone`: a known id, or an address, or both
    data: Json = field(default_factory=dict, repr=False)
    channels: Sequence[str] | None = None
    send_at: datetime | None = None
    expires_at: datetime | None = None
    idempotency_key: str = field(default_factory=_new_key)

    @property
    def body(self) -> dict[str, Any]:
        """What the API takes."""
        optional = {"channels": self.channels, "send_at": self.send_at, "expires_at": self.expires_at}
        given = {name: value for name, value in optional.items() if value is not None}
        return {"template": self.template, "recipient": self.to, "data": self.data, **given}


class Options(TypedDict, total=False):
    """What may be said of a notification besides."""

    channels: Sequence[str]
    send_at: datetime
    expires_at: datetime
    idempotency_key: str


class RecipientFields(TypedDict, total=False):
    """What may be said of a recipient: what is left out stays as it is, and None removes."""

    email: str | None
    phone: str | None
    locale: str | None
    timezone: str | None
    attributes: Json


@dataclass(frozen=True, slots=True)
class _Call(Generic[T]):
    """One request, and how to read its answer. Carried by either client, as often as it takes."""

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    content: bytes | None = field(default=None, repr=False)
    media_type: str = "application/json"
    key: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        found = {"Content-Type": self.media_type} if self.content is not None else {}
        return found | ({"Idempotency-Key": self.key} if self.key else {})


def _model(kind: type[T]) -> Callable[[httpx.Response], T]:
    adapter = TypeAdapter(kind)
    return lambda response: adapter.validate_json(response.content)


def _read_accepted(response: httpx.Response) -> Accepted:
    accepted = Accepted.model_validate_json(response.content)
    return accepted.model_copy(update={"replayed": "Idempotent-Replayed" in response.headers})


def _read_batch(response: httpx.Response) -> tuple[Accepted, ...]:
    return TypeAdapter(dict[Literal["notifications"], tuple[Accepted, ...]]).validate_json(response.content)[
        "notifications"
    ]


def _body(value: object) -> bytes:
    return json.dumps(value, default=_plain, ensure_ascii=False).encode()


def _plain(value: object) -> object:
    match value:
        case datetime() if value.tzinfo is None:
            raise ValueError("A time without its zone would be a guess: use datetime.now(timezone.utc) or the like.")
        case datetime():
            return value.isoformat()
        case uuid.UUID():
            return str(value)
        case Mapping():
            return dict(value)
        case _:
            raise TypeError(f"{type(value).__name__} is not plain JSON; turn it into text, numbers, lists or mappings.")


class _Calls:
    """Builds every call; the two clients differ only in how they carry it."""

    @staticmethod
    def send(one: Notification) -> _Call[Accepted]:
        return _Call("POST", "/v1/notifications", _read_accepted, _body(one.body), key=one.idempotency_key)

    @staticmethod
    def send_batch(many: Sequence[Notification]) -> _Call[tuple[Accepted, ...]]:
        items = [one.body | {"idempotency_key": one.idempotency_key} for one in many]
        return _Call("POST", "/v1/notifications/batch", _read_batch, _body({"notifications": items}))

    @staticmethod
    def notification(id_: uuid.UUID | str) -> _Call[NotificationRecord]:
        return _Call("GET", f"/v1/notifications/{_segment(id_)}", _model(NotificationRecord))

    @staticmethod
    def message(id_: uuid.UUID | str) -> _Call[MessageRecord]:
        return _Call("GET", f"/v1/messages/{_segment(id_)}", _model(MessageRecord))

    @staticmethod
    def cancel(id_: uuid.UUID | str) -> _Call[Cancelled]:
        return _Call("POST", f"/v1/notifications/{_segment(id_)}/cancel", _model(Cancelled))

    @staticmethod
    def put_recipient(id_: str, fields: RecipientFields) -> _Call[Recipient]:
        return _Call("PUT", f"/v1/recipients/{_segment(id_)}", _model(Recipient), _body(fields))

    @staticmethod
    def recipient(id_: str) -> _Call[Recipient]:
        return _Call("GET", f"/v1/recipients/{_segment(id_)}", _model(Recipient))

    @staticmethod
    def import_recipients(people: Iterable[Json] | str | bytes) -> _Call[Imported]:
        if isinstance(people, str | bytes):
            content, media_type = people.encode() if isinstance(people, str) else people, "text/csv"
        else:
            content, media_type = b"\n".join(_body(person) for person in people), "application/x-ndjson"
        return _Call("POST", "/v1/recipients/import", _model(Imported), content, media_type)


def _segment(value: uuid.UUID | str) -> str:
    return quote(str(value), safe="")


# When to ask again ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Again:
    """Ask once more after `wait` seconds."""

    wait: float


def _judge(call: _Call[T], tried: int, tries: int, answer: httpx.Response | httpx.TransportError) -> T | _Again:
    """What an answer means. Every call is safe to repeat: sends carry keys, the others say how things shall be."""
    if isinstance(answer, httpx.Response) and answer.is_success:
        return call.read(answer)
    if isinstance(answer, httpx.Response) and answer.status_code not in RETRIED:
        raise Refused(_problem(answer))
    if tried < tries:
        return _Again(_wait(tried, answer))
    if isinstance(answer, httpx.Response) and answer.status_code < 500:
        raise Refused(_problem(answer))
    what = f"answered {answer.status_code}" if isinstance(answer, httpx.Response) else type(answer).__name__
    raise Unreachable(f"The service did not take it in {tries} tries: {what}.", call.key)


def _wait(tried: int, answer: httpx.Response | httpx.TransportError) -> float:
    """As long as the service asks for, else doubling, spread so that callers do not come back all at once."""
    backoff: float = min(LONGEST_WAIT, FIRST_WAIT * 2**tried) * random.uniform(0.5, 1)
    asked = answer.headers.get("Retry-After", "") if isinstance(answer, httpx.Response) else ""
    return min(LONGEST_WAIT, max(float(asked), backoff)) if asked.isdecimal() else backoff


def _problem(response: httpx.Response) -> Problem:
    try:
        return Problem.model_validate_json(response.content)
    except ValueError:
        return Problem(status=response.status_code, title=response.reason_phrase)


# The two clients ------------------------------------------------------------------------------------------------------


class Notifier:
    """The client for ordinary code. Safe to share between threads; close it, or use it in a `with`."""

    def __init__(
        self,
        url: str,
        key: str,
        *,
        tries: int = TRIES,
        timeout: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._tries = tries
        self._http = httpx.Client(base_url=url, headers=_headers(key), timeout=timeout, transport=transport)

    def send(self, template: str, *, to: Json, data: Json | None = None, **options: Unpack[Options]) -> Accepted:
        """Hand over one notification. Tried again by itself under one key, until the service has it or refuses."""
        return self._ask(_Calls.send(Notification(template=template, to=to, data=data or {}, **options)))

    def send_batch(self, notifications: Sequence[Notification]) -> tuple[Accepted, ...]:
        """Hand over up to 1,000 and 4 MB, all or none."""
        return self._ask(_Calls.send_batch(notifications))

    def cancel(self, notification: uuid.UUID | str) -> Cancelled:
        """Cancel what is still waiting."""
        return self._ask(_Calls.cancel(notification))

    def notification(self, id_: uuid.UUID | str) -> NotificationRecord:
        """A notification and how its messages stand."""
        return self._ask(_Calls.notification(id_))

    def message(self, id_: uuid.UUID | str) -> MessageRecord:
        """A message with everything that happened to it and why."""
        return self._ask(_Calls.message(id_))

    def put_recipient(self, id_: str, **fields: Unpack[RecipientFields]) -> Recipient:
        """Keep what is said of a recipient."""
        return self._ask(_Calls.put_recipient(id_, fields))

    def recipient(self, id_: str) -> Recipient:
        """A recipient as stored."""
        return self._ask(_Calls.recipient(id_))

    def import_recipients(self, people: Iterable[Json] | str | bytes) -> Imported:
        """Keep many: mappings as the API's import lines, or the text of a CSV file."""
        return self._ask(_Calls.import_recipients(people))

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _t: type[BaseException] | None, _e: BaseException | None, _b: TracebackType | None) -> None:
        self.close()

    def _ask(self, call: _Call[T]) -> T:
        for tried in itertools.count(1):
            try:
                answer = self._http.request(call.method, call.path, content=call.content, headers=call.headers)
                meant = _judge(call, tried, self._tries, answer)
            except httpx.TransportError as error:
                meant = _judge(call, tried, self._tries, error)
            if not isinstance(meant, _Again):
                return meant
            time.sleep(meant.wait)
        raise AssertionError("unreachable")


class AsyncNotifier:
    """The same for asyncio."""

    def __init__(
        self,
        url: str,
        key: str,
        *,
        tries: int = TRIES,
        timeout: float = 30.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._tries = tries
        self._http = httpx.AsyncClient(base_url=url, headers=_headers(key), timeout=timeout, transport=transport)

    async def send(self, template: str, *, to: Json, data: Json | None = None, **options: Unpack[Options]) -> Accepted:
        """Hand over one notification. Tried again by itself under one key, until the service has it or refuses."""
        return await self._ask(_Calls.send(Notification(template=template, to=to, data=data or {}, **options)))

    async def send_batch(self, notifications: Sequence[Notification]) -> tuple[Accepted, ...]:
        """Hand over up to 1,000 and 4 MB, all or none."""
        return await self._ask(_Calls.send_batch(notifications))

    async def cancel(self, notification: uuid.UUID | str) -> Cancelled:
        """Cancel what is still waiting."""
        return await self._ask(_Calls.cancel(notification))

    async def notification(self, id_: uuid.UUID | str) -> NotificationRecord:
        """A notification and how its messages stand."""
        return await self._ask(_Calls.notification(id_))

    async def message(self, id_: uuid.UUID | str) -> MessageRecord:
        """A message with everything that happened to it and why."""
        return await self._ask(_Calls.message(id_))

    async def put_recipient(self, id_: str, **fields: Unpack[RecipientFields]) -> Recipient:
        """Keep what is said of a recipient."""
        return await self._ask(_Calls.put_recipient(id_, fields))

    async def recipient(self, id_: str) -> Recipient:
        """A recipient as stored."""
        return await self._ask(_Calls.recipient(id_))

    async def import_recipients(self, people: Iterable[Json] | str | bytes) -> Imported:
        """Keep many: mappings as the API's import lines, or the text of a CSV file."""
        return await self._ask(_Calls.import_recipients(people))

    async def close(self) -> None:
        """Give the connections back."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _t: type[BaseException] | None, _e: BaseException | None, _b: TracebackType | None
    ) -> None:
        await self.close()

    async def _ask(self, call: _Call[T]) -> T:
        for tried in itertools.count(1):
            try:
                answer = await self._http.request(call.method, call.path, content=call.content, headers=call.headers)
                meant = _judge(call, tried, self._tries, answer)
            except httpx.TransportError as error:
                meant = _judge(call, tried, self._tries, error)
            if not isinstance(meant, _Again):
                return meant
            await asyncio.sleep(meant.wait)
        raise AssertionError("unreachable")


def _headers(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}", "User-Agent": "notifier-dispatch"}
