"""The API's way in for double opt-in: product code says that somebody signed up, and we ask whether it was them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, ConfigDict, Field

from notifier.app import App
from notifier.domain.access import Scope
from notifier.errors import InvalidInput
from notifier.web.bodies import ExternalId, Line
from notifier.web.consent import Evidence
from notifier.web.guard import Guarded, needs
from notifier_channels.contract import Channel

router = APIRouter(route_class=Guarded, prefix="/v1/recipients/{id}/confirmations", tags=["Preferences"])


class ConfirmationBody(Evidence):
    """What somebody asked for, and the words that they read when they did."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "topic": "newsletter",
                    "channel": "email",
                    "wording": "Yes, send me the newsletter once a month.",
                    "wording_version": "footer-form-3",
                }
            ]
        }
    )

    topic: Annotated[Line, Field(min_length=1, max_length=100)] = Field(description="The key of a topic.")
    channel: Channel = Field(Channel.EMAIL, description="The address that is asked is the one on this channel.")


class AskedAnswer(BaseModel):
    """A message is on its way that asks. Nothing else is sent before its button was pressed."""

    id: UUID
    notification_id: UUID = Field(description="Of the message that asks; read it like any other.")
    expires_at: datetime = Field(description="When its link ends.")
    remaining: int = Field(description="How many more may be sent to this recipient and address within a day.")


@router.post("", status_code=202, **needs(Scope.PREFERENCES))
async def post(
    request: Request,
    whose: Annotated[ExternalId, Path(alias="id", description="The product's own id of the recipient.")],
    body: ConfirmationBody,
) -> AskedAnswer:
    """Ask the recipient, by a link, whether they want a topic. Their button writes the yes, with both halves as proof.

    At most one in ten minutes and three a day to one recipient and one address, over all topics and callers; `429`
    says when the next one may be.
    """
    app: App = request.app.state.notifier
    if problems := body.problems():
        raise InvalidInput(problems)
    caller = request.state.caller
    asked = await app.confirm.ask(whose, body.topic, body.channel, evidence=body.proof(caller), key_id=caller.key_id)
    return AskedAnswer(
        id=asked.confirmation,
        notification_id=asked.notification,
        expires_at=asked.expires_at,
        remaining=asked.remaining,
    )
