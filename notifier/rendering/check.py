"""Proves a template before anyone gets it: each channel and locale renders its sample, marketing shows its way out."""

from __future__ import annotations

from notifier.errors import TemplateError
from notifier.rendering import text
from notifier.rendering.mail import PreviewedEmail
from notifier.rendering.push import PreviewedPush
from notifier.rendering.render import Ingredients, Preview, Previewed, preview
from notifier.rendering.sms import PreviewedSms, shows
from notifier.rendering.template import Template
from notifier_channels.contract import Channel

UNSUBSCRIBE_URL = "https://notifier.test/u/sample-unsubscribe"
PREFERENCES_URL = "https://notifier.test/p/sample-preferences"


def sample_of(template: Template, locale: str) -> Ingredients:
    """The ingredients that checks and previews use."""
    return Ingredients(
        locale=locale,
        timezone="Europe/Berlin",
        data=template.sample,
        unsubscribe=template.list_headers(locale, UNSUBSCRIBE_URL, None),
        preferences_url=PREFERENCES_URL,
    )


def prove(template: Template) -> Template:
    """The template itself, when all its channels and locales hold.

    Raises:
        TemplateError: names the first that does not.

    """
    for channel, by_locale in template.variants.items():
        for locale in by_locale:
            _prove(template, channel, locale)
    return template


def look_at(template: Template, channel: Channel, locale: str) -> Previewed:
    """What a recipient with this locale would get of the sample."""
    return preview(Preview(), template, channel, sample_of(template, locale))


def worst(template: Template) -> PreviewedSms | None:
    """Of the sample's text messages the one that takes most segments; None without any."""
    texts = (look_at(template, Channel.SMS, locale) for locale in template.variants.get(Channel.SMS, ()))
    return max(
        (one for one in texts if isinstance(one, PreviewedSms)), key=lambda one: one.segments.segments, default=None
    )


def _prove(template: Template, channel: Channel, locale: str) -> None:
    ingredients = sample_of(template, locale)
    for data in (template.sample, _bare(template)):
        seen = preview(Preview(), template, channel, ingredients._replace(data=data))
        if template.is_marketing:
            _shows_the_way_out(template, locale, seen)
        else:
            preview(Preview(), template, channel, ingredients._replace(data=data, preferences_url=None))


def _shows_the_way_out(template: Template, locale: str, seen: Previewed) -> None:
    match seen:
        case PreviewedEmail():
            _links_out(template, locale, seen)
        case PreviewedSms():
            _says_how_to_stop(template, locale, seen)
        case PreviewedPush():  # the device and the topic switch it off; no law wants a link on a lock screen
            pass


def _links_out(template: Template, locale: str, seen: PreviewedEmail) -> None:
    """CAN-SPAM, Gmail and Yahoo ask for a visible link in the body, and people without HTML need it too."""
    for part, visible in (("HTML", text.from_html(seen.html) if seen.html else None), ("text", seen.text)):
        if visible is not None and UNSUBSCRIBE_URL not in visible:
            raise TemplateError(f"{template.key}/{locale}: marketing shows unsubscribe_url; the {part} part does not")


def _says_how_to_stop(template: Template, locale: str, seen: PreviewedSms) -> None:
    """CTIA and Twilio's messaging policy: a text names its sender, which a number does not, and says how to stop."""
    stop_text = template.variant(Channel.SMS, locale).constants.get("stop_text", "")
    if not shows(seen, template.identity.sender.name):
        raise TemplateError(f"{template.key}/{locale}: a marketing text names who sends it; write {{{{ sender }}}}")
    if not (stop_text and shows(seen, stop_text)) and not shows(seen, UNSUBSCRIBE_URL):
        raise TemplateError(
            f"{template.key}/{locale}: a marketing text says how to stop; write {{{{ stop_text }}}} or "
            f"{{{{ unsubscribe_url }}}}"
        )


def _bare(template: Template) -> dict[str, object]:
    """The sample without what the schema calls optional: it must render, too."""
    return {name: value for name, value in template.sample.items() if name in template.schema.required}
