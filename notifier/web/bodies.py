"""The forms of the API: what may stand in a request and what stands in an answer, with an example of each."""

from __future__ import annotations

import math
import re
import unicodedata
import zoneinfo
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from notifier_channels.contract import Channel

MAX_BATCH = 1000


def _one_line(text: str) -> str:
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise ValueError("holds control characters; remove them")
    return text


def _external_id(text: str) -> str:
    if "/" in text or text in (".", ".."):
        raise ValueError("cannot stand in a URL's path; use an id without slashes")
    if "\ufffd" in text:  # what a URL's decoder leaves of a byte that is no UTF-8: `m%FCller` and `m%E4ller` alike
        raise ValueError("holds a letter that got lost on its way; write the id in UTF-8")
    return text


def _from_header(text: str) -> str:
    """A header arrives as Latin-1, whatever was sent; the same key means the same in a body and there."""
    try:
        return text.encode("latin-1").decode()
    except UnicodeError:
        return text


def _locale(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,4}", text):
        raise ValueError("is not a language tag; write it like `de` or `de-AT` (BCP 47)")
    return text


@lru_cache(maxsize=1)
def _zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


def _timezone(text: str) -> str:
    if text not in _zones():
        raise ValueError("is not an IANA time zone; write it like `Europe/Vienna`")
    return text


def _moment(value: object) -> datetime:
    """An instant. A number or a time without its zone would be a guess."""
    try:  # what is no text raises TypeError, which is the answer wanted
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ValueError("is not an instant; write it like 2026-03-01T09:00:00Z (RFC 3339)") from None
    if moment.tzinfo is None:
        raise ValueError("has no time zone; add `Z` or an offset such as +01:00")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("is out of range; choose a year people live in") from None


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    """JSON admits what PostgreSQL cannot keep."""
    stack: list[object] = [value]
    while stack:
        match stack.pop():
            case dict() as members:
                stack += [*members.keys(), *members.values()]
            case list() as items:
                stack += items
            case str() as text if "\0" in text:
                raise ValueError("holds a NUL character; remove it")
            case float() as number if not math.isfinite(number):
                raise ValueError("holds a number that is too large; send it as text")
    return value


Line = Annotated[str, AfterValidator(_one_line)]
Plain = Annotated[dict[str, Any], AfterValidator(_plain)]
ExternalId = Annotated[Line, Field(min_length=1, max_length=255), AfterValidator(_external_id)]
Locale = Annotated[Line, Field(max_length=35), AfterValidator(_locale)]
Timezone = Annotated[Line, Field(max_length=64), AfterValidator(_timezone)]
Moment = Annotated[datetime, BeforeValidator(_moment)]
EmailText = Annotated[Line, Field(min_length=3, max_length=320)]
PhoneText = Annotated[Line, Field(min_length=3, max_length=32)]
TemplateKey = Annotated[Line, Field(min_length=1, max_length=100)]
Key = Annotated[Line, Field(min_length=1, max_length=255)]
HeaderKey = Annotated[Key, BeforeValidator(_from_header)]


class Body(BaseModel):
    """Nothing unknown gets through: a misspelt field is a mistake, not a comment."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# Requests -------------------------------------------------------------------------------------------------------------


class InlineRecipient(Body):
    """Whom it is for: a known id, an id with an address, or an address alone. A send never changes what is stored."""

    id: ExternalId | None = Field(None, description="The product's own id.")
    email: EmailText | None = Field(None, description="Where to reach them, when it is not stored yet.")
    phone: PhoneText | None = Field(None, description="In international form, such as +4930123456.")
    locale: Locale | None = Field(None, description="Kept when none is known.")
    timezone: Timezone | None = Field(None, description="Kept when none is known.")


class NotificationBody(Body):
    """One notification."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "template": "password-reset",
                    "recipient": {"id": "user-17", "email": "ann@example.com", "locale": "de"},
                    "data": {"name": "Ann", "reset_url": "https://example.com/reset/abc", "valid_minutes": 30},
                }
            ]
        }
    )

    template: TemplateKey = Field(description="The key of a template.")
    recipient: InlineRecipient = Field(description="A known id, an id with an address, or an address alone.")
    data: dict[str, Any] = Field({}, description="What the template's schema asks for.")
    channels: Annotated[list[Channel], Field(min_length=1, max_length=3)] | None = Field(
        None, description="Default: those of the topic that the template has content for."
    )
    send_at: Moment | None = Field(None, description="Default: now. Up to 5 minutes past means now.")
    expires_at: Moment | None = Field(None, description="Later it is not sent. Default: by the template.")


class BatchItem(NotificationBody):
    """One notification of a batch, with a key of its own."""

    idempotency_key: Key = Field(description="Repeated within 7 days, it gets the first answer again.")


class BatchBody(Body):
    """Up to 1,000 notifications, accepted all or none."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "notifications": [
                        {
                            "idempotency_key": "policy-2027-user-17",
                            "template": "policy-update",
                            "recipient": {"id": "user-17", "email": "ann@example.com"},
                            "data": {
                                "policy": "Privacy policy",
                                "effective_on": "2027-01-01",
                                "changes": [{"title": "Shorter logs", "text": "Kept for 14 days instead of 30."}],
                                "policy_url": "https://example.com/privacy",
                            },
                            "channels": ["email"],
                        }
                    ]
                }
            ]
        }
    )

    notifications: Annotated[list[BatchItem], Field(min_length=1, max_length=MAX_BATCH)]


class RecipientBody(Body):
    """What is said of a recipient. A field that is left out stays as it is; null removes it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "email": "ann@example.com",
                    "locale": "de-AT",
                    "timezone": "Europe/Vienna",
                    "attributes": {"plan": "pro"},
                }
            ]
        }
    )

    email: EmailText | None = None
    phone: PhoneText | None = None
    locale: Locale | None = None
    timezone: Timezone | None = None
    attributes: Plain = Field({}, description="For templates and audiences; replaced as a whole.")


class GrantBody(Body):
    """A yes that a person gave elsewhere, with when and how."""

    topic: Annotated[Line, Field(min_length=1, max_length=100)]
    channel: Channel = Channel.EMAIL
    granted_at: Moment
    expires_at: Moment | None = None
    evidence: Plain = Field({}, description="What proves it: the form, its wording, where and by whom.")


class WithdrawalBody(Body):
    """A no that a person said elsewhere, with when and how."""

    scope: Annotated[Line, Field(min_length=1, max_length=106)] = Field(
        description="`topic:<key>`, `marketing` or `all`."
    )
    channel: Literal["email", "sms", "push", "any"] = "any"
    withdrawn_at: Moment
    evidence: Plain = Field({}, description="What proves it.")


class ImportLine(RecipientBody):
    """One line of an import."""

    id: ExternalId | None = None
    grants: Annotated[Sequence[GrantBody], Field(max_length=100)] = ()
    withdrawals: Annotated[Sequence[WithdrawalBody], Field(max_length=100)] = ()


# Answers --------------------------------------------------------------------------------------------------------------


class AcceptedMessage(BaseModel):
    """One message to one address on one channel."""

    id: UUID
    channel: Channel


class AcceptedBody(BaseModel):
    """What a caller hears once everything is committed."""

    id: UUID
    created_at: datetime
    messages: list[AcceptedMessage]


class BatchAcceptedItem(AcceptedBody):
    """One item of a batch."""

    replayed: bool = Field(description="True: this is the answer to an earlier request under the same key.")


class BatchAcceptedBody(BaseModel):
    """The answers, in the order of the request."""

    notifications: list[BatchAcceptedItem]


class RecipientRef(BaseModel):
    """Whom: without an id when only an address was named."""

    id: str | None


class MessageSummary(BaseModel):
    """How a message stands."""

    id: UUID
    channel: Channel
    state: str
    reason: str | None
    due_at: datetime | None
    expires_at: datetime


class NotificationAnswer(BaseModel):
    """A notification and its messages. Its data is not read back: it may hold codes and names."""

    id: UUID
    template: str
    category: str
    recipient: RecipientRef
    created_at: datetime
    cancelled_at: datetime | None
    messages: list[MessageSummary]


class TooLate(BaseModel):
    """A message that could not be cancelled any more."""

    id: UUID
    state: str


class CancelAnswer(BaseModel):
    """What a cancellation came in time for, and what not."""

    id: UUID
    cancelled: list[UUID]
    too_late: list[TooLate]


class TimelineEntry(BaseModel):
    """One thing that happened to a message."""

    at: datetime
    what: str = Field(description="`accepted`, `attempt`, or what a provider reported, e.g. `delivered`.")
    attempt: int | None = None
    state: str | None = None
    provider: str | None = None
    code: str | None = None
    reference: str | None = None
    detail: str | None = None
    settled_at: datetime | None = None


class MessageAnswer(MessageSummary):
    """A message with everything that happened to it and why."""

    notification_id: UUID | None
    recipient: RecipientRef
    template: str
    topic: str
    category: str
    decision: dict[str, Any] | None = Field(description="The last decision whether it may go, with its inputs.")
    timeline: list[TimelineEntry]


class RecipientAnswer(BaseModel):
    """A recipient as stored."""

    id: str
    email: str | None
    phone: str | None
    locale: str | None
    timezone: str | None
    attributes: dict[str, Any]
    created_at: datetime
    updated_at: datetime


class ImportProblem(BaseModel):
    """What is wrong with a line."""

    line: int
    pointer: str
    detail: str


class ImportAnswer(BaseModel):
    """What came of an import."""

    lines: int = Field(description="Lines read, without the header and empty ones.")
    stored: int = Field(description="Lines of which the recipient is kept.")
    created: int = Field(description="Recipients that were new.")
    grants: int = Field(description="Grants recorded; one that an earlier import has recorded is not counted again.")
    withdrawals: int = Field(description="Withdrawals recorded; the same.")
    problems: list[ImportProblem]
    problems_left_out: int = Field(description="Further problems, when there are too many to list.")
