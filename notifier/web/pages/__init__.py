"""The pages that people see: words in their language, markup that needs no script, and headers that let nothing in."""

from __future__ import annotations

import tomllib
from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

HERE = Path(__file__).parent
LOCALES = HERE / "locales"
FALLBACK = "en"


@dataclass(frozen=True, slots=True)
class Brand:
    """Who is speaking."""

    name: str
    postal_address: str
    logo: str | None = None  #: a data URI: nothing is fetched
    style: str = ""  #: the colours of its own


@dataclass(frozen=True, slots=True)
class Words:
    """One language's catalogue. Called with a key it says the sentence, ready for a page."""

    language: str
    direction: str
    sentences: Mapping[str, str]
    version: str  #: which wording somebody agreed to or refused: it stands in the ledger as evidence

    def __call__(self, key: str, **values: str) -> Markup:
        """The sentence with its values set off from the text around them, whatever their own direction is."""
        marked = {name: Markup("<strong><bdi>{}</bdi></strong>").format(value) for name, value in values.items()}
        return escape(self.sentences[key]).format(**marked)


class Pages:
    """Every page in every language."""

    def __init__(self, brand: Brand) -> None:
        style = (HERE / "style.css").read_text(encoding="utf-8") + brand.style
        self._templates = Environment(
            loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True
        )
        self._templates.globals = {"brand": brand, "style": Markup(style)}  # noqa: S704  # our own file, and colours that were parsed
        english = _flat(_table(LOCALES / f"{FALLBACK}.toml"), "")
        self._words = {path.stem.lower(): _read(path, english) for path in sorted(LOCALES.glob("*.toml"))}
        self.headers = _headers(style, has_logo=brand.logo is not None)

    @property
    def languages(self) -> dict[str, str]:
        """What is spoken: the name that each language has for itself, by its tag."""
        return {words.language: words.sentences["name"] for words in self._words.values()}

    def words(self, wanted: Iterable[str]) -> Words:
        """The catalogue of the first language that is there: `de-AT`, then `de`, then the next one wanted."""
        for tag in wanted:
            subtags = tag.replace("_", "-").lower().split("-")
            for length in range(len(subtags), 0, -1):
                if words := self._words.get("-".join(subtags[:length])):
                    return words
        return self._words[FALLBACK]

    def render(self, page: str, words: Words, **values: Any) -> str:
        """The HTML of one page."""
        return self._templates.get_template(f"{page}.html.j2").render(words=words, **values)


def accepted_languages(header: str) -> list[str]:
    """The tags of an Accept-Language header, the most wanted first (RFC 9110 12.5.4)."""
    ranked = []
    for part in header[:500].split(","):
        tag, _, weight = part.strip().partition(";")
        ranked.append((-_quality(weight), tag.strip()))
    return [tag for rank, tag in sorted(ranked, key=lambda pair: pair[0]) if tag and tag != "*" and rank < 0]


def _quality(weight: str) -> float:
    try:
        return float(weight.strip().removeprefix("q=") or 1)
    except ValueError:
        return 0


def _read(path: Path, english: Mapping[str, str]) -> Words:
    """One catalogue. A sentence that it lacks is said in English: a new key breaks nobody's language."""
    sentences = {**english, **_flat(_table(path), "")}
    version = sha256("\n".join(f"{key}={sentences[key]}" for key in sorted(sentences)).encode()).hexdigest()[:12]
    return Words(path.stem, sentences["direction"], sentences, version)


def _table(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


def _flat(table: Mapping[str, Any], prefix: str) -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in table.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: str(value)}
    return flat


def _headers(style: str, *, has_logo: bool) -> dict[str, str]:
    digest = b64encode(sha256(style.encode()).digest()).decode()
    image = "img-src data:; " if has_logo else ""
    return {
        "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{digest}'; {image}form-action 'self'; "
        "frame-ancestors 'none'; base-uri 'none'",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
        "X-Robots-Tag": "noindex, nofollow",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Permissions-Policy": "interest-cohort=()",
    }
