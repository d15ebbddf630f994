"""The phones behind the stand-in for Twilio: who has said STOP to whom, and what is typed on them."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from xml.etree import ElementTree as ET

from notifier.sandbox.callbacks import Callbacks
from notifier.sandbox.texts import Text, Texts
from notifier_channels.sms.keywords import is_twilios
from notifier_channels.sms.segments import count
from notifier_channels.sms.twilio import SERVICE

INBOUND = "/hooks/twilio/inbound"
NUMBER_OF_SERVICE = "+15005550006"  #: what a Messaging Service sends from here: Twilio's own valid test number
STARTS, HELPS = frozenset({"START", "YES", "UNSTOP"}), frozenset({"HELP", "INFO"})

# Twilio's own words, from its page on Advanced Opt-Out, November 2026.
ANSWERS = {
    "STOP": "You have successfully been unsubscribed. You will not receive any more messages from this number. "
    "Reply START to resubscribe.",
    "START": "You have successfully been re-subscribed to messages from this number. Reply HELP for help. "
    "Reply STOP to unsubscribe. Msg&Data Rates May Apply.",
    "HELP": "Reply STOP to unsubscribe. Msg&Data Rates May Apply.",
}


class Phones:
    """Every phone at once. With `answers_keywords`, STOP, START and HELP are minded and answered as Twilio does."""

    def __init__(
        self, texts: Texts, callbacks: Callbacks, account_sid: str, public_url: str, *, answers_keywords: bool
    ) -> None:
        self.texts = texts
        self._callbacks = callbacks
        self._account_sid = account_sid
        self._url = public_url.rstrip("/") + INBOUND
        self._answers_keywords = answers_keywords
        self._stopped: set[tuple[str, str]] = set()

    def has_stopped(self, ours: str, phone: str) -> bool:
        """True when the phone has said STOP to this sender, and not START since."""
        return (ours, phone) in self._stopped

    async def type_on_phone(self, phone: str, body: str, ours: str | None = None) -> Text:
        """Send a message from a phone to us, by default to whoever wrote last, and show what is answered.

        Its status is `received`, or `failed` with 11200 when Notifier did not take it.
        """
        to = ours or self._last_writer(phone)
        typed = self.texts.keep(_typed(phone, to, body))
        keyword = self._mind(to, phone, body)
        answer = await self._callbacks.post(self._url, self._form(typed, keyword))
        if answer is None or not answer.is_success:
            typed.status, typed.error_code = "failed", 11200
        elif (reply := _message_of(answer.text)) is not None and not self.has_stopped(to, phone):
            self.texts.keep(_reply(phone, to, reply))
        if keyword is not None:
            self.texts.keep(_reply(phone, to, ANSWERS[keyword]))
        return typed

    def _mind(self, ours: str, phone: str, body: str) -> str | None:
        """Which of its own keywords Twilio has read; None for all else, and when it leaves them to us."""
        if not self._answers_keywords or not is_twilios(body):
            return None
        word = body.strip().upper()
        if word in HELPS:
            return "HELP"
        if word in STARTS:
            self._stopped.discard((ours, phone))
            return "START"
        self._stopped.add((ours, phone))
        return "STOP"

    def _last_writer(self, phone: str) -> str:
        return next((text.ours for text in reversed(self.texts.thread(phone))), NUMBER_OF_SERVICE)

    def _form(self, typed: Text, keyword: str | None) -> Mapping[str, str]:
        is_service = bool(SERVICE.fullmatch(typed.ours))
        form = {
            "AccountSid": self._account_sid,
            "ApiVersion": "2010-04-01",
            "Body": typed.body,
            "From": typed.phone,
            "FromCountry": "",
            "MessageSid": typed.sid,
            "NumMedia": "0",
            "NumSegments": str(typed.segments),
            "SmsMessageSid": typed.sid,
            "SmsSid": typed.sid,
            "SmsStatus": "received",
            "To": NUMBER_OF_SERVICE if is_service else typed.ours,
        }
        if is_service:
            form["MessagingServiceSid"] = typed.ours
            if keyword is not None:
                form["OptOutType"] = keyword
        return form


def new_sid() -> str:
    """An id as Twilio gives it to a text message."""
    return "SM" + secrets.token_hex(16)


def _typed(phone: str, ours: str, body: str) -> Text:
    segments = count(body).segments
    return Text(new_sid(), datetime.now(UTC), phone, ours, body, segments, is_inbound=True, status="received")


def _reply(phone: str, ours: str, body: str) -> Text:
    segments = count(body).segments
    return Text(new_sid(), datetime.now(UTC), phone, ours, body, segments, is_reply=True, status="delivered")


def _message_of(twiml: str) -> str | None:
    """What TwiML wants to be answered; None for nothing."""
    try:
        message = ET.fromstring(twiml).find("Message")  # noqa: S314  # from Notifier itself
    except ET.ParseError:
        return None
    return None if message is None else "".join(message.itertext())
