"""A dry-run's plan as an operator reads it before approving: on a terminal of 80 columns, in plain text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from textwrap import wrap
from typing import Any

WIDTH = 80
BAR = 36  #: columns of the busiest hour
HOURS = 48  #: that are shown at most
REASONS = 12  #: of each kind, on each channel
LONGEST_NAME = 36  #: of a person: the length of a UUID


def lines(plan: Mapping[str, Any]) -> Iterator[str]:
    """All of it, the warnings last, where they are seen. `docs/reference/plans.md` explains what each part means."""
    yield from _head(plan)
    for name, on in sorted(plan["channels"].items(), key=lambda item: (item[1]["step"], item[0])):
        yield ""
        yield from _channel(name, on)
    if plan["misfits"]:
        yield ""
        yield "Attributes that do not fit the template"
        yield from _reasons(plan["misfits"])
    yield from _timeline(plan["timeline"])
    if plan["warnings"]:
        yield ""
        yield "Before you approve it"
        for warning in plan["warnings"]:
            yield from wrap(warning["text"], WIDTH, initial_indent="  ! ", subsequent_indent="    ")


def _head(plan: Mapping[str, Any]) -> Iterator[str]:
    definition, unreachable = plan["definition"], plan["unreachable"]["count"]
    yield f"{_people(plan['audience'])} on {_instant(plan['reckoned_at'])}"
    yield f"  template     {definition['template']} (version {definition['template_hash'][:8]})"
    yield f"  topic        {definition['topic']}"
    yield f"  sent until   {_instant(plan['expires_at'])}"
    if definition["rate"] is not None:
        yield f"  rate         {definition['rate']:g} messages a second"
    if definition["sender"] is not None:
        yield f"  sender       {definition['sender']}"
    if unreachable:
        yield f"  unreachable  {unreachable:,} on every channel, {_named(plan['unreachable'])}".rstrip(", ")
    for reason, count in plan["left_out"].items():
        yield f"  left out     {count:,} {reason}"


def _channel(name: str, on: Mapping[str, Any]) -> Iterator[str]:
    yield name if on["step"] == 0 else f"{name}, for those whom no channel before it reaches"
    yield _row("would go", on["permitted"])
    if on["deferred"]:
        hours = on["deferred_until"]
        first, last = _instant(min(hours)), _instant(max(hours))
        when = f"from {first}" if first == last else f"{first} to {last}"
        yield _row("would wait", _sum(on["deferred"]), when)
        yield from _reasons(on["deferred"])
    if on["refused"]:
        yield _row("would not go", _sum(on["refused"]))
        yield from _reasons(on["refused"])
    if on["unreachable"]["count"]:
        yield _row("no address", on["unreachable"]["count"], _named(on["unreachable"]))
    yield from _rendering(on["rendering"])
    if on.get("segments"):
        yield _segments(on["segments"])


def _rendering(rendering: Mapping[str, Any]) -> Iterator[str]:
    failed = _sum(rendering["failed"])
    if rendering["tried"]:
        yield _row("rendered", rendering["tried"], f"to try it; {failed:,} failed" if failed else "to try it; all well")
    yield from _reasons(rendering["failed"])


def _segments(segments: Mapping[str, Any]) -> str:
    each = (
        f"{segments['least']}"
        if segments["least"] == segments["most"]
        else f"{segments['least']} to {segments['most']}"
    )
    cost = segments["cost"]
    price = f", about {cost['amount']} {cost['currency']}" if cost else ""
    return _row("segments", segments["expected"], f"at {each} a text{price}")


def _timeline(timeline: Mapping[str, Any]) -> Iterator[str]:
    if not timeline:
        return
    yield ""
    yield "Messages by the hour (UTC)"
    totals = {at: sum(counts.values()) for at, counts in sorted(timeline.items())}
    busiest = max(totals.values())
    for at, total in list(totals.items())[:HOURS]:
        bar = "#" * max(1, round(BAR * total / busiest))
        yield f"  {at[:10]} {at[11:16]}  {bar:<{BAR}}  {total:>12,}"
    if len(totals) > HOURS:
        rest = sum(list(totals.values())[HOURS:])
        yield f"  and {rest:,} in {len(totals) - HOURS} more hours, until {_instant(max(totals))}"


def _reasons(tallies: Mapping[str, Any]) -> Iterator[str]:
    """The most frequent first, each with somebody whom it concerns."""
    ordered = sorted(tallies.items(), key=lambda item: (-item[1]["count"], item[0]))
    for reason, tally in ordered[:REASONS]:
        said = f"{reason}, {_named(tally)}".rstrip(", ")
        yield from wrap(said, WIDTH, initial_indent=f"{tally['count']:>16,}    ", subsequent_indent=" " * 20)
    if rest := ordered[REASONS:]:
        yield f"{sum(tally['count'] for _, tally in rest):>16,}    for {len(rest)} more reasons"


def _named(tally: Mapping[str, Any]) -> str:
    """Two of them, by the product's ids, which may be long."""
    return f"such as {', '.join(_shortened(one) for one in tally['sample'][:2])}" if tally["sample"] else ""


def _row(what: str, count: int, more: str = "") -> str:
    return f"  {what:<13}{count:>12,}  {more}".rstrip()


def _shortened(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 3]}..."


def _sum(tallies: Mapping[str, Any]) -> int:
    return sum(tally["count"] for tally in tallies.values())


def _people(count: int) -> str:
    return f"{count:,} {'person' if count == 1 else 'people'}"


def _instant(text: str) -> str:
    """`2026-12-24T09:00:00Z` as people read it."""
    return f"{text[:10]} {text[11:16]} UTC"
