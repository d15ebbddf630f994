"""The service account of the stand-in for FCM: the key file that Notifier reads, and the tokens that it is given."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

PREFIX = "/fcm"  #: below the sandbox's own address
PROJECT = "notifier-sandbox"
EMAIL = f"push@{PROJECT}.iam.gserviceaccount.com"
LIFETIME = 3600  #: seconds that a token lives, as Google's
SCOPES = frozenset(
    {"https://www.googleapis.com/auth/firebase.messaging", "https://www.googleapis.com/auth/cloud-platform"}
)
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
AUDIENCE = "https://oauth2.googleapis.com/token"  #: what Google's library writes, wherever it sends it


@dataclass(frozen=True, slots=True)
class Account:
    """The one service account that the stand-in knows."""

    project: str
    email: str
    key: rsa.RSAPrivateKey
    secret: bytes  #: signs access tokens: they outlive a restart, as Google's do

    @classmethod
    def read(cls, path: Path) -> Account:
        """Take what `write_service_account` wrote."""
        content = json.loads(path.read_text("utf-8"))
        pem = content["private_key"].encode()
        key = serialization.load_pem_private_key(pem, None)
        if not isinstance(key, rsa.RSAPrivateKey):
            raise TypeError("a service account has an RSA key")
        return cls(content["project_id"], content["client_email"], key, hashlib.sha256(pem).digest())

    def token(self, lifetime: int = LIFETIME) -> str:
        """A bearer token."""
        now = int(time.time())
        claims = {"aud": self.project, "iat": now, "exp": now + lifetime, "jti": secrets.token_hex(8)}
        return jwt.encode(claims, self.secret, "HS256")

    def knows(self, authorization: str) -> bool:
        """True for `Bearer` and a token that was given and still lives."""
        scheme, _, token = authorization.partition(" ")
        try:
            jwt.decode(token, self.secret, ["HS256"], audience=self.project)
        except jwt.InvalidTokenError:
            return False
        return scheme.lower() == "bearer"

    def refusal_of(self, form: Mapping[str, list[str]]) -> tuple[str, str] | None:
        """Why a request for a token is refused: OAuth's error and its description."""
        if form.get("grant_type") != [JWT_BEARER]:
            return "unsupported_grant_type", "Invalid grant_type"
        try:
            claims = jwt.decode(
                "".join(form.get("assertion", [])),
                self.key.public_key(),
                ["RS256"],
                audience=AUDIENCE,
                issuer=self.email,
                options={"require": ["iss", "aud", "iat", "exp", "scope"]},
            )
        except jwt.InvalidTokenError as error:
            return "invalid_grant", f"Invalid JWT: {type(error).__name__}"
        if claims["exp"] - claims["iat"] > 3600:
            return "invalid_grant", "Invalid JWT: Token must be a short-lived token (60 minutes)"
        if not SCOPES & set(str(claims["scope"]).split()):
            return "invalid_scope", "Invalid OAuth scope or ID token audience provided."
        return None


def write_service_account(path: Path, sandbox_url: str) -> None:
    """Write a service account's JSON key as Firebase gives it, with `token_uri` at the sandbox; a key there is kept."""
    token_uri = f"{sandbox_url.rstrip('/')}{PREFIX}/token"
    content = _found(path) or _new_account()
    if path.exists() and content.get("token_uri") == token_uri:
        path.chmod(0o600)
        return
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump({**content, "token_uri": token_uri}, file, indent=2)
    fresh.replace(path)


def _found(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text("utf-8"))
        Account.read(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return dict(content)


def _new_account() -> dict[str, Any]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    return {
        "type": "service_account",
        "project_id": PROJECT,
        "private_key_id": secrets.token_hex(20),
        "private_key": pem,
        "client_email": EMAIL,
        "client_id": str(secrets.randbelow(10**21)),
    }
