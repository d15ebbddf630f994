"""Certificates for servers in tests: one authority, and one good and several bad ways to be certified."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Certificates:
    """What a client that trusts only `authority` may meet."""

    authority: Path
    good: Path
    expired: Path
    for_another_host: Path
    of_another_authority: Path

    @classmethod
    def make(cls, directory: Path, host: str = "127.0.0.1") -> Certificates:
        """Write them as PEM files, each with its key."""
        ours, theirs = trustme.CA(), trustme.CA()
        authority = directory / "authority.pem"
        ours.cert_pem.write_to_path(str(authority))
        past = datetime(2020, 1, 1, tzinfo=UTC)
        return cls(
            authority,
            _write(directory / "good.pem", ours.issue_cert(host)),
            _write(directory / "expired.pem", ours.issue_cert(host, not_after=past)),
            _write(directory / "for_another_host.pem", ours.issue_cert("other.example")),
            _write(directory / "of_another_authority.pem", theirs.issue_cert(host)),
        )


def server_context(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def _write(path: Path, certificate: trustme.LeafCert) -> Path:
    certificate.private_key_and_cert_chain_pem.write_to_path(str(path))
    return path
