// What runs now: models with their queue, speed and memory, other servers of this root, the log of one of them.

import * as api from "../api.js";
import { el, fill, renew } from "../dom.js";
import { bytes, count, seconds, when } from "../format.js";
import { followedLog } from "../log.js";
import { stateTag } from "../model_actions.js";
import { button, empty, meter, name, section, tag, waiting } from "../widgets.js";
import { table } from "../table.js";
import { t } from "../texts.js";

export const title = "running.title";

const CHANGES = [
  ...["model_preparing", "model_loading", "model_ready", "model_failed", "model_stopping", "model_stopped"],
  ...["request_queued", "request_granted", "request_finished", "request_cancelled", "models_changed"],
];

export function show(container, context) {
  waiting(container);
  const memory = el("div", null);
  const log = el("div", null);
  const speeds = new Map();
  let ended = new AbortController();
  let asked = 0;

  const onModel = (text, row, work, options) =>
    button(t(text), () => context.attempt(work), { key: text, label: t("models.actionOn", { action: t(text), name: row.name }), ...options });

  const models = table({
    caption: t("running.caption"),
    key: (row) => row.name,
    empty: empty(t("running.none"), el("a", { class: "button", href: "#/models" }, t("running.toModels"))),
    columns: [
      { title: t("models.name"), cell: nameCell, sort: (row) => row.name },
      { title: t("models.state"), cell: stateCell, sort: (row) => row.state },
      { title: t("running.speed"), class: "number", cell: (row) => (row.tokens_per_second === null ? count(null) : t("running.rate", { rate: count(row.tokens_per_second) })), sort: (row) => row.tokens_per_second ?? -1 },
      { title: t("running.firstToken"), class: "number", cell: (row) => seconds(row.first_token_seconds), sort: (row) => row.first_token_seconds ?? -1 },
      { title: t("running.slots"), class: "number", cell: (row) => (row.slots ? t("running.ofSlots", row.slots) : count(null)) },
      { title: t("running.queue"), class: "number", cell: (row) => t("running.inQueue", { busy: row.in_flight, queued: row.queued }), sort: (row) => row.queued },
      { title: t("models.memory"), class: "number", cell: (row) => bytes(sum(row.memory)), sort: (row) => sum(row.memory) },
      { title: t("models.actions"), cell: (row) => el(
        "div",
        { class: "buttons" },
        onModel("models.stop", row, () => api.post(`/models/${api.part(row.name)}/stop`)),
        onModel("jobs.log", row, async () => showLog(row.name)),
      ) },
    ],
  });
  const servers = table({
    caption: t("running.others"),
    key: (row) => row.pid,
    columns: [
      { title: t("models.name"), cell: (row) => name(row.alias), sort: (row) => row.alias },
      { title: t("models.state"), cell: (row) => row.state },
      { title: t("running.address"), cell: (row) => row.url ?? "" },
      { title: t("running.process"), class: "number", cell: (row) => String(row.pid), sort: (row) => row.pid },
      { title: t("models.memory"), class: "number", cell: (row) => bytes(row.rss), sort: (row) => row.rss ?? 0 },
    ],
  });

  const others = section(t("running.otherServers"), servers.element);

  function showLog(model) {
    ended.abort();
    ended = new AbortController();
    const path = `/models/${api.part(model)}/log`;
    const heading = el("h2", { tabindex: -1 }, t("running.logOf"), " ", name(model));
    fill(log, heading, followedLog(path, { signal: ended.signal }));
    heading.focus();
  }

  function draw(found) {
    for (const row of found.models) {
      if (row.tokens_per_second !== null) speeds.set(row.name, row.tokens_per_second);
      else row.tokens_per_second = speeds.get(row.name) ?? null;
    }
    models.update(found.models);
    renew(memory, bars(found));
    if (found.servers) servers.update(found.servers);
    if (found.servers) others.hidden = found.servers.length === 0;
    if (!models.element.isConnected) fill(container, models.element, section(t("models.memory"), memory), others, log);
  }

  const read = () => context.attempt(async () => {
    const number = (asked += 1);
    const found = await api.get("/running", {}, context.signal);
    if (number === asked) draw(found);
  });
  context.signal.addEventListener("abort", () => ended.abort());
  context.listen(["running", ...CHANGES], (event) => {
    if (event.type !== "running") return read();
    asked += 1; // an answer that is on its way is older
    return draw({ models: event.models, available: event.available });
  });
  read();
}

const sum = (memory) => Object.values(memory).reduce((all, each) => all + each, 0);

function nameCell(row) {
  const others = row.names.filter((each) => each !== row.name);
  return [
    el("a", { href: `#/models/${api.part(row.name)}`, "data-focus": "name" }, name(row.name)),
    others.length > 0 && el("div", { class: "soft" }, t("models.alsoCalled"), " ", el("bdi", null, others.join(", "))),
  ];
}

function stateCell(row) {
  return [
    stateTag(row.state),
    row.pinned && [" ", tag(t("models.isPinned"))],
    row.expires_at !== null && el("div", { class: "soft" }, t("running.until", { when: when(row.expires_at) })),
  ];
}

/** A bar for each place of memory that models may take. */
function bars(found) {
  const places = new Set([...Object.keys(found.available), ...found.models.flatMap((row) => Object.keys(row.memory))]);
  const all = [...places].map((place) => {
    const used = found.models.reduce((total, row) => total + (row.memory[place] ?? 0), 0);
    const limit = found.available[place] ?? used;
    return meter(place, used, limit, t("running.used", { used: bytes(used), total: bytes(limit) }));
  });
  return all.length > 0 ? all : el("p", { class: "soft" }, t("running.notMeasured"));
}
