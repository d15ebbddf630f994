"""Text messages and push: devices, the order of a notification's channels, and what came in by text message."""

from alembic import op

revision = "0002"
down_revision = "0001"

SCHEMA = """
-- What is known of a device beside its address: one row for each address of the channel `push`.
CREATE TABLE devices (
    address_id    uuid PRIMARY KEY REFERENCES addresses ON DELETE CASCADE,
    kind          text NOT NULL CHECK (kind IN ('fid', 'token')),
    platform      text NOT NULL CHECK (platform IN ('android', 'ios', 'web')),
    name          text CHECK (length(name) BETWEEN 1 AND 100),   -- for the person's eyes, e.g. "Ann's phone"
    refreshed_at  timestamptz NOT NULL DEFAULT clock_timestamp() -- when the app last said that it is there
);
CREATE INDEX devices_age ON devices (refreshed_at);

-- A notification's channels in their order (domain.routing). Step 0 is decided like any message; a later one waits.
ALTER TABLE messages
    ADD COLUMN step         smallint NOT NULL DEFAULT 0,
    ADD COLUMN turn_at      timestamptz,                     -- when its turn comes at the latest
    ADD COLUMN is_followed  boolean NOT NULL DEFAULT false,  -- another one waits for what becomes of this one
    ADD CHECK ((step > 0) = (turn_at IS NOT NULL));

-- A batch holds one channel, and a backlog on one must not be read to find what is due on another.
DROP INDEX messages_due, messages_suspect;
CREATE INDEX messages_due ON messages (lane, channel, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX messages_suspect ON messages (lane, channel, due_at) WHERE claims >= 2 AND due_at IS NOT NULL;

-- A text message that has been acted on and answered, so that a repeated webhook is not answered twice. Kept 7 days.
CREATE TABLE inbound_sms (
    reference    text PRIMARY KEY,     -- the provider's id of it
    keyword      text NOT NULL CHECK (keyword IN ('stop', 'start', 'help', 'none')),
    received_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX inbound_sms_age ON inbound_sms USING brin (received_at);

ALTER TABLE delivery_events
    ADD COLUMN reference text,            -- the provider's id of the message
    DROP CONSTRAINT delivery_events_kind_check,
    ADD CONSTRAINT delivery_events_kind_check
        CHECK (kind IN ('sent', 'delivered', 'deferred', 'bounced', 'complained', 'unsubscribed'));
"""


def upgrade() -> None:
    """Add what the new channels need."""
    op.execute(SCHEMA)
