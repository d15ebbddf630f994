"""Addresses, parsed at the edge: whoever holds one of these types holds something that can be sent to."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from enum import StrEnum

import email_validator
import phonenumbers


class InvalidAddress(ValueError):
    """The text is no address of this channel. The message says why and what to do, and never repeats the text (I5)."""


@dataclass(frozen=True, slots=True)
class EmailAddress:
    """A mailbox: the domain as an A-label in lower case (RFC 5891), the local part as the person wrote it."""

    local: str
    domain: str

    @classmethod
    def parse(cls, text: str, *, allow_test_domains: bool = False) -> EmailAddress:
        """Read an addr-spec. No quoted local parts, no address literals; `.test` only when told.

        Raises:
            InvalidAddress: with the reason.

        """
        try:
            parsed = email_validator.validate_email(
                text, check_deliverability=False, test_environment=allow_test_domains
            )
        except email_validator.EmailNotValidError as error:
            raise InvalidAddress(_without_quotes(str(error))) from None
        return cls(parsed.local_part, parsed.ascii_domain.lower())

    @classmethod
    def restore(cls, text: str) -> EmailAddress:
        """Take back what `str()` of a parsed address gave: what the database holds was parsed at the door."""
        local, _, domain = text.rpartition("@")
        return cls(local, domain)

    @property
    def needs_smtputf8(self) -> bool:
        """True when the local part is not ASCII and the server must offer SMTPUTF8 (RFC 6531)."""
        return not self.local.isascii()

    @property
    def normal_form(self) -> str:
        """What the keyed hash is taken of: NFC, all lower case. `Ann@` and `ann@` are one person in practice."""
        return unicodedata.normalize("NFC", str(self)).lower()

    @property
    def masked(self) -> str:
        """What a page may show to somebody who holds only a link: `a…@e….com`."""
        return f"{self.local[:1]}…@{self.domain[:1]}….{self.domain.rpartition('.')[2]}"

    def __str__(self) -> str:
        return f"{self.local}@{self.domain}"

    def __repr__(self) -> str:
        return f"EmailAddress({self.masked})"


@dataclass(frozen=True, slots=True)
class PhoneNumber:
    """A number in E.164 form, e.g. `+4930123456`."""

    e164: str

    @classmethod
    def parse(cls, text: str) -> PhoneNumber:
        """Read an international number.

        Raises:
            InvalidAddress: with the reason.

        """
        try:
            number = phonenumbers.parse(text, None)
        except phonenumbers.NumberParseException:
            raise InvalidAddress("Not a phone number in international form, such as +4930123456.") from None
        if not phonenumbers.is_valid_number(number):
            raise InvalidAddress("No such number exists in its country's numbering plan.")
        if number.extension:
            raise InvalidAddress("A text message reaches no extension; give a number of their own, or none.")
        return cls(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))

    @property
    def normal_form(self) -> str:
        """What the keyed hash is taken of."""
        return self.e164

    @property
    def masked(self) -> str:
        """What a page may show: the country's first digits and the last two."""
        return f"{self.e164[:3]}…{self.e164[-2:]}"

    def __str__(self) -> str:
        return self.e164

    def __repr__(self) -> str:
        return f"PhoneNumber({self.masked})"


class DeviceKind(StrEnum):
    """How Firebase knows an app on a device. It calls `token` deprecated in favour of `fid` (FCM v1, `Message.fid`)."""

    FID = "fid"  #: Firebase installation id
    TOKEN = "token"  # noqa: S105  # the kind, not one of them: a registration token


class Platform(StrEnum):
    """Where the app runs, as it says itself. It is no part of the address: FCM knows it by the device."""

    ANDROID = "android"
    IOS = "ios"
    WEB = "web"


@dataclass(frozen=True, slots=True)
class Device:
    """One app on one device, as FCM addresses it."""

    kind: DeviceKind
    value: str

    @classmethod
    def parse(cls, kind: DeviceKind, value: str) -> Device:
        """Read what an app got from Firebase.

        Raises:
            InvalidAddress: with the reason.

        """
        if not _DEVICE[kind].fullmatch(value):
            raise InvalidAddress(_DEVICE_FORMS[kind])
        return cls(kind, value)

    @classmethod
    def restore(cls, text: str) -> Device:
        """Take back what `str()` of a device gave."""
        kind, _, value = text.partition(":")
        return cls(DeviceKind(kind), value)

    @property
    def normal_form(self) -> str:
        """What the keyed hash is taken of."""
        return str(self)

    @property
    def masked(self) -> str:
        """What a page may show: not enough to send to it."""
        return f"{self.kind} {self.value[:4]}…"

    def __str__(self) -> str:
        return f"{self.kind}:{self.value}"

    def __repr__(self) -> str:
        return f"Device({self.masked})"


_DEVICE = {
    DeviceKind.FID: re.compile(r"[A-Za-z0-9_-]{22}"),  # 17 bytes in base64url without its padding and last letter
    DeviceKind.TOKEN: re.compile(r"[A-Za-z0-9_:-]{32,4096}"),
}
_DEVICE_FORMS = {
    DeviceKind.FID: "Not a Firebase installation id: 22 letters, digits, `-` or `_`, as the app's SDK gives it.",
    DeviceKind.TOKEN: "Not an FCM registration token: at least 32 letters, digits, `:`, `-` or `_`.",
}


def _without_quotes(message: str) -> str:
    """Keep only the explanation: some of the library's sentences quote a part of the address."""
    return message.split(":", maxsplit=1)[0].split("'", maxsplit=1)[0].strip().rstrip(".") + "."
