"""The ways out of a process: a provider for each channel that is set up, made from the settings.

Each lane has connections and pauses of its own (I10), and its providers' names say so.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr

from notifier.dispatch.deliver import AnyProvider
from notifier.domain.messages import Lane
from notifier.errors import NotConfigured
from notifier.limits import MARKETING_SHARE, Limits
from notifier.settings import Settings, variable
from notifier.throttles import ProviderThrottle
from notifier_channels.contract import Channel, LooksUp, Pace

if TYPE_CHECKING:
    from notifier_channels.sms.twilio import TwilioProvider

MOST_AT_ONCE = 500  #: as many as the service ever has in one hand
IN_HAND = 2.0  #: seconds of a sender's rate that one batch may hold: what is claimed must not wait for long

_PROVIDERS = {Channel.EMAIL: "smtp", Channel.SMS: "twilio", Channel.PUSH: "fcm"}


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
    found: dict[Channel, AnyProvider] = {Channel.EMAIL: _smtp(settings, lane, limits)}
    if settings.twilio_account_sid:
        found[Channel.SMS] = _twilio(settings, lane, limits)
    if settings.fcm_credentials:
        found[Channel.PUSH] = _fcm(settings, settings.fcm_credentials, lane, limits)
    return found


def throttles_of(settings: Settings, lane: Lane, limits: Limits) -> dict[Channel, ProviderThrottle]:
    """What slows marketing down at each of them; what the other lane hears counts where both share a rate."""
    rates = {channel: _rate(settings, channel, lane) for channel in channels_of(settings)}
    return {
        channel: ProviderThrottle(limits, _name(_PROVIDERS[channel], lane), rate.name, lane, rate.ceiling)
        for channel, rate in rates.items()
    }


def lookers_of(settings: Settings) -> dict[Channel, LooksUp]:
    """Whom the scheduler asks about attempts in doubt."""
    if not settings.twilio_account_sid:
        return {}
    sender, others = settings.twilio_sender or "", {settings.twilio_marketing_sender or ""} - {""}
    return {Channel.SMS: _twilio_client(settings, sender, Lane.TRANSACTIONAL, Unhurried(), 1, others)}


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast one way out may go, whichever processes share it."""

    name: str
    per_second: float | None  #: None: as fast as it takes
    is_own: bool  #: marketing alone goes this way

    @property
    def ceiling(self) -> float:
        """What marketing may use of it."""
        if self.per_second is None:
            return float("inf")
        return self.per_second * (1 if self.is_own else MARKETING_SHARE)

    @property
    def most_at_once(self) -> int:
        """The largest batch that does not wait for long in a provider's hands."""
        return MOST_AT_ONCE if self.per_second is None else max(1, min(int(self.per_second * IN_HAND), MOST_AT_ONCE))

    def pace(self, limits: Limits, lane: Lane) -> Pace | None:
        """The turns of one lane; None when nobody has to wait."""
        if self.per_second is None:
            return None
        return limits.pace(self.name, self.per_second, lane, is_own=self.is_own)


class Unhurried:
    """The pace of a provider that is only asked."""

    together = 1

    async def turn(self, units: int) -> None:
        """At once."""


def _name(provider: str, lane: Lane) -> str:
    return f"{provider}-marketing" if lane is Lane.MARKETING else provider


def _rate(settings: Settings, channel: Channel, lane: Lane) -> Rate:
    """Marketing may have a relay or a sender of its own, and then it has the whole of its rate."""
    match channel:
        case Channel.EMAIL:
            is_own = lane is Lane.MARKETING and settings.smtp_marketing_url is not None
            per_second = settings.smtp_marketing_rate if is_own else settings.smtp_rate
            return Rate("smtp-marketing" if is_own else "smtp", per_second, is_own)
        case Channel.SMS:
            is_own = lane is Lane.MARKETING and settings.twilio_marketing_sender is not None
            sender = (settings.twilio_marketing_sender if is_own else settings.twilio_sender) or ""
            return Rate(sender, settings.twilio_segments_per_second, is_own)
        case Channel.PUSH:
            return Rate("fcm", settings.fcm_rate, is_own=False)


def _smtp(settings: Settings, lane: Lane, limits: Limits) -> AnyProvider:
    from notifier_channels.email.relay import InvalidRelayUrl
    from notifier_channels.email.smtp import SmtpProvider

    rate = _rate(settings, Channel.EMAIL, lane)
    field = "smtp_marketing_url" if rate.is_own else "smtp_url"
    url: SecretStr = getattr(settings, field)
    try:
        return SmtpProvider.from_url(
            url.get_secret_value(),
            name=_name("smtp", lane),
            connections=settings.smtp_connections,
            message_id_domain=settings.list_domain,
            pace=rate.pace(limits, lane),
            most_at_once=rate.most_at_once,
        )
    except InvalidRelayUrl as error:
        raise NotConfigured(f"{variable(field)}: {error}") from None


def _twilio(settings: Settings, lane: Lane, limits: Limits) -> AnyProvider:
    rate = _rate(settings, Channel.SMS, lane)
    pace = rate.pace(limits, lane) or Unhurried()
    return _twilio_client(settings, rate.name, lane, pace, rate.most_at_once)


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


def _fcm(settings: Settings, credentials: Path, lane: Lane, limits: Limits) -> AnyProvider:
    from notifier_channels.push.fcm import CannotUseFcm, FcmProvider

    rate = _rate(settings, Channel.PUSH, lane)
    try:
        return FcmProvider.from_file(
            credentials,
            name=_name("fcm", lane),
            at_once=settings.fcm_at_once,
            api_url=settings.fcm_api_url,
            pace=rate.pace(limits, lane),
            most_at_once=rate.most_at_once,
        )
    except CannotUseFcm as error:
        raise NotConfigured(f"{variable('fcm_credentials')}: {error}") from None
