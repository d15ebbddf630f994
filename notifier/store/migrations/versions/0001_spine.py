"""The spine: people, the ledger, notifications, messages and attempts.

Rules of this schema:
- `messages` carries no index on `state`: a claimed row becomes `sending` as a HOT update. What is waiting is
  found by `due_at` (set only while queued, or unknown and to be reconciled), what is in hand by `worker_id`.
- Ids of notifications and messages are UUIDv7, so old rows leave by one range delete on the primary key.
- Attempts, consent events and suppressions draw from one sequence while the recipient is locked: the number
  says which came first, which clocks do not.
"""

from alembic import op

revision = "0001"
down_revision = None

SCHEMA = """
CREATE SEQUENCE ledger_number;

CREATE TABLE recipients (
    id             uuid PRIMARY KEY,
    external_id    text UNIQUE CHECK (length(external_id) BETWEEN 1 AND 255),  -- NULL: came as a bare address
    locale         text,
    timezone       text,
    attributes     jsonb NOT NULL DEFAULT '{}',
    snoozed_until  timestamptz,
    merged_into    uuid REFERENCES recipients,  -- a nameless one, adopted by a named one
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now(),
    CHECK (merged_into IS NULL OR external_id IS NULL)
);

CREATE TABLE addresses (
    id            uuid PRIMARY KEY,
    recipient_id  uuid NOT NULL REFERENCES recipients,
    channel       text NOT NULL CHECK (channel IN ('email', 'sms', 'push')),
    address       text NOT NULL,
    address_hash  bytea NOT NULL,     -- HMAC-SHA-256 of the normal form; the key is not in this database
    hash_key      text NOT NULL,      -- which key
    created_at    timestamptz NOT NULL DEFAULT now(),
    removed_at    timestamptz
);
CREATE UNIQUE INDEX addresses_holder ON addresses (channel, address_hash, recipient_id) WHERE removed_at IS NULL;
CREATE UNIQUE INDEX addresses_one_owner ON addresses (address_hash) WHERE channel = 'push' AND removed_at IS NULL;
CREATE INDEX addresses_recipient ON addresses (recipient_id);

CREATE TABLE consent_events (
    number        bigint PRIMARY KEY DEFAULT nextval('ledger_number'),
    recipient_id  uuid NOT NULL REFERENCES recipients,
    scope         text NOT NULL CHECK (scope IN ('all', 'marketing') OR scope ~ '^topic:[a-z0-9][a-z0-9-]*$'),
    channel       text NOT NULL CHECK (channel IN ('any', 'email', 'sms', 'push')),
    granted       boolean NOT NULL,
    occurred_at   timestamptz NOT NULL,
    recorded_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at    timestamptz CHECK (expires_at IS NULL OR granted),
    source        text NOT NULL CHECK (source IN ('api', 'import', 'one_click', 'unsubscribe_page', 'preference_page',
                      'sms_keyword', 'mailto', 'complaint', 'provider', 'double_opt_in', 'admin')),
    evidence      jsonb NOT NULL DEFAULT '{}',
    CHECK (occurred_at <= recorded_at)
);
CREATE INDEX consent_events_recipient ON consent_events (recipient_id, number);

CREATE FUNCTION consent_events_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Erasure may blank the evidence, nothing else (I8).
    IF TG_OP = 'UPDATE' AND NEW.evidence = '{"erased": true}'
       AND (NEW.number, NEW.recipient_id, NEW.scope, NEW.channel, NEW.granted, NEW.occurred_at, NEW.recorded_at,
            NEW.expires_at, NEW.source)
           IS NOT DISTINCT FROM
           (OLD.number, OLD.recipient_id, OLD.scope, OLD.channel, OLD.granted, OLD.occurred_at, OLD.recorded_at,
            OLD.expires_at, OLD.source) THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'consent_events is append-only';
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON consent_events
    FOR EACH ROW EXECUTE FUNCTION consent_events_append_only();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON consent_events
    FOR EACH STATEMENT EXECUTE FUNCTION consent_events_append_only();

-- The projection: the ledger's lines that can still matter (domain.consent.fold). Can be rebuilt at any time.
CREATE TABLE consents (
    recipient_id  uuid NOT NULL REFERENCES recipients,
    number        bigint NOT NULL,
    scope         text NOT NULL,
    channel       text NOT NULL,
    granted       boolean NOT NULL,
    occurred_at   timestamptz NOT NULL,
    expires_at    timestamptz,
    PRIMARY KEY (recipient_id, number)
);

CREATE TABLE suppressions (
    number        bigint PRIMARY KEY DEFAULT nextval('ledger_number'),
    channel       text NOT NULL CHECK (channel IN ('email', 'sms', 'push')),
    address_hash  bytea NOT NULL,
    hash_key      text NOT NULL,
    reason        text NOT NULL CHECK (reason IN ('hard_bounce', 'complaint', 'stop', 'dead_device', 'erased',
                      'manual')),
    evidence      jsonb NOT NULL DEFAULT '{}',
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    lifted_at     timestamptz,
    lifted_why    text,
    CHECK ((lifted_at IS NULL) = (lifted_why IS NULL))
);
CREATE UNIQUE INDEX suppressions_in_force ON suppressions (address_hash, channel, reason) WHERE lifted_at IS NULL;

CREATE TABLE template_versions (
    id          integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    key         text NOT NULL,
    hash        text NOT NULL UNIQUE,   -- of every file that takes part, so the same content is the same version
    topic       text NOT NULL,
    category    text NOT NULL CHECK (category IN ('transactional', 'marketing')),
    sources     jsonb NOT NULL,         -- path -> text: what a message pinned is rendered from
    created_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE api_keys (
    id            text PRIMARY KEY,     -- the public part of the key
    name          text NOT NULL,
    secret_hash   bytea NOT NULL,       -- SHA-256 of 256 random bits
    scopes        text[] NOT NULL CHECK (scopes <@ ARRAY['send:transactional', 'send:marketing', 'recipients',
                      'preferences', 'read', 'admin'] AND cardinality(scopes) > 0),
    created_at    timestamptz NOT NULL DEFAULT now(),
    last_used_at  timestamptz,
    revoked_at    timestamptz
);

CREATE TABLE notifications (
    id                uuid PRIMARY KEY,
    recipient_id      uuid NOT NULL REFERENCES recipients,
    template_version  integer NOT NULL REFERENCES template_versions,
    data              jsonb NOT NULL,
    message_ids       uuid[] NOT NULL,
    api_key_id        text REFERENCES api_keys,
    created_at        timestamptz NOT NULL DEFAULT now(),
    cancelled_at      timestamptz
);

-- Kept for 7 days. Only hashes: callers put people's names into keys.
CREATE TABLE idempotency_keys (
    key_hash         bytea PRIMARY KEY,
    body_hash        bytea NOT NULL,
    notification_id  uuid NOT NULL,
    answer           jsonb NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX idempotency_keys_age ON idempotency_keys USING brin (created_at);

CREATE TABLE workers (
    id          integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,  -- also the key of its session advisory lock
    lane        text NOT NULL CHECK (lane IN ('transactional', 'marketing')),
    boot_id     text NOT NULL,     -- of the machine: a journal is proof only as long as the machine has not gone down
    journal     text NOT NULL,     -- path of its file
    started_at  timestamptz NOT NULL DEFAULT now(),
    lost_at     timestamptz,       -- its lock was found free
    ended_at    timestamptz        -- nothing of it is left in hand
);
CREATE INDEX workers_alive ON workers (id) WHERE ended_at IS NULL;

CREATE TABLE messages (
    id                uuid PRIMARY KEY,
    notification_id   uuid,
    recipient_id      uuid NOT NULL REFERENCES recipients,
    address_id        uuid NOT NULL REFERENCES addresses,
    channel           text NOT NULL CHECK (channel IN ('email', 'sms', 'push')),
    lane              text NOT NULL CHECK (lane IN ('transactional', 'marketing')),
    category          text NOT NULL CHECK (category IN ('transactional', 'marketing')),
    topic             text NOT NULL,
    template_version  integer NOT NULL REFERENCES template_versions,
    state             text NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'claimed', 'sending', 'accepted',
                          'delivered', 'unknown', 'failed', 'suppressed', 'expired', 'cancelled', 'bounced',
                          'complained')),
    reason            text,
    due_at            timestamptz,       -- when somebody must take it in hand; only while queued or to be reconciled
    expires_at        timestamptz NOT NULL,
    worker_id         integer,           -- whose hands it is in; only while claimed or sending
    claims            smallint NOT NULL DEFAULT 0,    -- taken in hand since the last outcome
    tries             smallint NOT NULL DEFAULT 0,    -- attempts that count towards giving up
    repeated          boolean NOT NULL DEFAULT false, -- the one repeat out of `unknown` is spent
    decision          jsonb,             -- the last decision with its inputs
    CHECK ((state = 'queued') <= (due_at IS NOT NULL)),
    CHECK (due_at IS NULL OR state IN ('queued', 'unknown')),
    CHECK ((worker_id IS NOT NULL) = (state IN ('claimed', 'sending'))),
    CHECK (reason IS NOT NULL OR state IN ('queued', 'claimed', 'sending', 'accepted', 'delivered')),
    CHECK (NOT repeated OR category = 'transactional')
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);
CREATE INDEX messages_due ON messages (lane, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX messages_suspect ON messages (lane, due_at) WHERE claims >= 2 AND due_at IS NOT NULL;
CREATE INDEX messages_in_hand ON messages (worker_id) WHERE worker_id IS NOT NULL;
CREATE INDEX messages_recipient ON messages (recipient_id, id);

CREATE TABLE attempts (
    message_id   uuid NOT NULL REFERENCES messages ON DELETE CASCADE,
    n            smallint NOT NULL,
    number       bigint NOT NULL DEFAULT nextval('ledger_number'),
    worker_id    integer NOT NULL REFERENCES workers,
    provider     text NOT NULL,
    state        text NOT NULL DEFAULT 'started' CHECK (state IN ('started', 'accepted', 'not_taken', 'refused',
                     'unknown', 'superseded')),
    code         text,                   -- e.g. `550 5.1.1`
    reference    text,                   -- the provider's id
    detail       text,
    started_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    settled_at   timestamptz,
    PRIMARY KEY (message_id, n),
    CHECK ((state = 'started') = (settled_at IS NULL))
) WITH (fillfactor = 80);
CREATE UNIQUE INDEX attempts_one_live ON attempts (message_id) WHERE state IN ('started', 'accepted', 'unknown');

CREATE TABLE delivery_events (
    id           uuid PRIMARY KEY,
    message_id   uuid NOT NULL REFERENCES messages ON DELETE CASCADE,
    attempt      smallint,
    kind         text NOT NULL CHECK (kind IN ('delivered', 'deferred', 'bounced', 'complained', 'unsubscribed')),
    source       text NOT NULL,
    source_id    text NOT NULL,          -- the provider's id of the event: the same report twice is one row
    code         text,
    occurred_at  timestamptz NOT NULL,
    received_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (source, source_id)
);
CREATE INDEX delivery_events_message ON delivery_events (message_id);

CREATE TABLE provider_pauses (
    provider      text PRIMARY KEY,
    code          text NOT NULL,
    detail        text NOT NULL,
    since         timestamptz NOT NULL DEFAULT clock_timestamp(),
    paused_until  timestamptz NOT NULL   -- then one message tries it again
);
"""


def upgrade() -> None:
    """Create everything."""
    op.execute(SCHEMA)
