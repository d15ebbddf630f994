"""What is asked of the service: each call as a value, with how its answer is read. Nothing is carried here."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Literal, TypeAlias, TypedDict, TypeVar
from urllib.parse import quote, urlencode

import httpx
from pydantic import TypeAdapter

from notifier.client.answers import (
    Accepted,
    Asked,
    AudienceCount,
    Campaign,
    CampaignPage,
    CampaignPlan,
    CampaignReport,
    CampaignTest,
    Cancelled,
    Device,
    Events,
    Imported,
    MessageRecord,
    NotificationRecord,
    Recipient,
    UploadedList,
    UploadedLists,
)

T = TypeVar("T")
Json: TypeAlias = Mapping[str, Any]

CAMPAIGNS = "/v1/campaigns"
CAMPAIGNS_AT_ONCE = 100  #: in one answer


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


class DeviceFields(TypedDict, total=False):
    """What may be said of a device: exactly one of `fid` and `token`, and a name for the person's eyes."""

    fid: str
    token: str
    name: str


class CampaignFields(TypedDict, total=False):
    """What may be said of a campaign."""

    data: Json
    audience: Json
    schedule: Json
    sender: str | None
    rate: float | None
    expires_at: datetime | None


class EditFields(CampaignFields, total=False):
    """What may be changed; what is left out stays as it is."""

    name: str
    template: str


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request, and how to read its answer. Carried by either client, as often as it takes."""

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    content: bytes | None = field(default=None, repr=False)
    media_type: str = "application/json"
    key: str | None = None

    @property
    def headers(self) -> httpx.Headers:
        """What goes with the key of the API."""
        found = {"Content-Type": self.media_type} if self.content is not None else {}
        return httpx.Headers(found | ({"Idempotency-Key": self.key} if self.key else {}), encoding="utf-8")


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


def _read_devices(response: httpx.Response) -> tuple[Device, ...]:
    return TypeAdapter(dict[Literal["devices"], tuple[Device, ...]]).validate_json(response.content)["devices"]


def _read_nothing(_: httpx.Response) -> None:
    return None


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


class Calls:
    """Builds every call; the two clients differ only in how they carry it."""

    @staticmethod
    def send(one: Notification) -> Call[Accepted]:
        """One notification, under its own key."""
        return Call("POST", "/v1/notifications", _read_accepted, _body(one.body), key=one.idempotency_key)

    @staticmethod
    def send_batch(many: Sequence[Notification]) -> Call[tuple[Accepted, ...]]:
        """Many, each under its own key."""
        items = [one.body | {"idempotency_key": one.idempotency_key} for one in many]
        return Call("POST", "/v1/notifications/batch", _read_batch, _body({"notifications": items}))

    @staticmethod
    def notification(id_: uuid.UUID | str) -> Call[NotificationRecord]:
        """A notification as it stands."""
        return Call("GET", f"/v1/notifications/{_part(id_)}", _model(NotificationRecord))

    @staticmethod
    def message(id_: uuid.UUID | str) -> Call[MessageRecord]:
        """A message with its timeline."""
        return Call("GET", f"/v1/messages/{_part(id_)}", _model(MessageRecord))

    @staticmethod
    def cancel(id_: uuid.UUID | str) -> Call[Cancelled]:
        """Cancel what still waits."""
        return Call("POST", f"/v1/notifications/{_part(id_)}/cancel", _model(Cancelled))

    @staticmethod
    def put_recipient(id_: str, fields: RecipientFields) -> Call[Recipient]:
        """Say how a recipient is to be."""
        return Call("PUT", f"/v1/recipients/{_part(id_)}", _model(Recipient), _body(fields))

    @staticmethod
    def recipient(id_: str) -> Call[Recipient]:
        """A recipient as stored."""
        return Call("GET", f"/v1/recipients/{_part(id_)}", _model(Recipient))

    @staticmethod
    def import_recipients(people: Iterable[Json] | str | bytes) -> Call[Imported]:
        """A list: values become lines of NDJSON, text is a CSV file."""
        if isinstance(people, str | bytes):
            content, media_type = people.encode() if isinstance(people, str) else people, "text/csv"
        else:
            content, media_type = b"\n".join(_body(person) for person in people), "application/x-ndjson"
        return Call("POST", "/v1/recipients/import", _model(Imported), content, media_type)

    @staticmethod
    def register_device(recipient: str, platform: str, fields: DeviceFields) -> Call[Device]:
        """Say that the app is there."""
        return Call("POST", _devices(recipient), _model(Device), _body({"platform": platform, **fields}))

    @staticmethod
    def devices(recipient: str) -> Call[tuple[Device, ...]]:
        """The devices of a recipient."""
        return Call("GET", _devices(recipient), _read_devices)

    @staticmethod
    def remove_device(recipient: str, device: uuid.UUID | str) -> Call[None]:
        """Say that the app is gone, or its owner."""
        return Call("DELETE", f"{_devices(recipient)}/{_part(device)}", _read_nothing)

    @staticmethod
    def count_audience(audience: Json, sample: int) -> Call[AudienceCount]:
        """How many people an audience has."""
        body = _body({"audience": audience, "sample": sample})
        return Call("POST", "/v1/audiences/count", _model(AudienceCount), body)

    @staticmethod
    def upload_list(name: str, csv: str | bytes) -> Call[UploadedList]:
        """A list of people, as the text of a CSV file."""
        content = csv.encode() if isinstance(csv, str) else csv
        return Call("POST", f"/v1/lists?{urlencode({'name': name})}", _model(UploadedList), content, "text/csv")

    @staticmethod
    def uploaded_list(id_: uuid.UUID | str) -> Call[UploadedList]:
        """A list as it stands."""
        return Call("GET", f"/v1/lists/{_part(id_)}", _model(UploadedList))

    @staticmethod
    def uploaded_lists(before: uuid.UUID | None, limit: int) -> Call[UploadedLists]:
        """A piece of all lists."""
        query = urlencode({"limit": limit} | ({"before": str(before)} if before else {}))
        return Call("GET", f"/v1/lists?{query}", _model(UploadedLists))

    @staticmethod
    def remove_list(id_: uuid.UUID | str) -> Call[None]:
        """A list that nobody needs any more."""
        return Call("DELETE", f"/v1/lists/{_part(id_)}", _read_nothing)

    @staticmethod
    def events(after: str | None, types: Sequence[str], limit: int) -> Call[Events]:
        """A piece of what happened."""
        given = {"after": after, "types": ",".join(types), "limit": limit}
        query = urlencode({name: value for name, value in given.items() if value})
        return Call("GET", f"/v1/events?{query}", _model(Events))


class CampaignCalls:
    """The same for campaigns."""

    @staticmethod
    def create(name: str, template: str, key: str | None, fields: CampaignFields) -> Call[Campaign]:
        """A draft, under its key."""
        content = _body({"name": name, "template": template, **fields})
        return Call("POST", CAMPAIGNS, _model(Campaign), content, key=key or _new_key())

    @staticmethod
    def page(state: str | None, before: uuid.UUID | None) -> Call[CampaignPage]:
        """A piece of the list."""
        given = {"state": state, "before": before, "limit": CAMPAIGNS_AT_ONCE}
        query = urlencode({name: value for name, value in given.items() if value})
        return Call("GET", f"{CAMPAIGNS}?{query}", _model(CampaignPage))

    @staticmethod
    def get(id_: uuid.UUID | str) -> Call[Campaign]:
        """A campaign as it stands."""
        return Call("GET", f"{CAMPAIGNS}/{_part(id_)}", _model(Campaign))

    @staticmethod
    def edit(id_: uuid.UUID | str, fields: EditFields) -> Call[Campaign]:
        """What is to be different."""
        return Call("PATCH", f"{CAMPAIGNS}/{_part(id_)}", _model(Campaign), _body(fields))

    @staticmethod
    def preview(id_: uuid.UUID | str) -> Call[Asked]:
        """Ask for a dry-run."""
        return Call("POST", f"{CAMPAIGNS}/{_part(id_)}/preview", _model(Asked))

    @staticmethod
    def plan(id_: uuid.UUID | str) -> Call[CampaignPlan]:
        """The dry-run that was asked for last."""
        return Call("GET", f"{CAMPAIGNS}/{_part(id_)}/preview", _model(CampaignPlan))

    @staticmethod
    def move(id_: uuid.UUID | str, what: str, said: Json | None = None) -> Call[Campaign]:
        """Move it on, or hold it up."""
        return Call("POST", f"{CAMPAIGNS}/{_part(id_)}/{what}", _model(Campaign), _body(said) if said else None)

    @staticmethod
    def report(id_: uuid.UUID | str) -> Call[CampaignReport]:
        """What became of it."""
        return Call("GET", f"{CAMPAIGNS}/{_part(id_)}/report", _model(CampaignReport))

    @staticmethod
    def report_csv(id_: uuid.UUID | str) -> Call[None]:
        """The same person by person: read in pieces, as it comes."""
        return Call("GET", f"{CAMPAIGNS}/{_part(id_)}/report.csv", _read_nothing)

    @staticmethod
    def test(id_: uuid.UUID | str, recipients: Sequence[Json], key: str | None) -> Call[CampaignTest]:
        """Send it to those who are named, under its own key."""
        content = _body({"recipients": recipients})
        return Call("POST", f"{CAMPAIGNS}/{_part(id_)}/test", _model(CampaignTest), content, key=key or _new_key())


def _devices(recipient: str) -> str:
    return f"/v1/recipients/{_part(recipient)}/devices"


def _part(value: uuid.UUID | str) -> str:
    return quote(str(value), safe="")
