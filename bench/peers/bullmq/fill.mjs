// Queues one job for each line of a file, in bulk, before any worker runs.
import { readFileSync } from "node:fs";
import { Queue } from "bullmq";

const queue = new Queue("mails", { connection: { path: process.env.VALKEY_SOCKET } });
const jobs = readFileSync(process.env.JOBS, "utf8").trimEnd().split("\n");
for (let start = 0; start < jobs.length; start += 500) {
  const some = jobs.slice(start, start + 500);
  await queue.addBulk(some.map((line) => ({
    name: "mail", data: JSON.parse(line), opts: { removeOnComplete: true, removeOnFail: true },
  })));
}
await queue.close();
