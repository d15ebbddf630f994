"""A version that no longer compiles fails its own messages and holds up nobody else's."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.world import MANDATORY, TRANSACTIONAL, Scripted, World

pytestmark = pytest.mark.anyio


async def test_a_pinned_version_that_no_longer_compiles_fails_its_messages_alone(database, tmp_path):
    world = World(database, tmp_path / "journals")
    people = await world.people(2)
    broken = await world.queue(people[:1], TRANSACTIONAL)
    sound = await world.queue(people[1:], MANDATORY)
    await world.execute(
        "UPDATE template_versions SET hash = 'of before', sources = jsonb_set(sources, %s, %s) WHERE key = %s",
        [f"{TRANSACTIONAL}/en/email.html.j2"], '"{% unknown %}"', TRANSACTIONAL,
    )  # fmt: skip
    async with world.worker(Scripted()) as deliver:
        await deliver(())
    assert await world.states(broken + sound) == [("failed", "render:template"), ("accepted", None)]


async def test_a_topic_that_only_the_other_release_declares_is_judged_as_the_message_pinned_it(database, tmp_path):
    world = World(database, tmp_path / "journals")
    ids = await world.queue(await world.people(1), MANDATORY)
    known = {key: topic for key, topic in world.templates.topics.items() if key != "security"}
    async with world.worker(Scripted(), templates=replace(world.templates, topics=known)) as deliver:
        await deliver(ids)
    assert await world.states(ids) == [("accepted", None)]
