"""A campaign's filter as SQL over a person's row `r`: constants of this file, and every value of a caller a parameter.

Each question is answered with true or false, never with NULL, so that `NOT` means what marketing means by it. What is
asked of another table is a scalar subquery on purpose: for an EXISTS the planner may read that whole table into a hash,
for each of a thousand batches anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from psycopg.types.json import Jsonb

from notifier.domain.audience import Audience
from notifier.domain.consent import Default
from notifier.domain.filters import All, AnyOf, Attribute, Expression, Field, Not, Profile, Subscribed, Test
from notifier_channels.contract import Channel


@dataclass(frozen=True, slots=True)
class Condition:
    """What must hold for `r`, a row of `recipients`, and the named parameters of it."""

    sql: str
    parameters: Mapping[str, Any]


def condition(audience: Audience) -> Condition:
    """Who of those on the audience's list, or of everybody, belongs to it. Who was merged into another never does."""
    writer = _Writer()
    parts = ["r.merged_into IS NULL"]
    if audience.filter:
        parts.append(writer.expression(audience.filter))
    if audience.exclude:
        excluded = writer.bind(list(audience.exclude), "uuid[]")
        parts.append(_EXCLUDED.format(excluded=excluded))
    return Condition(" AND ".join(parts), writer.parameters)


_EXCLUDED = """(SELECT true FROM list_members x
 WHERE x.list_id = ANY({excluded}) AND x.recipient_id = r.id LIMIT 1) IS NULL"""

# domain.consent.judge in SQL, in one look at what a person has said; a property test holds the two together.
_SUBSCRIBED = """(SELECT {granted} count(*) FILTER (WHERE NOT e.granted AND NOT EXISTS (
       SELECT 1 FROM consents g
       WHERE g.recipient_id = r.id AND g.granted AND g.occurred_at > e.occurred_at
         AND (g.expires_at IS NULL OR g.expires_at > statement_timestamp())
         AND ((g.scope, g.channel) = (e.scope, e.channel)
              OR g.scope = {scope} AND (g.channel = {channel} OR (g.channel, e.channel) = ('any', 'any'))))) = 0
 FROM consents e
 WHERE e.recipient_id = r.id AND e.scope = ANY({above}) AND e.channel IN ({channel}, 'any'))"""

_GRANTED = """count(*) FILTER (WHERE e.granted AND e.scope = {scope}
   AND (e.expires_at IS NULL OR e.expires_at > statement_timestamp())) > 0 AND"""

_SIGNS = {Test.ABOVE: ">", Test.AT_LEAST: ">=", Test.BELOW: "<", Test.AT_MOST: "<="}
_COLUMNS = {
    Field.LANGUAGE: "lower(split_part(r.locale, '-', 1))",
    Field.LOCALE: "lower(r.locale)",
    Field.TIMEZONE: "r.timezone",
}


@dataclass(slots=True)
class _Writer:
    parameters: dict[str, Any] = field(default_factory=dict)

    def bind(self, value: object, kind: str) -> str:
        """The place of a value in the SQL. `kind`: its type there."""
        name = f"f{len(self.parameters)}"
        self.parameters[name] = value
        return f"%({name})s::{kind}"

    def expression(self, given: Expression) -> str:
        match given:
            case All(parts):
                return f"({' AND '.join(self.expression(part) for part in parts)})"
            case AnyOf(parts):
                return f"({' OR '.join(self.expression(part) for part in parts)})"
            case Not(part):
                return f"(NOT {self.expression(part)})"
            case Attribute():
                return f"(({self._attribute(given)}) IS TRUE)"
            case Profile(asked, values):
                return self._profile(_COLUMNS[asked], values)
            case Subscribed():
                return f"({' OR '.join(self._subscribed(given, channel) for channel in given.channels)})"

    def _attribute(self, asked: Attribute) -> str:
        found = f"(r.attributes #> {self.bind(list(asked.path), 'text[]')})"
        value = asked.value
        match asked.test, value:
            case Test.EQUALS, _:
                return f"{found} = {self.bind(Jsonb(value), 'jsonb')}"
            case Test.IN, tuple():
                return f"{found} = ANY({self.bind([Jsonb(one) for one in value], 'jsonb[]')})"
            case Test.EXISTS, _:
                return f"(jsonb_typeof({found}) <> 'null') IS {'TRUE' if value else 'NOT TRUE'}"
            case Test.CONTAINS, _:
                return f"{found} @> {self.bind(Jsonb([value]), 'jsonb')}"
            case Test.STARTS_WITH, _:
                return (
                    f"jsonb_typeof({found}) = 'string' AND starts_with({found} #>> '{{}}', {self.bind(value, 'text')})"
                )
            case Test.BETWEEN, (low, high):
                return f"{self._compared(found, '>=', low)} AND {self._compared(found, '<=', high)}"
            case test, _:
                return self._compared(found, _SIGNS[test], value)

    def _compared(self, found: str, sign: str, value: object) -> str:
        """Only what is of the value's kind is compared, and nothing is cast, so nobody's attribute can break it."""
        if isinstance(value, str):
            text = f"({found} #>> '{{}}') COLLATE \"C\""
            return f"jsonb_typeof({found}) = 'string' AND {text} {sign} {self.bind(value, 'text')}"
        return f"jsonb_typeof({found}) = 'number' AND {found} {sign} {self.bind(Jsonb(value), 'jsonb')}"

    def _profile(self, column: str, values: Sequence[str | None]) -> str:
        known = [value for value in values if value is not None]
        parts = [f"({column} = ANY({self.bind(known, 'text[]')})) IS TRUE"] if known else []
        return f"({' OR '.join([*parts, *([f'{column} IS NULL'] if None in values else [])])})"

    def _subscribed(self, asked: Subscribed, channel: Channel) -> str:
        topic = asked.topic
        places = {
            "scope": self.bind(topic.scope, "text"),
            "channel": self.bind(str(channel), "text"),
            "above": self.bind(sorted(topic.scopes_above), "text[]"),
        }
        granted = "" if topic.defaults[channel] is Default.OPT_OUT else _GRANTED.format(**places)
        return _SUBSCRIBED.format(granted=granted, **places)
