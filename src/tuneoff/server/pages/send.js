// Requests to this server, with the key where there is one. The key stays in this tab.

const KEY = "tuneoff-key";

export const key = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

export class Refused extends Error {
  constructor(status, message, param) {
    super(message);
    this.status = status;
    this.param = param;
  }
}

// The answer to a request; an answer that is not 2xx is thrown as Refused, in the server's words.
export async function send(path, options = {}) {
  const headers = { ...options.headers };
  if (key.get()) headers.Authorization = `Bearer ${key.get()}`;
  let response;
  try {
    response = await fetch(path, { cache: "no-store", ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The server does not answer.");
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  const said = body.error ?? {};
  const refused = new Refused(response.status, said.message ?? response.statusText, said.param);
  if (refused.status === 401) document.dispatchEvent(new CustomEvent("keyless"));
  throw refused;
}

export function post(path, body, options = {}) {
  const headers = { "Content-Type": "application/json" };
  return send(path, { ...options, method: "POST", headers, body: JSON.stringify(body) });
}

// A file, with the key: a plain link could not bring it.
export async function download(path, name) {
  const address = URL.createObjectURL(await (await send(path)).blob());
  const link = Object.assign(document.createElement("a"), { href: address, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}
