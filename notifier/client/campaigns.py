"""Campaigns from product code: `notifier.campaigns.create(...)`, and the same with `await` for asyncio."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from typing import Protocol, TypeAlias, TypeVar, Unpack

from notifier.client.answers import Campaign, CampaignPlan, CampaignTest
from notifier.client.calls import Call, CampaignCalls, CampaignFields, EditFields, Json

T = TypeVar("T")
Id: TypeAlias = uuid.UUID | str


class _Ask(Protocol):
    def __call__(self, call: Call[T], /) -> T: ...


class Campaigns:
    """One template to many: `notifier.campaigns`."""

    def __init__(self, ask: _Ask) -> None:
        self._ask = ask

    def create(
        self, name: str, *, template: str, idempotency_key: str | None = None, **fields: Unpack[CampaignFields]
    ) -> Campaign:
        """Draw one up: a draft, of which nothing is sent. Under one key there is one."""
        return self._ask(CampaignCalls.create(name, template, idempotency_key, fields))

    def get(self, id_: Id) -> Campaign:
        """A campaign as it stands."""
        return self._ask(CampaignCalls.get(id_))

    def list(self, state: str | None = None) -> Iterator[Campaign]:
        """All of them, or those in a state, the newest first."""
        before = None
        while True:
            page = self._ask(CampaignCalls.page(state, before))
            yield from page.campaigns
            if (before := page.next) is None:
                return

    def edit(self, id_: Id, **fields: Unpack[EditFields]) -> Campaign:
        """Change what is mentioned: all of a draft; of one that is sent its name, its rate and when it expires."""
        return self._ask(CampaignCalls.edit(id_, fields))

    def preview(self, id_: Id) -> uuid.UUID:
        """Ask for a dry-run; `plan` says how far it is."""
        return self._ask(CampaignCalls.preview(id_)).id

    def plan(self, id_: Id) -> CampaignPlan:
        """The dry-run that was asked for last."""
        return self._ask(CampaignCalls.plan(id_))

    def schedule(self, id_: Id, *, plan: str) -> Campaign:
        """Approve a dry-run, by its hash: the campaign goes out when its time comes."""
        return self._ask(CampaignCalls.move(id_, "schedule", {"plan": plan}))

    def unschedule(self, id_: Id) -> Campaign:
        """Make it a draft again."""
        return self._ask(CampaignCalls.move(id_, "unschedule"))

    def pause(self, id_: Id, *, why: str | None = None) -> Campaign:
        """Hold it up."""
        return self._ask(CampaignCalls.move(id_, "pause", {"why": why} if why else None))

    def resume(self, id_: Id) -> Campaign:
        """Let it go on."""
        return self._ask(CampaignCalls.move(id_, "resume"))

    def cancel(self, id_: Id) -> Campaign:
        """End it for good."""
        return self._ask(CampaignCalls.move(id_, "cancel"))

    def test(self, id_: Id, *, to: Sequence[Json], idempotency_key: str | None = None) -> CampaignTest:
        """Send it to up to 20 who are named, such as `{"email": ...}` or `{"id": ...}`, marked as a test."""
        return self._ask(CampaignCalls.test(id_, to, idempotency_key))


class _AskAsync(Protocol):
    def __call__(self, call: Call[T], /) -> Awaitable[T]: ...


class AsyncCampaigns:
    """The same for asyncio."""

    def __init__(self, ask: _AskAsync) -> None:
        self._ask = ask

    async def create(
        self, name: str, *, template: str, idempotency_key: str | None = None, **fields: Unpack[CampaignFields]
    ) -> Campaign:
        """Draw one up: a draft, of which nothing is sent. Under one key there is one."""
        return await self._ask(CampaignCalls.create(name, template, idempotency_key, fields))

    async def get(self, id_: Id) -> Campaign:
        """A campaign as it stands."""
        return await self._ask(CampaignCalls.get(id_))

    async def list(self, state: str | None = None) -> AsyncIterator[Campaign]:
        """All of them, or those in a state, the newest first."""
        before = None
        while True:
            page = await self._ask(CampaignCalls.page(state, before))
            for campaign in page.campaigns:
                yield campaign
            if (before := page.next) is None:
                return

    async def edit(self, id_: Id, **fields: Unpack[EditFields]) -> Campaign:
        """Change what is mentioned: all of a draft; of one that is sent its name, its rate and when it expires."""
        return await self._ask(CampaignCalls.edit(id_, fields))

    async def preview(self, id_: Id) -> uuid.UUID:
        """Ask for a dry-run; `plan` says how far it is."""
        return (await self._ask(CampaignCalls.preview(id_))).id

    async def plan(self, id_: Id) -> CampaignPlan:
        """The dry-run that was asked for last."""
        return await self._ask(CampaignCalls.plan(id_))

    async def schedule(self, id_: Id, *, plan: str) -> Campaign:
        """Approve a dry-run, by its hash: the campaign goes out when its time comes."""
        return await self._ask(CampaignCalls.move(id_, "schedule", {"plan": plan}))

    async def unschedule(self, id_: Id) -> Campaign:
        """Make it a draft again."""
        return await self._ask(CampaignCalls.move(id_, "unschedule"))

    async def pause(self, id_: Id, *, why: str | None = None) -> Campaign:
        """Hold it up."""
        return await self._ask(CampaignCalls.move(id_, "pause", {"why": why} if why else None))

    async def resume(self, id_: Id) -> Campaign:
        """Let it go on."""
        return await self._ask(CampaignCalls.move(id_, "resume"))

    async def cancel(self, id_: Id) -> Campaign:
        """End it for good."""
        return await self._ask(CampaignCalls.move(id_, "cancel"))

    async def test(self, id_: Id, *, to: Sequence[Json], idempotency_key: str | None = None) -> CampaignTest:
        """Send it to up to 20 who are named, such as `{"email": ...}` or `{"id": ...}`, marked as a test."""
        return await self._ask(CampaignCalls.test(id_, to, idempotency_key))
