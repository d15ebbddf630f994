"""The API's way for product code to hear what happened: read on from a cursor, or be told by webhook."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from notifier.app import App
from notifier.domain.access import Scope
from notifier.domain.events import Position, chosen
from notifier.errors import InvalidInput, Problem
from notifier.store import outbox, webhooks
from notifier.web.bodies import Body, Line
from notifier.web.guard import Guarded, needs

router = APIRouter(route_class=Guarded, prefix="/v1")

MOST = 500
LATEST = "latest"
LISTED = 100  #: deliveries given up, of one endpoint

After = Annotated[
    str | None, Query(description="The `cursor` of the answer before, or an event's id; `latest` begins now.")
]
Types = Annotated[str | None, Query(description="Which types, separated by commas; `message.*` means all of messages.")]


class EventAnswer(BaseModel):
    """One thing that happened."""

    id: str = Field(description="Also a cursor, and the `webhook-id` of the same event.")
    type: str
    timestamp: datetime
    sequence: int = Field(description="Of two events about one person or message, the higher one came later.")
    data: dict[str, Any]


class EventsAnswer(BaseModel):
    """What happened, in one order."""

    events: list[EventAnswer]
    cursor: str = Field(description="Ask for what comes `after` it.")
    more: bool = Field(description="True: there may be more at once.")


@router.get("/events", tags=["Events"], **needs(Scope.READ))
async def events(
    request: Request, after: After = None, types: Types = None, limit: Annotated[int, Query(ge=1, le=MOST)] = 100
) -> EventsAnswer:
    """What happened after a cursor, in one order and without gaps. Kept for 30 days."""
    app: App = request.app.state.notifier
    wanted, unknown = chosen(types.split(",") if types else ())
    place = Position() if after in (None, LATEST) else Position.parse(after or "")
    problems = [Problem("", "`types` in the URL names an unknown type")] if unknown else []
    if place is None:
        problems.append(Problem("", "`after` in the URL is no cursor; send one of an earlier answer, as it is"))
    if problems or place is None:
        raise InvalidInput(problems)
    async with app.database.connection() as c:
        if after == LATEST:
            return EventsAnswer(events=[], cursor=str(await outbox.horizon(c)), more=False)
        page = await outbox.read(c, place, wanted, limit)
    return EventsAnswer(
        events=[EventAnswer(**event.body) for event in page.events], cursor=str(page.cursor), more=page.more
    )


# Webhooks -------------------------------------------------------------------------------------------------------------


class EndpointBody(Body):
    """Where to send what."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"url": "https://example.com/hooks/notifier", "types": ["preference.updated"]}]}
    )

    url: Annotated[Line, Field(max_length=2000)] = Field(description="https in production.")
    types: Annotated[list[Line], Field(max_length=50)] = Field([], description="Default: every type.")


class AddedEndpoint(BaseModel):
    """A new endpoint with its secret, which is not shown again."""

    id: UUID
    url: str
    types: list[str]
    secret: str


class EndpointAnswer(BaseModel):
    """An endpoint and how it stands."""

    id: UUID
    url: str
    types: list[str]
    created_at: datetime
    disabled_at: datetime | None
    disabled_why: str | None
    waiting: int
    given_up: int


class EndpointsAnswer(BaseModel):
    """All of them, the first one first."""

    endpoints: list[EndpointAnswer]


class ReplayBody(Body):
    """What to send again: exactly one of both."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"after": "evt_8123_4711"}]})

    event: Annotated[Line, Field(max_length=60)] | None = Field(None, description="The id of one event.")
    after: Annotated[Line, Field(max_length=60)] | None = Field(
        None, description="Everything after this event; it also ends a disabling."
    )


class GivenUp(BaseModel):
    """A delivery that was given up."""

    event: str
    tries: int
    code: str | None = Field(description="Of the last try: a status, or what went wrong.")
    given_up_at: datetime


class GivenUpAnswer(BaseModel):
    """The latest ones first, at most 100."""

    deliveries: list[GivenUp]


@router.post("/webhooks", status_code=201, tags=["Webhooks"], **needs(Scope.ADMIN))
async def add(request: Request, body: EndpointBody) -> AddedEndpoint:
    """Send events to a URL from now on. The secret in the answer verifies them; it is shown this once."""
    app: App = request.app.state.notifier
    added = await app.database.transact(lambda c: app.endpoints.add(c, body.url, body.types))
    return AddedEndpoint(id=added.id, url=body.url, types=list(added.types), secret=added.secret)


@router.get("/webhooks", tags=["Webhooks"], **needs(Scope.ADMIN))
async def listed(request: Request) -> EndpointsAnswer:
    """Every endpoint, with what waits for it and what was given up."""
    app: App = request.app.state.notifier
    async with app.database.connection() as c:
        standing = await app.endpoints.all(c)
    return EndpointsAnswer(
        endpoints=[
            EndpointAnswer(
                id=one.endpoint.id,
                url=one.endpoint.url,
                types=sorted(one.endpoint.types),
                created_at=one.endpoint.created_at,
                disabled_at=one.endpoint.disabled_at,
                disabled_why=one.endpoint.disabled_why,
                waiting=one.waiting,
                given_up=one.given_up,
            )
            for one in standing
        ]
    )


@router.get("/webhooks/{id}/given-up", tags=["Webhooks"], **needs(Scope.ADMIN))
async def given_up(request: Request, id: UUID) -> GivenUpAnswer:  # noqa: A002  # the API's name for it
    """What an endpoint did not take within three days."""
    app: App = request.app.state.notifier
    async with app.database.connection() as c:
        found = await webhooks.given_up(c, id, LISTED)
    return GivenUpAnswer(
        deliveries=[
            GivenUp(
                event=str(Position(int(row["xid"]), row["number"])),
                tries=row["tries"],
                code=row["code"],
                given_up_at=row["given_up_at"],
            )
            for row in found
        ]
    )


@router.delete("/webhooks/{id}", status_code=204, tags=["Webhooks"], **needs(Scope.ADMIN))
async def remove(request: Request, id: UUID) -> None:  # noqa: A002
    """Send nothing there any more, and forget what waits."""
    app: App = request.app.state.notifier
    await app.database.transact(lambda c: app.endpoints.remove(c, id))


@router.post("/webhooks/{id}/replay", status_code=204, tags=["Webhooks"], **needs(Scope.ADMIN))
async def replay(request: Request, id: UUID, body: ReplayBody) -> None:  # noqa: A002
    """Send one event again, or everything after one; under the same ids as before."""
    app: App = request.app.state.notifier
    await app.database.transact(lambda c: app.endpoints.replay(c, id, event=body.event, after=body.after))
