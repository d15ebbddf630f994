"""The only reader of the environment: every setting with its default, parsed once into one frozen value.

`docs/reference/settings.md` lists the same names; a test holds the two together.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from notifier.errors import NotConfigured

PREFIX = "NOTIFIER_"

Keys = Annotated[dict[str, SecretStr], NoDecode]
Secrets = Annotated[tuple[SecretStr, ...] | None, NoDecode]
Names = Annotated[tuple[str, ...] | None, NoDecode]
Senders = Annotated[dict[str, tuple[str, str]] | None, NoDecode]  #: display name and address, by what campaigns say

_DOMAIN = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")
_SENDER = re.compile(r"([a-z0-9][a-z0-9_-]{0,39})\s*=\s*([^<>=;\x00-\x1f]*[^<>=;\s])\s*<([^<>\s]+)>")


class Environment(BaseSettings):
    """What every part reads."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="ignore",
        populate_by_name=True,
        env_ignore_empty=True,  # a compose file cannot leave a variable out, only empty
    )

    env: Literal["development", "production"] = Field(
        "development", description="`production` refuses the sandbox, `.test` addresses and plain http links."
    )

    @property
    def is_production(self) -> bool:
        """True where real people are reached."""
        return self.env == "production"


class Appearance(Environment):
    """What rendered messages look like: all that a template's author needs to set to check and preview them."""

    templates_dir: Path | None = Field(None, description="The product's own templates; default: those that ship.")
    default_locale: str = Field("en", description="What a recipient without a locale, or with an unknown one, gets.")
    default_timezone: str = Field("UTC", description="IANA zone of recipients who have none.")

    sender_name: str = Field("Notifier", description="The name in From.")
    sender_address: str = Field("hello@notifier.test", description="The address in From.")
    reply_to: str | None = Field(None, description="Where answers go, when not to the sender.")
    senders: Senders = Field(
        None,
        description="Other senders that a campaign may name: `name=Display Name <address>; ...`.",
    )
    sms_segment_price: str | None = Field(
        None,
        pattern=r"^[0-9]{1,6}(\.[0-9]{1,6})? [A-Z]{3}$",
        description="What one segment of a text message costs, such as `0.0079 USD`: `templates preview` and the "
        "dry-run of a campaign estimate.",
    )
    postal_address: str = Field("Notifier, 1 Example Street, Exampletown", description="In the foot of marketing mail.")
    list_domain: str = Field("lists.notifier.test", description="The domain of List-Id and Message-ID; one you own.")
    feedback_sender_id: str = Field(
        "notifier", min_length=5, max_length=15, description="The rightmost part of Gmail's Feedback-ID."
    )

    brand_logo: Path | None = Field(
        None,
        description="A picture for the public pages: SVG, PNG, JPEG or WebP, at most 64 KB.",
    )
    brand_accent: str | None = Field(
        None,
        pattern="^#[0-9a-fA-F]{6}$",
        description="The colour of buttons on the public pages, such as `#1f4fd8`; hard to read, it is refused.",
    )
    brand_accent_dark: str | None = Field(
        None, pattern="^#[0-9a-fA-F]{6}$", description="The same in dark mode; default: the accent, made lighter."
    )

    @field_validator("default_timezone")
    @classmethod
    def _a_known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("is not an IANA time zone; write it like `Europe/Vienna`") from None
        return value

    @field_validator("list_domain", "inbound_domain", check_fields=False)
    @classmethod
    def _a_domain(cls, value: str | None) -> str | None:
        if value is not None and not _DOMAIN.fullmatch(value):
            raise ValueError("is not a domain; write it like `lists.example.com`, in ASCII (`xn--...`)")
        return value

    @field_validator("senders", mode="before")
    @classmethod
    def _read_senders(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        found = [_SENDER.fullmatch(part.strip()) for part in value.split(";") if part.strip()]
        senders = {match[1]: (match[2], match[3]) for match in found if match}
        if len(senders) != len(found):
            raise ValueError("write `name=Display Name <address>`, several separated by semicolons, each name once")
        return senders


class SandboxSettings(Environment):
    """All that the sandbox needs: where Notifier is, and the secrets that they share."""

    public_url: str = Field(
        "http://127.0.0.1:8025", description="Where recipients reach the public pages; https in production."
    )
    sandbox_secret: SecretStr | None = Field(
        None, description="Set by `run.py`: signs what the sandbox reports back. Refused in production."
    )

    twilio_account_sid: str | None = Field(
        None, pattern="^AC[0-9a-fA-F]{32}$", description="Your account at Twilio: `AC...`. Empty: no text messages."
    )
    twilio_auth_tokens: Secrets = Field(
        None, description="The account's auth token; while it is rotated both, separated by a comma."
    )
    twilio_api_key: SecretStr | None = Field(
        None, description="`SK...:secret`: what requests are made with, when not with the auth token."
    )
    twilio_answers_keywords: bool = Field(
        True, description="Twilio itself answers STOP, START and HELP, which it does unless that is switched off there."
    )
    fcm_credentials: Path | None = Field(
        None, description="The JSON key of a Firebase service account. Empty: no push."
    )

    @field_validator("public_url")
    @classmethod
    def _a_url(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            is_url = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
        except ValueError:
            is_url = False
        if not is_url or parts.query or parts.fragment or re.search(r"\s", value):
            raise ValueError("is not the URL of a host; write it like `https://notify.example.com`")
        return value

    @field_validator("twilio_auth_tokens", mode="before")
    @classmethod
    def _read_secrets(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(part.strip() for part in value.split(",") if part.strip())


class Settings(Appearance, SandboxSettings):
    """What an operator can set. Environment variables are the field names in capitals, with `NOTIFIER_` before."""

    database_url: SecretStr = Field(
        validation_alias="DATABASE_URL", description="PostgreSQL 15 or newer, e.g. `postgresql://user@host/notifier`."
    )
    redis_url: SecretStr = Field(
        validation_alias="REDIS_URL", description="Redis 6 or Valkey with `noeviction`, e.g. `redis://host/0`."
    )
    state_dir: Path = Field(Path(".notifier"), description="Journals of the workers and, when embedded, all data.")

    link_keys: Keys = Field(
        description="Keys that sign links: `id:secret,id:secret`, newest first. Old ones keep old links working: never "
        "remove one, and never change one."
    )
    hash_keys: Keys = Field(
        description="Keys that hash addresses: `id:secret,...`, newest first. Kept outside the database on purpose."
    )

    inbound_domain: str | None = Field(
        None,
        description="The domain whose mail comes back to Notifier: bounces and mailto unsubscribes. Empty: no VERP "
        "return path and no mailto in List-Unsubscribe.",
    )
    inbound_secret: SecretStr | None = Field(
        None, description="The bearer token of `POST /hooks/mail`, at least 32 characters. Empty: no such route."
    )
    soft_bounces: int = Field(
        0,
        ge=0,
        le=100,
        description="After so many bounces without a reason in 30 days, and no delivery in between, an address is "
        "suppressed. 0: never.",
    )
    reference_header: str | None = Field(
        None,
        pattern=r"^[A-Za-z][A-Za-z0-9-]{0,60}: [ -~]{0,100}\{reference\}[ -~]{0,100}$",
        description="A header that the mail provider repeats in its reports, such as "
        "`X-PM-Metadata-notifier: {reference}`.",
    )
    ses_topic_arns: Names = Field(
        None, description="The SNS topics through which Amazon SES reports, separated by commas. Empty: no such route."
    )
    postmark_secret: SecretStr | None = Field(
        None, description="The password in the URL of Postmark's webhook, at least 32 characters. Empty: no such route."
    )

    smtp_url: SecretStr = Field(
        SecretStr("smtp://127.0.0.1:1025"),
        description="The relay: `smtp://user:password@host:587?tls=starttls`, `smtps://host`; `tls=none` only on a "
        "trusted network.",
    )
    smtp_marketing_url: SecretStr | None = Field(None, description="A relay of its own for marketing, if there is one.")
    smtp_rate: float | None = Field(
        None,
        ge=0.1,
        le=100_000,
        description="The relay's rate in mails a second, over all workers. Empty: as fast as it takes them.",
    )
    smtp_marketing_rate: float | None = Field(
        None, ge=0.1, le=100_000, description="The rate of marketing's own relay, if it has one."
    )
    smtp_connections: int = Field(2, ge=1, le=50, description="Connections to the relay per worker process.")

    twilio_sender: str | None = Field(
        None,
        description="Who text messages are from: a number such as +4930123456, a Messaging Service `MG...`, or a name.",
    )
    twilio_marketing_sender: str | None = Field(None, description="Another sender for marketing, if there is one.")
    twilio_segments_per_second: float = Field(
        1, ge=0.1, le=10_000, description="Each sender's rate in segments: an ordinary number has 1, a short code 100."
    )
    twilio_connections: int = Field(4, ge=1, le=100, description="Requests to Twilio at once per worker process.")
    twilio_api_url: str = Field("https://api.twilio.com", description="Another only for the sandbox.")

    fcm_at_once: int = Field(
        25, ge=1, le=500, description="Messages in one call to FCM, and so the most that a kill leaves in doubt."
    )
    fcm_rate: float | None = Field(
        None,
        ge=0.1,
        le=100_000,
        description="FCM's rate in pushes a second, over all workers. Empty: as fast as it takes them.",
    )
    fcm_api_url: str = Field("https://fcm.googleapis.com", description="Another only for the sandbox.")

    quiet_hours: str = Field(
        "all", description="The packs that are on: `all`, `none`, or their names, separated by commas."
    )
    quiet_hours_file: Path | None = Field(
        None, description="Your own packs, in the form of those that ship; one of the same name takes its place."
    )
    quiet_hours_spread_minutes: int = Field(
        30,
        ge=0,
        le=240,
        description="What was held back goes out spread over so long, not all at the stroke of the hour.",
    )
    marketing_caps: str = Field(
        "sms 3/24h",
        description="How much marketing a person gets at most, such as `sms 3/24h, 10/week`; `none`: no cap.",
    )

    batch_size: int = Field(500, ge=1, le=500, description="Messages that are claimed, decided and settled together.")
    worker_threads: int = Field(4, ge=1, le=64, description="Batches a transactional worker has in hand at once.")
    marketing_threads: int = Field(3, ge=1, le=64, description="The same for one marketing worker.")
    marketing_nice: int = Field(
        10, ge=0, le=19, description="By how much marketing workers step back for all other processes. 0: not at all."
    )
    send_timeout_seconds: float = Field(
        60, ge=1, le=600, description="The longest that one batch may be on the wire; later nothing more is committed."
    )
    watchdog_seconds: int = Field(
        30, ge=2, le=600, description="A worker whose event loop stands still for so long is hung: it ends itself."
    )
    shutdown_seconds: float = Field(25, ge=1, le=300, description="How long a worker drains after SIGTERM.")

    events: bool = Field(
        True, description="Keep events for `GET /v1/events` and webhooks. `False`: nothing is written, nothing is told."
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="The least that is logged.")

    @field_validator("database_url")
    @classmethod
    def _for_libpq(cls, value: SecretStr) -> SecretStr:
        """Asked here, and its answer not heard: libpq repeats what it cannot read, the password in it too."""
        from psycopg import ProgrammingError
        from psycopg.conninfo import conninfo_to_dict

        try:
            conninfo_to_dict(value.get_secret_value())
        except ProgrammingError:
            raise ValueError("cannot be read; write it like `postgresql://user:password@host/notifier`") from None
        return value

    @field_validator("redis_url")
    @classmethod
    def _for_redis(cls, value: SecretStr) -> SecretStr:
        try:
            parts = urlsplit(value.get_secret_value())
            is_url = parts.scheme in ("redis", "rediss", "unix") and (parts.port or 1)
        except ValueError:
            is_url = False
        if not is_url:
            raise ValueError("cannot be read; write it like `redis://:password@host:6379/0`")
        return value

    @field_validator("link_keys", "hash_keys", mode="before")
    @classmethod
    def _read_keys(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        pairs = [part.strip().partition(":") for part in value.split(",") if part.strip()]
        if not pairs or any(not name or len(secret) < 32 for name, _, secret in pairs):
            raise ValueError("write `id:secret`, several separated by commas, each secret of at least 32 characters")
        if len({name for name, _, _ in pairs}) != len(pairs):
            raise ValueError("an id stands twice")
        return {name: secret for name, _, secret in pairs}

    @field_validator("ses_topic_arns", mode="before")
    @classmethod
    def _read_names(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(part.strip() for part in value.split(",") if part.strip())

    @field_validator("inbound_secret", "postmark_secret")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < 32:
            raise ValueError("must have at least 32 characters")
        return value

    @model_validator(mode="after")
    def _twilio_is_whole(self) -> Settings:
        if self.twilio_account_sid and not (self.twilio_auth_tokens and self.twilio_sender):
            raise ValueError("NOTIFIER_TWILIO_ACCOUNT_SID needs NOTIFIER_TWILIO_AUTH_TOKENS and NOTIFIER_TWILIO_SENDER")
        return self

    @model_validator(mode="after")
    def _safe_in_production(self) -> Settings:
        if self.env == "production":
            if not self.public_url.startswith("https://"):
                raise ValueError("NOTIFIER_PUBLIC_URL must be https in production (RFC 8058 demands it)")
            if self.list_domain.endswith(".test"):
                raise ValueError("NOTIFIER_LIST_DOMAIN must be a domain that you own: it stands in every Message-ID")
            if self.postal_address == type(self).model_fields["postal_address"].default:
                raise ValueError("NOTIFIER_POSTAL_ADDRESS must be yours: the law wants it in marketing mail")
            if self.sandbox_secret is not None:
                raise ValueError("NOTIFIER_SANDBOX_SECRET must not be set in production")
            if not (self.twilio_api_url.startswith("https://") and self.fcm_api_url.startswith("https://")):
                raise ValueError("NOTIFIER_TWILIO_API_URL and NOTIFIER_FCM_API_URL must be https in production")
        return self


def load() -> Settings:
    """Read the environment.

    Raises:
        NotConfigured: names each setting that is missing or wrong, and never its value.

    """
    try:
        return Settings()  # type: ignore[call-arg]  # the required ones come from the environment
    except ValidationError as error:
        raise NotConfigured(_named(error)) from None


def load_appearance() -> Appearance:
    """Read only what rendering needs, so that templates are checked where no service is set up.

    Raises:
        NotConfigured: as `load`.

    """
    try:
        return Appearance()  # type: ignore[call-arg]  # mypy sees no defaults behind Field
    except ValidationError as error:
        raise NotConfigured(_named(error)) from None


def load_sandbox() -> SandboxSettings:
    """Read only what the sandbox needs: it runs without a database.

    Raises:
        NotConfigured: as `load`.

    """
    try:
        return SandboxSettings()  # type: ignore[call-arg]  # as above
    except ValidationError as error:
        raise NotConfigured(_named(error)) from None


def _named(error: ValidationError) -> str:
    lines = [f"{variable(str(e['loc'][0])) if e['loc'] else 'settings'}: {e['msg']}" for e in error.errors()]
    return "; ".join(lines)


def variable(field: str) -> str:
    """The environment variable of a setting."""
    known = Settings.model_fields.get(field)
    alias = known.validation_alias if known else None
    return str(alias) if alias else field if field.isupper() else f"{PREFIX}{field.upper()}"
