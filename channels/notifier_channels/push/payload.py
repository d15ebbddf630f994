"""Push, before it leaves: how large a message is, what cannot be sent at all, and what FCM is told of the rest.

One message becomes the same thing on every platform (FCM v1, `projects.messages`, read in November 2026):

- The link is the data key `link`, which FCM hands to the app on each platform: as an extra of the launched activity on
  Android, beside `aps` on iOS, in `data` on the web, where an https link also opens by itself. It is no Android
  `click_action`: that names an intent, and a tap would open nothing at all in an app that has no filter for our URL.
- One lifetime, from `expires_at`: Android's `ttl`, `apns-expiration` (an instant) and web push's `TTL` (RFC 8030 5.2).
- A repeat replaces what it repeats: by the message's id as Android's notification `tag`, `apns-collapse-id` and web
  push's `Topic` (RFC 8030 5.4: at most 32 characters of base64url) and `tag`. It is no Android `collapse_key`: for a
  device that is offline FCM keeps only four of them, and with a key for each message the fifth would push out another.
- Urgent means HIGH on Android, 10 in `apns-priority` and `Urgency: high` (RFC 8030 5.3), else each one's normal.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from notifier_channels.addresses import Device, DeviceKind
from notifier_channels.contract import Outgoing, PushContent, Rejected

if TYPE_CHECKING:
    from firebase_admin import messaging

MOST_BYTES = 4096  #: FCM's limit for what reaches a device
LONGEST_LIFE = timedelta(days=28)  #: FCM keeps nothing for longer
LINK = "link"  #: the data key that carries `PushContent.link`
_TAG = "0" * 32  #: stands for the message's id while bytes are counted
_RESERVED = ("from", "message_type")
_RESERVED_PREFIXES = ("google.", "gcm.")


def payload_bytes(content: PushContent) -> int:
    """How many of the `MOST_BYTES` it takes, in its largest form: what a browser gets, where the link stands twice."""
    return len(_shown(content).encode("utf-8", "surrogatepass"))


def refusal(content: PushContent) -> Rejected | None:
    """Why it cannot be sent at all; None when it can. Anything that the SDK would stumble over is caught here."""
    if not all(isinstance(text, str) for text in _texts(content)):
        return Rejected("not_text", "title, body, link, image and all data must be text")
    if any(_is_reserved(key) for key in content.data):
        return Rejected("reserved_data_key", "a data key is one of FCM's own: from, message_type, google.*, gcm.*")
    if content.link is not None and LINK in content.data:
        return Rejected("reserved_data_key", "the data key `link` carries the link, so data must not have its own")
    try:
        size = len(_shown(content).encode())
    except UnicodeEncodeError:
        return Rejected("not_unicode", "a text holds half of a surrogate pair")
    if size > MOST_BYTES:
        return Rejected("payload_too_large", f"{size} bytes; FCM takes {MOST_BYTES}")
    return None


def message_of(outgoing: Outgoing[PushContent], now: datetime) -> messaging.Message:
    """What the SDK sends. The content must have passed `refusal`."""
    from firebase_admin import messaging

    content, device = outgoing.content, outgoing.to
    if not isinstance(device, Device):
        raise TypeError("a push goes to a device")
    lifetime = max(timedelta(0), min(outgoing.expires_at - now, LONGEST_LIFE))
    seconds = int(lifetime.total_seconds())
    tag = outgoing.id.hex
    message = messaging.Message(
        notification=messaging.Notification(title=content.title, body=content.body, image=content.image),
        data=_data(content),
        android=messaging.AndroidConfig(
            priority="high" if content.is_urgent else "normal",
            ttl=timedelta(seconds=seconds),
            notification=messaging.AndroidNotification(tag=tag),
        ),
        apns=messaging.APNSConfig(
            headers={
                "apns-push-type": "alert",
                "apns-priority": "10" if content.is_urgent else "5",
                "apns-expiration": str(int(now.timestamp()) + seconds),
                "apns-collapse-id": tag,
            },
            payload=_apns_payload(content) if content.image else None,
        ),
        webpush=messaging.WebpushConfig(
            headers={"TTL": str(seconds), "Urgency": "high" if content.is_urgent else "normal", "Topic": tag},
            notification=messaging.WebpushNotification(tag=tag),
            fcm_options=messaging.WebpushFCMOptions(link=content.link) if _opens_by_itself(content.link) else None,
        ),
    )
    # Set here and not above: given to the constructor, a token is warned of as deprecated, and to silence a warning
    # means to change filters that the whole process shares.
    setattr(message, "fid" if device.kind is DeviceKind.FID else "token", device.value)
    return message


def _apns_payload(content: PushContent) -> messaging.APNSPayload:
    """An image is fetched by the app's own extension, which iOS wakes only for a mutable notification."""
    from firebase_admin import messaging

    alert = messaging.ApsAlert(title=content.title, body=content.body)
    return messaging.APNSPayload(messaging.Aps(alert=alert, mutable_content=True))


def _shown(content: PushContent) -> str:
    notification = {"title": content.title, "body": content.body, "tag": _TAG}
    if content.image is not None:
        notification["image"] = content.image
    whole: dict[str, object] = {"notification": notification, "data": _data(content)}
    if _opens_by_itself(content.link):
        whole["fcmOptions"] = {"link": content.link}
    return json.dumps(whole, ensure_ascii=False, separators=(",", ":"))


def _data(content: PushContent) -> dict[str, str]:
    return {**content.data, LINK: content.link} if content.link is not None else dict(content.data)


def _texts(content: PushContent) -> Iterable[object]:
    yield from (content.title, content.body)
    yield from (text for text in (content.link, content.image) if text is not None)
    yield from content.data
    yield from content.data.values()


def _is_reserved(key: str) -> bool:
    return key in _RESERVED or key.startswith(_RESERVED_PREFIXES)


def _opens_by_itself(link: str | None) -> bool:
    """Browsers are told only of https links; the SDK refuses others."""
    return link is not None and link.startswith("https://")
