"""Who may do what: the scopes of API keys, and the keys themselves. Nothing is allowed that no scope names."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256

from notifier.domain.messages import Category


class Scope(StrEnum):
    """What a key may do. No scope contains another."""

    SEND_TRANSACTIONAL = "send:transactional"  #: send templates of transactional topics, and cancel them
    SEND_MARKETING = "send:marketing"  #: send templates of marketing topics, and cancel them
    RECIPIENTS = "recipients"  #: write and read recipients
    PREFERENCES = "preferences"  #: write consent, also by import
    READ = "read"  #: read notifications, messages and recipients
    ADMIN = "admin"  #: what operators do

    @classmethod
    def to_send(cls, category: Category) -> Scope:
        """The scope that a template of this category needs."""
        return cls.SEND_MARKETING if category is Category.MARKETING else cls.SEND_TRANSACTIONAL


@dataclass(frozen=True, slots=True)
class Caller:
    """Product code that has shown a valid key."""

    key_id: str
    scopes: frozenset[Scope]


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something that stays on record: product code, or an operator at the machine, who may do everything."""

    name: str  #: `key:<id>` or `operator`
    scopes: frozenset[Scope]

    @classmethod
    def of(cls, caller: Caller) -> Actor:
        """Product code, by its key."""
        return cls(f"key:{caller.key_id}", caller.scopes)


OPERATOR = Actor("operator", frozenset(Scope))


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as its owner holds it: `nk_<id>_<secret>`. Only the hash of the secret is stored."""

    id: str
    secret: str = field(repr=False)

    @classmethod
    def new(cls) -> ApiKey:
        """A key with 256 random bits."""
        return cls(secrets.token_hex(6), secrets.token_urlsafe(32))

    @classmethod
    def parse(cls, text: str) -> ApiKey | None:
        """Read what stands after `Bearer`; None when it cannot be a key."""
        found = _KEY.fullmatch(text)
        return cls(found[1], found[2]) if found else None

    @property
    def secret_hash(self) -> bytes:
        """SHA-256 is enough: what is hashed is random, not chosen by a person."""
        return sha256(self.secret.encode()).digest()

    def __str__(self) -> str:
        return f"nk_{self.id}_{self.secret}"


_KEY = re.compile(r"nk_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
