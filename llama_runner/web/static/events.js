// The events of the gateway: one stream for the whole page, also over restarts of the gateway.

// A hidden tab closes its stream, as browsers allow six connections to a server, and goes on where it was.

export const TYPES = [
  ...["request_queued", "request_cancelled", "request_finished", "request_granted", "request_refused"],
  ...["model_preparing", "model_prepared", "model_loading", "model_ready", "model_failed", "model_stopping"],
  ...["model_stopped", "model_unloading", "memory_measured", "gateway_closing", "gateway_closed"],
  ...["models_changed", "job", "job_removed", "running", "machine"],
  ...["config_changed", "programs_changed", "sessions_changed", "reset"],
];
const LONGEST_WAIT_MS = 15000;
const MOST_KEPT = 1000;
const NOT_KEPT = new Set(["running", "machine", "memory_measured", "reset"]);

const listeners = new Set();
const watchers = new Set();
let source = null;
let timer = null;
let lastId = "";
let attempts = 0;
let state = "closed";
let wanted = false;
let refused = () => Promise.resolve(true);
let latest = [];
let counted = 0;
const states = new Map();

function change(to) {
  if (state === to) return;
  state = to;
  for (const watcher of [...watchers]) watcher(state);
}

/** The latest events that tell of something, the oldest first, each with a `number`. */
export const kept = () => latest;

function keep(event) {
  if (NOT_KEPT.has(event.type)) return;
  const { type, time, model, file, error, job } = event;
  if (type === "job_removed") states.delete(event.id);
  if (type === "job") {
    if (states.get(job.id) === job.state) return;
    states.set(job.id, job.state);
  }
  counted += 1;
  const about = { number: counted, type, time, model, file, error, job: job && { name: job.name, state: job.state } };
  latest = [...latest.slice(1 - MOST_KEPT), about];
}

function tell(event) {
  keep(event);
  for (const listener of [...listeners]) {
    if (!listener.types || event.type === "reset" || listener.types.has(event.type)) listener.handler(event);
  }
}

function receive(message) {
  lastId = message.lastEventId || lastId;
  tell(JSON.parse(message.data));
}

function open() {
  clearTimeout(timer);
  source?.close();
  source = new EventSource(`/api/v1/events${lastId ? `?last_event_id=${encodeURIComponent(lastId)}` : ""}`);
  source.addEventListener("open", () => {
    attempts = 0;
    const before = state;
    change("open");
    if (before === "lost" && !lastId) tell({ type: "reset", missed: null });
  });
  source.addEventListener("error", () => {
    change("lost");
    if (source.readyState === EventSource.CLOSED) again();
  });
  for (const type of TYPES) source.addEventListener(type, receive);
}

/** Try again, later each time. `refused` says whether it is of use: not without a key. */
function again() {
  clearTimeout(timer);
  const wait = Math.min(LONGEST_WAIT_MS, 500 * 2 ** attempts);
  attempts += 1;
  timer = setTimeout(async () => {
    if (wanted && !document.hidden && (await refused())) open();
  }, wait);
}

function onVisibility() {
  if (!wanted) return;
  if (document.hidden) {
    clearTimeout(timer);
    source?.close();
  } else {
    open();
  }
}

/** Begin. `check` is asked before each new attempt and returns whether to make it. */
export function start(check) {
  refused = check;
  if (wanted) return;
  wanted = true;
  document.addEventListener("visibilitychange", onVisibility);
  if (!document.hidden) open();
}

/** End. */
export function stop() {
  wanted = false;
  clearTimeout(timer);
  source?.close();
  document.removeEventListener("visibilitychange", onVisibility);
  change("closed");
}

/** Call `handler` with each event of these types, and with `reset`, after which the state has to be read again. */
export function listen(types, handler) {
  const listener = { types: types ? new Set(types) : null, handler };
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** Call `watcher` with "open", "lost" or "closed", now and at each change. */
export function watch(watcher) {
  watchers.add(watcher);
  watcher(state);
  return () => watchers.delete(watcher);
}
