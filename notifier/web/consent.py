"""The API's way in for what people want: read with the reasons, and changed with the wording that they were shown."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool

from notifier.app import App
from notifier.dispatch.ledger import Said, Seen
from notifier.domain import standing
from notifier.domain.access import Caller, Scope
from notifier.domain.basis import Basis
from notifier.domain.consent import ANY
from notifier.domain.messages import Category
from notifier.domain.standing import Change
from notifier.errors import InvalidInput, Problem
from notifier.store.database import Row
from notifier.web.bodies import Body, ExternalId, Line, Moment
from notifier.web.guard import Guarded, needs
from notifier.web.visitor import LONGEST_AGENT, network_of
from notifier_channels.contract import Channel

router = APIRouter(route_class=Guarded, prefix="/v1/recipients/{id}/preferences", tags=["Preferences"])

MOST_CHANGES = 200
Whose = Annotated[ExternalId, Path(alias="id", description="The product's own id of the recipient.")]
At = Annotated[Moment | None, Query(description="What held at this instant, by when things occurred. Default: now.")]
KnownAt = Annotated[Moment | None, Query(description="Only what had been recorded by then.")]
ChannelOrAny = Literal["email", "sms", "push", "any"]


def _network(text: str) -> str:
    network = network_of(text)
    if network is None:
        raise ValueError("is not an IP address; leave it out")
    return network


class Evidence(Body):
    """What proves what a person said: the words that they read, where, and who passes it on."""

    wording: Annotated[Line, Field(min_length=1, max_length=2000)] | None = Field(
        None, description="What stood beside the switch, word for word. A yes needs it."
    )
    wording_version: Annotated[Line, Field(min_length=1, max_length=100)] | None = Field(
        None, description="Which version of it. A yes needs it."
    )
    policy_version: Annotated[Line, Field(min_length=1, max_length=100)] | None = Field(
        None, description="Which version of the privacy policy it pointed to."
    )
    ip: Annotated[Line, Field(max_length=45), AfterValidator(_network)] | None = Field(
        None, repr=False, description="The person's. Kept as a network: IPv4 /24, IPv6 /48."
    )
    user_agent: Annotated[Line, Field(max_length=1000)] | None = Field(None, repr=False, description="The person's.")

    def proof(self, caller: Caller) -> dict[str, str]:
        """As the ledger keeps it."""
        given = {name: value for name in Evidence.model_fields if (value := getattr(self, name))}
        if "user_agent" in given:
            given["user_agent"] = given["user_agent"][:LONGEST_AGENT]
        return {**given, "actor": f"key:{caller.key_id}"}

    def problems(self) -> list[Problem]:
        """What a yes lacks."""
        missing = [name for name in ("wording", "wording_version") if getattr(self, name) is None]
        return [Problem(f"/{name}", "is missing; a yes is proven by what the person read") for name in missing]


class ChangeBody(Body):
    """One yes or no."""

    scope: Annotated[Line, Field(min_length=1, max_length=106)] = Field(
        description="`topic:<key>`, `marketing` or `all`."
    )
    channel: ChannelOrAny = Field(description="One channel, or `any` for all of them.")
    granted: StrictBool = Field(description="True: yes. False: no.")


class PreferencesBody(Evidence):
    """What a person has chosen. What is not mentioned stays as it is; what holds already is not written again."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "preferences": [{"scope": "topic:newsletter", "channel": "email", "granted": True}],
                    "wording": "Yes, send me the newsletter once a month.",
                    "wording_version": "settings-7",
                    "policy_version": "2026-05",
                    "ip": "203.0.113.7",
                }
            ]
        }
    )

    preferences: Annotated[Sequence[ChangeBody], Field(min_length=1, max_length=MOST_CHANGES)]
    basis: Basis = Field(Basis.EXPRESS, description="On what ground a yes stands. An implied one ends by itself.")
    occurred_at: Moment | None = Field(None, description="When the person said it, not later than now. Default: now.")
    expires_at: Moment | None = Field(None, description="When a yes ends, if before its basis does.")


class LedgerLine(BaseModel):
    """A line of the ledger."""

    number: int
    scope: str
    channel: str
    granted: bool
    source: str
    occurred_at: datetime
    recorded_at: datetime
    expires_at: datetime | None
    evidence: dict[str, Any]


class Preference(BaseModel):
    """What holds for one topic on one channel."""

    topic: str
    category: Category
    channel: Channel
    allowed: bool = Field(description="As far as consent goes; see `suppressed`.")
    mandatory: bool
    rule: str = Field(description="The rule that settled it, such as `granted` or `withdrawn`.")
    reason: str = Field(description="The same in words.")
    lines: list[LedgerLine] = Field(description="What it rests on.")
    suppressed: list[str] = Field(description="Why the address must not be used for this all the same.")


class PreferencesAnswer(BaseModel):
    """What holds for a recipient at an instant."""

    at: datetime
    snoozed_until: datetime | None
    preferences: list[Preference]


class ChangedAnswer(PreferencesAnswer):
    """What holds after a change."""

    recorded: list[int] = Field(description="The numbers of the ledger's new lines; none when nothing was news.")
    cancelled: list[UUID] = Field(description="The messages that waited and were cancelled.")


@router.get("", **needs(Scope.PREFERENCES, Scope.READ))
async def get(request: Request, whose: Whose, at: At = None, known_at: KnownAt = None) -> PreferencesAnswer:
    """What a recipient wants, topic by topic and channel by channel, with the ledger lines that say so."""
    app: App = request.app.state.notifier
    return PreferencesAnswer(**_seen(await app.ledger.see(whose, at, known_at)))


@router.put("", **needs(Scope.PREFERENCES))
async def put(request: Request, whose: Whose, body: PreferencesBody) -> ChangedAnswer:
    """Write down what a recipient has chosen, with the wording that they were shown. All of it or nothing.

    A no cancels what is queued. A yes on an implied basis never overrules a no.
    """
    app: App = request.app.state.notifier
    changes = _changes(app, body)
    said = Said(changes, body.basis, body.occurred_at, body.expires_at, body.proof(request.state.caller))
    changed = await app.ledger.change(whose, said)
    return ChangedAnswer(**_seen(changed.seen), recorded=list(changed.numbers), cancelled=list(changed.cancelled))


def _changes(app: App, body: PreferencesBody) -> list[Change]:
    changes = [Change(one.scope, one.channel, one.granted) for one in body.preferences]
    problems = [
        problem
        for position, change in enumerate(changes)
        if (problem := _problem(app, change, f"/preferences/{position}", changes[:position]))
    ]
    if body.basis is not Basis.IMPLIED_PURCHASE and body.basis is not Basis.IMPLIED_INQUIRY:
        problems += body.problems() if any(change.granted for change in changes) else []
    if problems:
        raise InvalidInput(problems)
    return changes


def _problem(app: App, change: Change, pointer: str, before: Sequence[Change]) -> Problem | None:
    topic = app.templates.topics.get(change.scope.removeprefix("topic:")) if ":" in change.scope else None
    channels = standing.scopes(app.templates.topics).get(change.scope)
    if topic and topic.mandatory:
        return Problem(f"{pointer}/scope", "is mandatory: nobody can refuse it or needs to say yes; leave it out")
    if channels is None:
        return Problem(f"{pointer}/scope", "must be `topic:` with a key of topics.toml, `marketing` or `all`")
    if change.channel != ANY and change.channel not in channels:
        return Problem(f"{pointer}/channel", "the scope has no such channel; leave it out")
    if any((one.scope, one.channel) == (change.scope, change.channel) for one in before):
        return Problem(pointer, "speaks of the same scope and channel as another one; say it once")
    return None


def _seen(seen: Seen) -> dict[str, Any]:
    return {
        "at": seen.at,
        "snoozed_until": seen.snoozed_until,
        "preferences": [
            Preference(
                topic=one.topic.key,
                category=one.topic.category,
                channel=one.channel,
                allowed=one.allowed,
                mandatory=one.topic.mandatory,
                rule=str(one.decision.rule),
                reason=standing.in_words(one),
                lines=[ledger_line(seen.lines[number]) for number in one.decision.numbers],
                suppressed=[
                    str(block.reason)
                    for block in seen.suppressed.get(one.channel, ())
                    if block.blocks(one.topic.category)
                ],
            )
            for one in seen.standings
        ],
    }


def ledger_line(row: Row) -> LedgerLine:
    """A row of the ledger as the API shows it."""
    return LedgerLine(**{name: row[name] for name in LedgerLine.model_fields})
