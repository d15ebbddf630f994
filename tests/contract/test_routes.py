"""A notification's channels in their order, on a real database: which message goes, which waits, which need not."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from notifier.dispatch.accept import Accept
from notifier.dispatch.explain import stories_of
from notifier.dispatch.feedback import Feedback
from notifier.dispatch.sweep import Sweep
from notifier.domain import explanation
from notifier.domain.access import Caller, Scope
from notifier.domain.consent import Default
from notifier.domain.notifications import Notification, key_hash
from notifier.domain.routing import LOOK_AGAIN, Mode, Route
from notifier.domain.who import Given
from notifier.errors import InvalidInput
from notifier.journal import boot_id
from notifier.rendering import Template, Templates
from notifier.store import keys, notifications
from notifier.store.database import rows
from notifier_channels.contract import (
    Again,
    Ambiguous,
    BadAddress,
    Channel,
    DeliveryEvent,
    EventKind,
    OptedOut,
    PushContent,
    Receipt,
    Rejected,
    SmsContent,
)
from tests.world import TRANSACTIONAL, Scripted, World, claim, small_templates, take

pytestmark = pytest.mark.anyio

EMAIL, SMS, PUSH = Channel.EMAIL, Channel.SMS, Channel.PUSH
HOUR = timedelta(hours=1)
CALLER = Caller("test", frozenset(Scope))
FIRST = Route(Mode.FIRST, (PUSH, SMS, EMAIL))
THEN = Route(Mode.THEN, (SMS, EMAIL), HOUR)
MAIL_THEN_TEXT = Route(Mode.THEN, (EMAIL, SMS), HOUR)


class Routed:
    """A template with content for every channel and a route of its own."""

    channels = frozenset(Channel)

    def __init__(self, template: Template, route: Route) -> None:
        self._template = template
        self.route = route
        self.topic = replace(template.topic, defaults=dict.fromkeys(Channel, Default.OPT_OUT))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._template, name)


def routed(route: Route) -> Templates:
    small = small_templates()
    template = Routed(small.find(TRANSACTIONAL), route)
    topics = {**small.topics, template.topic.key: template.topic}
    return replace(small, topics=topics, _current={TRANSACTIONAL: template}, _versions={template.hash: template})


@pytest.fixture(autouse=True)
def _any_content(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in a message is no matter here."""
    content = {SMS: SmsContent("Hello"), PUSH: PushContent("Hello", "Ann"), EMAIL: None}
    monkeypatch.setattr(
        "notifier.dispatch.composing.render", lambda _permit, _template, channel, _with: content[channel]
    )


class Bell:
    def __init__(self) -> None:
        self.rung: list[UUID] = []

    def ring(self, _lane, ids) -> None:
        self.rung += ids

    def waiting(self, _lane) -> int:
        return 0


@dataclass
class House:
    """Everything about one person, one template and three scripted providers."""

    world: World
    person: UUID
    bell: Bell = field(default_factory=Bell)
    providers: dict[Channel, Scripted] = field(
        default_factory=lambda: {channel: Scripted(name=f"scripted-{channel}") for channel in Channel}
    )

    def answers(self, channel: Channel, outcome) -> None:
        def script(message, witness):
            return outcome if witness.about_to_commit(message.id) else take(message, witness)

        self.providers[channel].script = script

    async def notify(self, **more: Any) -> dict[str, list[UUID]]:
        """Accept one notification; its messages by channel."""
        asked = Notification(
            CALLER, "", "", key_hash(str(uuid.uuid4())), b"body", TRANSACTIONAL, Given(await self._id()),
            self.world.templates.find(TRANSACTIONAL).sample, **more,
        )  # fmt: skip
        accept = Accept(self.world.database, self.world.templates, self.bell, frozenset(Channel))
        [accepted] = await accept([asked])
        found: dict[str, list[UUID]] = {}
        for one in accepted.answer["messages"]:
            found.setdefault(one["channel"], []).append(UUID(one["id"]))
        return found

    async def _id(self) -> str:
        return str(await self.world.one("SELECT external_id FROM recipients WHERE id = %s", self.person))

    async def deliver(self) -> list[str]:
        """Let a worker do all that is due; which channels a message went out on."""
        before = {channel: len(provider.sent) for channel, provider in self.providers.items()}
        async with self.world.worker(self.providers) as deliver:
            await deliver()
        return sorted(str(c) for c, provider in self.providers.items() for _ in provider.sent[before[c] :])

    async def report(self, message: UUID, kind: EventKind, code: str | None = None, again: Again | None = None) -> None:
        feedback = Feedback(self.world.database, self.world.hasher, self.world.templates.topics)
        event = DeliveryEvent(message, kind, "scripted", str(uuid.uuid4()), datetime.now(UTC), code=code, again=again)
        await feedback([event])

    async def states(self, sent: Mapping[str, Sequence[UUID]]) -> dict[str, list[tuple[str, str | None]]]:
        return {channel: await self.world.states(ids) for channel, ids in sent.items()}

    async def pass_by(self, passed: timedelta) -> None:
        """Time goes by for what waits."""
        await self.world.execute("UPDATE messages SET due_at = due_at - %s, turn_at = turn_at - %s", passed, passed)


@pytest.fixture
def house(database, tmp_path):
    async def build(route: Route, *, phone: bool = True, devices: int = 0) -> House:
        world = World(database, tmp_path / "journals", routed(route))
        [person] = await world.people(1)
        async with database.connection() as c:
            await keys.create(c, CALLER.key_id, "test", b"hash", [*Scope])
        if phone:
            await world.phones([person])
        if devices:
            await world.devices([person], devices)
        return House(world, person)

    return build


# Accepting ------------------------------------------------------------------------------------------------------------


async def test_each_device_gets_a_message_of_its_own_beside_the_other_channels(house):
    at_home = await house(Route(), devices=3)
    sent = await at_home.notify()
    assert {channel: len(ids) for channel, ids in sent.items()} == {"email": 1, "sms": 1, "push": 3}
    assert len(at_home.bell.rung) == 5
    assert await at_home.deliver() == ["email", "push", "push", "push", "sms"]
    query = "SELECT count(DISTINCT address_id) FROM messages WHERE channel = 'push'"
    assert await at_home.world.one(query) == 3


async def test_a_named_channel_that_the_person_has_no_device_for_is_refused(house):
    at_home = await house(Route())
    with pytest.raises(InvalidInput, match="no address for push"):
        await at_home.notify(channels=(EMAIL, PUSH))
    assert await at_home.world.one("SELECT count(*) FROM messages") == 0


async def test_of_channels_in_order_one_must_be_there_and_the_others_are_left_out(house):
    at_home = await house(FIRST, phone=False)
    assert set(await at_home.notify(channels=(PUSH, EMAIL))) == {"email"}
    with pytest.raises(InvalidInput, match="no address for push or sms"):
        await at_home.notify(channels=(PUSH, SMS))


async def test_reading_devices_is_one_statement_for_the_whole_batch(house, monkeypatch):
    from notifier.store import devices

    at_home = await house(Route(), devices=1)
    asked: list[int] = []
    read = devices.ids_of

    async def counted(c, people):
        asked.append(len(people))
        return await read(c, people)

    monkeypatch.setattr(devices, "ids_of", counted)
    one = Notification(
        CALLER, "", "", b"1", b"body", TRANSACTIONAL, Given(await at_home._id()),
        at_home.world.templates.find(TRANSACTIONAL).sample,
    )  # fmt: skip
    accept = Accept(at_home.world.database, at_home.world.templates, at_home.bell, frozenset(Channel))
    await accept([replace(one, key_hash=bytes([n])) for n in range(20)])
    await Accept(at_home.world.database, at_home.world.templates, at_home.bell)([replace(one, key_hash=b"mail")])
    assert asked == [1]


async def test_only_the_first_step_is_due_and_rung_for(house):
    at_home = await house(FIRST, devices=2)
    sent = await at_home.notify()
    assert sorted(at_home.bell.rung) == sorted(sent["push"])
    async with at_home.world.database.connection() as c:
        planned = await rows(
            c, "SELECT m.channel, step, is_followed, turn_at, m.due_at - n.created_at AS wait FROM messages m"
            " JOIN notifications n ON n.id = m.notification_id ORDER BY step, m.id",
        )  # fmt: skip
    assert [(row["channel"], row["step"], row["is_followed"]) for row in planned] == [
        ("push", 0, True),
        ("push", 0, True),
        ("sms", 1, True),
        ("email", 2, False),
    ]
    assert [row["wait"] for row in planned] == [timedelta()] * 2 + [LOOK_AGAIN] * 2
    assert [row["turn_at"] is None for row in planned] == [True, True, False, False]


async def test_a_later_step_is_never_rung_for_even_when_it_has_no_delay(house):
    at_home = await house(replace(THEN, after=timedelta()))
    sent = await at_home.notify()
    assert at_home.bell.rung == sent["sms"]


async def test_a_step_whose_turn_would_come_after_the_expiry_is_looked_at_when_that_has_come(house):
    at_home = await house(THEN)
    expires_at = datetime.now(UTC) + timedelta(minutes=10)
    [waiting] = (await at_home.notify(expires_at=expires_at))["email"]
    assert await at_home.world.one("SELECT due_at FROM messages WHERE id = %s", waiting) == expires_at


# First ----------------------------------------------------------------------------------------------------------------


async def test_first_a_taken_push_makes_the_others_unnecessary_and_that_is_explained(house):
    at_home = await house(FIRST, devices=2)
    sent = await at_home.notify()
    assert await at_home.deliver() == ["push", "push"]
    not_needed = [("suppressed", "reached_otherwise:push")]
    assert await at_home.states(sent) == {
        "push": [("accepted", None)] * 2,
        "sms": not_needed,
        "email": not_needed,
    }
    async with at_home.world.database.connection() as c:
        [story] = await stories_of(c, at_home.world.hasher, sent["sms"][0])
    said = explanation.explain(story)
    assert said.answer == "It was not sent, on purpose."
    assert said.why[0].startswith("It was not needed any more: the person was reached as a notification.")


@pytest.mark.parametrize("outcome", [Rejected("bad"), Receipt("r"), Ambiguous("lost")])
async def test_first_a_channel_that_was_tried_is_the_one_whatever_came_of_it(house, outcome):
    at_home = await house(FIRST, devices=1)
    at_home.answers(PUSH, outcome)
    await at_home.notify()
    assert await at_home.deliver() == ["push"]


async def test_first_a_refused_channel_lets_the_next_go_at_once(house):
    at_home = await house(FIRST, devices=1)
    sent = await at_home.notify()
    await at_home.world.withdraw([at_home.person], "all", "push")
    assert await at_home.deliver() == ["sms"]
    states = await at_home.states(sent)
    assert states["push"][0][0] == "suppressed"
    assert states["email"] == [("suppressed", "reached_otherwise:sms")]


async def test_first_a_dead_device_is_no_address_and_the_next_channel_goes_at_once(house):
    at_home = await house(FIRST, devices=1)
    at_home.answers(PUSH, BadAddress("UNREGISTERED"))
    await at_home.notify()
    assert await at_home.deliver() == ["push", "sms"]
    assert await at_home.world.one("SELECT count(*) FROM devices") == 0


async def test_first_one_living_device_of_several_is_enough(house):
    at_home = await house(FIRST, devices=3)
    seen: list[UUID] = []

    def first_is_dead(message, witness):
        seen.append(message.id)
        return BadAddress("UNREGISTERED") if len(seen) == 1 else take(message, witness)

    at_home.providers[PUSH].script = first_is_dead
    sent = await at_home.notify()
    assert await at_home.deliver() == ["push"] * 3
    assert (await at_home.states(sent))["sms"] == [("suppressed", "reached_otherwise:push")]


async def test_first_a_no_at_the_provider_is_a_no_and_the_next_channel_goes(house):
    at_home = await house(FIRST)
    at_home.answers(SMS, OptedOut("21610"))
    sent = await at_home.notify()
    assert await at_home.deliver() == ["email", "sms"]
    assert (await at_home.states(sent))["sms"] == [("suppressed", "opted_out_at_provider:21610")]


async def test_first_what_is_woken_too_early_waits_again_and_says_for_what(house):
    at_home = await house(FIRST)
    sent = await at_home.notify()
    async with at_home.world.worker({EMAIL: at_home.providers[EMAIL]}) as mail_only:
        await at_home.pass_by(LOOK_AGAIN)
        await mail_only()
    [waits] = (await at_home.states(sent))["email"]
    assert waits == ("queued", "waits_for_channel:sms")
    async with at_home.world.database.connection() as c:
        [story] = await stories_of(c, at_home.world.hasher, sent["email"][0])
    assert explanation.explain(story).why[0].startswith("It waits for what becomes of the one by text message.")


async def test_first_what_waits_for_one_that_is_held_back_looks_again_when_that_is_due(house):
    at_home = await house(FIRST)
    await at_home.notify()
    await at_home.pass_by(LOOK_AGAIN)
    await at_home.world.execute(
        "UPDATE messages SET due_at = clock_timestamp() + interval '8 hours' WHERE channel = 'sms'"
    )
    async with at_home.world.worker({EMAIL: at_home.providers[EMAIL]}) as mail_only:
        await mail_only()
    held = "SELECT array_agg(DISTINCT due_at) FROM messages WHERE channel = ANY('{sms, email}') AND state = 'queued'"
    assert len(await at_home.world.one(held)) == 1


# Then -----------------------------------------------------------------------------------------------------------------


async def test_then_a_silent_channel_has_its_time_and_not_more(house):
    at_home = await house(THEN)
    sent = await at_home.notify()
    assert await at_home.deliver() == ["sms"]
    await at_home.pass_by(HOUR - timedelta(minutes=1))
    assert await at_home.deliver() == []
    await at_home.pass_by(timedelta(minutes=1))
    assert await at_home.deliver() == ["email"]
    assert await at_home.states(sent) == {"sms": [("accepted", None)], "email": [("accepted", None)]}


async def test_then_what_was_delivered_makes_the_next_unnecessary(house):
    at_home = await house(THEN)
    sent = await at_home.notify()
    await at_home.deliver()
    await at_home.report(sent["sms"][0], EventKind.DELIVERED)
    assert await at_home.deliver() == []
    assert (await at_home.states(sent))["email"] == [("suppressed", "reached_otherwise:sms")]


@pytest.mark.parametrize("again", [None, Again(timedelta(minutes=30), most=2)])
async def test_then_what_comes_back_lets_the_next_go_at_once(house, again):
    at_home = await house(THEN)
    sent = await at_home.notify()
    await at_home.deliver()
    await at_home.report(sent["sms"][0], EventKind.BOUNCED, "30003", again)
    assert await at_home.deliver() == ["email"]
    assert (await at_home.states(sent))["sms"] == [("bounced", "bounced:30003")]


async def test_then_the_last_one_that_comes_back_goes_again_unless_the_one_before_arrives(house):
    at_home = await house(MAIL_THEN_TEXT)
    sent = await at_home.notify()
    at_home.answers(EMAIL, Ambiguous("lost"))
    assert await at_home.deliver() == ["email"]
    await at_home.world.execute("UPDATE messages SET due_at = NULL WHERE state = 'unknown'")
    await at_home.pass_by(HOUR)
    assert await at_home.deliver() == ["sms"]
    await at_home.report(sent["sms"][0], EventKind.BOUNCED, "30003", Again(HOUR / 2, most=2))
    assert (await at_home.states(sent))["sms"] == [("queued", "came_back:30003")]
    await at_home.report(sent["email"][0], EventKind.DELIVERED)
    await at_home.pass_by(HOUR / 2)
    assert await at_home.deliver() == []
    assert (await at_home.states(sent))["sms"] == [("suppressed", "reached_otherwise:email")]


async def test_then_a_mail_that_bounces_before_the_next_turn_lets_it_go_at_once(house):
    at_home = await house(MAIL_THEN_TEXT)
    sent = await at_home.notify()
    assert await at_home.deliver() == ["email"]
    await at_home.report(sent["email"][0], EventKind.BOUNCED, "550 5.1.1")
    assert await at_home.deliver() == ["sms"]


async def test_then_a_mail_that_has_not_bounced_by_the_next_turn_counts_as_delivered(house):
    at_home = await house(MAIL_THEN_TEXT)
    sent = await at_home.notify()
    await at_home.deliver()
    await at_home.pass_by(HOUR)
    assert await at_home.deliver() == []
    assert (await at_home.states(sent))["sms"] == [("suppressed", "reached_otherwise:email")]


@pytest.mark.parametrize("outcome", [Rejected("30007"), BadAddress("21211"), OptedOut("21610")])
async def test_then_a_refusal_of_the_provider_lets_the_next_go_at_once(house, outcome):
    at_home = await house(THEN)
    at_home.answers(SMS, outcome)
    await at_home.notify()
    assert await at_home.deliver() == ["email", "sms"]


async def test_then_a_refusal_at_the_gate_lets_the_next_go_at_once(house):
    at_home = await house(THEN)
    await at_home.world.withdraw([at_home.person], "all", "sms")
    sent = await at_home.notify()
    assert await at_home.deliver() == ["email"]
    assert (await at_home.states(sent))["sms"][0][0] == "suppressed"


async def test_then_one_that_ran_out_of_time_lets_the_next_go_at_once(house):
    at_home = await house(THEN)
    sent = await at_home.notify()
    await at_home.world.execute("UPDATE messages SET expires_at = now() WHERE id = %s", sent["sms"][0])
    assert await at_home.deliver() == ["email"]
    assert (await at_home.states(sent))["sms"] == [("expired", "expired")]


async def test_then_a_doubt_is_waited_for_until_the_turn(house):
    at_home = await house(THEN)
    at_home.answers(SMS, Ambiguous("timeout"))
    await at_home.notify()
    assert await at_home.deliver() == ["sms"]
    await at_home.world.execute("UPDATE messages SET due_at = NULL WHERE state = 'unknown'")
    await at_home.pass_by(HOUR)
    assert await at_home.deliver() == ["email"]


# Cancelled, killed ----------------------------------------------------------------------------------------------------


async def test_cancelling_a_notification_cancels_what_waits_for_its_turn(house):
    at_home = await house(THEN)
    sent = await at_home.notify()
    await at_home.deliver()
    asked = await at_home.world.one("SELECT notification_id FROM messages WHERE id = %s", sent["sms"][0])
    ids = [id_ for of in sent.values() for id_ in of]
    await at_home.world.database.transact(lambda c: notifications.cancel(c, asked, ids))
    await at_home.pass_by(HOUR)
    assert await at_home.deliver() == []
    assert (await at_home.states(sent))["email"] == [("cancelled", "cancelled_by_api")]


@pytest.mark.parametrize("route", [FIRST, THEN])
async def test_a_no_before_the_day_never_brings_the_next_channel_forward(house, route):
    at_home = await house(route)
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    sent = await at_home.notify(send_at=tomorrow)
    await at_home.world.withdraw_and_cancel([at_home.person], "all", "sms")
    assert (await at_home.states(sent))["sms"] == [("cancelled", "withdrawn:all/sms")]
    assert await at_home.world.one("SELECT due_at FROM messages WHERE id = %s", sent["email"][0]) == tomorrow
    assert await at_home.deliver() == []
    await at_home.world.execute("UPDATE messages SET due_at = now() WHERE state = 'queued'")
    assert await at_home.deliver() == ["email"]


@pytest.mark.parametrize("route", [FIRST, THEN])
async def test_a_no_to_what_is_due_wakes_the_next_channel(house, route):
    at_home = await house(route)
    await at_home.notify()
    await at_home.world.withdraw_and_cancel([at_home.person], "all", "sms")
    assert await at_home.deliver() == ["email"]


async def test_a_worker_that_dies_between_the_steps_changes_nothing(house):
    at_home = await house(FIRST, devices=1)
    sent = await at_home.notify()
    world = at_home.world
    for _ in range(2):
        async with world.worker(at_home.providers) as dead:
            await claim(dead)
        await Sweep(world.database, at_home.bell, world.consequences, boot_id(), HOUR)()
    assert await at_home.deliver() == ["push"]
    assert (await at_home.states(sent))["sms"] == [("suppressed", "reached_otherwise:push")]


async def test_poison_in_the_first_step_does_not_keep_the_next_one_waiting(house):
    at_home = await house(THEN)
    sent = await at_home.notify()
    world = at_home.world
    await world.execute("UPDATE messages SET claims = 2 WHERE id = %s", sent["sms"][0])
    async with world.worker(at_home.providers) as dead:
        assert [one.id for one in await claim(dead)] == sent["sms"]
    await Sweep(world.database, at_home.bell, world.consequences, boot_id(), HOUR)()
    assert await at_home.deliver() == ["email"]
    assert (await at_home.states(sent))["sms"] == [("failed", "poison")]


async def test_a_device_that_moves_to_another_person_takes_no_message_of_the_old_owner_along(house):
    at_home = await house(Route(), phone=False, devices=1)
    sent = await at_home.notify(channels=(PUSH,))
    await at_home.world.execute("UPDATE addresses SET removed_at = now() WHERE channel = 'push'")
    assert await at_home.deliver() == []
    assert (await at_home.states(sent))["push"] == [("suppressed", "address_removed")]
