"""Who is reached and where: the keyed hash under which an address is found, suppressed and remembered."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256

from notifier_channels.contract import Address


@dataclass(frozen=True, slots=True)
class HashedAddress:
    """What the database may know of an address that is no longer there."""

    key: str  #: which secret
    digest: bytes


class Hasher:
    """HMAC-SHA-256 over an address's normal form; the secrets live in settings, never in the database.

    The first key is the one that new rows get; the others still find old rows after a rotation.
    """

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self._keys = dict(keys)

    def current(self, address: Address) -> HashedAddress:
        """The hash that is stored."""
        key = next(iter(self._keys))
        return HashedAddress(key, self._digest(key, address))

    def all(self, address: Address) -> list[bytes]:
        """Every hash under which the address may have been stored, the current one first."""
        return [self._digest(key, address) for key in self._keys]

    def known(self, stored: HashedAddress, restore: Callable[[], Address | None]) -> list[bytes]:
        """The same for a row that holds one of them; the address itself is asked for only when a key was rotated."""
        if len(self._keys) == 1 and stored.key in self._keys:
            return [stored.digest]
        address = restore()
        return self.all(address) if address else [stored.digest]

    def _digest(self, key: str, address: Address) -> bytes:
        kind = type(address).__name__.encode()
        return hmac.digest(self._keys[key], kind + b"\0" + address.normal_form.encode(), sha256)
