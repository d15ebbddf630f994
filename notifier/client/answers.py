"""What comes back: the service's answers as typed values. Fields that a newer service adds do no harm."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict


class Answer(BaseModel):
    """Fields that a newer service adds do no harm."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class MessageRef(Answer):
    """One message to one address on one channel."""

    id: uuid.UUID
    channel: str


class Accepted(Answer):
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


class RecipientRef(Answer):
    """Whom: without an id when only an address was named."""

    id: str | None


class NotificationRecord(Answer):
    """A notification and how its messages stand."""

    id: uuid.UUID
    template: str
    category: str
    recipient: RecipientRef
    created_at: datetime
    cancelled_at: datetime | None
    messages: tuple[MessageState, ...]


class Happening(Answer):
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


class TooLate(Answer):
    """A message that could not be cancelled any more."""

    id: uuid.UUID
    state: str


class Cancelled(Answer):
    """What a cancellation came in time for, and what not."""

    id: uuid.UUID
    cancelled: tuple[uuid.UUID, ...]
    too_late: tuple[TooLate, ...]


class Recipient(Answer):
    """A recipient as stored."""

    id: str
    email: str | None
    phone: str | None
    locale: str | None
    timezone: str | None
    attributes: dict[str, Any]
    created_at: datetime
    updated_at: datetime


class Device(Answer):
    """A recipient's device, without what reaches it."""

    id: uuid.UUID
    platform: str
    kind: str
    name: str | None
    registered_at: datetime
    refreshed_at: datetime


class Event(Answer):
    """One thing that happened. Its id is also the place to read on from, and the `webhook-id` of the same event."""

    id: str
    type: str
    timestamp: datetime
    sequence: int
    data: dict[str, Any]


class Events(Answer):
    """A piece of what happened."""

    events: tuple[Event, ...]
    cursor: str
    more: bool


class BadLine(Answer):
    """What is wrong with a line of an import."""

    line: int
    pointer: str
    detail: str


class Imported(Answer):
    """What came of an import."""

    lines: int
    stored: int
    created: int
    grants: int
    problems: tuple[BadLine, ...]
    problems_left_out: int


class Campaign(Answer):
    """A campaign as it stands."""

    id: uuid.UUID
    name: str
    state: str
    revision: int
    template: str
    data: dict[str, Any]
    from_attributes: tuple[str, ...]
    audience: dict[str, Any]
    schedule: dict[str, Any]
    sender: str | None
    rate: float | None
    expires_at: datetime | None
    is_notice: bool
    series_id: uuid.UUID | None
    occurs_at: datetime | None
    created_by: str
    created_at: datetime
    topic: str | None
    category: str | None
    scheduled_by: str | None
    scheduled_at: datetime | None
    plan_hash: str | None
    starts_at: datetime | None
    started_at: datetime | None
    audience_size: int | None
    pause_reason: str | None
    ended_at: datetime | None
    left_out: dict[str, int]


class CampaignPlan(Answer):
    """A dry-run. `hash` and `plan` are there when it is done, `problem` when it could not be."""

    id: uuid.UUID
    revision: int
    asked_at: datetime
    progress: dict[str, Any]
    plan: dict[str, Any] | None
    hash: str | None
    problem: str | None
    approved_by: str | None
    approved_at: datetime | None


class CampaignTest(Answer):
    """The tests that are on their way."""

    messages: tuple[MessageRef, ...]
    note: str


class CampaignPage(Answer):
    """A piece of the list."""

    campaigns: tuple[Campaign, ...]
    next: uuid.UUID | None


class Asked(Answer):
    """Something is under way that is asked about by this id."""

    id: uuid.UUID


class UnreadableLine(Answer):
    """A line of a list that can name nobody, and why."""

    line: int
    detail: str


class ListReport(Answer):
    """What came of a list's lines. Of those that name nobody and those that cannot be read: how many, and the first."""

    lines: int
    people: int
    doubled: int
    unknown: int
    unknown_lines: tuple[int, ...]
    unreadable: int
    unreadable_lines: tuple[UnreadableLine, ...]


class UploadedList(Answer):
    """A list of people for campaigns. One that is not ready broke off, or is under way, and has no report yet."""

    id: uuid.UUID
    name: str
    is_ready: bool
    report: ListReport | None
    created_at: datetime


class UploadedLists(Answer):
    """A piece of all lists, the newest first."""

    lists: tuple[UploadedList, ...]
    next: uuid.UUID | None


class Person(Answer):
    """Somebody of an audience. Without an id when only an address is known."""

    id: str | None
    locale: str | None
    timezone: str | None


class AudienceCount(Answer):
    """How many people an audience has now, and some of them."""

    people: int
    sample: tuple[Person, ...]
