"""What product code calls: hands notifications to the service, safely repeated, and reads back what became of them.

    from notifier.client import Notifier

    with Notifier("https://notifier.internal", "nk_...") as notifier:
        accepted = notifier.send("password-reset", to={"email": "ann@example.com"}, data={...})

`AsyncNotifier` is the same with `await`. Both only carry bytes: what is asked, what an answer means and when to ask
again is decided once, in `calls` and `again`.
"""

from notifier.client.answers import (
    Accepted,
    AudienceCount,
    BadLine,
    Campaign,
    CampaignPlan,
    CampaignTest,
    Cancelled,
    Device,
    Event,
    Happening,
    Imported,
    ListReport,
    MessageRecord,
    MessageRef,
    MessageState,
    NotificationRecord,
    Person,
    Recipient,
    RecipientRef,
    TooLate,
    UnreadableLine,
    UploadedList,
)
from notifier.client.calls import (
    CampaignFields,
    DeviceFields,
    EditFields,
    Json,
    Notification,
    Options,
    RecipientFields,
)
from notifier.client.client import (
    TRIES,
    AsyncNotifier,
    Notifier,
)
from notifier.client.errors import (
    FieldError,
    Forged,
    NotifierError,
    Problem,
    Refused,
    Unreachable,
)
from notifier.client.webhooks import verify_webhook

__all__ = [
    "TRIES",
    "Accepted",
    "AsyncNotifier",
    "AudienceCount",
    "BadLine",
    "Campaign",
    "CampaignFields",
    "CampaignPlan",
    "CampaignTest",
    "Cancelled",
    "Device",
    "DeviceFields",
    "EditFields",
    "Event",
    "FieldError",
    "Forged",
    "Happening",
    "Imported",
    "Json",
    "ListReport",
    "MessageRecord",
    "MessageRef",
    "MessageState",
    "Notification",
    "NotificationRecord",
    "Notifier",
    "NotifierError",
    "Options",
    "Person",
    "Problem",
    "Recipient",
    "RecipientFields",
    "RecipientRef",
    "Refused",
    "TooLate",
    "Unreachable",
    "UnreadableLine",
    "UploadedList",
    "verify_webhook",
]
