"""The command line with a rendering that two kinds of data bring down: one hangs for ever, one crashes the process."""

import os
import signal

from notifier.cli import app
from notifier.dispatch import deliver

render = deliver.render


def fragile_render(permit, template, ingredients):
    if ingredients.data["number"] == "hang":
        while True:
            pass
    if ingredients.data["number"] == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    return render(permit, template, ingredients)


if __name__ == "__main__":
    deliver.render = fragile_render
    app()
