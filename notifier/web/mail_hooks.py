"""Where mail and reports on mail arrive over HTTP: an MTA's raw mail, Amazon SES through SNS, and Postmark.

Open to everybody, so each proves itself before it is read: a secret, or a signature. Then our own signature in the
report says which message it is about. Whatever comes twice, late or in another order changes nothing more.
"""

from __future__ import annotations

import hmac
from base64 import b64decode
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec

import httpx
import psycopg
import structlog
from fastapi import APIRouter, Request
from starlette.responses import Response

from notifier.app import App
from notifier.dispatch.feedback import Feedback
from notifier.dispatch.inbound import Inbound
from notifier.domain.tokens import Links, ReturnPath
from notifier.errors import NotConfigured
from notifier_channels.contract import DeliveryEvent
from notifier_channels.email import postmark, ses

log = structlog.get_logger(__name__)

AGAIN = {"Retry-After": "30"}
SENDER = "Envelope-From"  #: the header with the envelope's sender; `<>` for none, and absent when it is not known
MOST_FETCHED = 64 * 1024  #: bytes of a certificate, or of what SNS answers to a confirmation
MOST_CERTIFICATES = 16
FETCH_WITHIN = 10.0  #: seconds

Fetch = Callable[[str], Awaitable[bytes]]


async def fetch(url: str) -> bytes:
    """Get a page of Amazon's: no redirect is followed, and not much is read.

    Raises:
        httpx.HTTPError: it does not answer, or not with 200.

    """
    async with (
        httpx.AsyncClient(timeout=FETCH_WITHIN, follow_redirects=False, trust_env=False) as client,
        client.stream("GET", url) as answer,
    ):
        if answer.status_code != 200:
            raise httpx.HTTPError(f"answered {answer.status_code}")
        body = b""
        async for piece in answer.aiter_bytes():
            body += piece
            if len(body) > MOST_FETCHED:
                raise httpx.HTTPError("too long")
        return body


def mail_hooks(app: App, get: Fetch = fetch) -> APIRouter:
    """The routes of those who are set up.

    Raises:
        NotConfigured: Amazon SES is, without the extra that verifies its signatures.

    """
    settings = app.settings
    router = APIRouter(prefix="/hooks", include_in_schema=False)
    if settings.inbound_secret is not None:
        door = MailDoor(settings.inbound_secret.get_secret_value(), app.inbound)
        router.add_api_route("/mail", door.take, methods=["POST"])
    if settings.ses_topic_arns:
        if find_spec("cryptography") is None:
            raise NotConfigured("NOTIFIER_SES_TOPIC_ARNS: install the extra, pip install '.[server,ses]'")
        topics = Topics(frozenset(settings.ses_topic_arns), app.links, app.feedback, get, OrderedDict())
        router.add_api_route("/ses", topics.take, methods=["POST"])
    if settings.postmark_secret is not None:
        desk = PostmarkDesk(settings.postmark_secret.get_secret_value(), app.links, app.feedback)
        router.add_api_route("/postmark", desk.take, methods=["POST"])
    return router


@dataclass(frozen=True, slots=True)
class MailDoor:
    """Takes a raw mail (RFC 5322) whose envelope stands beside it.

    The recipient, which we have signed, stands in the query; the sender is a person's address and stands in a header,
    as queries are written into the logs of proxies.
    """

    secret: str
    inbound: Inbound

    async def take(self, request: Request, recipient: str) -> Response:
        """204 for whatever it is: who sends learns nothing. 503: send it again."""
        if not _same(request.headers.get("authorization", ""), f"Bearer {self.secret}"):
            return Response(status_code=401, headers={"WWW-Authenticate": "Bearer"})
        raw = await request.body()  # cut off at the edge
        try:
            await self.inbound(raw, recipient, request.headers.get(SENDER))
        except psycopg.Error as error:
            log.error("inbound.not_saved", error=type(error).__name__)
            return Response(status_code=503, headers=AGAIN)
        return Response(status_code=204)


@dataclass(frozen=True, slots=True)
class Topics:
    """Takes what SNS publishes on our topics."""

    arns: frozenset[str]
    links: Links
    feedback: Feedback
    fetch: Fetch
    certificates: OrderedDict[str, bytes]  #: by URL, of which each stands for one certificate for ever

    async def take(self, request: Request) -> Response:
        """403 for what Amazon has not signed, or not for us; 503 while that cannot be found out."""
        envelope = ses.envelope(await request.body())
        if envelope is None or envelope.topic_arn not in self.arns:
            return Response(status_code=403)
        try:
            if not ses.genuine(envelope, await self._certificate(envelope.certificate_url)):
                return Response(status_code=403)
            if envelope.kind == "SubscriptionConfirmation":
                return await self._confirm(envelope)
            if envelope.kind == "Notification":
                await self.feedback(list(self._events(envelope)))
        except httpx.HTTPError as error:
            log.warning("ses.not_reached", error=type(error).__name__)
            return Response(status_code=503, headers=AGAIN)
        except psycopg.Error as error:
            log.error("inbound.not_saved", error=type(error).__name__)
            return Response(status_code=503, headers=AGAIN)
        return Response(status_code=204)

    async def _confirm(self, envelope: ses.Envelope) -> Response:
        if envelope.subscribe_url is None:
            return Response(status_code=403)
        await self.fetch(envelope.subscribe_url)
        log.info("ses.subscribed")
        return Response(status_code=204)

    async def _certificate(self, url: str) -> bytes:
        if url not in self.certificates:
            self.certificates[url] = await self.fetch(url)
            while len(self.certificates) > MOST_CERTIFICATES:
                self.certificates.popitem(last=False)
        return self.certificates[url]

    def _events(self, envelope: ses.Envelope) -> Iterable[DeliveryEvent]:
        for one in ses.reports(envelope.message, envelope.id):
            if path := _signed(self.links, one.candidates):
                yield DeliveryEvent(
                    path.message, one.kind, ses.SOURCE, one.id, one.occurred_at, path.attempt, one.code,
                    one.is_dead, one.reference, one.strike,
                )  # fmt: skip
            else:
                log.info("report.strange", source=ses.SOURCE)


@dataclass(frozen=True, slots=True)
class PostmarkDesk:
    """Takes what Postmark posts, with the password of the URL (HTTP basic)."""

    secret: str
    links: Links
    feedback: Feedback

    async def take(self, request: Request) -> Response:
        """200, which is what Postmark wants; anything else but 403 is repeated."""
        if not _same(_password(request.headers.get("authorization", "")), self.secret):
            return Response(status_code=401, headers={"WWW-Authenticate": 'Basic realm="notifier"'})
        read = postmark.report(await request.body())
        path = _signed(self.links, [read.candidate]) if read else None
        if read is None or path is None:
            log.info("report.strange", source=postmark.SOURCE)
            return Response(status_code=200)
        event = DeliveryEvent(
            path.message, read.kind, postmark.SOURCE, read.id, read.occurred_at, path.attempt, read.code,
            read.is_dead, read.reference, read.strike,
        )  # fmt: skip
        try:
            await self.feedback([event])
        except psycopg.Error as error:
            log.error("inbound.not_saved", error=type(error).__name__)
            return Response(status_code=503, headers=AGAIN)
        return Response(status_code=200)


def _signed(links: Links, candidates: Iterable[str]) -> ReturnPath | None:
    """What we have signed among them."""
    return next((path for text in candidates if isinstance(path := links.read_mail(text), ReturnPath)), None)


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())


def _password(authorization: str) -> str:
    """The password of HTTP basic authentication (RFC 7617); the user name is free."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        return b64decode(encoded, validate=True).decode().partition(":")[2]
    except ValueError:
        return ""
