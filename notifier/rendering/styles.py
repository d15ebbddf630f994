"""Moves style sheets onto the elements, since mail clients drop them, and leaves every line where its author wrote it.

The page is put together from layout and template only to learn which style each tag gets; what runs is the files
themselves with `style` attributes added, so Jinja is never touched and errors name the author's line.
"""

from __future__ import annotations

from notifier.rendering.markup import Page


def inline(pages: dict[str, Page], html: str) -> None:
    """Add to each tag in these files the styles it has on the page that begins with the file `html`."""
