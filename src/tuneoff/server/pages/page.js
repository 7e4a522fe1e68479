// Fetches what is on the page, now and again, and takes what the reader does to the API.

import { morph } from "./morph.js";
import { download, key, post, send } from "./send.js";
import { ask, python, stop } from "./try.js";

const BUSY_MS = 1500;
const QUIET_MS = 6000;
const FEW = 24;
const MANY = 600;
const element = (id) => document.getElementById(id);
const content = element("content");
const limits = { jobs: FEW, files: FEW, models: FEW };
const opened = new Map(); // what the reader opened and shut, by job
let asked = 0;
let timer = 0;
let shown = "";

function address() {
  const query = new URLSearchParams(limits);
  for (const [id, open] of opened) query.append(open ? "opened" : "shut", id);
  return `/page/content?${query}`;
}

async function refresh() {
  const mine = ++asked;
  clearTimeout(timer);
  let wait = QUIET_MS;
  try {
    const text = await (await send(address())).text();
    if (mine !== asked) return; // a newer one is on its way
    show(text);
    if (element("notice").dataset.lost) notice("");
    if (element("state").dataset.active === "yes") wait = BUSY_MS;
  } catch (error) {
    if (mine !== asked || error.status === 401) return;
    notice(`${error.message} Trying again …`, true);
  }
  if (!document.hidden) timer = setTimeout(refresh, wait);
}

function show(text) {
  if (text !== shown) {
    const fresh = new DOMParser().parseFromString(text, "text/html").body;
    const place = document.createElement("div");
    place.id = "content";
    place.append(...fresh.childNodes);
    morph(content, place);
    shown = text;
  }
  element("key-form").hidden = true;
  element("places").hidden = false;
  element("forget").hidden = !key.get();
  element("address").textContent = `${location.origin}/v1`;
  code();
}

function code() {
  const keyed = element("state").dataset.keys === "yes";
  const form = element("try-form");
  element("try-system").hidden = form.elements.kind.value === "text";
  element("snippet").textContent = python(form, location.origin, keyed);
}

function notice(text, lost = false) {
  const place = element("notice");
  place.textContent = text;
  place.hidden = !text;
  place.classList.toggle("problem", lost);
  if (lost) place.dataset.lost = "yes";
  else delete place.dataset.lost;
}

function askForKey() {
  clearTimeout(timer);
  asked++;
  const wrong = key.get() !== null;
  key.forget();
  shown = "";
  content.replaceChildren();
  content.removeAttribute("aria-busy");
  element("places").hidden = element("forget").hidden = true;
  notice("");
  const form = element("key-form");
  form.querySelector(".problem").textContent = wrong ? "That key is not known here." : "";
  form.hidden = false;
  form.elements.key.focus();
}

const forms = {
  async job(form) {
    const given = Object.fromEntries([...new FormData(form)].filter(([, value]) => value !== ""));
    const hyperparameters = {};
    for (const name of ["n_epochs", "batch_size", "learning_rate_multiplier"]) {
      if (name in given) hyperparameters[name] = Number(given[name]);
      delete given[name];
    }
    const method = { type: "supervised", supervised: { hyperparameters } };
    const job = await (await post("/v1/fine_tuning/jobs", { ...given, method })).json();
    opened.set(job.id, true);
    form.reset();
    element("new-job").open = false;
    return `Job ${job.id} is queued.`;
  },
  async upload(form) {
    const body = new FormData();
    body.append("purpose", "fine-tune");
    body.append("file", form.elements.file.files[0]);
    const file = await (await send("/v1/files", { method: "POST", body })).json();
    form.reset();
    await refresh();
    const select = element("job-training");
    if (select) select.value = file.id;
    return `${file.filename} is uploaded.`;
  },
  async try(form) {
    await ask(form);
    return "";
  },
};

async function submit(form) {
  const problem = form.querySelector(".problem");
  const button = form.querySelector("button.main");
  for (const field of form.elements) field.removeAttribute("aria-invalid");
  if (problem) problem.textContent = "";
  if (form.dataset.form !== "try") button.disabled = true;
  try {
    const said = await forms[form.dataset.form](form);
    if (said) notice(said);
  } catch (error) {
    if (problem) problem.textContent = error.message;
    form.elements.namedItem(error.param?.split(".").pop() ?? "")?.setAttribute?.("aria-invalid", "true");
  } finally {
    button.disabled = false;
  }
  if (form.dataset.form !== "try") refresh();
}

async function act(button) {
  const data = button.dataset;
  if (data.sure && !confirm(data.sure)) return;
  button.disabled = true;
  try {
    if (data.post) await send(data.post, { method: "POST" });
    else await send(data.delete, { method: "DELETE" });
    notice("");
  } catch (error) {
    notice(error.message);
  } finally {
    button.disabled = false;
  }
  refresh();
}

function tryModel(name) {
  const select = element("try-model");
  select.value = name;
  code();
  element("try").scrollIntoView();
  element("try-form").elements.message.focus({ preventScroll: true });
}

async function copy(button) {
  const source = element(button.dataset.copy);
  try {
    await navigator.clipboard.writeText(source.textContent);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  } catch {
    getSelection().selectAllChildren(source); // not allowed everywhere: ready to be copied by hand
  }
}

document.addEventListener("keyless", askForKey);
document.addEventListener("visibilitychange", () => document.hidden || refresh());
document.addEventListener("submit", (event) => {
  event.preventDefault();
  const form = event.target;
  if (form.id !== "key-form") return void submit(form);
  key.set(form.elements.key.value.trim());
  form.reset();
  refresh();
});
document.addEventListener("click", (event) => {
  const target = event.target.closest("button, a[download]");
  if (!target) return;
  const data = target.dataset;
  if (target.matches("a")) {
    event.preventDefault();
    download(target.getAttribute("href"), target.download).catch((e) => notice(e.message));
  } else if (target.id === "forget") {
    key.forget();
    askForKey();
  } else if (target.id === "stop") stop();
  else if (data.post || data.delete) act(target);
  else if (data.try) tryModel(data.try);
  else if (data.copy) copy(target);
  else if (data.more) {
    limits[data.more] = Math.min(MANY, limits[data.more] + FEW);
    refresh();
  }
});
document.addEventListener("input", (event) => event.target.form?.id === "try-form" && code());
document.addEventListener("keydown", (event) => {
  const form = event.target.form;
  if (form?.id === "try-form" && event.key === "Enter" && (event.ctrlKey || event.metaKey))
    form.requestSubmit();
});
document.addEventListener(
  "toggle",
  (event) => {
    const job = event.target;
    if (!job.matches("details.job") || job.open === (job.dataset.open === "yes")) return;
    opened.set(job.id, job.open);
    refresh();
  },
  true, // a toggle does not bubble
);
refresh();
