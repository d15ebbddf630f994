"""The API's way to see what became of a campaign: added up, or a line for each person. Addresses stand in neither."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict
from datetime import datetime
from typing import Any, TypeAlias
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import StreamingResponse

from notifier.app import App
from notifier.dispatch import reporting
from notifier.domain.access import Scope
from notifier.domain.campaigns import CampaignState
from notifier.domain.messages import AttemptState, State
from notifier.domain.reports import ChannelReport, Report
from notifier.web.guard import Guarded, needs
from notifier_channels.contract import Channel

router = APIRouter(route_class=Guarded, prefix="/v1/campaigns/{id}", tags=["Campaigns"])
READ = needs(Scope.READ, Scope.SEND_MARKETING, Scope.ADMIN)

Counted: TypeAlias = dict[str, int]


class PeopleAnswer(BaseModel):
    """The audience, each person in one place: it is the sum of all the rest."""

    model_config = ConfigDict(from_attributes=True)

    audience: int
    not_planned: int = Field(description="In no batch yet.")
    waiting: int = Field(description="In a batch that has not been decided.")
    left_out: Counted = Field(description="Whom the campaign did not get to, by how it ended.")
    unreachable: int = Field(description="Without an address on any of its channels.")
    states: dict[State, int] = Field(description="Of the message that got furthest with them.")


class OutcomeAnswer(BaseModel):
    """So many messages stand like this."""

    model_config = ConfigDict(from_attributes=True)

    state: State
    reason: str | None = Field(description="Its first word.")
    messages: int


class ChannelAnswer(BaseModel):
    """One channel. The audience is the sum of all that is counted in people."""

    model_config = ConfigDict(from_attributes=True)

    channel: Channel
    step: int = Field(description="Its place, where the channels stand in an order.")
    not_planned: int
    waiting: int
    left_out: Counted
    unreachable: int = Field(description="People without an address on this channel.")
    decided: int = Field(description="People with a message; by push one for each device.")
    messages: list[OutcomeAnswer]

    @classmethod
    def of(cls, one: ChannelReport) -> ChannelAnswer:
        """As it is answered."""
        said: dict[str, Any] = asdict(one)
        return cls(messages=said.pop("outcomes"), **said)


class HourAnswer(BaseModel):
    """Attempts that began within an hour, in UTC."""

    model_config = ConfigDict(from_attributes=True)

    hour: datetime
    channel: Channel
    attempts: dict[AttemptState, int]


class PlaceAnswer(BaseModel):
    """Messages to one domain, in one language, or to the numbers of one calling code."""

    model_config = ConfigDict(from_attributes=True)

    name: str | None = Field(description="Null: all that are not named; empty: not known.")
    messages: int
    states: dict[State, int]


class CausedAnswer(BaseModel):
    """What came back, counted in messages."""

    model_config = ConfigDict(from_attributes=True)

    events: Counted = Field(description="By kind of delivery event.")
    withdrawals: Counted = Field(description="Noes that name one of its messages, by source.")


class DoubtAnswer(BaseModel):
    """A message of which nobody knows whether it was sent."""

    model_config = ConfigDict(from_attributes=True)

    message: UUID
    channel: Channel
    reason: str | None
    provider: str
    attempted_at: datetime


class ReportAnswer(BaseModel):
    """What became of a campaign, as of one instant. Test messages are not in it."""

    id: UUID
    name: str
    state: CampaignState
    pause_reason: str | None
    template: str
    topic: str | None
    is_notice: bool
    starts_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    as_of: datetime
    people: PeopleAnswer
    channels: list[ChannelAnswer]
    hours: list[HourAnswer]
    domains: list[PlaceAnswer] = Field(description="Of mails: the 50 with most, and the rest.")
    locales: list[PlaceAnswer] = Field(description="The 50 with most, and the rest.")
    calling_codes: list[PlaceAnswer] = Field(description="Of text messages: `+49`, `+1` and so on.")
    caused: CausedAnswer
    unknown: list[DoubtAnswer] = Field(description="The first 100.")

    @classmethod
    def of(cls, report: Report) -> ReportAnswer:
        """As it is answered."""
        said: dict[str, Any] = asdict(report.headline)
        del said["rate"]
        return cls(
            **said,
            as_of=said.pop("now"),
            people=PeopleAnswer.model_validate(report.people),
            channels=[ChannelAnswer.of(one) for one in report.channels],
            hours=[HourAnswer.model_validate(one) for one in report.hours],
            domains=[PlaceAnswer.model_validate(one) for one in report.domains],
            locales=[PlaceAnswer.model_validate(one) for one in report.locales],
            calling_codes=[PlaceAnswer.model_validate(one) for one in report.calling_codes],
            caused=CausedAnswer.model_validate(report.caused),
            unknown=[DoubtAnswer.model_validate(one) for one in report.unknown],
        )


class CsvResponse(StreamingResponse):
    """A table in pieces."""

    media_type = "text/csv; header=present"


@router.get("/report", **READ)
async def report(request: Request, id: UUID) -> ReportAnswer:  # noqa: A002  # the API's name for it
    """What became of it: people, states and reasons, hours, domains, languages, and what came back."""
    app: App = request.app.state.notifier
    async with request.app.state.slow, app.database.connection() as c:
        return ReportAnswer.of(await reporting.report(c, id))


@router.get("/report.csv", response_class=CsvResponse, **READ)
async def report_csv(request: Request, id: UUID) -> CsvResponse:  # noqa: A002
    """A line for each person and channel: what became of it, when, and the provider's reference. Streamed."""
    app: App = request.app.state.notifier
    pieces = reporting.table(app.database.connection, id)
    head = await anext(pieces)  # what is refused is refused before the answer begins
    return CsvResponse(_after(head, pieces), headers={"Content-Disposition": f'attachment; filename="report-{id}.csv"'})


async def _after(head: str, pieces: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
    async with aclosing(pieces) as rest:
        yield head
        async for piece in rest:
            yield piece
