// The models: what is here, what it takes, what can be done with it. `#/models/NAME` is one of them.

import * as api from "../api.js";
import { el, fill, renew } from "../dom.js";
import { bytes, count, when } from "../format.js";
import { follow } from "../refresh_on_events.js";
import { modelButtons, stateTag } from "../model_actions.js";
import { button, empty, facts, field, name, problem, section, tag, waiting } from "../widgets.js";
import { table } from "../table.js";
import { t } from "../texts.js";

export const title = "models.title";

const MOST = 5000;
const CHANGES = [
  ...["models_changed", "model_preparing", "model_loading", "model_ready", "model_stopping", "model_stopped"],
  ...["model_failed", "job"],
];

export function show(container, context) {
  if (context.parts.length > 0) showOne(container, context, context.parts[0]);
  else showAll(container, context);
}

const memoryOf = (model) => Object.values(model.memory).reduce((sum, each) => sum + each, 0);

function nameCell(model) {
  const others = model.names.length > 0 && el("div", { class: "soft" }, t("models.alsoCalled"), " ", el("bdi", null, model.names.join(", ")));
  return [
    el("a", { href: `#/models/${api.part(model.name)}`, "data-focus": "name" }, name(model.name)),
    model.source && model.source !== model.name && el("div", { class: "soft" }, el("bdi", null, model.source)),
    others,
  ];
}

function stateCell(model) {
  return [stateTag(model.state), model.pinned && [" ", tag(t("models.isPinned"))], !model.served && [" ", tag(t("models.notServed"))]];
}

function showAll(container, context) {
  let rows = [];
  const words = el("input", { type: "search", on: { input: draw } });
  const found = table({
    caption: t("models.caption"),
    key: (model) => `${model.name} ${model.served || model.revision}`,
    empty: empty(t("models.none"), el("a", { class: "button primary", href: "#/discover" }, t("models.find"))),
    columns: [
      { title: t("models.name"), cell: nameCell, sort: (model) => model.name.toLowerCase() },
      { title: t("models.state"), cell: stateCell, sort: (model) => model.state },
      { title: t("models.quantizations"), cell: (model) => model.quantizations.join(", ") },
      { title: t("models.size"), class: "number", cell: (model) => (model.bytes ? bytes(model.bytes) : ""), sort: (model) => model.bytes },
      { title: t("models.memory"), class: "number", cell: (model) => (memoryOf(model) ? bytes(memoryOf(model)) : ""), sort: memoryOf },
      { title: t("models.actions"), cell: (model) => modelButtons(model, context) },
    ],
  });
  const noMatch = el("p", { role: "status" });
  waiting(container);

  function draw() {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    const matches = rows.filter((model) => {
      const text = [model.name, model.source, ...model.names].join(" ").toLowerCase();
      return wanted.every((word) => text.includes(word));
    });
    const isFiltered = rows.length > 0 && matches.length === 0;
    found.element.hidden = isFiltered;
    renew(noMatch, isFiltered ? t("models.noMatch") : null);
    found.update(matches);
  }

  follow(context, CHANGES, async () => {
    rows = (await api.get("/models", { limit: MOST }, context.signal)).models;
    if (!found.element.isConnected) {
      const toolbar = el("div", { class: "toolbar", role: "search" }, field(t("models.filter"), words));
      fill(container, toolbar, noMatch, found.element);
    }
    draw();
  });
}

function showOne(container, context, wanted) {
  waiting(container);
  const back = el("p", null, el("a", { href: "#/models" }, t("models.all")));
  const about = el("div", null);
  const refresh = follow(context, CHANGES, async () => {
    try {
      const shown = await api.get(`/models/${api.part(wanted)}`, {}, context.signal);
      renew(about, details(shown, context, () => refresh()));
    } catch (error) {
      if (error.status !== 404) throw error;
      renew(about, problem(error));
    }
    if (!about.isConnected) fill(container, back, about);
  });
}

function details({ model, stored }, context, refresh) {
  const keep = model.stored_as && button(
    t(model.kept ? "models.unkeep" : "models.keep"),
    () => context.attempt(async () => {
      await api.put(`/models/${api.part(model.name)}/keep`, { kept: !model.kept });
      await refresh();
    }),
    { key: "keep" },
  );
  const files = (stored?.artifacts ?? []).filter((each) => each.present);
  return [
    el("h2", null, name(model.name), " ", stateTag(model.state)),
    modelButtons(model, context),
    facts([
      [t("models.source"), model.source && name(model.source)],
      [t("models.alsoCalled"), model.names.length > 0 ? el("bdi", null, model.names.join(", ")) : null],
      [t("models.origin"), t(`origins.${model.origin}`)],
      [t("models.quantizations"), model.quantizations.join(", ") || null],
      [t("models.size"), model.bytes ? bytes(model.bytes) : null],
      [t("models.context"), model.context && t("models.tokens", { count: count(model.context) })],
      [t("models.revision"), model.revision],
      [t("models.lastUsed"), model.last_used && when(model.last_used)],
      ...Object.entries(model.memory).map(([place, used]) => [t("models.memoryOn", { place }), bytes(used)]),
    ]),
    files.length > 0 &&
      section(
        t("models.files"),
        el("ul", null, files.map((each) => el("li", null, name(each.path), ` (${bytes(each.bytes)})`))),
        el("p", { class: "soft" }, t(model.kept ? "models.isKept" : "models.isNotKept")),
        keep,
      ),
    stored && el("p", null, el("a", { href: `#/why/${api.part(model.name)}` }, t("models.why"))),
  ];
}
