"""What a campaign's mail costs one core, from a person's data to the bytes on the wire, both ways in one run.

    python3 run.py bench specialise [--seconds 1] [--rounds 5]

`fields`: 13 KB, of which a handful of values differ. `loops`: ten items for each person. `whole` renders and encodes
everything for each person, `specialised` only what differs. `limit`: copying that many bytes. The parts of each way are
told apart: `render` makes content, `write` the bytes. Both ways are read back first, and must say the same.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from typing import Any
from uuid import UUID

from bench.stage import machine
from notifier.domain.consent import Decision, Permit, Rule
from notifier.rendering import Identity, Ingredients, Specialised, Template, building, folder, render, topics
from notifier_channels.addresses import EmailAddress
from notifier_channels.contract import Channel, Email, ListHeaders, Mailbox, Outgoing, WrittenEmail
from notifier_channels.email.mail import Mail, write

AT = datetime(2026, 11, 25, 18, tzinfo=UTC)
PERMIT = Permit(UUID(int=7), Decision(Rule.GRANTED, AT, (1,)))
SENDER = Mailbox("Acme, Inc.", EmailAddress("hello", "example.com"))
IDENTITY = Identity(SENDER, SENDER, "Acme, Inc., 1 Light Lane, Leeds", "lists.example.com", "acme")
PEOPLE = 500
NAMES = ("first_name", "plan", "city", "points", "renewal_url", "items")
STORY = "<h2>{{ story.title }}</h2>\n<p>{{ story.text }}</p>\n"
HEAD = {
    "html": '{% extends "_layouts/email.html.j2" %}{% block content %}<h1>Hello {{ first_name }}</h1>\n'
    "<p>Your plan in {{ city }} is {{ plan }}, with {{ points }} points. "
    '<a href="{{ renewal_url }}">Renew</a></p>\n',
    "txt": '{% extends "_layouts/email.txt.j2" %}{% block content %}Hello {{ first_name }}\n\n'
    "Your plan in {{ city }} is {{ plan }}, with {{ points }} points.\nRenew: {{ renewal_url }}\n",
}
STORIES = {
    "html": "{% for story in stories %}" + STORY + "{% endfor %}",
    "txt": "{% for story in stories %}\n{{ story.title }}\n{{ story.text }}\n{% endfor %}",
}
ITEMS = {
    "html": '<table width="100%">{% for item in items %}\n<tr><td class="fact-name">{{ item.name }}</td>'
    '<td class="fact">{{ item.count }} for {{ item.price|money("EUR") }}</td></tr>\n{% endfor %}</table>\n',
    "txt": '{% for item in items %}\n- {{ item.name }}: {{ item.count }} for {{ item.price|money("EUR") }}\n'
    "{% endfor %}",
}
TEXT = "What is new this spring, told in a few words that are long enough to fill a line or two of a mail. "
DATA = {"stories": [{"title": f"Story {n}", "text": TEXT * 3} for n in range(7)]}


def template(kind: str) -> Template:
    """Made of the layouts that ship."""
    files = {
        f"spring/en/email.{part}.j2": HEAD[part]
        + STORIES[part]
        + (ITEMS[part] if kind == "loops" else "")
        + "{% endblock %}\n"
        for part in ("html", "txt")
    }
    properties: dict[str, Any] = {name: {} for name in (*NAMES, "stories")}
    files |= {
        "spring/en/email.subject.j2": "{{ first_name }}, spring is here",
        "spring/template.toml": 'topic = "newsletter"\nexpires_after = "1d"\ndescription = "Spring."\n',
        "spring/schema.json": json.dumps({"type": "object", "additionalProperties": False, "properties": properties}),
        "spring/sample.json": "{}",
    }
    shipped = folder.read(folder.bundled_directory())
    sources = building.gather("spring", shipped | files, topics.declarations(shipped[topics.FILE]), "en")
    return building.build("spring", sources, IDENTITY, "en")


def people(made: Template) -> list[Ingredients]:
    """Each with another name, links of their own and ten items."""
    items = [{"name": f"A lamp, no. {n}", "count": n + 1, "price": f"{n}9.99"} for n in range(10)]
    return [
        Ingredients(
            "en-GB",
            "Europe/London",
            {
                "first_name": f"Ann {n}",
                "plan": "gold",
                "city": "Zürich" if n % 3 else "Leeds",
                "points": n,
                "renewal_url": f"https://example.com/renew/{n:020}",
                "items": items,
            },
            _ways_out(made, n),
            f"https://example.com/p/{n:080}",
        )
        for n in range(PEOPLE)
    ]


def _ways_out(made: Template, n: int) -> ListHeaders | None:
    return made.list_headers("en-GB", f"https://example.com/u/{n:080}", f"u.{n:040}@in.example.com")


def written(content: Email, n: int) -> Mail:
    to = EmailAddress(f"ann{n}", "example.net")
    mail = write(Outgoing(UUID(int=n), 1, to, content, AT, AT + timedelta(days=1), "b.1@in.example.com"), "example.com")
    if not isinstance(mail, Mail):
        raise TypeError("not what was to be measured")
    return mail


def said(content: Email) -> list[tuple[str, Any]]:
    raw = written(content, 1).data.removesuffix(b".\r\n").replace(b"\r\n..", b"\r\n.")
    parsed = message_from_bytes(raw, policy=policy.default)
    parts = [("", part.get_payload(decode=True)) for part in parsed.walk() if not part.is_multipart()]
    return parts + [(name, value) for name, value in parsed.items() if name != "Content-Type"]


def contests(kind: str) -> dict[str, Callable[[], int]]:
    """The ways, after a proof that they say the same."""
    made = template(kind)
    special, crowd = Specialised.of(made, DATA), people(made)
    full = [one._replace(data={**DATA, **one.data}) for one in crowd]

    def whole(n: int) -> Email:
        return render(PERMIT, made, Channel.EMAIL, full[n])

    def quick(n: int) -> Email:
        return special.render(PERMIT, crowd[n])

    if not isinstance(quick(1), WrittenEmail) or any(said(whole(n)) != said(quick(n)) for n in range(20)):
        raise RuntimeError("not what was to be measured")
    ready = {"whole": [whole(n) for n in range(PEOPLE)], "specialised": [quick(n) for n in range(PEOPLE)]}
    pieces = [bytes(1300)] * (len(written(whole(1), 1).data) // 1300)
    return {
        "whole": lambda: _each(lambda n: written(whole(n), n)),
        "whole, render": lambda: _each(whole),
        "whole, write": lambda: _each(lambda n: written(ready["whole"][n], n)),
        "specialised": lambda: _each(lambda n: written(quick(n), n)),
        "specialised, render": lambda: _each(quick),
        "specialised, write": lambda: _each(lambda n: written(ready["specialised"][n], n)),
        "limit": lambda: _each(lambda _n: b"".join(pieces)),
    }


def _each(work: Callable[[int], object]) -> int:
    for n in range(PEOPLE):
        work(n)
    return PEOPLE


def microseconds(work: Callable[[], int], seconds: float) -> float:
    done, start = 0, time.process_time()
    while time.process_time() - start < seconds:
        done += work()
    return (time.process_time() - start) / done * 1e6


def measured(kind: str, seconds: float, rounds: int) -> dict[str, Any]:
    ways = contests(kind)
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _, (name, work) in itertools.product(range(rounds), ways.items()):
        found[name].append(microseconds(work, seconds))
    medians = {name: statistics.median(all_) for name, all_ in found.items()}
    made = template(kind)
    return {
        "bytes": len(written(Specialised.of(made, DATA).render(PERMIT, people(made)[0]), 1).data),
        "us_each": {name: round(median, 2) for name, median in medians.items()},
        "range": {name: [round(min(all_), 2), round(max(all_), 2)] for name, all_ in found.items()},
        "whole_to_specialised": round(medians["whole"] / medians["specialised"], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    results = {kind: measured(kind, chosen.seconds, chosen.rounds) for kind in ("fields", "loops")}
    print(json.dumps({"machine": machine(), "results": results}, indent=2))


if __name__ == "__main__":
    main()
