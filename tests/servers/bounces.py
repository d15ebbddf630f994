"""Bounces as mail servers write them: each form is a function that takes the refusing server's words, or none."""
# ruff: noqa: E501, RUF001  # what servers write is as long as it is, and in their languages

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable

TO = "ann@example.com"
RETURNED = b"From: Acme <hello@acme.test>\nTo: ann@example.com\nSubject: Our policy on spam, and a full mailbox\n\nUser unknown.\n"


def mail(headers: str, *parts: tuple[str, str | bytes], kind: str = "report; report-type=delivery-status") -> bytes:
    """A multipart mail of these parts, each with its content type."""
    written = [f'{headers}\nMIME-Version: 1.0\nContent-Type: multipart/{kind}; boundary="=_b"\n\n'.encode()]
    for type_, body in parts:
        text = body if isinstance(body, bytes) else body.encode()
        written.append(b"--=_b\nContent-Type: " + type_.encode() + b"\n\n" + text + b"\n")
    return b"".join([*written, b"--=_b--\n"])


def plain(headers: str, body: str, type_: str = "text/plain; charset=utf-8") -> bytes:
    return f"{headers}\nContent-Type: {type_}\n\n{body}\n".encode()


def status(action: str, status: str, diagnostic: str = "", protocol: str = "smtp") -> str:
    lines = ["Reporting-MTA: dns; mx.example.net", "", f"Final-Recipient: rfc822; {TO}", f"Action: {action}"]
    lines += [f"Status: {status}"] if status else []
    lines += [f"Diagnostic-Code: {protocol}; {diagnostic}"] if diagnostic else []
    return "\n".join(lines) + "\n"


DAEMON = "From: MAILER-DAEMON@mx.example.net (Mail Delivery System)\nSubject: Undelivered Mail Returned to Sender\nReturn-Path: <>"


def postfix(said: str, code: str = "5.0.0", action: str = "failed") -> bytes:
    note = f"This is the mail system at host mx.example.net.\n\nI'm sorry to have to inform you that your message could not\nbe delivered to one or more recipients. It's attached below.\n\nFor further assistance, please send mail to postmaster.\n\n<{TO}>: host mx.example.com[192.0.2.1] said: {said} (in reply to RCPT TO\n    command)\n"
    return mail(
        DAEMON,
        ("text/plain", note),
        ("message/delivery-status", status(action, code, said)),
        ("message/rfc822", RETURNED),
    )


def exim(said: str) -> bytes:
    note = f"This message was created automatically by mail delivery software.\n\nA message that you sent could not be delivered to one or more of its\nrecipients. This is a permanent error. The following address(es) failed:\n\n  {TO}\n    host mx.example.com [192.0.2.1]\n    SMTP error from remote mail server after RCPT TO:<{TO}>:\n    {said}\n\n------ This is a copy of the message, including all the headers. ------\n\n"
    return plain(
        "From: Mail Delivery System <Mailer-Daemon@mx.example.net>\nSubject: Mail delivery failed: returning message to sender\nX-Failed-Recipients: ann@example.com\nAuto-Submitted: auto-replied",
        note + RETURNED.decode(),
    )


def exim_dsn(said: str) -> bytes:
    note = f"This message was created automatically by mail delivery software.\n\nA message that you sent could not be delivered. This is a permanent error.\n\n  {TO}\n    {said}\n"
    return mail(
        "From: Mail Delivery System <Mailer-Daemon@mx.example.net>\nSubject: Mail delivery failed\nAuto-Submitted: auto-replied",
        ("text/plain", note),
        ("message/delivery-status", status("failed", "5.0.0", said)),
        ("message/rfc822", RETURNED),
    )


def qmail(said: str) -> bytes:
    note = f"Hi. This is the qmail-send program at example.net.\nI'm afraid I wasn't able to deliver your message to the following addresses.\nThis is a permanent error; I've given up. Sorry it didn't work out.\n\n<{TO}>:\n{said}\n\n--- Below this line is a copy of the message.\n\n"
    return plain("From: MAILER-DAEMON@example.net\nSubject: failure notice", note + RETURNED.decode())


def sendmail(said: str, code: str) -> bytes:
    note = f"The original message was received at Mon, 23 Nov 2026 10:00:00 +0100\n\n   ----- The following addresses had permanent fatal errors -----\n<{TO}>\n    (reason: {said})\n\n   ----- Transcript of session follows -----\n... while talking to mx.example.com.:\n>>> RCPT To:<{TO}>\n<<< {said}\n"
    return mail(
        "From: Mail Delivery Subsystem <MAILER-DAEMON@example.net>\nSubject: Returned mail: see transcript for details",
        ("text/plain", note),
        ("message/delivery-status", status("failed", code, said, "SMTP")),
        ("text/rfc822-headers", RETURNED),
    )


def exchange(said: str, code: str) -> bytes:
    html = f"<html><head><style>p {{ color: red }}</style></head><body><p>Delivery has failed to these recipients or groups:</p><a href='mailto:{TO}'>{TO}</a><p>Your message couldn't be delivered.</p><p>Diagnostic information for administrators:</p><p>#{said}</p></body></html>"
    return mail(
        "From: Microsoft Outlook <postmaster@example.onmicrosoft.com>\nSubject: Undeliverable: Hello\nAuto-Submitted: auto-replied\nX-MS-Exchange-Message-Is-Ndr:",
        ("text/html; charset=utf-8", html),
        ("message/delivery-status", status("failed", code, said)),
        ("message/rfc822", RETURNED),
    )


def gmail(said: str, code: str, action: str = "failed") -> bytes:
    note = (
        f"** Address not found **\n\nYour message wasn't delivered to {TO}.\n\nThe response from the remote server was:\n{said}\n"
        if code == "5.1.1"
        else f"** Message not delivered **\n\nThe response from the remote server was:\n{said}\n"
    )
    return mail(
        "From: Mail Delivery Subsystem <mailer-daemon@googlemail.com>\nSubject: Delivery Status Notification (Failure)\nAuto-Submitted: auto-replied",
        ("text/plain; charset=UTF-8", note),
        ("message/delivery-status", status(action, code, said)),
        ("message/rfc822", RETURNED),
    )


def ironport(said: str, code: str) -> bytes:
    return mail(
        "From: Mail Delivery System <MAILER-DAEMON@esa.example.net>\nSubject: Delivery Status Notification (Failure)",
        ("text/plain", f"The following message to <{TO}> was undeliverable.\nThe reason for the problem:\n{said}\n"),
        ("message/delivery-status", status("failed", code, said)),
        ("message/rfc822", RETURNED),
    )


def domino(said: str) -> bytes:
    return mail(
        "From: Mail Router <postmaster@example.net>\nSubject: DELIVERY FAILURE: " + said,
        (
            "text/plain",
            f"Your message\n\n  Subject: Our policy on spam\n\nwas not delivered to:\n\n  {TO}\n\nbecause:\n\n  {said}\n",
        ),
        ("message/delivery-status", status("failed", "5.0.0", said, "X-Notes")),
        ("message/rfc822", RETURNED),
    )


def yahoo(said: str) -> bytes:
    return plain(
        "From: MAILER-DAEMON@yahoo.com\nSubject: Failure Notice",
        f"Sorry, we were unable to deliver your message to the following address.\n\n<{TO}>:\n{said}\n\n--- Below this line is a copy of the message.\n\n"
        + RETURNED.decode(),
    )


def carrier(said: str) -> bytes:
    """A Japanese mobile carrier's, in ISO-2022-JP and base64."""
    note = f"次のあて先にメールを配信できませんでした。\n\n<{TO}>\n{said}\n"
    body = b64encode(note.encode("iso-2022-jp", "replace")).decode()
    return f"From: Mail Administrator <Postmaster@ezweb.ne.jp>\nSubject: =?ISO-2022-JP?B?{b64encode('配信エラー'.encode('iso-2022-jp')).decode()}?=\nContent-Type: text/plain; charset=ISO-2022-JP\nContent-Transfer-Encoding: base64\n\n{body}\n".encode()


def au(said: str) -> bytes:
    return plain(
        "From: Mail Administrator <Postmaster@ezweb.ne.jp>\nSubject: Mail System Error - Returned Mail",
        f"Each of the following recipients was rejected by a remote mail server.\nThe reasons given by the server are included to help you determine why\neach recipient was rejected.\n\n    Recipient: <{TO}>\n    Reason:    {said}\n",
    )


def note(said: str) -> bytes:
    """A server that writes whatever its operator liked."""
    return plain(
        "From: Postmaster <postmaster@example.net>\nSubject: Delivery failure",
        f"{said}\n\n----- Original message -----\n" + RETURNED.decode(),
    )


def web(said: str) -> bytes:
    """In HTML only."""
    return plain(
        "From: MAILER-DAEMON@example.net\nSubject: Undelivered",
        f"<p>Your message to <b>{TO}</b> could not be delivered.</p><p>{said}</p>",
        "text/html; charset=utf-8",
    )


def worldwide(said: str, code: str) -> bytes:
    """RFC 6533: fields in UTF-8."""
    fields = f"Reporting-MTA: dns; mx.example.net\n\nFinal-Recipient: utf-8; ünna@example.com\nAction: failed\nStatus: {code}\nDiagnostic-Code: smtp; {said}\n"
    return mail(
        DAEMON,
        ("text/plain; charset=utf-8", "Nicht zugestellt."),
        ("message/global-delivery-status", fields),
        ("message/global-headers", "Subject: x"),
    )


def encoded(said: str, code: str) -> bytes:
    """Fields in base64, which RFC 2046 does not allow and some servers do."""
    fields = b64encode(status("failed", code, said).encode()).decode()
    return mail(
        DAEMON,
        ("text/plain", "It was not delivered."),
        ("message/delivery-status\nContent-Transfer-Encoding: base64", fields),
    )


Form = Callable[..., bytes]

DEAD: tuple[tuple[Form, tuple[str, ...]], ...] = (
    (postfix, ("550 5.1.1 <ann@example.com>: Recipient address rejected: User unknown in virtual mailbox table", "5.1.1")),
    (postfix, ("550 5.1.1 <ann@example.com>: Recipient address rejected: User unknown in relay recipient table", "5.1.1")),
    (postfix, ("550 No such user here",)),
    (postfix, ("550-5.1.1 The email account that you tried to reach does not exist. Please try 550-5.1.1 double-checking the recipient's email address for typos or 550 5.1.1 unnecessary spaces. For more information, go to https://support.google.com/mail/?p=NoSuchUser", "5.1.1")),
    (postfix, ("550 5.2.1 The email account that you tried to reach is inactive. https://support.google.com/mail/?p=DisabledUser", "5.2.1")),
    (postfix, ("550 5.5.0 Requested action not taken: mailbox unavailable (S2017062302). [AM7EUR06FT031.eop-eur06.prod.protection.outlook.com]", "5.5.0")),
    (postfix, ("550 5.4.1 Recipient address rejected: Access denied. For more information see https://aka.ms/EXOSmtpErrors [DB5EUR01FT019.eop-EUR01.prod.protection.outlook.com] AS(201806281)", "5.4.1")),
    (postfix, ("554 delivery error: dd This user doesn't have a yahoo.com account (ann@yahoo.com) [0] - mta1.mail.yahoo.com", "5.0.0")),
    (postfix, ("554 30 Sorry, your message to ann@yahoo.com cannot be delivered. This mailbox is disabled (554.30).", "5.0.0")),
    (postfix, ("552 1 Requested mail action aborted, mailbox not found", "5.0.0")),
    (postfix, ("550 5.1.1 <ann@icloud.com>: user does not exist", "5.1.1")),
    (postfix, ("550 5.1.1 unknown or illegal alias: ann@icloud.com", "5.1.1")),
    (postfix, ("550 5.1.1 Adresse d au moins un destinataire invalide. Invalid recipient. OFR_416 [416]", "5.1.1")),
    (postfix, ("550 5.2.1 This mailbox has been blocked due to inactivity (UserSearch)", "5.2.1")),
    (postfix, ("550 5.7.1 No such user!; 1764064984-abc (in reply to RCPT TO command) mx.yandex.ru", "5.7.1")),
    (postfix, ("550 Requested action not taken: mailbox unavailable For explanation visit https://postmaster.gmx.net/en/error-messages?ip=192.0.2.1&c=hu mx00.gmx.net", "5.0.0")),
    (postfix, ("550 Invalid Recipient - https://community.mimecast.com/docs/DOC-1369#550", "5.0.0")),
    (postfix, ("556 5.1.10 <ann@example.com>: Recipient address rejected: Domain example.com does not accept mail (nullMX)", "5.1.10")),
    (postfix, ("550 Unknown user ann@docomo.ne.jp", "5.0.0")),
    (postfix, ("550 Invalid recipient: <ann@softbank.ne.jp>", "5.0.0")),
    (postfix, ("550 User not found: ann@163.com", "5.0.0")),
    (postfix, ("550 Mailbox not found. http://service.mail.qq.com/cgi-bin/help?subtype=1&&id=20022&&no=1000728", "5.0.0")),
    (postfix, ("551 5.1.1 not our customer", "5.1.1")),
    (postfix, ("550 5.1.1 Recipient address rejected: Address does not exist", "5.1.1")),
    (exim, ("550 5.1.1 <ann@example.com> User unknown; rejecting",)),
    (exim, ("550 No Such User Here",)),
    (exim, ("550 Unknown local part ann in <ann@example.com>",)),
    (exim, ("550-Callback: invalid recipient\n    550 recipient unknown",)),
    (exim_dsn, ("550 5.1.1 User does not exist - <ann@example.com>",)),
    (exim_dsn, ("550 Benutzer unbekannt",)),
    (qmail, ("Sorry, no mailbox here by that name. (#5.1.1)",)),
    (qmail, ("This address no longer accepts mail.",)),
    (qmail, ("192.0.2.1 does not like recipient.\nRemote host said: 550 5.1.1 User unknown\nGiving up on 192.0.2.1.",)),
    (sendmail, ("550 5.1.1 <ann@example.com>... User unknown", "5.1.1")),
    (sendmail, ("551 5.1.6 <ann@example.com>... User has moved; please try <ann@elsewhere.test>", "5.1.6")),
    (exchange, ("550 5.1.1 RESOLVER.ADR.RecipNotFound; not found ##", "5.1.1")),
    (exchange, ("550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup", "5.1.10")),
    (exchange, ("550 5.1.1 RESOLVER.ADR.ExRecipNotFound; not found", "5.1.1")),
    (gmail, ("550 5.1.1 The email account that you tried to reach does not exist.", "5.1.1")),
    (ironport, ("5.1.0 - Unknown address error 550-'5.1.1 <ann@example.com>: Recipient address rejected: User unknown'", "5.1.1")),
    (ironport, ('5.3.0 - Other mail system problem 550-"no such user"', "5.3.0")),
    (domino, ("User ann (ann@example.com) not listed in Domino Directory",)),
    (domino, ("User ann (ann@example.com) not listed in public Name & Address Book",)),
    (yahoo, ("Remote host said: 550 5.1.1 <ann@example.com>: Recipient address rejected: User unknown [RCPT_TO]",)),
    (yahoo, ("This user doesn't have a yahoo.com account (ann@yahoo.com) [0]",)),
    (yahoo, ("Sorry your message to ann@yahoo.com cannot be delivered. This account has been disabled or discontinued [#102].",)),
    (carrier, ("宛先のメールアドレスが見つかりません。",)),
    (carrier, ("ユーザーが存在しません",)),
    (au, ("<ann@ezweb.ne.jp>... User Unknown",)),
    (note, ("Empfänger unbekannt: das Postfach existiert nicht.",)),
    (note, ("Die Adresse ann@example.com konnte nicht gefunden werden, sie existiert nicht.",)),
    (note, ("L'adresse ann@example.com n'existe pas.",)),
    (note, ("Destinataire inconnu",)),
    (note, ("El buzón del destinatario no existe.",)),
    (note, ("Usuario desconocido",)),
    (note, ("O destinatário não existe.",)),
    (note, ("La casella del destinatario è inesistente.",)),
    (note, ("Utente sconosciuto",)),
    (note, ("Onbekende gebruiker",)),
    (note, ("Nieznany użytkownik",)),
    (note, ("Пользователь не найден",)),
    (note, ("Такого пользователя не существует",)),
    (note, ("收件人不存在",)),
    (note, ("用户不存在",)),
    (note, ("수신자를 찾을 수 없습니다",)),
    (note, ("Kullanıcı bulunamadı",)),
    (web, ("The user account does not exist.",)),
    (worldwide, ("550 5.1.1 Benutzer unbekannt", "5.1.1")),
    (encoded, ("550 5.1.1 User unknown", "5.1.1")),
)  # fmt: skip

BLAMELESS: tuple[tuple[Form, tuple[str, ...]], ...] = (
    (postfix, ("552 5.2.2 <ann@example.com>: user is over quota", "5.2.2")),
    (postfix, ("552-5.2.2 The email account that you tried to reach is over quota and inactive. https://support.google.com/mail/?p=OverQuotaPerm", "5.2.2")),
    (postfix, ("552-5.2.2 The recipient's inbox is out of storage space and inactive. Please direct the recipient to https://support.google.com/mail/?p=OverQuotaPerm", "5.2.2")),
    (postfix, ("552 5.1.1 Boite du destinataire pleine. Recipient overquota. OFR_417 [417]", "5.1.1")),
    (postfix, ("550 5.1.1 <ann@example.com> mailbox full", "5.1.1")),
    (postfix, ("550 5.2.1 The user you are trying to contact is receiving mail at a rate that prevents additional messages from being delivered.", "5.2.1")),
    (postfix, ("550-5.7.26 This mail has been blocked because the sender is unauthenticated. 550-5.7.26 Gmail requires all senders to authenticate with either SPF or DKIM.", "5.7.26")),
    (postfix, ("550-5.7.1 [192.0.2.9] Our system has detected that this message is likely unsolicited mail.", "5.7.1")),
    (postfix, ("550; 5.7.515 Access denied, sending domain acme.test does not meet the required authentication level", "5.7.515")),
    (postfix, ("550 5.7.1 Service unavailable, Client host [192.0.2.9] blocked using Spamhaus. AS(1410)", "5.7.1")),
    (postfix, ("554 5.7.1 Service unavailable; Client host [192.0.2.9] blocked using zen.spamhaus.org", "5.7.1")),
    (postfix, ("550 Requested action not taken: mailbox unavailable Reject due to policy restrictions. mx00.gmx.net", "5.0.0")),
    (postfix, ("550-Requested action not taken: mailbox unavailable 550 invalid DNS MX or A/AAAA resource record mx00.kundenserver.de", "5.0.0")),
    (postfix, ("550 5.1.1 <hello@acme.test>: Sender address rejected: unverified address", "5.1.1")),
    (postfix, ("554 5.7.9 Message not accepted for policy reasons. See https://postmaster.yahooinc.com/error-codes", "5.7.9")),
    (postfix, ("550 5.4.6 Unusual sending activity detected", "5.4.6")),
    (postfix, ("552 5.3.4 Message size exceeds fixed limit", "5.3.4")),
    (postfix, ("552-5.2.3 Your message exceeded Google's message size limits", "5.2.3")),
    (postfix, ("554 5.4.6 Too many hops", "5.4.6")),
    (postfix, ("450 4.2.2 <ann@example.com>: mailbox full", "4.2.2")),
    (postfix, ("450 4.1.1 <ann@example.com>: Recipient address rejected: User unknown in local recipient table", "4.1.1")),
    (postfix, ("451 4.7.1 Greylisted, please try again later", "4.7.1")),
    (postfix, ("554 5.7.1 <ann@example.com>: Relay access denied", "5.7.1")),
    (postfix, ("550 5.7.1 RESOLVER.RST.NotAuthorized; not authorized to send to this group", "5.7.1")),
    (postfix, ("550 spam message rejected. Please visit http://help.mail.ru/notspam-support/id?c=abc or report", "5.0.0")),
    (postfix, ("550 Rejected by header based manually Blocked Senders: ann@example.com", "5.0.0")),
    (postfix, ("553 5.1.8 <hello@acme.test>... Domain of sender address does not exist", "5.1.8")),
    (postfix, ("550 5.1.1 The group you tried to contact (ann) may not exist, or you may not have permission to post messages to the group.", "5.1.1")),
    (exim, ("552 Message size exceeds maximum permitted",)),
    (exim, ("550-rejected because 192.0.2.9 is in a black list at bl.spamcop.net",)),
    (exim, ("550 Administrative prohibition",)),
    (exim, ("retry timeout exceeded",)),
    (exim, ("mailbox is full (MTA-imposed quota exceeded while writing to file)",)),
    (exim_dsn, ("550 Verification failed for <hello@acme.test> 550 Sender verify failed",)),
    (qmail, ("Sorry, I wasn't able to establish an SMTP connection. (#4.4.1)\nI'm not going to try again; this message has been in the queue too long.",)),
    (qmail, ("The users mailfolder is over the allowed quota (size). (#5.2.2)",)),
    (qmail, ("553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)",)),
    (sendmail, ("550 5.1.1 Mail from your host was blocked for spam", "5.1.1")),
    (sendmail, ("552 5.2.2 Over quota", "5.1.1")),
    (exchange, ("554 5.2.2 mailbox full; STOREDRV.Deliver; QuotaExceededException.MapiExceptionShutoffQuotaExceeded", "5.2.2")),
    (exchange, ("550 5.2.3 RESOLVER.RST.RecipSizeLimit; message too large for this recipient", "5.2.3")),
    (exchange, ("550 5.7.1 RESOLVER.RST.AuthRequired; authentication required", "5.7.1")),
    (exchange, ("550 5.4.300 Message expired -> 451 4.4.0 no response", "5.4.300")),
    (exchange, ("550 5.4.14 Hop count exceeded - possible mail loop ATTR34", "5.4.14")),
    (gmail, ("The recipient server did not accept our requests to connect. [example.com. 192.0.2.1: timed out]", "4.4.1")),
    (ironport, ("5.1.0 - Unknown address error 550-'5.7.1 Message rejected due to content restrictions'", "5.1.0")),
    (ironport, ("5.4.7 - Delivery expired (message too old) 'timeout'", "5.4.7")),
    (domino, ("Delivery time has expired for message; Remote system no longer responding",)),
    (yahoo, ("Sorry, your message to ann@yahoo.com cannot be delivered. This account is over quota.",)),
    (carrier, ("受信者のメールボックスの容量がいっぱいです。",)),
    (au, ("552 <ann@ezweb.ne.jp>... Mailbox full",)),
    (note, ("Das Postfach des Empfängers ist voll.",)),
    (note, ("Speicherplatz des Benutzers überschritten",)),
    (note, ("La boîte du destinataire est pleine.",)),
    (note, ("El buzón del destinatario está lleno.",)),
    (note, ("A caixa de correio do destinatário está cheia.",)),
    (note, ("La casella del destinatario è piena.",)),
    (note, ("Почтовый ящик получателя переполнен",)),
    (note, ("收件人邮箱已满",)),
    (note, ("받는 사람의 메일함 용량이 초과되었습니다",)),
    (note, ("Your message was rejected because it looks like spam.",)),
    (note, ("Die Nachricht wurde aufgrund unserer Richtlinien abgelehnt.",)),
    (web, ("The mailbox is full.",)),
    (worldwide, ("552 5.2.2 Postfach voll", "5.2.2")),
    (encoded, ("552 5.2.2 mailbox full", "5.2.2")),
)  # fmt: skip

UNSURE: tuple[tuple[Form, tuple[str, ...]], ...] = (
    (postfix, ("550 Requested action not taken: mailbox unavailable",)),
    (postfix, ("550 #5.1.0 Address rejected.", "5.1.0")),
    (postfix, ("554 Transaction failed",)),
    (postfix, ("550 5.1.2 <ann@exmaple.test>: Bad destination system address", "5.1.2")),
    (exim, ("Unrouteable address",)),
    (qmail, ("Sorry, I couldn't find any host named exmaple.test. (#5.1.2)",)),
    (exchange, ("550 5.4.310 DNS domain exmaple.test does not exist [Message=InfoDomainNonexistent]", "5.4.310")),
)  # fmt: skip
