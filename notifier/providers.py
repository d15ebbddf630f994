"""The ways out of a process: a provider for each channel that is set up, made from the settings.

Each lane has connections and pauses of its own (I10), and its providers' names say so.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    return {Channel.SMS: _twilio_client(settings, Lane.TRANSACTIONAL, Unhurried(), 1)}


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
