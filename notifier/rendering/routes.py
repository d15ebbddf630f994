"""Reads a `route`: what the channels of a topic or a template are to one another. What could not be kept is refused."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from notifier.domain.durations import written
from notifier.domain.routing import Mode, Route
from notifier.errors import TemplateError
from notifier.rendering.durations import duration
from notifier_channels.contract import Channel

SHORTEST, LONGEST = timedelta(minutes=1), timedelta(days=7)

_FIELDS = frozenset({"mode", "order", "after"})
_LIKE = 'e.g. route = { mode = "then", order = ["push", "sms"], after = "10m" }'


def read(table: object, where: str) -> Route:
    """A route from its table.

    Raises:
        TemplateError: names `where`, the field and the remedy.

    """
    if not isinstance(table, Mapping) or not table.keys() <= _FIELDS:
        raise TemplateError(f"{where}: a route has mode, order and after, {_LIKE}")
    mode = _mode(table.get("mode"), where)
    order = _order(table.get("order", []), where)
    if (mode is Mode.ALL) == bool(order):
        raise TemplateError(f"{where}: modes first and then need an order of channels, and mode all has none")
    return Route(mode, order, _after(table, mode, where))


def spoken(route: Route) -> str:
    """A route in words: `sms, then after 2m email`."""
    channels = [str(channel) for channel in route.order]
    match route.mode:
        case Mode.ALL:
            return "all"
        case Mode.FIRST:
            return f"first of {', '.join(channels)}"
        case Mode.THEN:
            return f", then after {written(route.after)} ".join(channels)


def within(route: Route, channels: frozenset[Channel], where: str) -> None:
    """Refuse a route that names a channel which is not there: nobody would ever be reached by it."""
    if strangers := set(route.order) - channels:
        there = ", ".join(sorted(channels))
        raise TemplateError(f"{where}: names {', '.join(sorted(strangers))}; there is only {there}")


def _mode(value: Any, where: str) -> Mode:
    try:
        return Mode(value)
    except ValueError:
        raise TemplateError(f"{where}: mode must be one of {', '.join(sorted(Mode))}") from None


def _order(value: object, where: str) -> tuple[Channel, ...]:
    known = [str(channel) for channel in Channel]
    if not isinstance(value, list) or not all(isinstance(name, str) and name in known for name in value):
        raise TemplateError(f"{where}: order is a list of {', '.join(known)}")
    if len(set(value)) != len(value):
        raise TemplateError(f"{where}: order names a channel twice")
    return tuple(Channel(name) for name in value)


def _after(table: Mapping[str, Any], mode: Mode, where: str) -> timedelta:
    """How long each channel has: only `then` waits, and it must."""
    if (mode is Mode.THEN) != ("after" in table):
        raise TemplateError(f"{where}: mode then needs after, and no other mode has it")
    if mode is not Mode.THEN:
        return timedelta()
    length = duration(table["after"], f"{where}: after")
    if not SHORTEST <= length <= LONGEST:
        raise TemplateError(f"{where}: after is between {written(SHORTEST)} and {written(LONGEST)}")
    return length
