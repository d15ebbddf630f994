"""What a device is beside its address: which kind of app said so, and how long that is believed."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum

MOST = 50  #: devices of one person; one more takes the place of the one that was refreshed longest ago
STALE_AFTER = timedelta(days=270)  #: without a refresh; Firebase itself drops a registration that long inactive


class Platform(StrEnum):
    """Where the app runs."""

    ANDROID = "android"
    IOS = "ios"
    WEB = "web"
