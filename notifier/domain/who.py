"""Who is who: what becomes of the people and addresses we know when a caller names somebody. DESIGN.md section 2.

Pure: `plan` takes what is stored and what callers say, and answers with the writes and with whom each of them means.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias
from uuid import UUID

from notifier.domain.recipients import HashedAddress, Hasher
from notifier_channels.contract import Address, Channel


@dataclass(frozen=True, slots=True)
class GivenAddress:
    """An address as a caller names it, with every hash under which it may be stored."""

    text: str = field(repr=False)
    current: HashedAddress
    hashes: tuple[bytes, ...]

    @classmethod
    def of(cls, address: Address, hasher: Hasher) -> GivenAddress:
        """The address with its hashes."""
        return cls(str(address), hasher.current(address), tuple(hasher.all(address)))


@dataclass(frozen=True, slots=True)
class Given:
    """What a caller says of one person. What is not mentioned stays as it is; None removes."""

    external_id: str | None = None
    addresses: Mapping[Channel, GivenAddress | None] = field(default_factory=dict)
    profile: Mapping[str, Any] = field(default_factory=dict, repr=False)  #: of `locale`, `timezone`, `attributes`


@dataclass(slots=True)
class Person:
    """A recipient's row, while it is planned."""

    id: UUID
    external_id: str | None = None
    locale: str | None = None
    timezone: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Held:
    """An address that somebody holds, while it is planned."""

    id: UUID
    person: UUID
    channel: Channel
    text: str = field(repr=False)
    hash: bytes
    hash_key: str


class Rule(StrEnum):
    """Why a person cannot be told, or must not be touched."""

    SEVERAL_HOLDERS = "several_holders"  #: a bare address of more than one person
    OTHER_ADDRESS = "other_address"  #: a send names another address than the stored one; only a PUT replaces it
    NO_ADDRESS = "no_address"  #: neither an id nor an address
    UNKNOWN_ID = "unknown_id"  #: a send names nobody we know, and no address


Answer: TypeAlias = UUID | Rule


@dataclass(slots=True)
class Plan:
    """The writes, in the order in which they are made, and the answer for each of the given."""

    answers: list[Answer] = field(default_factory=list)
    reach: dict[UUID, Mapping[Channel, Held]] = field(default_factory=dict)  #: where those who are meant are reached
    created: dict[UUID, Person] = field(default_factory=dict)
    changed: dict[UUID, Person] = field(default_factory=dict)
    merged: dict[UUID, UUID] = field(default_factory=dict)  #: nameless -> who adopts them
    dropped: list[UUID] = field(default_factory=list)  #: addresses no longer held
    moved: dict[UUID, UUID] = field(default_factory=dict)  #: address -> the person who adopted its holder
    respelled: dict[UUID, str] = field(default_factory=dict)
    added: dict[UUID, Held] = field(default_factory=dict)

    @property
    def writes(self) -> bool:
        """True when something changes."""
        changes = (self.created, self.changed, self.merged, self.dropped, self.moved, self.respelled, self.added)
        return any(changes)


def plan(
    given: Sequence[Given],
    people: Iterable[Person],
    held: Iterable[Held],
    new_id: Callable[[], UUID],
    *,
    replace: bool,
) -> Plan:
    """Decide for each of the given, in order, whom they mean and what changes.

    `replace`: what is given stands from now on (a PUT, an import). Otherwise it only fills what is not known (a send).
    """
    house = _House(people, held, new_id, replace=replace)
    answers = [house.settle(one) for one in given]
    house.plan.answers = [answer if isinstance(answer, Rule) else house.became(answer) for answer in answers]
    house.plan.reach = {one: house.reach(one) for one in house.plan.answers if not isinstance(one, Rule)}
    return house.plan


class _House:
    """Everybody that the given may mean, kept current while they are gone through one by one."""

    def __init__(
        self, people: Iterable[Person], held: Iterable[Held], new_id: Callable[[], UUID], *, replace: bool
    ) -> None:
        self.plan = Plan()
        self._people = {person.id: person for person in people}
        self._named = {person.external_id: person.id for person in self._people.values() if person.external_id}
        self._held: dict[UUID, dict[Channel, Held]] = defaultdict(dict)
        self._by_hash: dict[tuple[Channel, bytes], list[Held]] = defaultdict(list)
        for address in held:
            self._hold(address)
        self._became: dict[UUID, UUID] = {}
        self._new_id = new_id
        self._replace = replace

    def became(self, person: UUID) -> UUID:
        """Whoever this person is after all merges."""
        return self._became.get(person, person)

    def reach(self, person: UUID) -> Mapping[Channel, Held]:
        """What this person holds, by channel."""
        return self._held[person]

    def settle(self, given: Given) -> Answer:
        holders = self._holders(given)
        if given.external_id is None and len(holders) > 1:
            return Rule.SEVERAL_HOLDERS
        known = self._named.get(given.external_id) if given.external_id else next(iter(holders), None)
        if refused := self._refuse(known, given):
            return refused
        if given.external_id:
            nameless = [one for one in holders if not self._people[one].external_id]
            person = self._adopt(given.external_id, nameless, given)
        else:
            person = known or self._create(None)
        self._give(person, given.addresses)
        (self._set if self._replace else self._fill)(person, given.profile)
        return person

    def _holders(self, given: Given) -> list[UUID]:
        found = [
            address.person
            for channel, one in given.addresses.items()
            if one
            for digest in one.hashes
            for address in self._by_hash[channel, digest]
        ]
        return list(dict.fromkeys(found))

    def _refuse(self, known: UUID | None, given: Given) -> Rule | None:
        """A send never moves a stored address: who may send could otherwise take over somebody's password resets."""
        named = [(channel, one) for channel, one in given.addresses.items() if one]
        if given.external_id is None and not named:
            return Rule.NO_ADDRESS
        if self._replace:
            return None
        if known is None:
            return None if named else Rule.UNKNOWN_ID
        own = self._held[known]
        moves = any(channel in own and own[channel].hash not in one.hashes for channel, one in named)
        return Rule.OTHER_ADDRESS if moves else None

    def _adopt(self, external_id: str, nameless: list[UUID], given: Given) -> UUID:
        """The person of this id: known, or a nameless one who gets it, or a new one. Further nameless are merged."""
        person = self._named.get(external_id)
        if person is None and nameless:
            person = nameless.pop(0)
            self._people[person].external_id = external_id
            self._changed(person)
        elif person is None:
            person = self._create(external_id)
        self._named[external_id] = person
        for one in nameless:
            self._merge(one, person, given)
        return person

    def _merge(self, nameless: UUID, person: UUID, given: Given) -> None:
        """The address that is given moves along; of the others, those of channels on which the adopter has none."""
        known = self._people.pop(nameless)
        self.plan.changed.pop(nameless, None)
        if not self.plan.created.pop(nameless, None):
            self.plan.merged[nameless] = person
        self._became[nameless] = person
        self._fill(person, {"locale": known.locale, "timezone": known.timezone, "attributes": known.attributes})
        for channel, address in self._held.pop(nameless).items():
            named = given.addresses.get(channel)
            own = self._held[person].get(channel)
            if own and not (named and address.hash in named.hashes):
                self._drop(address)
                continue
            if own:
                self._drop(own)
            address.person = person
            self._held[person][channel] = address
            if address.id not in self.plan.added:
                self.plan.moved[address.id] = person

    def _create(self, external_id: str | None) -> UUID:
        person = Person(self._new_id(), external_id)
        self._people[person.id] = self.plan.created[person.id] = person
        return person.id

    def _give(self, person: UUID, addresses: Mapping[Channel, GivenAddress | None]) -> None:
        for channel, given in addresses.items():
            held = self._held[person].get(channel)
            if held and given and held.hash in given.hashes:
                self._respell(held, given.text)
                continue
            if given is None and not self._replace:
                continue
            if held:
                del self._held[person][channel]
                self._drop(held)
            if given:
                digest = given.current
                new = Held(self._new_id(), person, channel, given.text, digest.digest, digest.key)
                self._hold(new)
                self.plan.added[new.id] = new

    def _respell(self, held: Held, text: str) -> None:
        if self._replace and held.text != text:
            held.text = text
            if held.id not in self.plan.added:
                self.plan.respelled[held.id] = text

    def _hold(self, address: Held) -> None:
        self._held[address.person][address.channel] = address
        self._by_hash[address.channel, address.hash].append(address)

    def _drop(self, address: Held) -> None:
        self._by_hash[address.channel, address.hash].remove(address)
        if not self.plan.added.pop(address.id, None):
            self.plan.dropped.append(address.id)

    def _fill(self, person: UUID, profile: Mapping[str, Any]) -> None:
        row = self._people[person]
        self._set(person, {name: value for name, value in profile.items() if value and not getattr(row, name)})

    def _set(self, person: UUID, profile: Mapping[str, Any]) -> None:
        row = self._people[person]
        new = {name: value for name, value in profile.items() if getattr(row, name) != value}
        for name, value in new.items():
            setattr(row, name, value)
        if new:
            self._changed(person)

    def _changed(self, person: UUID) -> None:
        if person not in self.plan.created:
            self.plan.changed[person] = self._people[person]
