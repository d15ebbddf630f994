"""A route that loads can be kept: it names channels that are there, each once, and waits no longer than is wanted."""

from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.domain.durations import written
from notifier.domain.routing import EVERY_CHANNEL, Mode, Route
from notifier.errors import TemplateError
from notifier.rendering import Template
from notifier.rendering.durations import duration
from notifier.rendering.routes import read, spoken
from notifier_channels.contract import Channel
from tests.folders import EVERYWHERE, LETTER, TOPICS, load

THEN = 'route = { mode = "then", order = ["sms", "email"], after = "2m" }\n'
DECLARED = LETTER["letter/template.toml"]


def letter(directory: Path, changes: dict[str, str]) -> Template:
    found = load(directory, EVERYWHERE | changes).find("letter")
    assert found is not None
    return found


def test_a_templates_own_route_goes_before_its_topics_and_without_any_it_is_all(tmp_path: Path) -> None:
    own = letter(tmp_path / "own", {"letter/template.toml": DECLARED + THEN})
    assert own.route == Route(Mode.THEN, (Channel.SMS, Channel.EMAIL), timedelta(minutes=2))
    assert letter(tmp_path / "topic", {}).route == Route(Mode.FIRST, (Channel.PUSH, Channel.SMS))
    none = load(tmp_path / "none", LETTER | {"topics.toml": TOPICS}).find("letter")
    assert none is not None
    assert none.route == EVERY_CHANNEL
    every = letter(tmp_path / "all", {"letter/template.toml": DECLARED + 'route = { mode = "all" }'})
    assert every.route == EVERY_CHANNEL


@pytest.mark.parametrize(
    ("route", "names"),
    [
        ('"all"', ["a route has mode, order and after"]),
        ("{}", ["mode must be one of all, first, then"]),
        ('{ mode = "any" }', ["mode must be one of all, first, then"]),
        ('{ mode = ["all"] }', ["mode must be one of"]),
        ('{ mode = "all", wait = "1m" }', ["a route has mode, order and after"]),
        ('{ mode = "first" }', ["need an order"]),
        ('{ mode = "first", order = [] }', ["need an order"]),
        ('{ mode = "all", order = ["sms"] }', ["mode all has none"]),
        ('{ mode = "first", order = "sms" }', ["order is a list of email, sms, push"]),
        ('{ mode = "first", order = ["sms", "fax"] }', ["order is a list of email, sms, push"]),
        ('{ mode = "first", order = ["sms", ["push"]] }', ["order is a list of"]),
        ('{ mode = "first", order = ["sms", "sms"] }', ["twice"]),
        ('{ mode = "first", order = ["sms"], after = "2m" }', ["no other mode has it"]),
        ('{ mode = "all", after = "2m" }', ["no other mode has it"]),
        ('{ mode = "then", order = ["sms"] }', ["mode then needs after"]),
        ('{ mode = "then", order = ["sms"], after = "soon" }', ["after is written like"]),
        ('{ mode = "then", order = ["sms"], after = 5 }', ["after is written like"]),
        ('{ mode = "then", order = ["sms"], after = "8d" }', ["between 1m and 7d"]),
    ],
)
@pytest.mark.parametrize("where", ["letter/template.toml", "topics.toml"])
def test_each_mistake_in_a_route_is_named(tmp_path: Path, route: str, names: list[str], where: str) -> None:
    topic = TOPICS.replace("[orders]", f"[orders]\nroute = {route}")
    changes = {"letter/template.toml": f"{DECLARED}route = {route}\n", "topics.toml": topic}
    with pytest.raises(TemplateError) as caught:
        load(tmp_path, LETTER | {where: changes[where]})
    place = "letter/template.toml route" if "template" in where else "topics.toml [orders] route"
    for name in [place, *names]:
        assert name in str(caught.value)


def test_a_route_names_only_channels_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match=r"letter/template.toml route: names sms; there is only email"):
        load(tmp_path / "template", LETTER | {"letter/template.toml": DECLARED + THEN})
    topics = TOPICS.replace("[orders]", '[orders]\nroute = { mode = "first", order = ["push", "email"] }')
    with pytest.raises(TemplateError, match=r"topics.toml \[orders\] route: names push; there is only email"):
        load(tmp_path / "topic", LETTER | {"topics.toml": topics})


def test_a_message_is_wanted_until_its_last_channel_has_had_its_turn(tmp_path: Path) -> None:
    short = DECLARED.replace("1d", "4m") + THEN
    with pytest.raises(TemplateError, match=r"letter/template.toml: expires before the last channel"):
        letter(tmp_path / "short", {"letter/template.toml": short})
    assert letter(tmp_path / "enough", {"letter/template.toml": short.replace("4m", "5m")}).route.mode is Mode.THEN


TABLES = st.fixed_dictionaries(
    {},
    optional={
        "mode": st.sampled_from([*(str(mode) for mode in Mode), "any", 1, None]),
        "order": st.lists(st.sampled_from(["email", "sms", "push", "fax"]), max_size=4) | st.text() | st.none(),
        "after": st.sampled_from(["1m", "10m", "24h", "7d", "8d", "0m", "", "m", 10]),
    },
)


@given(TABLES, st.sets(st.sampled_from(Channel), min_size=1))
def test_a_route_that_loads_gives_each_channel_a_step_without_gaps(table: object, channels: set[Channel]) -> None:
    try:
        route = read(table, "here")
    except TemplateError:
        return
    steps = route.steps(channels)
    assert steps.keys() == channels
    assert set(steps.values()) == set(range(max(steps.values()) + 1))
    assert len(set(steps.values())) == (1 if route.mode is Mode.ALL else len(channels))
    assert bool(route.after) == (route.mode is Mode.THEN)
    assert all(str(channel) in spoken(route) for channel in route.order)


@given(st.integers(1, 9999), st.sampled_from("mhd"))
def test_a_length_of_time_is_written_as_it_is_read(number: int, unit: str) -> None:
    length = duration(f"{number}{unit}", "here")
    days = length.days
    if days <= 9999:
        again = written(length)
        assert len(again) <= len(f"{number}{unit}")
        assert duration(again, "here") == length


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"mode": "all"}, "all"),
        ({"mode": "first", "order": ["push", "sms"]}, "first of push, sms"),
        ({"mode": "then", "order": ["push", "sms"], "after": "90m"}, "push, then after 90m sms"),
    ],
)
def test_a_route_is_said_in_words(table: object, says: str) -> None:
    assert spoken(read(table, "here")) == says
