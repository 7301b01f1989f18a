// Requests to the gateway. An error has the message and the hint that the gateway gives.

import { t } from "./texts.js";

const PREFIX = "/api/v1";

export class ApiError extends Error {
  constructor(status, found) {
    super(found?.message ?? t("api.failed", { status }));
    this.status = status;
    this.type = found?.type ?? "unknown";
    this.hint = found?.hint ?? null;
    this.field = found?.field ?? null;
    this.log = found?.log ?? [];
  }
}

let signedOut = () => {};

/** Call a function when the gateway wants a key. */
export function onSignedOut(handler) {
  signedOut = handler;
}

/** Send a request and return the answer of `fetch`; `ApiError`. `body` is sent as JSON. */
export async function send(method, path, { query, body, signal } = {}) {
  const words = new URLSearchParams();
  for (const [name, value] of Object.entries(query ?? {})) {
    if (value !== null && value !== undefined && value !== "") words.set(name, value);
  }
  const changes = method === "POST" || method === "PUT";
  let answer;
  try {
    answer = await fetch(words.size ? `${path}?${words}` : path, {
      method,
      signal,
      headers: changes ? { "Content-Type": "application/json" } : {},
      body: changes ? JSON.stringify(body ?? {}) : undefined,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, { type: "unreachable", message: t("api.unreachable"), hint: t("api.unreachableHint") });
  }
  if (answer.ok) return answer;
  const found = await answer.json().catch(() => null);
  if (answer.status === 401 && path !== "/ui/session") signedOut();
  throw new ApiError(answer.status, typeof found?.error === "string" ? { message: found.error } : found?.error);
}

async function json(method, path, options) {
  return (await send(method, path, options)).json();
}

// Of the management API: paths without its prefix.
export const get = (path, query, signal) => json("GET", PREFIX + path, { query, signal });
export const post = (path, body) => json("POST", PREFIX + path, { body });
export const put = (path, body) => json("PUT", PREFIX + path, { body });
export const remove = (path, query) => json("DELETE", PREFIX + path, { query });

/** The part of a path that a name stands in. */
export const part = (name) => encodeURIComponent(name);

// Of signing in.
export const session = () => json("GET", "/ui/session");
export const signIn = (key) => json("POST", "/ui/session", { body: { key } });
export const signOut = () => json("DELETE", "/ui/session");
