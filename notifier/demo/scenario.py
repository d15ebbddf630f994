"""The scenario: three channels to two hundred people, some of whom say no, and what happens to the next wave."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from uuid import UUID

from notifier.demo.acts.codes import Codes
from notifier.demo.acts.mail import Newsletters
from notifier.demo.acts.opening import everybody_gets_something, people_come
from notifier.demo.acts.pushes import Apps
from notifier.demo.acts.texts import Offers
from notifier.demo.cast import cast, fiction
from notifier.demo.phones import Phones, Push, Text
from notifier.demo.play import NOT_SENT, Play
from notifier.demo.product import caller
from notifier.demo.reader import Inbox, Mail
from notifier.demo.stage import Counts, Stage
from notifier.dispatch.explain import stories_of
from notifier.domain import explanation
from notifier.domain.access import Scope
from notifier.domain.explanation import Explanation
from notifier.domain.recipients import Hasher
from notifier.store import suppressions
from notifier.store.database import Database
from notifier_channels.addresses import PhoneNumber
from notifier_channels.contract import Channel

SHOP = (Scope.SEND_TRANSACTIONAL, Scope.RECIPIENTS, Scope.PREFERENCES, Scope.READ)


async def play_all(play: Play) -> Sequence[str]:
    """Act by act. A reader's page to leave, and the one to choose."""
    newsletters = Newsletters(play)
    await play.inbox.begin()
    await play.phones.begin()
    await people_come(play)
    await everybody_gets_something(play, newsletters.first)
    await newsletters.some_say_no()
    await newsletters.the_next_one()
    await Codes(play).people_sign_in()
    await Offers(play).people_type_stop()
    await Apps(play).an_app_is_deleted()
    play.stage.act("All of it, and what inbox, phones and lock screens have")
    play.stage.table(play.waves)
    judge(play, await play.inbox.mails(), await play.phones.sent(), await play.phones.pushes())
    play.show_promises()
    return newsletters.pages


def judge(play: Play, mails: Sequence[Mail], texts: Sequence[Text], pushes: Sequence[Push]) -> None:
    """What holds for every message, on whichever channel."""
    for channel, name, arrived in (("email", "mail", mails), ("sms", "text", texts), ("push", "push", pushes)):
        sent = sum(Counts.of(wave, channel).sent for wave in play.waves)
        play.promise(f"each {name} that is called sent is there", sent == len(arrived), f"{sent} and {len(arrived)}")
    copies = (
        Counter(mail.message for mail in mails if mail.message),
        Counter((text.phone, text.body) for text in texts),
        Counter(push.message for push in pushes),
    )
    doubled = sum(count > 1 for counts in copies for count in counts.values())
    seen = f"{len(mails)} mails, {len(texts)} texts, {len(pushes)} pushes, {doubled} of them twice"
    play.promise("nothing comes twice", not doubled, seen)
    states = [state for wave in play.waves for state in wave.states.values()]
    lost = sum(len(wave.ongoing()) for wave in play.waves)
    silent = sum(state in NOT_SENT and not reason for state, reason in states)
    waiting = sum(len(wave.asleep() + wave.off()) for wave in play.waves)
    seen = f"{len(states)} accepted, {waiting} wait, {lost} without an outcome"
    play.promise("nothing is lost", not lost, seen)
    play.promise("whatever was not sent has a reason", not silent, f"{silent} without one")


async def play(
    stage: Stage, *, database: Database, hasher: Hasher, api: str, sandbox: str
) -> tuple[bool, Mapping[str, str]]:
    """Play it once: whether every promise held, and where to go on looking."""

    async def explain(message: str) -> Explanation:
        async with database.connection() as c:
            [story] = await stories_of(c, hasher, UUID(message))
        return explanation.explain(story)

    async with AsyncExitStack() as stack:
        all_ = Play(
            stage=stage,
            shop=await caller(stack, database, api, SHOP),
            marketing=await caller(stack, database, api, (Scope.SEND_MARKETING,)),
            inbox=await stack.enter_async_context(Inbox(sandbox)),
            phones=await stack.enter_async_context(Phones(sandbox)),
            explain=explain,
            people=cast(f"r{secrets.token_hex(3)}", datetime.now(UTC), await _stopped_before(database, hasher)),
        )
        pages = await play_all(all_)
    named = zip(("Unsubscribe page", "Preference page"), pages, strict=False)
    places = {"API docs": f"{api}/docs", "Sandbox: mail": sandbox}
    places |= {"Sandbox: texts": f"{sandbox}/texts", "Sandbox: pushes": f"{sandbox}/pushes"}
    return all_.holds, {**places, **dict(named)}


async def _stopped_before(database: Database, hasher: Hasher) -> set[str]:
    """The numbers on which somebody said STOP in an earlier run: a STOP is for good."""
    digests = {digest: number for number in fiction() for digest in hasher.all(PhoneNumber(number))}
    async with database.connection() as c:
        known = await suppressions.in_force(c, [(Channel.SMS, digest) for digest in digests])
    return {digests[digest] for digest in known}
