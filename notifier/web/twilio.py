"""What Twilio tells us later: how a text message fares, and what people answer to it.

Open to everybody, so nothing is believed that Twilio has not signed, over the public URL that it called: behind a proxy
the request itself names another one. A status names its message in the URL's own signed token. Whatever comes twice,
late or in another order changes nothing more.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg
import structlog
from fastapi import APIRouter, Request
from starlette.responses import Response

from notifier.dispatch.feedback import Feedback
from notifier.dispatch.kept_replies import KEPT, KeptReplies
from notifier.dispatch.replies import Reply
from notifier.domain.tokens import Links
from notifier.settings import Settings
from notifier_channels.addresses import InvalidAddress, PhoneNumber
from notifier_channels.sms import keywords, webhooks

log = structlog.get_logger(__name__)

PROVIDER = "twilio"
SIGNATURE = "X-Twilio-Signature"
AGAIN = {"Retry-After": "5"}


def twilio_hooks(settings: Settings, links: Links, feedback: Feedback, replies: KeptReplies) -> APIRouter:
    """The routes that exist where text messages are set up."""
    tokens = tuple(token.get_secret_value() for token in settings.twilio_auth_tokens or ())
    desk = Desk(tokens, settings.public_url.rstrip("/"), settings.twilio_answers_keywords, links, feedback, replies)
    router = APIRouter(prefix="/hooks/twilio", include_in_schema=False)
    router.add_api_route("/status/{token}", desk.status, methods=["POST"])
    router.add_api_route("/inbound", desk.inbound, methods=["POST"])
    return router


@dataclass(frozen=True, slots=True)
class Desk:
    """Where Twilio calls."""

    tokens: tuple[str, ...]  #: the account's auth tokens: while they are rotated, both
    public_url: str
    twilio_answers: bool
    links: Links
    feedback: Feedback
    replies: KeptReplies

    async def status(self, request: Request, token: str) -> Response:
        """How one attempt fares: 204 once it is kept, also for a message that is no longer here."""
        form = await self._genuine(request)
        if form is None:
            return Response(status_code=403)
        reference = self.links.read_report(token)
        if reference is None:
            return Response(status_code=404)
        reports = webhooks.status(form, (reference.message, reference.attempt), datetime.now(UTC))
        await self.feedback(reports)  # without a database the edge answers 503, and Twilio comes again
        return Response(status_code=204)

    async def inbound(self, request: Request) -> Response:
        """What a person wrote: acted on before it is answered, and answered in the reply itself (TwiML)."""
        form = await self._genuine(request)
        if form is None:
            return Response(status_code=403)
        reply = self._reply(form)
        if reply is None:
            return _twiml(None)
        try:
            return _twiml(await self.replies(reply))
        except (psycopg.Error, OSError) as error:
            log.error(
                "reply.not_saved",
                error=type(error).__name__,
                kept=reply.said in KEPT and isinstance(error, psycopg.Error),
            )
            return Response(status_code=503, headers=AGAIN)

    def _reply(self, form: webhooks.Form) -> Reply | None:
        """None for what comes from nobody's number, such as a short code's advertising."""
        written = webhooks.inbound(form)
        if written is None:
            return None
        try:
            phone = PhoneNumber.parse(written.from_number)
        except InvalidAddress:
            return None
        said = keywords.read(written.body, written.opt_out_type)
        answered = bool(written.opt_out_type) or (self.twilio_answers and keywords.is_twilios(written.body))
        return Reply(written.sid, phone, said, written.body, answered, PROVIDER)

    async def _genuine(self, request: Request) -> webhooks.Form | None:
        """The fields, if Twilio signed them for this URL; the body was cut off at the edge."""
        body, media_type = await request.body(), request.headers.get("content-type", "")
        query = f"?{request.url.query}" if request.url.query else ""
        url = f"{self.public_url}{request.url.path}{query}"
        if not webhooks.genuine(self.tokens, url, media_type, body, request.headers.get(SIGNATURE, "")):
            return None
        return webhooks.form_of(media_type, body)


def _twiml(answer: str | None) -> Response:
    return Response(webhooks.twiml(answer), media_type="text/xml")
