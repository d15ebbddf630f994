"""What stand-ins and providers report back over HTTP: proven genuine on the raw body, then given to feedback."""

from __future__ import annotations

import hmac
from datetime import datetime
from hashlib import sha256
from typing import Annotated, Literal
from uuid import UUID

import psycopg
from fastapi import APIRouter, Request
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import Response

from notifier.dispatch.feedback import Feedback
from notifier_channels.contract import DeliveryEvent, EventKind

SIGNATURE = "X-Sandbox-Signature"
SOURCE = "sandbox"


class SandboxReport(BaseModel):
    """One report as the sandbox writes it."""

    model_config = ConfigDict(frozen=True)

    id: Annotated[str, Field(min_length=1, max_length=200)]
    message_id: UUID
    attempt: Annotated[int, Field(ge=1, le=1000)] | None = None
    kind: Literal["delivered", "bounced", "complained", "deferred"]
    occurred_at: AwareDatetime
    code: Annotated[str, Field(max_length=200)] | None = None

    def event(self) -> DeliveryEvent:
        """The report in our own words."""
        occurred_at: datetime = self.occurred_at
        kind = EventKind(self.kind)
        return DeliveryEvent(self.message_id, kind, SOURCE, self.id, occurred_at, self.attempt, self.code)


def sandbox_hook(secret: bytes, feedback: Feedback) -> APIRouter:
    """The route that exists only where the sandbox does."""
    router = APIRouter(include_in_schema=False)

    async def take(request: Request) -> Response:
        """404 for a message that is not known (yet): the sender tries again."""
        body = await request.body()  # cut off at the edge
        if not _genuine(secret, body, request.headers.get(SIGNATURE, "")):
            return Response(status_code=403)
        try:
            report = SandboxReport.model_validate_json(body)
        except ValidationError:
            return Response(status_code=422)
        try:
            unknown = await feedback([report.event()])
        except psycopg.Error:
            return Response(status_code=503, headers={"Retry-After": "5"})
        return Response(status_code=404 if unknown else 204)

    router.add_api_route("/hooks/sandbox", take, methods=["POST"])
    return router


def _genuine(secret: bytes, body: bytes, signature: str) -> bool:
    expected = hmac.new(secret, body, sha256).hexdigest()
    return hmac.compare_digest(expected.encode(), signature.encode("utf-8", "replace"))
