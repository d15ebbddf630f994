from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from notifier.domain.recipients import HashedAddress
from notifier.domain.who import Given, GivenAddress, Held, Person, Plan, Rule, plan
from notifier_channels.contract import Channel

EMAIL, SMS = Channel.EMAIL, Channel.SMS


def new_ids():
    numbers = iter(range(1000, 10_000))
    return lambda: UUID(int=next(numbers))


def an_address(name: str) -> GivenAddress:
    digest = name.lower().encode()
    return GivenAddress(name, HashedAddress("k1", digest), (digest, b"old " + digest))


def email(name: str, **more) -> Given:
    return Given(addresses={EMAIL: an_address(name)}, **more)


def held(number: int, person: Person, channel: Channel, name: str) -> Held:
    return Held(UUID(int=number), person.id, channel, name, name.lower().encode(), "k1")


def a_person(number: int, external_id: str | None = None, **more) -> Person:
    return Person(UUID(int=number), external_id, **more)


def put(given, people=(), addresses=(), *, replace=True) -> Plan:
    return plan(given, people, addresses, new_ids(), replace=replace)


def test_a_bare_address_means_its_one_holder() -> None:
    ann = a_person(1, "ann")
    answer = put([email("a@x.test")], [ann], [held(11, ann, EMAIL, "a@x.test")])
    assert answer.answers == [ann.id]
    assert not answer.created
    assert not answer.added


def test_a_bare_address_that_nobody_holds_creates_one_nameless_recipient_for_the_whole_batch() -> None:
    answer = put([email("a@x.test"), email("A@x.test")], replace=False)
    assert len(answer.created) == len(answer.added) == 1
    assert answer.answers == [*answer.created] * 2


def test_a_bare_address_of_several_people_is_refused() -> None:
    ann, bob = a_person(1, "ann"), a_person(2, "bob")
    both = [held(11, ann, EMAIL, "a@x.test"), held(12, bob, EMAIL, "a@x.test")]
    assert put([email("a@x.test")], [ann, bob], both).answers == [Rule.SEVERAL_HOLDERS]


def test_a_new_id_gets_the_nameless_row_itself() -> None:
    nameless = a_person(1, locale="de")
    answer = put([email("a@x.test", external_id="ann")], [nameless], [held(11, nameless, EMAIL, "a@x.test")])
    assert answer.answers == [nameless.id]
    assert answer.changed[nameless.id].external_id == "ann"
    assert not answer.merged
    assert not answer.created


def test_a_known_id_adopts_the_nameless_holder_and_gives_up_its_old_address() -> None:
    ann, nameless = a_person(1, "ann"), a_person(2, locale="de")
    addresses = [held(11, ann, EMAIL, "old@x.test"), held(12, nameless, EMAIL, "new@x.test")]
    answer = put([email("new@x.test", external_id="ann")], [ann, nameless], addresses)
    assert answer.merged == {nameless.id: ann.id}
    assert answer.moved == {UUID(int=12): ann.id}
    assert answer.dropped == [UUID(int=11)]
    assert answer.changed[ann.id].locale == "de"
    assert not answer.added


def test_what_is_known_of_the_nameless_one_fills_what_is_not_known_of_the_adopter() -> None:
    def adopted(known: dict, **said) -> Person:
        ann, nameless = a_person(1, "ann", attributes=known), a_person(2, attributes={"plan": "pro"})
        addresses = [held(12, nameless, EMAIL, "a@x.test")]
        put([email("a@x.test", external_id="ann", profile=said)], [ann, nameless], addresses)
        return ann

    assert adopted({}).attributes == {"plan": "pro"}
    assert adopted({"plan": "team"}).attributes == {"plan": "team"}
    assert adopted({}, attributes={"seats": 3}).attributes == {"seats": 3}


def test_what_the_nameless_one_holds_besides_does_not_replace_what_the_adopter_has() -> None:
    ann, nameless = a_person(1, "ann"), a_person(2)
    addresses = [
        held(11, ann, SMS, "+1"),
        held(12, nameless, EMAIL, "a@x.test"),
        held(13, nameless, SMS, "+2"),
    ]
    answer = put([email("a@x.test", external_id="ann")], [ann, nameless], addresses)
    assert answer.moved == {UUID(int=12): ann.id}
    assert answer.dropped == [UUID(int=13)]


def test_two_nameless_ones_become_one_person() -> None:
    by_mail, by_phone = a_person(1), a_person(2)
    addresses = [held(11, by_mail, EMAIL, "a@x.test"), held(12, by_phone, SMS, "+1")]
    both = Given("ann", {EMAIL: an_address("a@x.test"), SMS: an_address("+1")})
    answer = put([both], [by_mail, by_phone], addresses)
    assert answer.answers == [by_mail.id]
    assert answer.merged == {by_phone.id: by_mail.id}
    assert answer.moved == {UUID(int=12): by_mail.id}


def test_a_named_holder_is_never_adopted() -> None:
    ann = a_person(1, "ann")
    answer = put([email("a@x.test", external_id="bob")], [ann], [held(11, ann, EMAIL, "a@x.test")])
    assert answer.answers == [*answer.created]
    assert not answer.merged
    assert not answer.dropped


def test_a_send_never_moves_a_stored_address() -> None:
    ann = a_person(1, "ann")
    stored = [held(11, ann, EMAIL, "a@x.test")]
    asked = email("thief@x.test", external_id="ann")
    assert put([asked], [ann], stored, replace=False).answers == [Rule.OTHER_ADDRESS]
    assert put([asked], [ann], stored, replace=True).answers == [ann.id]


def test_a_send_fills_what_is_not_known_and_changes_nothing_else() -> None:
    ann = a_person(1, "ann", locale="de")
    answer = put(
        [email("a@x.test", external_id="ann", profile={"locale": "en", "timezone": "UTC"})], [ann], replace=False
    )
    assert (ann.locale, ann.timezone) == ("de", "UTC")
    assert [address.person for address in answer.added.values()] == [ann.id]


def test_a_send_to_an_unknown_id_without_an_address_is_refused_and_a_put_creates_it() -> None:
    assert put([Given("ann")], replace=False).answers == [Rule.UNKNOWN_ID]
    assert len(put([Given("ann")], replace=True).created) == 1
    assert put([Given()]).answers == [Rule.NO_ADDRESS]


def test_an_address_stored_under_an_old_hash_key_is_the_same_address() -> None:
    ann = a_person(1, "ann")
    stored = Held(UUID(int=11), ann.id, EMAIL, "a@x.test", b"old a@x.test", "k0")
    answer = put([email("a@x.test", external_id="ann")], [ann], [stored])
    assert not answer.added
    assert not answer.dropped


def test_none_removes_an_address_and_absence_keeps_it() -> None:
    ann = a_person(1, "ann")
    stored = [held(11, ann, EMAIL, "a@x.test"), held(12, ann, SMS, "+1")]
    assert put([Given("ann", {EMAIL: None})], [ann], stored).dropped == [UUID(int=11)]


def test_a_send_removes_no_address() -> None:
    ann = a_person(1, "ann")
    stored = [held(11, ann, EMAIL, "a@x.test")]
    assert not put([Given("ann", {EMAIL: None})], [ann], stored, replace=False).dropped


names = st.sampled_from(["a@x.test", "b@x.test", "c@x.test"])
phones = st.sampled_from(["+1", "+2"])
givens = st.builds(
    lambda external_id, mail, phone: Given(
        external_id,
        {
            channel: an_address(name) if name else None
            for channel, name in ((EMAIL, mail), (SMS, phone))
            if name is not False
        },
    ),
    st.sampled_from([None, "ann", "bob"]),
    names | st.none() | st.just(False),
    phones | st.none() | st.just(False),
)


class World:
    """Carries plans out the slow way, as the database would."""

    def __init__(self) -> None:
        self.people: dict[UUID, Person] = {}
        self.held: dict[UUID, Held] = {}
        self.ids = new_ids()

    def say(self, given: list[Given], *, replace: bool) -> Plan:
        people = [Person(p.id, p.external_id, p.locale, p.timezone) for p in self.people.values()]
        addresses = [Held(h.id, h.person, h.channel, h.text, h.hash, h.hash_key) for h in self.held.values()]
        planned = plan(given, people, addresses, self.ids, replace=replace)
        self.people |= planned.created | planned.changed
        for address, person in planned.moved.items():
            self.held[address].person = person
        for address in planned.dropped:
            del self.held[address]
        for nameless in planned.merged:
            del self.people[nameless]
        self.held |= planned.added
        return planned


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.lists(givens, min_size=1, max_size=4), st.booleans()), max_size=6))
def test_whatever_is_said_the_house_stays_in_order(story) -> None:
    world = World()
    for given_, replace in story:
        planned = world.say(given_, replace=replace)
        external_ids = [person.external_id for person in world.people.values() if person.external_id]
        assert len(external_ids) == len(set(external_ids))
        places = [(address.person, address.channel) for address in world.held.values()]
        assert len(places) == len(set(places)), "one address of a channel for each"
        assert {address.person for address in world.held.values()} <= world.people.keys(), "nobody's address"
        nameless = {id_ for id_, person in world.people.items() if person.external_id is None}
        shared = {}
        for address in world.held.values():
            shared.setdefault((address.channel, address.hash), set()).add(address.person)
        assert not any(holders & nameless for holders in shared.values() if len(holders) > 1), (
            "an unadopted nameless one"
        )
        for one, answer in zip(given_, planned.answers, strict=True):
            if not isinstance(answer, Rule):
                assert answer in world.people
                assert one.external_id is None or world.people[answer].external_id == one.external_id
