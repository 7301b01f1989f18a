// LoRA adapters that are served, and the sessions on disk.

import * as api from "../api.js";
import { confirm } from "../dialog.js";
import { el, fill, renew } from "../dom.js";
import { follow } from "../refresh_on_events.js";
import { bytes, count, when } from "../format.js";
import { jobList } from "../job_card.js";
import { stateTag } from "../model_actions.js";
import { button, empty, field, name, notify, problem, section, tag, waiting } from "../widgets.js";
import { table } from "../table.js";
import { t } from "../texts.js";

export const title = "adapters.title";

const DAY_S = 86400;

export function show(container, context) {
  waiting(container);
  const total = el("p", { class: "soft" });
  const opened = el("div", null);
  const adapters = table({
    caption: t("adapters.caption"),
    key: (row) => row.name,
    empty: empty(t("adapters.none"), el("a", { class: "button", href: "#/configuration" }, t("adapters.toConfiguration"))),
    columns: [
      { title: t("models.name"), cell: (row) => name(row.name), sort: (row) => row.name },
      { title: t("adapters.path"), cell: whereCell, sort: (row) => row.path },
      { title: t("adapters.scale"), class: "number", cell: (row) => count(row.scale), sort: (row) => row.scale },
      { title: t("discover.size"), class: "number", cell: (row) => row.bytes !== null && bytes(row.bytes), sort: (row) => row.bytes ?? -1 },
      { title: t("models.state"), cell: adapterState, sort: (row) => row.state },
      { title: t("models.actions"), cell: adapterButtons },
    ],
  });
  const trained = table({
    caption: t("adapters.trained"),
    key: (row) => row.name,
    empty: empty(t("adapters.noneTrained")),
    columns: [
      { title: t("models.name"), cell: (row) => name(row.name), sort: (row) => row.name },
      { title: t("machine.version"), cell: (row) => t("adapters.versions", { version: row.version, count: row.versions }) },
      { title: t("adapters.base"), cell: (row) => name(row.base), sort: (row) => row.base },
      { title: t("programs.made"), cell: (row) => when(row.made), sort: (row) => row.made },
      { title: t("discover.size"), class: "number", cell: sizeOf, sort: (row) => row.bytes ?? -1 },
      { title: t("adapters.servedAs"), cell: (row) => (row.served_as.length > 0 ? name(row.served_as.join(", ")) : tag(t("adapters.notDeclared"))) },
    ],
  });
  const damaged = el("div", null);
  const downloads = jobList(context, (job) => job.state !== "done" && job.kind === "prepare");
  const sessions = table({
    caption: t("sessions.caption"),
    key: (row) => row.session,
    empty: empty(t("sessions.none")),
    columns: [
      { title: t("models.name"), cell: (row) => name(titleOf(row)), sort: titleOf },
      { title: t("sessions.client"), cell: (row) => el("bdi", null, row.client), sort: (row) => row.client },
      { title: t("sessions.models"), cell: modelsOf, sort: (row) => row.states[0]?.model ?? "" },
      { title: t("discover.size"), class: "number", cell: (row) => bytes(row.bytes), sort: (row) => row.bytes },
      { title: t("models.lastUsed"), cell: (row) => when(row.used), sort: (row) => row.used },
      { title: t("models.actions"), cell: actions },
    ],
  });

  const act = (key, about, work, options) =>
    button(t(key), () => context.attempt(work), { key, label: t("models.actionOn", { action: t(key), name: about }), ...options });

  /** What can be done with an adapter: what is missing is downloaded, or another one is named. */
  function adapterButtons({ name: wanted, base, origin, bytes: here, problem: why }) {
    const link = (key, href) =>
      el("a", { class: "button", href, "aria-label": t("models.actionOn", { action: t(key), name: wanted }), "data-focus": key }, t(key));
    const download = () => api.post(`/models/${api.part(wanted)}/prepare`);
    return el(
      "div",
      { class: "buttons" },
      here === null && (origin === "hub" ? act("models.download", wanted, download, { kind: "primary" }) : link("adapters.change", `#/configuration/models/${api.part(base)}`)),
      why && act("models.stop", base, () => api.post(`/models/${api.part(base)}/stop`)),
      here !== null && !why && link("models.chat", `#/chat/${api.part(wanted)}`),
    );
  }

  function actions(row) {
    const label = t("models.actionOn", { action: t("sessions.export"), name: titleOf(row) });
    return el(
      "div",
      { class: "buttons" },
      act("sessions.show", titleOf(row), () => showSession(row)),
      el("a", { class: "button", href: `/api/v1/sessions/${row.session}/export`, download: `${row.session}.json`, "aria-label": label, "data-focus": "export" }, t("sessions.export")),
      act("sessions.remove", titleOf(row), () => remove(row), { kind: "danger" }),
    );
  }

  async function showSession(row) {
    const found = await api.get(`/sessions/${row.session}`, {}, context.signal);
    const heading = el("h2", { tabindex: -1 }, t("sessions.turnsOf"), " ", name(titleOf(row)));
    const turns = (found.turns ?? []).flatMap((turn) => [...turn.input, ...(turn.answer ?? [])]).map(message);
    fill(opened, heading, found.turns === null ? el("p", null, t("sessions.encrypted")) : turns);
    heading.focus();
  }

  async function remove(row) {
    const lines = [t("sessions.lost", { bytes: bytes(row.bytes) })];
    if (!(await confirm({ title: t("models.removeTitle", { name: titleOf(row) }), lines, action: t("sessions.remove") }))) return;
    await api.remove(`/sessions/${row.session}`);
    notify(t("models.removed", { name: titleOf(row), bytes: bytes(row.bytes) }));
    fill(opened);
  }

  async function prune(days, histories) {
    const lines = [t("sessions.pruneLost", { days }), histories && t("sessions.pruneHistories")].filter(Boolean);
    if (!(await confirm({ title: t("sessions.pruneTitle"), lines, action: t("sessions.prune") }))) return;
    const done = await api.post("/sessions/prune", { unused: days * DAY_S, histories });
    notify(t("sessions.pruned", { count: done.removed.length, bytes: bytes(done.bytes) }));
  }

  const read = async () => {
    const [declared, found] = await Promise.all([api.get("/adapters", {}, context.signal), api.get("/sessions", {}, context.signal)]);
    adapters.update(declared.adapters);
    trained.update(declared.trained);
    renew(damaged, declared.problem && problem({ message: declared.problem }));
    sessions.update(found.sessions);
    renew(total, t("sessions.total", { count: found.sessions.length, bytes: bytes(found.bytes) }));
    if (!adapters.element.isConnected) {
      const forms = el("div", { class: "cards" }, pruneForm(context, prune), importForm(context));
      fill(container, downloads, adapters.element, damaged, trained.element, section(t("sessions.title"), total, sessions.element, opened, forms));
    }
  };
  follow(context, ["sessions_changed", "models_changed", "config_changed", "model_loading", "model_ready", "model_stopped", "job"], read);
}

const sizeOf = (row) => (row.bytes === null ? tag(t("machine.missing"), "warn") : bytes(row.bytes));

const titleOf = (row) => row.id ?? row.session.slice(0, 12);

const whereCell = (row) => [name(row.path), el("div", { class: "soft" }, t(`adapterOrigins.${row.origin}`))];

/** The state of an adapter, and what it means that it is missing or cannot be used. */
function adapterState(row) {
  if (row.problem) return [tag(t("adapters.unusable"), "bad"), el("p", { class: "warning" }, t("adapters.why", { base: row.base, why: row.problem }))];
  if (row.bytes !== null) return stateTag(row.state);
  if (row.origin === "hub") return [stateTag("absent"), el("div", { class: "soft" }, t("adapters.onHub"))];
  return [tag(t("machine.missing"), "warn"), el("div", { class: "soft" }, t("adapters.noFile"))];
}

const modelsOf = (row) => row.states.map((state) => el(
  "div",
  null,
  name(state.model),
  " ",
  el("span", { class: "soft" }, t("models.tokens", { count: count(state.tokens) })),
  state.encrypted && [" ", tag(t("sessions.isEncrypted"))],
));

/** A message of a chat: its content is a text, or parts with texts. */
function message(each) {
  const { content } = each;
  const words = Array.isArray(content) ? content.map((part) => part.text ?? `[${part.type}]`).join("\n") : content ?? JSON.stringify(each);
  return el("div", { class: `message ${each.role === "user" ? "user" : "other"}` }, el("h3", null, each.role ?? each.type ?? ""), el("div", { class: "words" }, words));
}

function form(context, heading, action, inputs, work) {
  const submit = (event) => {
    event.preventDefault();
    context.attempt(work);
  };
  return el("form", { class: "card", on: { submit } }, el("h3", null, heading), inputs, el("div", { class: "buttons" }, el("button", null, action)));
}

function pruneForm(context, prune) {
  const days = el("input", { type: "number", min: 0, required: true, value: "30" });
  const histories = el("input", { type: "checkbox" });
  const inputs = [field(t("sessions.days"), days), field(t("sessions.histories"), histories)];
  return form(context, t("sessions.pruneTitle"), t("sessions.prune"), inputs, () => prune(Number(days.value), histories.checked));
}

function importForm(context) {
  const file = el("input", { type: "file", accept: "application/json,.json", required: true });
  const as = el("input", { type: "text", spellcheck: "false" });
  const inputs = [field(t("sessions.file"), file), field(t("sessions.as"), as)];
  return form(context, t("sessions.importTitle"), t("sessions.import"), inputs, async () => {
    const exported = await file.files[0].text().then(JSON.parse).catch(() => null);
    if (exported === null) throw new api.ApiError(0, { message: t("sessions.noExport", { name: file.files[0].name }) });
    const done = await api.post("/sessions/import", { exported, ...(as.value.trim() ? { as: as.value.trim() } : {}) });
    notify(t("sessions.imported", { name: titleOf(done) }));
  });
}
