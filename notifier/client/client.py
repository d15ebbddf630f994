"""The two clients: one for ordinary code, one for asyncio. Both only carry what `calls` builds and `again` judges."""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Self, TypeVar, Unpack

import httpx

from notifier.client.again import Again, judge
from notifier.client.answers import (
    Accepted,
    AudienceCount,
    Cancelled,
    Device,
    Event,
    Imported,
    MessageRecord,
    NotificationRecord,
    Recipient,
    UploadedList,
)
from notifier.client.calls import Call, Calls, DeviceFields, Json, Notification, Options, RecipientFields
from notifier.client.campaigns import AsyncCampaigns, Campaigns

T = TypeVar("T")

TRIES = 5
PIECE = 500  #: events, or lists, in one answer


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
        self.campaigns = Campaigns(self._ask, self._stream)

    def send(self, template: str, *, to: Json, data: Json | None = None, **options: Unpack[Options]) -> Accepted:
        """Hand over one notification. Tried again by itself under one key, until the service has it or refuses."""
        return self._ask(Calls.send(Notification(template=template, to=to, data=data or {}, **options)))

    def send_batch(self, notifications: Sequence[Notification]) -> tuple[Accepted, ...]:
        """Hand over up to 1,000 and 4 MB, all or none."""
        return self._ask(Calls.send_batch(notifications))

    def cancel(self, notification: uuid.UUID | str) -> Cancelled:
        """Cancel what is still waiting."""
        return self._ask(Calls.cancel(notification))

    def notification(self, id_: uuid.UUID | str) -> NotificationRecord:
        """A notification and how its messages stand."""
        return self._ask(Calls.notification(id_))

    def message(self, id_: uuid.UUID | str) -> MessageRecord:
        """A message with everything that happened to it and why."""
        return self._ask(Calls.message(id_))

    def put_recipient(self, id_: str, **fields: Unpack[RecipientFields]) -> Recipient:
        """Keep what is said of a recipient."""
        return self._ask(Calls.put_recipient(id_, fields))

    def recipient(self, id_: str) -> Recipient:
        """A recipient as stored."""
        return self._ask(Calls.recipient(id_))

    def import_recipients(self, people: Iterable[Json] | str | bytes) -> Imported:
        """Keep many: mappings as the API's import lines, or the text of a CSV file."""
        return self._ask(Calls.import_recipients(people))

    def register_device(self, recipient: str, *, platform: str, **fields: Unpack[DeviceFields]) -> Device:
        """Keep a device, or refresh it: at each start of the app, and whenever its `fid` or `token` changes."""
        return self._ask(Calls.register_device(recipient, platform, fields))

    def devices(self, recipient: str) -> tuple[Device, ...]:
        """The devices of a recipient."""
        return self._ask(Calls.devices(recipient))

    def remove_device(self, recipient: str, device: uuid.UUID | str) -> None:
        """Take a device away, as at logout."""
        self._ask(Calls.remove_device(recipient, device))

    def count_audience(self, audience: Json, sample: int = 10) -> AudienceCount:
        """Count the people of an audience and see some of them, before a campaign is made of it."""
        return self._ask(Calls.count_audience(audience, sample))

    def upload_list(self, name: str, csv: str | bytes) -> UploadedList:
        """Keep a list of people for campaigns: a CSV file with a column `id`, `email` or `phone`. It creates nobody."""
        return self._ask(Calls.upload_list(name, csv))

    def uploaded_list(self, id_: uuid.UUID | str) -> UploadedList:
        """A list and what came of its lines."""
        return self._ask(Calls.uploaded_list(id_))

    def uploaded_lists(self) -> Iterator[UploadedList]:
        """All lists, the newest first."""
        before, more = None, True
        while more:
            page = self._ask(Calls.uploaded_lists(before, PIECE))
            yield from page.lists
            before, more = page.next, page.next is not None

    def remove_list(self, id_: uuid.UUID | str) -> None:
        """Remove a list. Refused while a campaign that is not over names it."""
        self._ask(Calls.remove_list(id_))

    def events(self, after: str | None = None, types: Sequence[str] = ()) -> Iterator[Event]:
        """What happened after an event's id, in order, up to now; keep the last id for the next time.

        `after`: None begins with what is kept, 30 days; `types`: such as `message.*`, default all.
        """
        more = True
        while more:
            page = self._ask(Calls.events(after, types, PIECE))
            yield from page.events
            after, more = page.cursor, page.more

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _t: type[BaseException] | None, _e: BaseException | None, _b: TracebackType | None) -> None:
        self.close()

    def _ask(self, call: Call[T]) -> T:
        for tried in itertools.count(1):
            try:
                answer = self._http.request(call.method, call.path, content=call.content, headers=call.headers)
                meant = judge(call, tried, self._tries, answer)
            except httpx.RequestError as error:
                meant = judge(call, tried, self._tries, error)
            if not isinstance(meant, Again):
                return meant
            time.sleep(meant.wait)
        raise AssertionError("unreachable")

    def _stream(self, call: Call[None]) -> Iterator[bytes]:
        """A large answer as it comes. Tried again until it begins; what breaks off later is the caller's to ask."""
        for tried in itertools.count(1):
            begun = False
            try:
                with self._http.stream(call.method, call.path, headers=call.headers) as answer:
                    if begun := answer.is_success:
                        yield from answer.iter_bytes()
                        return
                    answer.read()
                meant = judge(call, tried, self._tries, answer)
            except httpx.RequestError as error:
                meant = judge(call, tried, 0 if begun else self._tries, error)
            if isinstance(meant, Again):
                time.sleep(meant.wait)


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
        self.campaigns = AsyncCampaigns(self._ask, self._stream)

    async def send(self, template: str, *, to: Json, data: Json | None = None, **options: Unpack[Options]) -> Accepted:
        """Hand over one notification. Tried again by itself under one key, until the service has it or refuses."""
        return await self._ask(Calls.send(Notification(template=template, to=to, data=data or {}, **options)))

    async def send_batch(self, notifications: Sequence[Notification]) -> tuple[Accepted, ...]:
        """Hand over up to 1,000 and 4 MB, all or none."""
        return await self._ask(Calls.send_batch(notifications))

    async def cancel(self, notification: uuid.UUID | str) -> Cancelled:
        """Cancel what is still waiting."""
        return await self._ask(Calls.cancel(notification))

    async def notification(self, id_: uuid.UUID | str) -> NotificationRecord:
        """A notification and how its messages stand."""
        return await self._ask(Calls.notification(id_))

    async def message(self, id_: uuid.UUID | str) -> MessageRecord:
        """A message with everything that happened to it and why."""
        return await self._ask(Calls.message(id_))

    async def put_recipient(self, id_: str, **fields: Unpack[RecipientFields]) -> Recipient:
        """Keep what is said of a recipient."""
        return await self._ask(Calls.put_recipient(id_, fields))

    async def recipient(self, id_: str) -> Recipient:
        """A recipient as stored."""
        return await self._ask(Calls.recipient(id_))

    async def import_recipients(self, people: Iterable[Json] | str | bytes) -> Imported:
        """Keep many: mappings as the API's import lines, or the text of a CSV file."""
        return await self._ask(Calls.import_recipients(people))

    async def register_device(self, recipient: str, *, platform: str, **fields: Unpack[DeviceFields]) -> Device:
        """Keep a device, or refresh it: at each start of the app, and whenever its `fid` or `token` changes."""
        return await self._ask(Calls.register_device(recipient, platform, fields))

    async def devices(self, recipient: str) -> tuple[Device, ...]:
        """The devices of a recipient."""
        return await self._ask(Calls.devices(recipient))

    async def remove_device(self, recipient: str, device: uuid.UUID | str) -> None:
        """Take a device away, as at logout."""
        await self._ask(Calls.remove_device(recipient, device))

    async def count_audience(self, audience: Json, sample: int = 10) -> AudienceCount:
        """Count the people of an audience and see some of them, before a campaign is made of it."""
        return await self._ask(Calls.count_audience(audience, sample))

    async def upload_list(self, name: str, csv: str | bytes) -> UploadedList:
        """Keep a list of people for campaigns: a CSV file with a column `id`, `email` or `phone`. It creates nobody."""
        return await self._ask(Calls.upload_list(name, csv))

    async def uploaded_list(self, id_: uuid.UUID | str) -> UploadedList:
        """A list and what came of its lines."""
        return await self._ask(Calls.uploaded_list(id_))

    async def uploaded_lists(self) -> AsyncIterator[UploadedList]:
        """All lists, the newest first."""
        before, more = None, True
        while more:
            page = await self._ask(Calls.uploaded_lists(before, PIECE))
            for one in page.lists:
                yield one
            before, more = page.next, page.next is not None

    async def remove_list(self, id_: uuid.UUID | str) -> None:
        """Remove a list. Refused while a campaign that is not over names it."""
        await self._ask(Calls.remove_list(id_))

    async def events(self, after: str | None = None, types: Sequence[str] = ()) -> AsyncIterator[Event]:
        """What happened after an event's id, in order, up to now; keep the last id for the next time.

        `after`: None begins with what is kept, 30 days; `types`: such as `message.*`, default all.
        """
        more = True
        while more:
            page = await self._ask(Calls.events(after, types, PIECE))
            for event in page.events:
                yield event
            after, more = page.cursor, page.more

    async def close(self) -> None:
        """Give the connections back."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _t: type[BaseException] | None, _e: BaseException | None, _b: TracebackType | None
    ) -> None:
        await self.close()

    async def _ask(self, call: Call[T]) -> T:
        for tried in itertools.count(1):
            try:
                answer = await self._http.request(call.method, call.path, content=call.content, headers=call.headers)
                meant = judge(call, tried, self._tries, answer)
            except httpx.RequestError as error:
                meant = judge(call, tried, self._tries, error)
            if not isinstance(meant, Again):
                return meant
            await asyncio.sleep(meant.wait)
        raise AssertionError("unreachable")

    async def _stream(self, call: Call[None]) -> AsyncIterator[bytes]:
        """A large answer as it comes. Tried again until it begins; what breaks off later is the caller's to ask."""
        for tried in itertools.count(1):
            begun = False
            try:
                async with self._http.stream(call.method, call.path, headers=call.headers) as answer:
                    if begun := answer.is_success:
                        async for piece in answer.aiter_bytes():
                            yield piece
                        return
                    await answer.aread()
                meant = judge(call, tried, self._tries, answer)
            except httpx.RequestError as error:
                meant = judge(call, tried, 0 if begun else self._tries, error)
            if isinstance(meant, Again):
                await asyncio.sleep(meant.wait)


def _headers(key: str) -> dict[str, str]:
    if not key.isascii() or not key.isprintable() or " " in key or not key:
        raise ValueError("This is not a key: one begins with nk_, in one piece, and is shown when it is made.")
    return {"Authorization": f"Bearer {key}", "User-Agent": "notifier-dispatch"}
