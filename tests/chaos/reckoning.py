"""After a storm: whether anybody was lost, was written to twice or after a no, and whether the numbers add up.

What was sent is counted from the SMTP server's own log, never from our tables.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from notifier.store.database import Row, rows
from tests.chaos.storm import Storm

SENT = ("accepted", "unknown")  #: what the state of a message that went out may be

_MESSAGES = """
SELECT m.id, m.recipient_id AS person, a.address, m.state, m.reason,
       (SELECT count(*) FROM attempts t WHERE t.message_id = m.id AND t.state IN ('unknown', 'superseded')) AS doubts,
       (SELECT count(*) FROM attempts t WHERE t.message_id = m.id AND t.state <> 'not_taken') AS sendings
FROM messages m JOIN addresses a ON a.id = m.address_id WHERE m.campaign_id = %s
"""
_CAMPAIGN = """
SELECT state, audience_size, (SELECT coalesce(sum(value::int), 0)::int FROM jsonb_each_text(left_out)) AS left_out,
       (SELECT coalesce(sum(unreachable), 0)::int FROM campaign_batches WHERE campaign_id = c.id) AS unreachable,
       (SELECT count(*) FROM campaign_batches b, unnest(b.recipients) WHERE b.campaign_id = c.id) AS planned
FROM campaigns c WHERE id = %s
"""
# Attempts whose number is above that of a withdrawal that covers them.
_LATE = """
SELECT count(*) AS late FROM attempts a JOIN messages m ON m.id = a.message_id
JOIN consent_events e ON e.recipient_id = m.recipient_id AND NOT e.granted
WHERE a.number > e.number AND e.scope IN ('all', 'marketing', 'topic:' || m.topic) AND e.channel IN ('any', m.channel)
"""
_NOES = "SELECT DISTINCT recipient_id AS person FROM consent_events WHERE source = 'one_click'"


@dataclass(slots=True)
class Reckoning:
    """What is found when the storm is over."""

    storm: Storm
    campaign: Row
    messages: dict[UUID, Row]
    late: int  #: attempts that are numbered after a no
    noes: set[UUID]  #: who has said no by one click, by the ledger
    taken: list[tuple[UUID, str]]
    harm: list[str] = field(default_factory=list)  #: what must not be, in words

    @classmethod
    async def of(cls, storm: Storm) -> Reckoning:
        """Look at everything once, and judge."""
        async with storm.crew.world.database.connection() as c:
            [campaign] = await rows(c, _CAMPAIGN, (storm.campaign,))
            messages = {row["id"]: row for row in await rows(c, _MESSAGES, (storm.campaign,))}
            [late] = await rows(c, _LATE)
            noes = {row["person"] for row in await rows(c, _NOES)}
        found = cls(storm, campaign, messages, late["late"], noes, storm.taken())
        found.harm = [*found._doubled(), *found._lost(), *found._after_a_no(), *found._in_a_pause(), *found._numbers()]
        return found

    def _doubled(self) -> Iterator[str]:
        for what, times in (Counter(id_ for id_, _ in self.taken) + Counter(to for _, to in self.taken)).items():
            if times > 1:
                yield f"{what} went out {times} times"
        for id_, row in self.messages.items():
            if row["sendings"] > 1:
                yield f"{id_} was sent again, after doubt or success"

    def _lost(self) -> Iterator[str]:
        went = {id_ for id_, _ in self.taken}
        for id_ in went:
            if id_ not in self.messages or self.messages[id_]["state"] not in SENT:
                yield f"{id_} went out and is not known to have"
        for id_, row in self.messages.items():
            if row["state"] == "accepted" and id_ not in went:
                yield f"{id_} is said to be sent and was not"
        fates = Counter(row["person"] for row in self.messages.values())
        for person in self.storm.town.everybody:
            if fates[person] != (person not in self.storm.town.homeless):
                yield f"{person} has {fates[person]} messages"
        for row in self.messages.values():
            if row["state"] not in SENT and not self._is_held_back(row):
                yield f"{row['id']} ended as {row['state']}, {row['reason']}"

    def _is_held_back(self, row: Row) -> bool:
        """Whether there is a reason, and it is true."""
        town, reason = self.storm.town, row["reason"] or ""
        if reason.startswith("withdrawn:"):
            return row["person"] in town.refusing | self.storm.pressed
        return reason == "duplicate_address" and row["person"] in town.sharing

    def _after_a_no(self) -> Iterator[str]:
        if self.late:
            yield f"{self.late} attempts are numbered after a no that covers them"
        if self.noes != self.storm.pressed:
            yield f"{len(self.storm.pressed)} people have pressed, and {len(self.noes)} of them are in the ledger"

    def _in_a_pause(self) -> Iterator[str]:
        for pause in self.storm.pauses:
            sure = [id_ for id_ in pause.mails if self.messages[id_]["state"] == "accepted"]
            if pause.attempts or sure:  # what a killed worker had written to the wire may be read a moment later
                yield f"{pause.attempts} attempts and {len(sure)} mails in a pause"

    def _numbers(self) -> Iterator[str]:
        if self.campaign["state"] != "finished":
            yield f"the campaign is {self.campaign['state']}"
        people = len(self.storm.town.everybody)
        reported = len(self.messages) + self.campaign["unreachable"] + self.campaign["left_out"]
        for name, count in (("audience", self.campaign["audience_size"]), ("report", reported)):
            if count != people:
                yield f"of {people} people {count} are in the {name}"
        if self.campaign["planned"] != people:
            yield f"{self.campaign['planned']} people stand in batches"
        if self.doubts > self.storm.kills["worker"] * self.storm.weather.connections:
            yield f"{self.doubts} messages are in doubt after {self.storm.kills['worker']} kills of workers"

    @property
    def doubts(self) -> int:
        """Messages of which nobody knows whether they were taken."""
        return sum(row["doubts"] for row in self.messages.values())

    @property
    def outcomes(self) -> Counter[str]:
        """Messages by state, and by the kind of reason where they were held back."""
        return Counter(
            row["state"] if row["state"] in SENT else f"{row['state']}: {(row['reason'] or '').partition(':')[0]}"
            for row in self.messages.values()
        )

    @property
    def pressed_in_time(self) -> int:
        """People whose press kept the campaign's mail from them."""
        held = (row for row in self.messages.values() if row["state"] not in SENT)
        return sum(row["person"] in self.storm.pressed for row in held)

    def figures(self) -> dict[str, Any]:
        """As `bench safety` prints them."""
        storm, campaign = self.storm, self.campaign
        return {
            "recipients": len(storm.town.everybody),
            "seconds": round(storm.seconds, 1),
            "kills": dict(storm.kills),
            "sink_received": len(self.taken),
            "outcomes": dict(sorted(self.outcomes.items())),
            "unreachable": campaign["unreachable"],
            "left_out": campaign["left_out"],
            "audience": campaign["audience_size"],
            "one_clicks": len(storm.pressed),
            "one_clicks_before_the_mail": self.pressed_in_time,
            "attempts_numbered_after_a_no": self.late,
            "last_attempt_ms_after_a_pause": [round(pause.last_begun * 1000) for pause in storm.pauses],
            "attempts_in_a_pause": [pause.attempts for pause in storm.pauses],
        }
