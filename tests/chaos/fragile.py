"""The command line with a rendering that two kinds of data bring down: one hangs for ever, one crashes the process."""

import ctypes

from notifier.cli import app
from notifier.dispatch import composing

render = composing.render


def fragile_render(permit, template, channel, ingredients):
    if ingredients.data["number"] == "hang":
        while True:
            pass
    if ingredients.data["number"] == "crash":
        ctypes.string_at(0)  # a real one: a signal sent to the process may be taken by another thread, a moment later
    return render(permit, template, channel, ingredients)


if __name__ == "__main__":
    composing.render = fragile_render
    app()
