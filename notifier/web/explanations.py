"""The API's answer to "why?" and to "would it?": in words to read aloud, and in fields to work with."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from notifier.app import App
from notifier.dispatch.explain import stories_of
from notifier.dispatch.foresee import Asked
from notifier.domain import explanation, foresight
from notifier.domain.access import Scope
from notifier.domain.consent import Deferral
from notifier.domain.explanation import Explanation, Fact
from notifier.errors import NotFound
from notifier.web.bodies import Body, ExternalId, Line, Moment
from notifier.web.guard import Guarded, needs
from notifier_channels.contract import Channel

router = APIRouter(route_class=Guarded, prefix="/v1", tags=["Explaining"])


class FactAnswer(BaseModel):
    """One thing that happened, was said, or was known."""

    at: datetime
    text: str
    decides: bool = Field(description="True: it settled whether the message may go.")


class ExplanationAnswer(BaseModel):
    """To be read aloud from top to bottom. The address is masked."""

    about: str
    answer: str
    why: list[str]
    happened: list[FactAnswer]
    consent: list[FactAnswer] = Field(description="The lines of the ledger and the blocks that speak of it.")


class ExplainBody(Body):
    """What is asked: exactly one of `topic` and `template`."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"recipient": "user-17", "topic": "newsletter", "channel": "email"}]}
    )

    recipient: ExternalId = Field(description="The product's own id.")
    topic: Annotated[Line, Field(max_length=100)] | None = None
    template: Annotated[Line, Field(max_length=100)] | None = None
    channel: Channel
    at: Moment | None = Field(None, description="Default: now. From 1970 to ten years from now.")


class ForesightAnswer(ExplanationAnswer):
    """Whether it would be sent, by the rule that would settle it."""

    verdict: Literal["permit", "deferral", "refusal"]
    rule: str
    reason: str
    at: datetime
    until: datetime | None = Field(description="Of a deferral: when it would be looked at again.")
    numbers: list[int] = Field(description="The lines of the ledger and the suppressions that it rests on.")


@router.get("/messages/{id}/explanation", **needs(Scope.READ))
async def of_message(request: Request, id: UUID) -> ExplanationAnswer:  # noqa: A002  # the API's name for it
    """What became of a message and why, in words."""
    app: App = request.app.state.notifier
    async with app.database.connection() as c:
        found = [story for story in await stories_of(c, app.hasher, id) if story.id == id]
    if not found:
        raise NotFound("There is no message with this id.")
    return ExplanationAnswer(**_words(explanation.explain(found[0])))


@router.post("/explain", **needs(Scope.READ))
async def explain(request: Request, body: ExplainBody) -> ForesightAnswer:
    """Would this be sent to this person, now or at another time? Changes nothing and sends nothing."""
    app: App = request.app.state.notifier
    async with app.database.connection() as c:
        seen = await app.foresee(c, Asked(body.recipient, body.channel, body.topic, body.template, body.at))
    decision = seen.verdict.decision
    return ForesightAnswer(
        **_words(foresight.foretell(seen)),
        verdict=foresight.kind(seen.verdict),
        rule=str(decision.rule),
        reason=decision.reason,
        at=seen.at,
        until=seen.verdict.until if isinstance(seen.verdict, Deferral) else None,
        numbers=list(decision.numbers),
    )


def _words(said: Explanation) -> dict[str, Any]:
    return {
        "about": said.about,
        "answer": said.answer,
        "why": list(said.why),
        "happened": _facts(said.happened),
        "consent": _facts(said.consent),
    }


def _facts(facts: Iterable[Fact]) -> list[FactAnswer]:
    return [FactAnswer(at=fact.at, text=fact.text, decides=fact.decides) for fact in facts]
