"""What is asked of the stand-in for Twilio, looked at as strictly as Twilio looks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import urlsplit

from starlette.responses import JSONResponse, Response

from notifier.sandbox.phones import new_sid
from notifier.sandbox.texts import Text
from notifier_channels.addresses import InvalidAddress, PhoneNumber
from notifier_channels.sms.segments import count
from notifier_channels.sms.twilio import SERVICE

LONGEST_BODY = 1600
DOCS = "https://www.twilio.com/docs"

_NUMBER = re.compile(r"\+[1-9]\d{1,14}|\d{3,8}")
_NAME = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9 +_&-]{1,11}")
_HOST = re.compile(r"[A-Za-z0-9.:\[\]-]+")  # no underscore


class ApiError(Exception):
    """One of Twilio's errors."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message

    def response(self) -> Response:
        """As it stands on the wire."""
        more_info = f"{DOCS}/errors/{self.code}"
        body = {"code": self.code, "message": self.message, "more_info": more_info, "status": self.status}
        headers = {401: {"WWW-Authenticate": 'Basic realm="Twilio API"'}, 429: {"Retry-After": "1"}}
        return JSONResponse(body, self.status, headers.get(self.status))


def checked(form: Mapping[str, str]) -> Text:
    """The message that is asked for.

    Raises:
        ApiError: Twilio's own, in the order in which it looks.

    """
    if not form.get("To"):
        raise ApiError(400, 21604, "A 'To' phone number is required.")
    try:
        phone = PhoneNumber.parse(form["To"]).e164
    except InvalidAddress:
        raise ApiError(400, 21211, f"Invalid 'To' Phone Number: {form['To'][:6]}XXXX") from None
    ours = _sender(form)
    body = form.get("Body", "")
    if not body.strip():
        raise ApiError(400, 21619, "A text message body or media urls must be specified.")
    if len(body) > LONGEST_BODY:
        raise ApiError(400, 21617, "The concatenated message body exceeds the 1600 character limit")
    callback = form.get("StatusCallback") or None
    if callback is not None and not _is_url(callback):
        raise ApiError(400, 21609, "The StatusCallback URL is not a valid URL.")
    if "ValidityPeriod" in form:
        whole(form["ValidityPeriod"], 1, 36_000, 90007)
    status, segments = "accepted" if SERVICE.fullmatch(ours) else "queued", count(body).segments
    return Text(new_sid(), datetime.now(UTC), phone, ours, body, segments, status=status, callback_url=callback)


def _sender(form: Mapping[str, str]) -> str:
    service, sender = form.get("MessagingServiceSid", ""), form.get("From", "")
    if service:
        if not SERVICE.fullmatch(service):
            raise ApiError(400, 21705, "The Messaging Service Sid is invalid.")
        return service
    if not sender:
        raise ApiError(400, 21603, "A 'From' phone number is required.")
    if not (_NUMBER.fullmatch(sender) or _NAME.fullmatch(sender)) or sender == "+15005550001":
        raise ApiError(
            400, 21212, "The 'From' number is not a valid phone number, shortcode, or alphanumeric sender ID."
        )
    if sender == "+15005550007":
        raise ApiError(400, 21606, "The 'From' phone number is not a valid message-capable Twilio phone number.")
    if sender == "+15005550008":
        raise ApiError(400, 21611, "This 'From' number has exceeded the maximum number of queued messages.")
    return sender


def whole(text: str, least: int, most: int, code: int = 20001) -> int:
    """A parameter that is a number.

    Raises:
        ApiError: `code`, when it is none, or out of bounds.

    """
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and least <= int(text) <= most):
        raise ApiError(400, code, f"A parameter must be a whole number from {least} to {most}")
    return int(text)


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and _HOST.fullmatch(parts.netloc) is not None
