"""Leaving a list as a mail client does it: what a mail offers (RFC 2369, RFC 8058) and the POST behind the button."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import SplitResult, urlsplit

import httpx

from notifier.sandbox.reading import Bodies, Headers

BODY = b"List-Unsubscribe=One-Click"
TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that mailbox providers demand, and whether this mail has it."""

    demand: str
    ok: bool
    note: str = ""


@dataclass(frozen=True, slots=True)
class Offer:
    """What the list headers offer. `url` is there only when a client would show its one-click button."""

    url: str | None
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """True when nothing is missing."""
        return all(check.ok for check in self.checks)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back when the button was pressed."""

    ok: bool
    detail: str
    at: datetime
    status: int | None = None
    milliseconds: int = 0


def examine(headers: Headers) -> Offer | None:
    """Judge the list headers; None for a mail that has none, such as a password reset."""
    leave, post = headers.all("List-Unsubscribe"), headers.all("List-Unsubscribe-Post")
    if not leave and not post:
        return None
    urls = [part for value in leave for part in re.findall(r"<\s*([^<>\s]+)\s*>", value)]
    web = next((url for url in urls if (parts := _split(url)) and parts.scheme in ("https", "http")), None)
    one_click = [value.strip() for value in post] == ["List-Unsubscribe=One-Click"]
    checks = (
        Check("List-Unsubscribe stands once and holds a web link", len(leave) == 1 and web is not None),
        Check("List-Unsubscribe-Post is exactly List-Unsubscribe=One-Click", one_click),
        _scheme(web),
        Check("List-Id names the list", len(headers.all("List-Id")) == 1),
    )
    return Offer(web if one_click and len(leave) == 1 else None, checks)


def body_link(offer: Offer, bodies: Bodies) -> Check:
    """Beside the headers, a reader must find a link in the mail itself."""
    shown = f"{bodies.html or ''} {bodies.text or ''}"
    place = _split(offer.url or "")
    found = place is not None and f"//{place.netloc}/" in shown
    return Check("The body has a link of its own to leave or to choose", found)


async def leave(client: httpx.AsyncClient, url: str, *, only: str) -> Answer:
    """Send the POST of RFC 8058, as Gmail would: no cookie, no redirect followed, 26 bytes.

    `only` is Notifier's own address: the sandbox calls nobody else, whatever a mail asks for.
    """
    now = datetime.now(UTC)
    if _origin(url) is None or _origin(url) != _origin(only):
        return Answer(False, "Not sent: the link leads away from this Notifier (NOTIFIER_PUBLIC_URL).", now)
    started = time.monotonic()
    try:
        response = await client.post(
            url,
            content=BODY,
            headers={"Content-Type": "application/x-www-form-urlencoded"},
            follow_redirects=False,
            timeout=TIMEOUT,
        )
    except httpx.HTTPError as error:
        return Answer(False, f"No answer: {type(error).__name__}.", now)
    took = round((time.monotonic() - started) * 1000)
    said = f"{response.status_code} {response.reason_phrase}".strip()
    if response.is_redirect:
        return Answer(False, f"{said}: a redirect fails (RFC 8058 3.1).", now, response.status_code, took)
    return Answer(response.is_success, said, now, response.status_code, took)


def _scheme(url: str | None) -> Check:
    demand = "The link is https"
    parts = _split(url or "")
    if parts is None or parts.scheme == "https":
        return Check(demand, ok=parts is not None)
    if parts.hostname in ("127.0.0.1", "localhost", "::1"):
        return Check(demand, ok=True, note="http on this machine; a mail client would want https")
    return Check(demand, ok=False, note="http does not count")


def _split(url: str) -> SplitResult | None:
    """The parts of a URL that names a host, or None."""
    try:
        parts = urlsplit(url)
        names_a_host = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    return parts if names_a_host else None


def _origin(url: str) -> tuple[str, str | None, int | None] | None:
    parts = _split(url)
    if parts is None:
        return None
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
