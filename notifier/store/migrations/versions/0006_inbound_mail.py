"""Mail that comes back: what a bounce holds against an address, and which mails have been acted on."""

from alembic import op

revision = "0006"
down_revision = "0005"

SCHEMA = """
-- Of a bounce that proves nothing by itself (notifier_channels.contract.Strike): enough of them do.
ALTER TABLE delivery_events ADD COLUMN strike text CHECK (strike IN ('domain', 'soft', 'unreachable'));

-- A mail that has been acted on: a server that did not hear our answer sends it again. Kept 7 days, as a hash.
CREATE TABLE inbound_mails (
    digest       bytea PRIMARY KEY,    -- SHA-256 of the mail and the address that it came to
    received_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX inbound_mails_age ON inbound_mails USING brin (received_at);
"""


def upgrade() -> None:
    """Add what mail that comes back needs."""
    op.execute(SCHEMA)
