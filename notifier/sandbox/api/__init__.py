"""The sandbox as JSON, for tests and for the demo: a module per view, and the counts of all."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from notifier.sandbox.api import mails, pushes, texts
from notifier.sandbox.desk import Desk


def router(desk: Desk) -> APIRouter:
    """The routes under `/api`."""
    routes = APIRouter(prefix="/api")

    @routes.get("/stats")
    def stats() -> dict[str, Any]:
        """How much was taken, refused and reported."""
        return desk.stats()

    for view in (mails, texts, pushes):
        routes.include_router(view.router(desk))
    return routes
