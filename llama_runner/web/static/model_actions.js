// What can be done with a model: used by the list and by the view of one model.

import * as api from "./api.js";
import { confirm } from "./dialog.js";
import { el } from "./dom.js";
import { bytes } from "./format.js";
import { button, name, notify, tag } from "./widgets.js";
import { t } from "./texts.js";

const KINDS = { ready: "good", absent: "plain", stopped: "plain" };
const MOST_FILES = 12;

/** The state of a model as a tag. */
export const stateTag = (state) => tag(t(`states.${state}`), KINDS[state] ?? "busy");

const isActive = (model) => !["absent", "stopped"].includes(model.state);

/** The buttons for a model; `context` is that of the view. */
export function modelButtons(model, context) {
  const make = (text, work, options) =>
    button(t(text), () => context.attempt(work), { label: t("models.actionOn", { action: t(text), name: model.name }), key: text, ...options });
  const found = [];
  if (!model.served) {
    found.push(make("models.serve", () => serve(model), { kind: "primary" }));
  } else if (isActive(model)) {
    found.push(make("models.stop", () => api.post(`/models/${api.part(model.name)}/stop`)));
  } else {
    found.push(make(model.state === "absent" ? "models.download" : "models.start", () => start(model), { kind: "primary" }));
  }
  if (model.served && model.state !== "absent") {
    const label = t("models.actionOn", { action: t("models.chat"), name: model.name });
    found.push(el("a", { class: "button", href: `#/chat/${api.part(model.name)}`, "aria-label": label, "data-focus": "chat" }, t("models.chat")));
  }
  if (model.served) found.push(make(model.pinned ? "models.unpin" : "models.pin", () => pin(model)));
  if (model.stored_as || model.origin === "client") found.push(make("models.remove", () => remove(model), { kind: "danger" }));
  return el("div", { class: "buttons" }, found);
}

async function start(model) {
  if (model.state === "absent") {
    await api.post(`/models/${api.part(model.name)}/prepare`);
    notify(t("models.downloading", { name: model.name }));
  } else {
    await api.post(`/models/${api.part(model.name)}/start`);
  }
}

async function serve(model) {
  await api.post("/models", { name: model.name });
}

async function pin(model) {
  await api.put(`/models/${api.part(model.name)}/pin`, { pinned: !model.pinned });
  notify(t(model.pinned ? "models.unpinned" : "models.pinned", { name: model.name }));
}

/** Delete the files of a model, or end its name, once it is clear what will be lost. */
export async function remove(model) {
  const path = `/models/${api.part(model.name)}`;
  let force = false;
  let look = null;
  if (model.stored_as) {
    try {
      look = await api.get(`${path}/removal`);
    } catch (error) {
      if (error.type !== "needs_force") throw error;
      const lines = [error.message, t("models.removeForce")];
      if (!(await confirm({ title: t("models.removeTitle", { name: model.name }), lines, action: t("models.removeAnyway") }))) return false;
      force = true;
      look = await api.get(`${path}/removal`, { force });
    }
  }
  if (!(await confirm({ title: t("models.removeTitle", { name: model.name }), lines: lost(model, look), action: t("models.remove") }))) return false;
  const done = await api.remove(path, { force });
  notify(t("models.removed", { name: model.name, bytes: bytes(done.bytes) }));
  return true;
}

function lost(model, look) {
  if (look === null) return [t("models.removeName")];
  const lines = [t("models.removeFrees", { bytes: bytes(look.bytes) })];
  if (isActive(model)) lines.push(t("models.removeStops"));
  if (look.shared > 0) lines.push(t("models.removeShared", { bytes: bytes(look.shared) }));
  const files = look.artifacts.filter((each) => each.present).map((each) => el("li", null, name(each.path), ` (${bytes(each.bytes)})`));
  const rest = files.length - MOST_FILES;
  lines.push(el("ul", null, files.slice(0, MOST_FILES), rest > 0 && el("li", null, t("models.moreFiles", { count: rest }))));
  for (const [file, why] of Object.entries(look.left)) lines.push(t("models.removeLeft", { file, why }));
  return lines;
}
