"""What `bench campaign` stands on: its templates load, its peers send the same mail, a tenth of its people said no."""

from pathlib import Path

import jinja2
import pytest

from bench.audience import people
from bench.peers.body import HANDLEBARS, JINJA, body
from notifier.rendering import Templates
from notifier.rendering.check import PREFERENCES_URL, UNSUBSCRIBE_URL, look_at
from notifier_channels.contract import Channel
from tests.world import IDENTITY

TEMPLATES = Path(__file__).parents[2] / "bench" / "templates"


@pytest.fixture(scope="module")
def templates() -> Templates:
    return Templates.load(TEMPLATES, IDENTITY, "en")


@pytest.mark.parametrize("key", ["fields", "loops"])
def test_a_peer_sends_the_same_mail(templates: Templates, key: str) -> None:
    template = templates.find(key)
    values = {**template.sample, "unsubscribe_url": UNSUBSCRIBE_URL, "preferences_url": PREFERENCES_URL}
    ours = look_at(template, Channel.EMAIL, "en")
    theirs = {
        part: jinja2.Environment(
            autoescape=part == "html", keep_trailing_newline=True, undefined=jinja2.StrictUndefined
        )
        .from_string(source)
        .render(values)
        for part, source in body(template, JINJA).items()
    }
    assert theirs == {"subject": ours.subject, "html": ours.html, "text": ours.text}


def test_handlebars_get_their_own_loop_around_what_each_item_has(templates: Templates) -> None:
    text = body(templates.find("loops"), HANDLEBARS)["text"]
    start, end = text.index("{{#each items}}"), text.index("{{/each}}")
    assert start < text.index("{{name}}") < text.index("{{url}}") < end
    assert "zz" not in text


@pytest.mark.parametrize("key", ["fields", "loops"])
def test_a_tenth_of_the_people_has_not_consented_and_all_fit_the_template(templates: Templates, key: str) -> None:
    everybody = list(people(200, key, "all"))
    assert sum(not one.consents for one in everybody) == 20
    assert {one.granted for one in everybody if not one.consents} == {True, False}
    schema = templates.find(key).schema
    for one in everybody:
        assert not schema.problems({name: one.attributes[name] for name in schema.required}, "")
