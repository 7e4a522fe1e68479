// The box to try a model: asks, shows the answer as it streams in, and the same as Python code.

import { post } from "./send.js";

const element = (id) => document.getElementById(id);
let running = null;

export function asked(form) {
  const value = (name) => form.elements[name].value;
  const body = {
    model: value("model"),
    temperature: Number(value("temperature")),
    max_tokens: Number(value("max_tokens")),
  };
  if (value("kind") === "text") return ["/v1/completions", { ...body, prompt: value("message") }];
  const messages = [{ role: "user", content: value("message") }];
  if (value("system")) messages.unshift({ role: "system", content: value("system") });
  return ["/v1/chat/completions", { ...body, messages }];
}

export async function ask(form) {
  running?.abort();
  const mine = (running = new AbortController());
  const [path, body] = asked(form);
  const began = performance.now();
  const seconds = () => `${((performance.now() - began) / 1000).toFixed(1)} s`;
  let usage = null;
  let end = null;
  element("answer").textContent = "";
  element("try-problem").textContent = "";
  element("counts").textContent = "waiting for the first token …";
  element("stop").disabled = false;
  try {
    const options = { stream: true, stream_options: { include_usage: true } };
    const response = await post(path, { ...body, ...options }, { signal: mine.signal });
    for await (const event of events(response)) {
      if (event.error) throw new Error(event.error.message);
      usage = event.usage ?? usage;
      const choice = event.choices[0];
      end = choice?.finish_reason ?? end;
      const text = choice?.delta?.content ?? choice?.text;
      if (!text) continue;
      element("answer").append(text);
      element("counts").textContent = "answering …";
    }
    element("counts").textContent = counts(usage, end, seconds());
  } catch (error) {
    if (running !== mine) return; // another was asked meanwhile
    element("counts").textContent = error.name === "AbortError" ? `stopped after ${seconds()}` : "";
    if (error.name !== "AbortError") element("try-problem").textContent = error.message;
  } finally {
    if (running === mine) element("stop").disabled = true;
  }
}

export function stop() {
  running?.abort();
}

function counts(usage, end, seconds) {
  const words = [`${usage.prompt_tokens} tokens in, ${usage.completion_tokens} out, ${seconds}`];
  if (end === "length") words.push("cut at max tokens");
  return words.join("; ");
}

// The values of a stream of server-sent events.
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const data = part.replace(/^data: /, "");
      if (data !== "[DONE]") yield JSON.parse(data);
    }
  }
}

// What the form asks, as a program for the official SDK. A JSON string is a Python string.
export function python(form, origin, keyed) {
  const [path, body] = asked(form);
  const chat = path.endsWith("chat/completions");
  const text = (value) => JSON.stringify(value);
  const content = chat
    ? `    messages=[\n${body.messages
        .map((turn) => `        {"role": ${text(turn.role)}, "content": ${text(turn.content)}},\n`)
        .join("")}    ],\n`
    : `    prompt=${text(body.prompt)},\n`;
  return [
    keyed ? "import os\n\n" : "",
    "from openai import OpenAI\n\n",
    `client = OpenAI(base_url=${text(`${origin}/v1`)}, `,
    `api_key=${keyed ? 'os.environ["TUNEOFF_API_KEY"]' : '"any"'})\n`,
    `answer = client.${chat ? "chat.completions" : "completions"}.create(\n`,
    `    model=${text(body.model)},\n${content}`,
    `    temperature=${body.temperature},\n    max_tokens=${body.max_tokens},\n)\n`,
    `print(answer.choices[0].${chat ? "message.content" : "text"})\n`,
  ].join("");
}
