"""How many devices a person may have, and how long one is believed to be there."""

from __future__ import annotations

from datetime import timedelta

MOST = 50  #: devices of one person; one more takes the place of the one that was refreshed longest ago
STALE_AFTER = timedelta(days=270)  #: without a refresh; Firebase itself drops a registration that long inactive
