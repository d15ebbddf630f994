"""The folder on disk: which files make a template, and nothing else. Everything after this works on path -> text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path

from notifier.errors import NotConfigured, TemplateError
from notifier_channels.contract import Channel

LAYOUTS = "_layouts"
WORDS = f"{LAYOUTS}/words.toml"
DECLARATION, SCHEMA, SAMPLE, TOPIC = "template.toml", "schema.json", "sample.json", "topic.json"
SUBJECT, HTML, TEXT = "email.subject.j2", "email.html.j2", "email.txt.j2"
SMS, PUSH = "sms.j2", "push.toml"
CHANNELS = {
    **dict.fromkeys((SUBJECT, HTML, TEXT), Channel.EMAIL),
    SMS: Channel.SMS,
    PUSH: Channel.PUSH,
}  #: which channel a file of a locale is content for
LOCALE = re.compile(r"[a-z]{2,3}(-[A-Z][a-z]{3})?(-([A-Z]{2}|[0-9]{3}))?")


def bundled_directory() -> Path:
    """The templates that ship: inside the package when installed from a wheel, beside it in a checkout."""
    package = Path(__file__).parents[1]
    for directory in (package / "_bundled" / "templates", package.parent / "templates"):
        if directory.is_dir():
            return directory
    raise NotConfigured("The templates that ship are missing; set NOTIFIER_TEMPLATES_DIR to a folder of your own.")


def read(directory: Path) -> dict[str, str]:
    """Every file below the folder, by its path with forward slashes. Hidden files are not ours."""
    if not directory.is_dir():
        raise NotConfigured(f"NOTIFIER_TEMPLATES_DIR: there is no folder {directory}")
    return {path.relative_to(directory).as_posix(): _text(path, directory) for path in sorted(_files(directory))}


def keys(files: Mapping[str, str]) -> list[str]:
    """The templates in the folder: each is a subfolder whose name is its key."""
    return sorted({path.split("/")[0] for path in files if "/" in path} - {LAYOUTS})


def own_files(files: Mapping[str, str], key: str) -> dict[str, str]:
    """The files of one template.

    Raises:
        TemplateError: names a file that nothing would read, such as a misspelt one, or one that is missing.

    """
    own = {path: text for path, text in files.items() if path.startswith(f"{key}/")}
    for path in own:
        _known(path.split("/")[1:], path)
    for name in (DECLARATION, SCHEMA, SAMPLE):
        if f"{key}/{name}" not in own:
            raise TemplateError(f"{key}/{name} is missing")
    return own


def channels(paths: Mapping[str, str], key: str) -> dict[Channel, tuple[str, ...]]:
    """The channels that a template has content for, each with its languages."""
    found: dict[Channel, set[str]] = {}
    for path in paths:
        match path.split("/"):
            case [owner, locale, name] if owner == key:
                found.setdefault(CHANNELS[name], set()).add(locale)
    return {channel: tuple(sorted(found[channel])) for channel in sorted(found)}


def content_hash(sources: Mapping[str, str]) -> str:
    """The version: the same for the same content, another one when a single character of any file differs."""
    digest = sha256()
    for path, text in sorted(sources.items()):
        for part in (path.encode(), text.encode()):
            digest.update(b"%d:" % len(part))
            digest.update(part)
    return digest.hexdigest()


def _files(directory: Path) -> Iterator[Path]:
    for path in directory.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(directory).parts)
        if path.is_file() and not hidden and path.name != "README.md":
            yield path


def _text(path: Path, directory: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        raise TemplateError(f"{path.relative_to(directory).as_posix()} is not UTF-8 text") from None
    except OSError as error:
        name = path.relative_to(directory).as_posix()
        raise TemplateError(f"{name} cannot be read ({error.strerror}): let the service's user read it") from None


def _known(parts: list[str], path: str) -> None:
    match parts:
        case [name] if name in (DECLARATION, SCHEMA, SAMPLE):
            return
        case [locale, name] if name in CHANNELS:
            if not LOCALE.fullmatch(locale):
                raise TemplateError(f"{path}: `{locale}` is no locale; write it like de, de-AT or zh-Hant-TW")
        case _:
            raise TemplateError(
                f"{path} is not a file of a template. There are {DECLARATION}, {SCHEMA}, {SAMPLE} and, "
                f"per locale, {', '.join(CHANNELS)}"
            )
