"""The pushes: a list of devices, and the lock screen of the chosen one, where a repeat replaces what it repeats."""

from __future__ import annotations

from collections import Counter
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, HTTPException
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from notifier.sandbox.desk import Desk, latest
from notifier.sandbox.pages.rendering import PAGE, Render

MOST_CARDS = 50


def router(desk: Desk, render: Render) -> APIRouter:
    """The routes below `/pushes`."""
    routes = APIRouter(default_response_class=HTMLResponse)

    @routes.get("/pushes")
    def devices(q: str = "") -> Response:
        """The list of devices, and beside it what this is."""
        return render("pushes.html.j2", **_list(desk, q))

    @routes.get("/parts/pushes")
    def parts(q: str = "", device: str = "") -> Response:
        """What changes: the list and, when a device is chosen, its lock screen."""
        return render("pushes.part.j2", **_list(desk, q, device), **_screen(desk, device))

    @routes.post("/pushes/clear")
    async def clear() -> Response:
        """The button that throws all pushes away."""
        desk.pushes.clear()
        return RedirectResponse("/pushes", 303)

    @routes.post("/pushes/{device:path}/remove")
    async def remove(device: str) -> Response:
        """The button that takes the app off the device."""
        desk.pushes.dead.add(device)
        return RedirectResponse(f"/pushes/{quote(device, safe='')}", 303)

    @routes.get("/pushes/{device:path}")
    def screen(device: str, q: str = "") -> Response:
        """One device, opened."""
        shown = _screen(desk, device)
        if not shown["cards"] and device not in desk.pushes.dead:
            raise HTTPException(404, "Nothing was pushed to this device, or newer pushes took its place.")
        return render("screen.html.j2", **_list(desk, q, device), **shown)

    return routes


def _list(desk: Desk, q: str, device: str = "") -> dict[str, Any]:
    wanted = q.strip()
    found = latest(list(desk.pushes), lambda push: push.device)
    if wanted:
        low = wanted.lower()
        found = [row for row in found if low in f"{row[0].device}\n{row[0].title}\n{row[0].body}".lower()]
    return {
        "devices": found[:PAGE],
        "more": len(found) - PAGE,
        "dead": desk.pushes.dead,
        "query": wanted,
        "opened": device,
        "look": "/parts/pushes?" + urlencode({"q": wanted, "device": device}),
    }


def _screen(desk: Desk, device: str) -> dict[str, Any]:
    shown = desk.pushes.screen(device)
    return {
        "device": device,
        "cards": shown[:MOST_CARDS],
        "earlier": max(0, len(shown) - MOST_CARDS),
        "taken": Counter(push.tag for push in desk.pushes if push.device == device),
    }
