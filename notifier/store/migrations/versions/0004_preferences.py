"""Double opt-in, the basis of a yes, and suppressions that stop marketing only."""

from alembic import op

revision = "0004"
down_revision = "0003"

SCHEMA = """
-- Each time a person was asked whether it was really them. Remembers what was asked, so that a link works once, and how
-- often somebody was asked, so that nobody is asked too often. Written under the recipient's lock.
CREATE TABLE confirmations (
    id            uuid PRIMARY KEY,
    recipient_id  uuid NOT NULL REFERENCES recipients,
    topic         text NOT NULL,
    channel       text NOT NULL CHECK (channel IN ('email', 'sms')),
    address_hash  bytea NOT NULL,     -- the address that was asked, under the key that was current
    requested_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at    timestamptz NOT NULL,
    evidence      jsonb NOT NULL DEFAULT '{}',  -- of the asking: by whom, and which wording the person had read
    confirmed_at  timestamptz,
    number        bigint,             -- the ledger's line that came of it
    CHECK ((confirmed_at IS NULL) = (number IS NULL))
);
CREATE INDEX confirmations_recipient ON confirmations (recipient_id, requested_at);
CREATE INDEX confirmations_address ON confirmations (address_hash, requested_at);
CREATE INDEX confirmations_unconfirmed ON confirmations (expires_at) WHERE number IS NULL;

-- A no is told to whoever has a message in hand, by the ids from before an adoption, too.
CREATE INDEX recipients_merged_into ON recipients (merged_into) WHERE merged_into IS NOT NULL;

ALTER TABLE suppressions ADD COLUMN blocks text NOT NULL DEFAULT 'all' CHECK (blocks IN ('all', 'marketing'));
UPDATE suppressions SET blocks = 'marketing' WHERE reason IN ('complaint');
ALTER TABLE suppressions ADD CHECK (reason IN ('manual') OR (blocks = 'marketing') = (reason IN ('complaint')));

-- A basis is one of those that the code knows, and an implied one ends. Lines of before stay as they were written.
ALTER TABLE consent_events
    ADD CONSTRAINT consent_events_basis CHECK (
        NOT evidence ? 'basis' OR NOT granted OR coalesce(
            evidence ->> 'basis' IN ('express', 'implied_purchase', 'implied_inquiry', 'soft_opt_in')
            AND (evidence ->> 'basis' NOT LIKE 'implied%' OR expires_at IS NOT NULL), false)
    ) NOT VALID;
"""


def upgrade() -> None:
    """Add what preferences need."""
    op.execute(SCHEMA)
