"""The pages that a person opens: mail as a mail client shows it, texts as a phone does, pushes as a lock screen does.

Everything that was taken is untrusted: it is escaped, kept in its own direction of writing, and loads nothing.
"""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response

from notifier.sandbox.desk import Desk
from notifier.sandbox.pages import mails, pushes, texts
from notifier.sandbox.pages.rendering import renderer


def router(desk: Desk) -> APIRouter:
    """The routes of all views."""
    routes = APIRouter(default_response_class=HTMLResponse)
    render = renderer(desk)

    @routes.get("/simulators")
    def simulators() -> Response:
        """The tables of simulated recipients."""
        return render("simulators.html.j2")

    for view in (mails, texts, pushes):
        routes.include_router(view.router(desk, render))
    return routes
