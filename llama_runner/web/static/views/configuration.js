// The configuration file: each value with its origin, forms from its schema, the difference before anything is saved.

import * as api from "../api.js";
import { confirm } from "../dialog.js";
import { el, fill, renew } from "../dom.js";
import { follow } from "../refresh_on_events.js";
import { button, empty, field, name, notify, problem, section, tag, waiting } from "../widgets.js";
import { table } from "../table.js";
import { t } from "../texts.js";
import { inputOf, shown } from "../value_input.js";

export const title = "configuration.title";

const PARTS = ["defaults", "gateway", "store"];

export function show(container, context) {
  waiting(container);
  const [part = "defaults", model] = context.parts;
  const prefix = part === "models" ? `models.${JSON.stringify(model ?? "")}` : part;
  const changes = new Map();
  let file = null;
  let original = "";
  let schema = null;
  let rows = [];

  const choice = el("select", { on: { change: () => context.go(...JSON.parse(choice.value)) } });
  const words = el("input", { type: "search", on: { input: draw } });
  const all = el("input", { type: "checkbox", on: { change: draw } });
  const mistakes = el("div", null);
  const pending = el("div", null);
  const review = el("div", { "aria-live": "polite" });
  const text = el("textarea", { rows: 20, spellcheck: "false", wrap: "off", class: "wide" });
  const where = el("p", { class: "soft" });
  const keys = table({
    caption: t("configuration.caption"),
    key: (row) => row.key,
    empty: empty(t("configuration.none")),
    columns: [
      { title: t("configuration.key"), cell: keyCell, sort: (row) => row.key },
      { title: t("configuration.value"), cell: (row) => (row.value === undefined ? "" : name(shown(row.value))) },
      { title: t("configuration.origin"), cell: originCell, sort: (row) => row.origin ?? "" },
      { title: t("models.actions"), cell: (row) => el(
        "div",
        { class: "buttons" },
        act("configuration.change", row.key, () => change(row)),
        row.isHere && act("configuration.unset", row.key, () => note(row.key, { unset: true })),
      ) },
    ],
  });

  const act = (key, about, work, options) =>
    button(t(key), () => context.attempt(async () => work()), { key, label: t("models.actionOn", { action: t(key), name: about }), ...options });

  /** Ask for a value by an input that fits its schema. */
  async function change(row) {
    const { input, read, help } = inputOf(row.schema, row.value);
    const lines = [el("p", null, row.schema.description), field(t("configuration.newValue"), input, help)];
    if (!(await confirm({ title: row.key, lines, action: t("configuration.note"), danger: false }))) return;
    note(row.key, { value: read() });
  }

  function note(key, what) {
    changes.set(key, { key: `${prefix}.${key}`, ...what });
    fill(review);
    drawPending();
  }

  function drawPending() {
    const list = [...changes].map(([key, each]) => el(
      "li",
      null,
      each.unset ? t("configuration.willUnset", { key }) : t("configuration.willSet", { key, value: shown(each.value) }),
      " ",
      act("configuration.drop", key, () => {
        changes.delete(key);
        fill(review);
        drawPending();
      }),
    ));
    const body = () => ({ changes: [...changes.values()], revision: file.revision });
    renew(pending, list.length > 0 && section(t("configuration.pending"), el("ul", null, list), button(t("configuration.look"), () => look(body()), { kind: "primary" })));
  }

  /** Show what a change does, and save it when that is confirmed. */
  const look = (body) => context.attempt(async () => {
    const found = await api.put("/config", body);
    const lines = found.diff.split("\n").map((line) => el("span", { class: /^(\+\+\+|---)/.test(line) ? null : { "+": "added", "-": "removed" }[line[0]] }, `${line}\n`));
    fill(
      review,
      el("h2", { tabindex: -1 }, t("configuration.difference")),
      found.diff ? el("pre", { tabindex: 0, "aria-label": t("configuration.difference") }, lines) : el("p", null, t("configuration.same")),
      found.differences.length > 0 && el("ul", null, found.differences.map((each) => el("li", null, name(each.what), ": ", each.text))),
      found.diff && button(t("configuration.save"), () => save({ ...body, revision: found.revision }), { kind: "primary" }),
    );
    review.querySelector("h2").focus();
  });

  const save = (body) => context.attempt(async () => {
    const done = await api.put("/config", { ...body, apply: true });
    changes.clear();
    fill(review);
    drawPending();
    const failed = done.reload_error;
    notify(failed ? t("configuration.notServed", { why: failed.message }) : t("configuration.saved"), { error: Boolean(failed), hint: failed?.hint });
    original = text.value; // is read again below
    refresh();
  });

  function draw() {
    const wanted = words.value.toLowerCase();
    keys.update(rows.filter((row) => (all.checked || row.isHere || row.isSet) && `${row.key} ${row.schema.description ?? ""}`.toLowerCase().includes(wanted)));
  }

  const read = async () => {
    const now = await api.get("/config", {}, context.signal);
    let unread = null; // a file with mistakes can be mended here too
    const values = await valuesOf(part, model, context).catch((error) => {
      if (![400, 404].includes(error.status)) throw error;
      unread = error;
      return new Map();
    });
    schema ??= await api.get("/config/schema", {}, context.signal);
    const isEdited = text.value !== original;
    file = isEdited ? { ...now, revision: file.revision } : now; // an edited text is for the file as it was
    if (!isEdited) text.value = now.text;
    if (!isEdited) original = text.value;
    rows = rowsOf(part, schema, values);
    renew(where, t("configuration.file"), " ", name(now.file));
    renew(choice, places(now.models));
    choice.value = JSON.stringify(["configuration", part, ...(model === undefined ? [] : [model])]);
    const listed = now.mistakes.length > 0 && el("ul", { class: "problem" }, now.mistakes.map(mistake));
    renew(mistakes, listed || (unread && problem(unread)));
    if (!keys.element.isConnected) {
      const toolbar = el("div", { class: "toolbar" }, field(t("configuration.part"), choice), field(t("configuration.filter"), words), field(t("configuration.all"), all));
      const whole = el(
        "details",
        null,
        el("summary", null, t("configuration.text")),
        field(t("configuration.wholeText"), text, t("configuration.textHelp")),
        button(t("configuration.lookText"), () => look({ text: text.value, revision: file.revision })),
      );
      const again = button(t("configuration.reload"), () => context.attempt(async () => {
        await api.post("/reload");
        notify(t("configuration.reloaded"));
      }));
      fill(container, where, mistakes, toolbar, keys.element, pending, whole, review, el("div", { class: "buttons" }, again));
    }
    draw();
  };
  const refresh = follow(context, ["config_changed", "models_changed"], read);
}

function keyCell(row) {
  return [el("strong", null, row.key), row.schema.description && el("div", { class: "soft" }, row.schema.description)];
}

function originCell(row) {
  if (!row.origin) return "";
  return [tag(row.origin, row.isHere ? "good" : "plain"), row.place && el("div", { class: "soft" }, el("bdi", null, row.place))];
}

const mistake = (each) =>
  el("li", null, el("bdi", null, each.line ? `${each.file}:${each.line}` : each.file), " ", name(each.key), ": ", each.text, each.hint && ` (${each.hint})`);

function places(models) {
  const option = (text, ...parts) => el("option", { value: JSON.stringify(["configuration", ...parts]) }, text);
  return [PARTS.map((each) => option(t(`configuration.${each}`), each)), models.map((each) => option(t("configuration.model", { name: each }), "models", each))];
}

/** What is set: of a model all layers with their origin, of another part what the file has. */
async function valuesOf(part, model, context) {
  const isModel = part === "models";
  const { keys } = isModel ? await api.get(`/config/models/${api.part(model ?? "")}`, {}, context.signal) : { keys: [] };
  const path = isModel ? `models.${JSON.stringify(model)}` : part;
  const { value } = await api.get("/config/value", { key: path }, context.signal).catch((error) => {
    if (![400, 404].includes(error.status)) throw error;
    return { value: {} }; // the file has no such part
  });
  return new Map([
    ...Object.entries(value).map(([key, each]) => [key, { key, value: each, origin: t("configuration.here"), isSet: true, isHere: true }]),
    ...keys.map((each) => [each.key, { ...each, isSet: each.origin !== "built in", isHere: each.origin === "model" }]),
  ]);
}

/** A row for each key that may be set, with what is set. */
function rowsOf(part, schema, values) {
  const about = schema.properties[part] ?? {};
  const known = (part === "models" ? about.additionalProperties : about).properties ?? {};
  const names = new Set([...values.keys(), ...Object.keys(known)]);
  return [...names].map((key) => {
    const own = known[key] ?? {};
    const preset = own.default === undefined ? {} : { value: own.default, origin: t("configuration.builtIn") };
    return { key, schema: own, isSet: false, isHere: false, ...(values.get(key) ?? preset) };
  });
}
