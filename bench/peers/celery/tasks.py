"""What one writes in Python: one Celery task for each mail, with a look at consent, jinja2, email.message and smtplib.

Each of the prefork processes keeps its connections, and broker and results are as cheap as they can be set. Run as a
program, it queues one task for each line of a file, before any worker runs.
"""

import json
import os
import smtplib
from email.message import EmailMessage
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import psycopg
from celery import Celery

CONSENT = """
SELECT granted FROM consents
WHERE recipient_id = %s AND scope IN (%s, 'marketing', 'all') AND channel IN ('email', 'any')
ORDER BY occurred_at DESC, number DESC LIMIT 1
"""

app = Celery("bench", broker=f"redis+socket://{os.environ['VALKEY_SOCKET']}?virtual_host=1")
app.conf.update(task_ignore_result=True, worker_prefetch_multiplier=50, broker_pool_limit=1)


@cache
def database() -> psycopg.Connection[Any]:
    return psycopg.connect(os.environ["DATABASE_URL"], autocommit=True)


@cache
def relay() -> smtplib.SMTP:
    return smtplib.SMTP("127.0.0.1", int(os.environ["SMTP_PORT"]))


@cache
def templates() -> dict[str, jinja2.Template]:
    body = json.loads(Path(os.environ["BODY"]).read_text())
    return {
        part: jinja2.Environment(autoescape=part == "html", keep_trailing_newline=True).from_string(source)
        for part, source in body.items()
    }


def deliver(recipient: str, to: str, values: dict[str, Any]) -> None:
    said = database().execute(CONSENT, (recipient, os.environ["SCOPE"])).fetchone()
    if said is None or not said[0]:
        return
    body = {part: template.render(values) for part, template in templates().items()}
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "Acme <hello@acme.test>", to, body["subject"]
    mail["List-Unsubscribe"] = f"<{values['unsubscribe_url']}>"
    mail["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    mail.set_content(body["text"])
    mail.add_alternative(body["html"], subtype="html")
    relay().send_message(mail)


task = app.task(name="deliver")(deliver)

if __name__ == "__main__":
    for line in Path(os.environ["JOBS"]).read_text().splitlines():
        task.delay(**json.loads(line))
