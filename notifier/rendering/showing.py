"""Shows a preview to the person who writes the template: on a terminal or in files, with what a text would cost."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

from notifier.rendering import routes
from notifier.rendering.check import worst
from notifier.rendering.mail import PreviewedEmail
from notifier.rendering.push import PreviewedPush
from notifier.rendering.render import Previewed
from notifier.rendering.sms import PreviewedSms
from notifier.rendering.specialised import Outlook, outlook
from notifier.rendering.template import Template
from notifier_channels.contract import Channel
from notifier_channels.push.payload import MOST_BYTES


def summary(template: Template) -> str:
    """What a template is, how it reaches people, and how fast many of them."""
    first = f"{template.topic.category:<14} {template.topic.key:<16} {' '.join(template.locales)}"
    text = worst(template)
    size = f", {segments(text)}" if text else ""
    way = f"{' '.join(sorted(template.channels))}{size}, route: {routes.spoken(template.route)}"
    lines = [f"ok  {template.key:<20} {first:<40}  version {template.hash[:8]}", f"    {way}", *_campaigns(template)]
    return "\n".join(lines)


def shown(seen: Previewed, price: str | None) -> str:
    """For a terminal. `price` is that of one segment, such as `0.0079 USD`."""
    match seen:
        case PreviewedEmail():
            return f"email {seen.locale}\n\nSubject: {seen.subject}\n\n{seen.text}"
        case PreviewedSms():
            return f"sms {seen.locale}: {_measures(seen, price)}\n\n{seen.text}\n"
        case PreviewedPush():
            fields = _fields(seen)
            lines = [f"{name}: {value}" for name, value in fields.items() if isinstance(value, str)]
            lines += [f"data.{key}: {value}" for key, value in seen.data.items()]
            return "\n".join([f"push {seen.locale}: {seen.payload} of {MOST_BYTES} bytes\n", *lines, ""])


def write(seen: Previewed, folder: Path, name: str) -> list[Path]:
    """Put a preview into files whose names begin with `name`; a mail's `.txt` begins with its subject."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {folder / f"{name}{ending}": content for ending, content in _files(seen).items()}
    for path, content in files.items():
        path.write_text(content, "utf-8")
    return list(files)


def segments(seen: PreviewedSms) -> str:
    """`1 segment`, `2 segments`."""
    number = seen.segments.segments
    return f"{number} segment{'' if number == 1 else 's'}"


def _campaigns(template: Template) -> list[str]:
    """Which way a campaign's mails take; only marketing and what everybody must get has campaigns."""
    if Channel.EMAIL not in template.channels or not (template.is_marketing or template.topic.mandatory):
        return []
    seen = {locale: outlook(template, locale) for locale in template.variants[Channel.EMAIL]}
    alike: dict[object, list[str]] = {}
    for locale, one in seen.items():
        places = tuple((place.path.rpartition("/")[2], place.line) for place in one.blocks)
        alike.setdefault((one.whole, places), []).append(locale)
    return [
        line
        for locales in alike.values()
        for line in (f"    campaign {' '.join(locales)}: {_way(seen[locales[0]])}", *_blocks(seen[locales[0]]))
    ]


def _way(seen: Outlook) -> str:
    if seen.whole:
        return f"rendered for each person: {seen.whole}"
    return "specialised, but for each person" if seen.blocks else "specialised"


def _blocks(seen: Outlook) -> list[str]:
    return [f"        {block}" for block in seen.blocks]


def _measures(seen: PreviewedSms, price: str | None) -> str:
    measures = f"{segments(seen)}, {seen.segments.encoding}, {seen.segments.units} units"
    if price is None:
        return measures
    amount, currency = price.split()
    return f"{measures}, about {Decimal(amount) * seen.segments.segments} {currency}"


def _files(seen: Previewed) -> dict[str, str]:
    match seen:
        case PreviewedEmail():
            html = {".html": seen.html} if seen.html is not None else {}
            return {".txt": f"Subject: {seen.subject}\n\n{seen.text}"} | html
        case PreviewedSms():
            return {".sms.txt": f"{seen.text}\n"}
        case PreviewedPush():
            return {".push.json": json.dumps(_fields(seen), ensure_ascii=False, indent=2) + "\n"}


def _fields(seen: PreviewedPush) -> dict[str, object]:
    fields = {"title": seen.title, "body": seen.body, "link": seen.link, "image": seen.image, "data": dict(seen.data)}
    return {name: value for name, value in fields.items() if value}
