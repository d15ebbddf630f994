"""The ways out of a process: a provider for each channel that is set up, made from the settings.

Each lane has connections and pauses of its own (I10), and its providers' names say so.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr

from notifier.dispatch.deliver import AnyProvider
from notifier.domain.messages import Lane
from notifier.errors import NotConfigured
from notifier.limits import Limits
from notifier.settings import Settings, variable
from notifier_channels.contract import Channel, LooksUp, Pace

if TYPE_CHECKING:
    from notifier_channels.sms.twilio import TwilioProvider

IN_HAND = 2.0  #: seconds of a sender's rate that one batch may hold: what is claimed must not wait for long


def channels_of(settings: Settings) -> frozenset[Channel]:
    """The channels that have a provider, in whichever process it lives."""
    is_set_up = {
        Channel.EMAIL: True,
        Channel.SMS: settings.twilio_account_sid is not None,
        Channel.PUSH: settings.fcm_credentials is not None,
    }
    return frozenset(channel for channel in Channel if is_set_up[channel])


def providers_of(settings: Settings, lane: Lane, limits: Limits) -> dict[Channel, AnyProvider]:
    """What a worker of this lane sends through. Built inside its event loop.

    Raises:
        NotConfigured: names the setting.

    """
    found: dict[Channel, AnyProvider] = {Channel.EMAIL: _smtp(settings, lane)}
    if settings.twilio_account_sid:
        found[Channel.SMS] = _twilio(settings, lane, limits)
    if settings.fcm_credentials:
        found[Channel.PUSH] = _fcm(settings, settings.fcm_credentials, lane)
    return found


def lookers_of(settings: Settings) -> dict[Channel, LooksUp]:
    """Whom the scheduler asks about attempts in doubt."""
    if not settings.twilio_account_sid:
        return {}
    sender, others = settings.twilio_sender or "", {settings.twilio_marketing_sender or ""} - {""}
    return {Channel.SMS: _twilio_client(settings, sender, Lane.TRANSACTIONAL, Unhurried(), 1, others)}


class Unhurried:
    """The pace of a provider that is only asked."""

    async def turn(self, units: int) -> None:
        """At once."""


def _name(provider: str, lane: Lane) -> str:
    return f"{provider}-marketing" if lane is Lane.MARKETING else provider


def _smtp(settings: Settings, lane: Lane) -> AnyProvider:
    """Marketing may have a relay of its own."""
    from notifier_channels.email.relay import InvalidRelayUrl
    from notifier_channels.email.smtp import SmtpProvider

    is_own = lane is Lane.MARKETING and settings.smtp_marketing_url is not None
    field = "smtp_marketing_url" if is_own else "smtp_url"
    url: SecretStr = getattr(settings, field)
    try:
        return SmtpProvider.from_url(
            url.get_secret_value(),
            name=_name("smtp", lane),
            connections=settings.smtp_connections,
            message_id_domain=settings.list_domain,
        )
    except InvalidRelayUrl as error:
        raise NotConfigured(f"{variable(field)}: {error}") from None


def _twilio(settings: Settings, lane: Lane, limits: Limits) -> AnyProvider:
    """Marketing may have a sender of its own; one sender has one rate, whoever sends through it."""
    is_own = lane is Lane.MARKETING and settings.twilio_marketing_sender is not None
    sender = (settings.twilio_marketing_sender if is_own else settings.twilio_sender) or ""
    rate = settings.twilio_segments_per_second
    pace = limits.pace(sender, rate, lane)
    return _twilio_client(settings, sender, lane, pace, max(1, int(rate * IN_HAND)))


def _twilio_client(
    settings: Settings, sender: str, lane: Lane, pace: Pace, most_at_once: int, others: Collection[str] = ()
) -> TwilioProvider:
    from notifier_channels.sms.transport import Account
    from notifier_channels.sms.twilio import MissingExtra, TwilioProvider

    sid = settings.twilio_account_sid or ""
    try:
        username, password = _twilio_login(settings, sid)
        account = Account(sid, username, password, settings.twilio_api_url)
        return TwilioProvider(
            account,
            sender,
            pace,
            name=_name("twilio", lane),
            connections=settings.twilio_connections,
            most_at_once=most_at_once,
            other_senders=others,
        )
    except MissingExtra as error:
        raise NotConfigured(f"{variable('twilio_account_sid')}: {error}") from None


def _twilio_login(settings: Settings, sid: str) -> tuple[str, str]:
    """The API key, if there is one; else the account itself, with the newest auth token."""
    if settings.twilio_api_key is None:
        [newest, *_] = settings.twilio_auth_tokens or (SecretStr(""),)
        return sid, newest.get_secret_value()
    key, _, secret = settings.twilio_api_key.get_secret_value().partition(":")
    if not secret:
        raise NotConfigured(f"{variable('twilio_api_key')}: write it as `SK...:secret`")
    return key, secret


def _fcm(settings: Settings, credentials: Path, lane: Lane) -> AnyProvider:
    from notifier_channels.push.fcm import CannotUseFcm, FcmProvider

    try:
        return FcmProvider.from_file(
            credentials, name=_name("fcm", lane), at_once=settings.fcm_at_once, api_url=settings.fcm_api_url
        )
    except CannotUseFcm as error:
        raise NotConfigured(f"{variable('fcm_credentials')}: {error}") from None
