// One worker process: for each job a look at consent, three handlebars templates, and a mail over a kept connection.
import { readFileSync } from "node:fs";
import { Worker } from "bullmq";
import handlebars from "handlebars";
import nodemailer from "nodemailer";
import pg from "pg";

const AT_ONCE = 50;
const CONSENT = `SELECT granted FROM consents
  WHERE recipient_id = $1 AND scope IN ($2, 'marketing', 'all') AND channel IN ('email', 'any')
  ORDER BY occurred_at DESC, number DESC LIMIT 1`;

const body = JSON.parse(readFileSync(process.env.BODY, "utf8"));
const subject = handlebars.compile(body.subject, { noEscape: true });
const html = handlebars.compile(body.html);
const text = handlebars.compile(body.text, { noEscape: true });
const database = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: 20 });
const relay = nodemailer.createTransport({
  host: "127.0.0.1", port: Number(process.env.SMTP_PORT), secure: false, ignoreTLS: true,
  pool: true, maxConnections: 20, maxMessages: Infinity,
});

async function send({ data: { recipient, to, values } }) {
  const said = await database.query({ name: "consent", text: CONSENT, values: [recipient, process.env.SCOPE] });
  if (!said.rows[0]?.granted) return;
  await relay.sendMail({
    from: "Acme <hello@acme.test>", to, subject: subject(values), html: html(values), text: text(values),
    headers: {
      "List-Unsubscribe": `<${values.unsubscribe_url}>`,
      "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
    },
  });
}

const worker = new Worker("mails", send, { connection: { path: process.env.VALKEY_SOCKET }, concurrency: AT_ONCE });
worker.on("failed", (_job, error) => console.error(error.message));
worker.on("error", (error) => console.error(error.message));
