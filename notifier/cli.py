"""The command line: an operator's way in. Heavy imports stay inside the commands, so that `--help` is instant."""

from __future__ import annotations

import typer

app = typer.Typer(
    name="notifier",
    help="Sends a product's messages and honours what people want.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

if __name__ == "__main__":
    app()
