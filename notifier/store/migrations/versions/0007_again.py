"""Text messages that came back for a cause that may pass: what is reported of it, and that the attempt is over."""

from alembic import op

revision = "0007"
down_revision = "0006"

SCHEMA = """
-- Of a bounce whose cause may pass (notifier_channels.contract.Again): how long to wait, and how often at most.
ALTER TABLE delivery_events
    ADD COLUMN again_after  interval,
    ADD COLUMN again_most   smallint,
    ADD CHECK ((again_after IS NULL) = (again_most IS NULL));

-- `bounced`: it was taken and came back, and its message is queued again. It is not live: another one may follow.
ALTER TABLE attempts
    DROP CONSTRAINT attempts_state_check,
    ADD CONSTRAINT attempts_state_check CHECK (state IN ('started', 'accepted', 'not_taken', 'refused', 'unknown',
        'superseded', 'bounced'));

-- Product code has heard that it was accepted, so it hears that it waits again.
CREATE OR REPLACE FUNCTION outbox_message() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO outbox (type, recipient_id, subject, notification_id, channel, topic, detail)
    VALUES ('message.' || CASE NEW.state WHEN 'queued' THEN 'deferred' ELSE NEW.state END, NEW.recipient_id, NEW.id,
            NEW.notification_id, NEW.channel, NEW.topic, NEW.reason);
    RETURN NULL;
END $$;
DROP TRIGGER outbox_message ON messages;
CREATE TRIGGER outbox_message AFTER UPDATE OF state ON messages FOR EACH ROW
    WHEN (NEW.state <> OLD.state
          AND (NEW.state NOT IN ('queued', 'claimed', 'sending') OR OLD.state = 'accepted' AND NEW.state = 'queued')
          AND events_are_written())
    EXECUTE FUNCTION outbox_message();
"""


def upgrade() -> None:
    """Let what came back be tried again, and told."""
    op.execute(SCHEMA)
