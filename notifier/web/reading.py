"""From the API's forms to what the use cases take: addresses are parsed here, and nowhere later."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from notifier.app import App
from notifier.domain.access import Caller
from notifier.domain.notifications import Notification, canonical, key_hash
from notifier.domain.who import Given, GivenAddress
from notifier.errors import InvalidInput, Problem
from notifier.web.bodies import BatchItem, InlineRecipient, NotificationBody, RecipientBody
from notifier.web.edge import MAX_BODY
from notifier_channels.addresses import EmailAddress, InvalidAddress, PhoneNumber
from notifier_channels.contract import Address, Channel

if TYPE_CHECKING:
    from collections.abc import Sequence

PROFILE = ("locale", "timezone", "attributes")


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads the parts of one request and collects what is wrong with any of them."""

    app: App
    caller: Caller
    problems: list[Problem] = field(default_factory=list)

    def check(self) -> None:
        """Raise InvalidInput when anything was wrong."""
        if self.problems:
            raise InvalidInput(self.problems)

    def given(self, body: InlineRecipient | RecipientBody, pointer: str, external_id: str | None) -> Given:
        """What a body says of a recipient: only what it mentions."""
        mentioned = body.model_fields_set
        addresses: dict[Channel, GivenAddress | None] = {}
        for name, channel, parse in self._kinds:
            if name in mentioned:
                text = getattr(body, name)
                addresses[channel] = self._address(text, parse, f"{pointer}/{name}") if text is not None else None
        profile: dict[str, Any] = {name: getattr(body, name) for name in PROFILE if name in mentioned}
        return Given(external_id, addresses, profile)

    def notification(self, body: NotificationBody, pointer: str, key: str) -> Notification:
        """A notification out of a request; `pointer` is where it stands there."""
        in_batch = isinstance(body, BatchItem)
        said = canonical(body.model_dump(mode="json", exclude={"idempotency_key"}, exclude_unset=True))
        if len(said) > MAX_BODY:
            self.problems.append(Problem(pointer, f"is over {MAX_BODY // 1024} KB; send less data"))
        return Notification(
            caller=self.caller,
            pointer=pointer,
            key_pointer=f"{pointer}/idempotency_key" if in_batch else "",
            key_hash=key_hash(key),
            body_hash=sha256(said).digest(),
            template=body.template,
            recipient=self.given(body.recipient, f"{pointer}/recipient", body.recipient.id),
            data=body.data,
            channels=tuple(dict.fromkeys(body.channels)) if body.channels else None,
            send_at=body.send_at,
            expires_at=body.expires_at,
        )

    @property
    def _kinds(self) -> Sequence[tuple[str, Channel, Callable[[str], Address]]]:
        return (("email", Channel.EMAIL, self._email), ("phone", Channel.SMS, PhoneNumber.parse))

    def _email(self, text: str) -> EmailAddress:
        return EmailAddress.parse(text, allow_test_domains=not self.app.settings.is_production)

    def _address(self, text: str, parse: Callable[[str], Address], pointer: str) -> GivenAddress | None:
        try:
            return GivenAddress.of(parse(text), self.app.hasher)
        except InvalidAddress as error:
            self.problems.append(Problem(pointer, f"cannot be used: {error}"))
            return None
