"""From a stored template and a caller's data to content that a channel takes. Needs a `Permit`; pure but for loading.

`Templates.load` reads the folder once; `render` runs for every message between the gate and the wire.
"""

from notifier.rendering.folder import bundled_directory
from notifier.rendering.identity import Identity
from notifier.rendering.locales import pick
from notifier.rendering.mail import PreviewedEmail
from notifier.rendering.push import PreviewedPush
from notifier.rendering.render import Ingredients, Preview, Previewed, preview, render
from notifier.rendering.sms import PreviewedSms
from notifier.rendering.specialised import Specialisations, Specialised
from notifier.rendering.template import Template
from notifier.rendering.templates import Templates

__all__ = [
    "Identity",
    "Ingredients",
    "Preview",
    "Previewed",
    "PreviewedEmail",
    "PreviewedPush",
    "PreviewedSms",
    "Specialisations",
    "Specialised",
    "Template",
    "Templates",
    "bundled_directory",
    "pick",
    "preview",
    "render",
]
