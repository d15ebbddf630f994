"""Frequency caps: what somebody was sent lately is counted under their lock, however long their history is."""

from alembic import op

revision = "0003"
down_revision = "0002"

SCHEMA = """
-- An attempt at an instant belongs to a message that expires after it, so that this index finds the candidates of any
-- window. Neither column changes in a message's life, and an adoption moves the messages with their counts.
CREATE INDEX messages_marketing ON messages (recipient_id, expires_at) WHERE category = 'marketing';
"""


def upgrade() -> None:
    """Add the index."""
    op.execute(SCHEMA)
