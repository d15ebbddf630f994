"""Mail that comes back to one of our own addresses, read without touching anything: bounces, complaints, refusals."""

from notifier_channels.email.inbound.report import Bounce, Complaint, Nothing, Why, read_report, references
from notifier_channels.email.inbound.verdict import Fault, Verdict, judge
from notifier_channels.email.inbound.wish import Wish, read_wish

__all__ = [
    "Bounce",
    "Complaint",
    "Fault",
    "Nothing",
    "Verdict",
    "Why",
    "Wish",
    "judge",
    "read_report",
    "read_wish",
    "references",
]
