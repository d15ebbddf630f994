"""Campaigns: what is sent to many, whom it is for, how far it has come, and who approved it.

Rules of this schema:
- A campaign's messages are not planned one by one. The planner cuts the audience into batches of ids; a worker takes a
  batch, decides, and inserts its messages with their attempts in the transaction of their intent: one insert and one
  settle for each, where a row that waits in a queue would be rewritten twice more.
- `messages_campaign` lets a batch be taken again after a death: whoever has a message already gets no second one.
- A batch that is dropped stays, marked: how many people it held on its channel is part of what a report adds up.
- A message that was born in a batch is in the hands of whoever has the batch. `worker_id` stays empty on it, so that
  its settle changes no indexed column and is a HOT update. That of `attempts` is, too: no index knows their state.
- What messages and attempts name is never deleted; triggers see to that. Foreign keys said the same at each insert and
  took more than half of its time, with a lock on the one row of the template that all messages of a campaign name.
- A deferred message of a campaign waits in the queue like any other, and is found by `messages_campaign_waiting`.
"""

from alembic import op

revision = "0008"
down_revision = "0007"

SCHEMA = """
-- Uploaded lists of people, to send to or to leave out.
CREATE TABLE lists (
    id          uuid PRIMARY KEY,
    name        text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    report      jsonb NOT NULL DEFAULT '{}',   -- of the upload: lines read, people found, lines that name nobody
    is_ready    boolean NOT NULL DEFAULT false, -- the upload came to its end
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE list_members (
    list_id       uuid NOT NULL REFERENCES lists ON DELETE CASCADE,
    recipient_id  uuid NOT NULL REFERENCES recipients,
    PRIMARY KEY (list_id, recipient_id)
);

CREATE TABLE campaigns (
    id                uuid PRIMARY KEY,
    name              text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    state             text NOT NULL DEFAULT 'draft' CHECK (state IN ('draft', 'scheduled', 'sending', 'paused',
                          'finished', 'cancelled')),
    revision          integer NOT NULL DEFAULT 1,   -- counts edits of what is sent: an approval is for one of them
    template          text NOT NULL,
    data              jsonb NOT NULL DEFAULT '{}',
    audience          jsonb NOT NULL,               -- domain.audience
    schedule          jsonb NOT NULL,               -- domain.schedules
    sender            text,                         -- one of NOTIFIER_SENDERS; NULL: the installation's own
    rate              double precision CHECK (rate > 0),  -- messages a second; NULL: as fast as the providers allow
    expires_at        timestamptz,                  -- not after; NULL while a draft leaves it to the template
    is_notice         boolean NOT NULL DEFAULT false,     -- of a mandatory topic, to everyone: needs `admin`
    series_id         uuid REFERENCES campaigns,    -- the recurring campaign whose occurrence this is
    occurs_at         timestamptz,
    created_by        text NOT NULL,                -- `key:<id>` or `operator`
    created_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- from here on set when it is scheduled
    template_version  integer REFERENCES template_versions,
    topic             text,
    category          text CHECK (category IN ('transactional', 'marketing')),
    scheduled_by      text,
    scheduled_at      timestamptz,
    plan_hash         text,                         -- of the dry-run that was approved by scheduling
    -- while it is sent
    starts_at         timestamptz,                  -- when its first batch is due
    started_at        timestamptz,
    audience_size     integer,                      -- counted when it began; when it has ended, who was in it
    spoiled           integer NOT NULL DEFAULT 0,   -- could not be rendered, or our configuration was refused
    spoiled_in_row    integer NOT NULL DEFAULT 0,
    pause_reason      text,
    ended_at          timestamptz,
    left_out          jsonb NOT NULL DEFAULT '{}',  -- people who were in no batch yet when it ended, by reason
    CHECK ((state IN ('draft')) OR state = 'cancelled' OR template_version IS NOT NULL),
    CHECK ((state = 'paused') = (pause_reason IS NOT NULL)),
    CHECK ((series_id IS NULL) = (occurs_at IS NULL)),
    CHECK ((state IN ('finished', 'cancelled')) = (ended_at IS NOT NULL))
);
CREATE UNIQUE INDEX campaigns_occurrence ON campaigns (series_id, occurs_at) WHERE series_id IS NOT NULL;
CREATE INDEX campaigns_alive ON campaigns (id) WHERE state IN ('scheduled', 'sending', 'paused');

-- Dry-runs. `plan` is what would happen; the hash of an approved one stands on its campaign.
CREATE TABLE campaign_plans (
    id            uuid PRIMARY KEY,
    campaign_id   uuid NOT NULL REFERENCES campaigns ON DELETE CASCADE,
    revision      integer NOT NULL,
    template_version integer NOT NULL REFERENCES template_versions,
    asked_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    progress      jsonb NOT NULL DEFAULT '{}',    -- while it is reckoned
    plan          jsonb,                          -- NULL until it is done
    hash          text,                           -- SHA-256 of the plan
    problem       text,                           -- why it could not be reckoned
    approved_by   text,
    approved_at   timestamptz
);
CREATE INDEX campaign_plans_of ON campaign_plans (campaign_id, asked_at);
CREATE INDEX campaign_plans_open ON campaign_plans (asked_at) WHERE plan IS NULL AND problem IS NULL;

-- Walks over the audience: one for an instant, one for each time zone where people get it at their own local time.
CREATE TABLE campaign_walks (
    campaign_id  uuid NOT NULL REFERENCES campaigns ON DELETE CASCADE,
    zone         text NOT NULL DEFAULT '',      -- '': everybody
    due_at       timestamptz NOT NULL,
    size         integer NOT NULL,              -- people: counted when it began, and again when all of them are planned
    position     uuid,                          -- the last recipient that is in a batch
    planned      integer NOT NULL DEFAULT 0,    -- people
    ended_at     timestamptz,
    PRIMARY KEY (campaign_id, zone)
);

-- A slice of the audience on one channel, planned and sent together.
CREATE TABLE campaign_batches (
    campaign_id  uuid NOT NULL REFERENCES campaigns ON DELETE CASCADE,
    n            bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    channel      text NOT NULL CHECK (channel IN ('email', 'sms', 'push')),
    step         smallint NOT NULL DEFAULT 0,   -- domain.routing
    recipients   uuid[] NOT NULL,
    starts_at    timestamptz NOT NULL,          -- when these people's turn was: that of later channels counts from it
    due_at       timestamptz,                   -- set while it waits
    is_paced     boolean NOT NULL DEFAULT false,  -- its place in the campaign's rate is reserved
    worker_id    integer,                       -- whose hands it is in
    claims       smallint NOT NULL DEFAULT 0,   -- taken in hand without being decided
    decided_at   timestamptz,                   -- its messages are rows from here on
    unreachable  integer,                       -- had no address on the channel
    left_out     text,                          -- why it was dropped: none of its people was written to on the channel
    PRIMARY KEY (campaign_id, n),
    CHECK (due_at IS NULL OR num_nonnulls(worker_id, decided_at) = 0),
    CHECK (num_nonnulls(due_at, worker_id, decided_at) > 0),
    CHECK (left_out IS NULL OR (decided_at IS NOT NULL AND unreachable IS NULL))
);
CREATE INDEX campaign_batches_due ON campaign_batches (channel, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX campaign_batches_open ON campaign_batches (campaign_id) WHERE decided_at IS NULL;
CREATE INDEX campaign_batches_in_hand ON campaign_batches (worker_id) WHERE worker_id IS NOT NULL;

ALTER TABLE messages
    ADD COLUMN campaign_id uuid,
    ADD COLUMN is_test boolean NOT NULL DEFAULT false;   -- to a named address, before the campaign; marked as such
CREATE UNIQUE INDEX messages_campaign ON messages (campaign_id, recipient_id, channel, address_id)
    WHERE campaign_id IS NOT NULL AND NOT is_test;
CREATE INDEX messages_campaign_waiting ON messages (campaign_id, id)
    WHERE campaign_id IS NOT NULL AND due_at IS NOT NULL;

-- Which noes came of a message: a report of a campaign finds those that name one of its messages. Ids grow with time.
CREATE INDEX consent_events_message ON consent_events ((evidence ->> 'message') COLLATE "C")
    WHERE evidence ? 'message' AND NOT granted;

ALTER TABLE messages
    DROP CONSTRAINT messages_check2,
    ADD CONSTRAINT messages_in_hands CHECK (CASE WHEN state IN ('claimed', 'sending')
        THEN worker_id IS NOT NULL OR campaign_id IS NOT NULL ELSE worker_id IS NULL END),
    DROP CONSTRAINT messages_recipient_id_fkey,
    DROP CONSTRAINT messages_address_id_fkey,
    DROP CONSTRAINT messages_template_version_fkey,
    SET (fillfactor = 50);
ALTER TABLE attempts
    DROP CONSTRAINT attempts_worker_id_fkey,
    ADD COLUMN is_live boolean NOT NULL GENERATED ALWAYS AS (state IN ('started', 'accepted', 'unknown')) STORED,
    SET (fillfactor = 50);
DROP INDEX attempts_one_live;
CREATE UNIQUE INDEX attempts_one_live ON attempts (message_id) WHERE is_live;

CREATE FUNCTION never_deleted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of % are never deleted: messages and attempts name them', TG_TABLE_NAME;
END $$;
CREATE TRIGGER never_deleted BEFORE DELETE OR TRUNCATE ON recipients EXECUTE FUNCTION never_deleted();
CREATE TRIGGER never_deleted BEFORE DELETE OR TRUNCATE ON addresses EXECUTE FUNCTION never_deleted();
CREATE TRIGGER never_deleted BEFORE DELETE OR TRUNCATE ON template_versions EXECUTE FUNCTION never_deleted();
CREATE TRIGGER never_deleted BEFORE DELETE OR TRUNCATE ON workers EXECUTE FUNCTION never_deleted();

-- A message of a campaign may be born with its last word.
CREATE TRIGGER outbox_message_born AFTER INSERT ON messages FOR EACH ROW
    WHEN (NEW.state NOT IN ('queued', 'claimed', 'sending') AND events_are_written())
    EXECUTE FUNCTION outbox_message();
"""


def upgrade() -> None:
    """Add campaigns."""
    op.execute(SCHEMA)
