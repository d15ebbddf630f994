"""The forms of campaigns: what may be said of one, by the API or in a file of a command, and how one is shown."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from notifier.dispatch import steering
from notifier.dispatch.campaigns import Campaigns
from notifier.dispatch.rehearse import MOST
from notifier.domain.campaigns import CampaignState
from notifier.domain.messages import Category
from notifier.store.campaigns import Campaign, Content, Plan
from notifier.web.bodies import AcceptedMessage, Body, InlineRecipient, Line, Moment, Plain, TemplateKey

AT_ONCE = {"at": None}
SLOWEST, FASTEST = 0.001, 100_000  #: messages a second; between the first two is a quarter of an hour at most

Name = Annotated[Line, Field(min_length=1, max_length=200)]
Rate = Annotated[float, Field(ge=SLOWEST, le=FASTEST)]
NOTE = "Consent, suppressions and quiet hours hold for tests, too: `GET /v1/messages/{id}` says what became of each."

_EXAMPLE: JsonDict = {
    "name": "December news",
    "template": "newsletter",
    "data": {
        "title": "December",
        "published_on": "2026-12-01",
        "opening": ["Hello."],
        "stories": [{"title": "A lamp", "text": "It glows.", "url": "https://example.com/lamp"}],
    },
    "audience": {"filter": {"subscribed": "newsletter"}},
    "schedule": {"at": "2026-12-01T09:00", "local": True},
    "rate": 50,
}


# Requests -------------------------------------------------------------------------------------------------------------


class CampaignBody(Body):
    """One template to many."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    name: Name = Field(description="For your own eyes.")
    template: TemplateKey = Field(description="Of a marketing topic; or, with `admin`, of a mandatory one: a notice.")
    data: Plain = Field(
        {}, description="The same for everybody. What the template knows beyond it comes from each person's attributes."
    )
    audience: Plain = Field({}, description="`filter`, `list` and `exclude`; empty: everybody.")
    schedule: Plain = Field(AT_ONCE, description="An instant, a local time, spread, or recurring. Default: at once.")
    sender: Annotated[Line, Field(max_length=40)] | None = Field(
        None, description="One of NOTIFIER_SENDERS. Default: the installation's own."
    )
    rate: Rate | None = Field(None, description="Messages a second. Default: as fast as the providers allow.")
    expires_at: Moment | None = Field(None, description="Not after. Default: by the template.")

    @property
    def content(self) -> Content:
        """What is stored of it; whether it is a notice is its template's to say."""
        said = {name: getattr(self, name) for name in type(self).model_fields}
        return Content(**said, is_notice=False)


class EditBody(Body):
    """What is to be different. What is left out stays as it is."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"rate": 20}]})

    name: Name = Field(default_factory=str)
    template: TemplateKey = Field(default_factory=str)
    data: Plain = Field(default_factory=dict, description="Replaced as a whole.")
    audience: Plain = Field(default_factory=dict, description="Replaced as a whole.")
    schedule: Plain = Field(default_factory=dict, description="Replaced as a whole.")
    sender: Annotated[Line, Field(max_length=40)] | None = None
    rate: Rate | None = Field(None, description="Messages a second; null: as fast as the providers allow.")
    expires_at: Moment | None = Field(None, description="Not after.")

    @property
    def said(self) -> dict[str, Any]:
        """Only what is mentioned."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class ScheduleBody(Body):
    """Which dry-run is approved."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"plan": "9f86d081884c7d65..."}]})

    plan: Annotated[Line, Field(min_length=1, max_length=64)] = Field(description="The `hash` of a finished dry-run.")


class PauseBody(Body):
    """Why it is held up."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"why": "Wrong price in the second paragraph"}]})

    why: Annotated[Line, Field(min_length=1, max_length=500)] = Field(
        steering.ASKED, description="For whoever asks later; no address."
    )


class TestBody(Body):
    """Who gets it before anybody else."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"recipients": [{"email": "you@example.com"}]}]})

    recipients: Annotated[list[InlineRecipient], Field(min_length=1, max_length=MOST)]


# Answers --------------------------------------------------------------------------------------------------------------


class CampaignAnswer(BaseModel):
    """A campaign as it stands."""

    id: UUID
    name: str
    state: CampaignState
    revision: int = Field(description="Counts edits of what is sent: an approval is for one of them.")
    template: str
    data: dict[str, Any]
    from_attributes: list[str] = Field(
        description="What the template needs and `data` does not give: it comes from each recipient's attributes."
    )
    audience: dict[str, Any]
    schedule: dict[str, Any]
    sender: str | None
    rate: float | None
    expires_at: datetime | None
    is_notice: bool = Field(description="Of a mandatory topic: to everybody, at most once.")
    series_id: UUID | None = Field(description="The recurring campaign whose occurrence this is.")
    occurs_at: datetime | None
    created_by: str
    created_at: datetime
    template_version: int | None = Field(description="Pinned when it was scheduled.")
    topic: str | None
    category: Category | None
    scheduled_by: str | None
    scheduled_at: datetime | None
    plan_hash: str | None = Field(description="Of the dry-run that was approved.")
    starts_at: datetime | None
    started_at: datetime | None
    audience_size: int | None = Field(description="Counted when it began.")
    pause_reason: str | None
    ended_at: datetime | None
    left_out: dict[str, int] = Field(
        description="People who were in no batch when it ended, by how; the report has all."
    )


class PageAnswer(BaseModel):
    """A page of them, the newest first."""

    campaigns: list[CampaignAnswer]
    next: UUID | None = Field(description="Give it as `before` for the next page; null: this was the last.")


class AskedAnswer(BaseModel):
    """A dry-run is under way."""

    id: UUID


class PlanAnswer(BaseModel):
    """A dry-run."""

    id: UUID
    revision: int = Field(description="Of the campaign, when it was asked for.")
    asked_at: datetime
    progress: dict[str, Any]
    plan: dict[str, Any] | None = Field(description="What would happen; null until it is reckoned.")
    hash: str | None = Field(description="Scheduling the campaign takes it.")
    problem: str | None = Field(description="Why it could not be reckoned.")
    approved_by: str | None
    approved_at: datetime | None


class TestAnswer(BaseModel):
    """The tests that are on their way."""

    messages: list[AcceptedMessage]
    note: str


def answer(campaigns: Campaigns, campaign: Campaign) -> CampaignAnswer:
    """A campaign as everybody is shown it."""
    own = {name: getattr(campaign, name) for name in CampaignAnswer.model_fields if hasattr(campaign, name)}
    content = {name: getattr(campaign.content, name) for name in Content.__slots__}
    return CampaignAnswer(**own, **content, from_attributes=list(campaigns.from_attributes(campaign)))


def plan_answer(plan: Plan) -> PlanAnswer:
    """A dry-run as everybody is shown it."""
    return PlanAnswer(**{name: getattr(plan, name) for name in PlanAnswer.model_fields})
