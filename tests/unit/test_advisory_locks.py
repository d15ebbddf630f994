"""Advisory locks share one space of numbers: a worker that lives must not keep a recipient from being created."""

from notifier.store import database, who, workers


def test_no_two_purposes_share_a_number():
    assert len({database.MIGRATION_LOCK, who.STRIPES, workers.LOCK_CLASS}) == 3
