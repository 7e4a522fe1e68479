// The hosted fine-tuning flow by the official JavaScript SDK, with only the address and the key
// changed: node flow.mjs BASE_URL KEY TRAIN VALIDATION BASE
import assert from "node:assert/strict";
import fs from "node:fs";
import OpenAI, { NotFoundError, AuthenticationError } from "openai";

const [baseURL, apiKey, train, validation, base] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

const upload = (path) =>
  client.files.create({ file: fs.createReadStream(path), purpose: "fine-tune" });
const trainFile = await upload(train);
const validationFile = await upload(validation);
assert.equal(trainFile.bytes, fs.statSync(train).size);
assert.equal(trainFile.filename, "train.jsonl");

let job = await client.fineTuning.jobs.create({
  model: base,
  training_file: trainFile.id,
  validation_file: validationFile.id,
  method: {
    type: "supervised",
    supervised: { hyperparameters: { n_epochs: 1, batch_size: 4 } },
  },
  suffix: "js",
  seed: 3,
  metadata: { sdk: "js" },
});
assert.ok(["queued", "running"].includes(job.status), job.status);
while (!["succeeded", "failed", "cancelled"].includes(job.status)) {
  await sleep(500);
  job = await client.fineTuning.jobs.retrieve(job.id);
}
assert.equal(job.status, "succeeded", JSON.stringify(job.error));
assert.ok(job.fine_tuned_model.startsWith(`ft:${base}:local:js:`));
assert.ok(job.trained_tokens > 0);

// Pages of two: the SDK asks for the next ones by itself.
const events = [];
for await (const event of client.fineTuning.jobs.listEvents(job.id, { limit: 2 })) {
  events.push(event);
}
assert.equal(new Set(events.map((event) => event.id)).size, events.length);
assert.ok(events.length > 4);
assert.equal(events[0].message, "The job has successfully completed");
assert.equal(events.at(-1).message, `Created fine-tuning job: ${job.id}`);

const jobs = [];
for await (const each of client.fineTuning.jobs.list({ metadata: { sdk: "js" } })) {
  jobs.push(each.id);
}
assert.deepEqual(jobs, [job.id]);

const checkpoints = [];
for await (const each of client.fineTuning.jobs.checkpoints.list(job.id)) {
  checkpoints.push(each);
}
assert.ok(checkpoints.length >= 1);
assert.equal(checkpoints[0].fine_tuning_job_id, job.id);

const csv = await (await client.files.content(job.result_files[0])).text();
const [head, ...rows] = csv.trim().split("\n");
assert.equal(head, "step,train_loss,valid_loss");
assert.equal(rows.at(-1).split(",")[0], "3"); // 12 examples in batches of 4
assert.ok(Number(rows.at(-1).split(",")[2]) > 0);

const model = job.fine_tuned_model;
const messages = [{ role: "user", content: "Is 3 a number?" }];
const asked = { model, messages, temperature: 0, max_tokens: 8 };
const answer = await client.chat.completions.create(asked);
assert.equal(answer.choices.length, 1);
assert.ok(answer.usage.completion_tokens > 0);

let streamed = "";
let usage = null;
const stream = await client.chat.completions.create({
  ...asked,
  stream: true,
  stream_options: { include_usage: true },
});
for await (const chunk of stream) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
  usage = chunk.usage ?? usage;
}
assert.equal(streamed, answer.choices[0].message.content);
assert.deepEqual(usage, answer.usage);

const names = [];
for await (const each of client.models.list()) names.push(each.id);
assert.ok(names.includes(model) && names.includes(base));
assert.equal((await client.models.delete(model)).deleted, true);
assert.equal((await client.files.delete(trainFile.id)).deleted, true);

const missing = await client.models.retrieve(model).catch((error) => error);
assert.ok(missing instanceof NotFoundError);
assert.deepEqual(
  [missing.status, missing.type, missing.param, missing.code],
  [404, "invalid_request_error", "model", "model_not_found"],
);
const stranger = new OpenAI({ baseURL, apiKey: "wrong", maxRetries: 0 });
const refused = await stranger.models.list().catch((error) => error);
assert.ok(refused instanceof AuthenticationError);
assert.equal(refused.code, "invalid_api_key");

console.log(JSON.stringify({ events: events.length, rows: rows.length, streamed }));
