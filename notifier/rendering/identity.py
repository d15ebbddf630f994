"""Who the mail is from: what every rendered mail takes from the installation, not from its template."""

from __future__ import annotations

from dataclasses import dataclass

from notifier.errors import NotConfigured
from notifier.settings import Appearance, variable
from notifier_channels.addresses import EmailAddress, InvalidAddress
from notifier_channels.contract import Mailbox


@dataclass(frozen=True, slots=True)
class Identity:
    """The sender, as people and mailbox providers see it."""

    sender: Mailbox
    reply_to: Mailbox | None
    postal_address: str
    list_domain: str
    feedback_sender_id: str

    @classmethod
    def from_settings(cls, settings: Appearance) -> Identity:
        """Parse what the operator has set.

        Raises:
            NotConfigured: names the setting that holds no address.

        """
        return cls(
            sender=_mailbox(settings, "sender_address", settings.sender_address),
            reply_to=_mailbox(settings, "reply_to", settings.reply_to) if settings.reply_to else None,
            postal_address=settings.postal_address,
            list_domain=settings.list_domain,
            feedback_sender_id=settings.feedback_sender_id,
        )


def _mailbox(settings: Appearance, field: str, text: str) -> Mailbox:
    try:
        address = EmailAddress.parse(text, allow_test_domains=not settings.is_production)
    except InvalidAddress as error:
        raise NotConfigured(f"{variable(field)} is no usable address: {error}") from None
    return Mailbox(settings.sender_name, address)
