"""Who the mail is from: what every rendered mail takes from the installation, not from its template."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

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
    senders: Mapping[str, Mailbox] = field(default_factory=dict, hash=False)  #: others, by what campaigns call them

    @classmethod
    def from_settings(cls, settings: Appearance) -> Identity:
        """Parse what the operator has set.

        Raises:
            NotConfigured: names the setting that holds no address.

        """
        return cls(
            sender=_mailbox(settings, "sender_address", settings.sender_name, settings.sender_address),
            reply_to=_mailbox(settings, "reply_to", settings.sender_name, settings.reply_to)
            if settings.reply_to
            else None,
            postal_address=settings.postal_address,
            list_domain=settings.list_domain,
            feedback_sender_id=settings.feedback_sender_id,
            senders={
                key: _mailbox(settings, "senders", name, address)
                for key, (name, address) in (settings.senders or {}).items()
            },
        )


def _mailbox(settings: Appearance, setting: str, name: str, text: str) -> Mailbox:
    try:
        address = EmailAddress.parse(text, allow_test_domains=not settings.is_production)
    except InvalidAddress as error:
        raise NotConfigured(f"{variable(setting)} holds no usable address: {error}") from None
    return Mailbox(name, address)
