"""The API's way in for whom campaigns are for: lists to upload, and audiences to count before one is saved."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from notifier.app import App
from notifier.dispatch import lists as use
from notifier.domain.access import Scope
from notifier.domain.audience import Audience
from notifier.store import audiences
from notifier.store import lists as store
from notifier.store.database import Row
from notifier.web.bodies import Body, Line
from notifier.web.guard import Guarded, needs
from notifier.web.problems import Kinds, Refused
from notifier.web.uploads import Upload

router = APIRouter(route_class=Guarded, prefix="/v1", tags=["Audiences"])

MOST = 500
LARGEST_SAMPLE = 100

Name = Annotated[Line, Query(min_length=1, max_length=200, description="For people's eyes.")]
Id = Annotated[UUID, Path(description="As the upload answered it.")]


class UnreadableAnswer(BaseModel):
    """A line that can name nobody, and why."""

    line: int
    detail: str


class ReportAnswer(BaseModel):
    """What came of an upload's lines. Lines are numbered as in the file; the first names the columns."""

    lines: int = Field(description="Read, without the first.")
    people: int = Field(description="On the list, each once.")
    doubled: int = Field(description="Lines that name only people whom an earlier one has named.")
    unknown: int = Field(description="Lines that name nobody who is stored here.")
    unknown_lines: list[int] = Field(description="Their numbers, the first 100.")
    unreadable: int = Field(description="Lines that hold no such id or address.")
    unreadable_lines: list[UnreadableAnswer] = Field(description="Their numbers and what is wrong, the first 100.")


class ListAnswer(BaseModel):
    """An uploaded list."""

    id: UUID
    name: str
    is_ready: bool = Field(description="False: its upload is under way, or broke off. Such a list can only be removed.")
    report: ReportAnswer | None = Field(description="Null until it is ready.")
    created_at: datetime


class ListsAnswer(BaseModel):
    """A page of them, the newest first."""

    lists: list[ListAnswer]
    next: UUID | None = Field(description="Give it as `before` for the next page; null: this was the last.")


class CountBody(Body):
    """An audience that is asked about."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "audience": {
                        "filter": {"all": [{"attribute": "plan", "equals": "pro"}, {"language": "de"}]},
                        "exclude": [],
                    },
                    "sample": 3,
                }
            ]
        }
    )

    audience: dict[str, Any] = Field(description="As in a campaign; docs/reference/audiences.md explains it.")
    sample: int = Field(10, ge=0, le=LARGEST_SAMPLE, description="How many people to show.")


class PersonAnswer(BaseModel):
    """Somebody of an audience, without addresses."""

    id: str | None = Field(description="The product's own id; null: only an address is known of them.")
    locale: str | None
    timezone: str | None


class CountAnswer(BaseModel):
    """How many people an audience has now, and some of them. Whether each may be written to is decided at sending."""

    people: int
    sample: list[PersonAnswer]


# Lists ----------------------------------------------------------------------------------------------------------------

_READING = needs(Scope.READ, Scope.SEND_MARKETING, Scope.ADMIN)
_WRITING = needs(Scope.SEND_MARKETING, Scope.ADMIN)
_UPLOAD = needs(Scope.SEND_MARKETING, Scope.ADMIN)
_UPLOAD["openapi_extra"]["requestBody"] = {
    "required": True,
    "content": {"text/csv": {"schema": {"type": "string"}, "example": "email\nann@example.com\nben@example.com\n"}},
}


@router.post("/lists", status_code=201, **_UPLOAD)
async def upload(request: Request, name: Name) -> ListAnswer:
    """Upload a list of people, as CSV, streamed: a column `id` of the product's ids, or `email`, or `phone` (E.164).

    Other columns are not looked at. A line means whoever has the id, or everybody who holds the address; it creates
    nobody. When the upload breaks off, a list stays that is not ready: remove it and upload again.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "text/csv":
        raise Refused(Kinds.UNSUPPORTED, "Send `Content-Type: text/csv`.")
    app: App = request.app.state.notifier
    under_way = Upload(app.lists, app.database.transact, allow_test=not app.settings.is_production)
    return _answer(await under_way.take(name, request.stream()))


@router.get("/lists", **_READING)
async def page(
    request: Request,
    before: Annotated[UUID | None, Query(description="`next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=MOST)] = 100,
) -> ListsAnswer:
    """The lists, the newest first."""
    app: App = request.app.state.notifier
    async with app.database.connection() as c:
        found = await store.page(c, before, limit)
    return ListsAnswer(lists=[_answer(one) for one in found], next=found[-1]["id"] if len(found) == limit else None)


@router.get("/lists/{id}", **_READING)
async def get(request: Request, id: Id) -> ListAnswer:  # noqa: A002
    """A list and what came of its lines."""
    app: App = request.app.state.notifier
    async with app.database.connection() as c:
        return _answer(await use.get(c, id))


@router.delete("/lists/{id}", status_code=204, **_WRITING)
async def remove(request: Request, id: Id) -> None:  # noqa: A002
    """Remove a list. Refused while a campaign that is not over names it."""
    app: App = request.app.state.notifier
    await app.database.transact(lambda c: use.remove(c, id))


def _answer(row: Row) -> ListAnswer:
    return ListAnswer.model_validate(row | {"report": row["report"] if row["is_ready"] else None})


# Audiences ------------------------------------------------------------------------------------------------------------


@router.post("/audiences/count", **_READING)
async def count(request: Request, body: CountBody) -> CountAnswer:
    """Count the people of an audience and show some of them, before it is saved in a campaign."""
    app: App = request.app.state.notifier
    asked = Audience.parse(body.audience, app.templates.topics)
    async with request.app.state.slow, app.database.connection() as c:
        await store.hold(c, asked)
        people, shown = await audiences.count(c, asked), await audiences.sample(c, asked, body.sample)
    sample = [PersonAnswer(id=one["external_id"], locale=one["locale"], timezone=one["timezone"]) for one in shown]
    return CountAnswer(people=people, sample=sample)
