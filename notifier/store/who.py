"""Who is who, in the database: find everybody that callers may mean, lock them, and write what `domain.who` planned."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from hashlib import sha256
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb

from notifier.domain.basis import Basis
from notifier.domain.consent import ConsentEvent
from notifier.domain.standing import Change, may_overrule
from notifier.domain.who import Given, Held, Person, Plan, plan
from notifier.store import consent, devices
from notifier.store.consent import NewEvent
from notifier.store.database import Connection, Row, rows
from notifier.store.recipients import lock
from notifier_channels.contract import Channel

STRIPES = 7_305_112  #: class of the advisory locks under which a person or an address that is not there yet is created


async def settle(c: Connection, given: Sequence[Given], new_id: Callable[[], UUID], *, replace: bool) -> Plan:
    """Decide whom the callers mean and write what follows from it. Whoever changes, or could be adopted, is locked.

    A constant number of statements, whatever the number of the given. Run inside `Database.transact`: when somebody
    else changes who is who in between, the transaction is run again.
    """
    seen = await _known(c, given)
    planned = seen.plan(given, new_id, replace=replace)
    if not replace and seen.is_settled(planned):
        return planned
    if missing := seen.missing(given):
        await _lock_stripes(c, missing)
        seen = await _known(c, given)
    await lock(c, list(seen.people))
    current = await _known(c, given)
    if current.people.keys() - seen.people.keys() or current.missing(given) - missing:
        raise psycopg.errors.SerializationFailure("who is who has changed meanwhile")
    planned = current.plan(given, new_id, replace=replace)
    await _write(c, planned)
    return planned


async def reach(
    c: Connection, planned: Plan, by_device: Collection[UUID]
) -> dict[UUID, Mapping[Channel, Sequence[UUID]]]:
    """The address rows at which those who are meant are reached; devices only of those who are named for it."""
    held = await devices.ids_of(c, by_device) if by_device else {}
    return {
        person: {**{channel: [one.id] for channel, one in addresses.items()}, Channel.PUSH: held.get(person, [])}
        for person, addresses in planned.reach.items()
    }


@dataclass(frozen=True, slots=True)
class _Known:
    people: Mapping[UUID, Person]
    held: Sequence[Held]

    def plan(self, given: Sequence[Given], new_id: Callable[[], UUID], *, replace: bool) -> Plan:
        """What follows; these rows themselves stay as they were read."""
        people, held = [copy(person) for person in self.people.values()], [copy(address) for address in self.held]
        return plan(given, people, held, new_id, replace=replace)

    def is_settled(self, planned: Plan) -> bool:
        """Nothing is to be written, and nobody who is meant can be adopted by another while we look away."""
        return not planned.writes and all(
            person in self.people and self.people[person].external_id for person in planned.reach
        )

    def missing(self, given: Collection[Given]) -> frozenset[str]:
        """The ids that nobody has and the addresses that nobody holds, or not yet the one who is to hold them."""
        named = {person.external_id: person.id for person in self.people.values()}
        holders: dict[bytes, set[UUID]] = {}
        for address in self.held:
            holders.setdefault(address.hash, set()).add(address.person)
        ids = {f"id {one.external_id}" for one in given if one.external_id and one.external_id not in named}
        addresses = {
            f"{channel} {address.text.lower()}"
            for one in given
            for channel, address in one.addresses.items()
            if address
            and not _is_held(address.hashes, holders, named.get(one.external_id), named=bool(one.external_id))
        }
        return frozenset(ids | addresses)


def _is_held(hashes: Sequence[bytes], holders: dict[bytes, set[UUID]], person: UUID | None, *, named: bool) -> bool:
    found = set().union(*(holders.get(digest, ()) for digest in hashes))
    return person in found if named else bool(found)


_KNOWN = """
SELECT r.id, r.external_id, r.locale, r.timezone, r.attributes,
       a.id AS address_id, a.channel, a.address, a.address_hash, a.hash_key
FROM recipients r
LEFT JOIN addresses a ON a.recipient_id = r.id AND a.removed_at IS NULL AND a.channel <> 'push'
WHERE r.id IN (
    SELECT id FROM recipients WHERE external_id = ANY(%s)
    UNION ALL
    SELECT h.recipient_id FROM addresses h
    JOIN unnest(%s::text[], %s::bytea[]) AS asked (channel, address_hash) USING (channel, address_hash)
    WHERE h.removed_at IS NULL)
"""


async def _known(c: Connection, given: Collection[Given]) -> _Known:
    asked = {
        (str(channel), digest)
        for one in given
        for channel, address in one.addresses.items()
        if address
        for digest in address.hashes
    }
    external_ids = [one.external_id for one in given if one.external_id]
    found = await rows(c, _KNOWN, (external_ids, [channel for channel, _ in asked], [digest for _, digest in asked]))
    people = {
        row["id"]: Person(row["id"], row["external_id"], row["locale"], row["timezone"], row["attributes"])
        for row in found
    }
    held = [
        Held(
            row["address_id"], row["id"], Channel(row["channel"]), row["address"], row["address_hash"], row["hash_key"]
        )
        for row in found
        if row["address_id"]
    ]
    return _Known(people, held)


async def _lock_stripes(c: Connection, missing: Collection[str]) -> None:
    """What is not there cannot be locked by row. Few stripes: a batch must not fill the server's lock table."""
    stripes = sorted({sha256(name.encode()).digest()[0] for name in missing})
    await c.execute("SELECT pg_advisory_xact_lock(%s, stripe) FROM unnest(%s::int[]) AS stripe", (STRIPES, stripes))


async def _write(c: Connection, planned: Plan) -> None:
    if planned.created:
        await _create(c, list(planned.created.values()))
    if planned.changed:
        await _change(c, list(planned.changed.values()))
    if planned.dropped:
        query = "UPDATE addresses SET removed_at = clock_timestamp() WHERE id = ANY(%s) AND removed_at IS NULL"
        await c.execute(query, (planned.dropped,))
    if planned.merged:
        await _merge(c, planned)
    if planned.respelled:
        query = (
            "UPDATE addresses a SET address = v.address FROM unnest(%s::uuid[], %s::text[]) AS v (id, address)"
            " WHERE a.id = v.id"
        )
        await c.execute(query, (list(planned.respelled), list(planned.respelled.values())))
    if planned.added:
        await _add_addresses(c, list(planned.added.values()))


async def _create(c: Connection, people: Sequence[Person]) -> None:
    await c.execute(
        "INSERT INTO recipients (id, external_id, locale, timezone, attributes)"
        " SELECT * FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::text[], %s::jsonb[])",
        _columns(people),
    )


async def _change(c: Connection, people: Sequence[Person]) -> None:
    await c.execute(
        "UPDATE recipients r SET external_id = v.external_id, locale = v.locale, timezone = v.timezone,"
        " attributes = v.attributes, updated_at = clock_timestamp()"
        " FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::text[], %s::jsonb[])"
        " AS v (id, external_id, locale, timezone, attributes) WHERE r.id = v.id",
        _columns(people),
    )


def _columns(people: Sequence[Person]) -> tuple[list[object], ...]:
    return (
        [person.id for person in people],
        [person.external_id for person in people],
        [person.locale for person in people],
        [person.timezone for person in people],
        [Jsonb(dict(person.attributes)) for person in people],
    )


async def _add_addresses(c: Connection, held: Sequence[Held]) -> None:
    await c.execute(
        "INSERT INTO addresses (id, recipient_id, channel, address, address_hash, hash_key)"
        " SELECT * FROM unnest(%s::uuid[], %s::uuid[], %s::text[], %s::text[], %s::bytea[], %s::text[])",
        (
            [address.id for address in held],
            [address.person for address in held],
            [str(address.channel) for address in held],
            [address.text for address in held],
            [address.hash for address in held],
            [address.hash_key for address in held],
        ),
    )


# Adoption -------------------------------------------------------------------------------------------------------------

_PAIRS = "unnest(%s::uuid[], %s::uuid[]) AS v (nameless, adopter)"

_MOVE_ADDRESSES = f"UPDATE addresses a SET recipient_id = v.adopter FROM {_PAIRS} WHERE a.id = v.nameless"
_MOVE_DEVICES = f"""
UPDATE addresses a SET recipient_id = v.adopter FROM {_PAIRS}
WHERE a.recipient_id = v.nameless AND a.channel = 'push' AND a.removed_at IS NULL
"""
_MOVE_NOTIFICATIONS = f"""
UPDATE notifications n SET recipient_id = v.adopter FROM {_PAIRS} JOIN messages m ON m.recipient_id = v.nameless
WHERE n.id = m.notification_id
"""
_MOVE_MESSAGES = f"UPDATE messages m SET recipient_id = v.adopter FROM {_PAIRS} WHERE m.recipient_id = v.nameless"
_KEEP_SNOOZE = f"""
UPDATE recipients r SET snoozed_until = GREATEST(r.snoozed_until, nameless.snoozed_until)
FROM {_PAIRS} JOIN recipients nameless ON nameless.id = v.nameless
WHERE r.id = v.adopter AND nameless.snoozed_until IS NOT NULL
"""
# Through the lists, of which there are few: `list_members` is found by list first.
_KEEP_ON_LISTS = f"""
INSERT INTO list_members (list_id, recipient_id)
SELECT m.list_id, v.adopter
FROM {_PAIRS} CROSS JOIN lists l JOIN list_members m ON m.list_id = l.id AND m.recipient_id = v.nameless
FOR KEY SHARE OF l
ON CONFLICT DO NOTHING
"""
_MARK_MERGED = f"""
UPDATE recipients r SET merged_into = v.adopter, updated_at = clock_timestamp() FROM {_PAIRS} WHERE r.id = v.nameless
"""


async def _merge(c: Connection, planned: Plan) -> None:
    """A nameless one's messages, notifications and addresses become the adopter's; the ledger, append-only, is copied.

    The nameless row stays, so that the links in mails that were sent to it still say whom they mean.
    """
    pairs = (list(planned.merged), list(planned.merged.values()))
    await consent.record(c, await _copied_ledger(c, planned))
    await c.execute(_MOVE_ADDRESSES, (list(planned.moved), list(planned.moved.values())))
    await c.execute(_MOVE_DEVICES, pairs)  # all of them: they are no business of `domain.who`
    await c.execute(_MOVE_NOTIFICATIONS, pairs)  # before the messages: it is through them that they are found
    await c.execute(_MOVE_MESSAGES, pairs)
    await c.execute(_KEEP_SNOOZE, pairs)
    await c.execute(_KEEP_ON_LISTS, pairs)  # else who asked to be left out would be written to after all
    await c.execute(_MARK_MERGED, pairs)


async def _copied_ledger(c: Connection, planned: Plan) -> list[NewEvent]:
    """All of it but what nobody said, such as an implied yes, and would overrule what the adopter has said."""
    said = await consent.events_of(c, list(planned.merged.values()))
    ledger = await rows(
        c,
        "SELECT number, recipient_id, scope, channel, granted, occurred_at, expires_at, source, evidence"
        " FROM consent_events"
        " WHERE recipient_id = ANY(%s) ORDER BY number",
        (list(planned.merged),),
    )
    return [
        NewEvent(
            recipient=planned.merged[line["recipient_id"]],
            scope=line["scope"],
            channel=line["channel"],
            granted=line["granted"],
            source=line["source"],
            occurred_at=line["occurred_at"],
            expires_at=line["expires_at"],
            evidence={**line["evidence"], "adopted_from": line["number"]},
        )
        for line in ledger
        if not (_was_not_said(line) and _overrules(line, said[planned.merged[line["recipient_id"]]]))
    ]


def _was_not_said(line: Row) -> bool:
    """A yes that is inferred, or that only gives back what had been allowed to the nameless one: an undo, a START."""
    evidence = line["evidence"]
    gives_back = "undoes" in evidence or line["source"] == "sms_keyword"
    return bool(line["granted"]) and (gives_back or evidence.get("basis", Basis.EXPRESS) != Basis.EXPRESS)


def _overrules(line: Row, said: Sequence[ConsentEvent]) -> bool:
    return may_overrule(Change(line["scope"], line["channel"], granted=True), line["occurred_at"], said)
