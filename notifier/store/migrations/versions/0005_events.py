"""What product code is told: the outbox, written by triggers beside what happened, and the endpoints it is sent to.

Rules of this schema:
- A line is written in the transaction of what it tells, by the statement itself: a roll-back takes it along, and what
  an operator changes by hand is told as well. `docs/why/performance.md` says what the ways to do so cost.
- The order is (xid, number), and only lines below every running transaction are read: a number drawn early may be
  committed late, but no new line ever appears below that horizon (`store.outbox`).
- `number` is drawn while the row that it speaks of is locked: of two lines about one thing, the higher came later.
"""

from alembic import op

revision = "0005"
down_revision = "0004"

SCHEMA = """
-- Who has held an address before: a text to it may be theirs. `addresses_holder` knows who holds it now.
CREATE INDEX addresses_past ON addresses (channel, address_hash) WHERE removed_at IS NOT NULL;

CREATE TABLE outbox (
    xid              xid8 NOT NULL DEFAULT pg_current_xact_id(),
    number           bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    type             text NOT NULL,
    recipient_id     uuid NOT NULL,     -- no foreign keys: it is written at full speed and read by this id alone
    subject          uuid,              -- the message or the device
    notification_id  uuid,
    channel          text,
    topic            text,              -- of a preference: its scope
    detail           text,              -- the reason, or the source of a preference
    granted          boolean,
    ledger_number    bigint,
    occurred_at      timestamptz,       -- of a preference, when it differs: it may be told years later
    told_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (xid, number)
) WITH (autovacuum_vacuum_scale_factor = 0.02);

-- NOTIFIER_EVENTS=false sets it for each session of the service.
CREATE FUNCTION events_are_written() RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT current_setting('notifier.events', true) IS DISTINCT FROM 'off'
$$;

CREATE FUNCTION outbox_message() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO outbox (type, recipient_id, subject, notification_id, channel, topic, detail)
    VALUES ('message.' || NEW.state, NEW.recipient_id, NEW.id, NEW.notification_id, NEW.channel, NEW.topic, NEW.reason);
    RETURN NULL;
END $$;
CREATE TRIGGER outbox_message AFTER UPDATE OF state ON messages FOR EACH ROW
    WHEN (NEW.state <> OLD.state AND NEW.state NOT IN ('queued', 'claimed', 'sending') AND events_are_written())
    EXECUTE FUNCTION outbox_message();

CREATE FUNCTION outbox_preferences() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO outbox (type, recipient_id, channel, topic, detail, granted, ledger_number, occurred_at)
    SELECT 'preference.updated', recipient_id, channel, scope, source, granted, number, occurred_at
    FROM said WHERE events_are_written() ORDER BY number;
    RETURN NULL;
END $$;
CREATE TRIGGER outbox_preferences AFTER INSERT ON consent_events REFERENCING NEW TABLE AS said
    FOR EACH STATEMENT EXECUTE FUNCTION outbox_preferences();

-- Where events are sent. The secret that signs them is not here: it is made from a link key and the id.
CREATE TABLE webhook_endpoints (
    id            uuid PRIMARY KEY,
    url           text NOT NULL,
    types         text[] NOT NULL CHECK (cardinality(types) > 0),
    key_id        text NOT NULL,                   -- of NOTIFIER_LINK_KEYS
    xid           xid8 NOT NULL,                   -- up to here its deliveries are planned
    number        bigint NOT NULL DEFAULT 0,
    failures      integer NOT NULL DEFAULT 0,      -- in a row
    paused_until  timestamptz NOT NULL DEFAULT '-infinity',
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    disabled_at   timestamptz,
    disabled_why  text,
    CHECK ((disabled_at IS NULL) = (disabled_why IS NULL))
);

-- What is still to be sent to an endpoint, or was given up. What was delivered leaves.
CREATE TABLE webhook_deliveries (
    endpoint_id   uuid NOT NULL REFERENCES webhook_endpoints ON DELETE CASCADE,
    xid           xid8 NOT NULL,
    number        bigint NOT NULL,
    due_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    tries         integer NOT NULL DEFAULT 0,
    code          text,                            -- of the last try: a status, or what went wrong
    planned_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    given_up_at   timestamptz,
    PRIMARY KEY (endpoint_id, xid, number)
);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (endpoint_id, due_at) WHERE given_up_at IS NULL;
"""


def upgrade() -> None:
    """Add the outbox, what fills it, and the endpoints."""
    op.execute(SCHEMA)
