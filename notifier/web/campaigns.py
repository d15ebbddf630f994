"""The API's way in for campaigns: drawn up, foreseen, approved by scheduling, and stopped at any moment."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response

from notifier.app import App
from notifier.dispatch import steering
from notifier.dispatch.once import Once
from notifier.domain.access import Actor, Scope
from notifier.domain.campaigns import CampaignState
from notifier.domain.messages import Lane
from notifier.errors import NotFound
from notifier.store import campaigns as store
from notifier.store.campaigns import Campaign
from notifier.store.database import Connection
from notifier.web.bodies import HeaderKey
from notifier.web.campaign_bodies import (
    NOTE,
    AskedAnswer,
    CampaignAnswer,
    CampaignBody,
    EditBody,
    PageAnswer,
    PauseBody,
    PlanAnswer,
    ScheduleBody,
    TestAnswer,
    TestBody,
    answer,
    plan_answer,
)
from notifier.web.guard import Guarded, needs
from notifier.web.reading import Reader

router = APIRouter(route_class=Guarded, prefix="/v1/campaigns", tags=["Campaigns"])
WRITE = needs(Scope.SEND_MARKETING, Scope.ADMIN)
READ = needs(Scope.READ)
UNSAID = PauseBody.model_validate({})
ONCE = Header(alias="Idempotency-Key", description="Repeated within 7 days, it makes nothing twice.")


@router.post("", status_code=201, responses={201: {"model": CampaignAnswer}}, **WRITE)
async def create(
    request: Request, response: Response, body: CampaignBody, idempotency_key: Annotated[HeaderKey, ONCE]
) -> CampaignAnswer:
    """Draw up a campaign: a draft, of which nothing is sent."""
    app, actor = _called(request)
    once = Once.of(idempotency_key, "campaign", body.model_dump(mode="json", exclude_unset=True))
    made, is_replay = await app.database.transact(lambda c: app.campaigns.create(c, body.content, actor, once))
    if is_replay:
        response.headers["Idempotent-Replayed"] = "true"
    return answer(app.campaigns, made)


@router.get("", **READ)
async def page(
    request: Request,
    *,
    state: CampaignState | None = None,
    before: Annotated[UUID | None, Query(description="`next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> PageAnswer:
    """Campaigns, the newest first."""
    app, _ = _called(request)
    async with app.database.connection() as c:
        found = await store.page(c, before=before, limit=limit, state=state)
    following = found[-1].id if len(found) == limit else None
    return PageAnswer(campaigns=[answer(app.campaigns, one) for one in found], next=following)


@router.get("/{id}", **READ)
async def get(request: Request, id: UUID) -> CampaignAnswer:  # noqa: A002  # the API's name for it
    """A campaign as it stands."""
    app, _ = _called(request)
    async with app.database.connection() as c:
        return answer(app.campaigns, await steering.current(c, id))


@router.patch("/{id}", **WRITE)
async def edit(request: Request, id: UUID, body: EditBody) -> CampaignAnswer:  # noqa: A002
    """Change what is mentioned. All of a draft; of one that is sent its name, its rate and when it expires."""
    app, actor = _called(request)
    return await _changed(app, lambda c: app.campaigns.edit(c, id, body.said, actor))


@router.post("/{id}/preview", status_code=202, **WRITE)
async def ask_preview(request: Request, id: UUID) -> AskedAnswer:  # noqa: A002
    """Ask for a dry-run: who would get it and who not, why, when, and what it costs. Sends nothing."""
    app, actor = _called(request)
    return AskedAnswer(id=await app.database.transact(lambda c: app.campaigns.preview(c, id, actor)))


@router.get("/{id}/preview", **needs(Scope.READ, Scope.SEND_MARKETING, Scope.ADMIN))
async def preview(request: Request, id: UUID) -> PlanAnswer:  # noqa: A002
    """The dry-run that was asked for last: its progress, and, when it is done, its result and hash."""
    app, _ = _called(request)
    async with app.database.connection() as c:
        plan = await store.latest_plan(c, id)
    if plan is None:
        raise NotFound("There is no dry-run of this campaign; POST asks for one.")
    return plan_answer(plan)


@router.post("/{id}/schedule", **WRITE)
async def schedule(request: Request, id: UUID, body: ScheduleBody) -> CampaignAnswer:  # noqa: A002
    """Approve a dry-run, by its hash: the campaign, as it was then, goes out when its time comes."""
    app, actor = _called(request)
    return await _changed(app, lambda c: app.campaigns.schedule(c, id, body.plan, actor))


@router.post("/{id}/unschedule", **WRITE)
async def unschedule(request: Request, id: UUID) -> CampaignAnswer:  # noqa: A002
    """Make it a draft again, before its time has come."""
    app, actor = _called(request)
    return await _changed(app, lambda c: steering.unschedule(c, id, actor))


@router.post("/{id}/pause", **WRITE)
async def pause(request: Request, id: UUID, body: PauseBody = UNSAID) -> CampaignAnswer:  # noqa: A002
    """Hold it up. What a worker has in hand goes out; nothing after that does."""
    app, actor = _called(request)
    return await _changed(app, lambda c: steering.pause(c, id, actor, body.why))


@router.post("/{id}/resume", **WRITE)
async def resume(request: Request, id: UUID) -> CampaignAnswer:  # noqa: A002
    """Let it go on where it was held up."""
    app, actor = _called(request)
    resumed = await _followed(app, lambda c: steering.resume(c, id, actor))
    app.jobs.ring(Lane.MARKETING, ())
    return resumed


@router.post("/{id}/cancel", **WRITE)
async def cancel(request: Request, id: UUID) -> CampaignAnswer:  # noqa: A002
    """End it for good. What a worker has in hand may still go out; nothing else does."""
    app, actor = _called(request)
    return await _followed(app, lambda c: steering.cancel(c, id, actor))


@router.post("/{id}/test", status_code=202, **WRITE)
async def test(
    request: Request,
    id: UUID,  # noqa: A002
    body: TestBody,
    idempotency_key: Annotated[HeaderKey, ONCE],
) -> TestAnswer:
    """Send it to a few who are named, marked as a test, on every channel on which they are reached."""
    app, actor = _called(request)
    reader = Reader(app, request.state.caller)
    people = [reader.given(one, f"/recipients/{n}", one.id) for n, one in enumerate(body.recipients)]
    reader.check()
    once = Once.of(idempotency_key, f"test of {id}", body.model_dump(mode="json", exclude_unset=True))
    sent, due = await app.database.transact(lambda c: app.rehearse(c, id, people, actor, once))
    if due:
        app.jobs.ring(due[0].lane, [one.id for one in due])
    return TestAnswer(**sent, note=NOTE)


async def _changed(app: App, work: Callable[[Connection], Awaitable[Campaign]]) -> CampaignAnswer:
    return answer(app.campaigns, await app.database.transact(work))


async def _followed(app: App, work: Callable[[Connection], Awaitable[Campaign]]) -> CampaignAnswer:
    """The move holds when it is committed; then comes what is queued, in pieces."""
    campaign = await app.database.transact(work)
    async with app.database.connection() as c:
        await steering.follow(c, campaign)
    return answer(app.campaigns, campaign)


def _called(request: Request) -> tuple[App, Actor]:
    return request.app.state.notifier, Actor.of(request.state.caller)
