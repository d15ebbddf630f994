"""What became of a campaign's messages, read from their rows: added up for a report, or one by one for its table.

Tests are left out everywhere. Each look is one statement over the campaign's messages, whatever their number; those of
a report share one snapshot, so that its sum holds while the campaign goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from notifier.domain.campaigns import CampaignState
from notifier.domain.messages import AttemptState, State, first_id
from notifier.domain.places import calling_code
from notifier.domain.reports import (
    BEST_FIRST,
    MOST_PLACES,
    MOST_UNKNOWN,
    Caused,
    ChannelReport,
    Doubt,
    Headline,
    Hour,
    Outcome,
    People,
    Place,
    Progress,
    Report,
)
from notifier.store.database import Connection, Row, rows
from notifier_channels.contract import Channel

CLOCKS_DIFFER = timedelta(hours=1)  #: ids of messages are made by the workers' clocks
SORTED_IN = "64MB"  #: by default 4 MB, which a few ten thousand people fill

_ITS = "m.campaign_id = %(id)s AND NOT m.is_test"


async def report(c: Connection, id_: UUID) -> Report | None:
    """All of it, as of one instant; None: there is no such campaign. A million messages take seconds."""
    async with c.transaction():
        await c.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        await c.execute(f"SET LOCAL work_mem = '{SORTED_IN}'")
        found = await progress(c, id_)
        if found is None:
            return None
        ids, channels = _born_within(found.headline), await with_outcomes(c, found)
        return Report(
            found.headline,
            _people_of(found, channels) or await _people(c, id_, found),
            channels,
            await _hours(c, id_),
            await _places(c, id_, _DOMAINS),
            await _places(c, id_, _LOCALES),
            await _calling_codes(c, id_),
            Caused(await _events(c, id_, ids), await _withdrawals(c, id_, ids)),
            await _in_doubt(c, id_),
        )


# How far it has come --------------------------------------------------------------------------------------------------

_HEADLINE = ", ".join(one.name for one in fields(Headline) if one.name != "now")
_BATCHES = """
SELECT channel, min(step) AS step, left_out, sum(cardinality(recipients))::int AS people,
       (coalesce(sum(cardinality(recipients)) FILTER (WHERE decided_at IS NULL), 0))::int AS waiting,
       coalesce(sum(unreachable), 0)::int AS unreachable
FROM campaign_batches WHERE campaign_id = %s GROUP BY channel, left_out
"""


async def progress(c: Connection, id_: UUID) -> Progress | None:
    """How far it has come, from its batches alone: milliseconds for a million people. None: there is none."""
    found = await rows(
        c,
        f"SELECT {_HEADLINE}, clock_timestamp() AS now, coalesce(audience_size, 0) AS audience, left_out"
        " FROM campaigns WHERE id = %s",
        (id_,),
    )
    if not found:
        return None
    [row] = found
    audience, left_out = row.pop("audience"), row.pop("left_out")
    headline = Headline(**row | {"state": CampaignState(row["state"])})
    batches: dict[Channel, list[Row]] = {}
    for batch in await rows(c, _BATCHES, (id_,)):
        batches.setdefault(Channel(batch["channel"]), []).append(batch)
    # People who came after the count are in batches, too.
    planned = max((sum(one["people"] for one in of) for of in batches.values()), default=0)
    audience = max(audience, planned + sum(left_out.values()))
    channels = [_channel(channel, of, audience, left_out) for channel, of in batches.items()]
    return Progress(headline, audience, left_out, sorted(channels, key=lambda one: (one.step, one.channel)))


def _channel(channel: Channel, of: Sequence[Row], audience: int, left_out: Mapping[str, int]) -> ChannelReport:
    dropped = dict(left_out)
    for row in of:
        if row["left_out"] is not None:
            dropped[row["left_out"]] = dropped.get(row["left_out"], 0) + row["people"]
    people = sum(row["people"] for row in of)
    waiting, unreachable = sum(row["waiting"] for row in of), sum(row["unreachable"] for row in of)
    decided = sum(row["people"] for row in of if row["left_out"] is None) - waiting - unreachable
    not_planned = audience - people - sum(left_out.values())
    return ChannelReport(channel, min(row["step"] for row in of), not_planned, waiting, dropped, unreachable, decided)


async def with_outcomes(c: Connection, found: Progress) -> list[ChannelReport]:
    """Its channels with how their messages stand: reads every message."""
    counted: dict[Channel, list[Outcome]] = {}
    for row in await rows(
        c,
        "SELECT channel, state, split_part(reason, ':', 1) AS reason, count(*) AS messages"
        f" FROM messages m WHERE {_ITS} GROUP BY 1, 2, 3 ORDER BY 4 DESC, 2, 3",
        {"id": found.headline.id},
    ):
        outcome = Outcome(State(row["state"]), row["reason"] or None, row["messages"])
        counted.setdefault(Channel(row["channel"]), []).append(outcome)
    return [replace(one, outcomes=counted.get(one.channel, [])) for one in found.channels]


# Each person once -----------------------------------------------------------------------------------------------------


def _people_of(found: Progress, channels: Sequence[ChannelReport]) -> People | None:
    """Where there is one channel with a message for each, that says it all; None: people must be looked at."""
    if len(channels) != 1 or sum(one.messages for one in channels[0].outcomes) != channels[0].decided:
        return None
    [only] = channels
    states: dict[State, int] = {}
    for one in only.outcomes:
        states[one.state] = states.get(one.state, 0) + one.messages
    return People(found.audience, only.not_planned, only.waiting, only.left_out, only.unreachable, states)


# Somebody nameless who was adopted since is looked for under the name.
_PEOPLE = f"""
WITH planned AS (
    SELECT person, bool_or(b.decided_at IS NULL) AS waits, min(b.left_out) AS left_out
    FROM campaign_batches b CROSS JOIN unnest(b.recipients) AS person WHERE b.campaign_id = %(id)s GROUP BY person
), best AS (
    SELECT m.recipient_id, min(array_position(%(order)s::text[], m.state)) AS place FROM messages m
    WHERE {_ITS} GROUP BY m.recipient_id
)
SELECT best.place,
       CASE WHEN best.place IS NULL AND NOT p.waits THEN p.left_out END AS left_out,
       best.place IS NULL AND p.waits AS waits,
       count(*) AS people
FROM planned p LEFT JOIN recipients r ON r.id = p.person AND r.merged_into IS NOT NULL
LEFT JOIN best ON best.recipient_id = coalesce(r.merged_into, p.person)
GROUP BY 1, 2, 3
"""


async def _people(c: Connection, id_: UUID, found: Progress) -> People:
    counted = await rows(c, _PEOPLE, {"id": id_, "order": [str(state) for state in BEST_FIRST]})
    states = {BEST_FIRST[row["place"] - 1]: row["people"] for row in counted if row["place"] is not None}
    others = [row for row in counted if row["place"] is None]
    left_out = dict(found.left_out)
    not_planned = found.audience - sum(left_out.values()) - sum(row["people"] for row in counted)
    for row in others:
        if row["left_out"] is not None:
            left_out[row["left_out"]] = left_out.get(row["left_out"], 0) + row["people"]
    waiting = sum(row["people"] for row in others if row["waits"])
    unreachable = sum(row["people"] for row in others if not row["waits"] and row["left_out"] is None)
    return People(found.audience, not_planned, waiting, left_out, unreachable, states)


# When, where to, in which language ------------------------------------------------------------------------------------


async def _hours(c: Connection, id_: UUID) -> list[Hour]:
    counted: dict[tuple[datetime, Channel], dict[AttemptState, int]] = {}
    for row in await rows(
        c,
        "SELECT date_trunc('hour', a.started_at, 'UTC') AS hour, m.channel, a.state, count(*) AS attempts"
        f" FROM messages m JOIN attempts a ON a.message_id = m.id WHERE {_ITS} GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
        {"id": id_},
    ):
        of = counted.setdefault((row["hour"], Channel(row["channel"])), {})
        of[AttemptState(row["state"])] = row["attempts"]
    return [Hour(hour, channel, attempts) for (hour, channel), attempts in counted.items()]


# Of an erased address nothing is left but its hash: its domain is ''.
_DOMAINS = (
    "SELECT split_part(a.address, '@', 2) AS name, m.state, count(*) AS messages"
    f" FROM messages m JOIN addresses a ON a.id = m.address_id WHERE {_ITS} AND m.channel = 'email' GROUP BY 1, 2"
)
_LOCALES = (
    "SELECT coalesce(r.locale, '') AS name, m.state, count(*) AS messages"
    f" FROM messages m JOIN recipients r ON r.id = m.recipient_id WHERE {_ITS} GROUP BY 1, 2"
)
_PREFIXES = (  # no calling code is longer: `+` and three digits
    "SELECT left(a.address, 4) AS name, m.state, count(*) AS messages"
    f" FROM messages m JOIN addresses a ON a.id = m.address_id WHERE {_ITS} AND m.channel = 'sms' GROUP BY 1, 2"
)
_MOST = """
WITH every AS ({of}), most AS (SELECT name FROM every GROUP BY name ORDER BY sum(messages) DESC, name LIMIT %(most)s)
SELECT most.name, every.state, sum(every.messages)::int AS messages
FROM every LEFT JOIN most USING (name) GROUP BY 1, 2
"""


async def _places(c: Connection, id_: UUID, of: str) -> list[Place]:
    return _placed(await rows(c, _MOST.format(of=of), {"id": id_, "most": MOST_PLACES}), lambda name: name)


async def _calling_codes(c: Connection, id_: UUID) -> list[Place]:
    return _placed(await rows(c, _PREFIXES, {"id": id_}), calling_code)


def _placed(found: Sequence[Row], name_of: Callable[[Any], str | None]) -> list[Place]:
    """Most messages first, and what is not named last."""
    counted: dict[str | None, dict[State, int]] = {}
    for row in found:
        of = counted.setdefault(name_of(row["name"]), {})
        of[State(row["state"])] = of.get(State(row["state"]), 0) + row["messages"]
    places = [Place(name, sum(of.values()), of) for name, of in counted.items()]
    return sorted(places, key=lambda one: (one.name is None, -one.messages, one.name or ""))


# What it caused -------------------------------------------------------------------------------------------------------


def _born_within(headline: Headline) -> tuple[UUID, UUID]:
    """The ids that its messages can have: what is said of messages is looked up within these, not since ever."""
    first = (headline.started_at or headline.now) - CLOCKS_DIFFER
    last = (headline.ended_at or headline.now) + CLOCKS_DIFFER
    return first_id(first), first_id(last)


async def _events(c: Connection, id_: UUID, ids: tuple[UUID, UUID]) -> dict[str, int]:
    found = await rows(
        c,
        "SELECT d.kind, count(DISTINCT d.message_id) AS messages FROM delivery_events d"
        f" JOIN messages m ON m.id = d.message_id WHERE {_ITS} AND d.message_id BETWEEN %(first)s AND %(last)s"
        " GROUP BY d.kind ORDER BY d.kind",
        {"id": id_, "first": ids[0], "last": ids[1]},
    )
    return {row["kind"]: row["messages"] for row in found}


_ID = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"

# Product code's own evidence may say `message`, too, and mean anything.
_WITHDRAWALS = f"""
WITH said AS (
    SELECT e.source, e.evidence ->> 'message' AS message FROM consent_events e
    WHERE e.evidence ? 'message' AND NOT e.granted
      AND (e.evidence ->> 'message') COLLATE "C" BETWEEN %(first)s AND %(last)s
      AND e.source IN ('one_click', 'unsubscribe_page', 'mailto', 'complaint', 'provider')
)
SELECT s.source, count(DISTINCT m.id) AS messages FROM said s
JOIN messages m ON m.id = CASE WHEN s.message ~ '{_ID}' THEN s.message::uuid END
WHERE {_ITS} GROUP BY s.source ORDER BY s.source
"""


async def _withdrawals(c: Connection, id_: UUID, ids: tuple[UUID, UUID]) -> dict[str, int]:
    found = await rows(c, _WITHDRAWALS, {"id": id_, "first": str(ids[0]), "last": str(ids[1])})
    return {row["source"]: row["messages"] for row in found}


async def _in_doubt(c: Connection, id_: UUID) -> list[Doubt]:
    found = await rows(
        c,
        "SELECT m.id AS message, m.channel, m.reason, a.provider, a.started_at AS attempted_at FROM messages m"
        " JOIN attempts a ON a.message_id = m.id AND a.is_live"
        f" WHERE {_ITS} AND m.state = 'unknown' ORDER BY m.id LIMIT %(most)s",
        {"id": id_, "most": MOST_UNKNOWN},
    )
    return [Doubt(**row | {"channel": Channel(row["channel"])}) for row in found]


# One by one -----------------------------------------------------------------------------------------------------------

LINE = (
    *("recipient", "channel", "state", "reason", "message", "attempted_at", "settled_at", "provider", "code"),
    *("reference", "locale", "domain"),
)
_LINES = """
WITH slice AS (
    SELECT n, channel, recipients, decided_at, left_out FROM campaign_batches
    WHERE campaign_id = %(id)s AND n > %(after)s ORDER BY n LIMIT %(batches)s
)
SELECT s.n, r.external_id AS recipient, s.channel,
       CASE WHEN m.id IS NOT NULL THEN m.state WHEN s.decided_at IS NULL THEN 'waiting'
            WHEN s.left_out IS NOT NULL THEN 'left_out' ELSE 'unreachable' END AS state,
       CASE WHEN m.id IS NOT NULL THEN m.reason WHEN s.decided_at IS NULL THEN NULL
            ELSE coalesce(s.left_out, 'no_address') END AS reason,
       m.id AS message, a.started_at AS attempted_at, a.settled_at, a.provider, a.code, a.reference, r.locale,
       CASE WHEN m.channel = 'email' THEN nullif(split_part(o.address, '@', 2), '') END AS domain
FROM slice s CROSS JOIN unnest(s.recipients) WITH ORDINALITY AS p (person, place)
LEFT JOIN recipients was ON was.id = p.person
LEFT JOIN recipients r ON r.id = coalesce(was.merged_into, was.id)
LEFT JOIN messages m ON m.campaign_id = %(id)s AND NOT m.is_test AND m.recipient_id = r.id AND m.channel = s.channel
LEFT JOIN addresses o ON o.id = m.address_id
LEFT JOIN LATERAL (SELECT * FROM attempts t WHERE t.message_id = m.id ORDER BY t.n DESC LIMIT 1) a ON true
ORDER BY s.n, p.place, m.id
"""


async def lines(c: Connection, id_: UUID, after: int, batches: int) -> list[Row]:
    """What became of each person on each channel, in order of their batches: those of the next so many after one.

    Each has the columns of `LINE`, and `n`, its batch. Nobody, when there is no batch after it.
    """
    return await rows(c, _LINES, {"id": id_, "after": after, "batches": batches})
