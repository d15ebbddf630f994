"""The ways out of one worker process: a provider for each channel that is set up, made from the settings."""

from __future__ import annotations

from pydantic import SecretStr

from notifier.dispatch.deliver import AnyProvider
from notifier.domain.messages import Lane
from notifier.errors import NotConfigured
from notifier.settings import Settings, variable
from notifier_channels.contract import Channel


def providers_of(settings: Settings, lane: Lane) -> dict[Channel, AnyProvider]:
    """Each lane has connections and pauses of its own (I10); marketing may have a relay of its own."""
    from notifier_channels.email.relay import InvalidRelayUrl
    from notifier_channels.email.smtp import SmtpProvider

    is_own = lane is Lane.MARKETING and settings.smtp_marketing_url is not None
    field = "smtp_marketing_url" if is_own else "smtp_url"
    url: SecretStr = getattr(settings, field)
    try:
        provider = SmtpProvider.from_url(
            url.get_secret_value(),
            name="smtp-marketing" if lane is Lane.MARKETING else "smtp",
            connections=settings.smtp_connections,
            message_id_domain=settings.list_domain,
        )
    except InvalidRelayUrl as error:
        raise NotConfigured(f"{variable(field)}: {error}") from None
    return {Channel.EMAIL: provider}
